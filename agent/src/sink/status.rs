//! A sink's part of `lapwing status`: written by its task, read by any thread without waiting.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use lapwing_engine::Timestamp;
use serde::Serialize;

use crate::alarm::Alarm;
use crate::clock;

/// Counters and alarms of a sink.
pub(crate) struct SinkStatus {
    name: String,
    pub(super) delivered: AtomicU64,
    pub(super) already_delivered: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) dead_lettered: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) smaller: AtomicU64,
    /// Alerts of the spool that this run delivered, wrote to the dead letters or queued for retries.
    pub(super) settled: AtomicI64,
    waiting_alone: AtomicU64,
    arrivals: OnceLock<Arrivals>,
    last_success: AtomicI64,
    /// Raised while nothing can be delivered.
    pub(super) trouble: Alarm,
    /// Raised while there are dead letters: an operator has to act.
    pub(super) rejected: Alarm,
    /// Raised while alerts wait for their own retries.
    pub(super) delayed: Alarm,
    /// Raised when alerts were delivered in a smaller form, until one batch is delivered as it is.
    pub(super) reduced: Alarm,
    /// Raised while the target index is wrong.
    pub(super) target: Alarm,
}

/// What is to be delivered: the alerts at the sink's start, and those since.
struct Arrivals {
    at_start: i64,
    counted: Arc<AtomicI64>,
}

/// A [`SinkStatus`] at one moment.
#[derive(Debug, Serialize)]
pub(crate) struct SinkReport {
    /// The sink's name.
    pub(crate) name: String,
    /// Alerts delivered in this run.
    pub(crate) delivered: u64,
    /// Alerts that upstream already had.
    pub(crate) already_delivered: u64,
    /// Requests that have to be sent again.
    pub(crate) retries: u64,
    /// Dead letters: alerts that upstream rejected in every form, of earlier runs too.
    pub(crate) dead_lettered: u64,
    /// Dead letters that were dropped because their file was full.
    pub(crate) dead_letters_dropped: u64,
    /// Alerts that were delivered in a smaller form, because upstream refused the whole.
    pub(crate) delivered_smaller: u64,
    /// Alerts that are still to be delivered, without those that wait alone.
    pub(crate) waiting: u64,
    /// Alerts that fail while others are taken, and are tried again by themselves.
    pub(crate) waiting_alone: u64,
    /// When something was last delivered, as RFC 3339.
    pub(crate) last_success: Option<String>,
    /// What is wrong now.
    pub(crate) alarms: Vec<String>,
}

impl SinkStatus {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            delivered: AtomicU64::new(0),
            already_delivered: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            dead_lettered: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            smaller: AtomicU64::new(0),
            settled: AtomicI64::new(0),
            waiting_alone: AtomicU64::new(0),
            arrivals: OnceLock::new(),
            last_success: AtomicI64::new(0),
            trouble: Alarm::new(format!("sink {name}")),
            rejected: Alarm::new(format!("sink {name}")),
            delayed: Alarm::new(format!("sink {name}")),
            reduced: Alarm::new(format!("sink {name}")),
            target: Alarm::new(format!("sink {name}")),
        }
    }

    /// The sink begins: how many alerts it has to deliver, and how many had arrived by then; `counted` counts those
    /// that arrive.
    pub(super) fn begin(&self, (undelivered, arrived): (i64, i64), counted: Arc<AtomicI64>) {
        let at_start = undelivered.saturating_sub(arrived);
        let _ = self.arrivals.set(Arrivals { at_start, counted });
    }

    /// Sets how many alerts wait for their own retries.
    pub(super) fn delayed_count(&self, count: usize) {
        self.waiting_alone.store(count as u64, Relaxed);
        if count == 0 {
            self.delayed.clear();
        }
    }

    /// Something was delivered, perhaps some of it in a smaller form.
    pub(super) fn succeed(&self, is_smaller: bool) {
        self.last_success.store(clock::now().as_nanos(), Relaxed);
        self.trouble.clear();
        if !is_smaller {
            self.reduced.clear();
        }
    }

    fn waiting(&self) -> u64 {
        let Some(Arrivals { at_start, counted }) = self.arrivals.get() else { return 0 };
        let waiting =
            at_start.saturating_add(counted.load(Relaxed)).saturating_sub(self.settled.load(Relaxed));
        waiting.max(0).unsigned_abs()
    }

    /// The counters now.
    pub(crate) fn report(&self) -> SinkReport {
        let last_success = self.last_success.load(Relaxed);
        SinkReport {
            name: self.name.clone(),
            delivered: self.delivered.load(Relaxed),
            already_delivered: self.already_delivered.load(Relaxed),
            retries: self.retries.load(Relaxed),
            dead_lettered: self.dead_lettered.load(Relaxed),
            dead_letters_dropped: self.dropped.load(Relaxed),
            delivered_smaller: self.smaller.load(Relaxed),
            waiting: self.waiting(),
            waiting_alone: self.waiting_alone.load(Relaxed),
            last_success: (last_success > 0).then(|| Timestamp::from_nanos(last_success).to_string()),
            alarms: [&self.trouble, &self.target, &self.delayed, &self.reduced, &self.rejected]
                .iter()
                .filter_map(|alarm| alarm.message())
                .collect(),
        }
    }
}
