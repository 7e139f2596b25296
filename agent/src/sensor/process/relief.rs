//! Eviction from the process table at its limit: the least needed data of the user who holds most.
//!
//! The order is, until there is enough room: cached blocks, which can be built again; previous images; most arguments
//! of long command lines, longest first; ended processes; living processes, children before their parents and never
//! process 1. Other users keep everything as long as the user who holds most has anything left to evict. Evictions are
//! counted.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use super::state::Life;
use super::{Key, PROCESSES_BYTES_MAX, Process, Table};
use crate::sensor::image::Image;

/// The bytes that are left after an eviction, so that not every new process causes one.
const RELIEVED_BYTES: usize = PROCESSES_BYTES_MAX / 8 * 7;
/// Owners who hold less than this are not distinguished: a scan of the table for each of thousands would take too long.
const SMALL_OWNER_BYTES: usize = PROCESSES_BYTES_MAX / 64;
/// How far the biggest owner is reduced below the second, before that one is evicted from.
const STEP_BYTES: usize = PROCESSES_BYTES_MAX / 16;

/// Evicts data of the given owner, or of any, until there is enough room.
type Step = fn(&mut Table, &Relief);

/// The least needed data comes first.
const STEPS: [Step; 4] =
    [Table::drop_previous, Table::shorten_programs, Table::forget_ended, Table::forget_living];

/// The owner and the extent of an eviction.
struct Relief {
    /// `None` for any owner, if no user holds much.
    owner: Option<u32>,
    /// The eviction ends when the owner holds no more than this.
    until_bytes: usize,
}

impl Relief {
    fn is_of(&self, process: &Process) -> bool {
        self.owner.is_none_or(|owner| process.owner == owner)
    }

    fn is_enough(&self, table: &Table) -> bool {
        table.accounts.meter().held() <= RELIEVED_BYTES
            || self.owner.is_some_and(|owner| table.accounts.held(owner) <= self.until_bytes)
    }
}

impl Table {
    /// Evicts until the limits are met.
    pub(in crate::sensor) fn relieve(&mut self) {
        if self.blocks.is_over() {
            self.blocks.given_up(1);
            self.clear_blocks();
        }
        if !self.accounts.meter().is_over() {
            return;
        }
        self.clear_blocks();
        // Each round takes a sixteenth of the limit, or is the last.
        while self.accounts.meter().held() > RELIEVED_BYTES {
            let before = self.accounts.meter().held();
            self.relieve_biggest();
            if self.accounts.meter().held() == before {
                break;
            }
        }
        self.accounts.tidy();
    }

    fn relieve_biggest(&mut self) {
        let biggest = self.accounts.biggest().filter(|(_, held, _)| *held > SMALL_OWNER_BYTES);
        let until = |next: usize| next.saturating_sub(STEP_BYTES);
        let of_one = biggest.map(|(owner, _, next)| Relief { owner: Some(owner), until_bytes: until(next) });
        // If nothing of that user can be evicted, such as when its processes now belong to another user, data of any
        // user is.
        let of_any = Relief { owner: None, until_bytes: 0 };
        for relief in of_one.iter().chain([&of_any]) {
            let before = self.accounts.meter().held();
            for step in STEPS {
                if relief.is_enough(self) {
                    return;
                }
                step(self, relief);
            }
            if self.accounts.meter().held() < before {
                return;
            }
        }
    }

    fn clear_blocks(&mut self) {
        self.processes.values_mut().for_each(|process| process.blocks.clear());
    }

    fn drop_previous(&mut self, relief: &Relief) {
        for process in self.processes.values_mut().filter(|process| relief.is_of(process)) {
            self.counts.previous_dropped += u64::from(process.previous.take().is_some());
        }
    }

