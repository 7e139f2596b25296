//! The integrity thread. Notifications trigger a check of a file at once; a regular scan finds what they missed. A file that
//! changes repeatedly is read at most once a second.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, TrySendError};
use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::content::{Content, ContentStamp};
use super::plan::{Plan, stamp};
use super::tree::Root;
use super::written::{Looks, Rows, Written, shown};
use super::{CHANGES_MAX, ChangeKind, FileChange, Role, Status, holders, tree};
use crate::folder::{self, Folder, Links};

/// Interval of the full scan.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Interval of the checks of the stop flag and of the files that the agent writes.
const WAKE_EVERY: Duration = Duration::from_secs(1);
/// Delay between the first notification of a file and its read: an editor changes a file in several steps.
const SETTLE: Duration = Duration::from_secs(1);
/// How long notifications are collected before they are read, to limit the cost of a burst.
const GATHER: Duration = Duration::from_millis(20);
/// Maximum delay of a notification.
const LATE: Duration = Duration::from_millis(500);
/// How often a file that changes while it is read is read again before that is reported.
const TRIES_MAX: u32 = 3;
/// Maximum number of folders with notifications; the others are only scanned.
const FOLDERS_MAX: usize = 1_024;
/// Maximum bytes of paths and states. Files beyond are not watched, and counted.
const WATCHED_BYTES_MAX: usize = 2 << 20;
/// Notifications for folders: created and removed names and, except for folders that the agent writes to, writes.
const NAMES: WatchMask = WatchMask::CREATE
    .union(WatchMask::MOVED_FROM)
    .union(WatchMask::MOVED_TO)
    .union(WatchMask::DELETE)
    .union(WatchMask::DELETE_SELF)
    .union(WatchMask::MOVE_SELF)
    .union(WatchMask::ONLYDIR)
    .union(WatchMask::MASK_ADD);
const WRITES: WatchMask = WatchMask::MODIFY.union(WatchMask::CLOSE_WRITE).union(NAMES);

/// The state of the thread.
pub(super) struct Watch {
    roots: Vec<Arc<Root>>,
    files: BTreeMap<PathBuf, File>,
    bytes: usize,
    looks: Looks,
    inotify: Option<(Inotify, Epoll)>,
    folders: HashMap<WatchDescriptor, PathBuf>,
    /// The cookie that connects the two notifications of a rename of the log.
    log_moved: Option<u32>,
    looked: Option<Instant>,
    status: Arc<Status>,
}

/// A watched file.
struct File {
    root: Arc<Root>,
    stamp: Option<ContentStamp>,
    /// The content that the agent loaded, and the content that was reported last.
    loaded: Content,
    reported: Content,
    /// When it last was as reported.
    good: Instant,
    stir: Option<Stir>,
}

/// A pending check of a file.
struct Stir {
    since: Instant,
    /// The time of the event, if it came from a notification.
    at: Option<Instant>,
    notified: u64,
    tries: u32,
    holders: Vec<u32>,
}

impl Watch {
    pub(super) fn new(plan: Plan, written: Written, status: Arc<Status>) -> Self {
        let mut watch = Self {
            roots: plan.roots,
            files: BTreeMap::new(),
            bytes: 0,
            looks: Looks::new(written),
            inotify: None,
            folders: HashMap::new(),
            log_moved: None,
            looked: None,
            status,
        };
        for (root, path, stamp) in plan.files {
            watch.add(root, path, stamp, Content::Unknown);
        }
        watch
    }

    /// Runs until the stop flag is set.
    pub(super) fn run(mut self, changes: &Sender<Vec<FileChange>>, stop: &AtomicBool) {
        self.inotify = self.notifications();
        self.watch_folders();
        self.begin();
        let (mut waiting, rows) = self.since_the_run_before();
        self.looks.remember(rows);
        while !stop.load(Relaxed) {
            self.wait();
            let now = Instant::now();
            if self.looked.is_none_or(|looked| now >= looked + LOOK_EVERY) {
                self.look_at_all(now);
            }
            if waiting.is_empty() {
                waiting = self.read_stirred(now);
                waiting.extend(self.looks.look(now));
            }
            if waiting.is_empty() {
                continue;
            }
            match changes.try_send(std::mem::take(&mut waiting)) {
                Ok(()) => {}
                // The sensor is blocked; scanning continues when it has taken this batch.
                Err(TrySendError::Full(lot)) => waiting = lot,
                Err(TrySendError::Disconnected(_)) => return,
            }
        }
    }

