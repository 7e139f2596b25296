//! Limits the bytes that are read for alerts, by user. Bytes are refilled at a constant rate; no user takes more than half of
//! what the others leave, so that a user whose alerts are about large files does not prevent hashes of other users' alerts.

use std::time::Instant;

use super::ALERT_BYTES_MAX;
use crate::budget;

/// Maximum burst in bytes, for all alerts.
const SHARED_BYTES_MAX: u64 = 256 << 20;
/// Bytes that are refilled per second.
const BYTES_PER_SECOND: u64 = 32 << 20;
/// Maximum number of users; beyond it, new users have no share until another has been idle.
const USERS_MAX: usize = 256;

/// Bytes that were read recently, by user.
pub(super) struct ReadShares {
    read: budget::Shares,
    since: Instant,
}

impl ReadShares {
    pub(super) fn new(now: Instant) -> Self {
        Self { read: budget::Shares::new(SHARED_BYTES_MAX), since: now }
    }

    /// Takes the bytes that may be read for an alert of this user.
    pub(super) fn take(&mut self, user: u32, now: Instant) -> u64 {
        self.come_back(now);
        if !self.read.knows(user) && self.read.owners() >= USERS_MAX {
            return 0;
        }
        let taken = self.read.room(user).min(ALERT_BYTES_MAX);
        self.read.take(user, taken);
        taken
    }

    /// Returns bytes that were not read.
    pub(super) fn put_back(&mut self, user: u32, bytes: u64) {
        self.read.give_back(user, bytes);
    }

    /// Refilled bytes are divided equally among all users who have read.
    fn come_back(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since).as_micros();
        let bytes =
            u64::try_from(passed.saturating_mul(BYTES_PER_SECOND.into()) / 1_000_000).unwrap_or(u64::MAX);
        let each = bytes / (self.read.owners().max(1) as u64);
        if each > 0 || self.read.owners() == 0 {
            self.read.give_back_each(each);
            self.since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_user_leaves_others_their_share() {
        let start = Instant::now();
        let mut shares = ReadShares::new(start);
        let greedy: u64 = (0..100).map(|_| shares.take(1, start)).sum();
        assert_eq!(greedy, SHARED_BYTES_MAX / 2);
        assert_eq!(shares.take(2, start), ALERT_BYTES_MAX, "another user's alert is read");
        assert_eq!(shares.take(1, start), 0);

        shares.put_back(2, ALERT_BYTES_MAX);
        let taken: u64 = (0..60_000).map(|ms| shares.take(1, start + Duration::from_millis(ms))).sum();
        let expected = 60 * BYTES_PER_SECOND;
        assert!(taken.abs_diff(expected) < expected / 50, "{taken} of {expected}");
    }

    #[test]
    fn many_users_are_bounded_and_leave_a_share() {
        let start = Instant::now();
        let mut shares = ReadShares::new(start);
        for user in 0..10_000 {
            shares.take(user, start);
        }
        assert!(shares.read.owners() <= USERS_MAX);
        assert!(shares.take(20_000, start + Duration::from_secs(60)) > 0);
        assert_eq!(shares.read.owners(), 1, "who has read nothing lately is forgotten");
    }
}
