//! Files that are and are not the program that ran, found by the state of its process.

use std::fs;
use std::path::Path;

use lapwing_engine::{Engine, Event, Fields, Loaded, Options, Output, Timestamp, field};
use sha2::{Digest as _, Sha256};

use super::reader::read_now;
use super::work::complete;
use super::*;
use crate::digest::Hash;
use crate::program::{Descriptor, FileKey, Missing, Program, is_fresh};
use crate::testing::{TestHost, alert};

/// A program that ran from this file long ago; only its path is known.
fn ended(path: &Path) -> Program {
    Program {
        file: FileKey::of(&fs::metadata(path).unwrap()),
        is_fresh: false,
        running: Err(Missing::Gone),
        path: path.to_str().unwrap().into(),
        witnesses: vec![std::process::id()],
    }
}

fn running(path: &Path) -> Program {
    Program { running: Ok(Descriptor::open(path).unwrap().unwrap()), ..ended(path) }
}

fn outcome(program: &Program) -> Result<Hash, Missing> {
    read_now(program, Instant::now() + Duration::from_secs(60))
}

fn hash_of(bytes: &[u8]) -> Result<Hash, Missing> {
    Ok(Sha256::digest(bytes).into())
}

/// Longer than a clock tick, so that a change is visible.
fn pass_a_tick() {
    std::thread::sleep(Duration::from_millis(30));
}

#[test]
fn only_the_file_that_ran_is_hashed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("program");
    let fresh = || {
        let _ = fs::remove_file(&path);
        fs::write(&path, "ran").unwrap();
        pass_a_tick();
    };
    type Outcome = Result<Hash, Missing>;
    type Change = fn(&Path);
    let changes: [(&str, Change, Outcome, Outcome); 6] = [
        ("none", |_| (), hash_of(b"ran"), hash_of(b"ran")),
        ("written to", |path| fs::write(path, "new").unwrap(), Err(Missing::Other), Err(Missing::Other)),
        (
            "replaced by its like",
            |path| {
                fs::rename(path, path.with_extension("old")).unwrap();
                fs::write(path, "ran").unwrap();
            },
            Err(Missing::Other),
            Err(Missing::Other),
        ),
        (
            "replaced by a pipe",
            |path| {
                fs::remove_file(path).unwrap();
                nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
            },
            Err(Missing::Other),
            Err(Missing::Other),
        ),
        (
            "replaced by a link",
            |path| {
                fs::remove_file(path).unwrap();
                std::os::unix::fs::symlink("/bin/true", path).unwrap();
            },
            Err(Missing::Other),
            Err(Missing::Other),
        ),
        ("removed", |path| fs::remove_file(path).unwrap(), Err(Missing::Gone), Err(Missing::Other)),
    ];
    for (what, change, after_end, while_it_runs) in changes {
        fresh();
        let (ended, running) = (ended(&path), running(&path));
        change(&path);
        assert_eq!(outcome(&ended), after_end, "{what}");
        assert_eq!(outcome(&running), while_it_runs, "{what}, while it runs");
    }
}

#[test]
fn a_file_changed_within_a_tick_is_not_hashed_after_the_process_ended() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let program = Program { is_fresh: true, ..ended(file.path()) };
    assert_eq!(outcome(&program), Err(Missing::Fresh));
    assert_eq!(outcome(&Program { is_fresh: true, ..running(file.path()) }), hash_of(b""));
    for (changed, at, expected) in [
        (1_500_000_000, 1_510_000_000, true),
        (1_500_000_000, 1_530_000_000, false),
        (1_500_000_000, 1_400_000_000, true),
        (1_000_000_000, 2_500_000_000, true),
        (1_000_000_000, 3_500_000_000, false),
    ] {
        assert_eq!(is_fresh(changed, at), expected, "{changed} {at}");
    }
}

#[test]
fn files_are_read_up_to_their_limits() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(FILE_BYTES_MAX + 1).unwrap();
    assert_eq!(outcome(&running(file.path())), Err(Missing::Large));
    file.as_file().set_len(1 << 20).unwrap();
    let program = running(file.path());
    assert_eq!(read_now(&program, Instant::now()), Err(Missing::Time));
    let mut doubtful = running(file.path());
    doubtful.file.changed = None;
    assert_eq!(outcome(&doubtful), Err(Missing::Doubtful));
}

