//! Signals, the control socket, and errors that prevent the start of an agent.

use std::fs;

use jiff::Timestamp;
use lapwing_stage::trail::{Trail, key_upload};
use lapwing_stage::{Agent, until};

use crate::{PATIENCE, UPLOAD, agent, of, settings};

/// Runs a command that must fail, and returns its error message.
fn refused(agent: &Agent, verb: &str) -> String {
    let output = agent.command(verb).env_remove("RUST_BACKTRACE").output().expect("the program");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let printed = String::from_utf8(output.stderr).expect("text");
    // The message is the last line: lines of the agent's own log may precede it.
    printed.trim_end().lines().last().unwrap_or_default().to_owned()
}

#[test]
fn the_status_shows_the_state_of_the_agent() {
    let trail = Trail::new().expect("a trail");
    let agent = agent(&trail);
    trail.deliver("key", &[key_upload(Timestamp::now())]).expect("a file");
    agent.wait_for_within("an upload", 0, PATIENCE, |alert| alert.rule() == UPLOAD).expect("an alert");
    let status = agent.status().expect("a status");
    assert_eq!(status["pid"], agent.pid());
    assert_eq!(status["rules"]["refused_files"], 0);
    assert_eq!(status["lanes"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        (&status["lanes"][0]["name"], &status["lanes"][0]["events"]),
        (&"cloudtrail".into(), &1.into())
    );
    assert_eq!(status["ledger"]["alarms"], serde_json::json!([]));
    let output = agent.command("status").output().expect("lapwing status");
    let text = String::from_utf8(output.stdout).expect("text");
    for line in [&format!("pid: {}", agent.pid()), "lanes", "  name: cloudtrail"] {
        assert!(text.lines().any(|printed| printed == line), "{line}: {text}");
    }
    let checked = agent.command("check").output().expect("lapwing check");
    let text = String::from_utf8(checked.stdout).expect("text");
    assert!(checked.status.success() && text.contains("note: an agent is running: it listens on "), "{text}");
}

#[test]
fn without_the_sensor_there_is_nothing_to_record() {
    let trail = Trail::new().expect("a trail");
    let agent = agent(&trail);
    let file = agent.folder().join("incident.rec");
    let output = agent.command("record").arg(&file).output().expect("lapwing record");
    let printed = String::from_utf8(output.stderr).expect("text");
    assert!(!output.status.success() && printed.contains("this agent runs without the sensor"), "{printed}");
}

#[test]
fn a_second_agent_on_the_same_state_is_refused_and_the_first_keeps_running() {
    let trail = Trail::new().expect("a trail");
    let agent = agent(&trail);
    let printed = refused(&agent, "run");
    let words = format!("lapwing: another lapwing (process {}) uses the state directory ", agent.pid());
    assert!(printed.starts_with(&words) && printed.contains(": stop it, or give this one "), "{printed}");
    trail.deliver("key", &[key_upload(Timestamp::now())]).expect("a file");
    agent.wait_for_within("an upload", 0, PATIENCE, |alert| alert.rule() == UPLOAD).expect("an alert");
    assert_eq!(agent.status().expect("the first's socket")["pid"], agent.pid());
}

#[test]
fn a_second_agent_on_the_same_socket_is_refused() {
    let trail = Trail::new().expect("a trail");
    let first = agent(&trail);
    let folder = tempfile::tempdir().expect("a folder");
    let own = fs::read_to_string(first.folder().join("lapwing.toml")).expect("the configuration");
    let there = first.folder().display().to_string();
    let here = folder.path().display().to_string();
    let other =
        own.replace(&there, &here).replace(&format!("{here}/control.sock"), &format!("{there}/control.sock"));
    fs::write(folder.path().join("lapwing.toml"), other).expect("a configuration");
    let mut command = std::process::Command::new(crate::LAPWING);
    let output = command.args(["run", "--config"]).arg(folder.path().join("lapwing.toml")).output();
    let output = output.expect("the program");
    let printed = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert!(printed.contains("lapwing: another agent listens on "), "{printed}");
    assert!(first.status().is_ok(), "the first still answers");
}

#[test]
fn sighup_reopens_the_log_and_sigterm_ends_with_success() {
    let trail = Trail::new().expect("a trail");
    let mut agent = agent(&trail);
    let log = agent.folder().join("alerts.ndjson");
    trail.deliver("one", &[key_upload(Timestamp::now())]).expect("a file");
    agent.wait_for_within("an upload", 0, PATIENCE, |alert| alert.rule() == UPLOAD).expect("an alert");
    // As logrotate does.
    fs::rename(&log, agent.folder().join("alerts.ndjson.1")).expect("a rename");
    agent.signal("HUP").expect("a signal");
    until("a new log", PATIENCE, || Ok(log.exists().then_some(()))).expect("a new log");
    let mut second = key_upload(Timestamp::now());
    second["eventID"] = "second".into();
    trail.deliver("two", &[second]).expect("a file");
    agent.wait_for_within("an upload", 0, PATIENCE, |alert| alert.rule() == UPLOAD).expect("an alert");
    agent.stop().expect("exit code 0");
    assert_eq!(of(&agent, UPLOAD).len(), 1, "the new log has the second alone");
    assert!(!agent.folder().join("control.sock").exists(), "it takes its socket with it");
    let output = agent.command("alerts").output().expect("lapwing alerts");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).matches(UPLOAD).count(),
        2,
        "the old log is listed too"
    );
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn an_unreadable_file_is_reported_with_a_hint() {
    use std::os::unix::process::CommandExt as _;
    let trail = Trail::new().expect("a trail");
    let mut agent = Agent::start(settings(&trail, "")).expect("an agent");
    trail.deliver("one", &[key_upload(Timestamp::now())]).expect("a file");
    agent.wait_for_within("an upload", 0, PATIENCE, |alert| alert.rule() == UPLOAD).expect("an alert");
    // The folder is public; its files are the agent's.
    let public = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(agent.folder(), public).expect("permissions");
    let private = |name: &str| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(agent.folder().join(name), mode).expect("permissions");
    };
    let program = agent.folder().join("lapwing");
    fs::copy(crate::LAPWING, &program).expect("a copy");
    let printed = |verb: &str| {
        let mut command = std::process::Command::new(&program);
        command.arg(verb).arg("--config").arg(agent.folder().join("lapwing.toml")).uid(65534).gid(65534);
        let output = command.env_remove("RUST_BACKTRACE").output().expect("the program");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).expect("text")
    };
    for (verb, hint) in [
        ("alerts", "run as root, or as a member of the log's group"),
        ("status", "run as root, or as the agent's user"),
    ] {
        let printed = printed(verb);
        assert!(printed.starts_with("lapwing: ") && printed.contains(hint), "{verb}: {printed}");
    }
    private("lapwing.toml");
    for verb in ["run", "status", "alerts", "check"] {
        let printed = printed(verb);
        let words = "lapwing.toml: Permission denied (os error 13); run as root";
        assert!(printed.contains(words) && printed.lines().count() == 1, "{verb}: {printed}");
    }
    agent.stop().expect("an end");
}
