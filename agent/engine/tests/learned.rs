//! What rules learn is bounded in bytes, however long and however many the texts are, and no actor pushes out what another
//! one's events taught. Rows of earlier versions are taken over.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::sync::Arc;

use lapwing_engine::detect::Change;
use lapwing_engine::{Engine, Event, Loaded, Options, Output, Schema, StateChange};
use serde_json::{Value as Json, json};

const NEW_TERMS: &str = r#"
    [rule]
    rule_id = "terms"
    name = "New command line"
    description = "d"
    severity = "low"
    type = "new_terms"
    max_signals = 1000
    query = "event.category: process"
    [rule.new_terms]
    field = "new_terms_fields"
    value = ["process.command_line"]
    [[rule.new_terms.history_window_start]]
    field = "history_window_start"
    value = "now-14d"
"#;

const RARE: &str = r#"
    [rule]
    rule_id = "rare"
    name = "Rare error"
    description = "d"
    severity = "low"
    type = "machine_learning"
    anomaly_threshold = 50
    machine_learning_job_id = "job"
    [job]
    id = "job"
    description = "errors that are rare"
    function = "rare"
    by_field_name = "aws.cloudtrail.error_code"
    bucket_span = "15m"
    query = "event.category: iam"
"#;

fn engine(rule: &str) -> Engine {
    let mut schema = Schema::new();
    let loaded = Loaded::read([("rule.toml", rule.as_bytes())], &mut schema);
    assert_eq!(loaded.rules.len(), 1, "{:?}", loaded.reports);
    Engine::new(Arc::new(schema), &loaded.rules, Options::default())
}

fn push(engine: &mut Engine, event: &Json, output: &mut Output) {
    let event = Event::from_json(engine.schema(), event).unwrap();
    engine.push(event, output);
}

fn exec(seconds: i64, user: &str, line: &str) -> Json {
    json!({
        "@timestamp": seconds * 1000, "event.category": "process",
        "process.real_user.id": user, "process.command_line": line,
    })
}

/// The rows after these changes.
fn rows(changes: &[StateChange]) -> Vec<(String, Vec<u8>)> {
    let mut rows = std::collections::BTreeMap::new();
    for StateChange { change: Change { key, value }, .. } in changes {
        match value {
            Some(value) => drop(rows.insert(key.clone(), value.clone())),
            None => drop(rows.remove(key)),
        }
    }
    rows.into_iter().collect()
}

fn bytes(rows: &[(String, Vec<u8>)]) -> usize {
    rows.iter().map(|(key, value)| key.len() + value.len()).sum()
}

#[test]
fn long_command_lines_are_learned_in_few_bytes() {
    let (mut engine, mut output) = (engine(NEW_TERMS), Output::default());
    let line = |number: usize| format!("{number}{}", "A".repeat(46_000));
    for number in 0..300 {
        push(&mut engine, &exec(number as i64, "65534", &line(number)), &mut output);
    }
    assert_eq!(output.alerts.len(), 300);
    assert!(bytes(&rows(&output.changes)) < 300 * 200);
    assert!(engine.counters().learned_bytes < 300 * 200);
    output.alerts.clear();
    push(&mut engine, &exec(400, "65534", &line(7)), &mut output);
    assert!(output.alerts.is_empty());
}

#[test]
fn a_flood_of_command_lines_keeps_what_others_taught() {
    let (mut engine, mut output) = (engine(NEW_TERMS), Output::default());
    for number in 0..200 {
        push(&mut engine, &exec(number, "0", &format!("backup {number}")), &mut output);
    }
    for number in 0..30_000 {
        push(&mut engine, &exec(1000 + number, "65534", &number.to_string()), &mut output);
        output.alerts.clear();
    }
    assert!(engine.counters().discarded > 10_000, "{:?}", engine.counters());
    assert!(engine.counters().learned_bytes < 6 << 20);
    assert!(bytes(&rows(&output.changes)) < 8 << 20);
    for number in 0..200 {
        push(&mut engine, &exec(70_000, "0", &format!("backup {number}")), &mut output);
    }
    assert_eq!(output.alerts.len(), 0);
}

