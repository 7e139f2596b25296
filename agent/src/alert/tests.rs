//! Alerts about processes, files and records that are as large as an attacker can make them.

use lapwing_engine::detect::Finding;
use lapwing_engine::{Loaded, Rule};

use super::*;

const RULE: &str = r#"
[rule]
name = "A rule"
rule_id = "c0ffee00-0000-4000-8000-000000000001"
author = ["Lapwing"]
description = "A rule of a test."
risk_score = 47
severity = "medium"
type = "eql"
language = "eql"
index = ["logs-endpoint.events.*"]
note = "What to do."
query = 'process where true'
"#;

fn rule() -> Arc<Rule> {
    let loaded = Loaded::read([("rule.toml", RULE.as_bytes())], &mut Schema::new());
    loaded.rules.into_iter().next().unwrap()
}

/// A process with this text as its arguments and its names.
fn process(number: i64, text: &str) -> Fields {
    let mut fields = Fields::new();
    fields
        .set(field!("event.id"), format!("event-{number}"))
        .set(field!("host.name"), "host")
        .set(field!("user.name"), "mallory")
        .set(field!("process.pid"), number)
        .set(field!("process.name"), Value::texts(["sh", "dash"]))
        .set(field!("process.entity_id"), format!("entity-{number}"))
        .set(field!("process.executable"), "/usr/bin/dash")
        .set(field!("process.args"), Value::texts(["sh", "-c", text]))
        .set(field!("process.command_line"), format!("sh -c {text}"));
    fields
}

fn event(number: i64, text: &str) -> Arc<Event> {
    Arc::new(Event::new(Timestamp::from_millis(number * 1000), process(number, text), Vec::new()))
}

fn alert_of(events: Vec<Arc<Event>>) -> Alert {
    let finding = Finding { events: events.into_iter().map(Some).collect(), ..Finding::default() };
    let rule = rule();
    Alert {
        id: "f".repeat(64),
        time: Timestamp::from_millis(1_800_000_000_000),
        name: rule.name.as_str().into(),
        severity: rule.severity,
        risk_score: rule.risk_score,
        rule,
        cause: Cause::Detection(finding),
        dropped: 0,
    }
}

fn evidence(ancestors: Vec<Fields>) -> Evidence {
    Evidence { context: Context { ancestors, ..Context::default() }, ..Evidence::default() }
}

fn made(alert: &Alert, evidence: &Evidence) -> Json {
    let document = document(alert, &Schema::new(), evidence);
    assert!(document.json.len() <= ALERT_BYTES_MAX, "{} bytes", document.json.len());
    assert_eq!(
        document.json,
        super::document(alert, &Schema::new(), evidence).json,
        "it is the same each time"
    );
    serde_json::from_slice(&document.json).unwrap()
}

/// The largest alert of an unprivileged user: twenty ancestors with arguments of control characters, which take six times
/// as much in JSON.
#[test]
fn an_alert_is_bounded_whatever_its_processes_are_called_with() {
    for text in ["\u{1}", "\"", "a", "ß", "🦀", "\n"] {
        let text = text.repeat(48_000 / text.len());
        let ancestors: Vec<_> = (0..20).map(|number| process(number, &text)).collect();
        let alert = made(&alert_of(vec![event(100, &text), event(101, &text)]), &evidence(ancestors));
        let own = &alert["lapwing"]["alert"];
        assert_eq!(own["ancestors"].as_array().unwrap().len(), 20);
        assert_eq!(own["ancestors"][19]["process"]["entity_id"], "entity-19");
        assert_eq!(alert["process"]["name"], json!(["sh", "dash"]));
        assert_eq!(alert["user"]["name"], "mallory");
        let cut = own["cut"].as_array().unwrap();
        assert!(cut.contains(&"lapwing.alert.ancestors.19.process.command_line".into()), "{cut:?}");
        let line = own["ancestors"][19]["process"]["command_line"].as_str().unwrap();
        assert!(line.starts_with("sh -c ") && line.ends_with("bytes]"), "{line}");
    }
}

/// Far values are cut first, and values that fit are complete.
#[test]
fn the_farthest_ancestor_is_cut_first() {
    let text = "x".repeat(40_000);
    let ancestors: Vec<_> = (0..3).map(|number| process(number, &text)).collect();
    let alert = made(&alert_of(vec![event(100, "short")]), &evidence(ancestors));
    let own = &alert["lapwing"]["alert"];
    let length =
        |distance: usize| own["ancestors"][distance]["process"]["command_line"].as_str().unwrap().len();
    assert!(length(2) < 40_000, "{}", length(2));
    assert_eq!((length(0), length(1)), (40_006, 40_006));
    assert_eq!(alert["process"]["command_line"], "sh -c short");
    let small = made(&alert_of(vec![event(100, "short")]), &evidence(vec![process(1, "short")]));
    assert_eq!(small["lapwing"]["alert"]["cut"], Json::Null, "nothing is cut without need");
}

