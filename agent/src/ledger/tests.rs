//! Log and store together: what is durable, in which order, and what crashes, full disks and rotation leave.

use std::fs;
use std::process::Command;
use std::sync::mpsc;

use bytesize::ByteSize;

use super::*;
use crate::clock;
use crate::testing::{
    Ledger, TestHost, alert, alert_of, commit, hand_over, id, mount_small, reverse_shell, wait_until,
};

fn ids(numbers: std::ops::Range<u64>) -> Vec<String> {
    numbers.map(id).collect()
}

fn raise(ledger: &Ledger, numbers: std::ops::Range<u64>) {
    ledger.commit(commit(numbers.map(alert)));
}

fn change(key: &str, value: &str) -> Change {
    Change { scope: "rule/r1".to_owned(), key: key.to_owned(), value: Some(value.as_bytes().to_vec()) }
}

fn rows(ledger: &Ledger) -> Vec<(String, Vec<u8>)> {
    let mut rows = Vec::new();
    let each = |key, value| {
        rows.push((key, value));
        Ok(())
    };
    ledger.client().rows("rule/r1", each).unwrap();
    rows
}

#[test]
fn a_commit_is_atomic() {
    let host = TestHost::new();
    let ledger = host.start().unwrap();
    let (done, wait) = mpsc::channel();
    let log = host.alerts.path.clone();
    let checkpoint = Checkpoint {
        changes: vec![change("cursor", "7")],
        done: Some(Box::new(move || done.send(fs::read(log).unwrap()).unwrap())),
    };
    hand_over(ledger.sender(), Commit { alerts: vec![alert(1)], checkpoint });
    let logged = wait.recv().unwrap();
    assert!(logged.ends_with(b"}\n"), "the line is in the log when it is said to be");
    assert_eq!(ledger.spooled(0), [id(1)]);
    assert_eq!(rows(&ledger), [("cursor".to_owned(), b"7".to_vec())]);
    ledger.stop().unwrap();
    let ledger = host.start().unwrap();
    assert_eq!(ledger.spooled(0), [id(1)]);
    assert_eq!(rows(&ledger).len(), 1);
}

/// What waits for a ledger that accepts nothing is limited in bytes, for any size of commits.
#[test]
fn commits_wait_within_a_limit_in_bytes() {
    let of_alert = |bytes: usize| {
        let json = vec![b'x'; bytes].into();
        commit([AlertDocument { json, ..alert(1) }])
    };
    let of_change = |bytes: usize| {
        let changes = vec![change("key", &"x".repeat(bytes))];
        Commit { checkpoint: Checkpoint { changes, done: None }, ..Commit::default() }
    };
    let kinds: [&dyn Fn(usize) -> Commit; 2] = [&of_alert, &of_change];
    for (kind, bytes) in
        [0, 1 << 10, 256 << 10, 4 << 20].into_iter().flat_map(|bytes| kinds.map(|kind| (kind, bytes)))
    {
        let host = TestHost::new();
        let (commits, waiting) = unbounded();
        let sender = LedgerSender { commits, status: Arc::new(LedgerStatus::new(&host.alerts.path)) };
        let mut taken = 0;
        while sender.offer(kind(bytes), Duration::ZERO).unwrap().is_none() {
            taken += 1;
        }
        assert!(taken * bytes < COMMITS_WAITING_BYTES_MAX + bytes, "{taken} of {bytes}");
        assert!((1..=COMMITS_WAITING_BYTES_MAX / COMMIT_BYTES).contains(&taken), "{taken} of {bytes}");
        assert!(sender.status.report().waiting_bytes as usize >= COMMITS_WAITING_BYTES_MAX);
        drop(waiting.recv().unwrap());
        assert!(sender.offer(kind(bytes), Duration::ZERO).unwrap().is_none(), "there is room again");
    }
}

#[test]
fn a_repeated_alert_is_deduplicated() {
    let host = TestHost::new();
    let ledger = host.start().unwrap();
    ledger.commit(commit([alert(1), alert(1), alert(2)]));
    ledger.commit(commit([alert(2), alert(3)]));
    ledger.stop().unwrap();
    let ledger = host.start().unwrap();
    ledger.commit(commit([alert(1), alert(4)]));
    assert_eq!(host.logged(), ids(1..5));
    assert_eq!(ledger.spooled(0), ids(1..5));
    assert_eq!(ledger.client().report().alerts_deduplicated, 1);
}

