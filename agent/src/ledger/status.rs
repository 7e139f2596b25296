//! The ledger's part of `lapwing status`: written by its thread, read by any thread without waiting.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::Serialize;

use super::COMMITS_WAITING_BYTES_MAX;
use crate::alarm::Alarm;
use crate::alert_log::Retention;
use crate::budget::Meter;
use crate::store::Store;

/// Counters and alarms of the ledger.
pub(crate) struct LedgerStatus {
    /// Alerts written to the log in this run.
    pub(super) written: AtomicU64,
    /// Repeated alerts of this run, which were deduplicated.
    pub(super) repeated: AtomicU64,
    /// Commits of this run that are durable.
    pub(super) committed: AtomicU64,
    /// Alerts that are held in memory until the disk accepts them.
    pub(super) held: AtomicU64,
    /// Bytes of all that is held.
    pub(super) buffered_bytes: AtomicU64,
    /// Commits that wait in the inbox.
    pub(super) waiting: Arc<Meter>,
    /// Alerts that sinks read from memory, because the disk accepted none.
    pub(super) from_memory: AtomicU64,
    /// Alerts that were delivered and not written to the log: the agent's own log has them.
    pub(super) not_logged: AtomicU64,
    spooled: AtomicU64,
    spooled_bytes: AtomicU64,
    in_log_only: AtomicU64,
    missed: AtomicU64,
    /// Alerts of this run that are to be delivered, without those that were missed.
    pub(super) arrived: Arc<AtomicI64>,
    /// What becomes of rotated files of the log.
    pub(super) retention: OnceLock<Arc<Retention>>,
    rows_dropped: AtomicU64,
    /// Raised while the alert log cannot be written.
    pub(super) log: Alarm,
    /// Raised while the store cannot be read or written.
    pub(super) store: Alarm,
    /// Raised while the spool is full.
    pub(super) spool: Alarm,
    /// Raised if a damaged store was quarantined, for the rest of the run.
    pub(super) quarantined: Alarm,
    /// What the log has not taken yet: it is written to the agent's own log where the ledger's thread hangs.
    unlogged: Mutex<VecDeque<Bytes>>,
    /// When the agent was stopped.
    stopped: OnceLock<Instant>,
}

/// A [`LedgerStatus`] at one moment.
#[derive(Debug, Serialize)]
pub(crate) struct LedgerReport {
    /// Alerts written to the log in this run.
    pub(crate) alerts_written: u64,
    /// Alerts of this run that were known already and not written again.
    pub(crate) alerts_deduplicated: u64,
    /// Commits of this run that are durable.
    pub(crate) commits: u64,
    /// Alerts that are held in memory until the disk takes them.
    pub(crate) alerts_buffered: u64,
    /// Bytes of what waits to be taken by the ledger.
    pub(crate) waiting_bytes: u64,
    /// Bytes of all that is held, of at most so many.
    pub(crate) buffered_bytes: u64,
    /// The most that is held before rules wait.
    pub(crate) buffered_bytes_max: u64,
    /// Alerts of this run that sinks were given from memory, because the disk took none.
    pub(crate) alerts_from_memory: u64,
    /// Alerts of this run that were delivered and not written to the log: the agent's own log has them.
    pub(crate) alerts_not_logged: u64,
    /// Alerts in the spool.
    pub(crate) alerts_spooled: u64,
    /// Bytes of their documents.
    pub(crate) spooled_bytes: u64,
    /// Alerts that are to be delivered and found no room in the spool: the log has them.
    pub(crate) alerts_in_log_only: u64,
    /// Alerts of this run that were rotated out of the log before they could be delivered.
    pub(crate) alerts_undeliverable: u64,
    /// Rotated files of the log, and what they take on disk.
    pub(crate) log_files: u64,
    pub(crate) log_bytes: u64,
    /// Alerts of this run that were carried over when their file of the log fell off, and those that are gone from it.
    pub(crate) alerts_carried: u64,
    pub(crate) alerts_expired: u64,
    /// Rows of state that were dropped, because they or all of their owner's took too much.
    pub(crate) state_rows_dropped: u64,
    /// What is wrong now.
    pub(crate) alarms: Vec<String>,
}

