//! The alert log: one JSON object per line, for responders and collectors. It is on the host whatever happens upstream.
//!
//! Guarantees: a line is complete, whether the disk fills or the agent is killed. After [`AlertLog::sync`] it is on disk.
//! Rotation, by the agent or by logrotate with or without a signal, neither splits nor loses a line. Lines that the disk
//! does not accept stay in memory, and are written to the file that is at the path at the next try. A position identifies
//! a file by its first line, so that it is valid after the file is renamed, copied or compressed. The log does not depend
//! on the store.

mod backward;
mod files;
mod forward;
mod retain;
mod rotate;

pub(crate) use backward::Backward;
pub(crate) use forward::Forward;
pub(crate) use retain::Retention;

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use bytesize::ByteSize;
use nix::fcntl::{FallocateFlags, fallocate};
use serde::Deserialize;

use crate::alarm::Alarm;
use crate::alert::ALERT_BYTES_MAX;
use crate::clock;
use crate::trace::{How, KnownFile, Trace};

/// Longest line that is read, in bytes: much longer than any that is written, because earlier versions wrote lines of
/// 16.9 MB. Longer lines are skipped and counted.
pub(crate) const LINE_BYTES_MAX: usize = 68 * ALERT_BYTES_MAX;
/// Mode of the log: the agent writes, its group reads.
const LOG_MODE: u32 = 0o640;
/// Mode of the log's directory.
const DIRECTORY_MODE: u32 = 0o750;
/// Maximum bytes that are written and synced at once.
const WRITE_BYTES_MAX: usize = 1 << 20;
/// Disk space that is reserved beyond the end of the file, so that a full disk does not stop the log at once.
const RESERVE_BYTES: u64 = 4 << 20;
/// Maximum bytes of an incomplete line that are copied to the agent's own log.
const TORN_BYTES_SHOWN: u64 = 16 << 10;

/// Default path of the log.
pub(crate) const PATH: &str = "/var/log/lapwing/alerts.ndjson";

/// The `[alerts]` section.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// The log's file. Default: `/var/log/lapwing/alerts.ndjson`.
    pub(crate) path: PathBuf,
    /// Size at which the log is rotated. Default: `50 MiB`.
    pub(crate) rotate_size: ByteSize,
    /// Age at which the log is rotated. Default: `30d`.
    #[serde(deserialize_with = "clock::deserialize_period")]
    pub(crate) rotate_age: Duration,
    /// Disk space for rotated files, as a multiple of `rotate_size`. There may be up to eight times as many compressed files.
    /// When the oldest file is deleted, alerts about others than its biggest consumer are carried over, within half of this
    /// space. Default: 12.
    pub(crate) rotate_keep: u16,
    /// Whether rotated files are compressed. Default: true.
    pub(crate) gzip: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            path: PATH.into(),
            rotate_size: ByteSize::mib(50),
            rotate_age: Duration::from_hours(30 * 24),
            rotate_keep: 12,
            gzip: true,
        }
    }
}

/// A position in the log, after a complete line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// The fingerprint of the file.
    pub(crate) file: String,
    /// Bytes of the file's uncompressed text before the position.
    pub(crate) offset: u64,
}

/// The log, open for writing.
pub(crate) struct AlertLog {
    path: PathBuf,
    file: File,
    begun: SystemTime,
    /// The fingerprint of the open file; `None` while it is empty.
    fingerprint: Option<String>,
    /// Length of the complete lines that are on disk, in bytes.
    synced: u64,
    /// Lines that are not yet on disk, without line ends.
    waiting: VecDeque<Bytes>,
    /// The number of them that are being written.
    lines: Vec<u8>,
    /// A write failed, so that the content beyond `synced` is unknown.
    doubtful: bool,
    /// Offset up to which disk space is reserved.
    reserved: u64,
    rotation: rotate::Rotation,
    trouble: Alarm,
    trace: Arc<Trace>,
}

