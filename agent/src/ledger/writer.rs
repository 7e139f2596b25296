//! The ledger's thread: it takes what waits, writes it to the log, then to the store, then says so.
//!
//! What the disk does not take is held in memory and tried again, and sinks are given it from there. The log and the
//! store fail apart: what the log has waits for the store in the log, and not in memory. While much is held nevertheless,
//! commits wait in the inbox and lanes behind it, and requests are answered all the same.

mod held;

#[cfg(test)]
pub(crate) use self::held::full;

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

pub(super) use self::held::HELD_BYTES_MAX;
use self::held::{Cursors, Held};
use super::follow::{self, Taken};
use super::{Checkpoint, Commit, ROWS_READ_MAX, Request, STOP_MAX, Settings, Status, Weighed};
use crate::alert_log::AlertLog;
use crate::store::{self, DocumentLocation, LogCursor, Spooled, Store};
use crate::trace::Trace;

/// How much is taken from the inbox before it is written.
const TAKEN_BYTES_MAX: usize = 1 << 20;
/// How long after a failure the disk is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How often some of the rows are deleted that were left behind when the store was opened.
const DELETE_EACH: Duration = Duration::from_millis(50);

/// The owner of log and store.
pub(super) struct Writer {
    log: AlertLog,
    log_path: PathBuf,
    store: Store,
    /// Whether the log has documents that the store lacks: new ones queue behind them.
    behind: bool,
    /// Whether the store does not even know some that are in the log. What comes then is kept from it as well, until it
    /// has read them there: they keep their order.
    gap: bool,
    held: Held,
    /// Up to where each sink has delivered.
    cursors: Cursors,
    /// Whether the store is damaged, and a new one is to take its place.
    damaged: bool,
    /// When the disk is tried again after it failed.
    retry: Option<Instant>,
    commits: Receiver<Weighed>,
    /// Whether no commit can come any more.
    lanes_ended: bool,
    /// What was given up at the end: alerts and changes of state.
    lost: (usize, usize),
    requests: Receiver<Request>,
    clients_ended: bool,
    /// Wakes sinks when there is something to read; dropped when nothing more comes.
    wake: Option<watch::Sender<i64>>,
    status: Arc<Status>,
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
        commits: Receiver<Weighed>,
        requests: Receiver<Request>,
        wake: watch::Sender<i64>,
        status: Arc<Status>,
    ) -> Result<Self> {
        let mut store = Store::open(settings.state_dir, settings.spool, settings.sinks)?;
        if let Some(why) = store.quarantined() {
            status.quarantined.raise(why);
        }
        let log = AlertLog::open(settings.alerts)?;
        let _ = status.retention.set(log.retention());
        let log_path = settings.alerts.path.clone();
        let taken = follow::recover(&log_path, &mut store).with_context(|| {
            format!("cannot synchronize the store with the alert log {}", log_path.display())
        })?;
        let cursors = Cursors::of(settings.sinks, &store)?;
        let mut writer = Self {
            log,
            log_path,
            store,
            behind: false,
            gap: false,
            held: Held::default(),
            cursors,
            damaged: false,
            retry: None,
            commits,
            lanes_ended: false,
            lost: (0, 0),
            requests,
            clients_ended: false,
            wake: Some(wake),
            status,
        };
        writer.after_change(taken == Taken::Full);
        Ok(writer)
    }

    /// Where the log and the store are.
    pub(super) fn traces(&self) -> [Arc<Trace>; 2] {
        [self.log.trace(), self.store.trace()]
    }

    /// Works until all who could ask for something are gone.
    ///
    /// # Errors
    /// At the end the disk did not take everything.
    pub(super) fn run(mut self) -> Result<()> {
        while self.wake.is_some() || !self.clients_ended {
            let input = self.wait();
            let retry = matches!(input, Input::Timer);
            self.accept(input);
            self.drain();
            if self.retry.is_none() || retry {
                self.settle();
            }
            if self.retry.is_some() {
                self.wait_for_the_disk();
            }
            if self.lanes_ended && self.held.is_empty() {
                self.wake = None;
            }
        }
        self.outcome()
    }

    /// The disk has failed: sinks are given what is held, and there is room for more where that can be made. After a stop
    /// it is waited for no longer than [`STOP_MAX`].
    fn wait_for_the_disk(&mut self) {
        if self.status.stopped_for() >= STOP_MAX {
            return self.give_up();
        }
        self.make_room();
        if let (Some(wake), Some(last)) = (&self.wake, self.held.last()) {
            wake.send_if_modified(|known| {
                *known < last && {
                    *known = last;
                    true
                }
            });
        }
        self.count_held();
    }

    fn wait(&self) -> Input {
        let (no_commits, no_requests) = (never(), never());
        let closed = self.lanes_ended || self.held.bytes() >= HELD_BYTES_MAX;
        let commits = if closed { &no_commits } else { &self.commits };
        let requests = if self.clients_ended { &no_requests } else { &self.requests };
        let timer = match self.retry {
            Some(retry) => at(retry),
            None if self.behind && self.store.has_room() => after(Duration::ZERO),
            None if self.store.has_left_behind() => after(DELETE_EACH),
            None => never(),
        };
        select_biased! {
            recv(requests) -> request => request.map_or(Input::ClientsEnded, Input::Request),
            recv(commits) -> commit => commit.map_or(Input::LanesEnded, |(commit, _)| Input::Commit(commit)),
            recv(timer) -> _ => Input::Timer,
        }
    }

    fn accept(&mut self, input: Input) {
        match input {
            Input::Commit(commit) => self.take(commit),
            Input::LanesEnded => {
                self.lanes_ended = true;
                self.status.stop();
            }
            Input::Request(request) => self.answer(request),
            Input::ClientsEnded => self.clients_ended = true,
            Input::Timer => {}
        }
    }

    /// Takes what else waits: it becomes durable with one sync.
    fn drain(&mut self) {
        let most = if self.retry.is_some() { HELD_BYTES_MAX } else { TAKEN_BYTES_MAX };
        while self.held.bytes() < most
            && let Ok((commit, _)) = self.commits.try_recv()
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
            self.log.append(alert.json.clone());
            self.status.to_log(&alert.json);
            self.held.alert(alert, self.store.last());
        }
        self.held.checkpoint(checkpoint);
        self.count_held();
    }

    fn count_held(&self) {
        self.status.held.store(self.held.alerts.len() as u64, Relaxed);
        self.status.buffered_bytes.store(self.held.bytes() as u64, Relaxed);
    }

    /// Where the store cannot be queried, an alert that is written twice is better than none.
    fn is_known(&mut self, id: &str) -> bool {
        self.held.knows(id)
            || self.store.knows(id).unwrap_or_else(|error| {
                self.trouble(&error);
                false
            })
    }

    /// The client may be gone; a reply that is dropped means that the store could not be read.
    fn answer(&mut self, request: Request) {
        let result = match request {
            Request::Read { after, count_max, bytes_max, reply } => {
                self.read(after, count_max, bytes_max).map(|alerts| _ = reply.send(alerts))
            }
            Request::Cursor { sink, reply } => self.store.cursor(&sink).map(|cursor| _ = reply.send(cursor)),
            Request::Undelivered { after, reply } => {
                self.store.undelivered(after).map(|count| _ = reply.send((count, self.store.arrived())))
            }
            Request::Rows { scope, after, reply } => {
                self.store.rows(&scope, after.as_deref(), ROWS_READ_MAX).map(|rows| _ = reply.send(rows))
            }
            Request::Acknowledge { sink, sequence } => {
                self.held.acknowledge(&sink, sequence);
                self.cursors.advance(sink, sequence);
                Ok(())
            }
            // The disk has its last chance at once, and then until the time is over.
            Request::Stop => {
                self.retry = self.retry.map(|_| Instant::now());
                Ok(())
            }
            Request::Change { changes } => {
                self.take(Commit { alerts: Vec::new(), checkpoint: Checkpoint { changes, done: None } });
                Ok(())
            }
            Request::Reopen => {
                self.retry = self.retry.map(|_| Instant::now());
                if let Err(error) = self.log.reopen() {
                    self.status.log.raise(format!("cannot be reopened: {error}"));
                }
                Ok(())
            }
        };
        if let Err(error) = result {
            self.trouble(&error);
        }
    }

    /// The store could not be read or written. One that is damaged gives way to a new one with the next attempt.
    fn trouble(&mut self, error: &rusqlite::Error) {
        self.status.store.raise(self.store.explain(error));
        if store::is_damage(error) {
            self.damaged = true;
            self.retry.get_or_insert_with(Instant::now);
        }
    }

    /// A new store in place of a damaged one: it is brought up to the alert log, and sinks keep their places.
    fn renew(&mut self) -> Result<()> {
        self.store.renew(self.cursors.iter(), self.held.first() - 1)?;
        self.damaged = false;
        self.status.quarantined.raise(self.store.quarantined().unwrap_or_default());
        let taken = follow::recover(&self.log_path, &mut self.store)?;
        self.gap = false;
        self.after_change(taken == Taken::Full);
        Ok(())
    }

    /// What a sink is to deliver next: from the store, or, where the disk takes nothing and all that the store has is
    /// delivered, from memory.
    fn read(&self, after: i64, count_max: usize, bytes_max: usize) -> rusqlite::Result<Vec<Spooled>> {
        let stored = self.store.read(after, count_max, bytes_max);
        let in_order = self.retry.is_some() && !self.gap && self.store.waiting() == 0;
        if !in_order || stored.as_ref().is_ok_and(|some| !some.is_empty()) {
            return stored;
        }
        let held = self.held.read(after, count_max, bytes_max);
        if held.is_empty() {
            return stored;
        }
        self.status.from_memory.fetch_add(held.len() as u64, Relaxed);
        Ok(held)
    }

    /// Makes durable what is held, and goes on following the log where the store is behind it.
    fn settle(&mut self) {
        self.retry = None;
        // The order holds: an alert that is not in the log does not come into the store.
        let store = self.write_log().and_then(|()| {
            if self.damaged
                && let Err(error) = self.renew()
            {
                self.status.store.raise(format!("cannot replace the damaged store: {error:#}"));
                return Err(());
            }
            self.write_store().map_err(|error| self.trouble(&error))
        });
        if store.is_err() {
            self.retry = Some(Instant::now() + RETRY_AFTER);
        } else if self.behind && self.store.has_room() {
            self.follow();
        } else if self.store.has_left_behind()
            && let Err(error) = self.store.delete_some()
        {
            self.trouble(&error);
            self.retry = Some(Instant::now() + RETRY_AFTER);
        }
    }

    /// An error was reported.
    fn write_log(&mut self) -> Result<(), ()> {
        let before = self.log.waiting();
        let outcome = self.log.sync();
        let (waiting, logged) = (self.log.waiting(), before - self.log.waiting());
        self.status.written.fetch_add(logged as u64, Relaxed);
        self.status.logged(logged);
        match outcome {
            Ok(()) if logged > 0 => self.status.log.clear(),
            Ok(()) => {}
            Err(error) => self.status.log.raise(log_trouble(&error, waiting)),
        }
        if waiting == 0 { Ok(()) } else { Err(()) }
    }

    fn write_store(&mut self) -> rusqlite::Result<()> {
        if self.held.is_empty() {
            return Ok(());
        }
        let gap = self.gap || self.held.in_log;
        let mut behind = self.behind || gap;
        let mut changes = self.store.change()?;
        for (number, alert) in self.held.numbered().filter(|_| !gap) {
            let place = if behind { DocumentLocation::Log } else { DocumentLocation::Spool };
            changes.number_from(number);
            behind |= changes.alert(alert, place)? == DocumentLocation::Log;
        }
        if self.held.left_out || !gap {
            changes.number_from(self.held.next());
        }
        for change in self.held.changes() {
            changes.state(change)?;
        }
        for (sink, sequence) in self.held.cursors() {
            changes.acknowledge(sink, *sequence)?;
        }
        if !self.held.alerts.is_empty()
            && !gap
            && let Some(position) = self.log.position()
        {
            changes.position(LogCursor::Known, &position)?;
            if !behind {
                changes.position(LogCursor::Taken, &position)?;
            }
        }
        changes.commit()?;
        self.status.store.clear();
        self.gap = gap;
        let held = mem::take(&mut self.held);
        self.status.committed.fetch_add(held.commits, Relaxed);
        self.count_held();
        self.after_change(behind);
        held.done.into_iter().for_each(|done| done());
        Ok(())
    }

    fn follow(&mut self) {
        match follow::take_over(&self.log_path, &mut self.store, Timestamp::MIN) {
            Ok(taken) => {
                self.gap &= taken != Taken::All;
                self.after_change(taken != Taken::All);
            }
            Err(error) => {
                self.status.store.raise(format!("cannot read pending alerts from the alert log: {error:#}"));
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
                "it is full: {waiting} alerts wait in the alert log and are lost upstream if it is rotated before they \
                 are sent; check the sinks, or raise `spool.size_max`"
            ));
        } else {
            self.status.spool.clear();
        }
        self.status.update(&self.store);
        if let Some(wake) = &self.wake {
            wake.send_replace(self.store.last());
        }
    }

    /// What is held gives way to what comes: what the log has, for the store can read it there, and, where the log takes
    /// nothing, what every sink has delivered. The latter goes to the agent's own log, so that it is on the host.
    fn make_room(&mut self) {
        while self.held.bytes() >= HELD_BYTES_MAX {
            let logged = self.held.alerts.len() > self.log.waiting();
            if !logged && (self.gap || self.cursors.delivered() < self.held.first()) {
                return;
            }
            let Some(alert) = self.held.release() else { return };
            if logged {
                self.held.in_log = true;
            } else {
                self.held.left_out = true;
                self.log.leave_out();
                self.status.logged(1);
                self.status.not_logged.fetch_add(1, Relaxed);
                super::status::report_lost(&alert.json);
            }
        }
    }

    /// At the end nothing is gained by waiting for ever. What could not be kept goes to the agent's own log.
    fn give_up(&mut self) {
        let next = self.held.next();
        let held = mem::replace(&mut self.held, Held::from_number(next));
        self.retry = None;
        (0..self.log.waiting()).for_each(|_| self.log.leave_out());
        self.lost.0 += self.status.lose_unlogged();
        self.lost.1 += held.changes().len();
        self.count_held();
    }

    fn outcome(&self) -> Result<()> {
        let (alerts, changes) = self.lost;
        if (alerts, changes) == (0, 0) {
            return Ok(());
        }
        let why = self.status.log.message().or_else(|| self.status.store.message()).unwrap_or_default();
        bail!("{alerts} alerts and {changes} changes of state could not be kept: {why}");
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
        "cannot be written: {error}; {cure}; until then {waiting} alerts are held in memory, where sinks get them, and \
         rules wait when that is full"
    )
}
