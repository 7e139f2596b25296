//! Files of a trail in folders: which one is read next, from where, and what is saved about it.
//!
//! A file is read to its end. One that ends within a record is still being written, so it is read on when it changes;
//! if it does not change for [`INCOMPLETE_WAIT`] it is broken. A broken file is quarantined: its row has the reason,
//! the file is not touched, and if it changes it is read on.

use std::collections::BTreeSet;
use std::fs::{File, Metadata};
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lapwing_engine::{Fields, Timestamp, field};

use super::config::{Config, ReadFrom};
use super::progress::{FileStamp, Known, Progress, ReadDecision, ReadOrder};
use super::records::{ReadError, Records};
use super::status::SourceStatus;
use super::tree::Tree;
use crate::clock;
use crate::store::Change;

/// Most files that wait to be read. If there are more, the oldest wait and the others are found again later.
const FILES_PENDING_MAX: usize = 8192;
/// How long the kernel's notifications may stay unread.
const NOTICE_INTERVAL: Duration = Duration::from_millis(500);
/// How long a file may end within a record before it counts as broken.
const INCOMPLETE_WAIT: Duration = Duration::from_secs(600);

/// The folders' files.
pub(crate) struct LogFolder {
    pub(super) tree: Tree,
    pub(super) progress: Progress,
    /// Files to be read, oldest first.
    pending: BTreeSet<ReadOrder>,
    /// The first of the files that did not fit into `pending`, in the last scan and in the current one.
    left_out: Option<ReadOrder>,
    left_out_now: Option<ReadOrder>,
    /// Whether the folders were scanned once.
    looked: bool,
    /// During the first scan: files last changed by this time are skipped.
    mute_until: Option<i64>,
    /// All files changed up to this time were seen, and are read once none is pending.
    complete_until: Option<i64>,
    /// The same, except for files that could not be seen or read.
    seen_until: Option<i64>,
    /// Rows that are to be written before anything is read.
    owed: Vec<Change>,
    status: Arc<SourceStatus>,
    /// [`FILES_PENDING_MAX`], or less in tests.
    pub(super) pending_max: usize,
}

/// A file that is being read.
pub(crate) struct Reading {
    /// Its records.
    pub(crate) records: Records,
    /// Fields that say where an event was read.
    pub(crate) origin: Arc<Fields>,
    place: ReadOrder,
    file: Arc<File>,
    stamp: FileStamp,
}

impl LogFolder {
    /// The folders of `config`, with their progress from the store's rows.
    pub(crate) fn new(config: &Config, rows: Vec<(String, Vec<u8>)>, status: Arc<SourceStatus>) -> Self {
        let mut progress = Progress::load(rows);
        let mut owed = Vec::new();
        let mute_until = (config.read_from == ReadFrom::End && progress.is_new()).then(now_nanos);
        if let Some(until) = mute_until {
            progress.pass_over(until, &mut owed);
        }
        Self {
            tree: Tree::new(config.folders.clone(), config.rescan_interval, Arc::clone(&status)),
            progress,
            pending: BTreeSet::new(),
            left_out: None,
            left_out_now: None,
            looked: false,
            mute_until,
            complete_until: None,
            seen_until: None,
            owed,
            status,
            pending_max: FILES_PENDING_MAX,
        }
    }

    /// Finds files: takes the kernel's notifications, and reads one directory if a scan is due.
    pub(crate) fn look(&mut self) {
        let Self { tree, progress, pending, pending_max, mute_until, .. } = self;
        let mut left_out: Option<ReadOrder> = None;
        let mut unnamed = Vec::new();
        let mut found = |path: PathBuf, metadata: &Metadata| match path.into_os_string().into_string() {
            Ok(path) => {
                let stamp = FileStamp::of(metadata);
                let place = (order(&path, stamp.modified), path);
                // Of the skipped entries only regular files matter: they may grow.
                let muted =
                    mute_until.is_some_and(|until| stamp.changed <= until) && !place.1.ends_with(".gz");
                if muted || progress.wanted(&place, &stamp) != ReadDecision::No {
                    pending.insert(place);
                    if pending.len() > *pending_max {
                        left_out = first(left_out.take(), pending.pop_last());
                    }
                }
            }
            Err(path) => unnamed.push(PathBuf::from(path)),
        };
        tree.notified(&mut found);
        let scanned = tree.step(&mut found);
        self.left_out = first(self.left_out.take(), left_out.clone());
        self.left_out_now = first(self.left_out_now.take(), left_out);
        if let Some(scanned) = scanned {
            self.looked = true;
            self.complete_until = scanned.complete.then_some(scanned.until);
            self.seen_until = Some(scanned.until);
            self.left_out = self.left_out_now.take();
        }
        for path in unnamed {
            self.tree.complain(
                &path,
                &io::Error::new(io::ErrorKind::InvalidFilename, "its name is not UTF-8; rename it"),
            );
        }
    }

