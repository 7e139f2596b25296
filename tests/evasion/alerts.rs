//! The agent that raises alerts, and the attacker's program at work before it, between two hosts in network namespaces.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use lapwing_stage::{Agent, Alert, Hosts, IMDS, Settings};
use serde_json::Value;

use crate::attacker::ORDER;

/// The rules that a connection can set off.
pub(crate) const REVERSE_SHELL: &str = "Potential Reverse Shell via Suspicious Child Process";
pub(crate) const IMDS_REQUEST: &str = "Unusual Instance Metadata Service (IMDS) API Request";

/// How long an alert may take to come.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is tried: rules want what belongs together within a second, and a busy machine may take longer.
const ATTEMPTS_MAX: usize = 3;

/// The agent, and the hosts that it watches from outside.
struct Stage {
    agent: Agent,
    hosts: Hosts,
    /// The attacker's program, under a name that rules know.
    program: PathBuf,
}

/// Has a shell run the attacker's program with a technique once for each rule, and returns the alerts of these rules:
/// of the reverse shell's a connection to the other host, of the other's one to the metadata service.
pub(crate) fn alerts(technique: &str, rules: &[&str]) -> Vec<Alert> {
    alerts_by("PROGRAM; exit $?", technique, rules)
}

/// The same by another line of the shell, in which `PROGRAM` is replaced by the program and its arguments.
pub(crate) fn alerts_by(script: &str, technique: &str, rules: &[&str]) -> Vec<Alert> {
    let stage = stage();
    rules.iter().map(|rule| stage.alert(script, technique, rule)).collect()
}

/// A value of an alert by its dotted name.
pub(crate) fn value<'a>(alert: &'a Alert, name: &str) -> &'a Value {
    crate::agent::field(&alert.document, name)
}

/// Has the attacker's program connect to the other host once, before the eyes of every agent. Returns the port, by
/// which the alert is found.
pub(crate) fn attack_once() -> u16 {
    attack_once_by("thread")
}

/// The same with another technique.
pub(crate) fn attack_once_by(technique: &str) -> u16 {
    attack(0, technique)
}

/// The same as another user.
pub(crate) fn attack_once_as(user: u32) -> u16 {
    attack(user, "thread")
}

fn attack(user: u32, technique: &str) -> u16 {
    let (stage, port) = (stage(), port());
    stage.attack(user, "PROGRAM; exit $?", technique, stage.hosts.far.address(), port);
    port
}

/// Whether it is the alert of the rule for reverse shells about this port.
pub(crate) fn is_of(alert: &Alert, port: u16) -> bool {
    alert.rule() == REVERSE_SHELL && *value(alert, "destination.port") == port
}

/// An agent with the packaged rules and the smallest rings, so that it takes little to fill them.
pub(crate) fn agent_with_small_rings() -> Agent {
    agent("sensor.ring_size = \"256 KiB\"")
}

/// An agent with the packaged rules and these settings.
pub(crate) fn agent(configuration: &str) -> Agent {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the project's folder");
    let program = crate::agent::binary().into();
    let settings = Settings {
        program,
        rules: project.join("packaging/rules"),
        configuration: configuration.to_owned(),
        ..Settings::default()
    };
    Agent::start(settings).expect("an agent")
}

impl Stage {
    fn alert(&self, script: &str, technique: &str, rule: &str) -> Alert {
        let host = if rule == IMDS_REQUEST { IMDS } else { self.hosts.far.address() };
        for attempt in 1.. {
            let (port, mark) = (port(), self.agent.mark());
            self.attack(0, script, technique, host, port);
            let is_it = |alert: &Alert| alert.rule() == rule && *value(alert, "destination.port") == port;
            match self.agent.wait_for_within(technique, mark, PATIENCE, is_it) {
                Ok(alert) => {
                    assert_eq!(alert.text("/destination/ip"), host, "{technique}");
                    return alert;
                }
                Err(error) if attempt == ATTEMPTS_MAX => panic!("no alert of `{rule}`: {error:#}"),
                Err(_) => {}
            }
        }
        unreachable!("an attempt is the last")
    }

    fn attack(&self, user: u32, script: &str, technique: &str, host: &str, port: u16) {
        let program = format!("{} -e /bin/true {host} {port}", self.program.display());
        let mut command = self.hosts.near.command("setpriv");
        let user = user.to_string();
        command
            .args(["--reuid", &user, "--regid", &user, "--clear-groups", "sh", "-c"])
            .arg(script.replace("PROGRAM", &program));
        command.env(ORDER, format!("{technique} {host}:{port}")).stderr(Stdio::inherit());
        // The exit status does not matter, the alert does: an attack may well end in a refusal.
        let _ = command.status().expect("ip");
    }
}

fn stage() -> &'static Stage {
    static STAGE: OnceLock<Stage> = OnceLock::new();
    STAGE.get_or_init(|| {
        let agent = agent("");
        // Below the agent's folder, which goes with it; that is a folder that any user can write to.
        let program = agent.folder().join("nc");
        fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        fs::set_permissions(agent.folder(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        Stage { agent, hosts: Hosts::new().expect("hosts in network namespaces"), program }
    })
}

/// A port that identifies an attack.
fn port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(4000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
