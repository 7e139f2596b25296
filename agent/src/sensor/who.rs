//! Finds who changed a file of the agent, as far as possible. The kernel does not report it: it is derived from what
//! ran at that time. A process whose arguments name the file, or that holds it open, is the most likely author;
//! otherwise a package manager that was running.
//!
//! An administrator is a package manager, by the file that it runs, or root in a login session. Root can pose as both
//! (`docs/threat-model.md`).

use std::path::{Path, PathBuf};

use super::key::Key;
use super::process::{Process, Table};

/// Package managers, by the files that run, and by the scripts that Python runs.
const PACKAGE_MANAGERS: [&str; 10] = [
    "/usr/bin/apt",
    "/usr/bin/apt-get",
    "/usr/bin/aptitude",
    "/usr/bin/dnf",
    "/usr/bin/dnf-3",
    "/usr/bin/dnf5",
    "/usr/bin/dpkg",
    "/usr/bin/rpm",
    "/usr/bin/unattended-upgrade",
    "/usr/bin/yum",
];
const PYTHON: &str = "/usr/bin/python3";
/// The entry types of login sessions.
const LOGINS: [&str; 4] = ["sshd", "console", "terminal", "ssm"];
const SERVERS: [&str; 7] = [
    "/usr/sbin/sshd",
    "/usr/lib/openssh/sshd-session",
    "/usr/libexec/openssh/sshd-session",
    "/usr/bin/login",
    "/usr/sbin/agetty",
    "/usr/bin/ssm-session-worker",
    "/snap/amazon-ssm-agent/current/ssm-session-worker",
];

/// The most likely author, in words, and whether that is an administrator.
pub(super) struct Author {
    pub(super) key: Option<Key>,
    pub(super) words: String,
    pub(super) is_meant: bool,
}

/// Which of these processes, which ran at the time, changed a file that some hold open; never this agent.
pub(super) fn changed(
    table: &Table,
    ran: &[&Process],
    path: &Path,
    holders: &[u32],
    agent: Option<Key>,
) -> Author {
    let ran = || ran.iter().copied();
    let is_root = |process: &&Process| process.credentials.euid == 0 && Some(process.key) != agent;
    let latest = |process: &&Process| process.start.max(process.image.since);
    let touches = |process: &&Process| names(process, path) || holders.contains(&process.key.pid);
    let by = ran().filter(is_root).filter(touches).max_by_key(latest);
    let by = by.or_else(|| {
        let managers = ran().filter(is_root).filter(|process| is_package_manager(table, process));
        managers.max_by_key(latest)
    });
    let Some(process) = by else {
        return Author { key: None, words: "by an unknown process".to_owned(), is_meant: false };
    };
    let kind = if is_of_package_manager(table, process) {
        Some("a package manager")
    } else {
        is_of_login(table, process).then_some("root in a login session")
    };
    let program = crate::terminal::escape(&process.image.executable).into_owned();
    let of = kind.map(|kind| format!(", {kind}")).unwrap_or_default();
    let words = format!("most likely by process {} ({program}){of}", process.key.pid);
    Author { key: Some(process.key), words, is_meant: kind.is_some() }
}

/// Whether the arguments name a file, or the folder that it is in.
fn names(process: &Process, path: &Path) -> bool {
    let image = &process.image;
    let (Some(text), folder) = (path.to_str(), path.parent()) else { return false };
    image.args.iter().skip(1).any(|argument| {
        let value = argument.split_once('=').map_or(argument, |(_, value)| value);
        let named = absolute(&image.directory, value);
        argument.contains(text)
            || named == path
            || folder.is_some_and(|folder| named == folder && folder.parent().is_some())
    })
}

/// An argument as a path, without `.` and `..`.
fn absolute(directory: &str, argument: &str) -> PathBuf {
    let mut path = PathBuf::new();
    for part in Path::new(directory).join(argument).components() {
        match part {
            std::path::Component::ParentDir => _ = path.pop(),
            std::path::Component::CurDir => {}
            part => path.push(part),
        }
    }
    path
}

fn is_of_package_manager(table: &Table, process: &Process) -> bool {
    std::iter::once(process).chain(table.ancestors(process.key)).any(|one| is_package_manager(table, one))
}

/// Whether it runs a package manager of the host, by the file that the kernel opened.
fn is_package_manager(table: &Table, process: &Process) -> bool {
    let image = &process.image;
    let is_script = |script: &str| PACKAGE_MANAGERS.contains(&script) && image.since != 0;
    let runs = PACKAGE_MANAGERS.contains(&&*image.executable)
        || image.executable.starts_with(PYTHON) && image.script.as_deref().is_some_and(is_script);
    runs && image.file.is_none() && process.credentials.euid == 0 && is_on_host(table, process)
}

/// Whether it is part of a session that a user of the host logged in for.
fn is_of_login(table: &Table, process: &Process) -> bool {
    let Some((leader, kind)) = process.entry else { return false };
    let Some(leader) = table.get(leader).filter(|_| LOGINS.contains(&kind)) else { return false };
    let server = leader.parent.and_then(|parent| table.get(parent));
    let is_server =
        |process: &Process| SERVERS.contains(&&*process.image.executable) && is_on_host(table, process);
    is_on_host(table, process) && (is_server(leader) || server.is_some_and(is_server))
}

