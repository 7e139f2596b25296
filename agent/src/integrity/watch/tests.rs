//! The integrity thread on a folder with a configuration and rules.

use std::fs;
use std::sync::atomic::AtomicU64;

use super::*;
use crate::trace::Trace;
use crate::{indicators, rules};

/// A folder with a configuration and rules, and its watch.
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

/// The same in a folder, after a run that loaded these files, and what is stored for the next run.
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
    let rules = rules::Config {
        paths: vec![path("rules")],
        exceptions: path("exceptions.d"),
        ..rules::Config::default()
    };
    let indicators = indicators::Config { paths: vec![path("indicators.d")] };
    let mut plan = Plan::new(&path("lapwing.toml"), &rules, &indicators);
    // The test executable is large and does not change.
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
    stage.until(&stage.status.scans, 1);
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
fn a_change_is_reported_once_and_so_is_its_repair() {
    let stage = stage();
    type Deed = fn(&Path);
    for (name, deed, words) in [
        ("lapwing.toml", (|path| fs::write(path, "other").unwrap()) as Deed, "the configuration file "),
        ("rules/a.toml", |path| fs::remove_file(path).unwrap(), "was removed"),
        ("rules/deep/b.toml", |path| fs::rename(path, path.with_extension("off")).unwrap(), "was removed"),
        ("rules/deep/c.toml", |path| fs::write(path, "new").unwrap(), "was added: SHA-256 "),
    ] {
        let path = stage.path(name);
        deed(&path);
        let change = stage.next();
        assert_eq!((&change.path, change.outcome), (&path, ChangeKind::Changed));
        assert!(change.reason.contains(words), "{}", change.reason);
        if name.ends_with("c.toml") {
            fs::remove_file(&path).unwrap()
        } else {
            fs::write(&path, name).unwrap()
        }
        let change = stage.next();
        assert_eq!((&change.path, change.outcome), (&path, ChangeKind::Restored), "{}", change.reason);
    }
}

#[test]
fn changes_between_two_runs_are_reported_by_the_second() {
    let (stage, rows) = stage_after(tempfile::tempdir().unwrap(), BTreeMap::new());
    let rows = rows.recv().unwrap();
    assert!(
        rows.len() == 3 && rows.iter().all(|(_, hash)| hash.as_ref().is_some_and(|hash| hash.len() == 32))
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
    assert!(lot.iter().all(|change| change.outcome == ChangeKind::Loaded), "{said:?}");
    assert!(
        said.len() == 4 && said[0].contains("and had SHA-256 0101") && said[1].contains("and had no file in"),
        "{said:?}"
    );
    assert!(said[3].starts_with("/gone.toml is no longer loaded, and had SHA-256 0202"), "{said:?}");
}

#[test]
fn unchanged_content_is_no_change() {
    let stage = stage();
    let path = stage.path("rules/a.toml");
    fs::write(&path, "rules/a.toml").unwrap();
    fs::write(stage.path("rules/.hidden.toml"), "x").unwrap();
    fs::write(stage.path("rules/notes.txt"), "x").unwrap();
    fs::copy(&path, stage.path("copy")).unwrap();
    fs::rename(stage.path("copy"), &path).unwrap();
    stage.until(&stage.status.scans, 3);
    assert!(stage.changes.try_recv().is_err());
}

#[test]
fn a_burst_of_writes_causes_few_reads() {
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
fn files_beyond_the_memory_limit_are_counted() {
    let stage = stage();
    let long = "x".repeat(200);
    for number in 0..WATCHED_BYTES_MAX / 300 {
        fs::write(stage.path(&format!("rules/{long}{number}.toml")), "").unwrap();
    }
    stage.until(&stage.status.unwatched, 1);
    let watched = stage.status.watched.load(Relaxed) as usize;
    assert!(watched * 200 < WATCHED_BYTES_MAX, "{watched}");
}
