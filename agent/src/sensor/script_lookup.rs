//! Finds the file of a script. The kernel has closed it by the time its interpreter is recorded, so its path is looked
//! up when the record is read.
//!
//! Nothing here waits for a disk or for another process: only the kernel's cache is used, in which a file that was just
//! run is. A path is verified if no step of it was changed since the start, or only root can change it. An unverified
//! path may satisfy a rule's condition, but no exclusion.

use std::ffi::OsStr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use lapwing_common::{Exec, Namespace};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, StatxFlags, major, makedev, openat2, readlinkat, statx,
};

use super::script::{Mark, Script, text, unresolved};
use crate::program::{FileKey, is_fresh};
use crate::sensor::clock;
use crate::sensor::file;
use crate::sensor::key::Key;
use crate::sensor::process::{Process, Table};
use crate::sensor::record::ExecRecord;

/// Most steps of a path, the links in it included.
const STEPS_MAX: usize = 32;
/// Most ancestors through whose root a script is looked up.
const ROOTS_MAX: usize = 4;

/// The script of an exec; `None` for a binary, and for a script that was run by a descriptor.
pub(in crate::sensor) fn of(record: &ExecRecord<'_>, table: &Table) -> Option<Script> {
    let interpreter = Path::new(OsStr::from_bytes(record.text(record.fixed.interpreter)));
    let filename = Path::new(OsStr::from_bytes(record.text(record.fixed.filename)));
    if interpreter.as_os_str().is_empty() || filename.starts_with("/dev/fd") || filename.starts_with("/proc")
    {
        return None;
    }
    let directory = record.path(record.fixed.directory);
    let directory = Path::new(OsStr::from_bytes(&directory));
    let path = directory.join(filename);
    let run = Run::of(record.fixed);
    let found = roots(record.fixed, table).into_iter().find_map(|root| {
        let root = Root::open(&root)?;
        root.is_of(interpreter, &run).then(|| root.script(&path, &run))?
    });
    Some(found.unwrap_or_else(|| unresolved(&path)))
}

/// The run of an interpreter for which a script is looked up.
struct Run {
    /// The interpreter's file.
    interpreter: FileKey,
    /// When it began, in nanoseconds since 1970.
    since: i64,
}

impl Run {
    fn of(exec: &Exec) -> Self {
        let age = clock::now().saturating_sub(exec.header.time);
        let since = crate::clock::now().as_nanos().saturating_sub(i64::try_from(age).unwrap_or(i64::MAX));
        Self { interpreter: file::key(&exec.file), since }
    }
}

/// Paths of the root of a process that ran a program, best first: the process may have ended by now.
fn roots(exec: &Exec, table: &Table) -> Vec<PathBuf> {
    let key = Key::of(&exec.task);
    let mounts = exec.context.namespaces[Namespace::Mount as usize];
    let is_same = |process: &&Process| process.mount_namespace() == mounts;
    let init = table.by_pid(1).filter(is_same).map(|init| init.key.pid);
    let ancestors = table.ancestors(key).filter(is_same).map(|ancestor| ancestor.key.pid);
    let numbers = init.into_iter().chain([key.pid]).chain(ancestors.take(ROOTS_MAX));
    numbers.map(|pid| PathBuf::from(format!("/proc/{pid}/root"))).collect()
}

/// The root of a process.
struct Root {
    folder: OwnedFd,
    its: Attributes,
    /// Its path below the root of its mount namespace.
    path: PathBuf,
}

/// The file of a path.
struct Found {
    file: OwnedFd,
    its: Attributes,
    /// Whether only root can change which file it is.
    is_verified: bool,
}

/// The attributes that the kernel has cached of a file.
struct Attributes {
    device: u64,
    inode: u64,
    mode: u16,
    uid: u32,
    gid: u32,
    links: u32,
    /// When it was changed last, or got a name last: nanoseconds since 1970.
    changed: i64,
}

impl Root {
    fn open(path: &Path) -> Option<Self> {
        let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::DIRECTORY;
        let folder = rustix::fs::open(path, flags, Mode::empty()).ok()?;
        Some(Self { path: path_of(&folder)?, its: attributes(&folder)?, folder })
    }

    /// Whether the interpreter's path has the same file from here: then paths have the same meaning as for the process.
    /// Another root can have that file only by mounts, which need another namespace, or by hard links, which need
    /// ownership.
    fn is_of(&self, interpreter: &Path, run: &Run) -> bool {
        let Some(found) = self.find(interpreter, run) else { return false };
        interpreter.is_absolute() && run.interpreter.is_at(found.its.device, found.its.inode)
    }

