//! Running processes as `/proc` shows them, at the start and where a record was lost.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use lapwing_common::{ABSENT, Credentials, Namespace, ProcessContext};
use lapwing_engine::Texts;
use procfs::process::{Process, Stat, Status};
use procfs::{FromRead, ProcessCGroups};
use smol_str::SmolStr;

use super::actor;
use super::image::{self, Image};
use super::inspect::{self, ARGS_BYTES_MAX, SeenProgram};
use super::key::{Key, Origin, TICK_NANOS};
use super::record::Record;
use super::thread;
use crate::bounded;

/// Most bytes of another file about a process. The longest is `status` with 65,536 groups, some 720 KB.
const ABOUT_BYTES_MAX: u64 = 1 << 20;

/// Most bytes of programs whose whole arguments are kept until the snapshot is emitted; of further ones only the start
/// is kept.
const SNAPSHOT_BYTES_MAX: usize = 8 << 20;

/// A process and the path of its control group.
pub(super) struct Running {
    pub(super) origin: Origin,
    pub(super) cgroup: Option<SmolStr>,
}

/// Where the snapshot ends and records begin, so that each process is emitted once: the moment at which all hooks were
/// attached. What the first hooks recorded before the last was attached is in the snapshot, as a result.
pub(super) struct SnapshotCutoff {
    /// That moment, in nanoseconds since boot.
    pub(super) attached: u64,
    /// Processes of the snapshot that were created so shortly before it that a record may report them too: `/proc` has
    /// their start only to the tick.
    doubtful: HashSet<Key>,
}

impl SnapshotCutoff {
    pub(super) fn new(attached: u64) -> Self {
        Self { attached, doubtful: HashSet::new() }
    }

    /// Whether the snapshot covers a process that was created then, by the tick.
    pub(super) fn covers(&mut self, key: Key, start: u64) -> bool {
        let is_taken = start < self.attached;
        if is_taken && start + 2 * TICK_NANOS > self.attached {
            self.doubtful.insert(key);
        }
        is_taken
    }

    /// Whether a record of the previous run is also among this run's own.
    pub(super) fn is_in_this_run(&self, record: &Record<'_>) -> bool {
        record.header().time >= self.attached
    }

    /// Whether the snapshot, or the previous run, covers a record.
    pub(super) fn is_covered(&mut self, record: &Record<'_>) -> bool {
        record.header().time < self.attached
            || matches!(record, Record::Fork(fork) if self.doubtful.remove(&Key::of(&fork.child)))
    }
}

/// Every process that was created before this time since boot, parents before their children.
pub(super) fn all(before: u64) -> Vec<Running> {
    let mut found: HashMap<u32, Running> = HashMap::new();
    let mut bytes = 0;
    for process in procfs::process::all_processes().into_iter().flatten().flatten() {
        // A process that ends meanwhile is skipped.
        if let Some(mut running) = running(&process)
            && running.origin.start < before
        {
            if bytes > SNAPSHOT_BYTES_MAX && running.origin.image.is_long() {
                running.origin.image = Arc::new(running.origin.image.shortened());
            }
            bytes += running.origin.image.bytes();
            found.insert(running.origin.pid, running);
        }
    }
    let keys: HashMap<u32, Key> =
        found.values().map(|running| (running.origin.pid, key(&running.origin))).collect();
    let mut all: Vec<_> = found.into_values().collect();
    for running in &mut all {
        running.origin.parent = keys.get(&running.origin.parent_pid).copied();
    }
    // A parent was created before its child; within one tick of the clock the smaller pid was, except after a
    // wrap-around.
    all.sort_by_key(|running| (running.origin.start, running.origin.pid));
    all
}

/// One process, if it still runs; its parent is left to the caller.
pub(super) fn read(wanted: Key) -> Option<Origin> {
    let process = Process::new(i32::try_from(wanted.pid).ok()?).ok()?;
    Some(running(&process)?.origin).filter(|origin| key(origin) == wanted)
}

/// Whether this process lives, and not another one with its pid.
pub(super) fn lives(wanted: Key) -> bool {
    let process = i32::try_from(wanted.pid).ok().and_then(|pid| Process::new(pid).ok());
    let stat = process.and_then(|process| about::<Stat>(&process, "stat"));
    stat.is_some_and(|stat| Key::new(wanted.pid, stat.starttime.saturating_mul(TICK_NANOS)) == wanted)
}

fn key(origin: &Origin) -> Key {
    Key::new(origin.pid, origin.start)
}

fn running(process: &Process) -> Option<Running> {
    let stat: Stat = about(process, "stat")?;
    let status: Status = about(process, "status")?;
    let credentials = credentials(process, &status);
    let image = image(process, &stat, credentials.actor);
    let cgroup = cgroup(process);
    let mut context = context(process, &stat, &status);
    if let Some((folder, _)) = &cgroup {
        context.cgroup = fs::metadata(folder).map_or(0, |folder| folder.ino());
    }
    let origin = Origin {
        pid: u32::try_from(process.pid).ok()?,
        start: stat.starttime.saturating_mul(TICK_NANOS),
        parent: None,
        parent_pid: u32::try_from(stat.ppid).ok()?,
        image: Arc::new(image),
        credentials,
        context,
    };
    Some(Running { origin, cgroup: cgroup.map(|(_, path)| path) })
}

/// A procfs file of a process, parsed by the library. The library itself would read it without a limit.
pub(super) fn about<T: FromRead>(process: &Process, name: &str) -> Option<T> {
    T::from_read(bytes_about(process, name)?.as_slice()).ok()
}

