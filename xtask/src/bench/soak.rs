//! Whether the agent stays as it is: its memory over a long time in which processes come and go at a steady rate, and
//! whether it then knows those that live, and no others.

mod churn;

use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::Which;
use super::agent::{Agent, Processes};
use crate::shell::say;

#[derive(Args)]
pub(crate) struct Arguments {
    /// How long processes come and go, in seconds
    #[arg(long, default_value_t = 1800, value_parser = clap::value_parser!(u64).range(30..))]
    seconds: u64,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    which: Which,
    /// Only makes processes come and go; what the measurement itself calls
    #[arg(long, hide = true)]
    only_churn: bool,
}

/// How often memory is looked at.
const SAMPLE_EVERY: Duration = Duration::from_secs(5);
/// The part of the time that is left out at first: tables and buffers fill and grow to what they need, and so do the parts
/// of the program and of the rings that were touched.
const WARM_UP_PART: u32 = 3;
/// How often it is said how it goes.
const SAY_EVERY: Duration = Duration::from_secs(300);
/// How long after its last process the table may take to forget: what ended is kept for half a minute, and what ended
/// unseen is looked for every minute.
const FORGET_MAX: Duration = Duration::from_secs(120);
/// By how many the processes may differ: those that others begin and end between the two looks.
const DIFFERENCE_MAX: u64 = 8;
/// The most by which memory may grow and still be called flat.
const SLOPE_MAX_KIB: f64 = 16.0;

/// What came of it.
struct Outcome {
    /// Memory over time: seconds since the start, and KiB.
    samples: Vec<(f64, f64)>,
    /// The samples of these that count begin here, in seconds.
    warm: f64,
    acts: u64,
    records: u64,
    lost: u64,
    before: Processes,
    after: Processes,
    /// Processes that live at the end, as `/proc` shows them.
    live: u64,
}

/// Measures and prints.
///
/// # Errors
/// Where this is not root, the agent does not start, a record was lost, memory grew, or the table did not forget.
pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let length = Duration::from_secs(arguments.seconds);
    if arguments.only_churn {
        return Ok(writeln!(io::stdout(), "{}", churn::run(length)?)?);
    }
    let outcome = measure(arguments, &Agent::start(&arguments.which.binary()?)?)?;
    outcome.print(arguments.json)?;
    let Outcome { lost, before, after, live, .. } = outcome;
    ensure!(lost == 0, "{lost} records were lost");
    let slope = outcome.slope();
    ensure!(slope <= SLOPE_MAX_KIB, "memory grows by {slope:.1} KiB a minute");
    let (alive, parents) = (after.alive, after.parents());
    ensure!(is_close(alive, live), "the table holds {alive} processes as alive, and {live} are");
    ensure!(is_close(parents, before.parents()), "the table holds {parents} processes for their children");
    Ok(())
}

