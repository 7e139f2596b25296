//! Finds the files of a trail below the folders that are watched: by the kernel's notifications, and by a scan of the
//! folders from time to time, because notifications overflow and network file systems have none. It has no knowledge of
//! what was read of a file. No link is followed below a folder that is watched: those who can write there must not
//! choose what the agent reads.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{DirEntry, File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};

use super::status::SourceStatus;
use crate::clock;
use crate::folder::{Folder, Links};

/// Most bytes of paths of directories that a scan still has to read; more are left for a later scan.
const UNREAD_BYTES_MAX: usize = 2 << 20;
/// Most directories that are watched by notification; the others are only scanned.
const WATCHES_MAX: usize = 4_096;
/// How long after its last change a directory without directories in it is watched. New files come to today's folder.
const QUIET: Duration = Duration::from_secs(2 * 86_400);
/// How long until a missing folder is checked again.
const MISSING_INTERVAL: Duration = Duration::from_secs(2);
/// Most paths with an error that is reported once each.
const COMPLAINTS_MAX: usize = 1_000;
/// How coarse a file system's times may be, in nanoseconds: files within this time of each other may have the same
/// time.
const COARSE_NANOS: i64 = 2_000_000_000;

/// The folders.
pub(crate) struct Tree {
    roots: Vec<PathBuf>,
    interval: Duration,
    scan: Option<Scan>,
    due: Instant,
    inotify: Option<Inotify>,
    watched: HashMap<WatchDescriptor, PathBuf>,
    complaints: HashSet<PathBuf>,
    status: Arc<SourceStatus>,
    /// [`COARSE_NANOS`], or less in tests.
    pub(crate) coarse_nanos: i64,
}

/// A scan of the folders, directory by directory.
#[derive(Default)]
struct Scan {
    directories: Vec<PathBuf>,
    /// The length of their paths.
    bytes: usize,
    clean: bool,
    started: i64,
    newest_change: i64,
}

/// The result of a scan.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scanned {
    /// Every file that could be seen and was last changed (`ctime`) by this time was seen, in nanoseconds since 1970.
    pub(crate) until: i64,
    /// Whether all folders existed and were readable.
    pub(crate) complete: bool,
}

impl Tree {
    /// The folders `roots`, scanned every `interval`.
    pub(crate) fn new(roots: Vec<PathBuf>, interval: Duration, status: Arc<SourceStatus>) -> Self {
        let inotify = Inotify::init()
            .inspect_err(|error| {
                tracing::warn!(
                    "cloudtrail: no notifications of new files ({error}; raise fs.inotify.max_user_instances), \
                     folders are looked through every {} s",
                    interval.as_secs()
                );
            })
            .ok();
        Self {
            roots,
            interval,
            scan: None,
            due: Instant::now(),
            inotify,
            watched: HashMap::new(),
            complaints: HashSet::new(),
            status,
            coarse_nanos: COARSE_NANOS,
        }
    }

    /// Scans the folders as soon as possible.
    pub(crate) fn rescan(&mut self) {
        self.due = Instant::now();
    }

    /// Does one step of a scan, if one is due: reads one directory and passes its files to `found`. The last step
    /// returns what was found.
    pub(crate) fn step(&mut self, found: &mut impl FnMut(PathBuf, &Metadata)) -> Option<Scanned> {
        if self.scan.is_none() {
            if Instant::now() < self.due {
                return None;
            }
            self.scan = Some(Scan {
                directories: self.roots.iter().rev().cloned().collect(),
                clean: true,
                started: clock::now().as_nanos(),
                ..Scan::default()
            });
        }
        let mut scan = self.scan.take()?;
        if let Some(directory) = scan.directories.pop() {
            scan.bytes = scan.bytes.saturating_sub(length(&directory));
            self.read(&mut scan, &directory, found);
        }
        if !scan.directories.is_empty() {
            self.scan = Some(scan);
            return None;
        }
        self.forget_what_is_gone();
        let missing = self.roots.iter().any(|root| !root.exists());
        self.due = Instant::now() + if missing { self.interval.min(MISSING_INTERVAL) } else { self.interval };
        // The newest file's time is by the clock that new files' times are by, which may be a file server's.
        let until = scan.started.min(scan.newest_change).saturating_sub(self.coarse_nanos);
        Some(Scanned { until, complete: scan.clean && !missing })
    }

    /// Whether a scan is running.
    pub(crate) fn scanning(&self) -> bool {
        self.scan.is_some()
    }