    /// Shortens the longest first. A program that several processes share is shortened in all of them.
    fn shorten_programs(&mut self, relief: &Relief) {
        let mut long: HashMap<*const Image, (usize, Vec<Key>)> = HashMap::new();
        for process in self.processes.values().filter(|process| relief.is_of(process)) {
            if process.image.is_long() {
                let bytes = process.image.bytes();
                long.entry(Arc::as_ptr(&process.image)).or_insert((bytes, Vec::new())).1.push(process.key);
            }
        }
        let mut long: Vec<_> = long.into_values().collect();
        long.sort_unstable_by_key(|(bytes, _)| Reverse(*bytes));
        for (_, keys) in long {
            if relief.is_enough(self) {
                return;
            }
            self.shorten(&keys);
        }
    }

    /// Shortens the program that these processes share.
    fn shorten(&mut self, keys: &[Key]) {
        let first = keys.first().and_then(|key| self.processes.get(key));
        let Some((image, owner)) = first.map(|first| (Arc::new(first.image.shortened()), first.owner)) else {
            return;
        };
        self.accounts.charge_once(&image.charge, owner, image.bytes());
        self.counts.shortened += 1;
        for key in keys {
            if let Some(process) = self.processes.get_mut(key) {
                process.image = image.clone();
            }
        }
    }

    fn forget_ended(&mut self, relief: &Relief) {
        self.forget(relief, |process| process.life != Life::Alive);
    }

    fn forget_living(&mut self, relief: &Relief) {
        self.forget(relief, |process| process.life == Life::Alive && process.key.pid != 1);
    }

