//! How many events a second one core evaluates: `cargo xtask bench engine` builds and runs this.
//!
//! Each case runs in a process of its own, so that its memory is its own. A case is a kind of stream and a set of rules;
//! the engine and the naive one are shown the same events in turns, and the result is the median of the rounds.
//! Only showing events is measured: they are made before, as the sensor makes them, and dropped after. Time is the
//! thread's own processor time, because a benchmark on a shared machine would else measure the others too.

mod measure;
mod rules;
mod synthetic;

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use serde_json::Value as Json;

use self::measure::measure;

/// What is measured, and how.
#[derive(Clone, Debug, Parser)]
#[command(bin_name = "cargo xtask bench engine")]
struct Arguments {
    /// The packaged rules
    #[arg(long, value_name = "FOLDER", hide = true)]
    packaged: PathBuf,
    /// Where it was called, from which other folders are named
    #[arg(long, value_name = "FOLDER", hide = true, default_value = ".")]
    from: PathBuf,
    /// A folder of rules that are measured too, all of them and some of them
    #[arg(long, value_name = "FOLDER")]
    rules: Option<PathBuf>,
    /// Rounds of each case
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Events of each round
    #[arg(long, default_value_t = 100_000)]
    events: usize,
    /// What streams and synthetic rules are made from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only cases whose names contain this
    #[arg(long, value_name = "TEXT")]
    case: Option<String>,
    /// Leaves the naive engine out
    #[arg(long)]
    without_naive: bool,
    /// One JSON object a line instead of a table
    #[arg(long)]
    json: bool,
    /// Runs one case in this process; what the benchmark itself calls
    #[arg(long, hide = true)]
    alone: Option<usize>,
    /// What cargo calls every benchmark with
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let cases = rules::cases(arguments.rules.is_some());
    if let Some(case) = arguments.alone {
        let case = cases.get(case).context("there is no such case")?;
        return Ok(writeln!(std::io::stdout(), "{}", measure(case, arguments)?)?);
    }
    let wanted = |name: &str| arguments.case.as_ref().is_none_or(|part| name.contains(part.as_str()));
    let chosen: Vec<_> = cases.iter().enumerate().filter(|(_, case)| wanted(&case.name())).collect();
    if chosen.is_empty() {
        let names: Vec<_> = cases.iter().map(rules::Case::name).collect();
        bail!("no case is named so; there are {}", names.join(", "));
    }
    let mut out = std::io::stdout().lock();
    if !arguments.json {
        writeln!(
            out,
            "{:<24}{:>7}{:>12}{:>12}{:>8}{:>9}",
            "case", "rules", "events/s", "naive", "ratio", "MiB"
        )?;
    }
    for (done, (number, case)) in chosen.iter().enumerate() {
        if std::io::stderr().is_terminal() {
            say(&format!("{} of {}: {}", done + 1, chosen.len(), case.name()));
        }
        let line = child(*number)?;
        if arguments.json {
            writeln!(out, "{}", line.trim())?;
        } else {
            writeln!(out, "{}", row(&serde_json::from_str(&line)?))?;
        }
        out.flush()?;
    }
    Ok(())
}

/// Runs a case in a process of its own.
fn child(number: usize) -> Result<String> {
    let mut command = Command::new(std::env::current_exe()?);
    let output = command.args(std::env::args_os().skip(1)).args(["--alone", &number.to_string()]).output()?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn row(result: &Json) -> String {
    let number = |name: &str| result[name].as_f64();
    let whole = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| grouped(value as u64));
    format!(
        "{:<24}{:>7}{:>12}{:>12}{:>8}{:>9.1}",
        result["case"].as_str().unwrap_or_default(),
        whole(number("rules")),
        whole(number("events_per_second")),
        whole(number("naive_events_per_second")),
        number("ratio").map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.0}x")),
        number("rss_mib").unwrap_or(f64::NAN),
    )
}

/// A number with its thousands parted.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let lead = digits.len() % 3;
    let groups = digits.as_bytes()[lead..].chunks(3).map(|group| String::from_utf8_lossy(group).into_owned());
    [digits[..lead].to_owned()]
        .into_iter()
        .filter(|lead| !lead.is_empty())
        .chain(groups)
        .collect::<Vec<_>>()
        .join(",")
}

fn say(text: &str) {
    // Nowhere is left to report to when standard error is closed.
    let _ = writeln!(std::io::stderr(), "{text}");
}
