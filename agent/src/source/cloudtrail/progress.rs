//! How far each file was read, in memory and in the store, so that a restart continues where the agent stopped.
//!
//! A file is identified by its path; its inode shows that it was renamed, and a hash of its beginning that it is still
//! the same file. What is remembered is bounded by [`FILES_REMEMBERED_MAX`]. Before a file is evicted a horizon is set:
//! a time of change (`ctime`, which cannot be set back) up to which every file was read. A file beyond the horizon that
//! is not remembered was read long ago. (A folder that is moved in whole keeps its files' times; if so many files were
//! read that some are forgotten, such a folder's files are taken for read.)

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::clock::changed;
use crate::store::Change;

/// The scope of the rows in the store.
pub(crate) const SCOPE: &str = "cloudtrail/folder";

/// Most files that are remembered one by one: what a table of 32,768 places holds, in about 4 MiB. A trail of one
/// account over all regions makes some 5,000 files a day.
const FILES_REMEMBERED_MAX: usize = 28_000;
/// How many bytes at a file's beginning identify it.
const HEAD_BYTES: usize = 1_024;
/// The key of the horizon's row; the files' keys are hexadecimal.
const HORIZON: &str = "horizon";

/// What was read of the files.
pub(crate) struct Progress {
    files: HashMap<Key, Known>,
    by_inode: HashMap<u64, Key>,
    horizon: Horizon,
    /// [`FILES_REMEMBERED_MAX`], or less in tests.
    pub(crate) files_max: usize,
}

type Key = u128;

/// How far a file was read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Known {
    /// The file as it was then.
    pub(crate) stamp: FileStamp,
    /// How many records were handed over.
    pub(crate) records: u64,
    /// The byte from which reading can continue, if any.
    pub(crate) offset: Option<u64>,
    /// Whether it was read to its end.
    pub(crate) done: bool,
    /// The file's date in the order of reading.
    pub(crate) date: i64,
    /// The file's beginning; [`Progress::note`] reads it.
    pub(crate) head: Head,
}

/// What identifies a state of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileStamp {
    inode: u64,
    size: u64,
    /// When its content was last written, in nanoseconds since 1970.
    pub(crate) modified: i64,
    /// When it was last changed, in nanoseconds since 1970.
    pub(crate) changed: i64,
}

impl FileStamp {
    /// The state by `metadata`.
    pub(crate) fn of(metadata: &Metadata) -> Self {
        let modified = metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec());
        Self { inode: metadata.ino(), size: metadata.size(), modified, changed: changed(metadata) }
    }

    /// Whether the content is unchanged; changes of mode and owner do not count.
    fn same_content(&self, other: &Self) -> bool {
        (self.inode, self.size, self.modified) == (other.inode, other.size, other.modified)
    }
}

/// How a file begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    length: u16,
    hash: u64,
}

/// A row of the store.
#[derive(Serialize, Deserialize)]
struct Row {
    version: u8,
    path: String,
    #[serde(flatten)]
    known: Known,
    /// Why the file is quarantined, for operators who read the store.
    #[serde(skip_serializing_if = "Option::is_none", default, alias = "set_aside")]
    quarantined: Option<String>,
}

const VERSION: u8 = 1;

/// The limit up to which every file was read, in the table or not.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Horizon {
    version: u8,
    /// Files last changed by this time.
    all: i64,
    /// Files last changed by this time and not after this one in the order of reading: the progress of a first reading
    /// of many files.
    partly: Option<(i64, ReadOrder)>,
}

/// A file's place in the order in which files are read: its date, then its path.
pub(crate) type ReadOrder = (i64, String);

/// Whether a file that was seen is to be read.
#[derive(Debug, PartialEq)]
pub(crate) enum ReadDecision {
    /// Nothing: it was read.
    No,
    /// It is to be read, from the position in `Known` if that is still valid.
    Yes(Option<Known>),
}

impl Progress {
    /// Reads the rows of the store. A row that cannot be parsed is ignored.
    pub(crate) fn load(rows: Vec<(String, Vec<u8>)>) -> Self {
        let mut progress = Self {
            files: HashMap::new(),
            by_inode: HashMap::new(),
            horizon: Horizon::default(),
            files_max: FILES_REMEMBERED_MAX,
        };
        for (key, value) in rows {
            if key == HORIZON {
                progress.horizon = serde_json::from_slice(&value).unwrap_or_default();
            } else if let (Ok(key), Ok(row)) =
                (Key::from_str_radix(&key, 16), serde_json::from_slice::<Row>(&value))
            {
                progress.by_inode.insert(row.known.stamp.inode, key);
                progress.files.insert(key, row.known);
            }
        }
        progress
    }

