//! A program of which an alert says by which file it ran: what the record of its start named, and where to find it.
//!
//! A file counts as found only where its device, inode and change time are those that the kernel saw when it ran. A path
//! alone names nothing: somebody else may have put another file there since, on this or another device.

mod descriptor;
mod key;

use std::fs::File;
use std::io;

use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;
use smol_str::SmolStr;

pub(crate) use self::descriptor::{Descriptor, held, readable};
pub(crate) use self::key::FileKey;

/// Why an alert has no hash of a program, as `lapwing.process.hash_skipped` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// It is not known which file it was.
    Unknown,
    /// The process has ended, and the file is not at its path.
    Gone,
    /// The file that is there is another one, or was changed.
    Other,
    /// The file was changed so shortly before it ran that a change right after cannot be told from that.
    Fresh,
    /// Its file system numbers files so that it cannot be known which is which.
    Doubtful,
    /// It cannot be opened or read.
    Unreadable,
    /// It is larger than [`FILE_BYTES_MAX`](super::FILE_BYTES_MAX).
    Large,
    /// As much was read for this alert, or for this user's, as may be.
    Budget,
    /// It was not read when the alert had waited as long as it may.
    Time,
    /// More alerts wait than can be attended to.
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

    /// The reason in words.
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

    /// Its name in `lapwing status`.
    pub(crate) fn name(self) -> &'static str {
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
    /// The file, as the kernel named it when the program started.
    pub(crate) file: FileKey,
    /// Whether the file was changed so shortly before that its change time cannot show a change right after.
    pub(crate) is_fresh: bool,
    /// The file that the process ran when the alert was raised, if it lived; an error where it could not be opened.
    pub(crate) running: Result<Descriptor, Missing>,
    /// Its path, from the root of its mount namespace.
    pub(crate) path: SmolStr,
    /// Processes of that mount namespace, through whose root the path is looked up first.
    pub(crate) witnesses: Vec<u32>,
}

impl Program {
    /// The file, open for nothing but to be found again.
    pub(crate) fn find(&self) -> Result<File, Missing> {
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

    /// Whether this is the file, as it was when it ran.
    pub(crate) fn check(&self, file: File) -> Result<File, Missing> {
        let metadata = file.metadata().map_err(|_| Missing::Unreadable)?;
        match self.file.is(&metadata) {
            Some(true) if metadata.is_file() => Ok(file),
            Some(_) => Err(Missing::Other),
            None => Err(Missing::Doubtful),
        }
    }

    /// Where the path begins: in its own namespace of mounts, then in the host's. The service sees fewer files than the host
    /// (`PrivateTmp=`), and so asks init's root before its own; that one may be closed to it.
    fn roots(&self) -> impl Iterator<Item = String> {
        let pids = self.witnesses.iter().copied().chain([1]);
        pids.map(|pid| format!("/proc/{pid}/root")).chain(["/".to_owned()])
    }
}

/// Whether a file that was changed then may be changed once more after `at` without a sign of it: the time of a change is
/// as fine as the clock's tick, which is 10 ms at most, or a second, or two, on some file systems.
pub(crate) fn is_fresh(changed: i64, at: i64) -> bool {
    const TICKS_NANOS: i64 = 20_000_000;
    const SECONDS_NANOS: i64 = 2_000_000_000;
    let doubt = if changed % 1_000_000_000 == 0 { SECONDS_NANOS } else { TICKS_NANOS };
    at.saturating_sub(changed) < doubt
}

/// Finds a file by its path from a root. Nothing is followed at its end; whatever is found is still to be checked.
fn open_below(root: &str, path: &str) -> io::Result<File> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let root = open(root, flags, Mode::empty())?;
    let file = openat(root, path.trim_start_matches('/'), flags | OFlag::O_NOFOLLOW, Mode::empty())?;
    Ok(file.into())
}
