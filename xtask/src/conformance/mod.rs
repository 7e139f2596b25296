//! `cargo xtask conformance FOLDER`: test suites of others, run by the agent itself.
//!
//! The suites are not ours and lie in a folder of the user's: Elasticsearch's for EQL, transcribed, and the data of a test
//! of Elastic's rare function. What passes is written down in `tests/conformance.passing`, and from then on has to pass.

mod agent;
mod queries;
mod rare;
mod ratchet;
mod series;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::json;

use self::agent::Agent;
use self::ratchet::Ratchet;
use crate::shell::say;
use crate::{build, shell};

#[derive(Args)]
pub(crate) struct Arguments {
    /// The folder with `elasticsearch` and `rare` in it
    folder: PathBuf,
    /// Writes down what passes, so that it has to from now on
    #[arg(long)]
    update: bool,
    /// One JSON object a line, for each suite
    #[arg(long)]
    json: bool,
    /// The agent that is tested; one is built unless named
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
}

/// What passes, a line each.
const PASSING: &str = "tests/conformance.passing";

/// A suite: its name, where it lies in the folder, and what runs it.
struct Suite {
    name: &'static str,
    path: &'static str,
    run: fn(&Agent, &Path) -> Result<Vec<Case>>,
}

const SUITES: &[Suite] = &[
    Suite { name: "sequences", path: "elasticsearch/sequences.series-spec", run: series::run },
    Suite { name: "extra", path: "elasticsearch/test_extra.toml", run: queries::extra },
    Suite {
        name: "missing_events",
        path: "elasticsearch/test_missing_events.toml",
        run: queries::missing_events,
    },
    Suite { name: "rare", path: "rare", run: rare::run },
];

/// A case of a suite that was run.
struct Case {
    name: String,
    /// What is not as it should be.
    difference: Option<String>,
}

impl Case {
    /// A case that passes where what is found is what is expected.
    fn compare<T: PartialEq + std::fmt::Debug>(name: &str, expected: &T, found: &Result<T>) -> Self {
        let difference = match found {
            Ok(found) if found == expected => None,
            Ok(found) => Some(format!("expected {expected:?}, found {found:?}")),
            Err(error) => Some(format!("{error:#}")),
        };
        Self { name: name.to_owned(), difference }
    }
}

/// Runs every suite and prints a count for each.
///
/// # Errors
/// Where a suite cannot be read, or a case fails that passed before.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let binary = match &arguments.agent {
        Some(binary) => binary.clone(),
        None => build::without_sensor()?,
    };
    let agent = Agent::new(binary)?;
    let passing = shell::root().join(PASSING);
    let mut ratchet = Ratchet::read(&passing)?;
    for suite in SUITES {
        let cases = (suite.run)(&agent, &arguments.folder.join(suite.path)).context(suite.path)?;
        let passed = cases.iter().filter(|case| case.difference.is_none()).count();
        if arguments.json {
            let failed = cases.iter().filter(|case| case.difference.is_some()).map(|case| &case.name);
            let failed: Vec<_> = failed.collect();
            let line = json!({"suite": suite.name, "cases": cases.len(), "passed": passed, "failed": failed});
            writeln!(std::io::stdout(), "{line}")?;
        } else {
            writeln!(std::io::stdout(), "{:<15} {passed} of {} pass", suite.name, cases.len())?;
        }
        for Case { name, difference } in cases {
            if let Some(difference) = &difference {
                say(&format!("{} {name}: {difference}", suite.name));
            }
            ratchet.turn(&format!("{} {name}", suite.name), difference.is_none());
        }
    }
    if arguments.update {
        ratchet.write(&passing)?;
    } else if !ratchet.gained().is_empty() {
        say(&format!("pass now, and --update writes it down:\n  {}", ratchet.gained().join("\n  ")));
    }
    match ratchet.lost().as_slice() {
        [] => Ok(()),
        lost => bail!("passed before, and no longer:\n  {}", lost.join("\n  ")),
    }
}