    /// Whether no file was ever read.
    pub(crate) fn is_new(&self) -> bool {
        self.files.is_empty() && self.horizon == Horizon::default()
    }

    /// Whether twice as many files are remembered as should be.
    pub(crate) fn is_overfull(&self) -> bool {
        self.files.len() > 2 * self.files_max
    }

    /// What is to be done about a file.
    pub(crate) fn wanted(&self, place: &ReadOrder, stamp: &FileStamp) -> ReadDecision {
        if let Some(known) = self.files.get(&key(&place.1)) {
            let read = known.done && known.stamp.same_content(stamp);
            return if read { ReadDecision::No } else { ReadDecision::Yes(Some(known.clone())) };
        }
        let moved = self.by_inode.get(&stamp.inode).and_then(|key| self.files.get(key));
        if let Some(known) = moved.filter(|known| stamp.size >= known.stamp.size) {
            return ReadDecision::Yes(Some(known.clone()));
        }
        if self.horizon.covers(place, stamp) { ReadDecision::No } else { ReadDecision::Yes(None) }
    }

    /// Whether a file still begins as it did when `known` was saved, so that reading can continue there.
    pub(crate) fn is_same(known: &Known, file: &File, stamp: &FileStamp) -> bool {
        stamp.size >= known.offset.unwrap_or(0)
            && Head::read(file, known.head.length.into()).is_ok_and(|head| head == known.head)
    }

    /// Notes how far a file was read.
    ///
    /// # Errors
    /// Those of reading the file's beginning.
    pub(crate) fn note(
        &mut self,
        path: &str,
        file: &File,
        mut known: Known,
        quarantined: Option<&str>,
        changes: &mut Vec<Change>,
    ) -> io::Result<()> {
        known.head = Head::read(file, HEAD_BYTES)?;
        let (key, inode) = (key(path), known.stamp.inode);
        if let Some(replaced) = self.files.get(&key).filter(|old| old.stamp.inode != inode).cloned() {
            // The file that had this path may reappear under another, and is kept by its inode until then.
            let place = format!("inode {}, was {path}", replaced.stamp.inode);
            self.remember(&place, replaced, None, changes);
        }
        if let Some(old) = self.by_inode.get(&inode).copied().filter(|old| *old != key)
            && self.files.get(&old).is_some_and(|old| old.stamp.inode == inode)
        {
            // Renamed: it is kept by its new path only.
            self.files.remove(&old);
            changes.push(change(format!("{old:032x}"), None::<&Row>));
        }
        self.remember(path, known, quarantined, changes);
        Ok(())
    }

    fn remember(&mut self, path: &str, known: Known, quarantined: Option<&str>, changes: &mut Vec<Change>) {
        let key = key(path);
        let row = Row {
            version: VERSION,
            path: path.to_owned(),
            known: known.clone(),
            quarantined: quarantined.map(str::to_owned),
        };
        changes.push(change(format!("{key:032x}"), Some(&row)));
        self.by_inode.insert(known.stamp.inode, key);
        self.files.insert(key, known);
    }

    /// Evicts the files with the oldest changes if there are too many. `complete_until` is the time of change up to
    /// which every file was read, `through` the place up to which, where a reading is under way.
    pub(crate) fn forget(
        &mut self,
        complete_until: Option<i64>,
        through: Option<&ReadOrder>,
        changes: &mut Vec<Change>,
    ) {
        let Some(until) = complete_until.filter(|_| self.files.len() > self.files_max) else {
            return;
        };
        if let (Some(place), Some((_, reached))) = (through, &self.horizon.partly)
            && place < reached
        {
            // A late file of an early date: the horizon must not move back to it.
            return;
        }
        let beyond = |known: &Known| {
            known.done && known.stamp.changed <= until && through.is_none_or(|place| known.date < place.0)
        };
        let mut old: Vec<_> = self.files.iter().filter(|(_, known)| beyond(known)).collect();
        // A quarter at once, so that it is rare.
        let excess = self.files.len() - self.files_max * 3 / 4;
        old.sort_unstable_by_key(|(_, known)| known.stamp.changed);
        let old: Vec<_> =
            old.into_iter().take(excess).map(|(key, known)| (*key, known.stamp.inode)).collect();
        if old.is_empty() {
            return;
        }
        for (key, inode) in old {
            self.files.remove(&key);
            self.by_inode.remove(&inode);
            changes.push(change(format!("{key:032x}"), None::<&Row>));
        }
        self.horizon.version = VERSION;
        match through {
            None => (self.horizon.all, self.horizon.partly) = (self.horizon.all.max(until), None),
            Some(place) => self.horizon.partly = Some((until, place.clone())),
        }
        changes.push(change(HORIZON.to_owned(), Some(&self.horizon)));
    }

