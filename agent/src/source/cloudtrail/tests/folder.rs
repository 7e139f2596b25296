//! Files in real folders: how they appear, grow, break and are found again after the agent was killed.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use nix::unistd::{Uid, setfsuid};
use serde_json::json;
use tempfile::TempDir;

use super::super::BATCH_EVENTS_MAX;
use super::super::config::{Config, ReadFrom};
use super::support::{Bench, file, gzip, lines, record};

fn watched() -> (TempDir, Bench) {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        folders: vec![folder.path().to_owned()],
        rescan_interval: Duration::from_secs(1),
        ..Config::default()
    };
    (folder, Bench::new(config))
}

fn append(path: &Path, bytes: &[u8]) {
    OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(bytes).unwrap();
}

fn day(folder: &Path, region: &str, day: u32) -> std::path::PathBuf {
    let folder = folder.join(format!("AWSLogs/111122223333/CloudTrail/{region}/2026/11/{day:02}"));
    fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn files_are_read_wherever_and_however_they_appear() {
    let (folder, mut bench) = watched();
    let root = folder.path();
    fs::write(root.join("a.json"), file(0..3)).unwrap();
    fs::write(day(root, "eu-west-1", 21).join("b.json.gz"), gzip(&file(3..6))).unwrap();
    bench.expect(0..6);
    // As `aws s3 sync` does: written under another name, then renamed.
    let today = day(root, "eu-west-1", 22);
    fs::write(today.join("c.json.gz.0Ab1"), gzip(&file(6..9))).unwrap();
    fs::rename(today.join("c.json.gz.0Ab1"), today.join("c.json.gz")).unwrap();
    append(&root.join("d.ndjson"), &lines(9..12, true));
    append(&root.join("e.jsonl"), &lines(12..15, true));
    fs::create_dir_all(root.join("AWSLogs/1/CloudTrail-Digest/x")).unwrap();
    fs::write(root.join("AWSLogs/1/CloudTrail-Digest/x/f.json"), file(90..91)).unwrap();
    fs::write(root.join("notes.txt"), file(91..92)).unwrap();
    bench.expect(0..15);
    assert_eq!(bench.report().files_read, 5);
}

/// A user who can write to a folder of trails cannot choose what else the agent reads.
#[test]
fn links_and_special_files_are_reported_and_skipped() {
    let (folder, mut bench) = watched();
    let root = folder.path();
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("secret.json"), file(90..92)).unwrap();
    let links = [
        ("linked", elsewhere.path().to_owned()),
        ("linked.json", elsewhere.path().join("secret.json")),
        ("root", "/".into()),
        ("circle", root.to_owned()),
        ("zero.json", "/dev/zero".into()),
        ("dangling.json", "/nonexistent".into()),
    ];
    for (name, to) in &links {
        symlink(to, root.join(name)).unwrap();
    }
    nix::unistd::mkfifo(&root.join("pipe.json"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    drop(std::os::unix::net::UnixListener::bind(root.join("socket.json")).unwrap());
    fs::write(root.join("a.json"), file(0..3)).unwrap();
    bench.expect(0..3);
    bench.until("every link is reported", |bench| bench.report().alarms.len() == links.len());
    let report = bench.report();
    assert_eq!((report.files_read, report.files_quarantined), (1, 0));
    let alarms: Vec<_> = report.alarms.values().collect();
    assert!(
        alarms.iter().all(|alarm| alarm.contains("it is a link, and links are not followed here")),
        "{alarms:?}"
    );
    // A folder that becomes a link while it is known is not followed either.
    let day = day(root, "eu-west-1", 21);
    fs::write(day.join("b.json"), file(3..6)).unwrap();
    bench.expect(0..6);
    fs::remove_dir_all(&day).unwrap();
    symlink(elsewhere.path(), &day).unwrap();
    for (name, _) in &links {
        fs::remove_file(root.join(name)).unwrap();
    }
    append(&root.join("c.ndjson"), &lines(6..9, true));
    bench.expect(0..9);
    bench.until("what is gone is no trouble any more", |bench| bench.report().alarms.len() == 1);
}

#[test]
fn inotify_reports_files_without_a_scan() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        folders: vec![folder.path().to_owned()],
        rescan_interval: Duration::from_secs(86_400),
        ..Config::default()
    };
    let mut bench = Bench::new(config);
    bench.settle();
    fs::write(folder.path().join("a.json"), file(0..3)).unwrap();
    bench.expect(0..3);
    let today = day(folder.path(), "eu-west-1", 22);
    fs::write(today.join("b.json.gz.part"), gzip(&file(3..6))).unwrap();
    fs::rename(today.join("b.json.gz.part"), today.join("b.json.gz")).unwrap();
    bench.expect(0..6);
    append(&today.join("c.ndjson"), &lines(6..7, true));
    bench.expect(0..7);
    append(&today.join("c.ndjson"), &lines(7..9, true));
    bench.expect(0..9);
    // Another folder comes with everything that is in it.
    let elsewhere = tempfile::tempdir_in(folder.path().parent().unwrap()).unwrap();
    fs::create_dir(elsewhere.path().join("x")).unwrap();
    fs::write(elsewhere.path().join("x/d.json"), file(9..12)).unwrap();
    fs::rename(elsewhere.path().join("x"), today.join("x")).unwrap();
    bench.expect(0..12);
}

