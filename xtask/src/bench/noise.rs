//! What the rules alert of benign work: what hosts do all day, by real programs on two hosts, with the agent beside it. A rule
//! of ours raises nothing there. The work is data: `noise/workload.toml`.

mod alerts;
mod crew;
mod report;
mod stage;
mod tally;
mod workload;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;

use self::crew::Crew;
use self::report::Report;
use self::stage::Stage;
use self::tally::Tally;
use self::workload::Workload;
use super::Which;
use super::agent::Agent;
use crate::needs;

#[derive(Args)]
pub(crate) struct Arguments {
    /// How often each act is done, as a part of a whole run; each is done once at least
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Only acts of these classes, and those that are named
    #[arg(long, value_name = "NAME")]
    class: Vec<String>,
    /// Only these acts, and those of classes that are named
    #[arg(long, value_name = "NAME")]
    act: Vec<String>,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    which: Which,
}

/// How long after the last act alerts may still come: a rule waits for what does not happen, and programs are hashed.
const SETTLE: Duration = Duration::from_secs(10);

/// Does the work and prints what was alerted.
///
/// # Errors
/// Where this is not root, the agent does not start, a rule of ours alerted, or an act never succeeded.
pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let binary = arguments.which.binary()?;
    let mut workload = Workload::read()?;
    workload.keep(&arguments.class, &arguments.act)?;
    needs::install_programs(&workload.programs())?;
    let skipped = workload.skip_what_lacks_programs();
    let agent = Agent::start(&binary)?;
    let stage = Stage::new(&workload)?;
    let tallies = [Tally::of_execs(&agent, &stage)?, Tally::of_connects(&agent)?];
    let (records, lost, start) = (agent.records()?, agent.lost()?, Instant::now());
    let mut crew = Crew::new(&stage, &workload, arguments.scale);
    crew.start_servers()?;
    let turns = crew.work()?;
    let seconds = start.elapsed().as_secs_f64();
    std::thread::sleep(SETTLE);
    let (records, lost, suppressed) = (agent.records()? - records, agent.lost()? - lost, agent.suppressed()?);
    let [execs, connects] = tallies.map(Tally::end);
    let counts = Counts { execs: execs?, connects: connects?, records, lost, suppressed };
    let report = Report::new(alerts::read(&agent, &stage, &turns)?, counts, seconds, turns, skipped);
    drop(stage);
    report.print(arguments.json)?;
    let ours: BTreeSet<_> = report.ours().map(|alert| alert.rule.as_str()).collect();
    ensure!(
        ours.is_empty(),
        "benign work was alerted by {}",
        ours.into_iter().collect::<Vec<_>>().join(", ")
    );
    let never: Vec<_> = report.never().collect();
    ensure!(never.is_empty(), "these acts never succeeded: {}", never.join(", "));
    Ok(())
}

/// What the agent counted.
struct Counts {
    /// Programs that started on the hosts.
    execs: u64,
    /// Connections that were made between them.
    connects: u64,
    /// Records of the whole machine, and those that were lost.
    records: u64,
    lost: u64,
    /// Alerts beyond what a rule may raise in its interval.
    suppressed: u64,
}
