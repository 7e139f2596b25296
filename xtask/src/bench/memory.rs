//! What the agent's memory is made of: what it takes at rest, the maps of its kernel programs, and what each of the largest
//! owners takes for what it is charged with. `docs/limits.md` adds up the limits; a test holds the sum against the unit's.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;

use super::agent::Agent;
use super::{Which, wait_for_quiet};
use crate::shell::{self, say};

/// How long after its start the agent has settled.
const SETTLED: Duration = Duration::from_secs(30);

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
    /// A folder of rules; the packaged ones unless named
    #[arg(long, value_name = "FOLDER")]
    rules: Option<PathBuf>,
}

/// Measures and prints.
///
/// # Errors
/// Where it does not build or the agent does not start, or an owner takes more than is reckoned with.
pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let program = arguments.which.binary()?;
    let rules = arguments.rules.clone().unwrap_or_else(|| shell::root().join("packaging/rules"));
    wait_for_quiet();
    let agent = Agent::start_with(&program, &rules)?;
    let at_start = agent.rss_mib()?;
    std::thread::sleep(SETTLED);
    say(&format!("resident after the start: {at_start:.1} MiB; 30 s later: {:.1} MiB", agent.rss_mib()?));
    say(&format!("maps of the kernel programs: {:.1} MiB", agent.maps_mib()?));
    drop(agent);
    say("filling each of the largest owners");
    let mut cargo = shell::cargo();
    cargo.args(["test", "--quiet", "--package", "lapwing", "--bin", "lapwing", "--"]);
    cargo.args(["--exact", "budget::overhead::no_owner_exceeds_the_assumed_overhead", "--nocapture"]);
    let status = cargo.status()?;
    if !status.success() {
        bail!("an owner takes more than is reckoned with");
    }
    Ok(())
}