fn bytes_about(process: &Process, name: &str) -> Option<Vec<u8>> {
    bounded::whole(process.open_relative(name).ok()?, ABOUT_BYTES_MAX).ok()
}

fn image(process: &Process, stat: &Stat, user: u32) -> Image {
    let folder = u32::try_from(process.pid).ok().and_then(thread::folder);
    // A kernel thread has no executable.
    let seen = folder.and_then(|folder| Some((inspect::process(user, &folder)?, folder)));
    let Some((SeenProgram { executable, file_key, args }, folder)) = seen else {
        return Image::unknown(SmolStr::new(&stat.comm));
    };
    let directory = inspect::target(&folder.join("cwd")).unwrap_or_default();
    let is_cut = args.as_ref().is_none_or(|args| args.len() as u64 >= ARGS_BYTES_MAX);
    let args = self::args(&args.unwrap_or_default());
    Image { file_key, is_cut, ..Image::of_procfs(&executable, args, &directory, &stat.comm) }
}

/// The arguments with the empty ones, which the library drops.
fn args(bytes: &[u8]) -> Texts {
    match bytes.strip_suffix(&[0]).unwrap_or(bytes) {
        [] => image::args([]),
        args => image::args(args.split(|byte| *byte == 0)),
    }
}

fn credentials(process: &Process, status: &Status) -> Credentials {
    let number = |name: &str| {
        let text = bytes_about(process, name).and_then(|bytes| String::from_utf8(bytes).ok());
        text.and_then(|text| text.trim().parse().ok()).unwrap_or(ABSENT)
    };
    Credentials {
        uid: status.ruid,
        gid: status.rgid,
        euid: status.euid,
        egid: status.egid,
        suid: status.suid,
        sgid: status.sgid,
        login_uid: number("loginuid"),
        session_id: number("sessionid"),
        actor: actor::of(process.pid, status.ruid),
        reserved: 0,
        effective: status.capeff,
        permitted: status.capprm,
    }
}

fn context(process: &Process, stat: &Stat, status: &Status) -> ProcessContext {
    let unsigned = |number: i32| u32::try_from(number).unwrap_or(0);
    let (major, minor) = stat.tty_nr();
    let inner = status.nspid.as_ref().and_then(|numbers| numbers.last().copied());
    let mut namespaces = [0; 8];
    if let Ok(found) = process.namespaces() {
        for (name, namespace) in [
            ("cgroup", Namespace::Cgroup),
            ("ipc", Namespace::Ipc),
            ("mnt", Namespace::Mount),
            ("net", Namespace::Network),
            ("pid", Namespace::Pid),
            ("user", Namespace::User),
            ("uts", Namespace::Uts),
        ] {
            let inode = found.0.get(OsStr::new(name)).map_or(0, |found| found.identifier);
            namespaces[namespace as usize] = u32::try_from(inode).unwrap_or(0);
        }
    }
    ProcessContext {
        pgid: unsigned(stat.pgrp),
        sid: unsigned(stat.session),
        tty: unsigned(major) << 20 | unsigned(minor) & 0xf_ffff,
        vpid: inner.and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0),
        namespaces,
        cgroup: 0,
    }
}

/// The control group's folder and path: of the `pids` controller where it has a hierarchy of its own, else the
/// unified one, as the kernel side chooses.
fn cgroup(process: &Process) -> Option<(PathBuf, SmolStr)> {
    let groups: ProcessCGroups = about(process, "cgroup")?;
    let pids = groups.0.iter().find(|group| group.controllers.iter().any(|controller| controller == "pids"));
    let (group, roots) = match pids {
        Some(group) => (group, &["/sys/fs/cgroup/pids"][..]),
        None => (
            groups.0.iter().find(|group| group.hierarchy == 0)?,
            &["/sys/fs/cgroup/unified", "/sys/fs/cgroup"][..],
        ),
    };
    let folder = roots.iter().map(PathBuf::from).find(|root| root.is_dir())?;
    Some((folder.join(group.pathname.trim_start_matches('/')), SmolStr::new(&group.pathname)))
}

#[cfg(test)]
mod tests {
    use lapwing_common::{Fork, Kind, VERSION};
    use zerocopy::{FromZeros as _, IntoBytes as _};

    use super::*;

    /// A process is emitted by the snapshot or by the record of its fork, whatever the tick hides.
    #[test]
    fn each_process_is_emitted_once() {
        let attached = 1000 * TICK_NANOS + TICK_NANOS / 2;
        for (made, is_in_snapshot) in [
            (attached - 3 * TICK_NANOS, true),
            (attached - 1, true),
            (attached + 1, true),
            (attached + 1, false),
            (attached + TICK_NANOS, false),
            (attached + TICK_NANOS, true),
        ] {
            let mut cutoff = SnapshotCutoff::new(attached);
            let mut fork = Fork::new_zeroed();
            (fork.header.kind, fork.header.version) = (Kind::FORK.0, VERSION);
            (fork.header.len, fork.header.time) = (size_of::<Fork>() as u32, made + 1);
            (fork.child.pid, fork.child.start) = (7, made);
            let key = Key::new(7, made);
            let by_snapshot = is_in_snapshot && cutoff.covers(key, made / TICK_NANOS * TICK_NANOS);
            let mut room = vec![0_u64; size_of::<Fork>() / 8];
            room.as_mut_bytes().copy_from_slice(fork.as_bytes());
            let Ok(record) = Record::parse(room.as_bytes()) else { panic!("a record") };
            let by_record = !cutoff.is_covered(&record);
            assert!(by_snapshot != by_record, "{made}: {by_snapshot} {by_record}");
        }
    }
}
