//! The stage between a lane and the ledger: it completes alerts with what must be read from disk.
//!
//! The lane captures what may disappear; this stage reads the files, builds the documents and commits everything in the
//! lane's order. An alert waits at most [`WAIT_MAX`], and names what was not read by then. Cached hashes and alerts without
//! files do not wait.
//!
//! ```text
//! lane ─Delivery─▶ evidence ─Commit─▶ ledger
//!                   │    ▲
//!                  job  hash
//!                   ▼    │
//!                  readers, two
//! ```
//!
//! Both readers never read for the same user, and each user has a share of the bytes: a user whose files are slow does not
//! delay others.

mod cache;
mod reader;
mod share;
mod work;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use crossbeam_channel::{SendTimeoutError, Sender, bounded};
use lapwing_engine::{Alert, Schema};
use serde_json::{Value as Json, json};

use self::work::Work;
use crate::alert::{AlertDocument, Context};
use crate::budget::{Meter, Taken};
use crate::ledger::LedgerSender;
use crate::program::{self, Missing, Program};
use crate::store::Checkpoint;

/// Maximum time that an alert waits for its evidence.
const WAIT_MAX: Duration = Duration::from_millis(250);
/// How much earlier reading ends, so that results arrive in time.
const MARGIN: Duration = Duration::from_millis(25);
/// Largest file that is hashed.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Maximum bytes that are read for one alert: for the process first, then its parent, and so on.
const ALERT_BYTES_MAX: u64 = 64 << 20;
/// Maximum number of deliveries in this stage, and also in the inbox.
const DELIVERIES_MAX: usize = 64;
/// Maximum bytes in this stage and the inbox; beyond it the lane waits. From half of it on, alerts do not wait for their
/// evidence.
const WAITING_BYTES_MAX: usize = 2 << 20;
/// The same limit, as a number of alerts.
const ALERTS_WAITING_MAX: usize = 64;
/// Documents of this many bytes are committed before the rest of their delivery.
const COMMIT_BYTES_MAX: usize = 1 << 20;
/// Number of files that are read at the same time.
const READERS_MAX: usize = 2;
/// How long one offer to the ledger waits.
const LEDGER_WAIT: Duration = Duration::from_millis(100);

/// What a lane hands over to become durable together.
pub(crate) struct Delivery {
    /// Alerts in the order in which they were raised.
    alerts: Vec<PendingAlert>,
    /// State of rules that changed with them, and the source's checkpoint.
    checkpoint: Checkpoint,
    raised: Instant,
    bytes: usize,
}

impl Delivery {
    /// New alerts.
    pub(crate) fn new(alerts: Vec<PendingAlert>, checkpoint: Checkpoint) -> Self {
        let bytes = alerts.iter().map(PendingAlert::bytes).sum::<usize>() + checkpoint.bytes();
        Self { alerts, checkpoint, raised: Instant::now(), bytes }
    }
}

/// An alert on its way to the ledger.
pub(crate) enum PendingAlert {
    /// An alert to be completed.
    Raised(Box<Raised>),
    /// A complete document.
    Document(AlertDocument),
}

impl PendingAlert {
    /// Its size in bytes, without shared parts.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Document(document) => document.bytes(),
            Self::Raised(raised) => {
                let context = &raised.context;
                let fields = std::iter::once(&context.fields).chain(&context.ancestors);
                size_of::<Raised>()
                    + raised.alert.events().map(|event| event.own_bytes()).sum::<usize>()
                    + fields.map(|fields| fields.held_bytes()).sum::<usize>()
                    + context.programs.len() * size_of::<Program>()
            }
        }
    }
}

/// An alert, with what was known when it was raised.
pub(crate) struct Raised {
    /// The alert.
    pub(crate) alert: Alert,
    /// The context from the source.
    pub(crate) context: Context,
    /// As in [`alert::Evidence`](crate::alert::Evidence).
    pub(crate) lost_records: Option<u64>,
}