/// Whether it has the host's mounts, so that its paths are the host's; true if the host's are not known.
fn is_on_host(table: &Table, process: &Process) -> bool {
    let host = table.by_pid(1).map_or(0, Process::mount_namespace);
    host == 0 || host == process.mount_namespace()
}

#[cfg(test)]
mod tests {
    use lapwing_common::{Credentials, ProcessContext};
    use std::sync::Arc;

    use super::*;
    use crate::sensor::image::{self, Image};
    use crate::sensor::key::Origin;
    use crate::sensor::key::{NO_CONTEXT, NO_CREDENTIALS};

    const RULE: &str = "/etc/lapwing/rules/a.toml";
    const SECOND: u64 = 1_000_000_000;

    /// A process: the executable, its arguments behind that, and its working directory.
    type Ran<'a> = (&'a str, &'a [&'a str], &'a str);

    /// Processes of root, each the child of the one before.
    fn table(processes: &[Ran<'_>]) -> Table {
        let mut table = Table::new("boot");
        let mut parent = None;
        for (number, (executable, args, directory)) in processes.iter().enumerate() {
            // The second process of a host is the kernel's.
            let pid = if number == 0 { 1 } else { number as u32 + 10 };
            let args = std::iter::once(*executable).chain(args.iter().copied()).map(str::as_bytes);
            let image = Image::of_procfs(executable, image::args(args), directory, "");
            parent = Some(table.add(Origin {
                pid,
                start: u64::from(pid) * SECOND,
                parent,
                parent_pid: if number < 2 { number as u32 } else { pid - 1 },
                image: Arc::new(image),
                credentials: Credentials { uid: 0, euid: 0, ..NO_CREDENTIALS },
                context: ProcessContext {
                    sid: pid,
                    tty: if number > 1 { 136 << 20 } else { 0 },
                    ..NO_CONTEXT
                },
            }));
        }
        table
    }

    #[test]
    fn who_did_it_is_found_by_what_the_kernel_opened() {
        let init = ("/sbin/init", &[][..], "/");
        let sshd = ("/usr/sbin/sshd", &["-D"][..], "/");
        let shell = ("/usr/bin/bash", &[][..], "/root");
        #[rustfmt::skip]
        let cases: [(&[Ran<'_>], bool, &str); 12] = [
            (&[init], false, "by an unknown process"),
            (&[init, sshd, shell], false, "by an unknown process"),
            (&[init, sshd, shell, ("/usr/bin/vim", &[RULE], "/root")], true, "process 13 (/usr/bin/vim), root in a login session"),
            (&[init, sshd, shell, ("/usr/bin/vim", &["a.toml"], "/etc/lapwing/rules")], true, "process 13"),
            (&[init, sshd, shell, ("/usr/bin/cp", &["x", "../rules/"], "/etc/lapwing/rules")], true, "process 13"),
            (&[init, sshd, shell, ("/usr/bin/sh", &["-c", "echo >> /etc/lapwing/rules/a.toml"], "/")], true, "process 13"),
            (&[init, sshd, shell, ("/usr/bin/vim", &["b.toml"], "/etc/lapwing/rules")], false, "by an unknown process"),
            (&[init, ("/usr/sbin/apache2", &[], "/"), ("/usr/bin/sed", &["-i", RULE], "/")], false, "process 12 (/usr/bin/sed)"),
            (&[init, ("/tmp/sshd", &[], "/"), shell, ("/usr/bin/vim", &[RULE], "/")], false, "process 13 (/usr/bin/vim)"),
            (&[init, ("/usr/bin/dpkg", &["-i", "x.deb"], "/")], true, "process 11 (/usr/bin/dpkg), a package manager"),
            (&[init, ("/usr/bin/dpkg", &["-i", "x.deb"], "/"), ("/usr/bin/sed", &["-i", RULE], "/")], true, "process 12 (/usr/bin/sed), a package manager"),
            (&[init, ("/tmp/dpkg", &["-i", "x.deb"], "/")], false, "by an unknown process"),
        ];
        for (processes, is_meant, words) in cases {
            let table = table(processes);
            let found = changed(&table, &table.between(0, u64::MAX), Path::new(RULE), &[], None);
            assert!(found.words.ends_with(words) || found.words.contains(words), "{words}: {}", found.words);
            assert_eq!(found.is_meant, is_meant, "{words}");
        }
    }

    #[test]
    fn who_holds_the_file_open_did_it_and_a_script_is_no_package_manager_by_its_argument() {
        let table =
            table(&[("/sbin/init", &[], "/"), ("/usr/bin/python3.11", &["/usr/bin/dnf", "upgrade"], "/")]);
        let found =
            |holders: &[u32]| changed(&table, &table.between(0, u64::MAX), Path::new(RULE), holders, None);
        assert!(found(&[11]).words.contains("process 11"), "{}", found(&[11]).words);
        assert!(!found(&[11]).is_meant);
        assert!(found(&[]).key.is_none());
    }
}
