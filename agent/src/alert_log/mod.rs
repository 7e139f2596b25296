//! The alert log: one JSON object a line, for responders and collectors, on the host whatever happens upstream.
//!
//! What is promised: a line is whole, however the disk fills or the agent is killed; after [`AlertLog::sync`] it is
//! on disk; rotation, ours or logrotate's with or without a signal, tears and loses none. A position names a file by
//! its first line, so that it holds when the file is renamed, copied or compressed. The log knows no store.

mod backward;
mod files;
mod forward;
mod rotate;

pub(crate) use backward::Backward;
pub(crate) use forward::Forward;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use bytesize::ByteSize;
use serde::Deserialize;

use crate::alarm::Alarm;
use crate::clock;

/// Access to the log: the agent writes, its group reads.
const LOG_MODE: u32 = 0o640;
/// Access to the log's directory.
const DIRECTORY_MODE: u32 = 0o750;
/// How much of a torn line the agent's own log keeps.
const TORN_BYTES_SHOWN: u64 = 16 << 10;

/// Where the log is, where the configuration does not say.
pub(crate) const PATH: &str = "/var/log/lapwing/alerts.ndjson";

/// The `[alerts]` section.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// The log's file. Default: `/var/log/lapwing/alerts.ndjson`.
    pub(crate) path: PathBuf,
    /// The log is rotated when it has grown to this size. Default: `50 MiB`.
    pub(crate) rotate_size: ByteSize,
    /// The log is rotated when it was begun this long ago. Default: `30d`.
    #[serde(deserialize_with = "clock::deserialize_period")]
    pub(crate) rotate_age: Duration,
    /// How many rotated files are kept; older ones are deleted. Default: 12.
    pub(crate) files_kept: u16,
    /// Whether rotated files are compressed. Default: true.
    pub(crate) gzip: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            path: PATH.into(),
            rotate_size: ByteSize::mib(50),
            rotate_age: Duration::from_hours(30 * 24),
            files_kept: 12,
            gzip: true,
        }
    }
}

/// A place in the log, after a whole line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// The file, by its fingerprint.
    pub(crate) file: String,
    /// Bytes of the file's uncompressed text before the place.
    pub(crate) offset: u64,
}

/// The log, open for writing.
pub(crate) struct AlertLog {
    path: PathBuf,
    file: File,
    begun: SystemTime,
    /// What the open file is known by; `None` while it is empty.
    fingerprint: Option<String>,
    /// Bytes of the file that hold whole lines on disk.
    synced: u64,
    /// Lines that are not yet on disk, and how many of their bytes were written.
    lines: Vec<u8>,
    written: usize,
    /// A sync failed, after which nothing is known of what lies behind `synced`.
    doubtful: bool,
    rotation: rotate::Rotation,
    trouble: Alarm,
}

impl AlertLog {
    /// Opens the log, creating it with its directory, and cuts off a line that a crash left without an end.
    ///
    /// # Errors
    /// The file cannot be created or written, or the configuration makes no sense.
    pub(crate) fn open(config: &Config) -> Result<Self> {
        ensure!(config.rotate_size.as_u64() > 0, "`alerts.rotate_size` must be more than nothing");
        let path = config.path.clone();
        let opened = open(&path).with_context(|| {
            format!(
                "cannot write the alert log {}: check `alerts.path` and who may write there",
                path.display()
            )
        })?;
        Ok(Self {
            trouble: Alarm::new(format!("alert log {}", path.display())),
            rotation: rotate::Rotation::start(config),
            file: opened.file,
            begun: opened.begun,
            fingerprint: opened.fingerprint,
            synced: opened.length,
            lines: Vec::new(),
            written: 0,
            doubtful: false,
            path,
        })
    }

    /// Adds a line, one JSON object without line breaks, to what the next [`sync`](Self::sync) writes.
    pub(crate) fn append(&mut self, json: &[u8]) {
        self.lines.extend_from_slice(json);
        self.lines.push(b'\n');
    }

    /// Writes the lines that were added and waits until they are on disk. After an error it is to be called again: it
    /// goes on in the middle of a line where it stopped.
    ///
    /// # Errors
    /// The lines are not on disk: it is full, say.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if self.lines.is_empty() {
            return Ok(());
        }
        if self.doubtful {
            // The kernel may have forgotten what it could not write, and the next sync would succeed without it.
            self.file.set_len(self.synced)?;
            self.written = 0;
            self.doubtful = false;
        }
        if self.written == 0 {
            self.follow_the_path()?;
            self.rotate_if_due()?;
        }
        while self.written < self.lines.len() {
            match self.file.write(&self.lines[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => self.written += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.doubtful = true;
        self.file.sync_data()?;
        self.doubtful = false;
        self.synced += self.lines.len() as u64;
        if self.fingerprint.is_none() {
            self.fingerprint = files::fingerprint_of(&self.lines);
        }
        self.lines.clear();
        self.lines.shrink_to(1 << 16);
        self.written = 0;
        Ok(())
    }

    /// The place after the last line that [`sync`](Self::sync) wrote; `None` while the open file is empty.
    pub(crate) fn position(&self) -> Option<Position> {
        Some(Position { file: self.fingerprint.clone()?, offset: self.synced })
    }

    /// Opens the file at the log's path, as after a rename by logrotate.
    ///
    /// # Errors
    /// The file cannot be created or written; the old one stays open.
    pub(crate) fn reopen(&mut self) -> io::Result<()> {
        if self.written > 0 {
            // A line is half written; the rename is noticed before the next one.
            return Ok(());
        }
        let opened = open(&self.path)?;
        self.file = opened.file;
        self.begun = opened.begun;
        self.fingerprint = opened.fingerprint;
        self.synced = opened.length;
        Ok(())
    }

    /// Whoever renamed, deleted or emptied the file may not have told us.
    fn follow_the_path(&mut self) -> io::Result<()> {
        let open = self.file.metadata()?;
        let same = match fs::metadata(&self.path) {
            Ok(named) => (named.dev(), named.ino()) == (open.dev(), open.ino()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        if same && open.len() == self.synced { Ok(()) } else { self.reopen() }
    }

    /// A rotation that fails is trouble, and no reason not to write the alert.
    fn rotate_if_due(&mut self) -> io::Result<()> {
        if !self.rotation.is_due(self.synced, self.begun) {
            return Ok(());
        }
        if let Err(error) = self.rotation.rename() {
            self.trouble.raise(format!("it cannot be rotated and grows on: {error}"));
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

fn open(path: &Path) -> io::Result<Opened> {
    let directory =
        path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory)?;
    let file = OpenOptions::new().read(true).append(true).create(true).mode(LOG_MODE).open(path)?;
    let length = cut_torn_line(&file, path)?;
    let metadata = file.metadata()?;
    // The name is to be on disk as well as what is in the file.
    File::open(directory)?.sync_all()?;
    Ok(Opened {
        begun: metadata.created().or_else(|_| metadata.modified())?,
        fingerprint: files::fingerprint(path)?,
        file,
        length,
    })
}

/// A crash, or a power cut, can leave a last line without its end. It was never reported as written, and whoever reads
/// the log expects whole lines; what is left of it goes to the agent's own log. Returns the length of the rest.
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
        let torn = torn.escape_ascii();
        tracing::warn!(%torn, "alert log {}: a line of {} bytes without an end is cut off", path.display(), length - whole);
        file.set_len(whole)?;
        file.sync_all()?;
    }
    Ok(whole)
}

#[cfg(test)]
mod tests;
