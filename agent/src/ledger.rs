//! The thread that owns the alert log and the store. Other threads send it what is to be saved, in order; everything in
//! one [`Commit`] becomes durable together.
//!
//! Lanes hold a [`LedgerSender`], whose [`offer`](LedgerSender::offer) returns a commit while the disk accepts none
//! (backpressure); sinks and commands hold a [`LedgerClient`], whose requests never wait behind commits. When the last
//! sender is dropped the ledger makes everything durable and closes the clients' notifications; when the last client is
//! dropped the thread ends and returns whether anything was lost. After [`LedgerClient::stop`] the disk has
//! [`STOP_MAX`]: what it has not accepted by then goes to the agent's own log.

mod follow;
mod status;
mod writer;

pub(crate) use status::{LedgerReport, LedgerStatus};

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use crossbeam_channel::{Receiver, SendError, Sender, unbounded};
use tokio::sync::{oneshot, watch};

use crate::alert::AlertDocument;
use crate::budget::Taken;
use crate::store::{Change, Checkpoint, Spooled};
use crate::trace::Trace;
use crate::{alert_log, store};

/// How many bytes are held while the disk accepts none, before commits wait.
const HELD_BYTES_MAX: usize = 6 << 20;
/// Most bytes of commits in the inbox before their senders wait.
const COMMITS_WAITING_BYTES_MAX: usize = 2 << 20;
/// Memory of a commit beside its alerts and changes.
const COMMIT_BYTES: usize = 256;
/// How long a sender waits before it checks for room again.
const ROOM_WAIT: Duration = Duration::from_millis(10);
/// How long after a stop the disk is retried before the rest is given up.
const STOP_MAX: Duration = Duration::from_secs(3);
/// How much longer a lane waits for a ledger that hangs in a system call.
const HUNG_MAX: Duration = Duration::from_secs(1);
/// How many rows of state are read at once.
const ROWS_READ_MAX: usize = 1024;

/// What becomes durable together: first the alerts' lines in the log, synced; then, in one transaction, the
/// alerts in the spool and all changes.
#[derive(Default)]
pub(crate) struct Commit {
    /// Alerts in the order in which they were raised. One with a known id is not written again.
    pub(crate) alerts: Vec<AlertDocument>,
    /// State of rules that changed with these alerts, and the source's checkpoint.
    pub(crate) checkpoint: Checkpoint,
}

impl Commit {
    fn bytes(&self) -> usize {
        let alerts: usize = self.alerts.iter().map(AlertDocument::bytes).sum();
        COMMIT_BYTES + alerts + self.checkpoint.bytes()
    }
}

/// The settings of the ledger.
pub(crate) struct Settings<'a> {
    /// The alert log.
    pub(crate) alerts: &'a alert_log::Config,
    /// The spool.
    pub(crate) spool: &'a store::Config,
    /// Where the store is.
    pub(crate) state_dir: &'a Path,
    /// The names of the sinks, each of which has a cursor in the store.
    pub(crate) sinks: &'a [String],
}

/// A running ledger.
pub(crate) struct Started {
    /// For lanes.
    pub(crate) sender: LedgerSender,
    /// For sinks and commands.
    pub(crate) client: LedgerClient,
    /// The thread; it is joined after the last sender and the last client are dropped.
    pub(crate) thread: JoinHandle<Result<()>>,
    /// What is not written if the thread hangs.
    pub(crate) remains: Remains,
    /// Where the alert log and the store are.
    pub(crate) traces: [Arc<Trace>; 2],
}

/// Opens the log and the store, synchronizes the store with the log, and starts the thread.
///
/// # Errors
/// Log or store cannot be used; the message says why and what to do.
pub(crate) fn start(settings: &Settings) -> Result<Started> {
    let (commits, commits_in) = unbounded();
    let (requests, requests_in) = unbounded();
    let (wake, spooled) = watch::channel(0);
    let status = Arc::new(LedgerStatus::new(&settings.alerts.path));
    let remains = Remains { commits: commits_in.clone(), status: Arc::clone(&status) };
    let writer = writer::Writer::open(settings, commits_in, requests_in, wake, Arc::clone(&status))?;
    let traces = writer.traces();
    let thread = std::thread::Builder::new()
        .name("ledger".to_owned())
        .spawn(move || writer.run())
        .context("cannot start the thread `ledger`")?;
    let sender = LedgerSender { commits, status: Arc::clone(&status) };
    Ok(Started { sender, client: LedgerClient { requests, spooled, status }, thread, remains, traces })
}

/// The lanes' side of the ledger.
#[derive(Clone)]
pub(crate) struct LedgerSender {
    commits: Sender<Weighed>,
    status: Arc<LedgerStatus>,
}

/// A commit in the inbox, charged until it is removed.
type Weighed = (Commit, Taken);

impl LedgerSender {
    /// Hands over what is to become durable. While too much is waiting, because the disk is slow or full, the commit is
    /// returned after `wait`: its sender does its other work and offers it again.
    ///
    /// # Errors
    /// The ledger has ended, which before its senders happens only after a failure; or the agent stops and the ledger
    /// hangs. The commit is then in the agent's own log.
    pub(crate) fn offer(&self, commit: Commit, wait: Duration) -> Result<Option<Commit>> {
        let Some(taken) = self.room(commit.bytes(), wait) else {
            return match self.status.stopped_for() < STOP_MAX + HUNG_MAX {
                true => Ok(Some(commit)),
                false => Err(self.lose(&commit, "the ledger hangs")),
            };
        };
        let sent = self.commits.send((commit, taken));
        sent.map(|()| None).map_err(|SendError((commit, _))| self.lose(&commit, "the ledger has ended"))
    }

