//! The ledger's thread: it takes what waits, writes it to the log, then to the store, then says so.
//!
//! What the disk does not take is held in memory and tried again; while much is held, commits wait in the inbox and
//! lanes behind it, and requests are answered all the same.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::mem;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use crossbeam_channel::{Receiver, after, at, never, select_biased};
use lapwing_engine::Timestamp;
use tokio::sync::watch;

use super::follow::{self, Taken};
use super::{AlertDocument, Change, Commit, ROWS_READ_MAX, Request, Settings, Status};
use crate::alert_log::AlertLog;
use crate::store::{Place, Reach, Store};

/// How much is taken from the inbox before it is written.
const HELD_BYTES_MAX: usize = 4 << 20;
/// How long after a failure the disk is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long the disk is tried at the end before what it does not take is given up.
const RETRY_AT_END_MAX: Duration = Duration::from_secs(5);

/// The owner of log and store.
pub(super) struct Writer {
    log: AlertLog,
    log_path: PathBuf,
    store: Store,
    /// Whether the log has documents that the store lacks: new ones queue behind them.
    behind: bool,
    held: Held,
    /// When the disk is tried again after it failed.
    retry: Option<Instant>,
    commits: Receiver<Commit>,
    /// Since when no commit can come any more.
    lanes_ended: Option<Instant>,
    requests: Receiver<Request>,
    clients_ended: bool,
    /// Tells sinks that there is something to read; dropped when nothing more comes.
    wake: Option<watch::Sender<i64>>,
    status: Arc<Status>,
}

/// What is not yet durable, in order.
#[derive(Default)]
struct Held {
    alerts: Vec<AlertDocument>,
    /// How many of the alerts are in the log already.
    logged: usize,
    ids: HashSet<String>,
    changes: Vec<Change>,
    cursors: BTreeMap<String, i64>,
    done: Vec<Box<dyn FnOnce() + Send>>,
    commits: u64,
    bytes: usize,
}

impl Held {
    fn is_empty(&self) -> bool {
        self.commits == 0 && self.cursors.is_empty()
    }

    fn is_full(&self) -> bool {
        self.bytes >= HELD_BYTES_MAX
    }
}

/// What the thread wakes up for.
enum Input {
    Commit(Commit),
    LanesEnded,
    Request(Request),
    ClientsEnded,
    Timer,
}

impl Writer {
    /// Opens log and store and brings the store up to the log.
    pub(super) fn open(
        settings: &Settings,
        commits: Receiver<Commit>,
        requests: Receiver<Request>,
        wake: watch::Sender<i64>,
        status: Arc<Status>,
    ) -> Result<Self> {
        let mut store = Store::open(settings.state_dir, settings.spool, settings.sinks)?;
        let log = AlertLog::open(settings.alerts)?;
        let log_path = settings.alerts.path.clone();
        let taken = follow::recover(&log_path, &mut store)
            .with_context(|| format!("cannot bring the store up to the alert log {}", log_path.display()))?;
        let mut writer = Self {
            log,
            log_path,
            store,
            behind: false,
            held: Held::default(),
            retry: None,
            commits,
            lanes_ended: None,
            requests,
            clients_ended: false,
            wake: Some(wake),
            status,
        };
        writer.after_change(taken == Taken::Full);
        Ok(writer)
    }

    /// Works until all who could ask for something are gone.
    ///
    /// # Errors
    /// At the end the disk did not take everything.
    pub(super) fn run(mut self) -> Result<()> {
        let mut outcome = Ok(());
        while self.wake.is_some() || !self.clients_ended {
            let input = self.wait();
            let retry = matches!(input, Input::Timer);
            self.accept(input);
            self.drain();
            if self.retry.is_none() || retry {
                self.settle();
            }
            if let Some(ended) = self.lanes_ended {
                if self.retry.is_some() && ended.elapsed() >= RETRY_AT_END_MAX {
                    outcome = outcome.and(self.give_up());
                }
                if self.held.is_empty() {
                    self.wake = None;
                }
            }
        }
        outcome
    }

