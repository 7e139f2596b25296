//! `lapwing status`: the status of the agent on this host.

mod health;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use serde_json::Value as Json;

use self::health::Health;
use super::{print, print_json};
use crate::config::{Config, DEFAULT_PATH};
use crate::control::{self, Request};
use crate::terminal::escape;

/// Show the agent's status
///
/// The exit code is 0 if the agent answers and was not tampered with, otherwise 1.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// Show the health and the reasons; exit code 0 if `healthy`, 1 if `degraded`, 2 if `blind`
    #[arg(long)]
    health: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    if args.health {
        let health = request_status(args)
            .map_or_else(|error| Health::of_silence(&error), |status| Health::of(&status));
        show(&health, args.json)?;
        return Ok(ExitCode::from(health.health.code()));
    }
    let status = request_status(args)?;
    if args.json {
        print_json(&status.to_string())?;
    } else {
        let mut lines = Vec::new();
        describe(&status, 0, &mut lines);
        print(&lines.join("\n"))?;
    }
    Ok(if health::tampered(&status).is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn request_status(args: &Args) -> Result<Json> {
    let socket = Config::read(&args.config)?.control.socket;
    let Some(mut answer) = control::request(&socket, &Request::Status)? else {
        bail!("no agent listens on {}: start it, as with `systemctl start lapwing`", socket.display());
    };
    answer.next().context("the agent gave no answer")?
}

/// Prints a line with the health, and one for each reason.
fn show(health: &Health, as_json: bool) -> Result<()> {
    if as_json {
        return print_json(&serde_json::to_string(health)?);
    }
    let why = health.why.iter().map(|why| format!("\n  {}", escape(why)));
    print(&format!("{}{}", health.health.word(), why.collect::<String>()))
}

/// The status as an indented outline. In a list of objects, each object is a line.
fn describe(json: &Json, depth: usize, lines: &mut Vec<String>) {
    let Json::Object(object) = json else { return };
    let indent = "  ".repeat(depth);
    for (name, value) in object {
        let name = name.replace('_', " ");
        match value {
            Json::Null => {}
            Json::Object(inner) if inner.values().all(|value| !value.is_object() && !value.is_array()) => {
                lines.push(format!("{indent}{name}: {}", row(value)));
            }
            Json::Object(_) => {
                lines.push(format!("{indent}{name}"));
                describe(value, depth + 1, lines);
            }
            Json::Array(entries) if entries.iter().any(nested) => {
                for entry in entries {
                    lines.push(format!("{indent}{name}"));
                    describe(entry, depth + 1, lines);
                }
            }
            Json::Array(entries) if entries.iter().any(Json::is_object) => {
                lines.push(format!("{indent}{name}"));
                lines.extend(entries.iter().map(|entry| format!("{indent}  {}", row(entry))));
            }
            value => lines.push(format!("{indent}{name}: {}", scalar(value))),
        }
    }
}

fn nested(json: &Json) -> bool {
    json.as_object().is_some_and(|object| object.values().any(|value| value.is_object() || value.is_array()))
}

fn row(json: &Json) -> String {
    let object = json.as_object().into_iter().flatten();
    let parts = object.filter(|(_, value)| !value.is_null());
    parts
        .map(|(name, value)| format!("{} {}", name.replace('_', " "), scalar(value)))
        .collect::<Vec<_>>()
        .join(", ")
}

fn scalar(json: &Json) -> String {
    match json {
        Json::String(text) => escape(text).into_owned(),
        Json::Array(values) if values.is_empty() => "none".to_owned(),
        Json::Array(values) => values.iter().map(scalar).collect::<Vec<_>>().join(", "),
        value => value.to_string(),
    }
}
