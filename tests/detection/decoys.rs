//! One user's noise, in any amount, does not hide another's act.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use lapwing_stage::{Agent, Alert, Settings};
use tempfile::TempDir;

/// An unprivileged user.
const NOBODY: u32 = 65_534;
/// Maximum time for a hundred alerts.
const SLOW: Duration = Duration::from_secs(90);
/// Nearly the longest argument that a record contains completely.
const LONG_BYTES: usize = 47_000;

const RULES: &str = r#"
[rule]
rule_id = "decoy"
name = "Decoy"
description = "A program of a certain name."
severity = "low"
type = "eql"
language = "eql"
index = ["logs-endpoint.events.*"]
query = 'process where event.action == "exec" and process.name == "lapwing-decoy"'
"#;

const SEQUENCE: &str = r#"
[rule]
rule_id = "half"
name = "Half"
description = "A program, and its end."
severity = "low"
type = "eql"
language = "eql"
index = ["logs-endpoint.events.*"]
query = '''
sequence by process.entity_id with maxspan=5m
  [process where event.action == "exec" and process.name in ("lapwing-late", "lapwing-quick")]
  [process where event.action == "end" and process.name == "lapwing-late"]
'''
"#;

/// An agent with the test's rules, and a folder from which every user may run programs.
fn agent(rules: &str) -> (Agent, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
    fs::create_dir(folder.path().join("rules")).expect("a folder");
    fs::write(folder.path().join("rules/rule.toml"), rules).expect("a rule");
    let program = env!("CARGO_BIN_EXE_lapwing").into();
    let rules = folder.path().join("rules");
    (Agent::start(Settings { program, rules, ..Settings::default() }).expect("an agent"), folder)
}

/// A tool under a name that the rules match.
fn tool(folder: &TempDir, tool: &str, name: &str) -> PathBuf {
    let program = folder.path().join(name);
    fs::copy(PathBuf::from("/bin").join(tool), &program).expect("a copy");
    program
}

fn as_nobody(program: &PathBuf) -> Command {
    let mut command = Command::new(program);
    command.uid(NOBODY).gid(NOBODY);
    command
}

fn is_suppressed(alert: &Alert) -> bool {
    alert.text("/event/reason").contains("were not raised")
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn an_act_of_another_user_is_alerted_behind_decoys_and_suppressed_alerts_survive_a_stop() {
    let (mut agent, folder) = agent(RULES);
    let program = tool(&folder, "true", "lapwing-decoy");
    for _ in 0..110 {
        assert!(as_nobody(&program).arg("decoy").status().expect("a program").success());
    }
    assert!(Command::new(&program).arg("act").status().expect("a program").success());
    let is_act = |alert: &Alert| alert.document["process"]["args"][1] == "act";
    agent.wait_for_within("the act behind decoys", 0, SLOW, is_act).expect("an alert");
    let raised = agent.alerts().expect("the log").iter().filter(|alert| !is_act(alert)).count();
    assert_eq!(raised, 100, "max_signals of one program");
    let status = agent.status().expect("a status");
    let lane = &status["lanes"][0];
    assert_eq!((&lane["suppressed"], &lane["held_back"][0]["count"]), (&10.into(), &10.into()), "{lane}");
    agent.stop().expect("an end");
    agent.start_again().expect("an agent");
    let summary = agent.wait_for_within("the suppressed alerts", 0, SLOW, is_suppressed).expect("an alert");
    let printed = &summary.document["lapwing"]["alert"];
    assert_eq!(printed["suppressed_count"], 10);
    let row = &printed["held_back"][0];
    assert_eq!(row["count"], 10, "{printed}");
    assert!(row["executable"].as_str().is_some_and(|path| path.ends_with("lapwing-decoy")), "{row}");
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_partial_match_is_kept_beside_long_ones_of_another_user() {
    let (agent, folder) = agent(SEQUENCE);
    let (late, quick) = (tool(&folder, "sleep", "lapwing-late"), tool(&folder, "true", "lapwing-quick"));
    let mut waiting = Command::new(&late).arg("60").spawn().expect("a program");
    let long = "A".repeat(LONG_BYTES);
    for _ in 0..150 {
        assert!(as_nobody(&quick).arg(&long).status().expect("a program").success());
    }
    lapwing_stage::until("half matches to be given up", SLOW, || {
        let dropped = agent.status()?["lanes"][0]["partial_matches_dropped"].as_u64();
        Ok(dropped.filter(|dropped| *dropped > 0))
    })
    .expect("the share of the long ones is used up");
    waiting.kill().and_then(|()| waiting.wait()).expect("an end");
    let alert = agent
        .wait_for_within("the partial match", 0, SLOW, |alert| alert.rule() == "Half")
        .expect("an alert");
    let printed = &alert.document["lapwing"]["alert"];
    assert_eq!(printed["complete"], false, "{printed}");
    assert!(printed["dropped_matches"].as_u64() > Some(0), "{printed}");
    let is_lost = |alert: &Alert| alert.document["lapwing"]["lost"]["by_kind"]["half_matches"].is_u64();
    let lost = agent.wait_for_within("Telemetry lost", 0, SLOW, is_lost).expect("an alert");
    // If records were lost earlier, the alert is about the event that reported that loss.
    if lost.document["lapwing"]["lost"]["records"] == 0 {
        assert_eq!(lost.text("/user/id"), NOBODY.to_string());
    }
}
