//! What the agent costs the processes of the host, and the host.
//!
//! Each run with the agent lies between two without it, and the result is the median over these of the difference to
//! the mean of the two: on a machine that others use too, single runs differ by more than what is measured, and slowly.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;

use super::agent::Agent;
use super::load::Load;
use super::{Which, wait_for_quiet};
use crate::shell::{self, say};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Runs with the agent, each between two without it
    #[arg(long, default_value_t = 9)]
    pairs: usize,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    which: Which,
    /// Only runs the load and prints each time in nanoseconds; what the measurement itself calls
    #[arg(long, hide = true)]
    only_load: bool,
}

const BPF_STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// One run's times, in nanoseconds.
#[derive(Clone, Copy)]
pub(super) struct Run {
    pub(super) mean: f64,
    pub(super) p50: f64,
}

/// A run between two others: how much longer it took than they did.
#[derive(Clone, Copy)]
pub(super) struct Pair {
    pub(super) without: Run,
    pub(super) with: Run,
}

impl Pair {
    pub(super) fn new([before, after]: [Run; 2], with: Run) -> Self {
        let middle = |of: fn(&Run) -> f64| f64::midpoint(of(&before), of(&after));
        Self { without: Run { mean: middle(|run| run.mean), p50: middle(|run| run.p50) }, with }
    }

    pub(super) fn added(&self) -> f64 {
        self.with.mean - self.without.mean
    }

    pub(super) fn added_p50(&self) -> f64 {
        self.with.p50 - self.without.p50
    }
}

/// What the agent showed during one run of the load.
struct Cost {
    cpu_percent: f64,
    rss_mib: f64,
    lost: u64,
}

/// Measures and prints.
///
/// # Errors
/// Where this is not root, or the agent does not start.
pub(super) fn run(load: Load, arguments: &Arguments) -> Result<()> {
    if arguments.only_load {
        let mut out = std::io::stdout().lock();
        for time in load.run(load.count())? {
            writeln!(out, "{}", time.as_nanos())?;
        }
        return Ok(());
    }
    let binary = arguments.which.binary()?;
    let (mut pairs, mut costs) = (Vec::new(), Vec::new());
    wait_for_quiet();
    let mut before = measure(load)?;
    for number in 1..=arguments.pairs.max(1) {
        let (with, cost) = measure_with(load, &binary)?;
        wait_for_quiet();
        let after = measure(load)?;
        let pair = Pair::new([before, after], with);
        say(&format!(
            "pair {number}: mean {:.1} -> {:.1} µs, p50 {:.1} -> {:.1} µs",
            pair.without.mean / 1e3,
            with.mean / 1e3,
            pair.without.p50 / 1e3,
            with.p50 / 1e3
        ));
        pairs.push(pair);
        costs.push(cost);
        before = after;
    }
    let bpf_nanos = bpf_nanos(load, &binary)?;
    print(load, arguments, &pairs, &costs, bpf_nanos)
}

fn print(load: Load, arguments: &Arguments, pairs: &[Pair], costs: &[Cost], bpf_nanos: f64) -> Result<()> {
    let median_of = |of: fn(&Pair) -> f64| median(pairs.iter().map(of).collect());
    let (added, added_p50) = (median_of(Pair::added), median_of(Pair::added_p50));
    let base = median_of(|pair| pair.without.mean);
    let percent = added / base * 100.0;
    let cpu = median(costs.iter().map(|cost| cost.cpu_percent).collect());
    let rss = costs.iter().map(|cost| cost.rss_mib).fold(0.0, f64::max);
    let lost: u64 = costs.iter().map(|cost| cost.lost).sum();
    let mut out = std::io::stdout().lock();
    if arguments.json {
        writeln!(
            out,
            "{{\"added_ns\":{added:.0},\"added_percent\":{percent:.2},\"added_p50_ns\":{added_p50:.0},\
             \"base_ns\":{base:.0},\"bpf_ns\":{bpf_nanos:.0},\"agent_cpu_percent\":{cpu:.1},\
             \"rss_mib\":{rss:.1},\"lost\":{lost}}}"
        )?;
        return Ok(());
    }
    writeln!(out, "{:?}: {} operations a run, {} pairs", load, load.count(), pairs.len())?;
    for (name, value) in [
        ("without the agent, mean", format!("{:.1} µs", base / 1e3)),
        ("added, mean", format!("{:.1} µs ({percent:.1} %)", added / 1e3)),
        ("added, p50", format!("{:.1} µs", added_p50 / 1e3)),
        ("of it in kernel programs", format!("{:.2} µs", bpf_nanos / 1e3)),
        ("agent's processor time", format!("{cpu:.1} %")),
        ("agent's memory", format!("{rss:.1} MiB")),
        ("records lost", lost.to_string()),
    ] {
        writeln!(out, "  {name:<26}{value:>20}")?;
    }
    Ok(())
}

/// Runs the load in a process of its own, so that nothing of this one is measured.
///
/// # Errors
/// The load fails.
pub(super) fn measure(load: Load) -> Result<Run> {
    let name = format!("{load:?}").to_lowercase();
    let mut command = std::process::Command::new(std::env::current_exe()?);
    let output = shell::output(command.args(["bench", &name, "--only-load"]))?;
    let times: Vec<f64> = output.lines().filter_map(|line| line.parse().ok()).collect();
    let middle = times.get(times.len() / 2).context("the load printed no times")?;
    Ok(Run { mean: times.iter().sum::<f64>() / times.len() as f64, p50: *middle })
}

fn measure_with(load: Load, binary: &Path) -> Result<(Run, Cost)> {
    let agent = Agent::start(binary)?;
    let (start, cpu) = (Instant::now(), agent.cpu_seconds()?);
    let run = measure(load)?;
    let used = agent.cpu_seconds()? - cpu;
    let cpu_percent = used / start.elapsed().as_secs_f64() * 100.0;
    let rss_mib = agent.rss_mib()?;
    Ok((run, Cost { cpu_percent, rss_mib, lost: agent.lost()? }))
}

/// What the kernel programs take of one operation, by the kernel's own count. What the rest of the host does in that
/// time is measured before and subtracted.
fn bpf_nanos(load: Load, binary: &Path) -> Result<f64> {
    let before = std::fs::read_to_string(BPF_STATS).context(BPF_STATS)?;
    std::fs::write(BPF_STATS, "1").context(BPF_STATS)?;
    let measured = (|| {
        let agent = Agent::start(binary)?;
        let (idle_start, idle_nanos) = (Instant::now(), agent.bpf_nanos()?);
        std::thread::sleep(Duration::from_secs(2));
        let idle_rate = (agent.bpf_nanos()? - idle_nanos) as f64 / idle_start.elapsed().as_secs_f64();
        let (start, nanos) = (Instant::now(), agent.bpf_nanos()?);
        measure(load)?;
        let used = (agent.bpf_nanos()? - nanos) as f64 - idle_rate * start.elapsed().as_secs_f64();
        Ok(used / load.count() as f64)
    })();
    std::fs::write(BPF_STATS, before.trim()).context(BPF_STATS)?;
    measured
}

/// The middle one.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
