//! Dead letters: alerts that upstream rejects in every form. They are in files of one JSON object per line, with the
//! alert and the reason, until the cause is repaired and `lapwing sink retry` resends them. The alert log has them as
//! well.
//!
//! The files have all counts, so that a restart keeps them: how many alerts they hold, and how many were dropped for
//! lack of room.

use std::borrow::Cow;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use bytesize::ByteSize;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::alert_log::LINE_BYTES_MAX;
use crate::clock;
use crate::store::Spooled;

/// Mode of the directory, which is created with its first file.
const DIRECTORY_MODE: u32 = 0o750;
/// Mode of a file in it.
const FILE_MODE: u32 = 0o640;

/// A `[sink.dead_letters]` section.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// How much the dead letters may take; beyond it the older half is dropped and counted. Default: `64 MiB`.
    pub(crate) size_max: ByteSize,
}

impl Default for Config {
    fn default() -> Self {
        Self { size_max: ByteSize::mib(64) }
    }
}

/// The files of one sink.
pub(super) struct DeadLetters {
    sink: String,
    directory: PathBuf,
    bytes_max: u64,
    /// Alerts in the files, and alerts that were dropped for lack of room.
    pub(super) count: u64,
    pub(super) dropped: u64,
}

/// A line of the file: an alert, or at the start of a file how many were dropped before it.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(rename = "@timestamp")]
    time: String,
    sink: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alert: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped: Option<u64>,
}

/// What is read of a line.
#[derive(Deserialize)]
struct DeadLetter<'a> {
    #[serde(borrow, default)]
    alert: Option<&'a RawValue>,
    #[serde(default)]
    dropped: u64,
    #[serde(borrow, default)]
    reason: Option<Cow<'a, str>>,
}

impl DeadLetters {
    /// The files as earlier runs left them.
    pub(super) fn open(directory: &Path, sink: &str, config: &Config) -> Self {
        let bytes_max = config.size_max.as_u64();
        let mut letters =
            Self { sink: sink.to_owned(), directory: directory.to_owned(), bytes_max, count: 0, dropped: 0 };
        let (older, newer) = (count(&letters.file("ndjson.1")), count(&letters.path()));
        letters.count = older.0 + newer.0;
        letters.dropped = older.1.max(newer.1);
        letters
    }

    /// The file that is written to.
    pub(super) fn path(&self) -> PathBuf {
        self.file("ndjson")
    }

    fn file(&self, end: &str) -> PathBuf {
        self.directory.join(format!("{}.{end}", self.sink))
    }

    /// Writes a dead letter and waits until it is on disk.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn write(&mut self, alert: &Spooled, reason: &str) -> io::Result<()> {
        make(&self.directory)?;
        let path = self.path();
        if fs::metadata(&path).is_ok_and(|file| file.len() >= self.bytes_max / 2) {
            let older = self.file("ndjson.1");
            let (lost, _) = count(&older);
            fs::rename(&path, older)?;
            (self.dropped, self.count) = (self.dropped + lost, self.count.saturating_sub(lost));
        }
        let mut text = Vec::new();
        if self.dropped > 0 && !path.exists() {
            let (time, dropped) = (clock::now().to_string(), Some(self.dropped));
            text = serde_json::to_vec(&Line { time, sink: &self.sink, reason: None, alert: None, dropped })?;
            text.push(b'\n');
        }
        text.extend(line(&self.sink, alert, reason)?);
        let is_new = !path.exists();
        let mut file = OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(&path)?;
        file.write_all(&text)?;
        file.sync_all()?;
        if is_new {
            File::open(&self.directory)?.sync_all()?;
        }
        self.count += 1;
        Ok(())
    }

    /// If a command requests a retry, moves the files to where they are read for it. Returns the files still to be
    /// sent, the oldest first.
    ///
    /// # Errors
    /// The files cannot be moved.
    pub(super) fn take_to_resend(&mut self) -> io::Result<Vec<PathBuf>> {
        let (older, newer) = (self.file("resend.1"), self.file("resend"));
        let there = || [&older, &newer].into_iter().filter(|path| path.exists()).cloned().collect();
        let marker = marker(&self.directory, &self.sink);
        let found: Vec<PathBuf> = there();
        if !found.is_empty() || !marker.exists() {
            return Ok(found);
        }
        for (from, to) in [(self.file("ndjson.1"), &older), (self.path(), &newer)] {
            if from.exists() {
                fs::rename(from, to)?;
            }
        }
        fs::remove_file(marker)?;
        File::open(&self.directory)?.sync_all()?;
        self.count = 0;
        Ok(there())
    }
}

