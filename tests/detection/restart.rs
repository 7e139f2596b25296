//! A restarted agent reports the time in which it did not run.

use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::Duration;

use jiff::Timestamp;
use lapwing_stage::{Agent, Alert, Settings};

use crate::stage;

const LOST: &str = "Telemetry lost";
/// How old the agent's last saved time may be when it is killed: it is saved at intervals.
const REMEMBERED: Duration = Duration::from_secs(11);

/// Two programs of one parent, one after the other.
const STEPS: &str = r#"
[rule]
rule_id = "two-steps"
name = "Two steps"
description = "A program, and another after it."
severity = "low"
type = "eql"
language = "eql"
index = ["logs-endpoint.events.*"]
query = '''
sequence by process.parent.entity_id with maxspan=5m
  [process where event.action == "exec" and process.name == "lapwing-before"]
  [process where event.action == "exec" and process.name == "lapwing-after"]
'''
"#;

fn time(alert: &Alert, pointer: &str) -> Timestamp {
    alert.text(pointer).parse().expect("a time")
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_restart_is_reported_with_its_outage() {
    let mut stage = stage();
    let down = std::time::Duration::from_millis(1500);
    for is_killed in [false, true] {
        let mark = stage.agent.mark();
        let before = Timestamp::now();
        if is_killed {
            stage.agent.kill().expect("a kill");
        } else {
            stage.agent.stop().expect("an end");
        }
        let ended = Timestamp::now();
        std::thread::sleep(down);
        let starts = Timestamp::now();
        stage.agent.start_again().expect("an agent");
        let is_it = |alert: &Alert| alert.rule() == LOST && !alert.text("/event/start").is_empty();
        let alert = stage.agent.wait_for("the outage", mark, is_it).expect("an alert");
        let (from, to) = (time(&alert, "/event/start"), time(&alert, "/event/end"));
        let slack = if is_killed { REMEMBERED } else { Duration::ZERO };
        assert!(from >= before - slack && from <= ended, "{before} {from} {ended}");
        assert!(to >= starts && to <= Timestamp::now(), "{starts} {to}");
        let reason = alert.text("/event/reason");
        assert!(reason.starts_with("the sensor was down between "), "{reason}");
        assert!(stage.agent.log().contains("the sensor was down between "), "{}", stage.agent.log());
        let status = stage.agent.status().expect("a status");
        let printed = status.pointer("/lanes/0/source/downtime/from").and_then(serde_json::Value::as_str);
        assert_eq!(printed, Some(alert.text("/event/start")));
    }
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_first_start_reports_no_outage() {
    let stage = stage();
    let status = stage.agent.status().expect("a status");
    assert_eq!(status.pointer("/lanes/0/source/downtime"), Some(&serde_json::Value::Null));
    assert!(stage.agent.alerts().expect("the log").iter().all(|alert| alert.rule() != LOST));
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_partial_match_survives_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("steps.toml"), STEPS).expect("a rule");
    let run = |name: &str| {
        let program = folder.path().join(name);
        symlink("/bin/true", &program).expect("a link");
        assert!(Command::new(program).status().expect("a program").success());
    };
    let program = env!("CARGO_BIN_EXE_lapwing").into();
    let settings = Settings { program, rules: folder.path().to_owned(), ..Settings::default() };
    let mut agent = Agent::start(settings).expect("an agent");
    run("lapwing-before");
    agent.stop().expect("an end");
    agent.start_again().expect("an agent");
    run("lapwing-after");
    let alert = agent.wait_for("both steps", 0, |alert| alert.rule() == "Two steps").expect("an alert");
    let events = alert.document["lapwing"]["alert"]["events"].as_array().expect("events");
    let names: Vec<_> = events.iter().map(|event| &event["process"]["name"]).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names[0].to_string().contains("lapwing-before"), "{names:?}");
}
