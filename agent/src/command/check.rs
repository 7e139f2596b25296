//! `lapwing check`: what would go wrong, before it does.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use lapwing_engine::Schema;
use serde_json::json;

use super::{complain, print, styled};
use crate::config::{Config, DEFAULT_PATH};
use crate::{report, rules};

/// Check the configuration, the rules and this host before anything runs
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Check these rules alone
    #[arg(long, value_name = "PATH")]
    rules: Vec<PathBuf>,
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let paths =
        if args.rules.is_empty() { Config::read(&args.config)?.rules.paths } else { args.rules.clone() };
    let mut schema = Schema::new();
    let loaded = rules::load(&paths, &mut schema)?;
    let refused = loaded.reports.iter().filter(|found| found.is_fault()).count();
    if args.json {
        let faults: Vec<_> = loaded.reports.iter().flat_map(report::to_json).collect();
        print(&json!({"loaded": loaded.rules.len(), "refused": refused, "faults": faults.len(), "found": faults}).to_string())?;
    } else {
        loaded.reports.iter().for_each(|found| complain(&report::render(found, styled())));
        print(&format!("{} rules can run, {refused} files are refused", loaded.rules.len()))?;
    }
    Ok(if refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