    /// Drops processes: those without children first. Of ended ones the oldest go first, of living ones the newest,
    /// because a host's services are older than a flood.
    fn forget(&mut self, relief: &Relief, is_one: fn(&Process) -> bool) {
        let mut keys: Vec<_> = self
            .each()
            .filter(|process| relief.is_of(process) && is_one(process))
            .map(|process| {
                let age = if process.life == Life::Alive { u64::MAX - process.start } else { process.start };
                (process.children > 0, age, process.key)
            })
            .collect();
        keys.sort_unstable_by_key(|(has_children, age, _)| (*has_children, *age));
        for (_, _, key) in keys {
            if relief.is_enough(self) {
                return;
            }
            if self.processes.contains_key(&key) {
                self.counts.evicted += 1;
                if let Some(parent) = self.remove(key) {
                    self.release(parent);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::ops::Range;

    use fastrand::Rng;
    use lapwing_common::{Credentials, Exec, Fork, Kind, VERSION};
    use zerocopy::{FromZeros as _, IntoBytes as _};

    use super::super::tests::{SECOND, key, table};
    use super::super::{Origin, PROCESS_BYTES};
    use super::*;
    use crate::sensor::handover::STATE_BYTES_MAX;
    use crate::sensor::image::{Image, args};
    use crate::sensor::key::{NO_CONTEXT, NO_CREDENTIALS};
    use crate::sensor::record::Record;

    /// The flooding users, and one who does not flood.
    const FLOODERS: Range<u32> = 60_000..60_004;
    const VICTIM: u32 = 1000;
    /// A process of the victim with its child, the child's parent having ended.
    const VICTIMS: [u32; 3] = [10, 11, 12];

    fn of(uid: u32) -> Credentials {
        Credentials { uid, ..NO_CREDENTIALS }
    }

    fn image(arguments: &[&str]) -> Image {
        let arguments = args(arguments.iter().map(|text| text.as_bytes()));
        Image::of_procfs("/usr/bin/some-program-with-a-name", arguments, "/home/somebody/somewhere", "some")
    }

    fn fork(table: &mut Table, uid: u32, parent: u32, pid: u32) {
        let mut fork = Fork::new_zeroed();
        (fork.forker, fork.forker_start) = (parent, u64::from(parent) * SECOND);
        (fork.child.pid, fork.child.start) = (pid, u64::from(pid) * SECOND);
        (fork.child.parent, fork.child.parent_start) = (fork.forker, fork.forker_start);
        fork.credentials = of(uid);
        table.fork(&fork);
    }

    fn exec(table: &mut Table, uid: u32, pid: u32, image: Image) {
        let mut exec = Exec::new_zeroed();
        (exec.header.kind, exec.header.version) = (Kind::EXEC.0, VERSION);
        exec.header.len = size_of::<Exec>() as u32;
        (exec.task.pid, exec.task.start) = (pid, u64::from(pid) * SECOND);
        exec.credentials = of(uid);
        let mut room = vec![0_u64; size_of::<Exec>() / 8];
        room.as_mut_bytes().copy_from_slice(exec.as_bytes());
        let Ok(Record::Exec(record)) = Record::parse(room.as_bytes()) else { panic!("a record") };
        table.exec(&record, image);
    }

    /// A table in which the victim has a shell that ended, and its child, which runs something and lives.
    fn with_victim() -> Table {
        let mut table = table(&[(1, 0, "/sbin/init", 1, 0)]);
        for (parent, pid) in [1, VICTIMS[0], VICTIMS[1]].into_iter().zip(VICTIMS) {
            fork(&mut table, VICTIM, parent, pid);
            exec(&mut table, VICTIM, pid, image(&["sh", "-c", "a command of the victim"]));
        }
        table.end(key(VICTIMS[1]), 100 * SECOND);
        table
    }

    fn assert_victim_is_whole(table: &Table) {
        for pid in VICTIMS {
            let process = table.get(key(pid)).unwrap();
            assert_eq!(process.image.command_line, "sh -c a command of the victim");
            assert!(process.previous.is_some() && !process.image.is_cut, "{pid}");
        }
        assert_eq!(table.ancestors(key(VICTIMS[2])).count(), 3);
    }

    /// The charges equal the content: each process, and each program once.
    fn assert_held_is_what_there_is(table: &Table) {
        let images = table.each().flat_map(|process| [Some(&process.image), process.previous.as_ref()]);
        let mut seen = HashSet::new();
        let images = images.flatten().filter(|image| seen.insert(Arc::as_ptr(image)));
        let bytes = images.map(|image| image.bytes()).sum::<usize>() + table.len() * PROCESS_BYTES;
        assert_eq!(table.accounts.meter().held(), bytes);
    }

    /// Some arguments that an attacker may choose.
    fn hostile(rng: &mut Rng) -> Image {
        let length = rng.usize(0..48 * 1024);
        match rng.u8(..6) {
            0 => image(&vec![""; length]),
            1 => image(&[&"\u{1}".repeat(length)]),
            2 => image(&["x", &"\u{fffd}".repeat(length)]),
            3 => image(&vec!["ab"; length / 3]),
            _ => image(&["true"]),
        }
    }

    /// Whatever flooders fork, run and end, and however long, the table stays within its bytes, and the user who does
    /// not flood keeps all processes.
    #[test]
    fn whatever_comes_the_table_stays_in_its_budget() {
        for seed in 0..2 {
            let mut rng = Rng::with_seed(seed);
            let mut table = with_victim();
            let mut living = vec![1];
            for pid in 100..2500 {
                let uid = rng.u32(FLOODERS);
                let parent = living[rng.usize(..living.len())];
                fork(&mut table, uid, parent, pid);
                assert!(!table.accounts.meter().is_over(), "{seed} {pid}");
                if rng.bool() {
                    exec(&mut table, uid, pid, hostile(&mut rng));
                    assert!(!table.accounts.meter().is_over(), "{seed} {pid}");
                }
                living.push(pid);
                if rng.u8(..4) == 0 {
                    let ended = living.swap_remove(rng.usize(1..living.len()));
                    // Their end is later than that of the victim's.
                    table.end(key(ended), 120 * SECOND);
                    table.expire(120 * SECOND);
                }
            }
            assert!(table.counts().shortened > 0 && table.counts().previous_dropped > 0, "{seed}");
            assert_victim_is_whole(&table);
            assert_held_is_what_there_is(&table);
            let state = serde_json::to_vec(&table.save()).unwrap();
            assert!(
                (state.len() as u64) < STATE_BYTES_MAX / 10 * 7,
                "{seed}: {} bytes are saved",
                state.len()
            );
            let meter = table.accounts.meter().clone();
            drop(table);
            assert_eq!(meter.held(), 0, "nothing is charged for what is gone");
        }
    }

    /// Each process forks the next and ends, so that each is kept as an ancestor; and a flood of them that sleep.
    #[test]
    fn neither_chains_nor_sleepers_fill_it() {
        for is_chain in [true, false] {
            let mut table = with_victim();
            for pid in 100..45_000 {
                fork(&mut table, FLOODERS.start, if is_chain && pid > 100 { pid - 1 } else { 1 }, pid);
                if is_chain {
                    table.end(key(pid - 1), 120 * SECOND);
                    table.expire(120 * SECOND);
                }
            }
            assert!(!table.accounts.meter().is_over());
            assert!(table.counts().evicted > 0);
            assert_victim_is_whole(&table);
            for pid in 100..45_000 {
                table.end(key(pid), 1000 * SECOND);
            }
            table.expire(2000 * SECOND);
            assert_eq!(table.len(), 1 + VICTIMS.len(), "what ended is gone");
        }
    }

    /// A flood of one user's ended processes does not shorten how long another's are kept.
    #[test]
    fn processes_that_end_linger_by_user() {
        let mut table = with_victim();
        fork(&mut table, VICTIM, 1, 13);
        table.end(key(13), 100 * SECOND);
        for pid in 100..20_000 {
            fork(&mut table, FLOODERS.start, 1, pid);
            table.end(key(pid), 101 * SECOND);
            table.expire(101 * SECOND);
        }
        assert!(table.get(key(13)).is_some());
        table.expire(131 * SECOND);
        assert!(table.get(key(13)).is_none());
        assert!(table.ended_by_owner.is_empty() && table.ended.is_empty());
    }

    /// A program that many share is charged once, and shortened in all of them.
    #[test]
    fn a_shared_program_is_one() {
        let mut table = table(&[(1, 0, "/sbin/init", 1, 0)]);
        fork(&mut table, VICTIM, 1, 50);
        exec(&mut table, VICTIM, 50, image(&["server", &"x".repeat(40_000)]));
        for pid in 100..5000 {
            fork(&mut table, VICTIM, 50, pid);
        }
        assert_eq!(table.counts().shortened, 0, "a server with a long command line and many workers fits");
        assert_held_is_what_there_is(&table);
        let (bytes, keys) = (table.accounts.meter().held(), [50, 100, 101].map(key));
        table.shorten(&keys);
        assert!(table.get(key(101)).unwrap().image.is_cut && !table.get(key(102)).unwrap().image.is_cut);
        assert!(table.accounts.meter().held() > bytes, "others still have the whole");
        assert_held_is_what_there_is(&table);
    }

    /// Thousands of users who hold little do not circumvent it, nor does a previous run's state.
    #[test]
    fn many_users_are_bounded_and_so_is_what_is_restored() {
        let mut table = table(&[(1, 0, "/sbin/init", 1, 0)]);
        for pid in 100..45_000 {
            let (start, credentials) = (u64::from(pid) * SECOND, of(pid));
            let image = Arc::new(image(&["sleep"]));
            table.add(Origin {
                pid,
                start,
                parent: None,
                parent_pid: 1,
                image,
                credentials,
                context: NO_CONTEXT,
            });
        }
        assert!(!table.accounts.meter().is_over() && table.get(key(1)).is_some());
        let mut restored = Table::new("boot");
        let saved = serde_json::to_string(&table.save()).unwrap();
        restored.restore(serde_json::from_str(&saved).unwrap()).unwrap();
        assert!(!restored.accounts.meter().is_over());
        assert_eq!(restored.len(), table.len());
        drop(table);
        assert_held_is_what_there_is(&restored);
    }
}
