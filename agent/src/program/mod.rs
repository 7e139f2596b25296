//! A program of an alert: the file that ran, as recorded at its start, and where to find it.
//!
//! A file is accepted only if device, inode and change time are those that the kernel saw when it ran. A path alone is not
//! enough: another file may have been put there since, on this or another device.

mod descriptor;
mod key;

use std::fs::File;
use std::io;

use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;
use smol_str::SmolStr;

pub(crate) use self::descriptor::{Descriptor, held, readable};
pub(crate) use self::key::FileKey;

/// The reason for which an alert has no hash of a program, in `lapwing.process.hash_skipped`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// The file is not known.
    Unknown,
    /// The process has ended, and the file is not at its path.
    Gone,
    /// The file at the path is another one, or was changed.
    Other,
    /// The file was changed so shortly before it ran that a later change cannot be excluded.
    Fresh,
    /// The inode numbers of its file system do not identify files.
    Doubtful,
    /// It cannot be opened or read.
    Unreadable,
    /// It is larger than what is hashed: 64 MiB.
    Large,
    /// The limit of bytes for this alert or user was reached.
    Budget,
    /// It was not read within the maximum wait.
    Time,
    /// Too many alerts wait.
    Busy,
}

impl Missing {
    /// Every reason.
    pub(crate) const ALL: [Self; 10] = [
        Self::Unknown,
        Self::Gone,
        Self::Other,
        Self::Fresh,
        Self::Doubtful,
        Self::Unreadable,
        Self::Large,
        Self::Budget,
        Self::Time,
        Self::Busy,
    ];

    /// The reason as text.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Unknown => "unknown file",
            Self::Gone => "gone",
            Self::Other => "not the same file any more",
            Self::Fresh => "changed just before it ran",
            Self::Doubtful => "cannot be distinguished from other files",
            Self::Unreadable => "unreadable",
            Self::Large => "larger than 64 MiB",
            Self::Budget => "budget",
            Self::Time => "time",
            Self::Busy => "busy",
        }
    }

    /// The key in `lapwing status`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Gone => "gone",
            Self::Other => "other_file",
            Self::Fresh => "fresh",
            Self::Doubtful => "doubtful",
            Self::Unreadable => "unreadable",
            Self::Large => "large",
            Self::Budget => "budget",
            Self::Time => "time",
            Self::Busy => "busy",
        }
    }
}

/// A program that a process runs or ran.
#[derive(Debug)]
pub(crate) struct Program {
    /// The file, as the kernel recorded it when the program started.
    pub(crate) file: FileKey,
    /// Whether the file was changed so shortly before that its change time cannot show a later change.
    pub(crate) is_fresh: bool,
    /// The file that the process ran when the alert was raised, if it was alive; an error if it could not be opened.
    pub(crate) running: Result<Descriptor, Missing>,
    /// Its path, from the root of its mount namespace.
    pub(crate) path: SmolStr,
    /// Processes of that mount namespace, through whose root the path is looked up first.
    pub(crate) witnesses: Vec<u32>,
}

impl Program {
    /// The file, opened with O_PATH.
    pub(super) fn find(&self) -> Result<File, Missing> {
        if self.file.changed.is_none() {
            return Err(Missing::Doubtful);
        }
        let mut missing = match &self.running {
            Ok(descriptor) => match self.check(descriptor.file().map_err(|_| Missing::Busy)?) {
                Ok(file) => return Ok(file),
                Err(missing) => missing,
            },
            Err(missing) => *missing,
        };
        if self.is_fresh {
            return Err(Missing::Fresh);
        }
        for root in self.roots() {
            match open_below(&root, &self.path).map_err(|_| Missing::Gone).and_then(|file| self.check(file)) {
                Ok(file) => return Ok(file),
                Err(Missing::Gone) => {}
                Err(other) => missing = other,
            }
        }
        Err(missing)
    }

    /// Whether this is the file, unchanged since it ran.
    pub(super) fn check(&self, file: File) -> Result<File, Missing> {
        let metadata = file.metadata().map_err(|_| Missing::Unreadable)?;
        match self.file.is(&metadata) {
            Some(true) if metadata.is_file() => Ok(file),
            Some(_) => Err(Missing::Other),
            None => Err(Missing::Doubtful),
        }
    }

    /// The root of the path: in its own mount namespace, then in the host's. The service sees fewer files than the host
    /// (`PrivateTmp=`), so init's root is tried before the service's; it may be inaccessible.
    fn roots(&self) -> impl Iterator<Item = String> {
        let pids = self.witnesses.iter().copied().chain([1]);
        pids.map(|pid| format!("/proc/{pid}/root")).chain(["/".to_owned()])
    }
}

/// Whether a file that was changed at this time may be changed again after `at` without a new change time. The granularity
/// is a clock tick, at most 10 ms, or on some file systems one or two seconds.
pub(crate) fn is_fresh(changed: i64, at: i64) -> bool {
    const TICKS_NANOS: i64 = 20_000_000;
    const SECONDS_NANOS: i64 = 2_000_000_000;
    let doubt = if changed % 1_000_000_000 == 0 { SECONDS_NANOS } else { TICKS_NANOS };
    at.saturating_sub(changed) < doubt
}

/// Opens a file by its path from a root, without following a link at its end. The caller must check the file.
fn open_below(root: &str, path: &str) -> io::Result<File> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let root = open(root, flags, Mode::empty())?;
    let file = openat(root, path.trim_start_matches('/'), flags | OFlag::O_NOFOLLOW, Mode::empty())?;
    Ok(file.into())
}
