//! The ledger's thread: it takes what waits, writes it to the log, then to the store, then confirms it.
//!
//! What the disk does not accept is held in memory and retried, and sinks read it from there. Log and store fail
//! independently: what the log has waits for the store in the log, not in memory. When too much is held, commits wait
//! in the inbox and lanes wait for the inbox (backpressure). Requests are still answered.

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

use self::held::{Cursors, Held};
use super::HELD_BYTES_MAX;
use super::follow::{self, FollowRead};
use super::{Checkpoint, Commit, LedgerStatus, ROWS_READ_MAX, Request, STOP_MAX, Settings, Weighed};
use crate::alert_log::AlertLog;
use crate::store::{self, DocumentLocation, LogCursor, Spooled, Store};
use crate::trace::Trace;

/// How much is taken from the inbox before it is written.
const TAKEN_BYTES_MAX: usize = 1 << 20;
/// How long after a failure the disk is retried.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How often some of the rows that were left behind at the opening of the store are deleted.
const DELETE_EACH: Duration = Duration::from_millis(50);

/// The owner of log and store.
pub(super) struct Writer {
    log: AlertLog,
    log_path: PathBuf,
    store: Store,
    /// Whether the log has documents that the store lacks: new ones queue behind them.
    behind: bool,
    /// Whether the store lacks even the ids of some alerts in the log. Then new alerts are withheld from it until it
    /// has read those, to keep the order.
    gap: bool,
    held: Held,
    /// Up to where each sink has delivered.
    cursors: Cursors,
    /// Whether the store is damaged and must be replaced.
    damaged: bool,
    /// When the disk is retried after a failure.
    retry: Option<Instant>,
    commits: Receiver<Weighed>,
    /// Whether no more commits can come.
    lanes_ended: bool,
    /// What was given up at the end: alerts and changes of state.
    lost: (usize, usize),
    requests: Receiver<Request>,
    clients_ended: bool,
    /// Notifies sinks of new alerts; dropped when no more will come.
    wake: Option<watch::Sender<i64>>,
    status: Arc<LedgerStatus>,
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
    /// Opens log and store, and synchronizes the store with the log.
    pub(super) fn open(
        settings: &Settings,
        commits: Receiver<Weighed>,
        requests: Receiver<Request>,
        wake: watch::Sender<i64>,
        status: Arc<LedgerStatus>,
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
        writer.after_change(taken == FollowRead::Full);
        Ok(writer)
    }

    /// Where the log and the store are.
    pub(super) fn traces(&self) -> [Arc<Trace>; 2] {
        [self.log.trace(), self.store.trace()]
    }

    /// Runs until all senders and clients are gone.
    ///
    /// # Errors
    /// At the end the disk had not accepted everything.
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

    /// After a failure of the disk: sinks get what is held, and room for more is made where possible. After a stop the
    /// disk has [`STOP_MAX`].
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

    /// Takes everything else that waits, so that one sync makes all of it durable.
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

    /// If the store cannot be read, a duplicate alert is better than a missing one.
    fn is_known(&mut self, id: &str) -> bool {
        self.held.knows(id)
            || self.store.knows(id).unwrap_or_else(|error| {
                self.trouble(&error);
                false
            })
    }

    /// The requester may be gone. A dropped reply means that the store could not be read.
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
            // The disk is retried at once, and then until the time limit.
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

    /// The store could not be read or written. A damaged one is replaced at the next attempt.
    fn trouble(&mut self, error: &rusqlite::Error) {
        self.status.store.raise(self.store.explain(error));
        if store::is_damage(error) {
            self.damaged = true;
            self.retry.get_or_insert_with(Instant::now);
        }
    }

    /// Replaces a damaged store by a new one, which is synchronized with the alert log. Sinks keep their cursors.
    fn renew(&mut self) -> Result<()> {
        self.store.renew(self.cursors.iter(), self.held.first() - 1)?;
        self.damaged = false;
        self.status.quarantined.raise(self.store.quarantined().unwrap_or_default());
        let taken = follow::recover(&self.log_path, &mut self.store)?;
        self.gap = false;
        self.after_change(taken == FollowRead::Full);
        Ok(())
    }

    /// What a sink delivers next: from the store, or from memory if the disk accepts nothing and everything in the
    /// store is delivered.
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

    /// Makes what is held durable, and reads the log on if the store is behind.
    fn settle(&mut self) {
        self.retry = None;
        // An alert that is not in the log is not written to the store.
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

    /// The error was reported already.
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
                self.gap &= taken != FollowRead::All;
                self.after_change(taken != FollowRead::All);
            }
            Err(error) => {
                self.status.store.raise(format!("cannot read pending alerts from the alert log: {error:#}"));
                self.retry = Some(Instant::now() + RETRY_AFTER);
            }
        }
    }

    /// Updates the spool's status and wakes the sinks.
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

    /// Evicts held alerts to make room: those in the log, because the store can read them there, and, if the log
    /// accepts nothing, those that every sink has delivered. The latter go to the agent's own log, so that the host has
    /// them.
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

    /// Gives up after the stop's time limit. What could not be written goes to the agent's own log.
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