    fn wait(&self) -> Input {
        let (no_commits, no_requests) = (never(), never());
        let closed = self.lanes_ended.is_some() || self.held.is_full();
        let commits = if closed { &no_commits } else { &self.commits };
        let requests = if self.clients_ended { &no_requests } else { &self.requests };
        let timer = match self.retry {
            Some(retry) => at(retry),
            None if self.behind && self.store.has_room() => after(Duration::ZERO),
            None => never(),
        };
        select_biased! {
            recv(requests) -> request => request.map_or(Input::ClientsEnded, Input::Request),
            recv(commits) -> commit => commit.map_or(Input::LanesEnded, Input::Commit),
            recv(timer) -> _ => Input::Timer,
        }
    }

    fn accept(&mut self, input: Input) {
        match input {
            Input::Commit(commit) => self.take(commit),
            Input::LanesEnded => self.lanes_ended = Some(Instant::now()),
            Input::Request(request) => self.answer(request),
            Input::ClientsEnded => self.clients_ended = true,
            Input::Timer => {}
        }
    }

    /// Takes what else waits: it becomes durable with one sync.
    fn drain(&mut self) {
        while !self.held.is_full()
            && let Ok(commit) = self.commits.try_recv()
        {
            self.take(commit);
        }
        while let Ok(request) = self.requests.try_recv() {
            self.answer(request);
        }
    }

    fn take(&mut self, commit: Commit) {
        let Commit { alerts, checkpoint } = commit;
        for alert in alerts {
            if self.is_known(&alert.id) {
                self.status.repeated.fetch_add(1, Relaxed);
                continue;
            }
            self.log.append(&alert.json);
            self.held.bytes += alert.json.len() + size_of::<AlertDocument>();
            self.held.ids.insert(alert.id.clone());
            self.held.alerts.push(alert);
        }
        for change in &checkpoint.changes {
            let value = change.value.as_ref().map_or(0, Vec::len);
            self.held.bytes += change.key.len() + value + size_of::<Change>();
        }
        self.held.changes.extend(checkpoint.changes);
        self.held.done.extend(checkpoint.done);
        self.held.commits += 1;
        self.status.held.store(self.held.alerts.len() as u64, Relaxed);
    }

    /// Where the store cannot be asked, an alert that is written twice is better than none.
    fn is_known(&self, id: &str) -> bool {
        self.held.ids.contains(id)
            || self.store.knows(id).unwrap_or_else(|error| {
                self.status.store.raise(self.store.explain(&error));
                false
            })
    }

    /// Whoever asked may be gone; a reply that is dropped says that the store could not be read.
    fn answer(&mut self, request: Request) {
        let result = match request {
            Request::Read { after, count_max, bytes_max, reply } => {
                self.store.read(after, count_max, bytes_max).map(|alerts| _ = reply.send(alerts))
            }
            Request::Cursor { sink, reply } => self.store.cursor(&sink).map(|cursor| _ = reply.send(cursor)),
            Request::Rows { scope, after, reply } => {
                self.store.rows(&scope, after.as_deref(), ROWS_READ_MAX).map(|rows| _ = reply.send(rows))
            }
            Request::Acknowledge { sink, sequence } => {
                self.held.cursors.insert(sink, sequence);
                Ok(())
            }
            Request::Reopen => {
                if let Err(error) = self.log.reopen() {
                    self.status.log.raise(format!("cannot be opened anew: {error}"));
                }
                Ok(())
            }
        };
        if let Err(error) = result {
            self.status.store.raise(self.store.explain(&error));
        }
    }

    /// Makes durable what is held, and goes on following the log where the store is behind it.
    fn settle(&mut self) {
        self.retry = None;
        let result = self.write_log().and_then(|()| {
            self.write_store().map_err(|error| self.status.store.raise(self.store.explain(&error)))
        });
        if result.is_err() {
            self.retry = Some(Instant::now() + RETRY_AFTER);
        } else if self.behind && self.store.has_room() {
            self.follow();
        }
    }

