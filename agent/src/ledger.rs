//! The thread that owns the alert log and the store. Everything that must be kept is sent here, in order, and
//! everything in one [`Commit`] becomes durable together.
//!
//! Lanes hold a [`LedgerSender`], whose [`offer`](LedgerSender::offer) gives a commit back while the disk takes none;
//! sinks and commands hold a [`LedgerClient`], whose requests never wait behind commits. When the last sender is
//! dropped the ledger makes everything durable and notifies the clients that nothing more comes; when the last
//! client is dropped the thread ends, and what it returns says whether anything was lost. From
//! [`LedgerClient::stop`] on the disk has [`STOP_MAX`]: what it has not taken then goes to the agent's own log.

mod follow;
mod status;
mod writer;

pub(crate) use status::{LedgerReport, Status};

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

/// Most bytes of commits that wait in the inbox before their senders do.
const COMMITS_WAITING_BYTES_MAX: usize = 2 << 20;
/// What a commit takes beside its alerts and changes.
const COMMIT_BYTES: usize = 256;
/// How long a sender waits before it looks again whether there is room.
const ROOM_WAIT: Duration = Duration::from_millis(10);
/// How long after a stop the disk is tried before what it does not take is given up.
const STOP_MAX: Duration = Duration::from_secs(3);
/// How much longer a lane waits for a ledger that hangs in a system call.
const HUNG_MAX: Duration = Duration::from_secs(1);
/// How many rows of state are read at once.
const ROWS_READ_MAX: usize = 1024;

/// What becomes durable together: first the alerts' lines in the log, synced; then, in one transaction, the
/// alerts in the spool and all changes.
#[derive(Default)]
pub(crate) struct Commit {
    /// Alerts in the order in which they were raised. One whose id is already known is not written again.
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

/// What the ledger is started with.
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

/// A ledger at work.
pub(crate) struct Started {
    /// For lanes.
    pub(crate) sender: LedgerSender,
    /// For sinks and commands.
    pub(crate) client: LedgerClient,
    /// The thread; it is joined after the last sender and the last client are dropped.
    pub(crate) thread: JoinHandle<Result<()>>,
    /// What is left where the thread hangs.
    pub(crate) remains: Remains,
    /// Where the alert log and the store are.
    pub(crate) traces: [Arc<Trace>; 2],
}

/// Opens the log and the store, brings the store up to the log, and starts the thread.
///
/// # Errors
/// Log or store cannot be used; the message says why and what to do.
pub(crate) fn start(settings: &Settings) -> Result<Started> {
    let (commits, commits_in) = unbounded();
    let (requests, requests_in) = unbounded();
    let (wake, spooled) = watch::channel(0);
    let status = Arc::new(Status::new(&settings.alerts.path));
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

/// What lanes hold.
#[derive(Clone)]
pub(crate) struct LedgerSender {
    commits: Sender<Weighed>,
    status: Arc<Status>,
}

/// A commit that waits, and is charged until it is taken out.
type Weighed = (Commit, Taken);

impl LedgerSender {
    /// Hands over what is to become durable. While too much is waiting already, because the disk is slow or full, the
    /// commit comes back after `wait`: its sender looks to its other duties, and offers it again.
    ///
    /// # Errors
    /// The ledger has ended, which it does before its senders only when something is broken; or the agent stops and the
    /// ledger hangs. What was offered is then in the agent's own log.
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

    /// Room for so many bytes, for which it waits so long.
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

/// What a ledger that hangs in a system call has not written: the last that can be done for it is to say it.
pub(crate) struct Remains {
    commits: Receiver<Weighed>,
    status: Arc<Status>,
}

impl Remains {
    /// Writes every alert that is not in the log to the agent's own log, and says how many these were.
    pub(crate) fn report(&self) -> usize {
        let held = self.status.lose_unlogged();
        let waiting: Vec<_> = self.commits.try_iter().flat_map(|(commit, _)| commit.alerts).collect();
        waiting.iter().for_each(|alert| status::report_lost(&alert.json));
        held + waiting.len()
    }
}

/// What sinks and commands hold.
#[derive(Clone)]
pub(crate) struct LedgerClient {
    requests: Sender<Request>,
    spooled: watch::Receiver<i64>,
    status: Arc<Status>,
}

/// A request to the ledger.
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
        self.ask(|reply| Request::Read { after, count_max, bytes_max, reply })?
            .await
            .map_err(|_| unreadable())
    }

    /// Up to which alert a sink has delivered.
    ///
    /// # Errors
    /// The store cannot be read now, or the ledger has ended.
    pub(crate) async fn cursor(&self, sink: &str) -> Result<i64> {
        self.ask(|reply| Request::Cursor { sink: sink.to_owned(), reply })?.await.map_err(|_| unreadable())
    }

    /// How many alerts after number `after` are to be delivered, and how many had come by then, as
    /// [`arrived`](Self::arrived) counts.
    ///
    /// # Errors
    /// The store cannot be read now, or the ledger has ended.
    pub(crate) async fn undelivered(&self, after: i64) -> Result<(i64, i64)> {
        self.ask(|reply| Request::Undelivered { after, reply })?.await.map_err(|_| unreadable())
    }

    /// How many alerts to be delivered have come in this run, without those that were missed; it goes on counting.
    pub(crate) fn arrived(&self) -> Arc<AtomicI64> {
        Arc::clone(&self.status.arrived)
    }

    /// A sink has delivered everything up to this alert. After a crash it may deliver some of it
    /// again.
    pub(crate) fn acknowledge(&self, sink: &str, sequence: i64) {
        // A ledger that has ended needs no acknowledgement: the alerts are delivered again.
        let _ = self.requests.send(Request::Acknowledge { sink: sink.to_owned(), sequence });
    }

    /// Opens the alert log anew, as after a rename by logrotate.
    pub(crate) fn reopen(&self) {
        let _ = self.requests.send(Request::Reopen);
    }

    /// The agent stops: from now on the disk has [`STOP_MAX`].
    pub(crate) fn stop(&self) {
        self.status.stop();
        let _ = self.requests.send(Request::Stop);
    }

    /// Gives every row of a scope to `each`, in the order of their keys, not holding them all in memory. It
    /// blocks, and is for threads, not for tasks.
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
            let rows = self.ask(request)?.blocking_recv().map_err(|_| unreadable())?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            after = Some(last.clone());
            for (key, value) in rows {
                each(key, value)?;
            }
        }
    }

    /// Makes changes of state that belong to no batch of events.
    pub(crate) fn change(&self, changes: Vec<Change>) {
        // A ledger that has ended keeps nothing any more.
        let _ = self.requests.send(Request::Change { changes });
    }

    /// Changes whenever there is something new to read, and is closed when nothing more comes.
    pub(crate) fn spooled(&self) -> watch::Receiver<i64> {
        self.spooled.clone()
    }

    /// Counters and alarms; it never waits for the disk.
    pub(crate) fn report(&self) -> LedgerReport {
        self.status.report()
    }

    fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<oneshot::Receiver<T>> {
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
