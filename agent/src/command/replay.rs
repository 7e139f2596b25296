//! `lapwing replay`: recorded events through the same rules and engine as live ones.

use std::collections::HashSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use lapwing_engine::{Engine, Options, Output, Schema, Timestamp};

use super::{Refused, complain, print, tell_reports};
use crate::alert::{self, Evidence};
use crate::config::{Config, DEFAULT_PATH};
use crate::source::cloudtrail::Geo;
use crate::source::{Documents, Recorded, Recording, Replay};
use crate::terminal::escape;
use crate::{clock, indicators, rules};

/// How late recorded events may come and still take their place in a sequence: recordings of CloudTrail are as late as
/// its files are.
pub(super) const LATENESS: Duration = Duration::from_secs(900);

/// Run the rules over recorded events and print the alerts
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// ECS events (NDJSON or a JSON array) or CloudTrail files; `-` reads standard input
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Rules to run instead of those of the configuration
    #[arg(long, value_name = "PATH")]
    rules: Vec<PathBuf>,
    /// Exceptions to apply instead of those of the configuration; with `--rules` there are no others
    #[arg(long, value_name = "PATH")]
    exceptions: Option<PathBuf>,
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let config = if args.rules.is_empty() {
        Config::read(&args.config)?
    } else {
        Config::read_if_there(&args.config)?
    };
    let paths = if args.rules.is_empty() { &config.rules.paths } else { &args.rules };
    let mut schema = Schema::new();
    let loaded = rules::load(paths, &mut schema)?;
    let configured = Some(&config.rules.exceptions).filter(|_| args.rules.is_empty());
    let mut exceptions = rules::exceptions(args.exceptions.as_ref().or(configured), &mut schema)?;
    exceptions.check(&loaded.rules, clock::now());
    let (indicators, problems) = indicators::load(&config.indicators)?;
    problems.iter().for_each(|problem| complain(problem));
    tell_reports(loaded.reports.iter().chain(&exceptions.reports));
    let schema = Arc::new(schema);
    let options = Options { lateness: LATENESS, ..Options::default() };
    let mut replaying = Replaying {
        engine: Engine::new(schema.clone(), &loaded.rules, options)
            .with_exceptions(&exceptions.list)
            .with_indicators(&indicators.into()),
        schema,
        output: Output::default(),
        latest: Timestamp::MIN,
        refused: Refused::default(),
        json: args.json,
        told: HashSet::new(),
    };
    let cloudtrail = &config.cloudtrail;
    let geo = Geo::open(cloudtrail.geoip.as_deref(), cloudtrail.asn.as_deref(), &std::env::temp_dir());
    let mut replay = Replay::new(replaying.schema.clone(), geo);
    for file in &args.files {
        replaying.run(replay.events(Documents::open(file)?))?;
    }
    replaying.engine.finish(&mut replaying.output);
    replaying.tell()?;
    Ok(replaying.refused.finish())
}

/// A replay under way: its clock is the latest event.
struct Replaying {
    engine: Engine,
    schema: Arc<Schema>,
    output: Output,
    latest: Timestamp,
    refused: Refused,
    json: bool,
    /// The ids of the alerts that were told: recordings overlap, as trails do, and a cause is told once.
    told: HashSet<String>,
}

impl Replaying {
    fn run(&mut self, events: Recording<'_>) -> Result<()> {
        for event in events {
            match event {
                Ok(Recorded { event, .. }) => {
                    self.latest = self.latest.max(event.time());
                    self.engine.push(event, &mut self.output);
                    self.engine.advance(self.latest, &mut self.output);
                    self.tell()?;
                }
                Err(error) => self.refused.tell(&error),
            }
        }
        Ok(())
    }

    /// Prints the alerts that were raised.
    fn tell(&mut self) -> Result<()> {
        self.output.changes.clear();
        for raised in self.output.alerts.drain(..) {
            if !self.told.insert(raised.id.clone()) {
                continue;
            }
            let document = alert::document(&raised, &self.schema, &Evidence::default());
            let text = String::from_utf8_lossy(&document.json);
            if self.json {
                print(&text)?;
            } else {
                let document: serde_json::Value = serde_json::from_str(&text)?;
                let reason = document["event"]["reason"].as_str().unwrap_or_default();
                let line = format!("{} {} {}: {reason}", raised.time, raised.severity, raised.name);
                print(&escape(&line))?;
            }
        }
        Ok(())
    }
}
