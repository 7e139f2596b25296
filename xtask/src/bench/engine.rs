//! How many events a second one core evaluates. The measurement is a benchmark of the engine's crate, built in release
//! mode; this only passes the folder of the packaged rules and the working directory.

use std::ffi::OsString;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::shell;

#[derive(Args)]
pub(crate) struct Arguments {
    /// What the benchmark takes: `cargo xtask bench engine --help`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Builds, measures and prints.
///
/// # Errors
/// Where it does not build, rules cannot be read, or both engines do not find the same.
pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let mut cargo = shell::cargo();
    cargo.args(["bench", "--quiet", "--package", "lapwing-engine", "--bench", "engine", "--"]);
    cargo.arg("--packaged").arg(shell::root().join("packaging/rules"));
    // cargo runs benchmarks in the folder of their crate.
    cargo.arg("--from").arg(std::env::current_dir().context("there is no current folder")?);
    let status = cargo.args(&arguments.arguments).status()?;
    if !status.success() {
        bail!("the benchmark ended with {status}");
    }
    Ok(())
}