    fn notifications(&self) -> Option<(Inotify, Epoll)> {
        let made = Inotify::init().and_then(|inotify| {
            let poll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
            poll.add(inotify.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
            Ok((inotify, poll))
        });
        made.map_err(|error| {
            self.status.alarm.raise(format!(
                "no change notifications ({error}; raise fs.inotify.max_user_instances): all are scanned every {} s",
                LOOK_EVERY.as_secs()
            ));
        })
        .ok()
    }

    /// Requests notifications for every watched folder.
    fn watch_folders(&mut self) {
        let own = self.looks.paths().map(|path| path.parent().map(Path::to_owned));
        let mut folders: Vec<_> = own.into_iter().flatten().map(|folder| (folder, NAMES)).collect();
        for root in &self.roots {
            let below = if root.path.is_dir() { tree::folders(root) } else { Vec::new() };
            folders.extend(below.into_iter().map(|folder| (folder, WRITES)));
            folders.extend(root.path.parent().map(|folder| (folder.to_owned(), WRITES)));
        }
        let Some((inotify, _)) = &self.inotify else { return };
        let mut unwatched = 0;
        for (folder, mask) in folders {
            if self.folders.len() >= FOLDERS_MAX {
                unwatched += 1;
                continue;
            }
            match inotify.watches().add(&folder, mask) {
                Ok(watch) => {
                    self.folders.insert(watch, folder);
                }
                // It is retried with each full scan.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    unwatched += 1;
                    tracing::debug!("{}: {error}", folder.display());
                }
            }
        }
        if unwatched == 0 {
            self.status.alarm.clear();
        } else {
            self.status.alarm.raise(format!(
                "{unwatched} folders have no change notifications: all files are scanned every {} s",
                LOOK_EVERY.as_secs()
            ));
        }
    }

    /// Reads every file for the first time. A file that was changed since the plan may have been loaded before or after.
    fn begin(&mut self) {
        let paths: Vec<_> = self.files.keys().cloned().collect();
        let (last, first): (Vec<_>, Vec<_>) = paths
            .into_iter()
            .partition(|path| self.files.get(path).is_some_and(|file| file.root.role == Role::Executable));
        for path in first.into_iter().chain(last) {
            let now = stamp(&path);
            let Some(file) = self.files.get_mut(&path) else { continue };
            let content = file.read(&path);
            self.status.hashed.fetch_add(1, Relaxed);
            (file.reported, file.good) = (content, Instant::now());
            if now == file.stamp {
                file.loaded = content;
            } else {
                file.reported = Content::Unknown;
                file.stir(Instant::now(), false);
            }
            file.stamp = now;
        }
    }

    /// The differences from the previous run, and what is stored for the next one.
    fn since_the_run_before(&mut self) -> (Vec<FileChange>, Rows) {
        let mut before = self.looks.before();
        let (is_known, now) = (!before.is_empty(), Instant::now());
        let (mut changes, mut rows) = (Vec::new(), Rows::new());
        let mut say = |path: &Path, reason: String| {
            if is_known && changes.len() < CHANGES_MAX {
                let (path, outcome) = (path.to_owned(), ChangeKind::Loaded);
                changes.push(FileChange {
                    path,
                    outcome,
                    reason,
                    is_own: false,
                    from: now,
                    to: now,
                    holders: Vec::new(),
                });
            }
        };
        for (path, file) in &self.files {
            let (Content::Hash(hash), Some(name)) = (file.loaded, path.to_str()) else { continue };
            let (what, known) = (file.root.role.name(), before.remove(name));
            if known.as_deref() == Some(&hash) {
                continue;
            }
            let known = known.and_then(|hash| hash.try_into().ok()).map_or(Content::Absent, Content::Hash);
            let loaded = file.loaded;
            say(
                path,
                format!("the {what} {} has {loaded}, and had {known} in the previous run", shown(path)),
            );
            rows.push((name.to_owned(), Some(hash.to_vec())));
        }
        for (name, hash) in before {
            let known = hash.try_into().map_or(Content::Unknown, Content::Hash);
            say(
                Path::new(&name),
                format!("{} is no longer loaded, and had {known}", shown(Path::new(&name))),
            );
            rows.push((name, None));
        }
        (changes, rows)
    }

