//! The log on a real file system: writes, crashes, and readers across rotations.

use std::fs;
use std::process::Command;

use super::*;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lapwing-alert-log-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn config(&self) -> Config {
        Config { path: self.0.join("log/alerts.ndjson"), gzip: false, ..Config::default() }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn write(log: &mut AlertLog, lines: impl IntoIterator<Item = impl AsRef<str>>) {
    for line in lines {
        log.append(Bytes::copy_from_slice(line.as_ref().as_bytes()));
    }
    log.sync().unwrap();
}

fn forward(path: &Path, position: Option<Position>) -> Vec<String> {
    let (mut reader, _) = Forward::new(path.to_owned(), position).unwrap();
    let (mut lines, mut line) = (Vec::new(), Vec::new());
    while reader.next_line(&mut line).unwrap() {
        lines.push(String::from_utf8(line.clone()).unwrap());
    }
    lines
}

fn backward(path: &Path) -> Vec<String> {
    Backward::new(path, None).unwrap().map(|line| String::from_utf8(line.unwrap()).unwrap()).collect()
}

fn numbered(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|number| format!("{{\"number\":{number}}}")).collect()
}

#[test]
fn lines_are_read_in_both_directions() {
    let folder = Folder::new("directions");
    let config = folder.config();
    let mut log = AlertLog::open(&config).unwrap();
    // Longer than a window, so that lines cross its edge.
    let mut lines = numbered(0..50_000);
    lines.push(format!("{{\"long\":\"{}\"}}", "x".repeat(3 * (256 << 10))));
    lines.extend(numbered(50_000..50_010));
    write(&mut log, &lines);
    assert_eq!(forward(&config.path, None), lines);
    lines.reverse();
    assert_eq!(backward(&config.path), lines);
    let mode = fs::metadata(&config.path).unwrap().mode();
    assert_eq!(mode & 0o777 & !0o640, 0, "others may not read it");
}

#[test]
fn an_incomplete_line_is_removed_and_complete_ones_stay() {
    for (name, content, left) in [
        ("empty", "", ""),
        ("whole", "{\"a\":1}\n", "{\"a\":1}\n"),
        ("torn", "{\"a\":1}\n{\"b\":", "{\"a\":1}\n"),
        ("torn-first", "{\"a\":", ""),
        ("zeros", "{\"a\":1}\n\0\0\0\0", "{\"a\":1}\n"),
    ] {
        let folder = Folder::new(name);
        let config = folder.config();
        fs::create_dir_all(config.path.parent().unwrap()).unwrap();
        fs::write(&config.path, content).unwrap();
        let mut log = AlertLog::open(&config).unwrap();
        assert_eq!(fs::read_to_string(&config.path).unwrap(), left, "{name}");
        write(&mut log, ["{}"]);
        assert_eq!(fs::read_to_string(&config.path).unwrap(), format!("{left}{{}}\n"), "{name}");
    }
}

