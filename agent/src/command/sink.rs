//! `lapwing sink`: manages the delivery of alerts.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;

use super::print;
use crate::config::{Config, DEFAULT_PATH};
use crate::sink;

/// Manage the delivery of alerts
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH, global = true)]
    config: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Send the dead letters of a sink again: the alerts that upstream rejected
    Retry {
        /// Name of the sink
        name: String,
    },
}

/// Requests a retry. The running agent, or the next one, does it, because it owns the files.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let config = Config::read(&args.config)?;
    let Verb::Retry { name } = &args.verb;
    if !config.sink.iter().any(|sink| sink.name() == name) {
        let names: Vec<_> = config.sink.iter().map(sink::Config::name).collect();
        bail!("no sink `{name}` in {}; its sinks are: {}", args.config.display(), names.join(", "));
    }
    let folder = config.dead_letters();
    let count = sink::retry(&folder, name).with_context(|| {
        format!("cannot write to {}; run as root, or as the agent's user", folder.display())
    })?;
    if count == 0 {
        print(&format!("sink {name}: no dead letters"))?;
    } else {
        print(&format!(
            "sink {name}: {count} dead letters will be sent again by the running agent, or when it starts; `lapwing \
             status` shows the rest"
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
