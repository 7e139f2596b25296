//! `lapwing run`: the agent, in the foreground.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use crate::config::{Config, DEFAULT_PATH};
use crate::{log, pipeline};

/// Run the agent in the foreground
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
}

/// Runs it.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let config = Config::read(&args.config)?;
    log::start(config.log);
    pipeline::run(&config, &args.config)?;
    Ok(ExitCode::SUCCESS)
}
