//! The two files that the agent writes: the alert log and the store. Their content changes all the time, so that their place and
//! length are checked. Rotation is no loss: neither the agent's own, nor that of others who rename the log in its folder and
//! send SIGHUP.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{ChangeKind, FileChange};
use crate::trace::{How, KnownFile, Loss, Trace};

/// Maximum time between a rename of the log and SIGHUP.
const RENAME_WAIT: Duration = Duration::from_secs(6);
/// How long the log may be missing before it is created again: a rotation may be about to create it.
const MISSING_WAIT: Duration = Duration::from_secs(2);
/// How long the store must be wrong before that is reported: its owner may be about to replace it.
const STORE_WAIT: Duration = Duration::from_secs(2);
/// Maximum number of entries of the log's folder that are searched for a renamed file.
const ENTRIES_MAX: usize = 4_096;
/// What a store begins with. match-proto:v3.46:sqlite:src/btree.c:zMagicHeader
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Bytes of its header up to the page count.
const HEADER_BYTES: usize = 32;

/// Files by path, with the hashes of what a run loaded; `None` for files that are no longer loaded.
pub(crate) type Rows = Vec<(String, Option<Vec<u8>>)>;

/// The two files, how the log is reopened, and what the store has about loaded files.
pub(crate) struct Written {
    pub(crate) log: (PathBuf, Arc<Trace>),
    pub(crate) store: (PathBuf, Arc<Trace>),
    pub(crate) reopen: Box<dyn Fn() + Send>,
    /// What the previous run loaded; empty if unknown.
    pub(crate) before: BTreeMap<String, Vec<u8>>,
    pub(crate) remember: Box<dyn Fn(Rows) + Send>,
}

/// The state of the two files.
pub(super) struct Looks {
    written: Written,
    /// Since when the log is missing or another file.
    missing: Option<Instant>,
    /// Losses of the log that may still turn out to be a rotation.
    losses: Vec<Loss>,
    /// Time of the last notification of a rename of the log within its folder.
    renamed: Option<Instant>,
    /// The fault of the store, since when, and whether it was reported.
    fault: Option<(How, Instant, bool)>,
    /// When each was last seen in place.
    good: [Instant; 2],
}

impl Looks {
    pub(super) fn new(written: Written) -> Self {
        let now = Instant::now();
        Self { written, missing: None, losses: Vec::new(), renamed: None, fault: None, good: [now; 2] }
    }

    /// What the previous run loaded.
    pub(super) fn before(&mut self) -> BTreeMap<String, Vec<u8>> {
        std::mem::take(&mut self.written.before)
    }

    /// Stores what this run loaded.
    pub(super) fn remember(&self, rows: Rows) {
        if !rows.is_empty() {
            (self.written.remember)(rows);
        }
    }

    /// The paths of the two files.
    pub(super) fn paths(&self) -> [&Path; 2] {
        [&self.written.log.0, &self.written.store.0]
    }

    /// The log was renamed within its folder.
    pub(super) fn renamed(&mut self) {
        self.renamed = Some(Instant::now());
    }

    /// Checks both files.
    pub(super) fn look(&mut self, now: Instant) -> Vec<FileChange> {
        let mut changes = self.look_at_log(now);
        changes.extend(self.look_at_store(now));
        changes
    }

    fn look_at_log(&mut self, now: Instant) -> Vec<FileChange> {
        let (path, trace) = &self.written.log;
        // The length is read first, because it only grows.
        let place = trace.place();
        let is_lost = place.is_some_and(|place| How::of(&place, at(path).as_ref()).is_some());
        if !is_lost {
            self.missing = None;
            if place.is_some() && self.losses.is_empty() {
                self.good[0] = now;
            }
        } else if now >= *self.missing.get_or_insert(now) + MISSING_WAIT {
            // Its owner notices the reason and reports it.
            (self.written.reopen)();
            self.missing = None;
        }
        self.losses.extend(trace.losses());
        let losses = std::mem::take(&mut self.losses);
        losses.into_iter().filter_map(|loss| self.settle(loss, now)).collect()
    }