#[test]
fn state_of_any_size_is_read_completely() {
    let host = TestHost::new();
    let ledger = host.start().unwrap();
    let changes: Vec<_> = (0..ROWS_READ_MAX * 2 + 1).map(|row| change(&format!("{row:06}"), "x")).collect();
    let count = changes.len();
    ledger.commit(Commit { checkpoint: Checkpoint { changes, done: None }, ..Commit::default() });
    let rows = rows(&ledger);
    assert_eq!(rows.len(), count);
    assert!(rows.is_sorted());
}

#[test]
fn ten_thousand_alerts_of_two_lanes_stay_in_order() {
    let host = TestHost::new();
    let ledger = host.start().unwrap();
    let lanes = [0, 100_000].map(|first| {
        let sender = ledger.sender().clone();
        std::thread::spawn(move || {
            for number in first..first + 5000 {
                hand_over(&sender, commit([alert(number)]));
            }
        })
    });
    lanes.into_iter().for_each(|lane| lane.join().unwrap());
    ledger.stop().unwrap();
    let ledger = host.start().unwrap();
    let (logged, spooled) = (host.logged(), ledger.spooled(0));
    assert_eq!(logged.len(), 10_000);
    assert_eq!(logged, spooled);
    for lane in [ids(0..5000), ids(100_000..105_000)] {
        let of_lane: Vec<_> = logged.iter().filter(|id| lane.contains(id)).cloned().collect();
        assert!(of_lane == lane);
    }
}

/// What a crash or a user can do to the files of an agent that is not running, after it has logged alerts 0 to 9 and
/// its sink has delivered 0 to 4. Whatever it is, 5 to 9 and what came later are then to be delivered in order.
#[test]
fn nothing_is_lost_whatever_was_done_while_the_agent_was_down() {
    type Tamper = fn(&TestHost);
    let cases: [(&str, Tamper, std::ops::Range<u64>); 6] = [
        ("nothing", |_| {}, 5..10),
        ("crash between log and store", |host| append(host, 10..13), 5..13),
        (
            "torn line",
            |host| {
                append(host, 10..12);
                let torn = [fs::read(&host.alerts.path).unwrap(), alert(12).json[..500].to_vec()].concat();
                fs::write(&host.alerts.path, torn).unwrap();
            },
            5..12,
        ),
        (
            "a line of garbage",
            |host| {
                let garbage = [fs::read(&host.alerts.path).unwrap(), b"\0\0{}\n[1]\n\n".to_vec()].concat();
                fs::write(&host.alerts.path, garbage).unwrap();
                append(host, 10..12);
            },
            5..12,
        ),
        (
            "rotated",
            |host| {
                append(host, 10..12);
                fs::rename(&host.alerts.path, host.alerts.path.with_extension("ndjson.1")).unwrap();
                append(host, 12..14);
            },
            5..14,
        ),
        (
            "rotated and compressed",
            |host| {
                append(host, 10..12);
                let rotated = host.alerts.path.with_extension("ndjson.1");
                fs::rename(&host.alerts.path, &rotated).unwrap();
                assert!(Command::new("gzip").arg(rotated).status().unwrap().success());
                append(host, 12..14);
            },
            5..14,
        ),
    ];
    for (name, tamper, expected) in cases {
        let host = TestHost::new();
        let ledger = host.start().unwrap();
        raise(&ledger, 0..10);
        ledger.client().acknowledge("siem", 5);
        ledger.stop().unwrap();
        tamper(&host);
        let ledger = host.start().unwrap();
        let cursor = crate::testing::block_on(ledger.client().cursor("siem")).unwrap();
        assert_eq!(ledger.spooled(cursor), ids(expected.clone()), "{name}");
        // What was taken over from the log is known.
        raise(&ledger, expected.end - 1..expected.end + 1);
        assert_eq!(ledger.spooled(cursor), ids(expected.start..expected.end + 1), "{name}");
    }
}