    /// The script that a path leads to.
    fn script(&self, path: &Path, run: &Run) -> Option<Script> {
        // The working directory is from the root of the mount namespace.
        let path = path.strip_prefix(&self.path).unwrap_or(path);
        let Found { file, its, is_verified } = self.find(path, run)?;
        let is_file = FileType::from_raw_mode(its.mode.into()) == FileType::RegularFile && its.links > 0;
        let named = FileKey::of_attributes(its.device, its.inode, its.changed);
        let (mark, key) =
            if is_verified { (None, named) } else { (Some(Mark::Unverified), FileKey::default()) };
        is_file.then(|| path_of(&file)).flatten().map(|path| Script { path: text(&path), mark, key })
    }

    /// The file of a path, if it is in the kernel's cache.
    fn find(&self, path: &Path, run: &Run) -> Option<Found> {
        self.walk(path, run).or_else(|| {
            let file = open(&self.folder, path, OFlags::empty())?;
            Some(Found { its: attributes(&file)?, file, is_verified: false })
        })
    }

    /// The same step by step. It is verified where what each step leads to had its name already when the program began:
    /// it was not changed since, for a file that gets a name is; or its folder and itself are root's, and no one else
    /// may write to that. `None` where a link is on a file system that a user may serve: the read could wait for that
    /// user.
    fn walk(&self, path: &Path, run: &Run) -> Option<Found> {
        let Run { interpreter, since } = run;
        let is_local = |its: &Attributes| {
            major(its.device) != 0 || interpreter.changed.is_some() && interpreter.device == its.device
        };
        let is_roots = |folder: &Attributes, its: &Attributes| {
            let is_open = folder.mode & 0o002 != 0 || folder.mode & 0o020 != 0 && folder.gid != 0;
            let is_sticky = folder.mode & 0o1000 != 0;
            folder.uid == 0 && its.uid == 0 && (!is_open || is_sticky) && is_local(folder)
        };
        let is_safe = |folder: &Attributes, its: &Attributes| {
            is_local(its) && (is_roots(folder, its) || !is_fresh(its.changed, *since))
        };
        let mut names: Vec<PathBuf> = names_of(path).collect();
        let mut way: Vec<(OwnedFd, Attributes)> = Vec::new();
        let mut is_verified = true;
        for _ in 0..STEPS_MAX {
            let Some(name) = names.pop() else {
                return way.pop().map(|(file, its)| Found { file, its, is_verified });
            };
            match name.components().next() {
                Some(Component::Normal(_)) => {}
                Some(Component::ParentDir) => {
                    way.pop();
                    continue;
                }
                Some(Component::RootDir) => {
                    way.clear();
                    continue;
                }
                _ => continue,
            }
            let (folder, above) = way.last().map_or((&self.folder, &self.its), |(folder, its)| (folder, its));
            let file = open(folder, &name, OFlags::NOFOLLOW)?;
            let its = attributes(&file)?;
            is_verified &= is_safe(above, &its);
            if FileType::from_raw_mode(its.mode.into()) != FileType::Symlink {
                way.push((file, its));
            } else if is_local(&its) {
                let target = readlinkat(&file, "", Vec::new()).ok()?;
                names.extend(names_of(Path::new(OsStr::from_bytes(target.as_bytes()))));
            } else {
                return None;
            }
        }
        None
    }
}

/// The steps of a path, the last first.
fn names_of(path: &Path) -> impl Iterator<Item = PathBuf> {
    path.components().rev().map(|part| PathBuf::from(part.as_os_str()))
}

/// Opens a path below a folder, and nothing outside of it, if that needs no disk.
fn open(folder: &OwnedFd, path: &Path, flags: OFlags) -> Option<OwnedFd> {
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::CACHED;
    openat2(folder, path, OFlags::PATH | OFlags::CLOEXEC | flags, Mode::empty(), how).ok()
}

/// The attributes that the kernel has cached of an open file, without a request to a file server.
fn attributes(file: &OwnedFd) -> Option<Attributes> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let found = statx(file, "", flags, StatxFlags::BASIC_STATS).ok()?;
    Some(Attributes {
        device: makedev(found.stx_dev_major, found.stx_dev_minor),
        inode: found.stx_ino,
        mode: found.stx_mode,
        uid: found.stx_uid,
        gid: found.stx_gid,
        links: found.stx_nlink,
        changed: found
            .stx_ctime
            .tv_sec
            .saturating_mul(1_000_000_000)
            .saturating_add(found.stx_ctime.tv_nsec.into()),
    })
}

/// The path of an open file, from the root of its mount namespace.
fn path_of(file: &OwnedFd) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()
}
