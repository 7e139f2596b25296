//! `lapwing events`: the live stream, one JSON object a line in a pipe or with `--json`, one readable line an event on
//! a terminal. It starts a sensor of its own, so that it also works where the service does not run.

use std::fmt::Write as _;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Result;
use lapwing_engine::{Event, FieldId, Schema, field};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::sensor::{HookState, KindCounts, Sensor};
use crate::source::Source;
use crate::terminal::plain;

/// How long to wait for events before looking whether to stop.
const WAIT: Duration = Duration::from_millis(100);

/// Prints events until a signal ends it or nobody reads any more.
///
/// # Errors
/// Where the sensor does not start, or the output cannot be written.
pub(crate) fn run(as_json: bool) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, stop.clone())?;
    }
    let mut sensor = Sensor::start(stop)?;
    tell_hooks(&sensor);
    let schema = Schema::new();
    let as_json = as_json || !io::stdout().is_terminal();
    let mut out = BufWriter::new(io::stdout().lock());
    while let Some(batch) = sensor.next(WAIT)? {
        for event in &batch.events {
            match print(&mut out, event, &schema, as_json) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                result => result?,
            }
        }
        match out.flush() {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            result => result?,
        }
    }
    let counts = sensor.status().records;
    let sum = |of: fn(&KindCounts) -> u64| counts.iter().map(|(_, counts)| of(counts)).sum::<u64>();
    let (seen, read, lost) =
        (sum(|counts| counts.seen), sum(|counts| counts.delivered), sum(|counts| counts.lost));
    // Standard error may be closed; the events are what was asked for.
    let _ = writeln!(io::stderr(), "records: {seen} seen, {read} read, {lost} lost");
    Ok(())
}

fn print(
    out: &mut BufWriter<StdoutLock<'_>>,
    event: &Event,
    schema: &Schema,
    as_json: bool,
) -> io::Result<()> {
    if as_json {
        serde_json::to_writer(&mut *out, &event.to_json(schema))?;
        out.write_all(b"\n")
    } else {
        writeln!(out, "{}", line(event))
    }
}

/// Says what is not watched, and how the rest is.
fn tell_hooks(sensor: &Sensor) {
    let mut errors = io::stderr().lock();
    for report in sensor.hooks() {
        let is_fine = report.state == HookState::Attached;
        if is_fine && !errors.is_terminal() {
            continue;
        }
        let reason = report.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let method = report.method.map(|method| format!(" by {method}")).unwrap_or_default();
        // Standard error may be closed; the events are what was asked for.
        let _ = writeln!(errors, "{} {}{method}{reason}", report.name, report.state);
    }
}

/// An event for a person: when, what, who, and what it is about.
fn line(event: &Event) -> String {
    let text = |id: FieldId| event.get(id).map(|value| value.to_text().into_owned()).unwrap_or_default();
    let action = text(field!("event.action"));
    let what = match action.as_str() {
        "connection_attempted" | "connection_accepted" => format!(
            "{} {}:{} -> {}:{}",
            text(field!("process.command_line")),
            text(field!("source.ip")),
            text(field!("source.port")),
            text(field!("destination.ip")),
            text(field!("destination.port"))
        ),
        "records_lost" => format!("{} records", text(field!("lapwing.lost.records"))),
        "end" => {
            format!("{} exit code {}", text(field!("process.executable")), text(field!("process.exit_code")))
        }
        _ => text(field!("process.command_line")),
    };
    let mut line = String::with_capacity(128);
    // Writing to a `String` cannot fail.
    let _ = write!(
        line,
        "{} {action:<20} {:>7} {:<10} {:<16} {}",
        event.time(),
        text(field!("process.pid")),
        plain(&text(field!("user.name"))),
        plain(event.text(field!("process.name")).unwrap_or_default()),
        plain(&what)
    );
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_whatever_it_tells() {
        let json = serde_json::json!({
            "@timestamp": "2026-11-22T03:56:01Z",
            "event": {"action": "exec"},
            "process": {"name": "sh", "pid": 7, "command_line": "sh -c \u{1b}[2J\nrm"},
            "user": {"name": "root"},
        });
        let event = Event::from_json(&Schema::new(), &json).unwrap();
        assert_eq!(
            line(&event),
            "2026-11-22T03:56:01.000Z exec                       7 root       sh               sh -c \\u{1b}[2J\\nrm"
        );
    }
}
