//! How many events a second one core judges. The measuring itself is a benchmark of the engine's crate, built as released
//! programs are; here it is only told where the packaged rules lie.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use crate::shell;

#[derive(Args)]
pub(crate) struct Arguments {
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
}

/// Builds, measures and prints.
///
/// # Errors
/// Where it does not build, rules cannot be read, or both engines do not find the same.
pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let mut cargo = shell::cargo();
    cargo.args(["bench", "--quiet", "--package", "lapwing-engine", "--bench", "engine", "--"]);
    cargo.arg("--packaged").arg(shell::root().join("packaging/rules"));
    for (name, number) in [
        ("--rounds", arguments.rounds as u64),
        ("--events", arguments.events as u64),
        ("--seed", arguments.seed),
    ] {
        cargo.args([name, &number.to_string()]);
    }
    if let Some(rules) = &arguments.rules {
        // cargo runs benchmarks in the folder of their crate.
        cargo.arg("--rules").arg(std::path::absolute(rules)?);
    }
    if let Some(case) = &arguments.case {
        cargo.args(["--case", case]);
    }
    for (flag, wanted) in [("--without-naive", arguments.without_naive), ("--json", arguments.json)] {
        cargo.args(wanted.then_some(flag));
    }
    let status = cargo.status()?;
    if !status.success() {
        bail!("the benchmark ended with {status}");
    }
    Ok(())
}
