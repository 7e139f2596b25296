//! The content of a file, identified by its hash. Reads are bounded in size and rate.

use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::thread;
use std::time::Duration;

use crate::clock::changed;
use crate::digest::{self, CHUNK_BYTES, Hash, hex};

/// Largest file that is hashed.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// Maximum bytes that are hashed per second, for all files.
const SECOND_BYTES_MAX: u64 = 64 << 20;

/// The content of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Content with this SHA-256.
    Hash(Hash),
    /// The file does not exist.
    Absent,
    /// The file was not read: it is too long, not a regular file, or was changed meanwhile.
    Unknown,
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hash(hash) => write!(f, "SHA-256 {}", hex(hash)),
            Self::Absent => f.write_str("no file"),
            Self::Unknown => f.write_str("unread content"),
        }
    }
}

impl Content {
    /// The content of a file that was opened or not.
    pub(super) fn of(opened: io::Result<File>) -> Self {
        match opened {
            Ok(file) => hash(&file).unwrap_or(Self::Unknown),
            Err(error) if error.kind() == ErrorKind::NotFound => Self::Absent,
            Err(_) => Self::Unknown,
        }
    }
}

/// A file with another stamp may have other content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ContentStamp {
    device: u64,
    inode: u64,
    length: u64,
    changed: i64,
}

impl ContentStamp {
    pub(super) fn of(file: &Metadata) -> Self {
        Self { device: file.dev(), inode: file.ino(), length: file.len(), changed: changed(file) }
    }
}

fn hash(file: &File) -> io::Result<Content> {
    let before = file.metadata()?;
    if before.len() > FILE_BYTES_MAX {
        return Ok(Content::Unknown);
    }
    let mut chunk = vec![0; CHUNK_BYTES.min(usize::try_from(before.len()).unwrap_or(CHUNK_BYTES) + 1)];
    let (hash, _) = digest::of(file, &mut chunk, |count, read| {
        thread::sleep(Duration::from_nanos(count * 1_000_000_000 / SECOND_BYTES_MAX));
        if read > FILE_BYTES_MAX { Err(io::Error::from(ErrorKind::FileTooLarge)) } else { Ok(()) }
    })?;
    let is_same = ContentStamp::of(&file.metadata()?) == ContentStamp::of(&before);
    Ok(if is_same { Content::Hash(hash) } else { Content::Unknown })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_are_bounded() {
        let file = tempfile::tempfile().unwrap();
        let empty = Content::of(file.try_clone());
        assert!(empty.to_string().starts_with("SHA-256 e3b0c44298fc1c14"), "{empty}");
        file.set_len(FILE_BYTES_MAX + 1).unwrap();
        assert_eq!(Content::of(Ok(file)), Content::Unknown);
        assert_eq!(Content::of(File::open("/nonexistent")), Content::Absent);
        assert_eq!(Content::of(File::open("/")), Content::Unknown);
    }
}