    /// Treats every file changed by `until` as read.
    pub(crate) fn pass_over(&mut self, until: i64, changes: &mut Vec<Change>) {
        self.horizon = Horizon { version: VERSION, all: until, partly: None };
        changes.push(change(HORIZON.to_owned(), Some(&self.horizon)));
    }
}

impl Horizon {
    fn covers(&self, place: &ReadOrder, stamp: &FileStamp) -> bool {
        let partly = self.partly.as_ref();
        stamp.changed <= self.all
            || partly.is_some_and(|(until, through)| stamp.changed <= *until && place <= through)
    }
}

impl Head {
    fn read(file: &File, length: usize) -> io::Result<Self> {
        let mut bytes = vec![0; length];
        let mut filled = 0;
        while filled < length {
            match file.read_at(&mut bytes[filled..], filled as u64)? {
                0 => break,
                more => filled += more,
            }
        }
        bytes.truncate(filled);
        let hash = Sha256::digest(&bytes);
        let hash = u64::from_le_bytes(std::array::from_fn(|index| hash[index]));
        Ok(Self { length: u16::try_from(bytes.len()).unwrap_or(u16::MAX), hash })
    }
}

fn key(path: &str) -> Key {
    let hash = Sha256::digest(path.as_bytes());
    Key::from_le_bytes(std::array::from_fn(|index| hash[index]))
}

fn change(key: String, value: Option<&impl Serialize>) -> Change {
    // Serializing cannot fail: the rows hold texts and numbers only.
    let value = value.map(|value| serde_json::to_vec(value).unwrap_or_default());
    Change { scope: SCOPE.to_owned(), key, value }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(date: i64) -> ReadOrder {
        (date, format!("/t/{date}.json"))
    }

    fn stamp(inode: u64, changed: i64) -> FileStamp {
        FileStamp { inode, size: 1, modified: 1, changed }
    }

    /// Notes files of these dates as read at the time `changed`.
    fn read(progress: &mut Progress, dates: std::ops::Range<i64>, changed: i64, changes: &mut Vec<Change>) {
        for date in dates {
            let stamp = stamp(date.unsigned_abs(), changed);
            let known = Known { stamp, done: true, date, ..Known::default() };
            progress.remember(&place(date).1, known, None, changes);
        }
    }

    #[test]
    fn evicted_files_stay_read_and_unread_ones_unread() {
        let mut changes = Vec::new();
        let mut progress = Progress::load(Vec::new());
        progress.files_max = 4;
        read(&mut progress, 0..8, 100, &mut changes);
        progress.forget(Some(200), Some(&place(7)), &mut changes);
        assert!(progress.files.len() <= 4);
        for (date, changed, wanted) in [(0, 100, false), (7, 100, false), (8, 100, true), (9, 201, true)] {
            let found =
                progress.wanted(&place(date), &stamp(date.unsigned_abs(), changed)) != ReadDecision::No;
            assert_eq!(found, wanted, "date {date} changed {changed}");
        }
        // Late files of early dates do not draw the horizon back.
        read(&mut progress, -4..0, 300, &mut changes);
        progress.forget(Some(400), Some(&place(-1)), &mut changes);
        assert_eq!(progress.wanted(&place(0), &stamp(0, 100)), ReadDecision::No);
        progress.forget(Some(400), None, &mut changes);
        assert_eq!(progress.wanted(&place(99), &stamp(1_000, 400)), ReadDecision::No);
        assert_eq!(progress.wanted(&place(99), &stamp(1_000, 401)), ReadDecision::Yes(None));
        let rows = changes.into_iter().fold(HashMap::new(), |mut rows, change| {
            match change.value {
                Some(value) => rows.insert(change.key, value),
                None => rows.remove(&change.key),
            };
            rows
        });
        let again = Progress::load(rows.into_iter().collect());
        assert_eq!((again.files, again.horizon), (progress.files, progress.horizon));
    }
}
