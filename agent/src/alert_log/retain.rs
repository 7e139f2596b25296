//! Retention of rotated files, by bytes on disk. When they exceed the budget, the oldest file is deleted, but its alerts
//! about others than its biggest consumer are carried over into a file that ends in `.kept`: noise displaces alerts about
//! its maker, not about others.
//!
//! Carried-over alerts have half of the budget. Beyond it the largest of these files is halved, again at the cost of its
//! biggest consumer. For one actor the most severe alerts are kept, and of these the first.

use std::collections::HashMap;
use std::fs::{self, FileTimes, OpenOptions};
use std::io::{self, BufRead, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Deserialize;
use serde_json::Value as Json;

use super::files::{own_files, with_suffix};
use super::forward::{Read, read_line};
use super::{Config, LOG_MODE, files};

/// Maximum number of files, as a multiple of `rotate_keep`, if they are small.
const FILES_TIMES_MAX: usize = 8;
/// Maximum number of actors that are counted separately in one file; others count as one.
const ACTORS_MAX: usize = 256;
/// Longest name of an actor that is compared, in characters.
const ACTOR_CHARS_MAX: usize = 256;
/// A file of carried-over alerts up to this size is deleted instead of halved.
const KEPT_BYTES_MIN: u64 = 4 << 10;

/// Counters of retention in this run, and the disk space of the files.
#[derive(Debug, Default)]
pub(crate) struct Retention {
    /// Rotated files, and their bytes on disk.
    pub(crate) files: AtomicU64,
    pub(crate) bytes: AtomicU64,
    /// Alerts that were carried over when their file was deleted.
    pub(crate) carried: AtomicU64,
    /// Alerts that were deleted.
    pub(crate) expired: AtomicU64,
}

/// A rotated file.
struct Rotated {
    path: PathBuf,
    bytes: u64,
    is_kept: bool,
}

/// Deletes what exceeds the budget.
///
/// # Errors
/// A file cannot be read, written or removed.
pub(super) fn retain(config: &Config, retention: &Retention) -> io::Result<()> {
    loop {
        let files = rotated(config)?;
        let sum =
            |kept: bool| files.iter().filter(|file| file.is_kept == kept).map(|file| file.bytes).sum::<u64>();
        let (whole, kept) = (sum(false), sum(true));
        retention.files.store(files.len() as u64, Relaxed);
        retention.bytes.store(whole + kept, Relaxed);
        let budget = config.rotate_size.as_u64().saturating_mul(u64::from(config.rotate_keep));
        let files_max = usize::from(config.rotate_keep).saturating_mul(FILES_TIMES_MAX);
        let many = |kept: bool| files.iter().filter(|file| file.is_kept == kept).count() > files_max;
        let oldest = |kept: bool| files.iter().find(|file| file.is_kept == kept);
        if kept > budget / 2 || many(true) {
            // Of equally large files, the first is the oldest.
            let largest = files.iter().filter(|file| file.is_kept).rev().max_by_key(|file| file.bytes);
            match largest.filter(|file| file.bytes > KEPT_BYTES_MIN && !many(true)).or_else(|| oldest(true)) {
                Some(file) if file.bytes > KEPT_BYTES_MIN && !many(true) => thin(file, config, retention)?,
                Some(file) => drop_whole(file, retention)?,
                None => return Ok(()),
            }
        } else if whole + kept > budget || many(false) {
            match oldest(false) {
                Some(file) => thin(file, config, retention)?,
                None => return Ok(()),
            }
        } else {
            return Ok(());
        }
    }
}

/// The rotated files, oldest first. Only files that the agent rotated are listed: those of logrotate belong to logrotate.
fn rotated(config: &Config) -> io::Result<Vec<Rotated>> {
    let mut files = Vec::new();
    for (end, is_kept) in [("", false), (".gz", false), (".kept", true), (".kept.gz", true)] {
        for path in own_files(&config.path, end)? {
            // A file that is a little larger than `rotate_size` counts as one.
            let bytes = fs::metadata(&path)?.len().min(config.rotate_size.as_u64());
            files.push(Rotated { path, bytes, is_kept });
        }
    }
    files.sort_by(|left, right| left.path.cmp(&right.path));
    Ok(files)
}

fn drop_whole(file: &Rotated, retention: &Retention) -> io::Result<()> {
    let mut lines = 0;
    each_line(&file.path, |_| {
        lines += 1;
        Ok(())
    })?;
    retention.expired.fetch_add(lines, Relaxed);
    fs::remove_file(&file.path)
}

/// Replaces a file with the alerts that are kept of it, or deletes it.
fn thin(file: &Rotated, config: &Config, retention: &Retention) -> io::Result<()> {
    let mut shares = Shares::default();
    each_line(&file.path, |line| {
        shares.count(line);
        Ok(())
    })?;
    shares.divide(!file.is_kept);
    let to = kept_path(&file.path, config.gzip);
    let unfinished = with_suffix(&to, ".tmp");
    let out = OpenOptions::new().write(true).create(true).truncate(true).mode(LOG_MODE).open(&unfinished)?;
    let (mut out, mut carried, mut expired) = (Out::new(out, config.gzip), 0_u64, 0_u64);
    each_line(&file.path, |line| {
        if !shares.takes(line) {
            expired += 1;
            return Ok(());
        }
        carried += 1;
        out.write_all(line)?;
        out.write_all(b"\n")
    })?;
    let out = out.finish()?;
    out.set_times(FileTimes::new().set_modified(fs::metadata(&file.path)?.modified()?))?;
    out.sync_all()?;
    if carried > 0 {
        fs::rename(&unfinished, &to)?;
    } else {
        fs::remove_file(&unfinished)?;
    }
    if carried == 0 || to != file.path {
        fs::remove_file(&file.path)?;
    }
    retention.expired.fetch_add(expired, Relaxed);
    if !file.is_kept {
        retention.carried.fetch_add(carried, Relaxed);
    }
    Ok(())
}

/// The name of the file with the alerts that are kept of this file.
pub(super) fn kept_path(path: &Path, gzip: bool) -> PathBuf {
    if files::is_kept(path) {
        return path.to_owned();
    }
    let plain = if files::is_gzip(path) { path.with_extension("") } else { path.to_owned() };
    with_suffix(&plain, if gzip { ".kept.gz" } else { ".kept" })
}

/// An output file, compressed or not.
enum Out {
    Plain(BufWriter<fs::File>),
    Gzip(GzEncoder<fs::File>),
}

impl Out {
    fn new(file: fs::File, gzip: bool) -> Self {
        match gzip {
            true => Self::Gzip(GzEncoder::new(file, Compression::default())),
            false => Self::Plain(BufWriter::new(file)),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(out) => out.write_all(bytes),
            Self::Gzip(out) => out.write_all(bytes),
        }
    }

    fn finish(self) -> io::Result<fs::File> {
        match self {
            Self::Plain(out) => out.into_inner().map_err(io::IntoInnerError::into_error),
            Self::Gzip(out) => out.finish(),
        }
    }
}

fn each_line(path: &Path, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut reader: Box<dyn BufRead + Send> = files::open_at(path, 0)?;
    let mut line = Vec::new();
    loop {
        let Read { bytes, is_too_long, .. } = read_line(&mut *reader, &mut line)?;
        if bytes == 0 {
            return Ok(());
        }
        if !is_too_long && !line.is_empty() {
            each(&line)?;
        }
    }
}

/// Bytes of a file by actor and severity, and then the bytes that may be kept.
#[derive(Default)]
struct Shares(HashMap<String, [u64; SEVERITIES]>);

const SEVERITIES: usize = 4;

impl Shares {
    fn count(&mut self, line: &[u8]) {
        let (actor, severity) = self.of(line);
        self.0.entry(actor).or_default()[severity] += line.len() as u64 + 1;
    }

    /// Halves the bytes, with the same maximum for each actor. For a deleted file, the biggest consumer keeps no more than the
    /// next one.
    fn divide(&mut self, falls_off: bool) {
        let mut sums: Vec<u64> = self.0.values().map(|bytes| bytes.iter().sum()).collect();
        sums.sort_unstable_by(|left, right| right.cmp(left));
        let half = sums.iter().sum::<u64>() / 2;
        let taken = |level: u64| sums.iter().map(|sum| *sum.min(&level)).sum::<u64>();
        // The highest severity at which the file is halved.
        let (mut low, mut high) = (0, sums.first().copied().unwrap_or(0));
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            if taken(middle) <= half { low = middle } else { high = middle - 1 }
        }
        let level = if falls_off { low.min(sums.get(1).copied().unwrap_or(0)) } else { low };
        for bytes in self.0.values_mut() {
            let mut left = level;
            for bytes in bytes.iter_mut().rev() {
                *bytes = (*bytes).min(left);
                left -= *bytes;
            }
        }
    }

    /// Whether a line is kept.
    fn takes(&mut self, line: &[u8]) -> bool {
        let (actor, severity) = self.of(line);
        let length = line.len() as u64 + 1;
        match self.0.get_mut(&actor).map(|bytes| &mut bytes[severity]) {
            Some(left) if *left >= length => {
                *left -= length;
                true
            }
            _ => false,
        }
    }

    /// The actor and severity of a line.
    fn of(&self, line: &[u8]) -> (String, usize) {
        let Alert { event, user, aws, lapwing } = serde_json::from_slice(line).unwrap_or_default();
        let names = [lapwing.actor.id, user.id, aws.cloudtrail.user_identity.arn, user.name];
        let name = names.into_iter().find(|name| !name.is_null()).unwrap_or_default();
        let name = name.as_str().map_or_else(|| name.to_string(), str::to_owned);
        let name: String = name.chars().take(ACTOR_CHARS_MAX).collect();
        let known = self.0.len() < ACTORS_MAX || self.0.contains_key(&name);
        let severity = match event.severity {
            ..47 => 0,
            47..73 => 1,
            73..99 => 2,
            99.. => 3,
        };
        (if known { name } else { String::new() }, severity)
    }
}

/// The fields of an alert that are read.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Alert {
    event: Severity,
    user: User,
    aws: Aws,
    lapwing: Lapwing,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Severity {
    severity: i64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct User {
    id: Json,
    name: Json,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Aws {
    cloudtrail: CloudTrail,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CloudTrail {
    user_identity: Identity,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Identity {
    arn: Json,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Lapwing {
    actor: Actor,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Actor {
    id: Json,
}