fn append(host: &TestHost, numbers: std::ops::Range<u64>) {
    let mut log = fs::OpenOptions::new().create(true).append(true).open(&host.alerts.path).unwrap();
    for number in numbers {
        std::io::Write::write_all(&mut log, &[&alert(number).json[..], b"\n"].concat()).unwrap();
    }
}

#[test]
fn a_store_that_is_older_than_the_log_catches_up() {
    let host = TestHost::new();
    let ledger = host.start().unwrap();
    raise(&ledger, 0..5);
    ledger.stop().unwrap();
    let (store, backup) = (host.state_dir().join("lapwing.db"), host.path().join("backup.db"));
    fs::copy(&store, &backup).unwrap();
    let ledger = host.start().unwrap();
    raise(&ledger, 5..10);
    ledger.client().acknowledge("siem", 10);
    ledger.stop().unwrap();
    fs::copy(&backup, &store).unwrap();
    let ledger = host.start().unwrap();
    assert_eq!(ledger.spooled(0), ids(0..10));
}

#[test]
fn after_the_loss_of_the_store_the_last_days_alerts_are_resent() {
    let host = TestHost::new();
    let ledger = host.start().unwrap();
    let mut document = reverse_shell();
    document["@timestamp"] = (clock::now() - std::time::Duration::from_hours(25)).to_string().into();
    let old = alert_of(1, &document.to_string());
    ledger.commit(commit([old.clone(), alert(2)]));
    ledger.stop().unwrap();
    fs::remove_dir_all(host.state_dir()).unwrap();
    let ledger = host.start().unwrap();
    assert_eq!(ledger.spooled(0), [id(2)]);
    ledger.commit(commit([old, alert(2), alert(3)]));
    assert_eq!(host.logged(), [id(1), id(2), id(3)], "all of the log is known");
}

#[test]
fn a_full_spool_continues_from_the_log() {
    let bytes = alert(0).json.len() as u64;
    for (name, restart) in [("running", false), ("restarted", true)] {
        let mut host = TestHost::new();
        host.spool.size_max = ByteSize::b(bytes * 10 + 100);
        // Every few alerts, so that what is read back is in compressed files.
        host.alerts.rotate_size = ByteSize::b(bytes * 7);
        host.alerts.rotate_keep = 100;
        let mut ledger = host.start().unwrap();
        for first in (0..100).step_by(5) {
            raise(&ledger, first..first + 5);
        }
        assert_eq!(ledger.client().report().alerts_in_log_only, 90, "{name}");
        assert!(ledger.client().report().alarms[0].contains("it is full: "), "{name}");
        let (mut delivered, mut after) = (Vec::new(), 0);
        while delivered.len() < 100 {
            let alerts = crate::testing::block_on(ledger.client().read(after, 3, usize::MAX)).unwrap();
            if let Some(last) = alerts.last() {
                after = last.sequence;
                ledger.client().acknowledge("siem", after);
            }
            delivered.extend(alerts.into_iter().map(|alert| alert.id));
            if restart {
                ledger.stop().unwrap();
                ledger = host.start().unwrap();
            } else if delivered.len() < 100 {
                wait_until("there is more", || !ledger.spooled(after).is_empty());
            }
        }
        assert_eq!(delivered, ids(0..100), "{name}");
        let report = ledger.client().report();
        assert_eq!((report.alerts_in_log_only, report.alerts_undeliverable), (0, 0), "{name}: {report:?}");
        assert!(report.alarms.is_empty(), "{name}: {report:?}");
    }
}

#[test]
fn alerts_rotated_before_delivery_are_counted() {
    let bytes = alert(0).json.len() as u64;
    let mut host = TestHost::new();
    host.spool.size_max = ByteSize::b(bytes * 4 + 100);
    let ledger = host.start().unwrap();
    raise(&ledger, 0..10);
    fs::remove_file(&host.alerts.path).unwrap();
    raise(&ledger, 10..12);
    ledger.client().acknowledge("siem", 4);
    wait_until("it is noticed", || ledger.client().report().alerts_undeliverable == 6);
    assert_eq!(ledger.spooled(4), ids(10..12));
}