/// The file by which a command requests a retry: the running agent, or the next one, finds it.
fn marker(directory: &Path, sink: &str) -> PathBuf {
    directory.join(format!("{sink}.retry"))
}

/// Requests that a sink's dead letters are resent. Returns how many there are.
///
/// # Errors
/// The folder cannot be written.
pub(crate) fn retry(directory: &Path, sink: &str) -> io::Result<u64> {
    let letters = DeadLetters::open(directory, sink, &Config::default());
    if letters.count > 0 {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(marker(directory, sink))?;
    }
    Ok(letters.count)
}

/// A line with an alert and the reason.
pub(super) fn line(sink: &str, alert: &Spooled, reason: &str) -> io::Result<Vec<u8>> {
    // An alert that is not JSON is kept as well.
    let text = String::from_utf8_lossy(&alert.json);
    let quoted;
    let raw = match serde_json::from_str::<&RawValue>(&text) {
        Ok(raw) => raw,
        Err(_) => {
            quoted = serde_json::value::to_raw_value(&text)?;
            &*quoted
        }
    };
    let time = clock::now().to_string();
    let mut line =
        serde_json::to_vec(&Line { time, sink, reason: Some(reason), alert: Some(raw), dropped: None })?;
    line.push(b'\n');
    Ok(line)
}

/// Creates the folder if it does not exist.
pub(super) fn make(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory)?;
    directory.parent().map_or(Ok(()), |above| File::open(above)?.sync_all())
}

/// Reads the alerts in a file with their reasons. Other lines are skipped.
pub(super) struct Reader {
    reader: BufReader<File>,
    line: Vec<u8>,
}

impl Reader {
    /// Reads a file from its start.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { reader: BufReader::new(File::open(path)?), line: Vec::new() })
    }

    /// The next line; an error is the end.
    fn line(&mut self) -> Option<&[u8]> {
        self.line.clear();
        let read = self.reader.by_ref().take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut self.line);
        read.is_ok_and(|bytes| bytes > 0).then_some(&*self.line)
    }
}

impl Iterator for Reader {
    type Item = (Spooled, String);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Ok(DeadLetter { alert: Some(alert), reason, .. }) = serde_json::from_slice(self.line()?)
            else {
                continue;
            };
            let Ok(Alert { event }) = serde_json::from_str(alert.get()) else { continue };
            let json = Bytes::copy_from_slice(alert.get().as_bytes());
            return Some((
                Spooled { sequence: 0, id: event.id, json },
                reason.unwrap_or_default().into_owned(),
            ));
        }
    }
}

/// What is read of an alert.
#[derive(Deserialize)]
struct Alert {
    event: AlertEvent,
}

#[derive(Deserialize)]
struct AlertEvent {
    id: String,
}

/// How many alerts a file holds, and how many it counts as dropped; none if it cannot be read.
fn count(path: &Path) -> (u64, u64) {
    let (mut alerts, mut dropped) = (0, 0);
    let Ok(mut reader) = Reader::open(path) else { return (0, 0) };
    while let Some(line) = reader.line() {
        match serde_json::from_slice::<DeadLetter<'_>>(line) {
            Ok(letter) if letter.alert.is_none() => dropped = letter.dropped.max(dropped),
            _ => alerts += 1,
        }
    }
    (alerts, dropped)
}
