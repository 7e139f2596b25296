//! How a sink is doing, for `lapwing status`: written by its task, read by anyone without waiting.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use lapwing_engine::Timestamp;
use serde::Serialize;

use crate::alarm::Alarm;
use crate::clock;

/// Counters and alarms of a sink.
pub(crate) struct Status {
    name: String,
    pub(super) delivered: AtomicU64,
    pub(super) known: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) set_aside: AtomicU64,
    pub(super) waiting: AtomicU64,
    last_success: AtomicI64,
    /// Raised while nothing gets through.
    pub(super) trouble: Alarm,
    /// Raised when an alert was set aside, and never cleared: somebody has to look.
    pub(super) rejected: Alarm,
}

/// A [`Status`] at one moment.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// The sink's name.
    pub(crate) name: String,
    /// Alerts delivered in this run.
    pub(crate) delivered: u64,
    /// Alerts that upstream said it had already.
    pub(crate) known: u64,
    /// Requests that have to be sent again.
    pub(crate) retries: u64,
    /// Alerts that upstream refused and that were set aside in a file.
    pub(crate) set_aside: u64,
    /// Alerts that are still to be delivered.
    pub(crate) waiting: u64,
    /// When something was last delivered, as RFC 3339.
    pub(crate) last_success: Option<String>,
    /// What is wrong now.
    pub(crate) alarms: Vec<String>,
}

impl Status {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            delivered: AtomicU64::new(0),
            known: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            set_aside: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            last_success: AtomicI64::new(0),
            trouble: Alarm::new(format!("sink {name}")),
            rejected: Alarm::new(format!("sink {name}")),
        }
    }

    /// Something got through.
    pub(super) fn succeed(&self) {
        self.last_success.store(clock::now().as_nanos(), Relaxed);
        self.trouble.clear();
    }

    /// The counters now.
    pub(crate) fn report(&self) -> Report {
        let last_success = self.last_success.load(Relaxed);
        Report {
            name: self.name.clone(),
            delivered: self.delivered.load(Relaxed),
            known: self.known.load(Relaxed),
            retries: self.retries.load(Relaxed),
            set_aside: self.set_aside.load(Relaxed),
            waiting: self.waiting.load(Relaxed),
            last_success: (last_success > 0).then(|| Timestamp::from_nanos(last_success).to_string()),
            alarms: [&self.trouble, &self.rejected].iter().filter_map(|alarm| alarm.message()).collect(),
        }
    }
}
