//! Integrity of the agent's files: whether its executable, configuration, rules, exceptions and indicators are as it loaded
//! them, and whether the alert log and the store, which it writes itself, are in place.
//!
//! A thread watches the files by the kernel's notifications and by a regular scan, because notifications overflow and do not
//! cover writes through another name of a file. It reads and hashes files, and reports changes. The sensor, which has the
//! process table, finds out who made a change and whether an administrator intended it.

mod content;
mod holders;
mod plan;
mod tree;
mod watch;
mod written;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use anyhow::{Context as _, Result};
use crossbeam_channel::{Receiver, bounded};
use serde_json::{Value as Json, json};

pub(crate) use self::plan::Plan;
use self::watch::Watch;
pub(crate) use self::written::{Rows, Written};
use crate::alarm::Alarm;

/// Maximum number of batches that wait for the sensor; further changes are reported later.
const LOTS_MAX: usize = 4;
/// Maximum number of changes in a batch.
const CHANGES_MAX: usize = 64;

/// The role of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Executable,
    Configuration,
    Rules,
    Exceptions,
    Indicators,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Executable => "executable",
            Self::Configuration => "configuration file",
            Self::Rules => "rule file",
            Self::Exceptions => "exception file",
            Self::Indicators => "indicator file",
        }
    }
}

/// The kind of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChangeKind {
    /// The file differs from what the agent loaded, until it is restored.
    Changed,
    /// A change that is over.
    Done,
    /// The file is as loaded again.
    Restored,
    /// The file was loaded with other content than in the previous run.
    Loaded,
}

/// A change of a file.
#[derive(Clone, Debug)]
pub(crate) struct FileChange {
    pub(crate) path: PathBuf,
    pub(crate) outcome: ChangeKind,
    /// The event, as a sentence without a full stop.
    pub(crate) reason: String,
    /// Whether the agent writes the file itself, so that an administrator has no reason to change it.
    pub(crate) is_own: bool,
    /// The earliest time of the change, and when it was noticed.
    pub(crate) from: Instant,
    pub(crate) to: Instant,
    /// Processes that had it open when the change was noticed.
    pub(crate) holders: Vec<u32>,
}

/// The sensor's handle of the watch.
pub(crate) struct Integrity {
    changes: Receiver<Vec<FileChange>>,
    status: Arc<Status>,
}

impl Integrity {
    /// The changes since the last call. It does not block.
    pub(crate) fn changes(&self) -> Vec<FileChange> {
        self.changes.try_iter().flatten().collect()
    }

    /// Files that cannot be watched completely.
    pub(crate) fn alarms(&self) -> Vec<String> {
        self.status.alarm.message().into_iter().collect()
    }

    /// The watched files, for `lapwing status`.
    pub(crate) fn status(&self) -> Json {
        let count = |counter: &AtomicU64| counter.load(Relaxed);
        let Status { watched, unwatched, scans, hashed, overflows, .. } = &*self.status;
        json!({
            "watched": count(watched),
            "unwatched": count(unwatched),
            "scans": count(scans),
            "hashed": count(hashed),
            "overflows": count(overflows),
        })
    }
}

/// Counters of the thread.
struct Status {
    /// Watched files, and those beyond the maximum.
    watched: AtomicU64,
    unwatched: AtomicU64,
    /// Scans of all files.
    scans: AtomicU64,
    /// Files that were read.
    hashed: AtomicU64,
    /// Number of times that notifications were lost.
    overflows: AtomicU64,
    /// Raised if the kernel sends no notifications for a folder.
    alarm: Alarm,
}

impl Status {
    fn new() -> Arc<Self> {
        let zero = || AtomicU64::new(0);
        Arc::new(Self {
            watched: zero(),
            unwatched: zero(),
            scans: zero(),
            hashed: zero(),
            overflows: zero(),
            alarm: Alarm::new("files of the agent"),
        })
    }
}

/// Starts the thread. It ends soon after `stop` is set, and is not joined: it only reads.
///
/// # Errors
/// The thread cannot be started.
pub(crate) fn start(plan: Plan, written: Written, stop: Arc<AtomicBool>) -> Result<Integrity> {
    let (sender, changes) = bounded(LOTS_MAX);
    let status = Status::new();
    let watch = Watch::new(plan, written, status.clone());
    std::thread::Builder::new()
        .name("integrity".to_owned())
        .spawn(move || watch.run(&sender, &stop))
        .context("cannot start the thread `integrity`")?;
    Ok(Integrity { changes, status })
}
