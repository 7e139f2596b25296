//! With which process a session, login, service or container began: `process.entry_leader`.

use super::{Key, Process, Table};

/// Majors of terminals: consoles and serial lines, and the eight of pseudo-terminals.
const TTY_MAJOR: u32 = 4;
const PTS_MAJORS: std::ops::RangeInclusive<u32> = 136..=143;

/// Programs that start the first process of a container: runtimes, their monitors, and what runs a program in a sandbox.
const RUNTIMES: [&str; 20] = [
    "runc",
    "docker-runc",
    "buildkit-runc",
    "crun",
    "youki",
    "kata-agent",
    "conmon",
    "conmonrs",
    "lxc-start",
    "lxc-execute",
    "lxc-attach",
    "lxd",
    "incusd",
    "systemd-nspawn",
    "bwrap",
    "gdn",
    "dadoo",
    "singularity",
    "apptainer",
    "starter-suid",
];

/// The same by how their names begin: containerd's shims of each version, and a copy of itself that runc and crun run
/// in memory.
const RUNTIME_FAMILIES: [&str; 3] = ["containerd-shim", "runc_cloned", "crun_cloned"];

/// What kind of beginning a process is; `None` where it goes on what its parent began.
fn entry_type(process: &Process, parent: Option<&Process>) -> Option<&'static str> {
    let is_child_of = |names: &[&str]| parent.is_some_and(|parent| parent.is_named(names));
    let (leads, major) = (process.is_session_leader(), process.context.tty >> 20);
    if process.key.pid == 2 || process.parent_pid == 2 {
        Some("kthread")
    } else if process.key.pid == 1 {
        Some("init")
    } else if leads && major == TTY_MAJOR && process.is_named(&["login"]) {
        Some("console")
    } else if leads && PTS_MAJORS.contains(&major) && is_child_of(&["ssm-session-worker"]) {
        Some("ssm")
    } else if is_child_of(&["sshd", "sshd-session"]) && !process.is_named(&["sshd", "sshd-session"]) {
        Some("sshd")
    } else if parent.is_some_and(Process::is_container_runtime) && !process.is_container_runtime() {
        Some("container")
    } else if leads && major == TTY_MAJOR {
        Some("terminal")
    } else if process.parent_pid == 1 {
        Some("init")
    } else {
        None
    }
}

impl Table {
    /// Finds out with which process the session, login or service began. The rules are those by which Elastic's
    /// sensors fill `process.entry_leader`; what none of them names began where its parent did.
    pub(super) fn enter(&mut self, key: Key) {
        let Some(process) = self.get(key) else { return };
        let parent = process.parent.and_then(|parent| self.get(parent));
        let entry = match entry_type(process, parent) {
            Some(kind) => Some((key, kind)),
            None => parent.and_then(|parent| parent.entry).or(process.entry),
        };
        if let Some(process) = self.change(key) {
            process.entry = entry;
        }
    }
}

impl Process {
    /// Whether the file that it runs has one of these names; what else it goes by is anyone's choice.
    fn is_named(&self, names: &[&str]) -> bool {
        self.file_name().is_some_and(|name| names.contains(&name))
    }

    fn file_name(&self) -> Option<&str> {
        self.image.opened_name().or_else(|| self.image.name.as_text())
    }

    /// Whether it runs one of [`RUNTIMES`].
    fn is_container_runtime(&self) -> bool {
        let is = |name: &str| {
            RUNTIMES.contains(&name) || RUNTIME_FAMILIES.iter().any(|family| name.starts_with(family))
        };
        self.file_name().is_some_and(is)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sensor::process::tests::{key, table};

    #[test]
    fn the_entry_leader_has_the_type_of_its_beginning() {
        let tty = TTY_MAJOR << 20 | 1;
        let pts = 136 << 20;
        let table = table(&[
            (1, 0, "/sbin/init", 1, 0),
            (2, 0, "", 0, 0),
            (3, 2, "", 0, 0),
            (10, 1, "/usr/sbin/cron", 10, 0),
            (11, 10, "/bin/sh", 10, 0),
            (20, 1, "/usr/sbin/sshd", 20, 0),
            (21, 20, "/usr/sbin/sshd", 20, 0),
            (22, 21, "/bin/bash", 22, pts),
            (23, 22, "/usr/bin/curl", 22, pts),
            (30, 1, "/usr/bin/containerd-shim-runc-v2", 30, 0),
            (31, 30, "/usr/sbin/nginx", 31, 0),
            (32, 31, "/usr/sbin/nginx", 31, 0),
            (33, 1, "/usr/bin/crun", 33, 0),
            (34, 33, "/usr/bin/redis-server", 34, 0),
            (35, 34, "/bin/sh", 34, 0),
            (36, 1, "/usr/bin/systemd-nspawn", 36, 0),
            (37, 36, "/usr/lib/systemd/systemd", 37, 0),
            (38, 10, "/usr/bin/bwrap", 10, 0),
            (39, 38, "/usr/bin/less", 10, 0),
            (71, 10, "/usr/bin/runcon", 10, 0),
            (72, 71, "/usr/bin/id", 10, 0),
            (40, 1, "/bin/login", 40, tty),
            (41, 40, "/bin/bash", 40, tty),
            (50, 1, "/sbin/agetty", 50, tty),
            (60, 10, "/usr/bin/ssm-session-worker", 60, 0),
            (61, 60, "/bin/sh", 61, pts),
        ]);
        for (pid, leader, kind) in [
            (1, 1, "init"),
            (2, 2, "kthread"),
            (3, 3, "kthread"),
            (10, 10, "init"),
            (11, 10, "init"),
            (21, 20, "init"),
            (22, 22, "sshd"),
            (23, 22, "sshd"),
            (31, 31, "container"),
            (32, 31, "container"),
            (34, 34, "container"),
            (35, 34, "container"),
            (37, 37, "container"),
            (39, 39, "container"),
            (72, 10, "init"),
            (40, 40, "console"),
            (41, 40, "console"),
            (50, 50, "terminal"),
            (61, 61, "ssm"),
        ] {
            let entry = table.by_pid(pid).and_then(|process| process.entry);
            assert_eq!(entry, Some((key(leader), kind)), "{pid}");
        }
    }
}