#[test]
fn an_alert_has_a_reason_for_each_missing_hash() {
    let mut context = Context { ancestors: vec![Fields::new(), Fields::new()], ..Context::default() };
    complete(&mut context, &[hash_of(b""), Err(Missing::Large), hash_of(b"x")]);
    let text = |fields: &Fields, id| fields.get(id).map(|value| value.to_text().into_owned());
    let skipped = field!("lapwing.process.hash_skipped");
    assert_eq!(text(&context.fields, field!("lapwing.process.context")).as_deref(), Some("partial"));
    assert_eq!(text(&context.fields, skipped), None);
    assert_eq!(text(&context.ancestors[0], skipped).as_deref(), Some("larger than 64 MiB"));
    assert_eq!(text(&context.ancestors[1], field!("process.hash.sha256")).map(|hash| hash.len()), Some(64));
}

#[test]
fn the_last_program_is_the_script() {
    for (outcome, expected, missing) in [
        (hash_of(b"#!"), Some(64), None),
        (Err(Missing::Doubtful), None, Some("cannot be distinguished from other files")),
    ] {
        let mut context = Context { ancestors: vec![Fields::new()], ..Context::default() };
        complete(&mut context, &[hash_of(b""), hash_of(b"x"), outcome]);
        let text = |id| context.fields.get(id).map(|value| value.to_text().into_owned());
        let hash = text(field!("lapwing.process.script.hash.sha256"));
        assert_eq!(hash.map(|hash| hash.len()), expected);
        assert_eq!(text(field!("lapwing.process.script.hash_skipped")).as_deref(), missing);
    }
}

#[test]
fn every_reason_has_a_counter() {
    for (index, missing) in Missing::ALL.into_iter().enumerate() {
        assert_eq!(missing as usize, index, "{}", missing.name());
    }
}

const RULE: &str = r#"
[rule]
author = ["Lapwing"]
description = "Every program."
index = ["logs-endpoint.events.*"]
language = "eql"
name = "Every program"
risk_score = 1
rule_id = "a9a3d1c2-6a44-4b0e-9b6b-6c7c8f6d2a10"
severity = "low"
type = "eql"
query = '''process where event.action == "exec"'''
"#;

/// Alerts about this many programs, each of which ran from this file.
fn raised(schema: &mut Schema, programs: usize, file: &Path) -> Vec<PendingAlert> {
    let loaded = Loaded::read([("rule.toml", RULE.as_bytes())], schema);
    let mut engine = Engine::new(Arc::new(schema.clone()), &loaded.rules, Options::default());
    let mut output = Output::default();
    for number in 0..programs {
        let mut fields = Fields::new();
        fields.set(field!("event.category"), "process");
        fields.set(field!("event.action"), "exec");
        fields.set(field!("event.id"), number.to_string());
        let time = Timestamp::from_nanos(1_000_000_000 * (number as i64 + 1));
        engine.push(Arc::new(Event::new(time, fields, Vec::new())), &mut output);
    }
    let items = output.alerts.into_iter().map(|alert| {
        let context = Context { programs: vec![Ok(running(file))], ..Context::default() };
        PendingAlert::Raised(Box::new(Raised { alert, context, lost_records: None }))
    });
    items.collect()
}

#[test]
fn alerts_are_written_once_in_order_with_evidence_or_a_reason() {
    let host = TestHost::new();
    let ledger = host.start().unwrap();
    let mut schema = Schema::new();
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(1 << 20).unwrap();
    pass_a_tick();
    // More than may wait for their evidence, and then a complete one.
    let mut deliveries: Vec<_> = raised(&mut schema, 2 * ALERTS_WAITING_MAX, file.path())
        .into_iter()
        .map(|item| Delivery::new(vec![item], Checkpoint::default()))
        .collect();
    let raised: Vec<_> = deliveries.iter().map(|delivery| id_of_item(&delivery.alerts[0])).collect();
    let last = alert(1);
    let expected: Vec<_> = raised.into_iter().chain([last.id.clone()]).collect();
    deliveries.push(Delivery::new(vec![PendingAlert::Document(last)], Checkpoint::default()));
    let stage = Stage::start(Arc::new(schema), ledger.sender().clone()).unwrap();
    for delivery in deliveries {
        let mut waiting = Some(delivery);
        while let Some(delivery) = waiting.take() {
            waiting = stage.offer(delivery, Duration::from_secs(1)).unwrap();
        }
    }
    stage.finish().unwrap();
    ledger.stop().unwrap();
    assert_eq!(host.logged(), expected);
    let log = fs::read_to_string(&host.alerts.path).unwrap();
    let has_outcome = |line: &&str| line.contains("sha256") != line.contains("hash_skipped");
    assert_eq!(log.lines().filter(has_outcome).count(), expected.len());
    assert!(expected.len() > ALERTS_WAITING_MAX);
}

fn id_of_item(item: &PendingAlert) -> String {
    match item {
        PendingAlert::Document(document) => document.id.clone(),
        PendingAlert::Raised(raised) => raised.alert.id.clone(),
    }
}
