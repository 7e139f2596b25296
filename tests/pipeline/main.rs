//! The agent without the sensor: CloudTrail in, alerts in the log and upstream, and the commands. No kernel program is needed;
//! tests that need root for namespaces or mounts print that they are skipped.
#![expect(clippy::expect_used, reason = "a test that cannot go on stops")]

/// The alert log: its content, and a full disk.
mod alerts;
/// Liveness whatever disks, upstream and clients do.
mod alive;
/// The output of commands, as golden transcripts.
mod commands;
/// Signals, the control socket, and errors at the start.
mod control;
/// Files of a trail.
mod files;
/// Broken rules and recordings.
mod hostile;
/// The JUnit report of rule tests.
mod junit;
/// An agent that is killed repeatedly.
mod kill;
/// The load for it.
mod load;
/// Objects that a queue announces.
mod queue;
/// Learned state on disk.
mod state;
/// Sinks, and the errors of upstream.
mod upstream;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use lapwing_stage::trail::Trail;
use lapwing_stage::{Agent, Settings};
use serde_json::Value as Json;

/// The program.
const LAPWING: &str = env!("CARGO_BIN_EXE_lapwing");

const UPLOAD: &str = "AWS EC2 Instance Connect SSH Public Key Uploaded";
const RARE: &str = "Unusual Country For an AWS Command";
const FIRST: &str = "First AWS Activity of an Account From a Country";

/// Maximum time for what must happen; it is not used up where all is well.
const PATIENCE: Duration = Duration::from_secs(60);

/// Settings of an agent that watches this trail with the rules of the project.
fn settings(trail: &Trail, configuration: &str) -> Settings {
    Settings {
        program: LAPWING.into(),
        rules: project().join("packaging/rules"),
        configuration: format!("sensor.enabled = false\n{}{configuration}\n", trail.configuration()),
        ..Settings::default()
    }
}

/// An agent that watches this trail with the rules of the project.
fn agent(trail: &Trail) -> Agent {
    Agent::start(settings(trail, "")).expect("an agent")
}

/// The alerts of a rule in an agent's log.
fn of(agent: &Agent, rule: &str) -> Vec<Json> {
    let alerts = agent.alerts().expect("the log").into_iter();
    alerts.filter(|alert| alert.rule() == rule).map(|alert| alert.document).collect()
}

/// The ids of alerts.
fn ids(alerts: &[Json]) -> BTreeSet<String> {
    alerts.iter().map(|alert| alert["event"]["id"].as_str().expect("an id").to_owned()).collect()
}

/// The alerts of a recording that is replayed from standard input with this agent's configuration.
fn replay(agent: &Agent, recording: &str) -> Vec<Json> {
    let mut command = agent.command("replay");
    let mut child = command
        .args(["--json", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("lapwing replay");
    let mut stdin = child.stdin.take().expect("a pipe");
    let recording = recording.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(recording.as_bytes()).expect("a reader"));
    let output = child.wait_with_output().expect("an end");
    writer.join().expect("a writer");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the project's folder").to_owned()
}
