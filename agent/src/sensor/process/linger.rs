//! The end of processes: one that ended stays while late records may name it, and then as long as a child needs it.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::state::Life;
use super::{Key, Process, Table};

/// How long a process is kept after its end, and how many at most: late records and alerts may refer to it.
const LINGER_NANOS: u64 = 30_000_000_000;
const LINGERING_MAX: usize = 2048;
/// How often processes whose exit record was lost are searched for.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

impl Table {
    /// Marks a process as ended at this time. Returns whether it had not ended before.
    pub(in crate::sensor) fn end(&mut self, key: Key, time: u64) -> bool {
        match self.processes.get_mut(&key) {
            Some(process) if process.life == Life::Alive => {
                process.life = Life::Lingering;
                let owner = process.owner;
                self.ended.push_back((time, key, owner));
                *self.ended_by_owner.entry(owner).or_default() += 1;
                true
            }
            _ => false,
        }
    }

    /// Drops processes that ended long enough before `now`, and every [`SWEEP_EVERY`] searches for those whose exit
    /// record was lost.
    pub(in crate::sensor) fn expire(&mut self, now: u64) {
        while let Some((time, ..)) = self.ended.front() {
            let is_over = time.saturating_add(LINGER_NANOS) <= now;
            if !is_over && self.ended.len() <= LINGERING_MAX {
                break;
            }
            let Some(key) = self.take_ended(is_over) else { break };
            // A user who may choose pids can reuse this one within a tick. The new process lives.
            if let Some(process) =
                self.processes.get_mut(&key).filter(|process| process.life == Life::Lingering)
            {
                process.life = Life::Past;
                process.previous = None;
                self.release(key);
            }
        }
        if self.swept.elapsed() >= SWEEP_EVERY {
            self.swept = Instant::now();
            self.sweep(now);
        }
    }

