//! `lapwing replay`: runs rules on recorded events with the same engine as on live ones.

use std::collections::HashSet;
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lapwing_engine::detect::Limits;
use lapwing_engine::{Engine, Options, Output, Rule, Schema, Timestamp};

use super::{Refused, complain, print, print_json, print_reports};
use crate::alert::{self, Evidence};
use crate::config::{Config, DEFAULT_PATH};
use crate::lane::{EventView, RuleView};
use crate::recording::RecordingHeader;
use crate::sensor::as_auditd;
use crate::source::cloudtrail::Geo;
use crate::source::{Documents, Recorded, Replay, ReplayEvents};
use crate::terminal::escape;
use crate::{clock, coverage, indicators, rules};

/// How far out of order recorded events may be and still be reordered: CloudTrail recordings are as late as its files.
pub(super) const LATENESS: Duration = Duration::from_secs(900);

/// Maximum bytes of events that wait to be reordered. It is larger than in the agent, because a recording is trusted and may
/// contain many events within a quarter of an hour.
pub(super) const UNORDERED_BYTES_MAX: usize = 256 << 20;

/// Run the rules on recorded events and print the alerts
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Files of `lapwing record`, ECS events (NDJSON or a JSON array) or CloudTrail files; `-` is standard input
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Rules to run instead of those of the configuration
    #[arg(long, value_name = "PATH")]
    rules: Vec<PathBuf>,
    /// Exceptions to apply instead of those of the configuration; `--rules` alone applies none
    #[arg(long, value_name = "PATH")]
    exceptions: Option<PathBuf>,
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// Print the alerts as JSON lines
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
    print_reports(loaded.reports.iter().chain(&exceptions.reports));
    let schema = Arc::new(schema);
    let mut files = args.files.iter().map(|file| Documents::open(file));
    let first = files.next().context("no file is given")??;
    let is_recording = first.head().is_some();
    let indicators = Arc::new(indicators);
    let rule_view = |view: EventView, rules: &[Arc<Rule>], lateness| {
        let limits = Limits { unordered_bytes_max: UNORDERED_BYTES_MAX, ..Limits::default() };
        let options = Options { lateness, limits, ..Options::default() };
        let engine = Engine::new(schema.clone(), rules, options);
        RuleView { view, engine: engine.with_exceptions(&exceptions.list).with_indicators(&indicators) }
    };
    let as_it_is: EventView = |event| Some(event.clone());
    let rule_views = if is_recording {
        // As in the agent: events are in the order in which they were evaluated.
        let [rules, for_auditd] = coverage::of_lane(&loaded.rules, &schema, &config.sensor);
        vec![rule_view(as_it_is, &rules, Duration::ZERO), rule_view(as_auditd, &for_auditd, Duration::ZERO)]
    } else {
        vec![rule_view(as_it_is, &loaded.rules, LATENESS)]
    };
    let mut replaying = Replaying {
        rule_views,
        schema: schema.clone(),
        output: Output::default(),
        latest: Timestamp::MIN,
        refused: Refused::default(),
        json: args.json,
        printed: HashSet::new(),
    };
    let cloudtrail = &config.cloudtrail;
    let geo = Geo::open(cloudtrail.geoip.as_deref(), cloudtrail.asn.as_deref(), &std::env::temp_dir());
    let mut replay = Replay::new(replaying.schema.clone(), geo);
    for documents in std::iter::once(Ok(first)).chain(files) {
        let documents = documents?;
        let is_like = documents.head().is_some() == is_recording;
        let name = documents.name();
        if let Some(head) = documents.head().filter(|_| io::stderr().is_terminal()) {
            let RecordingHeader { host, began, by, version, .. } = head;
            complain(&escape(&format!("{name}: {host} since {began}, recorded by {by} {version}")));
        }
        ensure!(is_like, "{name}: files of `lapwing record` and other events cannot be replayed together");
        replaying.run(replay.events(documents))?;
    }
    let Replaying { rule_views, output, .. } = &mut replaying;
    rule_views.iter_mut().for_each(|view| view.engine.finish(output));
    replaying.print_alerts()?;
    Ok(replaying.refused.finish())
}

/// A replay in progress. Its clock is the time of the latest event.
struct Replaying {
    rule_views: Vec<RuleView>,
    schema: Arc<Schema>,
    output: Output,
    latest: Timestamp,
    refused: Refused,
    json: bool,
    /// Ids of the alerts that were printed. Recordings and trails overlap, and each alert is printed once.
    printed: HashSet<String>,
}

impl Replaying {
    fn run(&mut self, mut events: ReplayEvents<'_>) -> Result<()> {
        for event in &mut events {
            match event {
                Ok(Recorded { event, .. }) => {
                    self.latest = self.latest.max(event.time());
                    let event = Arc::new(event);
                    for RuleView { view, engine } in &mut self.rule_views {
                        if let Some(event) = view(&event) {
                            engine.push(event, &mut self.output);
                        }
                        engine.advance(self.latest, &mut self.output);
                    }
                    self.print_alerts()?;
                }
                Err(error) => self.refused.report_error(&error),
            }
        }
        let (name, missed) = (events.documents().name(), events.documents().missed());
        if missed > 0 {
            complain(&escape(&format!(
                "{name}: {missed} events are missing: they came faster than they were recorded"
            )));
        }
        Ok(())
    }

    /// Prints the alerts since the last call.
    fn print_alerts(&mut self) -> Result<()> {
        self.output.changes.clear();
        for raised in self.output.alerts.drain(..) {
            if !self.printed.insert(raised.id.clone()) {
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
