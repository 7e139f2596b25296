//! The reason of an alert: one line that describes what happened.

use lapwing_engine::detect::{Size, ThresholdResult};
use lapwing_engine::rule::RuleKind;
use lapwing_engine::{Act, Alert, Cause, HeldBack, Schema, Suppressed};
use serde_json::{Map, Value as Json};

use super::NAME_CHARS_MAX;
use super::cut::letters;
use crate::action::{Action, Direction, Shows};

/// Longest command line in a reason, in characters.
const COMMAND_LINE_MAX: usize = 160;

/// The reason of an alert, from its document's root.
pub(super) fn reason(alert: &Alert, schema: &Schema, root: &Map<String, Json>) -> String {
    if let Cause::Suppressed(suppressed) = &alert.cause {
        return suppressed_reason(alert, suppressed, schema);
    }
    let root = Root(root);
    let mut line = if root.text("/event/dataset").is_some_and(|dataset| dataset == "aws.cloudtrail") {
        cloud(&root)
    } else {
        host(&root)
    };
    if let Cause::Detection(finding) = &alert.cause {
        if let RuleKind::NewTerms { fields, history, .. } = &alert.rule.kind {
            let terms = fields.iter().zip(&finding.new_terms);
            let terms: Vec<_> = terms
                .map(|(field, term)| format!("{} {}", schema.name(*field), short(&term.to_text())))
                .collect();
            line.push_str(&format!("; the first in {} for {}", span(history.as_secs()), terms.join(", ")));
        }
        if let Some(first) = finding.enrichments.first() {
            let count = finding.enrichments.len();
            let more = if count > 1 { format!(" and {} more", count - 1) } else { String::new() };
            line.push_str(&format!(
                "; {} {} is an indicator of {}{more}",
                first.field,
                short(&first.atomic),
                short(&first.id)
            ));
        }
        if let Some(result) = &finding.threshold {
            line.push_str(&counted(result, schema));
        }
        if let Some(anomaly) = &finding.anomaly {
            let among = anomaly
                .partition_value
                .as_deref()
                .map(|value| format!(" for {}", short(value)))
                .unwrap_or_default();
            let what = match (&anomaly.by_value, anomaly.size) {
                (_, Some(size)) => {
                    let Size { field, actual, typical } = size;
                    format!("{actual} different {} instead of {typical}{among}", schema.name(field))
                }
                (value, None) => format!("{} is rare{among}", short(value.as_deref().unwrap_or_default())),
            };
            line.push_str(&format!("; {what}: score {:.0}", anomaly.record_score));
        }
    }
    line
}

fn suppressed_reason(alert: &Alert, suppressed: &Suppressed, schema: &Schema) -> String {
    let Suppressed { count, start, end, group, held_back, .. } = suppressed;
    let limit = match group {
        None => {
            let most = held_back.first().map(most).unwrap_or_default();
            let span = span(alert.rule.interval.as_secs());
            format!(
                "more than {} of a program, or than its user's share, in {span}{most}",
                alert.rule.max_signals
            )
        }
        Some(group) => {
            let terms = group.iter().map(|(field, value)| {
                format!("{} {}", schema.name(*field), short(value.as_deref().unwrap_or("(missing)")))
            });
            let terms: Vec<_> = terms.collect();
            let of = if terms.is_empty() { String::new() } else { format!(" for {}", terms.join(", ")) };
            format!("the rule raises only the first{of}")
        }
    };
    format!("{count} more alerts of this rule between {start} and {end} were not raised: {limit}")
}

/// Who did most of the suppressed acts.
fn most(HeldBack { act: Act { user, executable, destination, .. }, count }: &HeldBack) -> String {
    let texts = [("user ", user), ("", executable), ("", destination)];
    let texts =
        texts.into_iter().filter_map(|(name, text)| Some(format!("{name}{}", short(text.as_deref()?))));
    let texts: Vec<_> = texts.collect();
    let who = if texts.is_empty() { String::new() } else { format!(" of {}", texts.join(", ")) };
    format!("; most of them, {count},{who}")
}

fn counted(result: &ThresholdResult, schema: &Schema) -> String {
    let terms = result.terms.iter();
    let terms: Vec<_> =
        terms.map(|(field, term)| format!("{} {}", schema.name(*field), short(&term.to_text()))).collect();
    let of = if terms.is_empty() { String::new() } else { format!(" for {}", terms.join(", ")) };
    let distinct = result.cardinality.iter();
    let distinct = distinct.map(|(field, count)| format!(" with {count} different {}", schema.name(*field)));
    let distinct: String = distinct.collect();
    format!("; {} events{of}{distinct} since {}", result.count, result.from)
}

