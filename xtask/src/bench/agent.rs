//! The agent under measurement: the whole of it, with the packaged rules, looked at from outside.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use lapwing_stage::Settings;
use serde_json::Value as Json;

use crate::shell;

/// How long it is left alone after its start, so that the snapshot is no part of the measurement.
const SETTLE: Duration = Duration::from_secs(2);
/// Ticks of a second in `/proc/PID/stat`.
const TICKS_PER_SECOND: f64 = 100.0;

/// What its process table holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Processes {
    /// Processes that are kept, living and ended.
    pub(super) kept: u64,
    /// Those of them that live, as far as it knows.
    pub(super) alive: u64,
    /// Those that ended a short while ago. The others are kept for their children.
    pub(super) ended: u64,
}

impl Processes {
    /// Those that are kept for their children.
    pub(super) fn parents(&self) -> u64 {
        self.kept.saturating_sub(self.alive + self.ended)
    }
}

/// A running agent.
pub(super) struct Agent(lapwing_stage::Agent);

impl Agent {
    /// Starts it with the packaged rules and waits until it is ready.
    pub(super) fn start(program: &Path) -> Result<Self> {
        Self::start_with(program, &shell::root().join("packaging/rules"))
    }

    /// Starts it with the rules of a folder and waits until it is ready. What it writes lies on the project's disk.
    pub(super) fn start_with(program: &Path, rules: &Path) -> Result<Self> {
        let folder = shell::root().join("target/bench");
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let (program, rules) = (program.to_owned(), rules.to_owned());
        let agent =
            lapwing_stage::Agent::start_in(&folder, Settings { program, rules, ..Settings::default() })?;
        std::thread::sleep(SETTLE);
        Ok(Self(agent))
    }

    /// Nanoseconds that its kernel programs ran so far, as far as the kernel counts them.
    pub(super) fn bpf_nanos(&self) -> Result<u64> {
        Ok(self.descriptors("prog_id:", "run_time_ns:")?.values().sum())
    }

    /// What the maps of its kernel programs take.
    pub(super) fn maps_mib(&self) -> Result<f64> {
        Ok(self.descriptors("map_id:", "memlock:")?.values().sum::<u64>() as f64 / f64::from(1 << 20))
    }

    /// A number that the kernel shows for each program or map of which there is a descriptor.
    fn descriptors(&self, id: &str, name: &str) -> Result<BTreeMap<u64, u64>> {
        let mut numbers = BTreeMap::new();
        let folder = format!("/proc/{}/fdinfo", self.0.pid());
        for entry in fs::read_dir(&folder).with_context(|| folder.clone())? {
            let text = fs::read_to_string(entry?.path()).unwrap_or_default();
            // That of a link names its program, too, and nothing more of it.
            numbers.extend(number(&text, id).zip(number(&text, name)));
        }
        Ok(numbers)
    }

    /// Seconds of processor time that it used so far.
    pub(super) fn cpu_seconds(&self) -> Result<f64> {
        cpu_seconds(self.0.pid())
    }

    /// Its resident memory.
    pub(super) fn rss_mib(&self) -> Result<f64> {
        rss_mib(self.0.pid())
    }

    /// How many records it lost so far.
    pub(super) fn lost(&self) -> Result<u64> {
        Ok(sum(&self.0.status()?, "lost"))
    }

    /// How many records its kernel programs made so far.
    pub(super) fn records(&self) -> Result<u64> {
        Ok(sum(&self.0.status()?, "seen"))
    }

    /// How many alerts its sensor's rules raised beyond what a rule may raise in its interval.
    pub(super) fn suppressed(&self) -> Result<u64> {
        let status = self.0.status()?;
        status.pointer("/lanes/0/suppressed").and_then(Json::as_u64).context("the agent has no sensor")
    }

    /// A command of its program, about it.
    pub(super) fn command(&self, verb: &str) -> Command {
        self.0.command(verb)
    }

    /// Its alerts so far.
    pub(super) fn alerts(&self) -> Result<Vec<lapwing_stage::Alert>> {
        self.0.alerts()
    }

    /// What its process table holds now.
    pub(super) fn processes(&self) -> Result<Processes> {
        let status = self.0.status()?;
        let source = status.pointer("/lanes/0/source").context("the agent has no sensor")?;
        let count = |name: &str| source.get(name).and_then(Json::as_u64).context(name.to_owned());
        let [kept, alive, ended] = ["processes", "processes_alive", "processes_ended"].map(count);
        Ok(Processes { kept: kept?, alive: alive?, ended: ended? })
    }

    /// The processes in alerts.
    pub(super) fn alerted(&self) -> Result<Vec<u64>> {
        let pid =
            |alert: &lapwing_stage::Alert| alert.document.pointer("/process/pid").and_then(Json::as_u64);
        Ok(self.0.alerts()?.iter().filter_map(pid).collect())
    }

    /// Its alert log.
    pub(super) fn alert_log(&self) -> PathBuf {
        self.0.alert_log()
    }
}

/// The sum of what the tables of records say under a name, wherever in the status they stand.
fn sum(status: &Json, name: &str) -> u64 {
    match status {
        Json::Object(object) => {
            let own = object.get("delivered").and(object.get(name)).and_then(Json::as_u64).unwrap_or(0);
            own + object.values().map(|value| sum(value, name)).sum::<u64>()
        }
        Json::Array(array) => array.iter().map(|value| sum(value, name)).sum(),
        _ => 0,
    }
}

/// Seconds of processor time that a process used so far.
///
/// # Errors
/// It has ended.
pub(super) fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(')').context("/proc/PID/stat has no name")?;
    let ticks = rest.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok());
    Ok(ticks.sum::<f64>() / TICKS_PER_SECOND)
}

/// A process's resident memory.
///
/// # Errors
/// It has ended.
pub(super) fn rss_mib(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(number(&status, "VmRSS:").context("no VmRSS")? as f64 / 1024.0)
}

/// The number that follows this word at the beginning of a line.
pub(super) fn number(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