#[test]
fn a_folder_may_appear_later_and_be_recreated() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("not/yet");
    let mut bench = Bench::new(Config {
        folders: vec![folder.clone()],
        rescan_interval: Duration::from_secs(1),
        ..Config::default()
    });
    bench.settle();
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("a.json"), file(0..2)).unwrap();
    bench.expect(0..2);
    fs::remove_dir_all(&folder).unwrap();
    bench.settle();
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("b.json"), file(2..4)).unwrap();
    bench.expect(0..4);
}

#[test]
fn the_oldest_files_come_first_in_any_folder() {
    let (folder, mut bench) = watched();
    for (number, region) in ["us-east-1", "eu-west-1", "ap-east-1", "us-east-1"].into_iter().enumerate() {
        let name = format!("1_CloudTrail_{region}_202611{:02}T0005Z_x.json", number + 1);
        fs::write(day(folder.path(), region, number as u32 + 1).join(name), lines(number..number + 1, true))
            .unwrap();
    }
    // Batches order their events by time, so the order of files is seen in files of several batches.
    let long = BATCH_EVENTS_MAX + 1;
    fs::write(day(folder.path(), "aa", 9).join("z.json"), lines(10..10 + long, true)).unwrap();
    fs::write(day(folder.path(), "zz", 8).join("a.json"), lines(2_000..2_000 + long, true)).unwrap();
    bench.expect((0..4).chain(10..10 + long).chain(2_000..2_000 + long));
    let place = |call: &str| bench.calls.iter().position(|found| found == call).unwrap();
    assert!(place("Call2000") < place(&format!("Call{}", 9 + long)));
}

#[test]
fn growing_files_are_read_as_far_as_they_go() {
    let (folder, mut bench) = watched();
    let (plain, array, zipped) =
        (folder.path().join("p.ndjson"), folder.path().join("a.json"), folder.path().join("z.json.gz"));
    let text = lines(0..2, false);
    let (first, second) = text.split_at(text.len() - 30);
    append(&plain, first);
    bench.expect(0..1);
    append(&plain, second);
    bench.expect(0..2);
    append(&plain, &lines(2..3, false));
    bench.expect(0..3);
    // Neither has ids, so that only the progress prevents duplicate events.
    let text = json!({"Records": [record(3, false), record(4, false)]}).to_string();
    append(&array, &text.as_bytes()[..text.len() - 40]);
    bench.expect(0..4);
    append(&array, &text.as_bytes()[text.len() - 40..]);
    bench.expect(0..5);
    let bytes = gzip(&lines(5..400, false));
    for length in 0..4_usize {
        append(&zipped, &bytes[length.saturating_sub(1)..length]);
        bench.settle();
    }
    append(&zipped, &bytes[3..bytes.len() / 2]);
    bench.until("part of a compressed file", |bench| bench.calls.len() > 5);
    append(&zipped, &bytes[bytes.len() / 2..]);
    bench.expect(0..400);
    bench.restart();
    append(&plain, &lines(400..401, false));
    bench.expect(0..401);
    assert_eq!(bench.report().files_quarantined, 0);
}