/// The beginning of a value that an attacker may have chosen.
fn short(value: &str) -> String {
    letters(value, NAME_CHARS_MAX)
}

struct Root<'a>(&'a Map<String, Json>);

impl Root<'_> {
    /// The beginning of a value as text; the first of several values.
    fn text(&self, pointer: &str) -> Option<String> {
        let mut parts = pointer.trim_start_matches('/').splitn(2, '/');
        let outer = self.0.get(parts.next()?)?;
        let value = parts.next().map_or(Some(outer), |rest| outer.pointer(&format!("/{rest}")))?;
        match value {
            Json::String(text) => Some(short(text)),
            Json::Number(number) => Some(number.to_string()),
            Json::Array(values) => {
                values.first().map(|value| value.as_str().map_or_else(|| short(&value.to_string()), short))
            }
            _ => None,
        }
    }

    fn actor(&self) -> String {
        let user = self.text("/user/name").or_else(|| self.text("/user/id"));
        let host = self.text("/host/name");
        let by = user.map(|user| format!(" by {user}")).unwrap_or_default();
        let on = host.map(|host| format!(" on {host}")).unwrap_or_default();
        format!("{by}{on}")
    }

    /// The direction of the connection, if known.
    fn direction(&self) -> Option<Direction> {
        let name = self.text("/network/direction")?;
        // Other sensors may use the terms of a network boundary.
        match name.as_str() {
            "ingress" | "inbound" => Some(Direction::Ingress),
            "egress" | "outbound" => Some(Direction::Egress),
            _ => None,
        }
    }

    fn program(&self) -> String {
        let name = self.text("/process/name").unwrap_or_else(|| "a process".to_owned());
        let pid = self.text("/process/pid").map(|pid| format!(" (pid {pid})")).unwrap_or_default();
        let parent =
            self.text("/process/parent/name").map(|parent| format!(" under {parent}")).unwrap_or_default();
        format!("{name}{pid}{parent}")
    }

    fn command_line(&self) -> String {
        let Some(line) = self.text("/process/command_line") else { return String::new() };
        format!(": {}", letters(&line, COMMAND_LINE_MAX))
    }

    fn endpoint(&self, side: &str) -> String {
        let ip = self.text(&format!("/{side}/ip")).or_else(|| self.text(&format!("/{side}/address")));
        let ip = ip.unwrap_or_else(|| "an unknown address".to_owned());
        match self.text(&format!("/{side}/port")) {
            Some(port) if ip.contains(':') => format!("[{ip}]:{port}"),
            Some(port) => format!("{ip}:{port}"),
            None => ip,
        }
    }
}

/// What happened on a host. An event of another sensor with an unknown action is described by its fields.
fn host(root: &Root<'_>) -> String {
    let action = root.text("/event/action").and_then(|name| Action::of(&name));
    if action.is_some_and(|action| action.shows.is_of_sensor()) {
        let verb = action.map_or_else(String::new, |action| format!(" {}", action.verb));
        return format!("the sensor{verb}{}", root.actor());
    }
    let has_ends = root.text("/destination/ip").is_some() || root.text("/source/ip").is_some();
    let what = match action {
        Some(action) if has_ends && action.shows == Shows::Connection => connection(root, action),
        Some(action) if root.text("/lapwing/socket/peer/ip").is_some() => {
            format!("{} on a connection with {}", action.verb, root.endpoint("lapwing/socket/peer"))
        }
        Some(action) if root.text("/lapwing/process/stdin/maker/socket/peer/ip").is_some() => {
            let peer = root.endpoint("lapwing/process/stdin/maker/socket/peer");
            format!("{} behind a connection with {peer}", action.verb)
        }
        Some(action) => action.verb.to_owned(),
        None if has_ends => format!("communicated with {}", root.endpoint(peer(root.direction()))),
        None => "was seen".to_owned(),
    };
    format!("{} {what}{}{}", root.program(), root.actor(), root.command_line())
}

/// What a process did to a connection, and the address of the other end.
fn connection(root: &Root<'_>, action: &Action) -> String {
    let direction = root.direction().or(action.direction);
    let verb = action.verb(direction.unwrap_or(Direction::Egress));
    format!("{verb} {}", root.endpoint(peer(direction)))
}

