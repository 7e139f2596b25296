//! How the ledger is doing, for `lapwing status`: written by its thread, read by anyone without waiting.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Serialize;

use crate::alarm::Alarm;
use crate::store::Store;

/// Counters and alarms of the ledger.
pub(crate) struct Status {
    /// Alerts written to the log in this run.
    pub(super) written: AtomicU64,
    /// Alerts of this run that were known already and not written again.
    pub(super) repeated: AtomicU64,
    /// Commits of this run that are durable.
    pub(super) committed: AtomicU64,
    /// Alerts that are held in memory until the disk takes them.
    pub(super) held: AtomicU64,
    spooled: AtomicU64,
    spooled_bytes: AtomicU64,
    in_log_only: AtomicU64,
    missed: AtomicU64,
    /// Raised while the alert log cannot be written.
    pub(super) log: Alarm,
    /// Raised while the store cannot be read or written.
    pub(super) store: Alarm,
    /// Raised while the spool is full.
    pub(super) spool: Alarm,
}

/// A [`Status`] at one moment.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Alerts written to the log in this run.
    pub(crate) alerts_written: u64,
    /// Alerts of this run that were known already and not written again.
    pub(crate) alerts_repeated: u64,
    /// Commits of this run that are durable.
    pub(crate) commits: u64,
    /// Alerts that are held in memory until the disk takes them.
    pub(crate) alerts_held: u64,
    /// Alerts in the spool.
    pub(crate) alerts_spooled: u64,
    /// Bytes of their documents.
    pub(crate) spooled_bytes: u64,
    /// Alerts that are to be delivered and found no room in the spool: the log has them.
    pub(crate) alerts_in_log_only: u64,
    /// Alerts of this run that were rotated out of the log before they could be delivered.
    pub(crate) alerts_missed: u64,
    /// What is wrong now.
    pub(crate) alarms: Vec<String>,
}

impl Status {
    pub(super) fn new(log: &Path) -> Self {
        Self {
            written: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
            committed: AtomicU64::new(0),
            held: AtomicU64::new(0),
            spooled: AtomicU64::new(0),
            spooled_bytes: AtomicU64::new(0),
            in_log_only: AtomicU64::new(0),
            missed: AtomicU64::new(0),
            log: Alarm::new(format!("alert log {}", log.display())),
            store: Alarm::new("store"),
            spool: Alarm::new("spool"),
        }
    }

    /// Takes over what the store knows of the spool.
    pub(super) fn update(&self, store: &Store) {
        let (count, bytes) = store.spooled();
        self.spooled.store(count, Relaxed);
        self.spooled_bytes.store(bytes, Relaxed);
        self.in_log_only.store(store.waiting(), Relaxed);
        self.missed.store(store.missed(), Relaxed);
    }

    /// The counters now.
    pub(crate) fn report(&self) -> Report {
        Report {
            alerts_written: self.written.load(Relaxed),
            alerts_repeated: self.repeated.load(Relaxed),
            commits: self.committed.load(Relaxed),
            alerts_held: self.held.load(Relaxed),
            alerts_spooled: self.spooled.load(Relaxed),
            spooled_bytes: self.spooled_bytes.load(Relaxed),
            alerts_in_log_only: self.in_log_only.load(Relaxed),
            alerts_missed: self.missed.load(Relaxed),
            alarms: [&self.log, &self.store, &self.spool]
                .iter()
                .filter_map(|alarm| alarm.message())
                .collect(),
        }
    }
}