    /// The report about a loss of the log, if it is due.
    fn settle(&mut self, loss: Loss, now: Instant) -> Option<FileChange> {
        let (path, trace) = &self.written.log;
        let is_recent = |at: Instant| loss.at.saturating_duration_since(at) < RENAME_WAIT;
        let was_renamed = self.renamed.is_some_and(is_recent) || is_beside(path, &loss.place);
        let what = match loss.how {
            How::Shorter => "was truncated",
            How::Gone if !was_renamed => "was deleted, or moved away",
            How::Replaced if !was_renamed => "was replaced by another file",
            _ if trace.last_hangup().is_some_and(is_recent) => return None,
            _ if now >= loss.at + RENAME_WAIT => "was renamed, and no SIGHUP followed",
            _ => {
                self.losses.push(loss);
                return None;
            }
        };
        let length = loss.place.length;
        let reason = format!(
            "the alert log {} {what}: it contained {length} bytes of alerts; it is reopened, and delivered alerts are upstream",
            shown(path)
        );
        Some(change(path, ChangeKind::Done, reason, self.good[0], now))
    }

    fn look_at_store(&mut self, now: Instant) -> Option<FileChange> {
        let (path, trace) = &self.written.store;
        let place = trace.place()?;
        let Some(how) = How::of(&place, at(path).as_ref()).or_else(|| is_short(path).then_some(How::Shorter))
        else {
            self.good[1] = now;
            let (.., was_said) = self.fault.take()?;
            return was_said.then(|| change(path, ChangeKind::Restored, String::new(), now, now));
        };
        let (_, since, was_said) =
            self.fault.filter(|(known, ..)| *known == how).unwrap_or((how, now, false));
        self.fault = Some((how, since, was_said || now >= since + STORE_WAIT));
        if was_said || now < since + STORE_WAIT {
            return None;
        }
        let what = match how {
            How::Gone => "was deleted, or moved away",
            How::Replaced => "was replaced by another file",
            How::Shorter => "was truncated, or overwritten",
        };
        let reason = format!(
            "the store {} {what}: what rules learned and how far sinks have come is lost with the next start; restart the \
             service, which makes a new store and reads the alert log into it",
            shown(path)
        );
        Some(change(path, ChangeKind::Changed, reason, self.good[1], now))
    }
}

fn change(path: &Path, outcome: ChangeKind, reason: String, from: Instant, to: Instant) -> FileChange {
    FileChange { path: path.to_owned(), outcome, reason, is_own: true, from, to, holders: Vec::new() }
}

/// A path as text, escaped for a terminal.
pub(super) fn shown(path: &Path) -> String {
    crate::terminal::escape(&path.to_string_lossy()).into_owned()
}

fn at(path: &Path) -> Option<Metadata> {
    fs::metadata(path).ok()
}

/// Whether a file is still in the folder of this path, under another name, with at least the same length.
fn is_beside(path: &Path, place: &KnownFile) -> bool {
    let Some(entries) = path.parent().and_then(|folder| fs::read_dir(folder).ok()) else { return false };
    entries
        .flatten()
        .take(ENTRIES_MAX)
        .filter_map(|entry| entry.metadata().ok())
        .any(|found| place.is(&found) && found.len() >= place.length)
}

