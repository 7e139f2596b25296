//! The source's part of `lapwing status`: counters, written by the lane and the queues, read by any thread.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use lapwing_engine::Timestamp;
use serde::Serialize;

use crate::terminal::escape;

/// Most alarms that are shown at once; further ones are only in the log.
const ALARMS_MAX: usize = 32;

/// A counter.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    /// One more.
    pub(crate) fn one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many so far.
    pub(crate) fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// The source's counters and alarms.
        #[derive(Debug, Default)]
        pub(crate) struct SourceStatus {
            $($(#[doc = $doc])+ pub(crate) $name: Count,)+
            newest_event: AtomicI64,
            alarms: Mutex<BTreeMap<String, String>>,
            last_error: Mutex<Option<String>>,
        }

        /// The state of a [`SourceStatus`] at one moment.
        #[derive(Clone, Debug, PartialEq, Serialize)]
        pub(crate) struct CloudTrailReport {
            $($(#[doc = $doc])+ pub(crate) $name: u64,)+
            /// How far the newest event lies behind the clock, in seconds; trails deliver after about 300.
            pub(crate) lag_seconds: Option<u64>,
            /// What is wrong now, by where.
            pub(crate) alarms: BTreeMap<String, String>,
            /// What went wrong last, whether or not it is still so.
            pub(crate) last_error: Option<String>,
        }

        impl SourceStatus {
            /// The state at the time `now`.
            pub(crate) fn report(&self, now: Timestamp) -> CloudTrailReport {
                let newest = self.newest_event.load(Ordering::Relaxed);
                CloudTrailReport {
                    $($name: self.$name.total(),)+
                    lag_seconds: (newest != 0).then(|| now.since(Timestamp::from_nanos(newest)).as_secs()),
                    alarms: lock(&self.alarms).clone(),
                    last_error: lock(&self.last_error).clone(),
                }
            }
        }
    };
}

counters! {
    /// Files and objects read to their end.
    files_read,
    /// Files and objects that are broken, and of which what follows the break was not read.
    files_quarantined,
    /// Objects that were gone from S3 before they were read.
    objects_gone,
    /// Objects that are not of a trail, and digests.
    objects_ignored,
    /// Records that became events.
    records,
    /// Records that were read before and skipped.
    duplicates,
    /// Content in the place of a record that is not one, or is too long.
    records_refused,
    /// Messages of queues that were processed.
    messages_done,
    /// Messages that could not be processed and were left to the queue.
    messages_left,
}

impl SourceStatus {
    /// An event of this time was read.
    pub(crate) fn event(&self, time: Timestamp) {
        self.records.one();
        self.newest_event.fetch_max(time.as_nanos(), Ordering::Relaxed);
    }

    /// Something is wrong at `place` until [`Self::well`] is said of it. It is logged when it is news.
    pub(crate) fn alarm(&self, place: &str, what: &str) {
        let (place, what) = (&*escape(place), &*escape(what));
        let mut alarms = lock(&self.alarms);
        if alarms.get(place).is_some_and(|known| known == what) {
            return;
        }
        tracing::error!("cloudtrail: {place}: {what}");
        if alarms.len() < ALARMS_MAX || alarms.contains_key(place) {
            alarms.insert(place.to_owned(), what.to_owned());
        }
        drop(alarms);
        *lock(&self.last_error) = Some(format!("{place}: {what}"));
    }

    /// All is well at `place` again.
    pub(crate) fn well(&self, place: &str) {
        let place = &*escape(place);
        if lock(&self.alarms).remove(place).is_some() {
            tracing::info!("cloudtrail: {place}: works again");
        }
    }

    /// A file or object is quarantined.
    pub(crate) fn quarantined(&self, place: &str, reason: &str) {
        let (place, reason) = (&*escape(place), &*escape(reason));
        self.files_quarantined.one();
        tracing::warn!("cloudtrail: {place} is refused and quarantined: {reason}");
        *lock(&self.last_error) = Some(format!("{place}: {reason}"));
    }
}

/// The locked value is valid after every statement, so a panic elsewhere does not corrupt it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_the_current_alarms_and_the_last_error() {
        let status = SourceStatus::default();
        status.event(Timestamp::from_millis(40_000));
        status.event(Timestamp::from_millis(10_000));
        status.alarm("queue q", "access denied");
        status.alarm("queue r", "throttled\n\u{1b}[2J");
        status.well("queue r");
        let report = status.report(Timestamp::from_millis(100_000));
        assert_eq!((report.records, report.lag_seconds), (2, Some(60)));
        assert_eq!(report.alarms.keys().collect::<Vec<_>>(), ["queue q"]);
        assert_eq!(report.last_error.as_deref(), Some("queue r: throttled\\n\\x1b[2J"));
    }
}
