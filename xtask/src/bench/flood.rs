//! Whether anything is lost in a flood: programs started at full speed on every processor and a thousand threads that
//! connect without end, and in it now and then a reverse shell that must be found.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use lapwing_stage::Hosts;

use super::agent::Agent;
use super::latency::{Attacker, REFUSED, rules};
use super::load::Load;
use super::{Which, wait_for_quiet};

#[derive(Args)]
pub(crate) struct Arguments {
    /// How long the flood lasts, in seconds
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// How many reverse shells are tried in it
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    needles: u32,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    which: Which,
    /// Only makes a part of the flood and prints how much of it; what the measurement itself calls
    #[arg(long, hide = true)]
    only: Option<Part>,
}

/// A part of the flood, a process of its own.
#[derive(Clone, Copy, ValueEnum)]
enum Part {
    /// One program after the other.
    Exec,
    /// Many threads, each one connection after the other.
    Connect,
}

/// Threads that connect.
const THREADS: usize = 1000;
/// Operations of a thread between two looks at the clock.
const STEP: usize = 20;
/// Bytes of a thread's stack.
const STACK_BYTES: usize = 64 * 1024;
/// How long alerts and counts may take to come after the flood.
const SETTLE_MAX: Duration = Duration::from_secs(60);

/// What came of it.
struct Outcome {
    execs: u64,
    connects: u64,
    records: u64,
    lost: u64,
    needles: usize,
    needles_found: usize,
    rss_mib: f64,
    cpu_percent: f64,
}

/// Measures and prints.
///
/// # Errors
/// Where this is not root, the agent does not start, a record was lost or a reverse shell was not found.
pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let length = Duration::from_secs(arguments.seconds);
    if let Some(part) = arguments.only {
        let done = part.flood(length)?;
        return Ok(writeln!(io::stdout(), "{done}")?);
    }
    let binary = arguments.which.binary()?;
    let rules = rules()?;
    wait_for_quiet();
    let outcome = measure(arguments, &Agent::start_with(&binary, rules.path())?)?;
    outcome.print(arguments.json)?;
    let Outcome { lost, needles, needles_found, .. } = outcome;
    ensure!(lost == 0, "{lost} records were lost");
    ensure!(needles == needles_found, "{} of {needles} needles were not found", needles - needles_found);
    Ok(())
}

fn measure(arguments: &Arguments, agent: &Agent) -> Result<Outcome> {
    let hosts = Hosts::new()?;
    let mut attacker = Attacker::first(&hosts)?;
    let parts = std::iter::repeat_n(Part::Exec, std::thread::available_parallelism()?.get());
    let (start, cpu) = (Instant::now(), agent.cpu_seconds()?);
    let mut flood = Vec::new();
    for part in parts.chain([Part::Connect]) {
        flood.push((part, part.start(arguments.seconds)?));
    }
    let mut rss_mib: f64 = 0.0;
    let mut needles = Vec::new();
    let length = Duration::from_secs(arguments.seconds);
    for number in 0..arguments.needles {
        // The first and the last have the flood around them too.
        let due = length.mul_f64((f64::from(number) + 0.5) / f64::from(arguments.needles));
        std::thread::sleep(due.saturating_sub(start.elapsed()));
        needles.push(attacker.attack(&REFUSED)?.0);
        rss_mib = rss_mib.max(agent.rss_mib()?);
    }
    let mut done = [0, 0];
    for (part, child) in flood {
        let output = child.wait_with_output().context("a part of the flood")?;
        let text = String::from_utf8_lossy(&output.stdout);
        done[part as usize] += text.trim().parse::<u64>().context("a part of the flood said nothing")?;
    }
    let cpu_percent = (agent.cpu_seconds()? - cpu) / start.elapsed().as_secs_f64() * 100.0;
    rss_mib = rss_mib.max(agent.rss_mib()?);
    let needles_found = found(agent, &needles)?;
    let [execs, connects] = done;
    let (records, lost) = (agent.records()?, agent.lost()?);
    let needles = needles.len();
    Ok(Outcome { execs, connects, records, lost, needles, needles_found, rss_mib, cpu_percent })
}

/// How many of these processes have an alert. It waits a while for all of them.
fn found(agent: &Agent, needles: &[u64]) -> Result<usize> {
    let start = Instant::now();
    loop {
        let mut alerted = agent.alerted()?;
        let is_alerted = |pid: &&u64| {
            // Pids are used again in a flood: each alert is for one.
            let place = alerted.iter().position(|alerted| alerted == *pid);
            place.map(|place| alerted.swap_remove(place)).is_some()
        };
        let count = needles.iter().filter(is_alerted).count();
        if count == needles.len() || start.elapsed() > SETTLE_MAX {
            return Ok(count);
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

impl Part {
    /// Starts it in a session of its own, for schedulers share out processors among sessions or services first, and then
    /// among their threads. A service has such a share, and the agent has it here.
    fn start(self, seconds: u64) -> Result<Child> {
        let name = self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        let mut command = Command::new("setsid");
        command.arg(std::env::current_exe()?);
        command.args(["bench", "flood", "--only", &name, "--seconds", &seconds.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("a part of the flood")
    }

    /// Floods for so long. Returns how many operations that were.
    fn flood(self, length: Duration) -> Result<u64> {
        let start = Instant::now();
        let work = |load: Load| {
            let mut done = 0;
            while start.elapsed() < length {
                done += load.run(STEP)?.len() as u64;
            }
            Ok(done)
        };
        match self {
            Self::Exec => work(Load::Exec),
            Self::Connect => std::thread::scope(|scope| {
                let thread = |_| {
                    let builder = std::thread::Builder::new().stack_size(STACK_BYTES);
                    builder.spawn_scoped(scope, || work(Load::Connect)).context("a thread")
                };
                let threads: Vec<_> = (0..THREADS).map(thread).collect::<Result<_>>()?;
                let done = threads.into_iter().map(|thread| thread.join().unwrap_or(Ok(0)));
                done.sum::<Result<u64>>()
            }),
        }
    }
}

impl Outcome {
    fn print(&self, as_json: bool) -> Result<()> {
        let Self { execs, connects, records, lost, needles, needles_found, rss_mib, cpu_percent } = self;
        let mut out = io::stdout().lock();
        if as_json || !out.is_terminal() {
            writeln!(
                out,
                "{{\"lost\":{lost},\"needles\":{needles},\"needles_found\":{needles_found},\"rss_mib\":{rss_mib:.1},\
                 \"execs\":{execs},\"connects\":{connects},\"records\":{records},\
                 \"agent_cpu_percent\":{cpu_percent:.1}}}"
            )?;
            return Ok(());
        }
        writeln!(out, "Flood")?;
        for (name, value) in [
            ("programs started", execs.to_string()),
            ("connections", connects.to_string()),
            ("records", records.to_string()),
            ("records lost", lost.to_string()),
            ("needles found", format!("{needles_found} of {needles}")),
            ("agent's processor time", format!("{cpu_percent:.1} %")),
            ("agent's memory", format!("{rss_mib:.1} MiB")),
        ] {
            writeln!(out, "  {name:<26}{value:>20}")?;
        }
        Ok(())
    }
}