#[test]
fn the_log_is_reopened_on_request() {
    let host = TestHost::new();
    let ledger = host.start().unwrap();
    raise(&ledger, 0..2);
    fs::rename(&host.alerts.path, host.alerts.path.with_extension("ndjson.1")).unwrap();
    ledger.client().reopen();
    wait_until("the file is there", || host.alerts.path.exists());
    raise(&ledger, 2..4);
    assert_eq!(fs::read_to_string(&host.alerts.path).unwrap().lines().count(), 2);
    assert_eq!(host.logged(), ids(0..4));
}

#[test]
fn clients_are_notified_of_the_end() {
    let host = TestHost::new();
    let ledger = host.start().unwrap();
    let (client, mut spooled) = (ledger.client().clone(), ledger.client().spooled());
    let sender = ledger.sender().clone();
    let stop = std::thread::spawn(|| ledger.stop());
    hand_over(&sender, commit([alert(1)]));
    drop(sender);
    crate::testing::block_on(async { while spooled.changed().await.is_ok() {} });
    let last = crate::testing::block_on(client.read(0, 9, usize::MAX)).unwrap();
    assert_eq!(last.len(), 1, "it answers until the last client is gone");
    client.acknowledge("siem", last[0].sequence);
    drop(client);
    stop.join().unwrap().unwrap();
    assert_eq!(host.start().unwrap().client().report().alerts_spooled, 0, "and keeps what they say");
}

/// While the log's disk is full, lanes wait and nothing is lost: once there is room, every line is complete.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_lane_waits_for_a_full_disk() {
    for folder in ["log", "state"] {
        std::thread::spawn(move || {
            let host = TestHost::new();
            let small = host.path().join(folder);
            let _mount = mount_small(&small, "size=2m");
            let ledger = host.start().unwrap();
            raise(&ledger, 0..3);
            let ballast = small.join("ballast");
            let full = fill(&ballast);
            assert_eq!(full, std::io::ErrorKind::StorageFull);
            let sender = ledger.sender().clone();
            let lane = std::thread::spawn(move || {
                for number in 3..3000 {
                    hand_over(&sender, commit([alert(number)]));
                }
            });
            let client = ledger.client();
            wait_until("the alarm is raised", || {
                client.report().alarms.iter().any(|alarm| alarm.contains("free space"))
            });
            assert_eq!(ledger.spooled(0)[..3], ids(0..3), "{folder}: requests are answered");
            wait_until("much is held", || client.report().alerts_buffered > 100);
            assert!(!lane.is_finished(), "{folder}: the lane waits");
            client.acknowledge("siem", 2);
            fs::remove_file(ballast).unwrap();
            // The rest needs more than the small disk has; it is made larger as an administrator would.
            let remount = format!("mount -o remount,size=64m {}", small.display());
            assert!(Command::new("sh").args(["-c", &remount]).status().unwrap().success());
            lane.join().unwrap();
            ledger.stop().unwrap();
            assert_eq!(host.logged(), ids(0..3000), "{folder}");
            assert_eq!(host.start().unwrap().spooled(2), ids(2..3000), "{folder}");
        })
        .join()
        .unwrap();
    }
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn alerts_that_a_full_disk_rejects_at_the_end_are_reported() {
    std::thread::spawn(|| {
        let host = TestHost::new();
        let small = host.path().join("log");
        let _mount = mount_small(&small, "size=1m");
        let ledger = host.start().unwrap();
        fill(&small.join("ballast"));
        hand_over(ledger.sender(), commit([alert(1), alert(2)]));
        let error = ledger.stop().unwrap_err().to_string();
        assert!(
            error.starts_with("2 alerts and 0 changes of state could not be kept: cannot be written"),
            "{error}"
        );
    })
    .join()
    .unwrap();
}