    /// Removes and returns the process that ended first: of any user, or of the user who has most.
    fn take_ended(&mut self, any: bool) -> Option<Key> {
        let most = self.ended_by_owner.iter().max_by_key(|(_, count)| **count).map(|(owner, _)| *owner);
        let context = self.ended.iter().position(|(.., owner)| any || Some(*owner) == most);
        let (_, key, owner) = self.ended.remove(context.unwrap_or(0))?;
        if let Some(count) = self.ended_by_owner.get_mut(&owner) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.ended_by_owner.remove(&owner);
            }
        }
        Some(key)
    }

    /// Removes a process that is past, unless a child needs it, and then its parent if it waited only for that.
    pub(super) fn release(&mut self, key: Key) {
        let mut next = Some(key);
        while let Some(key) = next.take() {
            let is_needed = |process: &Process| process.life != Life::Past || process.children > 0;
            if self.get(key).is_none_or(is_needed) {
                return;
            }
            next = self.remove(key);
        }
    }

    /// Removes a process and returns its parent.
    pub(super) fn remove(&mut self, key: Key) -> Option<Key> {
        let parent = self.processes.remove(&key)?.parent;
        if self.current.get(&key.pid) == Some(&key) {
            self.current.remove(&key.pid);
        }
        let parent = parent?;
        let process = self.processes.get_mut(&parent)?;
        process.children = process.children.saturating_sub(1);
        Some(parent)
    }

    /// Removes processes that are gone although no record reported their exit.
    fn sweep(&mut self, now: u64) {
        let is_gone = |process: &&Process| {
            let pid = i32::try_from(process.key.pid).ok().map(Pid::from_raw);
            let is_reused = self.current.get(&process.key.pid) != Some(&process.key);
            process.life == Life::Alive
                && (is_reused || pid.is_some_and(|pid| kill(pid, None) == Err(Errno::ESRCH)))
        };
        let gone: Vec<_> = self.each().filter(is_gone).map(|process| process.key).collect();
        for key in gone {
            self.counts.expired_without_exit += 1;
            self.end(key, now);
        }
        self.accounts.tidy();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use smol_str::format_smolstr;

    use super::*;
    use crate::sensor::image::Image;
    use crate::sensor::key::Origin;
    use crate::sensor::key::{NO_CONTEXT, NO_CREDENTIALS};
    use crate::sensor::process::tests::{SECOND, key, table};

    fn expire(table: &mut Table, seconds: u64) {
        table.expire(seconds * SECOND);
    }

    #[test]
    fn a_parent_stays_as_long_as_its_child_lives() {
        let mut table =
            table(&[(1, 0, "/sbin/init", 0, 0), (10, 1, "/bin/sh", 0, 0), (11, 10, "/bin/nc", 0, 0)]);
        assert!(table.end(key(10), 100 * SECOND));
        assert!(!table.end(key(10), 100 * SECOND), "it ends once");
        expire(&mut table, 1000);
        assert_eq!(table.ancestors(key(11)).map(|process| process.key.pid).collect::<Vec<_>>(), [10, 1]);
        table.end(key(11), 1000 * SECOND);
        expire(&mut table, 1001);
        assert_eq!(table.len(), 3, "both may still be needed");
        expire(&mut table, 1100);
        assert_eq!(table.len(), 1, "both are gone, and their parent lives");
        assert!(table.by_pid(11).is_none());
    }

    #[test]
    fn ended_processes_are_bounded_by_number() {
        let mut table = table(&[(1, 0, "/sbin/init", 0, 0)]);
        for pid in 2..10_000 {
            let image = Arc::new(Image::unknown(format_smolstr!("{pid}")));
            let start = u64::from(pid) * SECOND;
            let (credentials, context) = (NO_CREDENTIALS, NO_CONTEXT);
            table.add(Origin {
                pid,
                start,
                parent: Some(key(1)),
                parent_pid: 1,
                image,
                credentials,
                context,
            });
            table.end(key(pid), SECOND);
            expire(&mut table, 1);
        }
        assert_eq!(table.len(), LINGERING_MAX + 1);
        assert_eq!(table.counts().evicted, 0, "they went in their turn");
    }

    #[test]
    fn a_number_that_is_used_again_is_another_process() {
        let mut table = table(&[(1, 0, "/sbin/init", 0, 0), (7, 1, "/bin/sh", 0, 0)]);
        table.end(key(7), 8 * SECOND);
        let again = Origin {
            pid: 7,
            start: 9 * SECOND,
            parent: Some(key(1)),
            parent_pid: 1,
            image: Arc::new(Image::unknown("again".into())),
            credentials: NO_CREDENTIALS,
            context: NO_CONTEXT,
        };
        let again = table.add(again);
        assert_ne!(table.entity_id(key(7)), table.entity_id(again));
        assert_eq!(table.by_pid(7).map(|process| process.key), Some(again));
        assert!(table.get(key(7)).is_some(), "the first may still be named by a late record");
        expire(&mut table, 100);
        assert_eq!(table.by_pid(7).map(|process| process.key), Some(again));
    }

    #[test]
    fn a_number_that_is_used_again_within_a_tick_lives() {
        let mut table = table(&[(1, 0, "/sbin/init", 0, 0), (7, 1, "/bin/sh", 0, 0)]);
        table.end(key(7), 8 * SECOND);
        let image = Arc::new(Image::unknown("again".into()));
        let (credentials, context) = (NO_CREDENTIALS, NO_CONTEXT);
        let parent = Some(key(1));
        let again = table.add(Origin {
            pid: 7,
            start: 7 * SECOND + 1,
            parent,
            parent_pid: 1,
            image,
            credentials,
            context,
        });
        assert_eq!(again, key(7), "its name is the same as the first one's");
        expire(&mut table, 1000);
        assert_eq!(table.get(again).map(|process| process.image.comm.as_str()), Some("again"));
        table.end(again, 1000 * SECOND);
        expire(&mut table, 2000);
        assert_eq!(table.len(), 1);
        assert_eq!(table.get(key(1)).map(|parent| parent.children), Some(0));
    }
}
