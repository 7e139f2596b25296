//! Files of Elastic's endpoint: what is read of them, and what is not done.

use lapwing_engine::rule::Severity;
use lapwing_engine::{Engine, Event, Loaded, Options, Output, Schema};
use serde_json::json;

const RULE: &str = r#"
[rule]
description = """
A script is dropped and run.
"""
id = "6b0c2f4e-52a1-4c43-8f1e-0d1f6a9b7c55"
license = "Apache-2.0"
name = "Dropped Script"
os_list = ["macos", "linux"]
reference = ["https://example.org/dropped"]
version = "1.0.3"

query = '''
sequence by user.id with maxspan=1m
  [file where event.action == "creation"] as event0
  [process where event.action == "exec" and process.args : ("*.sh", "*.py") and process.args == event0.file.path and
   not descendant of [process where process.name == "make"]]
'''

min_endpoint_version = "8.16.0"
optional_actions = []
[[actions]]
action = "kill_process"
field = "process.entity_id"
state = 1

[[threat]]
framework = "MITRE ATT&CK"
[[threat.technique]]
id = "T1059"
name = "Command and Scripting Interpreter"
reference = "https://attack.mitre.org/techniques/T1059/"
[threat.tactic]
id = "TA0002"
name = "Execution"
reference = "https://attack.mitre.org/tactics/TA0002/"

[internal]
min_endpoint_version = "8.16.0"
"#;

fn codes(file: &str) -> Vec<&'static str> {
    let loaded = Loaded::read([("rule.toml", file.as_bytes())], &mut Schema::new());
    loaded.reports.iter().flat_map(|report| &report.diagnostics).map(|found| found.code.id).collect()
}

#[test]
fn a_behaviour_rule_runs() {
    let mut schema = Schema::new();
    let loaded = Loaded::read([("rule.toml", RULE.as_bytes())], &mut schema);
    let rule = loaded.rules[0].clone();
    assert_eq!(
        (rule.name.as_str(), rule.severity, rule.threat.len()),
        ("Dropped Script", Severity::Medium, 1)
    );
    assert!(rule.reads("logs-endpoint.events.process-default"));
    let mut engine = Engine::new(schema.into(), &loaded.rules, Options::default());
    let mut output = Output::default();
    let event = |second: i64, category: &str, action: &str| {
        json!({"@timestamp": second * 1000, "event.category": category, "event.action": action, "user.id": "0",
            "file.path": "/tmp/a.sh", "process.args": ["sh", "/tmp/a.sh"], "process.name": "make",
            "process.entity_id": "m"})
    };
    let mut under_make = event(2, "process", "exec");
    under_make["process.Ext.ancestry"] = json!(["m"]);
    for event in
        [event(0, "process", "exec"), event(1, "file", "creation"), under_make, event(3, "process", "exec")]
    {
        engine.push(Event::from_json(engine.schema(), &event).unwrap(), &mut output);
    }
    assert_eq!(output.alerts.len(), 1);
    assert_eq!(output.alerts[0].time.as_nanos(), 3_000_000_000);
}

#[test]
fn responses_that_are_not_executed_cause_a_warning() {
    assert_eq!(codes(RULE), ["W0409"]);
    assert_eq!(codes(&format!("{RULE}[lapwing]\nallow = [\"W0409\"]\n")), [""; 0]);
    assert_eq!(codes(&RULE.replace("\"macos\", \"linux\"", "\"windows\"")), ["E0303", "W0409"]);
    assert_eq!(codes(&RULE.replace("os_list", "rule_type = 1\nos_list")), ["E0304", "W0409"]);
    assert_eq!(codes(&RULE.replace("event0.file.path", "event1.file.path")), ["W0409", "E0201"]);
}