/// While the log's disk is full, a sink gets what is held from memory, once, and the log gets it when there is room.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn alerts_that_a_full_disk_rejects_are_delivered_from_memory() {
    for folder in ["log", "state", ""] {
        std::thread::spawn(move || {
            let host = TestHost::new();
            let small = host.path().join(folder);
            let _mount = mount_small(&small, "size=2m");
            let ledger = host.start().unwrap();
            raise(&ledger, 0..3);
            let ballast = small.join("ballast");
            fill(&ballast);
            let room = fs::metadata(&ballast).unwrap().len();
            // More than the small disk has had.
            let count = 3 + 2 * (2 << 20) / alert(0).json.len() as u64;
            (3..count).for_each(|number| hand_over(ledger.sender(), commit([alert(number)])));
            let (client, mut after, mut delivered) = (ledger.client(), 0, Vec::new());
            wait_until("a sink has all", || {
                let some = crate::testing::block_on(client.read(after, 50, usize::MAX)).unwrap_or_default();
                if let Some(last) = some.last() {
                    after = last.sequence;
                    client.acknowledge("siem", after);
                }
                delivered.extend(some.into_iter().map(|alert| alert.id));
                delivered.len() as u64 >= count
            });
            assert_eq!(delivered, ids(0..count), "{folder}: in their order");
            let report = client.report();
            assert!(
                report.alerts_from_memory > 10 && !report.alarms.is_empty(),
                "{folder}, {room}: {report:?}"
            );
            fs::remove_file(ballast).unwrap();
            let remount = format!("mount -o remount,size=64m {}", small.display());
            assert!(Command::new("sh").args(["-c", &remount]).status().unwrap().success());
            wait_until("the disk has all", || client.report().alerts_buffered == 0);
            raise(&ledger, count..count + 2);
            assert_eq!(ledger.spooled(after), ids(count..count + 2), "{folder}: nothing comes again");
            ledger.stop().unwrap();
            assert_eq!(host.logged(), ids(0..count + 2), "{folder}");
            assert_eq!(host.start().unwrap().spooled(after), ids(count..count + 2), "{folder}");
        })
        .join()
        .unwrap();
    }
}

/// A state disk that is full does not stop the log, however much comes.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_full_state_disk_does_not_block_the_log() {
    std::thread::spawn(|| {
        let host = TestHost::new();
        let small = host.path().join("state");
        let _mount = mount_small(&small, "size=1m");
        let ledger = host.start().unwrap();
        raise(&ledger, 0..3);
        fill(&small.join("ballast"));
        let count = 3 * HELD_BYTES_MAX as u64 / alert(0).json.len() as u64;
        (3..count).for_each(|number| hand_over(ledger.sender(), commit([alert(number)])));
        wait_until("all are logged", || ledger.client().report().alerts_written == count);
        assert!(ledger.client().report().buffered_bytes < HELD_BYTES_MAX as u64);
        // The log has them all, and the next run reads them there.
        ledger.stop().unwrap();
        fs::remove_file(small.join("ballast")).unwrap();
        assert_eq!(host.logged(), ids(0..count));
    })
    .join()
    .unwrap();
}

/// When memory is full, alerts that every sink has delivered are evicted: a full disk never stops rules for long.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn delivered_alerts_are_evicted_when_memory_is_full() {
    std::thread::spawn(|| {
        let host = TestHost::new();
        let small = host.path().join("log");
        let _mount = mount_small(&small, "size=1m");
        let ledger = host.start().unwrap();
        raise(&ledger, 0..3);
        fill(&small.join("ballast"));
        let (sender, client) = (ledger.sender().clone(), ledger.client().clone());
        let count = 2 * HELD_BYTES_MAX as u64 / alert(0).json.len() as u64;
        let lane = std::thread::spawn(move || {
            (3..count).for_each(|number| hand_over(&sender, commit([alert(number)])));
        });
        let (mut after, mut delivered) = (0, Vec::new());
        wait_until("a sink has all", || {
            let some = crate::testing::block_on(client.read(after, 50, usize::MAX)).unwrap_or_default();
            if let Some(last) = some.last() {
                after = last.sequence;
                client.acknowledge("siem", after);
            }
            delivered.extend(some.into_iter().map(|alert| alert.id));
            delivered.len() as u64 >= count
        });
        lane.join().unwrap();
        assert_eq!(delivered, ids(0..count));
        let report = client.report();
        assert!(report.alerts_not_logged > 0, "{report:?}");
        assert!(report.buffered_bytes <= HELD_BYTES_MAX as u64 + (1 << 20), "{report:?}");
        fs::remove_file(small.join("ballast")).unwrap();
        let remount = format!("mount -o remount,size=64m {}", small.display());
        assert!(Command::new("sh").args(["-c", &remount]).status().unwrap().success());
        wait_until("the disk has the rest", || client.report().alerts_buffered == 0);
        assert_eq!(host.logged().len() as u64, count - report.alerts_not_logged);
        drop(client);
        raise(&ledger, count..count + 2);
        assert_eq!(ledger.spooled(after), ids(count..count + 2), "numbers are not given twice");
        ledger.stop().unwrap();
    })
    .join()
    .unwrap();
}

