//! How soon an alert is on disk after its cause: reverse shells, one after the other, each from its `connect` on.
//!
//! The agent runs with the packaged rules. One limit is taken away: the rule of reverse shells may raise all the alerts
//! that are caused here, for flood control would hold back all but the first hundred in five minutes.

mod attacker;
mod log;

use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use lapwing_stage::Hosts;
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use tempfile::TempDir;

pub(super) use self::attacker::{Attacker, REFUSED};
use self::attacker::{CASES, Case, Server};
use self::log::{Disk, Log, PATIENCE};
use super::agent::Agent;
use super::{Which, wait_for_quiet};
use crate::shell;

#[derive(Args)]
pub(crate) struct Arguments {
    /// How many alerts are caused in each case
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    which: Which,
}

/// The rule whose alerts are timed.
const RULE: &str = "reverse_shell.toml";
/// What it says beside what is packaged: as many alerts a minute as a rule may raise, which is more than the pauses
/// below leave time for.
const UNLIMITED: &str = "[rule]\nmax_signals = 1000\ninterval = \"1m\"\n";
/// How long to wait before the next cause, at random: longer than the sensor's longest interval between two looks, so
/// that causes come at all times of it, after a busy moment and after a quiet one.
const PAUSES_MS: RangeInclusive<u64> = 60..=160;

/// Measures and prints.
///
/// # Errors
/// Where this is not root, the agent does not start, or an alert did not come.
pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let binary = arguments.which.binary()?;
    let rules = rules()?;
    wait_for_quiet();
    let agent = Agent::start_with(&binary, rules.path())?;
    let hosts = Hosts::new()?;
    let mut attacker = Attacker::new(&hosts)?;
    let mut log = Log::open(&agent.alert_log())?;
    let mut disk = Disk::new(&agent.alert_log().with_file_name("disk"))?;
    let _server = Server::start(&hosts)?;
    let mut times = Vec::new();
    for case in &CASES {
        times.push((case, measure(arguments, case, &mut attacker, &mut log, &mut disk)?));
    }
    let lost = agent.lost()?;
    print(arguments, &times, lost)?;
    let missing = times.iter().map(|(_, times)| arguments.count as usize - times.alerts).sum::<usize>();
    ensure!(missing == 0, "{missing} alerts did not come in {} s", PATIENCE.as_secs());
    Ok(())
}

/// Causes the alerts of a case.
fn measure(
    arguments: &Arguments,
    case: &Case,
    attacker: &mut Attacker,
    log: &mut Log,
    disk: &mut Disk,
) -> Result<CaseTimes> {
    let progress = Progress::new(case.name, arguments.count);
    let (mut seen, mut on_disk, mut alone) = (Vec::new(), Vec::new(), Vec::new());
    for number in 1..=arguments.count {
        std::thread::sleep(Duration::from_millis(fastrand::u64(PAUSES_MS)));
        let (pid, cause) = attacker.attack(case)?;
        if let Some(alert) = log.wait_for(pid)? {
            seen.push((alert.seen - cause) * 1000.0);
            on_disk.push((alert.on_disk - cause) * 1000.0);
        }
        alone.push(disk.write()? * 1000.0);
        progress.show(number);
    }
    progress.end();
    ensure!(!seen.is_empty(), "{}: no alert came in {} s", case.name, PATIENCE.as_secs());
    let alerts = seen.len();
    Ok(CaseTimes { alerts, seen: Times::new(seen), on_disk: Times::new(on_disk), alone: Times::new(alone) })
}

fn print(arguments: &Arguments, cases: &[(&Case, CaseTimes)], lost: u64) -> Result<()> {
    let count = arguments.count;
    let mut out = io::stdout().lock();
    if arguments.json {
        let cases = cases.iter().map(|(case, times)| (case.key.to_owned(), times.json()));
        let cases: serde_json::Map<_, _> = cases.collect();
        writeln!(out, "{}", json!({"cases": cases, "count": count, "lost": lost}))?;
        return Ok(());
    }
    writeln!(out, "Latency: {count} reverse shells a case, each from its connect; p50, p99 and the longest")?;
    for (case, CaseTimes { seen, on_disk, alone, alerts }) in cases {
        writeln!(out, "{}: {alerts} alerts", case.name)?;
        for (name, Times { p50, p99, max }) in
            [("alert in the log", seen), ("alert on disk", on_disk), ("the disk alone", alone)]
        {
            writeln!(out, "  {name:<26}{p50:>10.1} ms{p99:>10.1} ms{max:>10.1} ms")?;
        }
    }
    writeln!(out, "records lost: {lost}")?;
    Ok(())
}

/// The times of the alerts of a case.
struct CaseTimes {
    alerts: usize,
    /// Until the alert can be read in the log.
    seen: Times,
    /// Until it is on disk.
    on_disk: Times,
    /// What the disk takes for a line of that length.
    alone: Times,
}

impl CaseTimes {
    fn json(&self) -> serde_json::Value {
        let rounded = |ms: f64| (ms * 10.0).round() / 10.0;
        let times = |Times { p50, p99, max }: &Times| json!({"p50_ms": rounded(*p50), "p99_ms": rounded(*p99), "max_ms": rounded(*max)});
        json!({
            "alerts": self.alerts,
            "log": times(&self.seen),
            "disk": times(&self.on_disk),
            "disk_alone": times(&self.alone),
        })
    }
}

/// What a thousand times come to, in milliseconds.
struct Times {
    p50: f64,
    p99: f64,
    max: f64,
}

impl Times {
    fn new(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        let of = |percent| percentile(&times, percent);
        Self { p50: of(50), p99: of(99), max: of(100) }
    }
}

/// The packaged rules, but that the timed one is without flood control.
pub(super) fn rules() -> Result<TempDir> {
    let folder = tempfile::tempdir().context("no temporary folder")?;
    copy(&shell::root().join("packaging/rules"), folder.path())?;
    let path = folder.path().join(RULE);
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    ensure!(text.contains("\n[rule]\n"), "{}: no line `[rule]`", path.display());
    fs::write(&path, text.replacen("[rule]\n", UNLIMITED, 1)).with_context(|| path.display().to_string())?;
    Ok(folder)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| to.display().to_string())?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to)?;
        } else {
            fs::copy(&from, &to).with_context(|| from.display().to_string())?;
        }
    }
    Ok(())
}

/// The least of the times that so many of a hundred do not exceed; `times` are in order.
fn percentile(times: &[f64], percent: usize) -> f64 {
    let rank = (times.len() * percent).div_ceil(100);
    times.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// Seconds of the clock that perl reads too.
fn now() -> f64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// How far it is, on a terminal.
struct Progress {
    what: &'static str,
    count: u32,
    shown: bool,
}

impl Progress {
    fn new(what: &'static str, count: u32) -> Self {
        Self { what, count, shown: io::stderr().is_terminal() }
    }

    fn show(&self, number: u32) {
        if self.shown {
            // A closed standard error is no reason to stop.
            let _ = write!(io::stderr(), "\r{}: {number} of {}", self.what, self.count);
        }
    }

    fn end(&self) {
        if self.shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let times: Vec<f64> = (1..=1000).map(f64::from).collect();
        for (percent, expected) in [(50, 500.0), (99, 990.0), (100, 1000.0)] {
            assert_eq!(percentile(&times, percent), expected);
        }
        assert_eq!(percentile(&[7.0], 50), 7.0);
        assert!(percentile(&[], 99).is_nan());
    }
}