/// The stage's handle, held by its lane.
pub(crate) struct Stage {
    inbox: Sender<(Delivery, Taken)>,
    thread: JoinHandle<Result<()>>,
    counts: Arc<Counts>,
}

/// Counters for `lapwing status`.
struct Counts {
    hashed: AtomicU64,
    known: AtomicU64,
    waiting: AtomicU64,
    bytes: Arc<Meter>,
    waited_ms_max: AtomicU64,
    cached: AtomicU64,
    has_failed: AtomicBool,
    missing: [AtomicU64; Missing::ALL.len()],
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            bytes: Meter::new("evidence", WAITING_BYTES_MAX),
            hashed: AtomicU64::default(),
            known: AtomicU64::default(),
            waiting: AtomicU64::default(),
            waited_ms_max: AtomicU64::default(),
            cached: AtomicU64::default(),
            has_failed: AtomicBool::default(),
            missing: Default::default(),
        }
    }
}

impl Stage {
    /// Starts the stage's thread.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn start(schema: Arc<Schema>, ledger: LedgerSender) -> Result<Self> {
        let (inbox, deliveries) = bounded(DELIVERIES_MAX);
        let counts = Arc::<Counts>::default();
        let work = Work::new(schema, ledger, deliveries, counts.clone());
        let thread = std::thread::Builder::new()
            .name("evidence".to_owned())
            .spawn(move || work.run())
            .context("cannot start the thread `evidence`")?;
        Ok(Self { inbox, thread, counts })
    }

    /// Hands over what must become durable. If too much is waiting, because the ledger is blocked, the delivery is returned
    /// after `wait`, so that the lane can do other work and offer it again.
    ///
    /// # Errors
    /// The ledger has ended. The offered alerts are in the agent's own log.
    pub(crate) fn offer(&self, delivery: Delivery, wait: Duration) -> Result<Option<Delivery>> {
        let Some(taken) = Taken::next_of(&self.counts.bytes, delivery.bytes) else {
            std::thread::sleep(wait.min(MARGIN));
            return Ok(Some(delivery));
        };
        match self.inbox.send_timeout((delivery, taken), wait) {
            Ok(()) if self.counts.has_failed.load(Relaxed) => Err(anyhow!("the ledger has ended")),
            Ok(()) => Ok(None),
            Err(SendTimeoutError::Timeout((delivery, _))) => Ok(Some(delivery)),
            Err(SendTimeoutError::Disconnected(_)) => Err(anyhow!("the evidence stage has ended")),
        }
    }

    /// Waits until everything is handed over to the ledger.
    ///
    /// # Errors
    /// The ledger did not accept it.
    pub(crate) fn finish(self) -> Result<()> {
        drop(self.inbox);
        self.thread.join().unwrap_or_else(|_| Err(anyhow!("the evidence stage panicked")))
    }

    /// The status of the stage.
    pub(crate) fn status(&self) -> Json {
        let count = |count: &AtomicU64| count.load(Relaxed);
        let missing = Missing::ALL.iter().zip(&self.counts.missing);
        let skipped: serde_json::Map<_, _> =
            missing.map(|(reason, number)| (reason.name().to_owned(), count(number).into())).collect();
        json!({
            "alerts_waiting": count(&self.counts.waiting),
            "bytes_waiting": self.counts.bytes.held(),
            "waited_ms_max": count(&self.counts.waited_ms_max),
            "hashed": count(&self.counts.hashed),
            "hash_cache_hits": count(&self.counts.known),
            "hash_cache_size": count(&self.counts.cached),
            "descriptors": program::held(),
            "hash_skipped": skipped,
        })
    }
}

/// Completes a context like that of an alert that waits for all evidence.
#[cfg(test)]
pub(crate) fn complete_now(context: &mut Context) {
    let programs: Vec<_> = std::mem::take(&mut context.programs);
    let until = Instant::now() + Duration::from_secs(60);
    let outcomes: Vec<_> = programs.into_iter().map(|program| reader::read_now(&program?, until)).collect();
    work::complete(context, &outcomes);
}

#[cfg(test)]
mod tests;