#[test]
fn a_file_under_an_old_name_is_a_new_file_and_a_renamed_one_is_not() {
    let (folder, mut bench) = watched();
    let (path, moved) = (folder.path().join("a.ndjson"), folder.path().join("old.ndjson"));
    append(&path, &lines(0..5, false));
    bench.expect(0..5);
    fs::rename(&path, &moved).unwrap();
    append(&path, &lines(5..8, false));
    append(&moved, &lines(8..9, false));
    bench.expect(0..9);
    // Truncated in place and rewritten, longer than before.
    fs::write(&path, lines(100..120, false)).unwrap();
    bench.expect((0..9).chain(100..120));
    // The time of writing changes, the content does not.
    fs::File::open(&moved).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    bench.restart();
    bench.expect((0..9).chain(100..120));
}

#[test]
fn after_a_kill_at_any_batch_reading_continues_from_the_store() {
    let (folder, mut bench) = watched();
    let total = BATCH_EVENTS_MAX * 5 + 17;
    fs::write(
        folder.path().join("a.json.gz"),
        gzip(
            &json!({"Records": (0..total).map(|n| record(n, false)).collect::<Vec<_>>()})
                .to_string()
                .into_bytes(),
        ),
    )
    .unwrap();
    fs::write(folder.path().join("b.ndjson"), lines(total..2 * total, false)).unwrap();
    let mut kills = 0;
    while bench.calls.len() < 2 * total {
        // One batch reaches the store, the next is lost with the process.
        let before = bench.calls.len();
        bench.until("a batch", |bench| bench.calls.len() > before);
        bench.hold = true;
        bench.step();
        bench.restart();
        bench.hold = false;
        kills += 1;
    }
    assert!(kills > 8);
    bench.expect(0..2 * total);
}

#[test]
fn a_broken_file_is_quarantined_and_the_others_are_read() {
    let (folder, mut bench) = watched();
    let root = folder.path();
    let mut broken = gzip(&file(0..200));
    let middle = broken.len() / 2;
    broken[middle..middle + 40].fill(0xff);
    fs::write(root.join("a.json.gz"), broken).unwrap();
    fs::write(root.join("b.json"), "<html>").unwrap();
    fs::write(root.join("c.json"), json!({"Records": [{"a": 1}, record(1_000, true), 7]}).to_string())
        .unwrap();
    fs::write(root.join("d.json"), file(1_001..1_003)).unwrap();
    bench.until("three broken files", |bench| bench.report().files_quarantined == 3);
    bench.settle();
    assert!(
        ["Call1000", "Call1001", "Call1002"].iter().all(|call| bench.calls.iter().any(|found| found == call))
    );
    assert_eq!(bench.report().records_refused, 2);
    let mut reasons: Vec<_> =
        bench.file_rows().iter().filter_map(|row| Some(row["quarantined"].as_str()?.to_owned())).collect();
    reasons.sort();
    assert_eq!(
        reasons[0],
        "2 of its records are refused, the first: an object is not a CloudTrail record, which has eventTime and \
         eventVersion at byte 12"
    );
    assert_eq!(reasons[1], "it is not JSON at byte 0");
    assert!(reasons[2].starts_with("its compressed stream is broken"), "{}", reasons[2]);
    // It stays so over a restart, without another report, and a repaired file is read.
    bench.restart();
    bench.settle();
    assert_eq!(bench.report().files_quarantined, 0);
    fs::write(root.join("b.json"), file(2_000..2_001)).unwrap();
    bench.until("the mended file", |bench| bench.calls.iter().any(|call| call == "Call2000"));
}

#[test]
fn a_record_in_two_files_is_one_event() {
    let (folder, mut bench) = watched();
    fs::write(folder.path().join("a.json"), file(0..100)).unwrap();
    bench.expect(0..100);
    bench.restart();
    fs::write(folder.path().join("b.json.gz"), gzip(&file(50..150))).unwrap();
    bench.expect(0..150);
    assert_eq!(bench.report().duplicates, 50);
}

