//! `lapwing sink`: what operators do about delivery.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;

use super::print;
use crate::config::{Config, DEFAULT_PATH};
use crate::sink;

/// Have a sink send again what upstream refused
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH, global = true)]
    config: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Send the alerts again that upstream refused, which are in the folder `dead-letters` of the state directory
    Retry {
        /// The name of the sink
        name: String,
    },
}

/// Runs it. The agent that runs does the work, or else the next one: the files are its own.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let config = Config::read(&args.config)?;
    let Verb::Retry { name } = &args.verb;
    if !config.sink.iter().any(|sink| sink.name() == name) {
        let names: Vec<_> = config.sink.iter().map(sink::Config::name).collect();
        bail!("there is no sink `{name}` in {}; there are: {}", args.config.display(), names.join(", "));
    }
    let folder = config.state_dir.join("dead-letters");
    let count = sink::retry(&folder, name).with_context(|| {
        format!("cannot write to {}; run as root, or as the agent's user", folder.display())
    })?;
    if count == 0 {
        print(&format!("sink {name}: there are no alerts that upstream refused"))?;
    } else {
        print(&format!(
            "sink {name}: {count} alerts are sent again by the agent that runs, or when it is started; `lapwing status` \
             shows what is left"
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
