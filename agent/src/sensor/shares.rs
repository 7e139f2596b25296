//! Whose records were dropped because they held too much of a ring: the kernel's account of users, read when records
//! were lost.

use aya::Pod;
use aya::maps::{HashMap, MapData};
use lapwing_common::{Share, ShareOf};

/// Most users that one loss is attributed to; the records of the others stay in its sum.
const USERS_MAX: usize = 8;

/// [`Share`] as it is in the kernel's map.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct PodShare(Share);

const _: () = assert!(size_of::<PodShare>() == 4 * 8);
// SAFETY: four numbers, without padding, as was just asserted.
#[expect(unsafe_code, reason = "aya reads and writes this type as bytes")]
unsafe impl Pod for PodShare {}

/// The account of users.
pub(super) struct RingShares {
    users: HashMap<MapData, u64, PodShare>,
    /// What each user had lost at the last look, by the map's keys. The map has at most
    /// [`SHARES_MAX`](lapwing_common::SHARES_MAX) of them.
    known: std::collections::HashMap<u64, u64>,
}

impl RingShares {
    pub(super) fn new(users: HashMap<MapData, u64, PodShare>) -> Self {
        Self { users, known: std::collections::HashMap::new() }
    }

    /// The users whose records were dropped since the last look, those with the most first.
    pub(super) fn look(&mut self) -> Vec<(u32, u64)> {
        let now: std::collections::HashMap<u64, u64> =
            self.users.iter().flatten().map(|(key, PodShare(share))| (key, share.dropped)).collect();
        let mut by_user = std::collections::HashMap::<u32, u64>::new();
        for (key, dropped) in &now {
            // An entry that the map had forgotten meanwhile begins at zero again.
            let before = self.known.get(key).filter(|before| *before <= dropped).copied().unwrap_or(0);
            if let Ok(user) = u32::try_from(ShareOf::actor(*key))
                && *dropped > before
            {
                *by_user.entry(user).or_default() += dropped - before;
            }
        }
        self.known = now;
        top(by_user)
    }
}

/// The users with the most records, at most [`USERS_MAX`]; of users with as many the smaller id first.
fn top(by_user: impl IntoIterator<Item = (u32, u64)>) -> Vec<(u32, u64)> {
    let mut users: Vec<_> = by_user.into_iter().collect();
    users.sort_unstable_by_key(|(user, records)| (std::cmp::Reverse(*records), *user));
    users.truncate(USERS_MAX);
    users
}

#[cfg(test)]
mod tests {
    use super::top;

    #[test]
    fn losses_are_attributed_to_those_with_the_most() {
        let many = (0..100_000).map(|user| (user, u64::from(user % 7)));
        let users = top(many);
        assert_eq!(users.len(), super::USERS_MAX);
        assert_eq!(users[..2], [(6, 6), (13, 6)]);
    }
}