    /// Whether there is work to do now.
    pub(crate) fn busy(&self) -> bool {
        !self.pending.is_empty() || self.tree.scanning()
    }

    /// When to check again if nothing happens.
    pub(crate) fn due(&self) -> Instant {
        self.tree.due().min(Instant::now() + NOTICE_INTERVAL)
    }

    /// Opens the next file to read, if there is one; rows that change are added to `changes`.
    pub(crate) fn open(&mut self, changes: &mut Vec<Change>) -> Option<Reading> {
        changes.append(&mut self.owed);
        // The oldest file is known only when all have been seen.
        if self.tree.scanning() && (!self.looked || self.left_out.is_some()) {
            return None;
        }
        while let Some(place) = self.pending.pop_first() {
            match self.open_file(&place) {
                Ok(Some(reading)) => return Some(reading),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => self.fail(&place.1, &error),
            }
        }
        if self.left_out.is_some() {
            self.tree.rescan();
        } else if self.looked {
            self.mute_until = None;
            self.progress.forget(self.until(), None, changes);
        }
        None
    }

    fn open_file(&self, place: &ReadOrder) -> io::Result<Option<Reading>> {
        let file = Arc::new(self.tree.file(Path::new(&place.1))?);
        let metadata = file.metadata()?;
        let stamp = FileStamp::of(&metadata);
        let known = match self.progress.wanted(place, &stamp) {
            ReadDecision::Yes(known) => known.filter(|known| Progress::is_same(known, &file, &stamp)),
            // Read to the end without events, so that later additions are distinguished from the present content.
            ReadDecision::No if self.mute_until.is_some_and(|until| stamp.changed <= until) => {
                Some(Known { records: u64::MAX, ..Known::default() })
            }
            ReadDecision::No => return Ok(None),
        };
        let records = match known {
            Some(Known { offset: Some(offset), records, .. }) => {
                (&*file).seek(SeekFrom::Start(offset))?;
                Records::resumed(Arc::clone(&file), offset, records)
            }
            known => Records::new(Arc::clone(&file), known.map_or(0, |known| known.records))?,
        };
        let mut origin = Fields::new();
        origin.set(field!("log.file.path"), place.1.as_str());
        Ok(Some(Reading { records, origin: origin.into(), place: place.clone(), file, stamp }))
    }

    /// Notes how far a file was read that will be read on.
    pub(crate) fn pause(&mut self, reading: &Reading, changes: &mut Vec<Change>) {
        self.note(reading, false, None, changes);
    }

    /// Notes that a file is finished, and why; `refused` says what was wrong with its records.
    pub(crate) fn finish(
        &mut self,
        reading: &Reading,
        end: Result<(), ReadError>,
        refused: Option<String>,
        changes: &mut Vec<Change>,
    ) {
        let path = &reading.place.1;
        let quiet = Duration::from_nanos(u64::try_from(now_nanos() - reading.stamp.changed).unwrap_or(0));
        let broken = match end {
            Ok(()) => refused,
            Err(ReadError::Io(error)) => return self.fail(path, &error),
            Err(ReadError::Truncated(_)) if quiet < INCOMPLETE_WAIT => {
                // It is checked again when it changes, or at the next scan.
                self.complete_until = None;
                return self.note(reading, false, None, changes);
            }
            Err(ReadError::Truncated(reason) | ReadError::Broken(reason)) => Some(reason),
        };
        match &broken {
            Some(reason) => self.status.quarantined(path, reason),
            None => self.status.files_read.one(),
        }
        self.note(reading, true, broken.as_deref(), changes);
        self.tree.no_complaint(Path::new(path));
        // The horizon follows a long first reading, but never over a file that is still to be read.
        let next = first(self.pending.first().cloned(), self.left_out.clone());
        if next.as_ref().is_none_or(|next| *next > reading.place) {
            self.progress.forget(self.until(), next.map(|_| &reading.place), changes);
        }
    }

