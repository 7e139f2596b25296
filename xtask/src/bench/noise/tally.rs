//! How much of what the agent sees is this work: the agent sees the whole machine, and others may be busy on it too.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};

use super::stage::{ADDRESSES, Stage};
use crate::bench::agent::Agent;

/// How long a listener may take until it hears.
const CONNECT: Duration = Duration::from_secs(1);

/// Who listens to the agent's events and counts those of a kind.
pub(super) struct Tally {
    listener: Child,
    count: JoinHandle<u64>,
}

impl Tally {
    /// Programs that start on the hosts.
    pub(super) fn of_execs(agent: &Agent, stage: &Stage) -> Result<Self> {
        let [near, far] = stage.networks()?;
        Self::new(agent, &format!("event.action: exec and lapwing.process.namespace.net: ({near} or {far})"))
    }

    /// Connections that are made between them.
    pub(super) fn of_connects(agent: &Agent) -> Result<Self> {
        let [near, far] = ADDRESSES;
        Self::new(agent, &format!("event.action: connection_attempted and destination.ip: ({near} or {far})"))
    }

    fn new(agent: &Agent, condition: &str) -> Result<Self> {
        let mut command = agent.command("events");
        command.args(["--json", condition]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut listener = command.spawn().context("lapwing events")?;
        let events = listener.stdout.take().context("lapwing events has no output")?;
        let count = std::thread::spawn(move || {
            BufReader::new(events).split(b'\n').map_while(Result::ok).count() as u64
        });
        std::thread::sleep(CONNECT);
        Ok(Self { listener, count })
    }

    /// Ends it and returns what it counted.
    pub(super) fn end(mut self) -> Result<u64> {
        let has_ended = self.listener.try_wait()?.is_some();
        self.listener.kill()?;
        self.listener.wait()?;
        anyhow::ensure!(!has_ended, "lapwing events ended before its time");
        Ok(self.count.join().unwrap_or_default())
    }
}
