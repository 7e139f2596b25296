//! How long to wait before trying again: exponential, with full jitter, so that a thousand hosts do not
//! return at the same moment to a server that has just recovered.

use std::time::Duration;

/// The first wait is up to this long.
const DELAY_MIN: Duration = Duration::from_millis(500);
/// The longest wait that upstream may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// Failures in a row.
pub(super) struct Backoff {
    failures: u32,
    delay_max: Duration,
}

impl Backoff {
    pub(super) fn new(delay_max: Duration) -> Self {
        Self { failures: 0, delay_max }
    }

    /// The wait after one more failure; at least the `Retry-After` of upstream.
    pub(super) fn next(&mut self, retry_after: Option<Duration>) -> Duration {
        let ceiling = DELAY_MIN.saturating_mul(2_u32.saturating_pow(self.failures)).min(self.delay_max);
        self.failures = self.failures.saturating_add(1);
        let jittered = ceiling.mul_f64(fastrand::f64());
        retry_after.map_or(jittered, |least| least.min(RETRY_AFTER_MAX) + jittered)
    }

    /// Something went well.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_limit_and_spread() {
        let longest = |failures: u32| {
            let after = |_| Backoff { failures, delay_max: Duration::from_secs(30) }.next(None);
            (0..200).map(after).max().unwrap()
        };
        for (failures, ceiling_ms) in [(0, 500), (1, 1000), (3, 4000), (6, 30_000), (40, 30_000)] {
            let (longest, ceiling) = (longest(failures), Duration::from_millis(ceiling_ms));
            assert!(longest <= ceiling && longest > ceiling / 2, "{failures}: {longest:?}");
        }
    }

    #[test]
    fn upstream_is_heard_within_reason() {
        let mut backoff = Backoff::new(Duration::from_millis(1));
        let minute = Duration::from_secs(60);
        assert!(backoff.next(Some(minute)) >= minute);
        assert!(backoff.next(Some(minute * 60 * 24)) <= RETRY_AFTER_MAX + minute);
    }
}