    /// Waits up to `wait` for room for so many bytes.
    fn room(&self, bytes: usize, wait: Duration) -> Option<Taken> {
        let until = Instant::now() + wait;
        loop {
            let taken = Taken::next_of(&self.status.waiting, bytes);
            if taken.is_some() || Instant::now() >= until {
                return taken;
            }
            std::thread::sleep(ROOM_WAIT.min(wait));
        }
    }

    fn lose(&self, commit: &Commit, why: &str) -> anyhow::Error {
        commit.alerts.iter().for_each(|alert| status::report_lost(&alert.json));
        anyhow!("{why}: {} alerts and a checkpoint could not be kept", commit.alerts.len())
    }
}

/// What a ledger that hangs in a system call has not written. It can only be logged.
pub(crate) struct Remains {
    commits: Receiver<Weighed>,
    status: Arc<LedgerStatus>,
}

impl Remains {
    /// Writes every alert that is not in the log to the agent's own log. Returns how many these were.
    pub(crate) fn report(&self) -> usize {
        let held = self.status.lose_unlogged();
        let waiting: Vec<_> = self.commits.try_iter().flat_map(|(commit, _)| commit.alerts).collect();
        waiting.iter().for_each(|alert| status::report_lost(&alert.json));
        held + waiting.len()
    }
}

/// The side of sinks and commands.
#[derive(Clone)]
pub(crate) struct LedgerClient {
    requests: Sender<Request>,
    spooled: watch::Receiver<i64>,
    status: Arc<LedgerStatus>,
}

/// Requests to the ledger.
enum Request {
    Read { after: i64, count_max: usize, bytes_max: usize, reply: oneshot::Sender<Vec<Spooled>> },
    Acknowledge { sink: String, sequence: i64 },
    Cursor { sink: String, reply: oneshot::Sender<i64> },
    Undelivered { after: i64, reply: oneshot::Sender<(i64, i64)> },
    Rows { scope: String, after: Option<String>, reply: oneshot::Sender<Vec<(String, Vec<u8>)>> },
    Change { changes: Vec<Change> },
    Reopen,
    Stop,
}

impl LedgerClient {
    /// The alerts after number `after`, in order, as many as fit; none where none are left.
    ///
    /// # Errors
    /// The store cannot be read now, or the ledger has ended.
    pub(crate) async fn read(&self, after: i64, count_max: usize, bytes_max: usize) -> Result<Vec<Spooled>> {
        self.request(|reply| Request::Read { after, count_max, bytes_max, reply })?
            .await
            .map_err(|_| unreadable())
    }

    /// Up to which alert a sink has delivered.
    ///
    /// # Errors
    /// The store cannot be read now, or the ledger has ended.
    pub(crate) async fn cursor(&self, sink: &str) -> Result<i64> {
        self.request(|reply| Request::Cursor { sink: sink.to_owned(), reply })?
            .await
            .map_err(|_| unreadable())
    }

    /// How many alerts after number `after` are to be delivered, and how many had come by then, as
    /// [`arrived`](Self::arrived) counts.
    ///
    /// # Errors
    /// The store cannot be read now, or the ledger has ended.
    pub(crate) async fn undelivered(&self, after: i64) -> Result<(i64, i64)> {
        self.request(|reply| Request::Undelivered { after, reply })?.await.map_err(|_| unreadable())
    }

    /// How many alerts to be delivered have come in this run, without those that were missed; it goes on counting.
    pub(crate) fn arrived(&self) -> Arc<AtomicI64> {
        Arc::clone(&self.status.arrived)
    }

    /// A sink has delivered everything up to this alert. After a crash it may have to deliver some of them again.
    pub(crate) fn acknowledge(&self, sink: &str, sequence: i64) {
        // A ledger that has ended needs no acknowledgement: the alerts are delivered again.
        let _ = self.requests.send(Request::Acknowledge { sink: sink.to_owned(), sequence });
    }

    /// Reopens the alert log, as after a rename by logrotate.
    pub(crate) fn reopen(&self) {
        let _ = self.requests.send(Request::Reopen);
    }

    /// The agent stops: from now on the disk has [`STOP_MAX`].
    pub(crate) fn stop(&self) {
        self.status.stop();
        let _ = self.requests.send(Request::Stop);
    }

    /// Gives every row of a scope to `each`, in the order of their keys, without holding them all in memory. It blocks:
    /// call it from threads, not from tasks.
    ///
    /// # Errors
    /// The store cannot be read, the ledger has ended, or the error of `each`.
    pub(crate) fn rows(
        &self,
        scope: &str,
        mut each: impl FnMut(String, Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        let mut after = None;
        loop {
            let request = |reply| Request::Rows { scope: scope.to_owned(), after: after.take(), reply };
            let rows = self.request(request)?.blocking_recv().map_err(|_| unreadable())?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            after = Some(last.clone());
            for (key, value) in rows {
                each(key, value)?;
            }
        }
    }

    /// Makes changes of state that belong to no batch of events.
    pub(crate) fn change(&self, changes: Vec<Change>) {
        // A ledger that has ended saves nothing.
        let _ = self.requests.send(Request::Change { changes });
    }

    /// Notifies of new alerts, and is closed when no more will come.
    pub(crate) fn spooled(&self) -> watch::Receiver<i64> {
        self.spooled.clone()
    }

    /// Counters and alarms; it never waits for the disk.
    pub(crate) fn report(&self) -> LedgerReport {
        self.status.report()
    }

    fn request<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<oneshot::Receiver<T>> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).map_err(|_| anyhow!("the ledger has ended"))?;
        Ok(answer)
    }
}

fn unreadable() -> anyhow::Error {
    anyhow!("the store cannot be read; the log says why")
}

#[cfg(test)]
pub(crate) use writer::full;

#[cfg(test)]
mod tests;
