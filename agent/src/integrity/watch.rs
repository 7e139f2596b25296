//! The thread that watches: notifications say where to look at once, a look at everything from time to time finds what they
//! missed. A file that changes again and again is read once a second at most.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, TrySendError};
use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::content::{Content, Stamp};
use super::plan::{Plan, Root, stamp};
use super::written::{Looks, Rows, Written, shown};
use super::{CHANGES_MAX, FileChange, Outcome, Role, Status, holders, tree};
use crate::folder::{self, Folder, Links};

/// How often everything is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How often it is looked whether the thread is to end, and where the agent's own files are.
const WAKE_EVERY: Duration = Duration::from_secs(1);
/// How long after its first notification a file is read: an editor changes one in several steps.
const SETTLE: Duration = Duration::from_secs(1);
/// How long notifications gather until they are read, so that a storm of them costs little.
const GATHER: Duration = Duration::from_millis(20);
/// How late a notification may be read.
const LATE: Duration = Duration::from_millis(500);
/// How often a file that changes while it is read is read anew before that is reported.
const TRIES_MAX: u32 = 3;
/// Most folders that are watched by notification; the others are only looked through.
const FOLDERS_MAX: usize = 1_024;
/// Most bytes that paths and what is known of their files take. Files beyond are not watched, and counted.
const WATCHED_BYTES_MAX: usize = 2 << 20;
/// What is notified of folders: names that come and go, and, but for the folders that the agent writes to, writes.
const NAMES: WatchMask = WatchMask::CREATE
    .union(WatchMask::MOVED_FROM)
    .union(WatchMask::MOVED_TO)
    .union(WatchMask::DELETE)
    .union(WatchMask::DELETE_SELF)
    .union(WatchMask::MOVE_SELF)
    .union(WatchMask::ONLYDIR)
    .union(WatchMask::MASK_ADD);
const WRITES: WatchMask = WatchMask::MODIFY.union(WatchMask::CLOSE_WRITE).union(NAMES);

/// What is watched, and how it is.
pub(super) struct Watch {
    roots: Vec<Arc<Root>>,
    files: BTreeMap<PathBuf, File>,
    bytes: usize,
    looks: Looks,
    inotify: Option<(Inotify, Epoll)>,
    folders: HashMap<WatchDescriptor, PathBuf>,
    /// The mark by which the two notifications of a rename of the log belong together.
    log_moved: Option<u32>,
    looked: Option<Instant>,
    status: Arc<Status>,
}

/// A file that is watched.
struct File {
    root: Arc<Root>,
    stamp: Option<Stamp>,
    /// What the agent loaded, and what was reported last.
    loaded: Content,
    reported: Content,
    /// When it was last seen as it was reported.
    good: Instant,
    stir: Option<Stir>,
}

/// That something happened to a file.
struct Stir {
    since: Instant,
    /// When it happened, where a notification said so.
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