/// A reader resumes from the position after any line, whatever happens to the files, and reads each line once, in order.
#[test]
fn positions_survive_rotation_compression_and_copies() {
    type Rotate = fn(&Path, &mut AlertLog);
    let rotations: [(&str, Rotate); 5] = [
        ("rename", |path, log| {
            fs::rename(path, path.with_extension("ndjson.1")).unwrap();
            log.reopen().unwrap();
        }),
        ("rename-without-a-signal", |path, _| fs::rename(path, path.with_extension("ndjson.1")).unwrap()),
        ("gzip", |path, log| {
            let rotated = path.with_extension("ndjson.1");
            fs::rename(path, &rotated).unwrap();
            assert!(Command::new("gzip").arg(&rotated).status().unwrap().success());
            log.reopen().unwrap();
        }),
        ("copytruncate", |path, _| {
            fs::copy(path, path.with_extension("ndjson.1")).unwrap();
            OpenOptions::new().write(true).open(path).unwrap().set_len(0).unwrap();
        }),
        ("own", |_, log| {
            log.rotation.rename().unwrap();
            log.reopen().unwrap();
        }),
    ];
    for (name, rotate) in rotations {
        let folder = Folder::new(name);
        let config = folder.config();
        let mut log = AlertLog::open(&config).unwrap();
        let lines = numbered(0..20);
        let mut positions = vec![None];
        for (index, line) in lines.iter().enumerate() {
            if index == 10 {
                rotate(&config.path, &mut log);
            }
            write(&mut log, [line]);
            positions.push(log.position());
        }
        for (index, position) in positions.into_iter().enumerate() {
            assert_eq!(forward(&config.path, position), lines[index..], "{name}, from {index}");
        }
        assert_eq!(backward(&config.path), lines.iter().rev().cloned().collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn a_reader_continues_across_a_rotation() {
    let folder = Folder::new("across");
    let config = folder.config();
    let mut log = AlertLog::open(&config).unwrap();
    let (mut reader, _) = Forward::new(config.path.clone(), None).unwrap();
    let mut line = Vec::new();
    let mut read = Vec::new();
    for (round, lines) in numbered(0..30).chunks(3).enumerate() {
        write(&mut log, lines);
        if round % 2 == 0 {
            log.rotation.rename().unwrap();
        }
        if round % 3 == 0 {
            while reader.next_line(&mut line).unwrap() {
                read.push(String::from_utf8(line.clone()).unwrap());
            }
        }
    }
    assert_eq!(read, numbered(0..30));
}

#[test]
fn the_log_rotates_by_size_and_keeps_the_configured_files() {
    let folder = Folder::new("size");
    let config = Config { rotate_size: ByteSize::b(100), rotate_keep: 3, gzip: false, ..folder.config() };
    let mut log = AlertLog::open(&config).unwrap();
    let lines = numbered(0..100);
    for line in &lines {
        write(&mut log, [line]);
        assert!(fs::metadata(&config.path).unwrap().len() < 120);
    }
    drop(log);
    // A file that one run leaves uncompressed is compressed by the next.
    let mut log = AlertLog::open(&config).unwrap();
    log.rotation.running.take().unwrap().join().unwrap();
    let names: Vec<_> = files::list(&config.path).unwrap().into_iter().map(|file| file.path).collect();
    assert_eq!(names.len(), 4, "{names:?}");
    let mut left = backward(&config.path);
    left.reverse();
    assert_eq!(left, lines[lines.len() - left.len()..], "the newest lines are left, in order");
    assert_eq!(forward(&config.path, None), left);
}

#[test]
fn the_log_rotates_by_age() {
    let folder = Folder::new("age");
    let config = Config { rotate_age: Duration::from_nanos(1), ..folder.config() };
    let mut log = AlertLog::open(&config).unwrap();
    write(&mut log, ["{}"]);
    write(&mut log, ["{}"]);
    assert_eq!(files::list(&config.path).unwrap().len(), 2);
}

#[test]
fn a_deleted_log_is_recreated() {
    let folder = Folder::new("deleted");
    let config = folder.config();
    let mut log = AlertLog::open(&config).unwrap();
    write(&mut log, ["{\"a\":1}"]);
    fs::remove_dir_all(config.path.parent().unwrap()).unwrap();
    write(&mut log, ["{\"b\":1}"]);
    assert_eq!(fs::read_to_string(&config.path).unwrap(), "{\"b\":1}\n");
}

#[test]
fn a_damaged_compressed_file_is_read_up_to_the_damage() {
    let folder = Folder::new("damaged");
    let config = folder.config();
    let mut log = AlertLog::open(&config).unwrap();
    let noise = numbered(0..20_000);
    write(&mut log, &noise);
    let rotated = config.path.with_extension("ndjson.1");
    fs::rename(&config.path, &rotated).unwrap();
    assert!(Command::new("gzip").arg(&rotated).status().unwrap().success());
    let packed = config.path.with_extension("ndjson.1.gz");
    let half = fs::metadata(&packed).unwrap().len() / 2;
    OpenOptions::new().write(true).open(&packed).unwrap().set_len(half).unwrap();
    write(&mut log, ["{\"last\":1}"]);
    let read = forward(&config.path, None);
    assert!(read.len() > 1000 && read[..1000] == noise[..1000], "{}", read.len());
    assert_eq!(read.last().unwrap(), "{\"last\":1}");
    assert_eq!(backward(&config.path).last(), noise.first());
}

/// An alert of this user with about this many bytes.
fn of_user(user: &str, number: u32, severity: u32, bytes: usize) -> String {
    let noise = "x".repeat(bytes);
    format!(
        r#"{{"number":{number},"event":{{"severity":{severity}}},"user":{{"id":"{user}"}},"lapwing":{{"actor":{{"id":"{user}"}}}},"noise":"{noise}"}}"#
    )
}

/// A user who fills the log, compressed or not, does not displace alerts about others.
#[test]
fn noise_of_one_user_does_not_displace_alerts_of_others() {
    for gzip in [false, true] {
        let folder = Folder::new(if gzip { "noise-gzip" } else { "noise" });
        let config = Config { rotate_size: ByteSize::kib(16), rotate_keep: 4, gzip, ..folder.config() };
        let mut log = AlertLog::open(&config).unwrap();
        let mut victims = Vec::new();
        for number in 0..2000 {
            // Incompressible text, the worst case.
            let noise: String = std::iter::repeat_with(fastrand::alphanumeric).take(900).collect();
            write(
                &mut log,
                [of_user("1000", number, 47, 0).replace("\"noise\":\"", &format!("\"noise\":\"{noise}"))],
            );
            if number % 300 == 7 {
                victims.push(of_user("0", number, 73, 100));
                write(&mut log, [victims.last().unwrap()]);
            }
            if let Some(thread) = log.rotation.running.take() {
                thread.join().unwrap();
            }
        }
        log.rotation.tidy();
        log.rotation.running.take().unwrap().join().unwrap();
        let left = backward(&config.path);
        let lost: Vec<_> = victims.iter().filter(|line| !left.contains(line)).collect();
        assert!(
            lost.is_empty(),
            "{} of {} are lost, {} lines are left",
            lost.len(),
            victims.len(),
            left.len()
        );
        let retention = log.retention();
        let count =
            |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
        assert!(count(&retention.bytes) <= 4 * (16 << 10), "{retention:?}");
        assert!(count(&retention.carried) > 0 && count(&retention.expired) > 1000, "{retention:?}");
        assert_eq!(
            left.len() as u64 + count(&retention.expired),
            2000 + victims.len() as u64,
            "each is counted"
        );
    }
}

/// Lines that no version wrote are skipped in both directions.
#[test]
fn a_line_that_is_too_long_is_skipped() {
    let folder = Folder::new("long");
    let config = folder.config();
    let mut log = AlertLog::open(&config).unwrap();
    let long = "x".repeat(LINE_BYTES_MAX + (1 << 20));
    let written = "y".repeat(ALERT_BYTES_MAX);
    write(&mut log, ["{\"first\":1}", &long, &written, "{\"last\":1}"]);
    let (mut reader, _) = Forward::new(config.path.clone(), None).unwrap();
    let (mut read, mut line) = (Vec::new(), Vec::new());
    while reader.next_line(&mut line).unwrap() {
        read.push(line.len());
    }
    assert_eq!((read, reader.passed_over()), (vec![11, ALERT_BYTES_MAX, 10], 1));
    let read: Vec<_> = backward(&config.path).iter().map(String::len).collect();
    assert_eq!(read, [10, ALERT_BYTES_MAX, 11]);
}