#[test]
fn terms_of_earlier_versions_are_taken_over() {
    let (mut engine, mut output) = (engine(NEW_TERMS), Output::default());
    let long = "x".repeat(50_000);
    let nanos = (10_i64 * 1_000_000_000).to_string();
    let mut changes = Vec::new();
    for term in ["short", &long] {
        let key = format!("term:{term}");
        let moved = engine.restore("terms", &key, nanos.as_bytes());
        assert_eq!(moved[0].change, Change { key, value: None });
        changes.extend(moved);
    }
    let mut restored = self::engine(NEW_TERMS);
    let rows = rows(&changes);
    assert_eq!(rows.len(), 2);
    for (key, value) in &rows {
        assert_eq!(restored.restore("terms", key, value), []);
    }
    for engine in [&mut engine, &mut restored] {
        for term in ["short", &long] {
            push(engine, &exec(20, "0", term), &mut output);
        }
        assert_eq!(output.alerts.len(), 0);
        push(engine, &exec(20, "0", "other"), &mut output);
        assert_eq!(output.alerts.drain(..).count(), 1);
    }
}

fn call(number: usize, parameters: usize, account: &str) -> Json {
    json!({
        "@timestamp": number as i64, "event.category": "iam", "event.action": "Cmd",
        "cloud.account.id": account,
        "user.name": format!("u{}", number % 50),
        "aws.cloudtrail.error_code": format!("{account}-{number}"),
        "aws.cloudtrail.request_parameters": "p".repeat(parameters),
        "unknown.to.the.schema": "q".repeat(parameters),
    })
}

#[test]
fn examples_of_open_buckets_are_bounded() {
    let (mut engine, mut output) = (engine(RARE), Output::default());
    for number in 0..1500 {
        push(&mut engine, &call(number, 95_000, "a"), &mut output);
    }
    let (rows, counters) = (rows(&output.changes), engine.counters());
    assert!(bytes(&rows) < 6 << 20, "{}", bytes(&rows));
    assert!(counters.learned_bytes < 8 << 20, "{counters:?}");
    let longest = rows.iter().map(|(_, value)| value.len()).max().unwrap_or(0);
    assert!(longest < 6000, "{longest}");
    // Many small ones: they find no room, which is counted, and another account still has some.
    for number in 2000..40_000 {
        push(&mut engine, &call(number, 0, "a"), &mut output);
    }
    let before = engine.counters();
    assert!(before.discarded > 10_000 && before.learned_bytes < 16 << 20, "{before:?}");
    push(&mut engine, &call(40_000, 0, "b"), &mut output);
    assert_eq!(engine.counters().discarded, before.discarded);
    assert!(engine.counters().learned_bytes > before.learned_bytes);
    let mut restored = self::engine(RARE);
    let rows = self::rows(&output.changes);
    let changed: Vec<_> = rows.iter().flat_map(|(key, value)| restored.restore("rare", key, value)).collect();
    assert_eq!(changed.len(), 0, "{changed:?}");
    assert_eq!(restored.counters().learned_bytes, engine.counters().learned_bytes);
}

#[test]
fn large_rows_of_earlier_versions_are_shortened() {
    let mut engine = engine(RARE);
    let value = "v".repeat(3000);
    let mut event = call(1, 90_000, "a");
    event["aws.cloudtrail.error_code"] = value.clone().into();
    let old = format!("job\u{1e}open:0\u{1f}\u{1f}{value}");
    let changes = engine.restore("rare", &old, event.to_string().as_bytes());
    assert_eq!(changes[0].change, Change { key: old, value: None });
    let new = &changes[1].change;
    assert!(new.key.len() < 300 && new.value.as_ref().unwrap().len() < 6000, "{new:?}");
    let too_long = engine.restore("rare", "job\u{1e}open:0\u{1f}\u{1f}z", "z".repeat(1 << 20).as_bytes());
    assert!(too_long.len() == 1 && too_long[0].change.value.is_none());
    assert_eq!(engine.counters().discarded, 1);
}