/// The side of a connection that is the other host.
fn peer(direction: Option<Direction>) -> &'static str {
    if direction == Some(Direction::Ingress) { "source" } else { "destination" }
}

fn cloud(root: &Root<'_>) -> String {
    let who = root.text("/aws/cloudtrail/user_identity/arn").or_else(|| root.text("/user/name"));
    let who = who.unwrap_or_else(|| "an unknown user".to_owned());
    let action = root.text("/event/action").unwrap_or_else(|| "an action".to_owned());
    let service = root.text("/event/provider").map(|provider| format!(" of {provider}")).unwrap_or_default();
    let country =
        root.text("/source/geo/country_iso_code").map(|code| format!(" ({code})")).unwrap_or_default();
    let from = root.text("/source/ip").or_else(|| root.text("/source/address"));
    let from = from.map(|from| format!(" from {from}{country}")).unwrap_or_default();
    let region = root.text("/cloud/region").map(|region| format!(" in {region}")).unwrap_or_default();
    let outcome = root.text("/event/outcome").map(|outcome| format!(", {outcome}")).unwrap_or_default();
    format!("{who} called {action}{service}{from}{region}{outcome}")
}

fn span(seconds: u64) -> String {
    match seconds {
        seconds if seconds % 86_400 == 0 => format!("{} d", seconds / 86_400),
        seconds if seconds % 3600 == 0 => format!("{} h", seconds / 3600),
        seconds if seconds % 60 == 0 => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}

/// The reasons of alerts by an action, for the reference: of a connection without a direction of its own, both.
#[cfg(test)]
pub(crate) fn examples(action: &Action) -> Vec<String> {
    let has_ends = action.shows == Shows::Connection;
    let directions = match action.direction {
        None if action.verb_ingress.is_some() => vec![Some(Direction::Egress), Some(Direction::Ingress)],
        direction => vec![direction],
    };
    let of =
        |direction: Option<Direction>| example(Some(action.name), direction.map(Direction::name), has_ends);
    directions.into_iter().map(of).collect()
}

#[cfg(test)]
fn example(action: Option<&str>, direction: Option<&str>, has_ends: bool) -> String {
    let mut root = serde_json::json!({
        "event": {"action": action},
        "process": {"name": "sshd", "pid": 5, "command_line": "sshd -D"},
        "host": {"name": "h"},
        "network": {"direction": direction},
    });
    if has_ends {
        root["source"] = serde_json::json!({"ip": "198.51.100.7", "port": 5555});
        root["destination"] = serde_json::json!({"ip": "2001:db8::5", "port": 22});
    }
    let Json::Object(root) = root else { return String::new() };
    host(&Root(&root))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::ACTIONS;

    /// A program whose standard input is a connection, with the address of the other end.
    #[test]
    fn a_program_on_a_connection_names_the_peer() {
        let root = serde_json::json!({
            "event": {"action": "exec"},
            "process": {"name": "bash", "pid": 5},
            "lapwing": {"socket": {"peer": {"ip": "198.51.100.7", "port": 4444}}},
        });
        let Json::Object(root) = root else { return };
        assert_eq!(host(&Root(&root)), "bash (pid 5) ran on a connection with 198.51.100.7:4444");
    }

    /// `docs/reference/events.md` has the reasons themselves.
    #[test]
    fn auditd_and_missing_directions_give_the_same_reason() {
        for action in ACTIONS {
            let has_ends = action.shows == Shows::Connection;
            let direction = action.direction.map(Direction::name);
            let expected = example(Some(action.name), direction, has_ends);
            assert_eq!(example(Some(action.name), None, has_ends), expected);
            if action.auditd.is_some() {
                assert_eq!(example(action.auditd, direction, has_ends), expected);
            }
        }
    }

    #[test]
    fn an_unknown_action_is_described_by_its_fields_only() {
        let (to, from) = ("[2001:db8::5]:22", "198.51.100.7:5555");
        for (action, direction, has_ends, start) in [
            (Some("bound-socket"), None, true, format!("sshd (pid 5) communicated with {to}")),
            (None, Some("inbound"), true, format!("sshd (pid 5) communicated with {from}")),
            (Some("loaded"), None, false, "sshd (pid 5) was seen".to_owned()),
        ] {
            let line = example(action, direction, has_ends);
            assert!(line.starts_with(&start), "{line}");
        }
    }
}
