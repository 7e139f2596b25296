//! The kernel's clock and ours: records carry nanoseconds since boot, events carry wall time.

use lapwing_engine::Timestamp;
use nix::time::{ClockId, clock_gettime};

/// Turns the kernel's boot clock into wall time.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    /// Wall time at boot, in nanoseconds since 1970.
    boot: i64,
}

/// By how much the wall clock must have been set before times follow it. Smaller differences are the reading's own,
/// and one process's start must not wander.
const STEP_NANOS_MIN: u64 = 10_000_000;

impl Clock {
    pub(super) fn new() -> Self {
        Self { boot: offset() }
    }

    /// Follows the wall clock where it was set.
    pub(super) fn follow(&mut self) {
        let boot = offset();
        if boot.abs_diff(self.boot) > STEP_NANOS_MIN {
            self.boot = boot;
        }
    }

    /// The wall time of a time since boot.
    pub(super) fn wall(self, boot_nanos: u64) -> Timestamp {
        Timestamp::from_nanos(self.boot.saturating_add(i64::try_from(boot_nanos).unwrap_or(i64::MAX)))
    }

    /// The time since boot of a wall time; zero where it was before.
    pub(super) fn since_boot(self, wall: Timestamp) -> u64 {
        u64::try_from(wall.as_nanos().saturating_sub(self.boot)).unwrap_or(0)
    }
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
