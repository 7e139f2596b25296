//! Rules and how far their events are there: `tests/coverage.txt` holds the lines of a rule, a line `---` and what is
//! found out of it, block by block, parted by lines `===`. `UPDATE_EXPECT=1` writes what is found out now.

use std::fmt::Write as _;
use std::path::Path;

use lapwing_engine::coverage::{EventKind, Source, coverage};
use lapwing_engine::{Fields, Loaded, Schema, Value, field};

#[test]
fn the_needs_of_rules_are_reported() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/coverage.txt");
    let text = std::fs::read_to_string(&file).unwrap();
    let mut now = String::new();
    for block in text.split("===\n") {
        let lines = block.split("---\n").next().unwrap_or_default();
        let separator = if now.is_empty() { "" } else { "===\n" };
        write!(now, "{separator}{lines}---\n{}\n", found(lines)).unwrap();
    }
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&file, &now).unwrap();
    }
    assert!(now == text, "{} holds something else; UPDATE_EXPECT=1 writes it:\n{now}", file.display());
}

fn found(lines: &str) -> String {
    let rule = format!(
        "[rule]\nrule_id = 'id'\nname = 'name'\ndescription = 'text'\nseverity = 'low'\n{}\n{lines}",
        if lines.contains("index =") { "" } else { "index = ['logs-*']" }
    );
    let mut schema = Schema::new();
    let loaded = Loaded::read([("rule.toml", rule.as_bytes())], &mut schema);
    assert_eq!(loaded.rules.len(), 1, "{:?}", loaded.reports);
    let found = coverage(&loaded.rules[0], &sources(), &schema);
    format!(
        "{:?} of {}{}\n  fields {:?}\n  events {:?}\n  listens {:?}",
        found.events,
        found.source.as_deref().unwrap_or("no source"),
        if found.can_match { "" } else { ", and never matches" },
        found.missing_fields,
        found.missing_events,
        found.listens,
    )
}

fn sources() -> Vec<Source> {
    let kind = |name: &str, category: &str, ty: &str, fields: &[_]| {
        let mut fixed = Fields::new();
        fixed.set(field!("event.action"), name).set(field!("event.category"), Value::texts([category]));
        fixed.set(field!("event.type"), Value::texts([ty])).set(field!("host.os.type"), "linux");
        let kind = EventKind::new(name, fixed, fields.iter().copied());
        if name == "exec" { kind.also_called(&["exec_event", "ProcessRollup2", "start"]) } else { kind }
    };
    let process = [field!("process.name"), field!("process.args"), field!("process.pid"), field!("host.id")];
    let network =
        [field!("process.name"), field!("destination.ip"), field!("process.pid"), field!("host.id")];
    let calls = EventKind::new(
        "call",
        Fields::new().set(field!("event.dataset"), "aws.cloudtrail").clone(),
        [field!("event.action"), field!("user.id"), field!("aws.cloudtrail.flattened.request_parameters")],
    );
    vec![
        Source {
            name: "host".to_owned(),
            data_streams: vec!["logs-endpoint.events.process-default".to_owned()],
            kinds: vec![
                kind("fork", "process", "start", &process),
                kind("exec", "process", "start", &process),
                kind("end", "process", "end", &process),
                kind("connection_attempted", "network", "start", &network),
            ],
        },
        Source {
            name: "cloud".to_owned(),
            data_streams: vec!["logs-aws.cloudtrail-default".to_owned()],
            kinds: vec![calls],
        },
    ]
}