    /// When the next step is due if nothing happens.
    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// Passes the files that the kernel notified to `found`.
    pub(crate) fn notified(&mut self, found: &mut impl FnMut(PathBuf, &Metadata)) {
        let Some(mut inotify) = self.inotify.take() else {
            return;
        };
        let mut buffer = [0; 8 << 10];
        while let Ok(events) = inotify.read_events(&mut buffer) {
            let mut any = false;
            for event in events {
                any = true;
                self.event(event.wd, event.mask, event.name, found);
            }
            if !any {
                break;
            }
        }
        self.inotify = Some(inotify);
    }

    fn event(
        &mut self,
        watch: WatchDescriptor,
        mask: EventMask,
        name: Option<&OsStr>,
        found: &mut impl FnMut(PathBuf, &Metadata),
    ) {
        if mask.contains(EventMask::Q_OVERFLOW) {
            self.rescan();
        } else if mask.contains(EventMask::IGNORED) {
            self.watched.remove(&watch);
        } else if mask.contains(EventMask::ISDIR) {
            // A new directory may have files already, so it is scanned and not only watched.
            self.rescan();
        } else if let (Some(directory), Some(name)) = (self.watched.get(&watch), name) {
            let path = directory.join(name);
            if is_candidate(&path)
                && let Ok(metadata) = std::fs::symlink_metadata(&path)
                && metadata.is_file()
            {
                found(path, &metadata);
            }
        }
    }

    fn read(&mut self, scan: &mut Scan, directory: &Path, found: &mut impl FnMut(PathBuf, &Metadata)) {
        match self.read_directory(scan, directory, found) {
            Ok(()) => self.no_complaint(directory),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                scan.clean = false;
                self.complain(directory, &error);
            }
        }
    }

    fn read_directory(
        &mut self,
        scan: &mut Scan,
        directory: &Path,
        found: &mut impl FnMut(PathBuf, &Metadata),
    ) -> io::Result<()> {
        let folder = self.folder(directory)?;
        let metadata = folder.metadata()?;
        // Watched before it is read, so that no file is missed in between.
        let watch = self.watch(&folder, directory);
        let before = scan.directories.len();
        for entry in folder.entries()? {
            self.entry(scan, &entry?, directory, found);
        }
        let leaf = scan.directories.len() == before;
        let quiet = metadata.modified().is_ok_and(|time| time.elapsed().is_ok_and(|age| age > QUIET));
        if let Some(watch) = watch.filter(|_| leaf && quiet) {
            self.unwatch(watch);
        }
        Ok(())
    }

    fn entry(
        &mut self,
        scan: &mut Scan,
        entry: &DirEntry,
        directory: &Path,
        found: &mut impl FnMut(PathBuf, &Metadata),
    ) {
        let path = directory.join(entry.file_name());
        // An entry may vanish meanwhile.
        let Ok(below) = entry.metadata() else { return };
        if below.is_dir() && scan.bytes + length(&path) > UNREAD_BYTES_MAX {
            scan.clean = false;
            self.complain(
                directory,
                &io::Error::other("it holds too many folders; those beyond are not read"),
            );
        } else if below.is_dir() {
            scan.bytes += length(&path);
            scan.directories.push(path);
        } else if below.is_file() && is_candidate(&path) {
            scan.newest_change = scan.newest_change.max(clock::changed(&below));
            found(path, &below);
        } else if below.is_symlink() && (is_candidate(&path) || path.is_dir()) {
            self.complain(&path, &io::Error::other("it is a link, and links are not followed here; name what it leads to in `cloudtrail.folders`"));
        }
    }

    /// Opens a file that was found.
    ///
    /// # Errors
    /// It is gone, may not be read, or is no regular file below a folder that is watched.
    pub(crate) fn file(&self, path: &Path) -> io::Result<File> {
        let (root, below) = self.place(path)?;
        Folder::open(root)?.file(below, Links::Refused)
    }

    fn folder(&self, directory: &Path) -> io::Result<Folder> {
        let (root, below) = self.place(directory)?;
        Folder::open(root)?.folder(below)
    }

    /// The folder of the configuration that contains a path, and the path below it.
    fn place<'a>(&'a self, path: &'a Path) -> io::Result<(&'a Path, &'a Path)> {
        let places =
            self.roots.iter().filter_map(|root| Some((root.as_path(), path.strip_prefix(root).ok()?)));
        places.min_by_key(|(_, below)| length(below)).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn watch(&mut self, folder: &Folder, directory: &Path) -> Option<WatchDescriptor> {
        const WHAT: WatchMask = WatchMask::CLOSE_WRITE
            .union(WatchMask::MODIFY)
            .union(WatchMask::MOVED_TO)
            .union(WatchMask::CREATE);
        if self.watched.len() >= WATCHES_MAX {
            return None;
        }
        match self.inotify.as_ref()?.watches().add(folder.handle(), WHAT | WatchMask::ONLYDIR) {
            Ok(watch) => {
                self.watched.insert(watch.clone(), directory.to_owned());
                Some(watch)
            }
            Err(error) => {
                if error.kind() == ErrorKind::StorageFull && self.complaints.insert(PathBuf::new()) {
                    tracing::warn!(
                        "cloudtrail: {} and further folders are looked through every {} s instead of watched; raise \
                         fs.inotify.max_user_watches",
                        directory.display(),
                        self.interval.as_secs()
                    );
                }
                None
            }
        }
    }

    fn unwatch(&mut self, watch: WatchDescriptor) {
        self.watched.remove(&watch);
        if let Some(inotify) = &self.inotify {
            // It may have been deleted with its directory.
            let _ = inotify.watches().remove(watch);
        }
    }

    /// Reports an error of a path, once.
    pub(crate) fn complain(&mut self, path: &Path, error: &io::Error) {
        if self.complaints.len() < COMPLAINTS_MAX && self.complaints.insert(path.to_owned()) {
            let cure = match error.kind() {
                ErrorKind::PermissionDenied => {
                    "; let the user that lapwing runs as read it, with `setfacl -R -m u:lapwing:rX` say"
                }
                _ => "",
            };
            self.status.alarm(&path.display().to_string(), &format!("cannot be read: {error}{cure}"));
        }
    }

    /// Errors of paths that no longer exist are cleared.
    fn forget_what_is_gone(&mut self) {
        let is_gone = |path: &&PathBuf| {
            let there = std::fs::symlink_metadata(path);
            !path.as_os_str().is_empty() && there.is_err_and(|error| error.kind() == ErrorKind::NotFound)
        };
        let gone: Vec<_> = self.complaints.iter().filter(is_gone).cloned().collect();
        gone.iter().for_each(|path| self.no_complaint(path));
    }

    /// A path has no error any more.
    pub(crate) fn no_complaint(&mut self, path: &Path) {
        if self.complaints.remove(path) {
            self.status.well(&path.display().to_string());
        }
    }
}

