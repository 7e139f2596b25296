//! Alerts that upstream does not accept although it accepts others, for example because an ingest pipeline fails on
//! them. Each waits on disk and is retried with growing delays, while later alerts are delivered.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::dead_letter;
use crate::store::Spooled;

/// Most alerts that wait so, and the most that their documents take on disk, in bytes. Without room, later ones wait
/// too: when so many fail, the alerts are not the cause.
const ALERTS_MAX: usize = 64;
const BYTES_MAX: usize = 16 << 20;
/// The longest delay of a waiting alert, as a multiple of the sink's.
const SLOWER: u32 = 20;

/// The alerts of one sink that wait.
pub(super) struct Waiting {
    sink: String,
    path: PathBuf,
    delay_max: Duration,
    alerts: Vec<Alone>,
}

/// One of them.
struct Alone {
    id: String,
    bytes: usize,
    tries: u32,
    next: Instant,
}

impl Waiting {
    /// Those of an earlier run.
    pub(super) fn open(directory: &Path, sink: &str, retry_delay_max: Duration) -> Self {
        let path = directory.join(format!("{sink}.waiting.ndjson"));
        let next = Instant::now();
        // A file that is missing or unreadable counts as empty; the alert log has the alerts.
        let letters = dead_letter::Reader::open(&path).into_iter().flatten().take(ALERTS_MAX);
        let alerts = letters
            .map(|(alert, _)| Alone { bytes: alert.json.len(), id: alert.id, tries: 0, next })
            .collect();
        Self { sink: sink.to_owned(), path, delay_max: retry_delay_max * SLOWER, alerts }
    }

    pub(super) fn count(&self) -> usize {
        self.alerts.len()
    }

    /// Whether one more has room.
    pub(super) fn has_room(&self, alert: &Spooled) -> bool {
        let bytes: usize = self.alerts.iter().map(|alone| alone.bytes).sum();
        self.alerts.len() < ALERTS_MAX && bytes + alert.json.len() <= BYTES_MAX
    }

    /// Adds one, and waits until it is on disk.
    ///
    /// # Errors
    /// The file cannot be written; the alert was not added.
    pub(super) fn add(&mut self, alert: Spooled, reason: &str) -> io::Result<()> {
        let line = dead_letter::line(&self.sink, &alert, reason)?;
        self.write(&line)?;
        let next = Instant::now() + self.delay(0);
        self.alerts.push(Alone { bytes: alert.json.len(), id: alert.id, tries: 0, next });
        Ok(())
    }

    /// When the next retry is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.alerts.iter().map(|alone| alone.next).min()
    }

    /// An alert whose retry is due, and how often it was tried. One that is no longer in the file is removed.
    pub(super) fn due(&mut self) -> Option<(Spooled, u32)> {
        loop {
            let now = Instant::now();
            let place = self.alerts.iter().position(|alone| alone.next <= now)?;
            let Alone { id, tries, .. } = &self.alerts[place];
            let mut letters = dead_letter::Reader::open(&self.path).into_iter().flatten();
            match letters.find(|(alert, _)| alert.id == *id) {
                Some((alert, _)) => return Some((alert, *tries)),
                None => _ = self.alerts.remove(place),
            }
        }
    }

    /// It failed again.
    pub(super) fn later(&mut self, id: &str) {
        let delay_max = self.delay_max;
        for alone in self.alerts.iter_mut().filter(|alone| alone.id == id) {
            alone.tries = alone.tries.saturating_add(1);
            alone.next = Instant::now() + delay(delay_max, alone.tries);
        }
    }

    /// It is delivered, or dead-lettered for good.
    ///
    /// # Errors
    /// The file cannot be written: the next run will try it again.
    pub(super) fn remove(&mut self, id: &str) -> io::Result<()> {
        self.alerts.retain(|alone| alone.id != id);
        self.write(&[])
    }

    fn delay(&self, tries: u32) -> Duration {
        delay(self.delay_max, tries)
    }

    /// Replaces the file by one with the waiting alerts and one more line.
    fn write(&self, line: &[u8]) -> io::Result<()> {
        if self.alerts.is_empty() && line.is_empty() {
            return match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        let directory = self.path.parent().unwrap_or(Path::new("."));
        dead_letter::make(directory)?;
        let unfinished = self.path.with_extension("tmp");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&unfinished)?;
        for (alert, reason) in dead_letter::Reader::open(&self.path).into_iter().flatten() {
            if self.alerts.iter().any(|alone| alone.id == alert.id) {
                file.write_all(&dead_letter::line(&self.sink, &alert, &reason)?)?;
            }
        }
        file.write_all(line)?;
        file.sync_all()?;
        fs::rename(&unfinished, &self.path)?;
        File::open(directory)?.sync_all()
    }
}

/// The delay after so many tries: it doubles, from an eighth of the longest.
fn delay(delay_max: Duration, tries: u32) -> Duration {
    (delay_max / 8).saturating_mul(2_u32.saturating_pow(tries)).min(delay_max)
}