    fn add(&mut self, root: Arc<Root>, path: PathBuf, stamp: Option<ContentStamp>, loaded: Content) {
        let bytes = watched_bytes(&path);
        if self.bytes + bytes > WATCHED_BYTES_MAX {
            self.status.unwatched.fetch_add(1, Relaxed);
            return;
        }
        let good = Instant::now();
        let file = File { root, stamp, loaded, reported: loaded, good, stir: None };
        if self.files.insert(path, file).is_none() {
            self.bytes += bytes;
            self.status.watched.fetch_add(1, Relaxed);
        }
    }

    fn forget(&mut self, path: &Path) {
        if self.files.remove(path).is_some() {
            self.bytes -= watched_bytes(path);
            self.status.watched.fetch_sub(1, Relaxed);
        }
    }

    /// Waits for notifications and reads them.
    fn wait(&mut self) {
        let stirred =
            self.files.values().filter_map(|file| file.stir.as_ref()).map(|stir| stir.since + SETTLE).min();
        let wait =
            stirred.map_or(WAKE_EVERY, |due| due.saturating_duration_since(Instant::now()).min(WAKE_EVERY));
        let Some((mut inotify, poll)) = self.inotify.take() else {
            return std::thread::sleep(wait.max(GATHER));
        };
        let timeout = EpollTimeout::try_from(wait).unwrap_or(EpollTimeout::ZERO);
        // A signal ends the wait early, which is harmless.
        if poll.wait(&mut [EpollEvent::empty()], timeout).is_ok_and(|count| count > 0) {
            self.take(&mut inotify);
            std::thread::sleep(GATHER);
        }
        self.inotify = Some((inotify, poll));
    }

    fn take(&mut self, inotify: &mut Inotify) {
        let mut buffer = [0; 16 << 10];
        let Ok(events) = inotify.read_events(&mut buffer) else { return };
        for event in events {
            if event.mask.contains(EventMask::Q_OVERFLOW) {
                self.status.overflows.fetch_add(1, Relaxed);
                self.looked = None;
            }
            if event.mask.intersects(EventMask::IGNORED) {
                self.folders.remove(&event.wd);
            }
            if event.mask.intersects(
                EventMask::ISDIR | EventMask::IGNORED | EventMask::DELETE_SELF | EventMask::MOVE_SELF,
            ) {
                self.looked = None;
            } else if let (Some(folder), Some(name)) = (self.folders.get(&event.wd), event.name) {
                let path = folder.join(name);
                self.notified(path, event.mask, event.cookie);
            }
        }
    }

    fn notified(&mut self, path: PathBuf, mask: EventMask, cookie: u32) {
        let [log, _] = self.looks.paths();
        if path == log && mask.contains(EventMask::MOVED_FROM) {
            self.log_moved = Some(cookie);
        } else if mask.contains(EventMask::MOVED_TO)
            && path.parent() == log.parent()
            && self.log_moved.take_if(|moved| *moved == cookie).is_some()
        {
            self.looks.renamed();
        }
        if let Some(file) = self.files.get_mut(&path) {
            if file.stir(Instant::now(), true) {
                let holders = holders::of(&path);
                file.stir.iter_mut().for_each(|stir| stir.holders = holders.clone());
            }
        } else if let Some(root) = self.root_of(&path) {
            self.add(root, path.clone(), None, Content::Absent);
            self.files.get_mut(&path).into_iter().for_each(|file| _ = file.stir(Instant::now(), true));
        }
    }

    /// The configured folder below which this file is loaded.
    fn root_of(&self, path: &Path) -> Option<Arc<Root>> {
        let below = |root: &&Arc<Root>| {
            let name = path.file_name().and_then(|name| name.to_str())?;
            let is_shown = path
                .strip_prefix(&root.path)
                .ok()?
                .iter()
                .all(|part| !part.as_encoded_bytes().starts_with(b"."));
            (is_shown && root.path != path && (root.wanted)(name)).then_some(())
        };
        self.roots.iter().find(|root| below(root).is_some()).cloned()
    }