fn length(path: &Path) -> usize {
    path.as_os_str().as_bytes().len()
}

/// Whether a path has the name of a file of a trail. In AWS's layout the folders decide: logs of other services, and
/// digests, are beside a trail's.
pub(crate) fn is_candidate(path: &Path) -> bool {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let name = name.strip_suffix(".gz").unwrap_or(name);
    let known = [".json", ".jsonl", ".ndjson"].iter().any(|ending| name.ends_with(ending));
    let folders = path.to_string_lossy();
    let of_trail = !folders.contains("/AWSLogs/") || folders.contains("/CloudTrail");
    known && of_trail && !name.starts_with('.') && !folders.contains("/CloudTrail-Digest/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_trail_are_recognized_by_their_names() {
        for (path, candidate) in [
            (
                "/t/AWSLogs/111122223333/CloudTrail/us-east-1/2026/11/22/111122223333_CloudTrail_us-east-1_20261122T0000Z_x.json.gz",
                true,
            ),
            ("/t/AWSLogs/111122223333/CloudTrail-Insight/us-east-1/2026/11/22/a.json.gz", true),
            ("/t/AWSLogs/111122223333/CloudTrail-Digest/us-east-1/2026/11/22/a.json.gz", false),
            ("/t/AWSLogs/o-0a1b2c/111122223333/CloudTrail/us-east-1/2026/11/22/a.json.gz", true),
            ("/t/AWSLogs/111122223333/Config/us-east-1/2026/11/22/ConfigHistory/a.json.gz", false),
            ("/t/AWSLogs/111122223333/GuardDuty/us-east-1/2026/11/22/a.jsonl.gz", false),
            ("/t/events.ndjson", true),
            ("/t/events.jsonl.gz", true),
            ("/t/a.json.gz.6eF7b1C2", false),
            ("/t/.a.json", false),
            ("/t/notes.txt", false),
        ] {
            assert_eq!(is_candidate(Path::new(path)), candidate, "{path}");
        }
    }
}
