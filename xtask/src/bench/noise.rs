//! What the rules alert of benign work: what hosts do all day, by real programs on two hosts, with the agent beside it. A rule
//! of ours raises nothing there. The work is data: `noise/workload.toml`.

mod alerts;
mod crew;
mod report;
mod stage;
mod workload;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;

use self::crew::Crew;
use self::report::Report;
use self::stage::Stage;
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
    let before = Counts::of(&agent)?;
    let start = Instant::now();
    let mut crew = Crew::new(&stage, &workload, arguments.scale);
    crew.start_servers()?;
    let turns = crew.work()?;
    let seconds = start.elapsed().as_secs_f64();
    std::thread::sleep(SETTLE);
    let counts = Counts::of(&agent)?.since(&before);
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
    execs: u64,
    connects: u64,
    accepts: u64,
    records: u64,
    lost: u64,
    suppressed: u64,
}

impl Counts {
    fn of(agent: &Agent) -> Result<Self> {
        Ok(Self {
            execs: agent.records_of("exec")?,
            connects: agent.records_of("connect")?,
            accepts: agent.records_of("accept")?,
            records: agent.records()?,
            lost: agent.lost()?,
            suppressed: agent.suppressed()?,
        })
    }

    fn since(self, before: &Self) -> Self {
        Self {
            execs: self.execs - before.execs,
            connects: self.connects - before.connects,
            accepts: self.accepts - before.accepts,
            records: self.records - before.records,
            lost: self.lost - before.lost,
            suppressed: self.suppressed - before.suppressed,
        }
    }
}