impl LedgerStatus {
    pub(super) fn new(log: &Path) -> Self {
        Self {
            written: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
            committed: AtomicU64::new(0),
            held: AtomicU64::new(0),
            buffered_bytes: AtomicU64::new(0),
            waiting: Meter::new("commits", COMMITS_WAITING_BYTES_MAX),
            from_memory: AtomicU64::new(0),
            not_logged: AtomicU64::new(0),
            spooled: AtomicU64::new(0),
            spooled_bytes: AtomicU64::new(0),
            in_log_only: AtomicU64::new(0),
            missed: AtomicU64::new(0),
            arrived: Arc::default(),
            retention: OnceLock::new(),
            rows_dropped: AtomicU64::new(0),
            log: Alarm::new(format!("alert log {}", log.display())),
            store: Alarm::new("store"),
            spool: Alarm::new("spool"),
            quarantined: Alarm::new("store"),
            unlogged: Mutex::default(),
            stopped: OnceLock::new(),
        }
    }

    /// The agent stops now.
    pub(super) fn stop(&self) {
        // Only the first stop counts.
        let _ = self.stopped.set(Instant::now());
    }

    /// How long ago the agent was stopped; zero while it runs.
    pub(super) fn stopped_for(&self) -> Duration {
        self.stopped.get().map_or(Duration::ZERO, Instant::elapsed)
    }

    /// An alert is to be written to the log.
    pub(super) fn to_log(&self, json: &Bytes) {
        self.unlogged().push_back(json.clone());
    }

    /// The log has the first of the pending alerts, or no longer needs them.
    pub(super) fn logged(&self, count: usize) {
        let mut unlogged = self.unlogged();
        let count = count.min(unlogged.len());
        unlogged.drain(..count);
    }

    /// Writes what the log has not accepted to the agent's own log. Returns how many alerts these were.
    pub(super) fn lose_unlogged(&self) -> usize {
        let lost = std::mem::take(&mut *self.unlogged());
        lost.iter().for_each(|json| report_lost(json));
        lost.len()
    }

    /// The list is valid even after a panic of a thread that held it.
    fn unlogged(&self) -> MutexGuard<'_, VecDeque<Bytes>> {
        self.unlogged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Updates the counters of the spool from the store.
    pub(super) fn update(&self, store: &Store) {
        let (count, bytes) = store.spooled();
        self.spooled.store(count, Relaxed);
        self.spooled_bytes.store(bytes, Relaxed);
        self.in_log_only.store(store.waiting(), Relaxed);
        self.missed.store(store.missed(), Relaxed);
        self.arrived.store(store.arrived(), Relaxed);
        self.rows_dropped.store(store.rows_dropped(), Relaxed);
    }

    /// The counters now.
    pub(crate) fn report(&self) -> LedgerReport {
        let retained = |count: fn(&Retention) -> &AtomicU64| {
            self.retention.get().map_or(0, |retention| count(retention).load(Relaxed))
        };
        LedgerReport {
            alerts_written: self.written.load(Relaxed),
            alerts_deduplicated: self.repeated.load(Relaxed),
            commits: self.committed.load(Relaxed),
            alerts_buffered: self.held.load(Relaxed),
            buffered_bytes: self.buffered_bytes.load(Relaxed),
            waiting_bytes: self.waiting.held() as u64,
            buffered_bytes_max: super::HELD_BYTES_MAX as u64,
            alerts_from_memory: self.from_memory.load(Relaxed),
            alerts_not_logged: self.not_logged.load(Relaxed),
            alerts_spooled: self.spooled.load(Relaxed),
            spooled_bytes: self.spooled_bytes.load(Relaxed),
            alerts_in_log_only: self.in_log_only.load(Relaxed),
            alerts_undeliverable: self.missed.load(Relaxed),
            log_files: retained(|retention| &retention.files),
            log_bytes: retained(|retention| &retention.bytes),
            alerts_carried: retained(|retention| &retention.carried),
            alerts_expired: retained(|retention| &retention.expired),
            state_rows_dropped: self.rows_dropped.load(Relaxed),
            alarms: [&self.log, &self.store, &self.spool, &self.quarantined]
                .iter()
                .filter_map(|alarm| alarm.message())
                .collect(),
        }
    }
}

/// Writes an alert that cannot be kept to the agent's own log.
pub(super) fn report_lost(json: &[u8]) {
    tracing::error!(alert = %String::from_utf8_lossy(json), "an alert could not be written");
}
