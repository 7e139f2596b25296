//! `lapwing replay`: recorded events through the same rules and engine as live ones.

use std::collections::HashSet;
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lapwing_engine::detect::Limits;
use lapwing_engine::{Engine, Options, Output, Rule, Schema, Timestamp};

use super::{Refused, complain, print, print_json, tell_reports};
use crate::alert::{self, Evidence};
use crate::config::{Config, DEFAULT_PATH};
use crate::lane::{Evaluator, View};
use crate::recording::Head;
use crate::sensor::as_auditd;
use crate::source::cloudtrail::Geo;
use crate::source::{Documents, Recorded, Recording, Replay};
use crate::terminal::escape;
use crate::{clock, coverage, indicators, rules};

/// How late recorded events may come and still take their place in a sequence: recordings of CloudTrail are as late as
/// its files are.
pub(super) const LATENESS: Duration = Duration::from_secs(900);

/// Bytes of events of a recording that wait to be put in order: it is the caller's own, and may hold much in a quarter of
/// an hour.
pub(super) const UNORDERED_BYTES_MAX: usize = 256 << 20;

/// Run the rules over recorded events and print the alerts
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What `lapwing record` wrote, ECS events (NDJSON or a JSON array) or CloudTrail files; `-` reads standard input
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
    let mut files = args.files.iter().map(|file| Documents::open(file));
    let first = files.next().context("no file is named")??;
    let is_recording = first.head().is_some();
    let indicators = Arc::new(indicators);
    let judge = |view: View, rules: &[Arc<Rule>], lateness| {
        let limits = Limits { unordered_bytes_max: UNORDERED_BYTES_MAX, ..Limits::default() };
        let options = Options { lateness, limits, ..Options::default() };
        let engine = Engine::new(schema.clone(), rules, options);
        Evaluator { view, engine: engine.with_exceptions(&exceptions.list).with_indicators(&indicators) }
    };
    let as_it_is: View = |event| Some(event.clone());
    let judges = if is_recording {
        // As in the agent: the order is that in which events were judged.
        let [rules, for_auditd] = coverage::of_lane(&loaded.rules, &schema, &config.sensor);
        vec![judge(as_it_is, &rules, Duration::ZERO), judge(as_auditd, &for_auditd, Duration::ZERO)]
    } else {
        vec![judge(as_it_is, &loaded.rules, LATENESS)]
    };
    let mut replaying = Replaying {
        judges,
        schema: schema.clone(),
        output: Output::default(),
        latest: Timestamp::MIN,
        refused: Refused::default(),
        json: args.json,
        told: HashSet::new(),
    };
    let cloudtrail = &config.cloudtrail;
    let geo = Geo::open(cloudtrail.geoip.as_deref(), cloudtrail.asn.as_deref(), &std::env::temp_dir());
    let mut replay = Replay::new(replaying.schema.clone(), geo);
    for documents in std::iter::once(Ok(first)).chain(files) {
        let documents = documents?;
        let is_like = documents.head().is_some() == is_recording;
        let name = documents.name();
        if let Some(head) = documents.head().filter(|_| io::stderr().is_terminal()) {
            let Head { host, began, by, version, .. } = head;
            complain(&escape(&format!("{name}: {host} since {began}, recorded by {by} {version}")));
        }
        ensure!(is_like, "{name}: replay what `lapwing record` wrote apart from other events");
        replaying.run(replay.events(documents))?;
    }
    let Replaying { judges, output, .. } = &mut replaying;
    judges.iter_mut().for_each(|judge| judge.engine.finish(output));
    replaying.tell()?;
    Ok(replaying.refused.finish())
}

/// A replay under way: its clock is the latest event.
struct Replaying {
    judges: Vec<Evaluator>,
    schema: Arc<Schema>,
    output: Output,
    latest: Timestamp,
    refused: Refused,
    json: bool,
    /// The ids of the alerts that were told: recordings overlap, as trails do, and a cause is told once.
    told: HashSet<String>,
}

impl Replaying {
    fn run(&mut self, mut events: Recording<'_>) -> Result<()> {
        for event in &mut events {
            match event {
                Ok(Recorded { event, .. }) => {
                    self.latest = self.latest.max(event.time());
                    let event = Arc::new(event);
                    for Evaluator { view, engine } in &mut self.judges {
                        if let Some(event) = view(&event) {
                            engine.push(event, &mut self.output);
                        }
                        engine.advance(self.latest, &mut self.output);
                    }
                    self.tell()?;
                }
                Err(error) => self.refused.tell(&error),
            }
        }
        let (name, missed) = (events.documents().name(), events.documents().missed());
        if missed > 0 {
            complain(&escape(&format!("{name}: {missed} events came faster than they were recorded")));
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
                print_json(&text)?;
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
