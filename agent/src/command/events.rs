//! `lapwing events`: live events, as JSON lines or, on a terminal, as text lines. They come from the running agent; if there
//! is none, the command starts a sensor.

use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context as _, Result};
use lapwing_engine::Schema;
use serde_json::Value as Json;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::{complain, json_shown};
use crate::action::{Action, Shows};
use crate::config::{Config, DEFAULT_PATH};
use crate::control::{self, Answer, Line, Request};
use crate::recording;
use crate::sensor::{self, HookState, KindCounts, Sensor, SensorStatus, StoredFds};
use crate::source::Source as _;
use crate::terminal::escape;

/// How long to wait for events before checking the stop flag.
const WAIT: Duration = Duration::from_millis(100);

/// Print events as they happen
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Filter in KQL, such as `process.name: curl and event.action: exec`
    #[arg(value_name = "KQL")]
    filter: Option<String>,
    /// Print JSON lines on a terminal too
    #[arg(long)]
    json: bool,
    /// Configuration file; it need not exist
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
}

/// Prints events until a signal or a broken pipe ends it.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let mut out =
        Output { out: BufWriter::new(io::stdout()), as_json: args.json || !io::stdout().is_terminal() };
    let config = if args.config.exists() { Config::read(&args.config)? } else { Config::default() };
    let request = Request::Events { query: args.filter.clone() };
    match control::request(&config.control.socket, &request)? {
        Some(answer) => out.print_agents(answer)?,
        None => out.print_sensors(&config.sensor, args.filter.as_deref())?,
    }
    Ok(ExitCode::SUCCESS)
}

struct Output<W: Write> {
    out: W,
    as_json: bool,
}

impl<W: Write> Output<W> {
    fn print_agents(&mut self, answer: Answer) -> Result<()> {
        let mut lines = answer.lines(WAIT)?;
        loop {
            match lines.next()? {
                Line::Whole(document) => self.print(document)?,
                Line::Missed(events) => {
                    complain(&format!("{events} events were dropped: they came faster than they were read"));
                }
                Line::Late => {}
                Line::End => return Ok(()),
            }
            self.out.flush()?;
        }
    }

    fn print_sensors(&mut self, sensor: &sensor::Config, filter: Option<&str>) -> Result<()> {
        let schema = Schema::new();
        let mut filter = filter.map(|filter| control::filter(filter, &schema)).transpose()?;
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, stop.clone()).context("cannot catch signals")?;
        }
        let mut sensor = Sensor::start(sensor, stop, StoredFds::none())?;
        let works = |state| matches!(state, HookState::Attached | HookState::Disabled);
        for hook in sensor.hooks().iter().filter(|hook| !works(hook.state)) {
            complain(&format!(
                "{} {}: {}",
                hook.name,
                hook.state,
                hook.reason.as_deref().unwrap_or_default()
            ));
        }
        let mut document = Vec::new();
        while let Some(batch) = sensor.next(WAIT)? {
            for event in &batch.events {
                if filter.as_mut().is_none_or(|filter| filter.matches(event)) {
                    document.clear();
                    recording::write_line(event, &schema, &mut document);
                    self.print(&document)?;
                }
            }
            self.out.flush()?;
        }
        let SensorStatus { records: counts, out_of_order, .. } = sensor.status();
        let sum = |of: fn(&KindCounts) -> u64| counts.iter().map(|(_, counts, _)| of(counts)).sum::<u64>();
        let (seen, read, lost) =
            (sum(|counts| counts.seen), sum(|counts| counts.delivered), sum(|counts| counts.lost));
        complain(&format!("records: {seen} seen, {read} read, {lost} lost, {out_of_order} out of order"));
        Ok(())
    }

    /// Prints an event that is given as a line of JSON.
    fn print(&mut self, document: &[u8]) -> Result<()> {
        if self.as_json {
            self.out.write_all(json_shown(document).as_bytes())?;
        } else {
            let document = serde_json::from_slice(document).context("an event that is no JSON")?;
            writeln!(self.out, "{}", line(&document))?;
        }
        Ok(())
    }
}

/// An event as text: time, action, process, user and details.
pub(super) fn line(event: &Json) -> String {
    let text = |pointer: &str| match event.pointer(pointer) {
        Some(Json::String(text)) => escape(text).into_owned(),
        Some(Json::Array(values)) => {
            values.first().and_then(Json::as_str).map(escape).unwrap_or_default().into_owned()
        }
        Some(value) => value.to_string(),
        None => String::new(),
    };
    let action = text("/event/action");
    let shows = Action::of(&action).map_or(Shows::Command, |action| action.shows);
    let what = match shows {
        Shows::Command => text("/process/command_line"),
        Shows::Exit => format!("{} exit code {}", text("/process/executable"), text("/process/exit_code")),
        Shows::Connection => {
            let end = |side: &str| {
                let (ip, port) = (text(&format!("/{side}/ip")), text(&format!("/{side}/port")));
                if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
            };
            format!("{} -> {} {}", end("source"), end("destination"), text("/process/command_line"))
        }
        Shows::Records => format!("{} records", text("/lapwing/lost/records")),
        Shows::Reason => text("/event/reason"),
        Shows::Times => format!("from {} to {}", text("/event/start"), text("/event/end")),
    };
    format!(
        "{} {action:<20} {:>7} {:<10} {:<16} {what}",
        text("/@timestamp"),
        text("/process/pid"),
        text("/user/name"),
        text("/process/name"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::ACTIONS;

    /// Every action on a connection shows both ends.
    #[test]
    fn a_connection_is_shown_with_both_ends() {
        for action in ACTIONS.iter().filter(|action| action.shows == Shows::Connection) {
            let json = serde_json::json!({
                "event": {"action": action.name},
                "source": {"ip": "192.0.2.1", "port": 5555},
                "destination": {"ip": "2001:db8::5", "port": 22},
            });
            let line = line(&json);
            assert!(line.contains(" 192.0.2.1:5555 -> [2001:db8::5]:22"), "{}: {line}", action.name);
        }
    }

    #[test]
    fn an_event_is_one_line_whatever_it_contains() {
        let json = serde_json::json!({
            "@timestamp": "2026-11-22T03:56:01Z",
            "event": {"action": "exec"},
            "process": {"name": ["sh", "x"], "pid": 7, "command_line": "sh -c \u{1b}[2J\nrm"},
            "user": {"name": "root"},
        });
        assert_eq!(
            line(&json),
            "2026-11-22T03:56:01Z exec                       7 root       sh               sh -c \\x1b[2J\\nrm"
        );
    }
}
