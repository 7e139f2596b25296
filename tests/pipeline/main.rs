//! The agent as it is run, without the sensor: CloudTrail in, alerts in the log and upstream, and the commands about
//! all that. It needs no kernel of its own; what needs root for namespaces or mounts says so where there is none.
#![expect(clippy::expect_used, reason = "a test that cannot go on stops")]

/// The alert log: what it holds, and a disk that does not take it.
mod alerts;
/// Whatever disks, upstream and clients do: watchdog, status and the end.
mod alive;
/// What commands print, as golden transcripts.
mod commands;
/// Signals, the control socket, and what keeps an agent from running.
mod control;
/// Files of a trail, however they come.
mod files;
/// Rules and recordings that are wrong in every way.
mod hostile;
/// The report of rules' tests.
mod junit;
/// An agent that is killed, over and over.
mod kill;
/// What it is killed under.
mod load;
/// Objects that a queue tells of.
mod queue;
/// What was learned, on disk.
mod state;
/// Sinks, and what they say of upstream.
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

/// How long something may take that must come; it is never waited out where all is well.
const PATIENCE: Duration = Duration::from_secs(60);

/// What an agent is started with that watches this trail with the rules of the project.
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

/// The alerts of a recording when this agent's configuration replays it from standard input.
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