    /// Watches until it is to end.
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
                // The sensor is held up; nothing more is looked at until it takes this.
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
                "no notifications of changes ({error}; raise fs.inotify.max_user_instances): all are looked at every {} s",
                LOOK_EVERY.as_secs()
            ));
        })
        .ok()
    }

    /// Asks for notifications of every folder in which something is watched.
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
                // It is looked for again with each look at all.
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
                "{unwatched} folders give no notifications of changes: all files are looked at every {} s",
                LOOK_EVERY.as_secs()
            ));
        }
    }

    /// Reads every file for the first time. One that was changed since it was planned may have been loaded before or after.
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

    /// What was changed since the run before loaded it, and what is to be remembered for the next.
    fn since_the_run_before(&mut self) -> (Vec<FileChange>, Rows) {
        let mut before = self.looks.before();
        let (is_known, now) = (!before.is_empty(), Instant::now());
        let (mut changes, mut rows) = (Vec::new(), Rows::new());
        let mut say = |path: &Path, reason: String| {
            if is_known && changes.len() < CHANGES_MAX {
                let (path, outcome) = (path.to_owned(), Outcome::Loaded);
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
            say(path, format!("the {what} {} holds {loaded}, and {known} in the previous run", shown(path)));
            rows.push((name.to_owned(), Some(hash.to_vec())));
        }
        for (name, hash) in before {
            let known = hash.try_into().map_or(Content::Unknown, Content::Hash);
            say(Path::new(&name), format!("{} is loaded no more, and held {known}", shown(Path::new(&name))));
            rows.push((name, None));
        }
        (changes, rows)
    }

    fn add(&mut self, root: Arc<Root>, path: PathBuf, stamp: Option<Stamp>, loaded: Content) {
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

    /// Waits for notifications, and takes them.
    fn wait(&mut self) {
        let stirred =
            self.files.values().filter_map(|file| file.stir.as_ref()).map(|stir| stir.since + SETTLE).min();
        let wait =
            stirred.map_or(WAKE_EVERY, |due| due.saturating_duration_since(Instant::now()).min(WAKE_EVERY));
        let Some((mut inotify, poll)) = self.inotify.take() else {
            return std::thread::sleep(wait.max(GATHER));
        };
        let timeout = EpollTimeout::try_from(wait).unwrap_or(EpollTimeout::ZERO);
        // A wait that a signal ends is a short one.
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

    /// The folder that the configuration names below which this is a file that is loaded.
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

    /// Looks for files that came, and at every file that is known.
    fn look_at_all(&mut self, now: Instant) {
        self.looked = Some(now);
        self.status.looks.fetch_add(1, Relaxed);
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

    /// Reads files to which something happened, and says what changed.
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

/// What a path takes with what is known of its file.
fn watched_bytes(path: &Path) -> usize {
    size_of::<(PathBuf, File)>() + path.as_os_str().len()
}

impl File {
    /// Something happened to it, as a notification says now, or before. Whether that is the first since it was read.
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

    /// What became of it since it was reported.
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
        let outcome = if found == self.loaded { Outcome::Restored } else { Outcome::Changed };
        let reason = self.reason(path, found, stir.notified);
        let (path, holders) = (path.to_owned(), stir.holders);
        Some(FileChange { path, outcome, reason, is_own: false, from, to: now, holders })
    }

    fn reason(&self, path: &Path, found: Content, notified: u64) -> String {
        let (what, path, loaded) = (self.root.role.name(), shown(path), self.loaded);
        let change = match (loaded, found) {
            (Content::Absent, _) => format!("a {what}, {path}, was added: {found}"),
            (_, Content::Absent) => {
                format!("the {what} {path} was removed: it held {loaded} when it was loaded")
            }
            _ => format!("the {what} {path} was changed: {found}, and {loaded} when it was loaded"),
        };
        if notified > 1 { format!("{change}; {notified} notifications") } else { change }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::config::Config;
    use crate::trace::Trace;

    /// A folder with a configuration and rules, and the watch over it.
    struct Stage {
        folder: tempfile::TempDir,
        changes: crossbeam_channel::Receiver<Vec<FileChange>>,
        status: Arc<Status>,
        stop: Arc<AtomicBool>,
    }

    impl Drop for Stage {
        fn drop(&mut self) {
            self.stop.store(true, Relaxed);
        }
    }

    fn stage() -> Stage {
        stage_after(tempfile::tempdir().unwrap(), BTreeMap::new()).0
    }

    /// The same in a folder, after a run that loaded these, and what is remembered.
    fn stage_after(
        folder: tempfile::TempDir,
        before: BTreeMap<String, Vec<u8>>,
    ) -> (Stage, crossbeam_channel::Receiver<Rows>) {
        let (remembered, rows) = crossbeam_channel::unbounded();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir_all(path("rules/deep")).unwrap();
        for name in ["lapwing.toml", "rules/a.toml", "rules/deep/b.toml"] {
            fs::write(path(name), name).unwrap();
        }
        let mut config = Config::default();
        config.rules.paths = vec![path("rules")];
        config.rules.exceptions = path("exceptions.d");
        config.indicators.paths = vec![path("indicators.d")];
        let mut plan = Plan::new(config.files(&path("lapwing.toml")));
        // The test itself is large, and no one changes it.
        plan.roots.retain(|root| root.role != Role::Executable);
        plan.files.retain(|(root, ..)| root.role != Role::Executable);
        let written = Written {
            log: (path("alerts"), Trace::new()),
            store: (path("store"), Trace::new()),
            reopen: Box::new(|| {}),
            before,
            remember: Box::new(move |rows| drop(remembered.send(rows))),
        };
        let (stop, status) = (Arc::new(AtomicBool::new(false)), Status::new());
        let (sender, changes) = crossbeam_channel::bounded(100);
        let (watch, stopped) = (Watch::new(plan, written, status.clone()), stop.clone());
        std::thread::spawn(move || watch.run(&sender, &stopped));
        let stage = Stage { folder, changes, status, stop };
        stage.until(&stage.status.looks, 1);
        (stage, rows)
    }

    impl Stage {
        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn until(&self, counter: &AtomicU64, count: u64) {
            let start = Instant::now();
            while counter.load(Relaxed) < count {
                assert!(start.elapsed() < Duration::from_secs(20));
                std::thread::sleep(Duration::from_millis(10));
            }
        }

        fn next(&self) -> FileChange {
            let mut lot = self.changes.recv_timeout(Duration::from_secs(10)).unwrap();
            assert_eq!(lot.len(), 1, "{lot:?}");
            lot.remove(0)
        }
    }

    #[test]
    fn what_is_done_to_a_file_is_said_once_and_that_it_is_mended() {
        let stage = stage();
        type Deed = fn(&Path);
        for (name, deed, words) in [
            ("lapwing.toml", (|path| fs::write(path, "other").unwrap()) as Deed, "the configuration file "),
            ("rules/a.toml", |path| fs::remove_file(path).unwrap(), "was removed"),
            (
                "rules/deep/b.toml",
                |path| fs::rename(path, path.with_extension("off")).unwrap(),
                "was removed",
            ),
            ("rules/deep/c.toml", |path| fs::write(path, "new").unwrap(), "was added: SHA-256 "),
        ] {
            let path = stage.path(name);
            deed(&path);
            let change = stage.next();
            assert_eq!((&change.path, change.outcome), (&path, Outcome::Changed));
            assert!(change.reason.contains(words), "{}", change.reason);
            if name.ends_with("c.toml") {
                fs::remove_file(&path).unwrap()
            } else {
                fs::write(&path, name).unwrap()
            }
            let change = stage.next();
            assert_eq!((&change.path, change.outcome), (&path, Outcome::Restored), "{}", change.reason);
        }
    }

    #[test]
    fn what_was_changed_between_two_runs_is_said_by_the_second() {
        let (stage, rows) = stage_after(tempfile::tempdir().unwrap(), BTreeMap::new());
        let rows = rows.recv().unwrap();
        assert!(
            rows.len() == 3
                && rows.iter().all(|(_, hash)| hash.as_ref().is_some_and(|hash| hash.len() == 32))
        );
        assert!(stage.changes.try_recv().is_err(), "the first run knows of no other");
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let before = [(path("lapwing.toml"), vec![1; 32]), ("/gone.toml".to_owned(), vec![2; 32])];
        let (stage, rows) = stage_after(folder, before.into_iter().collect());
        let rows = rows.recv().unwrap();
        assert!(rows.len() == 4 && rows[3] == ("/gone.toml".to_owned(), None), "{rows:?}");
        let lot = stage.changes.recv_timeout(Duration::from_secs(10)).unwrap();
        let said: Vec<_> = lot.iter().map(|change| change.reason.as_str()).collect();
        assert!(lot.iter().all(|change| change.outcome == Outcome::Loaded), "{said:?}");
        assert!(
            said.len() == 4 && said[0].contains("and SHA-256 0101") && said[1].contains("and no file in"),
            "{said:?}"
        );
        assert!(said[3].starts_with("/gone.toml is loaded no more, and held SHA-256 0202"), "{said:?}");
    }

    #[test]
    fn what_leaves_the_content_as_it_is_is_no_change() {
        let stage = stage();
        let path = stage.path("rules/a.toml");
        fs::write(&path, "rules/a.toml").unwrap();
        fs::write(stage.path("rules/.hidden.toml"), "x").unwrap();
        fs::write(stage.path("rules/notes.txt"), "x").unwrap();
        fs::copy(&path, stage.path("copy")).unwrap();
        fs::rename(stage.path("copy"), &path).unwrap();
        stage.until(&stage.status.looks, 3);
        assert!(stage.changes.try_recv().is_err());
    }

    #[test]
    fn a_storm_of_writes_is_few_reads() {
        let stage = stage();
        let (path, start) = (stage.path("rules/a.toml"), Instant::now());
        let before = stage.status.hashed.load(Relaxed);
        let mut writes = 0_u32;
        while start.elapsed() < Duration::from_secs(3) {
            fs::write(&path, writes.to_string()).unwrap();
            writes += 1;
        }
        let said = stage.next();
        assert!(said.reason.contains("notifications"), "{}", said.reason);
        let reads = stage.status.hashed.load(Relaxed) - before;
        assert!(writes > 100 && reads <= 5, "{writes} writes, {reads} reads");
    }

    #[test]
    fn more_files_than_have_room_are_counted() {
        let stage = stage();
        let long = "x".repeat(200);
        for number in 0..WATCHED_BYTES_MAX / 300 {
            fs::write(stage.path(&format!("rules/{long}{number}.toml")), "").unwrap();
        }
        stage.until(&stage.status.unwatched, 1);
        let watched = stage.status.watched.load(Relaxed) as usize;
        assert!(watched * 200 < WATCHED_BYTES_MAX, "{watched}");
    }
}
