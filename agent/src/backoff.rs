//! How long to wait before the next attempt: the delay grows exponentially and has jitter, so that a thousand hosts do not
//! return at the same moment to a server that has just recovered.

use std::time::Duration;

/// Longest delay that a server may request.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// The delay after failures in a row.
pub(crate) struct Backoff {
    failures: u32,
    delay_min: Duration,
    delay_max: Duration,
    /// The smallest part of the delay that jitter leaves, from 0 to 1.
    part_min: f64,
}

impl Backoff {
    /// Full jitter: the first delay is at most `delay_min`, later ones are at most `delay_max`.
    pub(crate) fn full_jitter(delay_min: Duration, delay_max: Duration) -> Self {
        Self { failures: 0, delay_min, delay_max, part_min: 0.0 }
    }

    /// Equal jitter: as [`full_jitter`](Self::full_jitter), but no delay is shorter than half of what it may be.
    pub(crate) fn equal_jitter(delay_min: Duration, delay_max: Duration) -> Self {
        Self { part_min: 0.5, ..Self::full_jitter(delay_min, delay_max) }
    }

    /// The delay after one more failure; at least `retry_after`, which the server requested.
    pub(crate) fn next(&mut self, retry_after: Option<Duration>) -> Duration {
        let ceiling = self.delay_min.saturating_mul(2_u32.saturating_pow(self.failures)).min(self.delay_max);
        self.failures = self.failures.saturating_add(1);
        let jittered = ceiling.mul_f64(self.part_min + (1.0 - self.part_min) * fastrand::f64());
        retry_after.map_or(jittered, |least| least.min(RETRY_AFTER_MAX) + jittered)
    }

    /// An attempt succeeded: the next delay is the first one again.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY_MIN: Duration = Duration::from_millis(500);

    #[test]
    fn delays_grow_to_the_limit_and_spread() {
        let backoff =
            |failures| Backoff { failures, ..Backoff::full_jitter(DELAY_MIN, Duration::from_secs(30)) };
        let longest = |failures| (0..200).map(|_| backoff(failures).next(None)).max().unwrap();
        for (failures, ceiling_ms) in [(0, 500), (1, 1000), (3, 4000), (6, 30_000), (40, 30_000)] {
            let (longest, ceiling) = (longest(failures), Duration::from_millis(ceiling_ms));
            assert!(longest <= ceiling && longest > ceiling / 2, "{failures}: {longest:?}");
        }
    }

    #[test]
    fn equal_jitter_keeps_half_of_the_delay() {
        for _ in 0..200 {
            let delay = Backoff::equal_jitter(DELAY_MIN, DELAY_MIN).next(None);
            assert!(delay >= DELAY_MIN / 2 && delay <= DELAY_MIN, "{delay:?}");
        }
    }

    #[test]
    fn a_requested_delay_is_kept_up_to_a_limit() {
        let mut backoff = Backoff::full_jitter(DELAY_MIN, Duration::from_millis(1));
        let minute = Duration::from_secs(60);
        assert!(backoff.next(Some(minute)) >= minute);
        assert!(backoff.next(Some(minute * 60 * 24)) <= RETRY_AFTER_MAX + minute);
    }
}