impl AlertLog {
    /// Opens the log, creates it and its directory if needed, and removes an incomplete line that a crash left.
    ///
    /// # Errors
    /// The file cannot be created or written, or the configuration is invalid.
    pub(crate) fn open(config: &Config) -> Result<Self> {
        ensure!(config.rotate_size.as_u64() > 0, "`alerts.rotate_size` must be greater than zero");
        let path = config.path.clone();
        let opened = open(&path).with_context(|| {
            format!(
                "cannot write the alert log {}: check `alerts.path` and who may write there",
                path.display()
            )
        })?;
        let trace = Trace::new();
        trace.set(opened.place());
        Ok(Self {
            trace,
            trouble: Alarm::new(format!("alert log {}", path.display())),
            rotation: rotate::Rotation::start(config),
            file: opened.file,
            begun: opened.begun,
            fingerprint: opened.fingerprint,
            synced: opened.length,
            waiting: VecDeque::new(),
            lines: Vec::new(),
            doubtful: false,
            reserved: 0,
            path,
        })
    }

    /// Adds a line, one JSON object without line breaks, for the next [`sync`](Self::sync).
    pub(crate) fn append(&mut self, json: Bytes) {
        self.waiting.push_back(json);
    }

    /// Number of lines that are not yet on disk.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Removes the first line that is not yet on disk.
    pub(crate) fn leave_out(&mut self) {
        self.waiting.pop_front();
    }

    /// Writes the added lines and waits until they are on disk. After an error it must be called again: complete lines that
    /// the disk accepted are kept, and the others wait.
    ///
    /// # Errors
    /// Some lines are not on disk, for example because it is full.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        while !self.waiting.is_empty() {
            self.follow_the_path()?;
            self.take_back()?;
            self.rotate_if_due()?;
            self.reserve();
            self.write()?;
        }
        Ok(())
    }

    /// Writes the first lines, up to the maximum of one write.
    fn write(&mut self) -> io::Result<()> {
        self.lines.clear();
        for json in &self.waiting {
            if !self.lines.is_empty() && self.lines.len() + json.len() >= WRITE_BYTES_MAX {
                break;
            }
            self.lines.extend_from_slice(json);
            self.lines.push(b'\n');
        }
        self.doubtful = true;
        let (written, outcome) = write_all(&self.file, &self.lines);
        // Complete lines that were written stay.
        let whole = memchr::memrchr(b'\n', &self.lines[..written]).map_or(0, |end| end + 1);
        if whole < written {
            self.file.set_len(self.synced + whole as u64)?;
        }
        self.file.sync_data()?;
        self.doubtful = false;
        self.synced += whole as u64;
        self.trace.set(self.file.metadata().ok().map(|file| KnownFile::new(&file, self.synced)));
        if self.fingerprint.is_none() {
            self.fingerprint = files::fingerprint_of(&self.lines[..whole]);
        }
        let count = memchr::memchr_iter(b'\n', &self.lines[..whole]).count();
        self.waiting.drain(..count);
        self.lines.clear();
        self.lines.shrink_to(1 << 16);
        outcome
    }

    /// Truncates what a failed write left after the complete lines: the kernel may have dropped a part of it, and the next
    /// sync would succeed without that part.
    fn take_back(&mut self) -> io::Result<()> {
        if self.doubtful {
            self.file.set_len(self.synced)?;
            self.reserved = 0;
            self.doubtful = false;
        }
        Ok(())
    }

    /// Reserves disk space. File systems that cannot, or have none, are written without.
    fn reserve(&mut self) {
        if self.reserved >= self.synced + RESERVE_BYTES / 2 {
            return;
        }
        let (Ok(from), Ok(length)) = (i64::try_from(self.synced), i64::try_from(RESERVE_BYTES)) else {
            return;
        };
        if fallocate(&self.file, FallocateFlags::FALLOC_FL_KEEP_SIZE, from, length).is_ok() {
            self.reserved = self.synced + RESERVE_BYTES;
        }
    }

    /// The counters of retention.
    pub(crate) fn retention(&self) -> Arc<Retention> {
        self.rotation.retention.clone()
    }

    /// The position after the last line that [`sync`](Self::sync) wrote; `None` while the open file is empty.
    pub(crate) fn position(&self) -> Option<Position> {
        Some(Position { file: self.fingerprint.clone()?, offset: self.synced })
    }

    /// The trace of the open file, by which others see whether it was removed.
    pub(crate) fn trace(&self) -> Arc<Trace> {
        self.trace.clone()
    }

    /// Reopens the file at the log's path, as after a rename by logrotate.
    ///
    /// # Errors
    /// The file cannot be created or written; the old one stays open.
    pub(crate) fn reopen(&mut self) -> io::Result<()> {
        if let Some(how) =
            self.trace.place().and_then(|place| How::of(&place, fs::metadata(&self.path).ok().as_ref()))
        {
            self.trace.lose(how);
        }
        let opened = open(&self.path)?;
        self.trace.set(opened.place());
        // The old file should not keep a partial line; its lines are written again.
        let _ = self.take_back();
        self.doubtful = false;
        self.reserved = 0;
        self.file = opened.file;
        self.begun = opened.begun;
        self.fingerprint = opened.fingerprint;
        self.synced = opened.length;
        Ok(())
    }

    /// The file may be renamed, deleted or truncated without a signal.
    fn follow_the_path(&mut self) -> io::Result<()> {
        let open = self.file.metadata()?;
        let same = match fs::metadata(&self.path) {
            Ok(named) => (named.dev(), named.ino()) == (open.dev(), open.ino()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        let as_left = open.len() == self.synced || (self.doubtful && open.len() > self.synced);
        if same && as_left { Ok(()) } else { self.reopen() }
    }

    /// A failed rotation is reported, and does not prevent writing the alert.
    fn rotate_if_due(&mut self) -> io::Result<()> {
        if !self.rotation.is_due(self.synced, self.begun) {
            return Ok(());
        }
        // The rotated file needs no reserved space, and is not lost.
        self.reserved = 0;
        let place = self.trace.place();
        self.trace.set(None);
        if let Err(error) = self.file.set_len(self.synced).and_then(|()| self.rotation.rename()) {
            self.trace.set(place);
            self.trouble.raise(format!("it cannot be rotated and keeps growing: {error}"));
            return Ok(());
        }
        self.trouble.clear();
        self.reopen()?;
        self.rotation.tidy();
        Ok(())
    }
}

struct Opened {
    file: File,
    begun: SystemTime,
    fingerprint: Option<String>,
    length: u64,
}

impl Opened {
    /// Device and inode; `None` for what is not a regular file.
    fn place(&self) -> Option<KnownFile> {
        let file = self.file.metadata().ok().filter(|file| file.is_file())?;
        Some(KnownFile::new(&file, self.length))
    }
}

fn open(path: &Path) -> io::Result<Opened> {
    let directory =
        path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory)?;
    // A pipe or a device in its place must not block the agent: writing fails and is retried.
    let mut options = OpenOptions::new();
    options
        .read(true)
        .append(true)
        .create(true)
        .mode(LOG_MODE)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = options.open(path)?;
    let metadata = file.metadata()?;
    let begun = metadata.created().or_else(|_| metadata.modified())?;
    if !metadata.is_file() {
        tracing::error!("alert log {}: not a regular file; remove it, or set `alerts.path`", path.display());
        return Ok(Opened { begun, fingerprint: None, file, length: 0 });
    }
    let length = cut_torn_line(&file, path)?;
    // The directory entry must be on disk too.
    File::open(directory)?.sync_all()?;
    Ok(Opened { begun, fingerprint: files::fingerprint(path)?, file, length })
}