    /// An error was reported.
    fn write_log(&mut self) -> Result<(), ()> {
        if let Err(error) = self.log.sync() {
            let waiting = self.held.alerts.len() - self.held.logged;
            self.status.log.raise(log_trouble(&error, waiting));
            return Err(());
        }
        let logged = self.held.alerts.len() - mem::replace(&mut self.held.logged, self.held.alerts.len());
        if logged > 0 {
            self.status.written.fetch_add(logged as u64, Relaxed);
            self.status.log.clear();
        }
        Ok(())
    }

    fn write_store(&mut self) -> rusqlite::Result<()> {
        if self.held.is_empty() {
            return Ok(());
        }
        let mut behind = self.behind;
        let mut changes = self.store.change()?;
        for alert in &self.held.alerts {
            let place = if behind { Place::Log } else { Place::Spool };
            behind |= changes.alert(alert, place)? == Place::Log;
        }
        for change in &self.held.changes {
            changes.state(change)?;
        }
        for (sink, sequence) in &self.held.cursors {
            changes.acknowledge(sink, *sequence)?;
        }
        if !self.held.alerts.is_empty()
            && let Some(position) = self.log.position()
        {
            changes.position(Reach::Known, &position)?;
            if !behind {
                changes.position(Reach::Taken, &position)?;
            }
        }
        changes.commit()?;
        self.status.store.clear();
        let held = mem::take(&mut self.held);
        self.status.committed.fetch_add(held.commits, Relaxed);
        self.status.held.store(0, Relaxed);
        self.after_change(behind);
        held.done.into_iter().for_each(|done| done());
        Ok(())
    }

    fn follow(&mut self) {
        match follow::take_over(&self.log_path, &mut self.store, Timestamp::MIN) {
            Ok(taken) => self.after_change(taken != Taken::All),
            Err(error) => {
                self.status
                    .store
                    .raise(format!("alerts that wait in the log cannot be taken over: {error:#}"));
                self.retry = Some(Instant::now() + RETRY_AFTER);
            }
        }
    }

    /// Says what became of the spool, and wakes the sinks.
    fn after_change(&mut self, behind: bool) {
        self.behind = behind;
        if behind {
            let waiting = self.store.waiting();
            self.status.spool.raise(format!(
                "it is full: {waiting} alerts wait in the alert log, and are missed upstream if it is rotated away \
                 before; see what keeps the sinks, or raise `spool.size_max`"
            ));
        } else {
            self.status.spool.clear();
        }
        self.status.update(&self.store);
        if let Some(wake) = &self.wake {
            wake.send_replace(self.store.last());
        }
    }

    /// At the end nothing is gained by waiting for ever. What could not be kept goes to the agent's own log.
    fn give_up(&mut self) -> Result<()> {
        let held = mem::take(&mut self.held);
        self.retry = None;
        for alert in &held.alerts[held.logged..] {
            tracing::error!(alert = %String::from_utf8_lossy(&alert.json), "an alert could not be written");
        }
        let lost = held.alerts.len() - held.logged;
        if lost == 0 && held.changes.is_empty() {
            return Ok(());
        }
        let why = self.status.log.message().or_else(|| self.status.store.message()).unwrap_or_default();
        bail!("{lost} alerts and {} changes of state could not be kept: {why}", held.changes.len());
    }
}

fn log_trouble(error: &io::Error, waiting: usize) -> String {
    let cure = match error.kind() {
        io::ErrorKind::StorageFull => "free space on its file system",
        io::ErrorKind::QuotaExceeded => "raise the quota of the agent's user, or free space",
        io::ErrorKind::FileTooLarge => "raise the agent's limit of file size, or lower `alerts.rotate_size`",
        io::ErrorKind::ReadOnlyFilesystem => "mount its file system writable",
        io::ErrorKind::PermissionDenied => "let the agent's user write there",
        _ => "see to its disk",
    };
    format!(
        "cannot be written: {error}; {cure}; {waiting} alerts are held in memory, and rules wait, until then"
    )
}
