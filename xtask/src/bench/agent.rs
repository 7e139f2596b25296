//! The agent under measurement: the whole of it, with the packaged rules, looked at from outside.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value as Json;

use crate::shell;

/// How long the agent may take to start and to end.
const WAIT: Duration = Duration::from_secs(20);
/// How long it is left alone after its start, so that the snapshot is no part of the measurement.
const SETTLE: Duration = Duration::from_secs(2);
/// Ticks of a second in `/proc/PID/stat`.
const TICKS_PER_SECOND: f64 = 100.0;

/// A running agent.
pub(super) struct Agent {
    child: Child,
    binary: PathBuf,
    config: PathBuf,
}

impl Agent {
    /// Starts it and waits until it is ready.
    pub(super) fn start(binary: &Path) -> Result<Self> {
        let config = config()?;
        let mut command = Command::new(binary);
        command.arg("run").arg("--config").arg(&config);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.with_context(|| binary.display().to_string())?;
        let agent = Self { child, binary: binary.to_owned(), config };
        let start = Instant::now();
        while let Err(error) = agent.status() {
            if start.elapsed() > WAIT {
                let config = agent.config.display();
                bail!("the agent did not start: run `{} run --config {config}`\n{error:#}", binary.display());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        std::thread::sleep(SETTLE);
        Ok(agent)
    }

    /// Nanoseconds that its kernel programs ran so far, as far as the kernel counts them.
    pub(super) fn bpf_nanos(&self) -> Result<u64> {
        let mut nanos = 0;
        let folder = format!("/proc/{}/fdinfo", self.child.id());
        for entry in fs::read_dir(&folder).with_context(|| folder.clone())? {
            let text = fs::read_to_string(entry?.path()).unwrap_or_default();
            if text.contains("prog_type:") {
                nanos += number(&text, "run_time_ns:").unwrap_or(0);
            }
        }
        Ok(nanos)
    }

    /// Seconds of processor time that it used so far.
    pub(super) fn cpu_seconds(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let (_, rest) = stat.rsplit_once(')').context("/proc/PID/stat has no name")?;
        let ticks = rest.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok());
        Ok(ticks.sum::<f64>() / TICKS_PER_SECOND)
    }

    /// Its resident memory.
    pub(super) fn rss_mib(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        Ok(number(&status, "VmRSS:").context("no VmRSS")? as f64 / 1024.0)
    }

    /// How many records it lost so far.
    pub(super) fn lost(&self) -> Result<u64> {
        Ok(lost(&serde_json::from_str(&self.status()?)?))
    }

    fn status(&self) -> Result<String> {
        shell::output(Command::new(&self.binary).args(["status", "--json", "--config"]).arg(&self.config))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // Gone already is as good.
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

/// Writes the configuration of an agent that leaves the rest of the host alone.
fn config() -> Result<PathBuf> {
    let (root, folder) = (shell::root(), shell::root().join("target/bench"));
    fs::create_dir_all(folder.join("state")).with_context(|| folder.display().to_string())?;
    let path = folder.join("lapwing.toml");
    let (rules, place) = (root.join("packaging/rules"), folder.display());
    let text = format!(
        "state_dir = \"{place}/state\"\n[rules]\npaths = [\"{}\"]\n[alerts]\npath = \"{place}/alerts.ndjson\"\n\
         [control]\nsocket = \"{place}/control\"\n",
        rules.display()
    );
    fs::write(&path, text).with_context(|| path.display().to_string())?;
    Ok(path)
}

/// The sum of what the tables of records call lost, wherever in the status they stand.
fn lost(status: &Json) -> u64 {
    match status {
        Json::Object(object) => {
            let own = object.get("delivered").and(object.get("lost")).and_then(Json::as_u64).unwrap_or(0);
            own + object.values().map(lost).sum::<u64>()
        }
        Json::Array(array) => array.iter().map(lost).sum(),
        _ => 0,
    }
}

fn number(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
