//! `lapwing run`: the agent, in the foreground.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use crate::config::{Config, DEFAULT_PATH};
use crate::{log, pipeline};

/// Run the agent in the foreground
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
}

/// Runs it.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let (config, warnings) = Config::read_with_warnings(&args.config)?;
    log::start(config.log);
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    pipeline::run(&config, &args.config)?;
    Ok(ExitCode::SUCCESS)
}
