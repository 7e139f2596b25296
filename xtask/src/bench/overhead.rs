//! What Lapwing costs beside other sensors that are found on this machine, all measured in one run and in the same way.
//!
//! In each round every sensor has its turn: both loads with it, between both without it. The result is the median over
//! the rounds of the difference, so that what the machine does meanwhile is the same for all of them.

mod sensor;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use clap::Args;

use self::sensor::{Kind, Sensor};
use super::Which;
use super::cost::{Pair, Run, measure, median};
use super::load::Load;
use super::wait_for_quiet;
use crate::shell::say;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Rounds, in each of which every sensor is measured once
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Only these sensors
    #[arg(long, value_enum)]
    only: Vec<Kind>,
    /// One JSON object a sensor instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    which: Which,
}

/// What one turn of a sensor showed.
struct Turn {
    exec: Pair,
    connect: Pair,
    cpu_percent: f64,
    rss_mib: f64,
    lost: u64,
}

/// Measures and prints.
///
/// # Errors
/// Where this is not root, or a sensor that is there does not start.
pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let binary = arguments.which.binary()?;
    let wanted = |kind: &Kind| arguments.only.is_empty() || arguments.only.contains(kind);
    let mut turns: Vec<(Kind, Vec<Turn>)> = Vec::new();
    for kind in Kind::ALL.into_iter().filter(wanted) {
        match kind.missing() {
            Some(cure) => say(&cure),
            None => turns.push((kind, Vec::new())),
        }
    }
    wait_for_quiet();
    let mut before = both()?;
    for round in 1..=arguments.rounds {
        for (kind, turns) in &mut turns {
            let turn = turn(*kind, &binary, &mut before)?;
            let [exec, connect] = [&turn.exec, &turn.connect].map(|pair| pair.added() / 1e3);
            say(&format!(
                "round {round}, {}: {exec:+.1} µs an exec, {connect:+.2} µs a connect",
                kind.name()
            ));
            turns.push(turn);
        }
    }
    print(&turns, arguments.json)
}

/// Runs both loads.
fn both() -> Result<[Run; 2]> {
    Ok([measure(Load::Exec)?, measure(Load::Connect)?])
}

/// Measures a sensor, after runs `before` it and before those that are there afterwards.
fn turn(kind: Kind, binary: &Path, before: &mut [Run; 2]) -> Result<Turn> {
    let sensor = Sensor::start(kind, binary)?;
    let (start, cpu) = (Instant::now(), sensor.cpu_seconds()?);
    let with = both()?;
    let cpu_percent = (sensor.cpu_seconds()? - cpu) / start.elapsed().as_secs_f64() * 100.0;
    let (rss_mib, lost) = (sensor.rss_mib()?, sensor.lost()?);
    drop(sensor);
    wait_for_quiet();
    let after = both()?;
    let [exec, connect] = [0, 1].map(|load| Pair::new([before[load], after[load]], with[load]));
    *before = after;
    Ok(Turn { exec, connect, cpu_percent, rss_mib, lost })
}

fn print(turns: &[(Kind, Vec<Turn>)], as_json: bool) -> Result<()> {
    let mut out = io::stdout().lock();
    let as_json = as_json || !out.is_terminal();
    if !as_json {
        writeln!(
            out,
            "{:<10}{:>12}{:>8}{:>14}{:>8}{:>10}{:>8}",
            "", "an exec", "", "a connect", "cpu", "memory", "lost"
        )?;
    }
    for (kind, turns) in turns {
        let median_of = |of: fn(&Turn) -> f64| median(turns.iter().map(of).collect());
        let (exec, connect) = (median_of(|turn| turn.exec.added()), median_of(|turn| turn.connect.added()));
        let percent = exec / median_of(|turn| turn.exec.without.mean) * 100.0;
        let exec_p50 = median_of(|turn| turn.exec.added_p50());
        let connect_p50 = median_of(|turn| turn.connect.added_p50());
        let cpu = median_of(|turn| turn.cpu_percent);
        let rss = turns.iter().map(|turn| turn.rss_mib).fold(0.0, f64::max);
        let lost: u64 = turns.iter().map(|turn| turn.lost).sum();
        let name = kind.name();
        if as_json {
            writeln!(
                out,
                "{{\"sensor\":\"{name}\",\"exec_added_ns\":{exec:.0},\"exec_added_percent\":{percent:.2},\
                 \"exec_added_p50_ns\":{exec_p50:.0},\"connect_added_ns\":{connect:.0},\
                 \"connect_added_p50_ns\":{connect_p50:.0},\"cpu_percent\":{cpu:.1},\"rss_mib\":{rss:.1},\
                 \"lost\":{lost}}}"
            )?;
        } else {
            let (exec, connect) = (exec / 1e3, connect / 1e3);
            writeln!(
                out,
                "{name:<10}{exec:>9.1} µs{percent:>6.1} %{connect:>11.2} µs{cpu:>6.1} %{rss:>6.1} MiB{lost:>8}"
            )?;
        }
    }
    Ok(())
}
