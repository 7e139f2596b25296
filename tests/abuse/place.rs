//! The places of agent and act: as two services, or both in one login session.

use std::fs;
use std::path::{Path, PathBuf};

/// The memory limit of the agent, `MemoryMax=` of the packaged unit.
pub(crate) const MEMORY_MAX_BYTES: u64 = 256 << 20;
/// The limit above which the kernel reclaims its pages, with control groups of version 2. It is lower than the unit's
/// `MemoryHigh=`. No row may reach it.
pub(crate) const MEMORY_HIGH_BYTES: u64 = 224 << 20;
/// Percent of one processor: the package's quota on the smallest host.
const QUOTA_PERCENT: u32 = 50;
/// The period of the quota in microseconds.
const PERIOD_MICROS: u32 = 100_000;
/// `CPUWeight=` of the unit, for version 2 and for version 1, whose default is 1,024.
const WEIGHT: u32 = 500;
const SHARES: u32 = 5_120;

/// A place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// The agent and the act each have a control group and a session of their own.
    Unit,
    /// Both are in one session, where no weight helps. The agent has the unit's memory limit.
    Session,
}

/// Control groups with one name, one in each required hierarchy. They are removed on drop.
#[derive(Debug)]
pub(crate) struct Groups {
    folders: Vec<PathBuf>,
    is_session: bool,
}

impl Groups {
    /// The control groups of the agent. An agent that is not optimised gets no quota of processor time.
    pub(crate) fn of_the_agent(place: Place, name: &str, is_optimised: bool) -> Self {
        let mut files = vec![
            ("memory", "memory.limit_in_bytes", "memory.max", MEMORY_MAX_BYTES.to_string()),
            ("memory", "", "memory.high", MEMORY_HIGH_BYTES.to_string()),
        ];
        if place == Place::Unit {
            files.push(("cpu", "", "cpu.weight", WEIGHT.to_string()));
            files.push(("cpu", "cpu.shares", "", SHARES.to_string()));
        }
        if place == Place::Unit && is_optimised {
            let quota = PERIOD_MICROS / 100 * QUOTA_PERCENT;
            files.push(("cpu", "cpu.cfs_quota_us", "", quota.to_string()));
            files.push(("cpu", "", "cpu.max", format!("{quota} {PERIOD_MICROS}")));
        }
        Self::new(place, &format!("{name}-agent"), &files)
    }

    /// The control groups of the act: those of a service, or none.
    pub(crate) fn of_the_act(place: Place, name: &str) -> Self {
        match place {
            Place::Session => Self { folders: Vec::new(), is_session: true },
            Place::Unit => Self::new(
                place,
                &format!("{name}-act"),
                &[("cpu", "", "", String::new()), ("pids", "", "", String::new())],
            ),
        }
    }

    /// Each file is a controller, its name in version 1, its name in version 2, and the value to write.
    fn new(place: Place, name: &str, files: &[(&str, &str, &str, String)]) -> Self {
        let root = Path::new("/sys/fs/cgroup");
        let is_unified = root.join("cgroup.controllers").exists();
        let mut groups = Self { folders: Vec::new(), is_session: place == Place::Session };
        for (controller, first, second, value) in files {
            let (hierarchy, file) =
                if is_unified { (root.to_owned(), second) } else { (root.join(controller), first) };
            if is_unified {
                // It may be on already.
                let _ = fs::write(root.join("cgroup.subtree_control"), format!("+{controller}"));
            }
            let folder = hierarchy.join(name);
            if !groups.folders.contains(&folder) {
                fs::create_dir(&folder).unwrap();
                groups.folders.push(folder.clone());
            }
            if !file.is_empty() {
                fs::write(folder.join(file), value).unwrap();
            }
        }
        groups
    }

    /// Whether programs here are in the session of the test.
    pub(crate) fn is_session(&self) -> bool {
        self.is_session
    }

    /// The command that starts a program in them: a shell, and its arguments before the program's.
    pub(crate) fn launcher(&self) -> Vec<String> {
        let enter =
            self.folders.iter().map(|folder| format!("echo $$ > '{}/cgroup.procs'; ", folder.display()));
        let session = if self.is_session { "" } else { "setsid " };
        let script = format!("{}exec {session}\"$0\" \"$@\"", enter.collect::<String>());
        vec!["sh".to_owned(), "-c".to_owned(), script]
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        // Its processes may still be ending.
        for folder in &self.folders {
            let mut tries = 0..100;
            while fs::remove_dir(folder).is_err() && tries.next().is_some() {
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
        }
    }
}
