//! `cargo xtask bench exec`, `bench connect`, `bench latency`, `bench flood`, `bench overhead`, `bench soak`, `bench
//! memory`, `bench engine` and `bench noise`: the cost for the host's processes, the latency of alerts, losses,
//! long-term stability, the rate of the engine, and false alerts. `docs/benchmarks.md` has the results.

mod cost;
mod engine;
mod flood;
mod latency;
mod memory;
mod noise;
mod overhead;
mod soak;

mod agent;
mod load;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

use self::load::Load;
use crate::build;
use crate::shell::{self, say};

/// The measurement.
#[derive(Subcommand)]
pub(crate) enum Measurement {
    /// The additional time of fork, execve of /bin/true and wait with the agent
    Exec(cost::Arguments),
    /// The additional time of a connect over loopback with the agent
    Connect(cost::Arguments),
    /// The time from the cause of an alert to the alert on disk
    Latency(latency::Arguments),
    /// Losses, and detected reverse shells, on an overloaded host
    Flood(flood::Arguments),
    /// The costs of exec and connect, compared with other sensors on this machine
    Overhead(overhead::Arguments),
    /// Whether memory and the process table return to their size at rest after a long time of activity
    Soak(soak::Arguments),
    /// The memory of the agent at rest, and for each charged byte
    Memory(memory::Arguments),
    /// The events per second on one core, with few and with many rules
    #[command(disable_help_flag = true)]
    Engine(engine::Arguments),
    /// False alerts about benign work: builds, remote sessions, relays, services, jobs, containers
    Noise(noise::Arguments),
}

/// The maximum load of the machine before a measurement, and how long the benchmark waits for it.
const BUSY_MAX: f64 = 0.25;
const QUIET_WAIT: Duration = Duration::from_secs(60);

/// Measures and prints.
///
/// # Errors
/// The measurement is not possible on this machine.
pub(crate) fn run(measurement: &Measurement) -> Result<()> {
    match measurement {
        Measurement::Exec(arguments) => cost::run(Load::Exec, arguments),
        Measurement::Connect(arguments) => cost::run(Load::Connect, arguments),
        Measurement::Latency(arguments) => latency::run(arguments),
        Measurement::Flood(arguments) => flood::run(arguments),
        Measurement::Overhead(arguments) => overhead::run(arguments),
        Measurement::Soak(arguments) => soak::run(arguments),
        Measurement::Memory(arguments) => memory::run(arguments),
        Measurement::Engine(arguments) => engine::run(arguments),
        Measurement::Noise(arguments) => noise::run(arguments),
    }
}

/// The agent under measurement.
#[derive(Args)]
struct Which {
    /// The agent to measure. Default: one is built
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
}

impl Which {
    /// Its path.
    ///
    /// # Errors
    /// This does not run as root, or the build fails.
    fn binary(&self) -> Result<PathBuf> {
        if !shell::is_root() {
            bail!("measuring the agent needs root: run `sudo -E cargo xtask bench …`");
        }
        match &self.agent {
            Some(agent) => Ok(agent.clone()),
            None => build::run(&build::Arguments { release: true, ..build::Arguments::default() }),
        }
    }
}

/// Waits until the machine has little other load, up to a time limit.
fn wait_for_quiet() {
    let start = Instant::now();
    while start.elapsed() < QUIET_WAIT {
        let Some((busy, total)) = processor_ticks() else { return };
        std::thread::sleep(Duration::from_secs(2));
        let Some((busy_after, total_after)) = processor_ticks() else { return };
        if (busy_after - busy) / (total_after - total).max(1.0) < BUSY_MAX {
            return;
        }
    }
    say("the machine is busy with other things; expect more spread");
}

fn processor_ticks() -> Option<(f64, f64)> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let ticks: Vec<f64> =
        stat.lines().next()?.split_whitespace().skip(1).filter_map(|ticks| ticks.parse().ok()).collect();
    let (total, idle) = (ticks.iter().sum::<f64>(), ticks.get(3)? + ticks.get(4)?);
    Some((total - idle, total))
}