fn measure(arguments: &Arguments, agent: &Agent) -> Result<Outcome> {
    let before = agent.processes()?;
    let start = Instant::now();
    let mut churn = Command::new("setsid")
        .arg(std::env::current_exe()?)
        .args(["bench", "soak", "--only-churn", "--seconds", &arguments.seconds.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("setsid")?;
    let length = Duration::from_secs(arguments.seconds);
    let (mut samples, mut said) = (Vec::new(), start);
    while start.elapsed() < length && churn.try_wait()?.is_none() {
        let kib = agent.rss_mib()? * 1024.0;
        samples.push((start.elapsed().as_secs_f64(), kib));
        if said.elapsed() >= SAY_EVERY {
            said = Instant::now();
            say(&format!("{:.0} min: {kib:.0} KiB", start.elapsed().as_secs_f64() / 60.0));
        }
        std::thread::sleep(SAMPLE_EVERY);
    }
    let text = String::from_utf8(churn.wait_with_output()?.stdout)?;
    let acts = text.trim().parse().context("what makes processes come and go said nothing")?;
    let (after, live) = settle(agent, before)?;
    let warm = (length / WARM_UP_PART).as_secs_f64();
    let (records, lost) = (agent.records()?, agent.lost()?);
    Ok(Outcome { samples, warm, acts, records, lost, before, after, live })
}

/// Waits until the table holds those processes that live, and beside what ended just now no more others than before: what
/// others do on this host has its parents too. Returns what it holds and how many live then, or at last.
fn settle(agent: &Agent, before: Processes) -> Result<(Processes, u64)> {
    let start = Instant::now();
    loop {
        let (held, live) = (agent.processes()?, live()?);
        let is_back = is_close(held.alive, live) && is_close(held.parents(), before.parents());
        if is_back || start.elapsed() > FORGET_MAX + churn::rest() {
            return Ok((held, live));
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn is_close(held: u64, live: u64) -> bool {
    held.abs_diff(live) <= DIFFERENCE_MAX
}

/// How many processes this host has, without those that have ended and wait for their parent to hear of it.
fn live() -> Result<u64> {
    let mut count = 0;
    for entry in fs::read_dir("/proc").context("/proc")? {
        let path = entry?.path();
        let is_process = path.file_name().is_some_and(|name| name.as_encoded_bytes()[0].is_ascii_digit());
        // One that is gone meanwhile does not live.
        let stat = if is_process { fs::read_to_string(path.join("stat")).ok() } else { None };
        let state = stat.as_deref().and_then(|stat| stat.rsplit_once(") ")?.1.chars().next());
        count += u64::from(state.is_some_and(|state| !matches!(state, 'Z' | 'X')));
    }
    Ok(count)
}

impl Outcome {
    fn warm(&self) -> impl Iterator<Item = (f64, f64)> {
        self.samples.iter().copied().filter(|(time, _)| *time >= self.warm)
    }

    /// By how many KiB memory grows in a minute, by least squares.
    fn slope(&self) -> f64 {
        slope(self.warm()) * 60.0
    }

    fn print(&self, as_json: bool) -> Result<()> {
        let Self { acts, records, lost, before, after, live, .. } = self;
        let memory: Vec<f64> = self.warm().map(|(_, kib)| kib).collect();
        let first = memory.first().copied().unwrap_or_default();
        let last = memory.last().copied().unwrap_or_default();
        let most = memory.iter().copied().fold(0.0, f64::max);
        let slope = self.slope();
        let mut out = io::stdout().lock();
        if as_json || !out.is_terminal() {
            writeln!(
                out,
                "{{\"rss_slope_kib_per_minute\":{slope:.2},\"rss_first_kib\":{first:.0},\"rss_last_kib\":{last:.0},\
                 \"rss_max_kib\":{most:.0},\"acts\":{acts},\"records\":{records},\"lost\":{lost},\
                 \"processes_before\":{},\"processes_kept\":{},\"processes_alive\":{},\"processes_ended\":{},\
                 \"processes_live\":{live}}}",
                before.kept, after.kept, after.alive, after.ended
            )?;
            return Ok(());
        }
        writeln!(out, "Soak")?;
        for (name, value) in [
            ("memory, growth a minute", format!("{slope:.2} KiB")),
            ("memory, after the warm-up", format!("{first:.0} KiB")),
            ("memory, at the end", format!("{last:.0} KiB")),
            ("memory, at most", format!("{most:.0} KiB")),
            ("acts", acts.to_string()),
            ("records", records.to_string()),
            ("records lost", lost.to_string()),
            ("processes kept, before", before.kept.to_string()),
            ("processes kept, after", after.kept.to_string()),
            ("of which alive", after.alive.to_string()),
            ("of which ended just now", after.ended.to_string()),
            ("processes that live", live.to_string()),
        ] {
            writeln!(out, "  {name:<26}{value:>20}")?;
        }
        Ok(())
    }
}

/// The slope of the line that is nearest to these points, by least squares.
fn slope(points: impl Iterator<Item = (f64, f64)>) -> f64 {
    let points: Vec<_> = points.collect();
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let together: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let spread: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    if spread > 0.0 { together / spread } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::slope;

    #[test]
    fn the_slope_is_that_of_the_nearest_line() {
        for (points, wanted) in [
            (&[][..], 0.0),
            (&[(1.0, 5.0)][..], 0.0),
            (&[(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)][..], 2.0),
            (&[(0.0, 1.0), (1.0, 0.0), (2.0, 1.0)][..], 0.0),
        ] {
            assert!((slope(points.iter().copied()) - wanted).abs() < 1e-9, "{points:?}");
        }
    }
}
