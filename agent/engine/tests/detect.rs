//! What detectors find in streams of events.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::collections::BTreeMap;
use std::time::Duration;

use lapwing_engine::{Alert, Cause, Engine, Event, Loaded, Options, Output, Schema, field};
use serde_json::{Value as Json, json};

const NEW_TERMS: &str = r#"
    type = "new_terms"
    query = 'event.category: process'
    [rule.new_terms]
    field = "new_terms_fields"
    value = ["host.id", "user.id"]
    [[rule.new_terms.history_window_start]]
    field = "history_window_start"
    value = "now-7d"
"#;

const RARE: &str = r#"
    type = "machine_learning"
    machine_learning_job_id = "job"
    anomaly_threshold = 50
    [job]
    id = "job"
    description = "actions that are rare in a country"
    function = "rare"
    by_field_name = "event.action"
    partition_field_name = "source.geo.country_iso_code"
    bucket_span = "15m"
    query = 'event.dataset: aws.cloudtrail'
"#;

#[test]
fn sequences() {
    let text = include_str!("sequences.txt");
    let mut failed = Vec::new();
    for block in text.split("\n\n").map(str::trim).filter(|block| !block.starts_with('#')) {
        let mut lines = block.lines();
        let (title, query, events) = (lines.next().unwrap(), lines.next().unwrap(), lines.next().unwrap());
        let expected: Vec<_> = lines.map(|line| line.trim_start_matches("> ").to_owned()).collect();
        let found = sequence_alerts(query, events);
        if found != expected {
            failed.push(format!("{title}: expected {expected:?}, found {found:?}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn streams() {
    let text = include_str!("streams.txt");
    let mut failed = Vec::new();
    for block in text.split("\n\n").map(str::trim).filter(|block| !block.starts_with('#')) {
        let (title, rest) = block.split_once('\n').unwrap();
        let (query, rest) = rest.split_at(rest.find("\n{").unwrap());
        let (events, alerts): (Vec<_>, Vec<_>) = rest.trim().lines().partition(|line| line.starts_with('{'));
        let expected: Vec<_> = alerts.iter().map(|line| line.trim_start_matches("> ").to_owned()).collect();
        let found = stream_alerts(query, &events);
        if found != expected {
            failed.push(format!("{title}: expected {expected:?}, found {found:?}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

fn stream_alerts(query: &str, events: &[&str]) -> Vec<String> {
    let lines = format!("type = 'eql'\nquery = '''\n{query}'''");
    let mut engine = engine(&lines, Options { lateness: Duration::from_secs(1), ..Options::default() });
    let mut output = Output::default();
    for (index, event) in events.iter().enumerate() {
        let mut event: Json = serde_json::from_str(event).unwrap();
        event["@timestamp"] = ((index + 1) * 1000).into();
        event["event.id"] = (index + 1).to_string().into();
        push(&mut engine, event, &mut output);
    }
    engine.finish(&mut output);
    output.alerts.iter().map(names).collect()
}

#[test]
fn processes_with_descendants_are_bounded() {
    let rule = "type = 'eql'\nquery = 'process where child of [process where true]'";
    let mut engine = engine(rule, Options::default());
    let mut output = Output::default();
    for number in 0..70_000_i64 {
        let event = json!({"@timestamp": number, "event.category": "process", "process.entity_id": number.to_string()});
        push(&mut engine, event, &mut output);
    }
    let counters = engine.counters();
    assert!(counters.discarded > 0 && counters.state_bytes <= 8 << 20, "{counters:?}");
    assert!(output.dropped.is_none(), "no half match was given up");
}

fn sequence_alerts(query: &str, events: &str) -> Vec<String> {
    let mut engine = engine(&format!("type = 'eql'\nquery = '''\n{query}'''"), Options::default());
    let mut output = Output::default();
    for name in events.split(' ') {
        let (category, rest) = name.split_once('@').unwrap();
        let (seconds, key) = rest.split_once('/').map_or((rest, None), |(seconds, key)| (seconds, Some(key)));
        let mut event = json!({"@timestamp": seconds.parse::<i64>().unwrap() * 1000, "event.category": category,
            "event.id": name});
        if let Some(key) = key {
            event["user.id"] = key.split('+').collect();
        }
        push(&mut engine, event, &mut output);
    }
    engine.finish(&mut output);
    output.alerts.iter().map(names).collect()
}

fn names(alert: &Alert) -> String {
    let Cause::Detection(finding) = &alert.cause else { return "suppressed".to_owned() };
    let name = |event: &Event| event.text(field!("event.id")).unwrap_or_default().to_owned();
    let names: Vec<_> = finding
        .events
        .iter()
        .map(|event| event.as_ref().map_or("_".to_owned(), |event| name(event)))
        .collect();
    names.join(" ")
}

#[test]
fn late_events_take_their_place_within_the_lateness() {
    let rule = "type = 'eql'\nquery = 'sequence [a where true] [b where true]'";
    let event = |category, seconds: i64| json!({"@timestamp": seconds * 1000, "event.category": category, "event.id": category});
    for (lateness, alerts) in [(0, 0), (5, 1)] {
        let mut engine =
            engine(rule, Options { lateness: Duration::from_secs(lateness), ..Options::default() });
        let mut output = Output::default();
        for event in [event("b", 3), event("a", 1), event("z", 100)] {
            push(&mut engine, event, &mut output);
        }
        assert_eq!(output.alerts.len(), alerts, "lateness {lateness}");
    }
}

#[test]
fn sequences_are_bounded() {
    let rule = "type = 'eql'\nquery = 'sequence by user.id [a where true] [b where true]'";
    let mut engine = engine(rule, Options::default());
    let mut output = Output::default();
    for number in 0..100_000_i64 {
        let event = json!({"@timestamp": number, "event.category": "a", "user.id": number.to_string()});
        push(&mut engine, event, &mut output);
    }
    let counters = engine.counters();
    assert!(counters.discarded > 0 && counters.sequence_bytes <= 12 << 20, "{counters:?}");
}

#[test]
fn a_term_is_new_once_in_its_window_and_over_restarts() {
    let process = |day: i64, user: &str| json!({"@timestamp": day * 86_400_000, "event.category": "process", "host.id": "h", "user.id": user});
    let mut first = engine(NEW_TERMS, Options::default());
    let mut output = Output::default();
    for (day, user, alerts) in [(1, "0", 1), (1, "0", 1), (2, "1", 2), (7, "0", 2)] {
        push(&mut first, process(day, user), &mut output);
        assert_eq!(output.alerts.len(), alerts, "day {day} user {user}");
    }
    // The sighting of day 7 prolonged it; user 1 was last seen on day 2.
    let mut second = engine(NEW_TERMS, Options::default());
    restore(&mut second, &output);
    for (day, user, alerts) in [(10, "0", 2), (10, "1", 3), (18, "0", 4)] {
        push(&mut second, process(day, user), &mut output);
        assert_eq!(output.alerts.len(), alerts, "day {day} user {user} after the restart");
    }
    let Cause::Detection(finding) = &output.alerts[0].cause else { panic!("no detection") };
    assert_eq!(finding.new_terms, ["h".into(), "0".into()]);
}

#[test]
fn terms_of_the_learning_period_raise_no_alert() {
    let mut engine = engine(NEW_TERMS, Options { learn: Duration::from_secs(3600), ..Options::default() });
    let mut output = Output::default();
    for (minute, user, alerts) in [(0, "0", 0), (30, "1", 0), (60, "2", 1), (61, "1", 1)] {
        let event = json!({"@timestamp": minute * 60_000, "event.category": "process", "host.id": "h", "user.id": user});
        push(&mut engine, event, &mut output);
        assert_eq!(output.alerts.len(), alerts, "minute {minute} user {user}");
    }
}

#[test]
fn a_rare_action_of_a_known_country_is_found() {
    let call = |bucket: i64, country: &str, action: &str| {
        json!({"@timestamp": bucket * 900_000, "event.dataset": "aws.cloudtrail", "event.action": action,
            "source.geo.country_iso_code": country, "event.id": format!("{bucket}{country}{action}")})
    };
    let history = |engine: &mut Engine, output: &mut Output| {
        for bucket in 0..40 {
            for action in 0..12 {
                push(engine, call(bucket, "DE", &format!("Describe{action}")), output);
            }
        }
    };
    let mut first = engine(RARE, Options::default());
    let mut output = Output::default();
    history(&mut first, &mut output);
    let mut second = engine(RARE, Options::default());
    restore(&mut second, &output);
    // A country without a history raises no alert; one with a history raises an alert for what is new in it.
    for engine in [&mut first, &mut second] {
        let mut output = Output::default();
        push(engine, call(40, "KP", "StopLogging"), &mut output);
        push(engine, call(41, "DE", "StopLogging"), &mut output);
        engine.finish(&mut output);
        assert_eq!(output.alerts.len(), 1);
        let Cause::Detection(finding) = &output.alerts[0].cause else { panic!("no detection") };
        let anomaly = finding.anomaly.as_ref().unwrap();
        assert_eq!(
            (anomaly.by_value.as_deref(), anomaly.partition_value.as_deref()),
            (Some("StopLogging"), Some("DE"))
        );
        assert_eq!(anomaly.buckets_learned, 40);
        assert!(anomaly.record_score > 50.0 && anomaly.probability < 0.0026, "{anomaly:?}");
    }
}

#[test]
fn too_many_alerts_become_one_that_counts_them() {
    let mut engine =
        engine("type = 'query'\nquery = 'event.category: a'\nmax_signals = 3", Options::default());
    let mut output = Output::default();
    for second in 0..10 {
        push(&mut engine, json!({"@timestamp": second * 1000, "event.category": "a"}), &mut output);
    }
    push(&mut engine, json!({"@timestamp": 400_000, "event.category": "a"}), &mut output);
    let kinds: Vec<_> =
        output.alerts.iter().map(|alert| matches!(alert.cause, Cause::Suppressed(_))).collect();
    assert_eq!(kinds, [false, false, false, true, false]);
    let Cause::Suppressed(suppressed) = &output.alerts[3].cause else { panic!("no summary") };
    assert_eq!(suppressed.count, 7);
}

/// What a program does, as the sensor reports it.
fn act(category: &str, user: &str, executable: &str, id: i64, millis: i64) -> Json {
    json!({"@timestamp": millis, "event.category": category, "user.id": user, "process.executable": executable,
        "process.entity_id": format!("{executable} {id}")})
}

#[test]
fn the_act_of_another_user_is_reported_behind_decoys_of_any_kind() {
    let query = "type = 'eql'\nquery = 'a where true'\nmax_signals = 100";
    let decoys: [fn(i64) -> (String, String); 3] = [
        |_| ("/".to_owned(), "/tmp/decoy".to_owned()),
        |number| ("/".to_owned(), format!("/tmp/{number}")),
        |number| (format!("/{number}"), format!("/tmp/{number}")),
    ];
    for decoy in decoys {
        let mut engine = engine(query, Options::default());
        let mut output = Output::default();
        for number in 0..2_000 {
            let (group, executable) = decoy(number);
            let mut event = act("a", "65534", &executable, number, 1);
            event["lapwing.process.cgroup.path"] = group.into();
            push(&mut engine, event, &mut output);
        }
        assert!(output.alerts.len() <= 400, "{} alerts on decoys", output.alerts.len());
        push(&mut engine, act("a", "0", "/bin/sh", 0, 2), &mut output);
        assert!(
            output.alerts.last().unwrap().events().any(|event| event.text(field!("user.id")) == Some("0"))
        );
    }
}

#[test]
fn what_was_held_back_outlives_a_stop_and_a_kill() {
    let new = || engine("type = 'eql'\nquery = 'a where true'\nmax_signals = 2", Options::default());
    for (is_killed, seconds) in [(false, 10), (false, 1000), (true, 10)] {
        let (mut first, mut output) = (new(), Output::default());
        for number in 0..20 {
            push(&mut first, act("a", "65534", "/tmp/decoy", number, 1000), &mut output);
        }
        assert_eq!(first.counters().suppressed, 18);
        if is_killed {
            first.advance(lapwing_engine::Timestamp::from_millis(31_000), &mut output);
        } else {
            first.suspend(&mut output);
        }
        let (mut second, mut output) = (resumed(new(), &output), Output::default());
        second.advance(lapwing_engine::Timestamp::from_millis(seconds * 1000), &mut output);
        assert_eq!(output.alerts.len(), 1, "killed {is_killed}");
        let Cause::Suppressed(suppressed) = &output.alerts[0].cause else { panic!("no summary") };
        let row = &suppressed.held_back[0];
        assert_eq!((suppressed.count, row.count, row.act.user.as_deref()), (18, 18, Some("65534")));
        assert_eq!(row.act.executable.as_deref(), Some("/tmp/decoy"));
        assert!(
            output.changes.iter().all(|change| change.change.value.is_none()) && !output.changes.is_empty()
        );
    }
}

/// The engine, with what another one wanted kept.
fn resumed(mut engine: Engine, output: &Output) -> Engine {
    restore(&mut engine, output);
    engine
}

#[test]
fn a_half_match_stands_behind_any_number_of_fat_ones_of_others() {
    let rule =
        "type = 'eql'\nquery = 'sequence by process.entity_id with maxspan=1m [a where true] [b where true]'";
    let fat = ["x".repeat(45_000)];
    for (user, executable) in [("65534", "/bin/late"), ("0", "/bin/quick")] {
        let mut engine = engine(rule, Options::default());
        let mut output = Output::default();
        push(&mut engine, act("a", user, executable, -1, 0), &mut output);
        // So many take more than all rules may hold.
        for number in 0..400 {
            let mut event = act("a", "65534", "/bin/quick", number, 1);
            event["process.args"] = json!(fat);
            push(&mut engine, event, &mut output);
        }
        let counters = engine.counters();
        assert!(counters.dropped > 20 && counters.sequence_bytes <= 3 << 20, "{counters:?}");
        assert_eq!(output.dropped.as_ref().unwrap().count, counters.dropped);
        push(&mut engine, act("b", user, executable, -1, 2), &mut output);
        assert_eq!(output.alerts.len(), 1, "{user} {executable}");
        assert_eq!(output.alerts[0].dropped, counters.dropped, "it says that evidence was dropped");
    }
}

#[test]
fn a_noisy_rule_leaves_room_to_the_others() {
    let rule = |id: &str, category: &str| {
        format!(
            "[rule]\nrule_id = '{id}'\nname = 'name'\ndescription = 'text'\nseverity = 'low'\ntype = 'eql'\n\
             query = 'sequence by process.entity_id with maxspan=1m [{category} where true] [z where true]'"
        )
    };
    let files: Vec<_> = ["a", "b", "c", "d"].map(|name| (name, rule(name, name))).into();
    let mut schema = Schema::new();
    let files = files.iter().map(|(name, text)| (format!("{name}.toml"), text.as_bytes()));
    let loaded = Loaded::read(
        files.collect::<Vec<_>>().iter().map(|(name, text)| (name.as_str(), *text)),
        &mut schema,
    );
    let limits = lapwing_engine::detect::Limits { state_bytes_max: 1 << 20, ..Default::default() };
    let mut engine = Engine::new(schema.into(), &loaded.rules, Options { limits, ..Options::default() });
    let mut output = Output::default();
    push(&mut engine, act("d", "0", "/bin/late", 0, 0), &mut output);
    for number in 0..3000 {
        let category = if number < 2000 { "a" } else { "b" };
        push(&mut engine, act(category, "65534", "/bin/quick", number, 1), &mut output);
        assert!(engine.counters().state_bytes <= 1 << 20);
    }
    push(&mut engine, act("z", "0", "/bin/late", 0, 2), &mut output);
    assert_eq!(output.alerts.len(), 1);
}

#[test]
fn the_same_cause_gives_the_same_id() {
    let run = |id: &str| {
        let mut engine = engine("type = 'query'\nquery = 'event.category: a'", Options::default());
        let mut output = Output::default();
        push(&mut engine, json!({"@timestamp": 1, "event.category": "a", "event.id": id}), &mut output);
        push(&mut engine, json!({"@timestamp": 1, "event.category": "a", "user.id": id}), &mut output);
        output.alerts.into_iter().map(|alert| alert.id).collect::<Vec<_>>()
    };
    assert_eq!(run("x"), run("x"));
    let (x, y) = (run("x"), run("y"));
    assert!(x[0] != y[0] && x[1] != y[1] && x[0] != x[1]);
}

/// An engine with one rule of these lines.
fn engine(lines: &str, options: Options) -> Engine {
    let file = format!(
        "[rule]\nrule_id = 'id'\nname = 'name'\ndescription = 'text'\nseverity = 'low'\nrisk_score = 21\n{lines}"
    );
    let mut schema = Schema::new();
    let loaded = Loaded::read([("rule.toml", file.as_bytes())], &mut schema);
    assert_eq!(loaded.rules.len(), 1, "{:?}", loaded.reports);
    Engine::new(schema.into(), &loaded.rules, options)
}

/// Gives an engine what another one wanted kept.
fn restore(engine: &mut Engine, output: &Output) {
    let mut rows = BTreeMap::new();
    for row in &output.changes {
        match &row.change.value {
            Some(value) => rows.insert((&row.rule_id, &row.change.key), value),
            None => rows.remove(&(&row.rule_id, &row.change.key)),
        };
    }
    rows.into_iter().for_each(|((rule_id, key), value)| drop(engine.restore(rule_id, key, value)));
}

/// Shows an event to the engine, whose clock is the latest event.
fn push(engine: &mut Engine, event: Json, output: &mut Output) {
    let event = Event::from_json(engine.schema(), &event).unwrap();
    let time = event.time();
    engine.push(event, output);
    engine.advance(time, output);
}
