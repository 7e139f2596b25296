//! `cargo xtask bench exec`, `bench connect`, `bench latency`, `bench flood`, `bench overhead`, `bench soak`, `bench memory`,
//! `bench engine` and `bench noise`: what the agent costs the processes of the host, how soon it alerts, what it loses, whether it stays
//! as it is, how many events it can evaluate, and what it alerts where nothing is wrong. `docs/benchmarks.md` says what came out where.

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

/// What is measured.
#[derive(Subcommand)]
pub(crate) enum Measurement {
    /// What a fork, execve of /bin/true and wait takes more with the agent
    Exec(cost::Arguments),
    /// What a connect over loopback takes more with the agent
    Connect(cost::Arguments),
    /// What passes from the cause of an alert to the alert on disk
    Latency(latency::Arguments),
    /// What is lost, and whether reverse shells are found, while more happens than a host can do
    Flood(flood::Arguments),
    /// What it costs beside other sensors that are found on this machine
    Overhead(overhead::Arguments),
    /// Whether memory stays flat over a long time in which processes come and go, and the process table returns
    Soak(soak::Arguments),
    /// What the agent takes at rest, and what is taken for what is charged
    Memory(memory::Arguments),
    /// How many events a second one core evaluates, with few rules and with many
    #[command(disable_help_flag = true)]
    Engine(engine::Arguments),
    /// What the rules alert of benign work: builds, remote sessions, relays, services, jobs, containers
    Noise(noise::Arguments),
}

/// How busy the machine may be before a measurement begins, and how long that is waited for.
const BUSY_MAX: f64 = 0.25;
const QUIET_WAIT: Duration = Duration::from_secs(60);

/// Measures and prints.
///
/// # Errors
/// Where something cannot be measured here.
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
    /// The agent that is measured; one is built unless named
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
}

impl Which {
    /// Where it lies.
    ///
    /// # Errors
    /// Where this is not root, or what does not build.
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

/// Waits until the machine has little else to do, for a while; then measures all the same.
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