/// Whether a store is shorter than its header says, or has no header.
fn is_short(path: &Path) -> bool {
    let mut header = [0; HEADER_BYTES];
    let Ok(file) = File::open(path) else { return false };
    if file.read_exact_at(&mut header, 0).is_err() || header[..MAGIC.len()] != *MAGIC {
        return true;
    }
    let page = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65_536,
        bytes => u64::from(bytes),
    };
    let pages = u32::from_be_bytes([header[28], header[29], header[30], header[31]]);
    file.metadata().is_ok_and(|file| file.len() < page * u64::from(pages))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log and a store in a folder, and the number of reopens.
    struct Stage {
        _folder: tempfile::TempDir,
        looks: Looks,
        log: PathBuf,
        trace: Arc<Trace>,
        store: PathBuf,
    }

    fn stage() -> Stage {
        let folder = tempfile::tempdir().unwrap();
        let (log, store) = (folder.path().join("alerts"), folder.path().join("store"));
        fs::write(&log, "an alert\n").unwrap();
        let connection = rusqlite::Connection::open(&store).unwrap();
        connection.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)").unwrap();
        let traces = [Trace::new(), Trace::new()];
        for (path, trace) in [&log, &store].into_iter().zip(&traces) {
            let file = fs::metadata(path).unwrap();
            trace.set(Some(KnownFile::new(&file, if *path == log { file.len() } else { 0 })));
        }
        let [trace, of_store] = traces;
        let owner = (log.clone(), trace.clone());
        let reopen = move || {
            let (path, trace) = &owner;
            if let Some(how) = trace.place().and_then(|place| How::of(&place, at(path).as_ref())) {
                trace.lose(how);
                let file = File::options().create(true).append(true).open(path).unwrap();
                trace.set(Some(KnownFile::new(&file.metadata().unwrap(), file.metadata().unwrap().len())));
            }
        };
        let written = Written {
            log: (log.clone(), trace.clone()),
            store: (store.clone(), of_store),
            reopen: Box::new(reopen),
            before: BTreeMap::new(),
            remember: Box::new(|_| {}),
        };
        Stage { _folder: folder, looks: Looks::new(written), log, trace, store }
    }

    impl Stage {
        /// The reports within this many seconds, with a check every half second.
        fn said(&mut self, seconds: u64) -> Vec<String> {
            let start = Instant::now();
            let times = (0..=seconds * 2).map(|step| start + Duration::from_millis(500 * step));
            times
                .flat_map(|now| self.looks.look(now))
                .map(|change| format!("{:?} {}", change.outcome, change.reason))
                .collect()
        }
    }

    #[test]
    fn a_removed_log_is_reported_once_and_recreated() {
        type Deed = fn(&Path);
        let rename: Deed = |log| fs::rename(log, log.with_extension("1")).unwrap();
        for (deed, what) in [
            ((|log| fs::remove_file(log).unwrap()) as Deed, "was deleted"),
            (|log| fs::write(log, "").unwrap(), "was truncated"),
            (
                |log| {
                    fs::write(log.with_extension("new"), "forged").unwrap();
                    fs::rename(log.with_extension("new"), log).unwrap();
                },
                "was replaced",
            ),
            (rename, "was renamed, and no SIGHUP followed"),
        ] {
            let mut stage = stage();
            assert!(stage.said(3).is_empty());
            deed(&stage.log);
            let said = stage.said(9);
            assert!(
                said.len() == 1 && said[0].contains(what) && said[0].starts_with("Done"),
                "{what}: {said:?}"
            );
            assert!(stage.log.exists(), "{what}");
            assert!(stage.said(9).is_empty());
        }
        let mut stage = stage();
        rename(&stage.log);
        stage.trace.hangup();
        assert!(stage.said(9).is_empty(), "as logrotate does it");
    }

    #[test]
    fn a_removed_store_is_a_fault_until_it_is_restored() {
        let mut stage = stage();
        assert!(stage.said(3).is_empty());
        let kept = stage.store.with_extension("kept");
        fs::rename(&stage.store, &kept).unwrap();
        let said = stage.said(9);
        assert!(
            said.len() == 1 && said[0].contains("was deleted") && said[0].starts_with("Changed"),
            "{said:?}"
        );
        fs::rename(&kept, &stage.store).unwrap();
        assert_eq!(stage.said(9), ["Restored "]);
        File::options().write(true).open(&stage.store).unwrap().set_len(4096).unwrap();
        let said = stage.said(9);
        assert!(said.len() == 1 && said[0].contains("was truncated"), "{said:?}");
    }
}
