//! The rules for this host, triggered by real tools: the agent runs on the live kernel, tools in network namespaces imitate
//! attackers, and the alerts are read from its log. Needs root and an agent with the kernel programs.
#![expect(clippy::expect_used, reason = "a test that cannot go on stops")]

/// Rules for auditd.
mod auditd;
/// One user's noise, and another's act.
mod decoys;
/// Requests to the instance metadata service.
mod imds;
/// Recordings of events, and their replays.
mod recording;
/// Restarted agents.
mod restart;
/// Reverse and bind shells.
mod reverse_shell;
/// Commands sent by Systems Manager.
mod send_command;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lapwing_stage::{Agent, Alert, Hosts, Settings, skipped};

/// Maximum time for a tool, which is then killed.
const PATIENCE: Duration = Duration::from_secs(20);

/// The hosts and the agent. Tests run one at a time, because every agent sees the processes of all.
struct Stage {
    // Dropped in this order: the agent first, and the lock of the next test last.
    agent: Agent,
    hosts: Hosts,
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::new(());

fn stage() -> Stage {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    Stage { agent: agent(), hosts: Hosts::new().expect("hosts in network namespaces"), _turn: turn }
}

/// Number of attempts for an alert: rules match events within a second, and a tool that must be loaded from disk may take
/// longer.
const ATTEMPTS_MAX: usize = 3;

impl Stage {
    /// Performs an act, and returns its alert.
    fn alert_of(&self, what: &str, wanted: impl Fn(&Alert) -> bool, act: impl Fn()) -> Alert {
        let attempt = || {
            let mark = self.agent.mark();
            act();
            self.agent.wait_for_within(what, mark, PATIENCE / 3, &wanted)
        };
        let first = (1..ATTEMPTS_MAX).find_map(|_| attempt().ok());
        first.unwrap_or_else(|| attempt().expect("an alert"))
    }
}

/// An agent with the rules of the project and its own history.
fn agent() -> Agent {
    Agent::start(Settings {
        program: env!("CARGO_BIN_EXE_lapwing").into(),
        rules: project().join("packaging/rules"),
        ..Settings::default()
    })
    .expect("an agent")
}

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the project's folder").to_owned()
}

/// Whether a tool is installed; a test without its tool prints that and is counted as skipped.
fn is_there(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join(tool).exists());
    if !found {
        skipped(&format!("`{tool}` is not installed"));
    }
    found
}
