//! `lapwing replay`: recorded events through the same rules and engine as live ones.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use lapwing_engine::{Engine, Options, Output, Schema, Timestamp};

use super::{complain, print, styled};
use crate::alert::{self, Evidence};
use crate::config::{Config, DEFAULT_PATH};
use crate::source::{Replay, Source as _};
use crate::{report, rules};

/// How late recorded events may come and still take their place in a sequence: recordings of CloudTrail are as late as
/// its files are.
const LATENESS: Duration = Duration::from_secs(900);

/// Run the rules over recorded events and print the alerts
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// ECS events (NDJSON or a JSON array) or CloudTrail files; `-` reads standard input
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Rules to run instead of those of the configuration
    #[arg(long, value_name = "PATH")]
    rules: Vec<PathBuf>,
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let paths =
        if args.rules.is_empty() { Config::read(&args.config)?.rules.paths } else { args.rules.clone() };
    let mut schema = Schema::new();
    let loaded = rules::load(&paths, &mut schema)?;
    loaded.reports.iter().for_each(|found| complain(&report::render(found, styled())));
    let schema = Arc::new(schema);
    let options = Options { lateness: LATENESS, ..Options::default() };
    let mut engine = Engine::new(schema.clone(), &loaded.rules, options);
    let mut output = Output::default();
    let mut latest = Timestamp::MIN;
    for file in &args.files {
        let (name, reader) = open(file)?;
        let mut source = Replay::new(&name, reader, schema.clone())?;
        while let Some(batch) = source.next(Duration::ZERO)? {
            for event in batch.events {
                latest = latest.max(event.time());
                engine.push(event, &mut output);
                engine.advance(latest, &mut output);
            }
            tell(&mut output, &schema, args.json)?;
        }
    }
    engine.finish(&mut output);
    tell(&mut output, &schema, args.json)?;
    Ok(ExitCode::SUCCESS)
}

fn open(file: &Path) -> Result<(String, Box<dyn std::io::Read + Send>)> {
    if file == Path::new("-") {
        return Ok(("standard input".to_owned(), Box::new(std::io::stdin())));
    }
    let name = file.display().to_string();
    let opened = std::fs::File::open(file).with_context(|| format!("{name} cannot be read"))?;
    Ok((name, Box::new(opened)))
}

fn tell(output: &mut Output, schema: &Schema, json: bool) -> Result<()> {
    output.changes.clear();
    for raised in output.alerts.drain(..) {
        let document = alert::document(&raised, schema, &Evidence::default());
        let text = String::from_utf8_lossy(&document.json);
        if json {
            print(&text)?;
        } else {
            let document: serde_json::Value = serde_json::from_str(&text)?;
            let reason = document["event"]["reason"].as_str().unwrap_or_default();
            print(&format!("{} {} {}: {reason}", raised.time, raised.rule.severity, raised.rule.name))?;
        }
    }
    Ok(())
}
