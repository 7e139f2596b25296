//! `lapwing test`: the tests that lie beside rules.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use lapwing_engine::Schema;
use serde_json::json;

use super::{print, tell_reports};
use crate::config::{Config, DEFAULT_PATH};
use crate::fixture::Fixture;
use crate::rules;

/// Run the tests that lie beside rules
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Rules to test instead of those of the configuration
    #[arg(value_name = "PATH")]
    rules: Vec<PathBuf>,
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// One JSON object a line: each test and then the counts
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let paths =
        if args.rules.is_empty() { Config::read(&args.config)?.rules.paths } else { args.rules.clone() };
    let mut schema = Schema::new();
    let loaded = rules::load(&paths, &mut schema)?;
    tell_reports(&loaded.reports);
    let faults = loaded.refused();
    let schema = Arc::new(schema);
    let (mut passed, mut failed, mut untested) = (0, 0, 0);
    for rule in &loaded.rules {
        let fixture = Fixture::read(Path::new(&*rule.file))?;
        untested += usize::from(fixture.tests.is_empty());
        for test in &fixture.tests {
            let difference = match fixture.run(test, rule, &schema) {
                Ok(difference) => difference,
                Err(error) => Some(format!("the test cannot be run: {error:#}")),
            };
            passed += usize::from(difference.is_none());
            failed += usize::from(difference.is_some());
            if args.json {
                print(&json!({"rule": rule.name, "test": test.name, "failure": difference}).to_string())?;
            } else if let Some(difference) = difference {
                print(&format!("FAILED {}: {}\n       {difference}", rule.name, test.name))?;
            }
        }
    }
    if args.json {
        let counts =
            json!({"passed": passed, "failed": failed, "untested_rules": untested, "faults": faults});
        print(&counts.to_string())?;
    } else {
        let rules = loaded.rules.len();
        print(&format!(
            "{passed} passed, {failed} failed; {untested} of {rules} rules have no test, {faults} files are wrong"
        ))?;
    }
    Ok(if failed + faults == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
