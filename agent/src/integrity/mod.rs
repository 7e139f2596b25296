//! Whether the files that make the agent what it is are as it loaded them: its executable, its configuration, rules, exceptions
//! and indicators, and whether the alert log and the store, which it writes itself, are where they must be.
//!
//! A thread of its own watches by the kernel's notifications, and looks at everything from time to time, for notifications
//! overflow and miss what another name of a file is written by. It reads files and hashes them, and says what changed. By whom,
//! and whether an administrator meant it, is for the sensor to find out, which knows the processes.

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

pub(crate) use self::plan::{Plan, Root};
use self::watch::Watch;
pub(crate) use self::written::{Rows, Written};
use crate::alarm::Alarm;

/// Most lots of changes that wait for the sensor; what comes then is said later.
const LOTS_MAX: usize = 4;
/// Most changes of a lot.
const CHANGES_MAX: usize = 64;

/// What a file is to the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
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
            Self::Rules => "file of rules",
            Self::Exceptions => "file of exceptions",
            Self::Indicators => "file of indicators",
        }
    }
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is not what the agent loaded, and stays so until that is mended.
    Changed,
    /// Something was done to it, and is over.
    Done,
    /// It is again what the agent loaded.
    Restored,
    /// It is loaded, and was another one in the run before.
    Loaded,
}

/// A change of a file.
#[derive(Clone, Debug)]
pub(crate) struct FileChange {
    pub(crate) path: PathBuf,
    pub(crate) outcome: Outcome,
    /// What happened, in a sentence without its end.
    pub(crate) reason: String,
    /// Whether the agent writes it itself, so that an administrator has no reason to change it.
    pub(crate) is_own: bool,
    /// Since when it may be so, at the earliest, and when it was seen.
    pub(crate) from: Instant,
    pub(crate) to: Instant,
    /// Processes that held it open when the change was noticed.
    pub(crate) holders: Vec<u32>,
}

/// What the sensor holds of the watch.
pub(crate) struct Integrity {
    changes: Receiver<Vec<FileChange>>,
    status: Arc<Status>,
}

impl Integrity {
    /// What changed since the last call. It never waits.
    pub(crate) fn changes(&self) -> Vec<FileChange> {
        self.changes.try_iter().flatten().collect()
    }

    /// What cannot be watched as it should be.
    pub(crate) fn alarms(&self) -> Vec<String> {
        self.status.alarm.message().into_iter().collect()
    }

    /// What is watched, for `lapwing status`.
    pub(crate) fn status(&self) -> Json {
        let count = |counter: &AtomicU64| counter.load(Relaxed);
        let Status { watched, unwatched, looks, hashed, overflows, .. } = &*self.status;
        json!({
            "watched": count(watched),
            "unwatched": count(unwatched),
            "looks": count(looks),
            "hashed": count(hashed),
            "overflows": count(overflows),
        })
    }
}

/// What the thread counts.
struct Status {
    /// Files that are watched, and those for which there was no room.
    watched: AtomicU64,
    unwatched: AtomicU64,
    /// Looks at all files.
    looks: AtomicU64,
    /// Files that were read.
    hashed: AtomicU64,
    /// How often notifications were lost.
    overflows: AtomicU64,
    /// Raised where the kernel gives no notifications of a folder.
    alarm: Alarm,
}

impl Status {
    fn new() -> Arc<Self> {
        let zero = || AtomicU64::new(0);
        Arc::new(Self {
            watched: zero(),
            unwatched: zero(),
            looks: zero(),
            hashed: zero(),
            overflows: zero(),
            alarm: Alarm::new("files of the agent"),
        })
    }
}

/// Starts the thread. It ends soon after `stop` is set, and no one waits for it: it only reads.
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