/// A full disk does not prevent the start: the state of an earlier run is still there.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn an_agent_starts_on_a_full_disk() {
    for (folder, has_run) in [("state", false), ("state", true), ("log", true)] {
        std::thread::spawn(move || {
            let host = TestHost::new();
            let small = host.path().join(folder);
            let _mount = mount_small(&small, "size=1m");
            if has_run {
                let ledger = host.start().unwrap();
                raise(&ledger, 0..3);
                ledger.stop().unwrap();
            }
            fill(&small.join("ballast"));
            let ledger = host.start().unwrap_or_else(|error| panic!("{folder} {has_run}: {error:#}"));
            let known = if has_run { 3 } else { 0 };
            assert_eq!(ledger.spooled(0), ids(0..known), "{folder} {has_run}");
            hand_over(ledger.sender(), commit([alert(3)]));
            wait_until("a sink gets it", || ledger.spooled(known as i64) == ids(3..4));
            fs::remove_file(small.join("ballast")).unwrap();
            wait_until("all is durable", || ledger.client().report().alerts_buffered == 0);
            ledger.stop().unwrap();
            let expected = if has_run { ids(0..4) } else { ids(3..4) };
            assert_eq!(host.logged(), expected, "{folder} {has_run}");
            assert_eq!(host.start().unwrap().spooled(0), expected, "{folder} {has_run}");
        })
        .join()
        .unwrap();
    }
}

/// A store that is damaged while the agent runs is replaced too.
#[test]
fn a_store_that_is_damaged_at_run_time_is_replaced() {
    let host = TestHost::new();
    let ledger = host.start().unwrap();
    // More than SQLite has in memory.
    raise(&ledger, 0..200);
    ledger.client().acknowledge("siem", 20);
    raise(&ledger, 200..201);
    let store = host.state_dir().join("lapwing.db");
    for end in ["", "-wal"] {
        let file = store.with_file_name(format!("lapwing.db{end}"));
        let bytes = vec![0xa5; fs::metadata(&file).unwrap().len() as usize];
        let mut open = fs::OpenOptions::new().write(true).open(&file).unwrap();
        std::io::Write::write_all(&mut open, &bytes).unwrap();
    }
    for number in 201..300 {
        hand_over(ledger.sender(), commit([alert(number)]));
    }
    wait_until("it is put away", || {
        let _ = crate::testing::block_on(ledger.client().read(20, usize::MAX, usize::MAX));
        ledger.client().report().alarms.iter().any(|alarm| alarm.contains("put away"))
    });
    wait_until("all is durable", || ledger.client().report().alerts_buffered == 0);
    let cursor = crate::testing::block_on(ledger.client().cursor("siem")).unwrap();
    assert_eq!(cursor, 20, "the sink keeps its place");
    let left = ledger.spooled(cursor);
    assert!(ids(20..300).iter().all(|id| left.contains(id)), "{left:?}");
    ledger.stop().unwrap();
    assert_eq!(host.logged(), ids(0..300));
    assert!(store.with_file_name("lapwing.db.damaged").exists());
}

fn fill(ballast: &Path) -> std::io::ErrorKind {
    let mut file = fs::File::create(ballast).unwrap();
    loop {
        if let Err(error) = std::io::Write::write_all(&mut file, &[0; 512]) {
            return error.kind();
        }
    }
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn an_unwritable_folder_is_reported_with_a_hint() {
    for (folder, expected) in [("log", "check `alerts.path`"), ("state", "check `state_dir`")] {
        std::thread::spawn(move || {
            let host = TestHost::new();
            let _mount = mount_small(&host.path().join(folder), "size=1m,ro");
            let error = format!("{:#}", host.start().err().unwrap());
            assert!(error.contains(expected) && error.contains("Read-only file system"), "{error}");
        })
        .join()
        .unwrap();
    }
}
