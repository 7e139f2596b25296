//! Alerts as they come to the disk, and what the disk takes for itself.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use serde_json::Value as Json;

use super::now;

/// How long an alert may take before it counts as one that did not come.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// The alert log, as someone sees it who waits for the next line.
pub(super) struct Log {
    file: BufReader<File>,
    changes: OwnedFd,
    line: Vec<u8>,
}

/// When an alert came, in seconds of the monotonic clock.
pub(super) struct Arrival {
    /// It can be read in the log.
    pub(super) seen: f64,
    /// It would be there after a power cut.
    pub(super) on_disk: f64,
}

impl Log {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let changes = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        inotify::add_watch(&changes, path, WatchFlags::MODIFY).with_context(|| path.display().to_string())?;
        let file = File::open(path).with_context(|| path.display().to_string())?;
        Ok(Self { file: BufReader::new(file), changes, line: Vec::new() })
    }

    /// Waits until the alert of a process is on disk; `None` where it does not come.
    pub(super) fn wait_for(&mut self, pid: u64) -> Result<Option<Arrival>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            while self.file.read_until(b'\n', &mut self.line)? > 0 && self.line.ends_with(b"\n") {
                let seen = now();
                // What is seen may not be on disk yet; it is when this returns, by whichever sync.
                self.file.get_ref().sync_data()?;
                let arrival = Arrival { seen, on_disk: now() };
                let alert: Json = serde_json::from_slice(&self.line).context("the alert log")?;
                self.line.clear();
                if alert.pointer("/process/pid").and_then(Json::as_u64) == Some(pid) {
                    return Ok(Some(arrival));
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            poll(&mut [PollFd::new(&self.changes, PollFlags::IN)], Some(&left))?;
            // The content of the answer does not matter, only that it is read.
            let _ = rustix::io::read(&self.changes, &mut [0; 4096]);
        }
    }
}

/// What the disk takes without an agent: a line of an alert's length, written and synced beside the alert log.
pub(super) struct Disk {
    file: File,
    line: Vec<u8>,
}

impl Disk {
    const LINE_BYTES: usize = 16 * 1024;

    pub(super) fn new(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| path.display().to_string())?;
        Ok(Self { file, line: vec![b'\n'; Self::LINE_BYTES] })
    }

    /// Writes one, and returns how many seconds that took.
    pub(super) fn write(&mut self) -> Result<f64> {
        let start = now();
        self.file.write_all(&self.line)?;
        self.file.sync_data()?;
        Ok(now() - start)
    }
}