#[test]
fn a_missing_folder_does_not_grow_the_memory_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let folders = vec![folder.path().to_owned(), "/nonexistent/lapwing".into()];
    let mut bench =
        Bench::new(Config { folders, rescan_interval: Duration::from_secs(1), ..Config::default() });
    bench.source().folder.as_mut().unwrap().progress.files_max = 50;
    bench.source().folder.as_mut().unwrap().tree.coarse_nanos = 0;
    for number in 0..400 {
        fs::write(folder.path().join(format!("{number}.json")), lines(number..number + 1, false)).unwrap();
    }
    bench.expect(0..400);
    bench.until("a bound", |bench| bench.file_rows().len() <= 101);
    bench.expect(0..400);
}

#[test]
fn thousands_of_files_are_read_once_in_bounded_memory_of_them() {
    let (folder, mut bench) = watched();
    let files = 3_000;
    for number in 0..files {
        let folder = day(folder.path(), ["eu-west-1", "us-east-1"][number % 2], 1 + number as u32 % 28);
        fs::write(folder.join(format!("{number}.json")), lines(number..number + 1, false)).unwrap();
    }
    let remembered = 500;
    let bound = |bench: &mut Bench| {
        let folder = bench.source().folder.as_mut().unwrap();
        folder.progress.files_max = remembered;
        folder.pending_max = 200;
        folder.tree.coarse_nanos = 0;
    };
    bound(&mut bench);
    bench.until("a third", |bench| bench.calls.len() > files / 3);
    bench.restart();
    bound(&mut bench);
    bench.expect(0..files);
    bench.restart();
    bound(&mut bench);
    bench.expect(0..files);
    assert!(bench.file_rows().len() <= remembered + 1, "{} rows", bench.file_rows().len());
    // A late file is new, for any date.
    fs::write(day(folder.path(), "eu-west-1", 1).join("late.json"), lines(files..files + 1, false)).unwrap();
    bench.expect(0..=files);
}

#[test]
fn start_now_skips_existing_files() {
    let folder = tempfile::tempdir().unwrap();
    let old = folder.path().join("old.ndjson");
    fs::write(&old, lines(0..5, false)).unwrap();
    fs::write(folder.path().join("old.json.gz"), gzip(&file(5..9))).unwrap();
    let config = Config {
        folders: vec![folder.path().to_owned()],
        rescan_interval: Duration::from_secs(1),
        read_from: ReadFrom::End,
        ..Config::default()
    };
    let mut bench = Bench::new(config);
    bench.settle();
    assert_eq!(bench.calls, [""; 0]);
    append(&old, &lines(10..11, false));
    fs::write(folder.path().join("new.json.gz"), gzip(&file(11..12))).unwrap();
    bench.expect(10..12);
    bench.restart();
    bench.expect(10..12);
}

#[test]
fn an_unreadable_file_is_reported_once_with_a_hint() {
    let (folder, mut bench) = watched();
    let locked = folder.path().join("locked");
    fs::create_dir(&locked).unwrap();
    fs::write(locked.join("a.json"), file(0..1)).unwrap();
    fs::write(folder.path().join("b.json"), file(1..2)).unwrap();
    fs::write(folder.path().join("c.json"), file(2..3)).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for path in [&locked, &folder.path().join("b.json")] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
    }
    // This one thread accesses files as another user, without the capabilities of root.
    setfsuid(Uid::from_raw(65_534));
    bench.expect(2..3);
    bench.until("two alarms", |bench| bench.report().alarms.len() == 2);
    let alarms = bench.report().alarms;
    assert!(
        alarms[locked.to_str().unwrap()].ends_with("with `setfacl -R -m u:lapwing:rX` say"),
        "{alarms:?}"
    );
    setfsuid(Uid::effective());
    for path in [&locked, &folder.path().join("b.json")] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    bench.expect(0..3);
    assert_eq!(bench.report().alarms.len(), 0);
}
