//! The kernel's clock and the wall clock: records have nanoseconds since boot, which cannot be set; events have wall
//! time, which root can set.
//!
//! Correlation, such as the time from one event to the next, uses the clock of the records: the wall clock at the start
//! of the agent plus the time that the kernel has counted since. A step of the wall clock changes only `@timestamp`.
//! Both clocks run equally fast, for the kernel disciplines them alike.

use lapwing_engine::Timestamp;
use nix::time::{ClockId, clock_gettime};

/// Turns the kernel's boot clock into wall time.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    /// Wall time at boot, in nanoseconds since 1970.
    boot: i64,
    /// The same as it was when the agent started.
    start: i64,
}

/// The smallest step of the wall clock that is followed. Smaller differences are measurement noise, and a process's
/// start must not drift.
const STEP_NANOS_MIN: u64 = 10_000_000;

impl Clock {
    pub(super) fn new() -> Self {
        Self::starting_at(offset())
    }

    fn starting_at(boot: i64) -> Self {
        Self { boot, start: boot }
    }

    /// Follows the wall clock if it was set, and logs it.
    pub(super) fn follow(&mut self) {
        if let Some(step) = self.follow_to(offset()) {
            tracing::warn!(
                "the wall clock was set by {:+.3} s: @timestamp follows it, correlation uses the kernel's clock",
                step as f64 / 1e9
            );
        }
    }

    /// Follows the wall clock to another time at boot. Returns the step in nanoseconds, if it was set.
    pub(super) fn follow_to(&mut self, boot: i64) -> Option<i64> {
        let step = boot.saturating_sub(self.boot);
        if step.unsigned_abs() <= STEP_NANOS_MIN {
            return None;
        }
        self.boot = boot;
        Some(step)
    }

    /// The wall time of a time since boot, for reports.
    pub(super) fn wall(self, boot_nanos: u64) -> Timestamp {
        at(self.boot, boot_nanos)
    }

    /// The correlation time of a time since boot.
    pub(super) fn monotonic(self, boot_nanos: u64) -> Timestamp {
        at(self.start, boot_nanos)
    }

    /// The time since boot of a correlation time; zero where that is before boot.
    pub(super) fn since_boot(self, monotonic: Timestamp) -> u64 {
        u64::try_from(monotonic.as_nanos().saturating_sub(self.start)).unwrap_or(0)
    }
}

fn at(boot: i64, boot_nanos: u64) -> Timestamp {
    Timestamp::from_nanos(boot.saturating_add(i64::try_from(boot_nanos).unwrap_or(i64::MAX)))
}

/// Nanoseconds since boot, suspended time included: the clock of the records.
pub(super) fn now() -> u64 {
    u64::try_from(nanos(ClockId::CLOCK_BOOTTIME)).unwrap_or(0)
}

fn offset() -> i64 {
    nanos(ClockId::CLOCK_REALTIME).saturating_sub(nanos(ClockId::CLOCK_BOOTTIME))
}

fn nanos(clock: ClockId) -> i64 {
    // Both clocks are there on every kernel that can run this.
    clock_gettime(clock)
        .map_or(0, |time| time.tv_sec().saturating_mul(1_000_000_000).saturating_add(time.tv_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;
    const DAY: i64 = 86_400 * SECOND;

    #[test]
    fn setting_the_clock_changes_the_timestamp_and_not_the_correlation_time() {
        let start = 1_700_000_000 * SECOND;
        let mut clock = Clock::starting_at(start);
        let mut times = Vec::new();
        for (boot, step, second) in [
            (start, None, 1),
            (start + 9_000_000, None, 2),
            (start + DAY, Some(DAY), 3),
            (start - DAY, Some(-2 * DAY), 4),
            (start, Some(DAY), 5),
        ] {
            assert_eq!(clock.follow_to(boot), step, "{second}");
            let now = second * SECOND as u64;
            let wall = step.map_or(start, |_| boot) + second as i64 * SECOND;
            assert_eq!(clock.wall(now), Timestamp::from_nanos(wall), "{second}");
            assert_eq!(clock.since_boot(clock.monotonic(now)), now);
            times.push(clock.monotonic(now).as_nanos());
        }
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] == SECOND), "{times:?}");
    }
}