/// Writes as much as the file accepts. Returns the number of bytes and the error, if any.
fn write_all(mut file: &File, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < bytes.len() {
        match file.write(&bytes[written..]) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

/// A crash or a power failure can leave a last line without its end. It was never reported as written, and readers expect
/// complete lines, so it is moved to the agent's own log. Returns the length of the rest.
fn cut_torn_line(file: &File, path: &Path) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let mut end = length;
    let mut window = [0; 4096];
    let whole = loop {
        let start = end.saturating_sub(window.len() as u64);
        let part = &mut window[..(end - start) as usize];
        file.read_exact_at(part, start)?;
        if let Some(index) = part.iter().rposition(|byte| *byte == b'\n') {
            break start + index as u64 + 1;
        }
        if start == 0 {
            break 0;
        }
        end = start;
    };
    if whole < length {
        let mut torn = vec![0; (length - whole).min(TORN_BYTES_SHOWN) as usize];
        file.read_exact_at(&mut torn, whole)?;
        let (torn, bytes) = (torn.escape_ascii(), length - whole);
        tracing::warn!(%torn, "alert log {}: removed an incomplete line of {bytes} bytes", path.display());
        file.set_len(whole)?;
        file.sync_all()?;
    }
    Ok(whole)
}

#[cfg(test)]
mod tests;
