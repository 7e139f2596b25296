//! Rules and recordings with every kind of error: each error is reported by name, and the rest runs.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value as Json, json};

use crate::LAPWING;

/// Number of rules in the folder, and the number per broken one.
const RULES: usize = 5000;
const BROKEN_EVERY: usize = 100;

#[test]
fn fifty_broken_rules_of_five_thousand_are_reported() {
    let folder = tempfile::tempdir().expect("a folder");
    write_rules(folder.path());
    let broken = RULES / BROKEN_EVERY;
    let output = lapwing(&["check", "--json", "--rules"], folder.path());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let found: Json = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&found["loaded"], &found["refused"]), (&json!(RULES - broken), &json!(broken)));

    let recording = folder.path().join("recording.ndjson");
    let event = json!({"@timestamp": "2026-01-01T00:00:00Z", "event": {"category": "process"},
        "process": {"name": "name1234"}});
    fs::write(&recording, event.to_string()).expect("a file");
    let recording = recording.display().to_string();
    let output = lapwing(&["replay", "--json", &recording, "--rules"], folder.path());
    let alerts = String::from_utf8(output.stdout).expect("text");
    let ids: Vec<_> = alerts
        .lines()
        .map(|line| serde_json::from_str::<Json>(line).expect("JSON")["rule"]["id"].clone())
        .collect();
    assert_eq!(ids, ["id1234"], "{}", String::from_utf8_lossy(&output.stderr));
}

/// Rules that differ in a name, some of them broken in one of ten ways.
fn write_rules(folder: &Path) {
    for number in 0..RULES {
        let rule = |id: String, query: &str| {
            format!(
                "[rule]\nrule_id = \"{id}\"\nname = \"Rule {number}\"\ndescription = \"d\"\nseverity = \"low\"\n\
                 index = [\"logs-*\"]\ntype = \"eql\"\nquery = '''\n{query}\n'''\n"
            )
        };
        let id = format!("id{number}");
        let query = format!("process where process.name == \"name{number}\" and process.args_count != 3");
        let text = match (number % BROKEN_EVERY, number / BROKEN_EVERY % 10) {
            (0, 0) => "[rule".into(),
            (0, 1) => b"[rule]\nname = \"\xff\xfe\"\n".to_vec(),
            (0, 2) => rule("id1".to_owned(), &query).into(),
            (0, 3) => rule(id, "process where proces.name == \"a\"").into(),
            (0, 4) => rule(id, &format!("process where {}true", "(".repeat(100_000))).into(),
            (0, 5) => rule(id, &format!("sequence {}", "[process where true] ".repeat(1000))).into(),
            (0, 6) => rule(id, "process where process.name regex \"((a{1000}){1000}){1000}\"").into(),
            (0, 7) => rule(id, &format!("process where process.name == \"{}\"", "x".repeat(2 << 20))).into(),
            (0, 8) => Vec::new(),
            (0, 9) => format!("{}threshhold = 1\n", rule(id, &query)).into(),
            _ => rule(id, &query).into(),
        };
        fs::write(folder.join(format!("rule{number:04}.toml")), text).expect("a file");
    }
}

#[test]
fn valid_events_of_a_damaged_recording_are_replayed() {
    let folder = tempfile::tempdir().expect("a folder");
    let rule = "[rule]\nrule_id = \"any\"\nname = \"Any\"\ndescription = \"d\"\nseverity = \"low\"\nindex = [\"logs-*\"]\n\
        type = \"query\"\nquery = \"event.id: *\"\n";
    fs::write(folder.path().join("any.toml"), rule).expect("a file");
    let event = |id: &str, more: &str| {
        format!("{{\"@timestamp\":\"2026-01-01T00:00:00Z\",\"event\":{{\"id\":\"{id}\"}}{more}}}\n")
            .into_bytes()
    };
    let deep = |start: &str, end: &str| format!(",\"a\":{}1{}", start.repeat(100_000), end.repeat(100_000));
    let lines: Vec<Vec<u8>> = vec![
        event("first", ""),
        event("deep", &deep("{\"a\":", "}")),
        event("list", &deep("[", "]")),
        event("dots", &format!(",\"{}\":1", "a.".repeat(100_000))),
        event("huge", &format!(",\"message\":\"{}\"", "x".repeat(3 << 20))),
        event("wide", &format!(",\"process\":{{\"args\":[{}\"\"]}}", "\"x\",".repeat(500_000))),
        event("number", ",\"process\":{\"pid\":1e999}"),
        event("large", ",\"process\":{\"pid\":18446744073709551616}"),
        event("surrogate", ",\"message\":\"\\ud800\""),
        [b"{\"message\":\"\xff\xfe\xc3".as_slice(), b"\"}\n"].concat(),
        event("twice", ",\"event\":{\"id\":\"last\"}"),
        b"null 17 \"text\" []\n".to_vec(),
        event("end", ""),
    ];
    let recording = folder.path().join("recording.ndjson");
    fs::write(&recording, lines.concat()).expect("a file");
    let recording = recording.display().to_string();
    let output = lapwing(&["replay", "--json", &recording, "--rules"], folder.path());
    let printed = String::from_utf8_lossy(&output.stderr);
    let alerts = String::from_utf8(output.stdout.clone()).expect("text");
    let documents = alerts.lines().map(|line| serde_json::from_str::<Json>(line).expect("JSON"));
    let ids: Vec<_> =
        documents.map(|alert| alert["lapwing"]["alert"]["events"][0]["event"]["id"].clone()).collect();
    assert_eq!(ids, ["first", "huge", "wide", "large", "last", "end"], "{printed}");
    assert_eq!(output.status.code(), Some(1));
    for part in ["nested more than 64 deep", "out of range", "recursion limit", "events could not be read"] {
        assert!(printed.contains(part), "{part} is not in {printed}");
    }
}

fn lapwing(arguments: &[&str], rules: &Path) -> Output {
    let mut command = Command::new(LAPWING);
    command.args(arguments).arg(rules).stdin(Stdio::null()).env_remove("RUST_BACKTRACE");
    command.output().expect("the program")
}
