//! The rules for this host, set off by real tools: an agent runs on the live kernel, tools do in network namespaces
//! what attackers do, and the alerts are read from its log. It takes root and the kernel programs inside the agent.
#![expect(clippy::expect_used, reason = "a test that cannot go on stops")]

/// Rules for auditd.
mod auditd;
/// One user's noise, and another's act.
mod decoys;
/// Requests to the instance metadata service.
mod imds;
/// Recordings of what happened, and replays of them.
mod recording;
/// Agents that are started again.
mod restart;
/// Reverse and bind shells.
mod reverse_shell;
/// Commands sent by Systems Manager.
mod send_command;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lapwing_stage::{Agent, Alert, Hosts, Settings, skipped};

/// How long a tool may take; what hangs longer is ended.
const PATIENCE: Duration = Duration::from_secs(20);

/// The hosts and the agent that watches. Tests take turns, for every agent sees what all of them do.
struct Stage {
    // Dropped in this order: who watches ends first, and the next test begins last.
    agent: Agent,
    hosts: Hosts,
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::new(());

fn stage() -> Stage {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    Stage { agent: agent(), hosts: Hosts::new().expect("hosts in network namespaces"), _turn: turn }
}

/// How often something is done that no alert came of: rules want what belongs together within a second, and a tool that
/// the disk has to bring first may take longer.
const ATTEMPTS_MAX: usize = 3;

impl Stage {
    /// Does something, and returns the alert that comes of it.
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

/// An agent with the rules of the project and a history of its own.
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

/// Whether a tool is there; a test without its tool says so and is counted as skipped.
fn is_there(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join(tool).exists());
    if !found {
        skipped(&format!("`{tool}` is not installed"));
    }
    found
}