    /// Finds new files, and checks every known one.
    fn look_at_all(&mut self, now: Instant) {
        self.looked = Some(now);
        self.status.scans.fetch_add(1, Relaxed);
        self.status.unwatched.store(0, Relaxed);
        self.watch_folders();
        for root in self.roots.clone() {
            let files = if root.path.is_dir() { tree::files(&root).unwrap_or_default() } else { Vec::new() };
            for path in files {
                if !self.files.contains_key(&path) {
                    self.add(root.clone(), path, None, Content::Absent);
                }
            }
        }
        for (path, file) in &mut self.files {
            let seen = stamp(path);
            if seen != file.stamp {
                file.stir(now, false);
            } else if file.stir.is_none() {
                file.good = now;
            }
        }
    }

    /// Reads the files with pending checks, and reports changes.
    fn read_stirred(&mut self, now: Instant) -> Vec<FileChange> {
        let is_due = |file: &File| file.stir.as_ref().is_some_and(|stir| now >= stir.since + SETTLE);
        let due = self.files.iter().filter(|(_, file)| is_due(file)).map(|(path, _)| path.clone());
        let due: Vec<_> = due.take(CHANGES_MAX).collect();
        let mut changes = Vec::new();
        for path in due {
            let Some(file) = self.files.get_mut(&path) else { continue };
            self.status.hashed.fetch_add(1, Relaxed);
            changes.extend(file.look(&path));
            if file.loaded == Content::Absent && file.reported == Content::Absent && file.stir.is_none() {
                self.forget(&path);
            }
        }
        changes
    }
}

/// Memory of a path with its state, in bytes.
fn watched_bytes(path: &Path) -> usize {
    size_of::<(PathBuf, File)>() + path.as_os_str().len()
}

impl File {
    /// Adds a pending check. Returns whether it is the first since the file was read.
    fn stir(&mut self, now: Instant, is_notified: bool) -> bool {
        match &mut self.stir {
            Some(stir) => {
                stir.notified += 1;
                false
            }
            None => {
                let at = is_notified.then_some(now);
                self.stir = Some(Stir { since: now, at, notified: 1, tries: 0, holders: Vec::new() });
                true
            }
        }
    }

    fn read(&self, path: &Path) -> Content {
        let opened = match path.strip_prefix(&self.root.path) {
            Ok(below) if !below.as_os_str().is_empty() => {
                Folder::open(&self.root.path).and_then(|folder| folder.file(below, Links::Within))
            }
            _ => folder::named(path),
        };
        Content::of(opened)
    }

    /// The change since the last report.
    fn look(&mut self, path: &Path) -> Option<FileChange> {
        let mut stir = self.stir.take()?;
        self.stamp = stamp(path);
        let found = self.read(path);
        let now = Instant::now();
        if found == Content::Unknown && stir.tries < TRIES_MAX && self.stamp.is_some() {
            (stir.tries, stir.since) = (stir.tries + 1, now);
            self.stir = Some(stir);
            return None;
        }
        let notified = stir.at.and_then(|at| at.checked_sub(LATE));
        let (before, from) = (self.reported, notified.unwrap_or(self.good));
        (self.reported, self.good) = (found, now);
        if found == before {
            return None;
        }
        let outcome = if found == self.loaded { ChangeKind::Restored } else { ChangeKind::Changed };
        let reason = self.reason(path, found, stir.notified);
        let (path, holders) = (path.to_owned(), stir.holders);
        Some(FileChange { path, outcome, reason, is_own: false, from, to: now, holders })
    }

    fn reason(&self, path: &Path, found: Content, notified: u64) -> String {
        let (what, path, loaded) = (self.root.role.name(), shown(path), self.loaded);
        let change = match (loaded, found) {
            (Content::Absent, _) => format!("a {what}, {path}, was added: {found}"),
            (_, Content::Absent) => {
                format!("the {what} {path} was removed: it had {loaded} when it was loaded")
            }
            _ => format!("the {what} {path} was changed: {found}, and {loaded} when it was loaded"),
        };
        if notified > 1 { format!("{change}; {notified} notifications") } else { change }
    }
}

#[cfg(test)]
mod tests;