/// The limit holds for any amount of each value.
#[test]
fn many_events_long_lists_and_odd_records_are_bounded() {
    let empty = Value::texts(std::iter::repeat_n("", 200_000));
    let mut many = process(1, "x");
    many.set(field!("process.args"), empty.clone()).set(field!("process.env_vars"), empty);
    let mut named = process(2, "x");
    for id in
        [field!("user.name"), field!("process.executable"), field!("event.action"), field!("process.name")]
    {
        named.set(id, "\u{1}".repeat(60_000));
    }
    let mut odd = Event::new(Timestamp::from_millis(3000), process(3, "x"), Vec::new());
    let members =
        (0..3000).map(|number| (format!("key {number}"), json!({"deep": [number, "\u{1}".repeat(90)]})));
    odd.keep("aws.cloudtrail.other.\u{1}odd", Json::Object(members.collect()));
    odd.keep("aws.cloudtrail.other.long", "\u{1}".repeat(200_000).into());
    let events: Vec<_> = [many.clone(), named.clone()]
        .map(|fields| Arc::new(Event::new(Timestamp::from_millis(1), fields, vec![])))
        .into();
    let odd = Arc::new(odd);
    for events in [vec![events[0].clone()], vec![events[1].clone()], vec![odd.clone()], {
        let all = events.iter().chain([&odd]).cycle().take(300).cloned();
        all.collect()
    }] {
        let count = events.len();
        let alert = made(&alert_of(events), &evidence(vec![named.clone(), many.clone()]));
        assert_eq!(alert["event"]["id"], "f".repeat(64), "of {count} events");
        assert!(!alert["lapwing"]["alert"]["cut"].as_array().unwrap().is_empty());
    }
}

/// Lines of text are short, even where an attacker chose them.
#[test]
fn values_in_text_lines_are_short() {
    let mut alert = alert_of(vec![event(1, "x")]);
    alert.name = "n".repeat(40_000).into();
    let long = process(1, "x").set(field!("user.name"), "u".repeat(40_000)).clone();
    let Cause::Detection(finding) = &mut alert.cause else { return };
    finding.events = vec![Some(Arc::new(Event::new(Timestamp::from_millis(1), long, vec![])))];
    finding.new_terms = vec![Value::from("t".repeat(40_000).as_str())];
    let made = made(&alert, &Evidence::default());
    for line in [&made["message"], &made["rule"]["name"]] {
        let line = line.as_str().unwrap();
        assert!(line.chars().count() == 256 && line.ends_with('…'), "{line}");
    }
    assert!(made["event"]["reason"].as_str().unwrap().chars().count() < 1000);
    let term = made["lapwing"]["alert"]["new_terms"][0].as_str().unwrap();
    assert!(term.len() <= OWN_BYTES_MAX && term.ends_with("bytes]"), "{term}");
}

/// The smaller forms are alerts too, with less and less foreign content.
#[test]
fn smaller_forms_are_alerts_with_the_same_id() {
    let text = "\u{1}".repeat(48_000);
    let whole = document(&alert_of(vec![event(1, &text)]), &Schema::new(), &Evidence::default()).json;
    let mut form = Form::Whole;
    for (smaller, bytes_max) in [(Form::Reduced, 64 << 10), (Form::Minimal, 8 << 10)] {
        assert_eq!(form.smaller(), Some(smaller));
        form = smaller;
        let json = form.of(&whole, &"413 ".repeat(1000));
        assert!(json.len() < bytes_max, "{form:?}: {} bytes", json.len());
        let alert: Json = serde_json::from_slice(&json).unwrap();
        assert_eq!(alert["event"]["id"], "f".repeat(64));
        assert_eq!((&alert["event"]["kind"], &alert["host"]["name"]), (&json!("alert"), &json!("host")));
        assert_eq!(alert["message"], "A rule");
        let is_reduced = form == Form::Reduced;
        assert_eq!(
            alert["user"]["name"].is_string(),
            is_reduced,
            "the minimal form has nothing that anyone typed"
        );
        assert_eq!(
            alert["event"]["original"].as_str().is_some_and(|text| text.starts_with("{\"@")),
            is_reduced
        );
        assert_eq!(alert["lapwing"]["alert"]["form"], if is_reduced { "reduced" } else { "minimal" });
    }
    assert_eq!(form.smaller(), None);
    let odd = Bytes::from_static(b"no alert");
    assert_eq!(Form::Minimal.of(&odd, ""), odd);
}