    fn note(&mut self, reading: &Reading, done: bool, quarantined: Option<&str>, changes: &mut Vec<Change>) {
        let (records, offset) = (reading.records.count(), reading.records.offset());
        let date = reading.place.0;
        let known = Known { stamp: reading.stamp, records, offset, done, date, ..Known::default() };
        let path = &reading.place.1;
        if let Err(error) = self.progress.note(path, &reading.file, known, quarantined, changes) {
            self.fail(path, &error);
        }
    }

    /// Files changed up to this time may be evicted. A folder that is unreadable for long must not make the table of
    /// the others grow without limit.
    fn until(&self) -> Option<i64> {
        self.complete_until.or_else(|| self.seen_until.filter(|_| self.progress.is_overfull()))
    }

    /// A file cannot be read now; the next scan finds it again.
    fn fail(&mut self, path: &str, error: &io::Error) {
        self.complete_until = None;
        self.tree.complain(Path::new(path), error);
    }
}

fn first(left: Option<ReadOrder>, right: Option<ReadOrder>) -> Option<ReadOrder> {
    match (left, right) {
        (Some(left), Some(right)) => Some(left.min(right)),
        (left, right) => left.or(right),
    }
}

/// When a file's records were made, by its name or folder, or else when it was last written: in nanoseconds since 1970.
fn order(path: &str, modified: i64) -> i64 {
    named_time(path).or_else(|| dated_folder(path)).unwrap_or(modified)
}

/// The time in the name of a trail's file: `…_20261122T0355Z_….json.gz`.
fn named_time(path: &str) -> Option<i64> {
    let name = path.rsplit('/').next()?;
    name.split('_').rev().find_map(|part| {
        let (date, time) = part.strip_suffix('Z')?.split_once('T')?;
        let digits =
            |text: &str, length| text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(date, 8) || !digits(time, 4) {
            return None;
        }
        let (year, month, day) = (&date[..4], &date[4..6], &date[6..]);
        timestamp(&format!("{year}-{month}-{day}T{}:{}:00Z", &time[..2], &time[2..]))
    })
}

/// The day in the folders of a trail: `…/2026/11/22/…`.
fn dated_folder(path: &str) -> Option<i64> {
    let parts: Vec<_> = path.split('/').collect();
    let date = parts.windows(3).rev().find(|date| {
        date.iter()
            .zip([4, 2, 2])
            .all(|(part, length)| part.len() == length && part.bytes().all(|b| b.is_ascii_digit()))
    })?;
    timestamp(&format!("{}T00:00:00Z", date.join("-")))
}

fn timestamp(text: &str) -> Option<i64> {
    Timestamp::parse(text).map(Timestamp::as_nanos)
}

fn now_nanos() -> i64 {
    clock::now().as_nanos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_in_the_order_of_their_dates() {
        let mut paths = [
            "/t/AWSLogs/1/CloudTrail/us-east-1/2026/01/31/1_CloudTrail_us-east-1_20260131T2355Z_b.json.gz",
            "/t/AWSLogs/1/CloudTrail/eu-west-1/2026/02/01/1_CloudTrail_eu-west-1_20260201T0005Z_a.json.gz",
            "/t/AWSLogs/1/CloudTrail/ap-east-1/2026/02/02/own-name.json.gz",
            "/t/20260203T0000_Z.json",
        ];
        let expected = paths;
        paths.reverse();
        paths.sort_by_key(|path| order(path, i64::MAX));
        assert_eq!(paths, expected);
        assert_eq!(order(expected[3], i64::MAX), i64::MAX, "neither name nor folder has a time");
        assert_eq!(named_time("/t/x_20261332T9999Z_y.json"), None);
    }
}
