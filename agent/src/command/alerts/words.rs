//! Texts for parts of an alert. Results are escaped and safe for a terminal.

use std::time::Duration;

use serde_json::Value;

use super::document::{field, text, texts};
use crate::terminal::escape;

/// A process by name and pid.
pub(super) fn named(of: &Value) -> String {
    let name = texts(of, "process.name").join(" ");
    escape(&format!("{name} ({})", text(of, "process.pid"))).into_owned()
}

/// The actor: a process or an account.
pub(super) fn subject(event: &Value) -> Option<String> {
    if field(event, "process.pid").is_none() {
        return account(event);
    }
    let mut shown = named(event);
    for (before, name) in [(" as ", "user.name"), (" in ", "process.working_directory")] {
        let value = text(event, name);
        if !value.is_empty() {
            shown = format!("{shown}{before}{}", escape(&value));
        }
    }
    let parent = texts(event, "process.parent.name").join(" ");
    if !parent.is_empty() {
        shown =
            format!("{shown}, child of {} ({})", escape(&parent), escape(&text(event, "process.parent.pid")));
    }
    Some(shown)
}

fn account(event: &Value) -> Option<String> {
    let user = text(event, "user.name");
    let mut shown = if user.is_empty() { text(event, "aws.cloudtrail.user_identity.arn") } else { user };
    if shown.is_empty() {
        return None;
    }
    for (before, name) in [(" from ", "source.address"), (" in ", "source.geo.country_name")] {
        let value = text(event, name);
        if !value.is_empty() {
            shown = format!("{shown}{before}{value}");
        }
    }
    Some(escape(&shown).into_owned())
}

/// The arguments, quoted as for a shell, so that spaces inside one are visible.
pub(super) fn command(of: &Value) -> Option<String> {
    let args = texts(of, "process.args");
    let quoted = args.iter().map(|arg| {
        let plain = !arg.is_empty() && arg.chars().all(|c| c.is_alphanumeric() || "-_./:=,@%+".contains(c));
        if plain { arg.clone() } else { format!("'{}'", arg.replace('\'', "'\\''")) }
    });
    let line = quoted.collect::<Vec<_>>().join(" ");
    (!line.is_empty()).then(|| escape(&line).into_owned())
}

/// The request to a cloud API.
pub(super) fn request(event: &Value) -> Option<String> {
    let (error, requested) =
        (text(event, "aws.cloudtrail.error_code"), text(event, "aws.cloudtrail.request_parameters"));
    let shown = [error, requested].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
    (!shown.is_empty()).then(|| escape(&shown).into_owned())
}

/// The two ends of a connection.
pub(super) fn connection(event: &Value) -> Option<String> {
    let end = |side: &str| {
        let (ip, port) = (text(event, &format!("{side}.ip")), text(event, &format!("{side}.port")));
        let ip = if ip.contains(':') { format!("[{ip}]") } else { ip };
        if port.is_empty() { ip } else { format!("{ip}:{port}") }
    };
    let (from, to) = (end("source"), end("destination"));
    if to.is_empty() {
        return None;
    }
    let how = format!("{} {}", text(event, "network.transport"), text(event, "network.direction"));
    Some(escape(&format!("{from} -> {to} {}", how.trim())).trim().to_owned())
}

/// The processes whose standard input or output is the connection of an alert, which makes them a remote shell.
pub(super) fn holders(alert: &Value) -> Vec<String> {
    let own = texts(alert, "lapwing.socket.stdio");
    let own = (!own.is_empty()).then(|| (named(alert), own.join(", ")));
    let others = texts(alert, "lapwing.socket.held_by");
    let others = others.iter().filter_map(|held| {
        // `4711 (sh): stdin, stdout`; the name may contain anything.
        let (who, descriptors) = held.rsplit_once("): ")?;
        let (pid, name) = who.split_once(" (")?;
        Some((escape(&format!("{name} ({pid})")).into_owned(), escape(descriptors).into_owned()))
    });
    let shown = |(who, descriptors): (String, String)| match descriptors.rsplit_once(", ") {
        Some((first, last)) => format!("{first} and {last} of {who} are this connection"),
        None => format!("{descriptors} of {who} is this connection"),
    };
    own.into_iter().map(|(who, own)| (who, escape(&own).into_owned())).chain(others).map(shown).collect()
}

/// The program that a process executed after the alert.
pub(super) fn successor(alert: &Value) -> Option<String> {
    let executable = text(alert, "lapwing.process.next.executable");
    let command = text(alert, "lapwing.process.next.command_line");
    let shown = format!("{} runs {} now: {}", named(alert), escape(&executable), escape(&command));
    (!executable.is_empty()).then_some(shown)
}

/// The rare value, and how rare it is.
pub(super) fn anomaly(alert: &Value) -> Option<String> {
    let part = |name: &str| text(alert, &format!("lapwing.alert.anomaly.{name}"));
    let number = |name: &str| field(alert, &format!("lapwing.alert.anomaly.{name}")).and_then(Value::as_f64);
    let score = number("record_score")?;
    let among = part("partition_value");
    let among = if among.is_empty() { among } else { format!(" for {among}") };
    let mut shown = format!("{} is rare{among}: score {score:.0} of 100", part("by_value"));
    if let Some(probability) = number("probability") {
        shown = format!("{shown}, probability {probability:.4}");
    }
    shown = format!("{shown}, after {} buckets of {}", part("buckets_learned"), part("job_id"));
    Some(escape(&shown).into_owned())
}

/// Names with their ids, such as those of tactics.
pub(super) fn references(alert: &Value, of: &str) -> Option<String> {
    let (names, ids) = (texts(alert, &format!("{of}.name")), texts(alert, &format!("{of}.id")));
    let shown: Vec<_> = names.iter().zip(ids).map(|(name, id)| format!("{name} ({id})")).collect();
    (!shown.is_empty()).then(|| escape(&shown.join(", ")).into_owned())
}

/// A value of any type, on one line.
pub(super) fn any(value: &Value) -> String {
    match value {
        Value::String(text) => escape(text).into_owned(),
        Value::Array(values) => values.iter().map(any).collect::<Vec<_>>().join(", "),
        Value::Object(parts) => {
            let shown = parts.iter().map(|(name, value)| format!("{} {}", escape(name), any(value)));
            shown.collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

/// A length of time in its largest unit.
pub(super) fn short(length: Duration) -> String {
    let seconds = length.as_secs();
    match seconds {
        0 if length.as_micros() < 1000 => format!("{} µs", length.as_micros()),
        0 => format!("{} ms", length.as_millis()),
        1..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// A timestamp in words.
pub(super) fn moment(time: &str, precision: Precision) -> String {
    let (date, clock) = time.trim_end_matches('Z').split_once('T').unwrap_or((time, ""));
    escape(&format!("{date} {}Z", clock.get(..precision as usize).unwrap_or(clock))).into_owned()
}

/// Precision of a time: the number of characters of the clock.
#[derive(Clone, Copy, Debug)]
pub(super) enum Precision {
    Seconds = 8,
    Milliseconds = 12,
}
