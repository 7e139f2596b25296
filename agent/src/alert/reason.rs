//! One line that says what happened, for a person who reads many of them.

use lapwing_engine::detect::{Size, ThresholdResult};
use lapwing_engine::rule::Kind;
use lapwing_engine::{Alert, Cause, Schema, Suppressed};
use serde_json::{Map, Value as Json};

/// Longest command line that a reason quotes, in characters.
const COMMAND_LINE_MAX: usize = 160;

/// The reason of an alert, from its document's root.
pub(super) fn reason(alert: &Alert, schema: &Schema, root: &Map<String, Json>) -> String {
    if let Cause::Suppressed(suppressed) = &alert.cause {
        return suppressed_reason(alert, suppressed, schema);
    }
    let root = Root(root);
    let mut line = if root.text("/event/dataset").is_some_and(|dataset| dataset == "aws.cloudtrail") {
        cloud(&root)
    } else if root.text("/destination/ip").is_some() || root.text("/source/ip").is_some() {
        network(&root)
    } else {
        process(&root)
    };
    if let Cause::Detection(finding) = &alert.cause {
        if let Kind::NewTerms { fields, history, .. } = &alert.rule.kind {
            let terms = fields.iter().zip(&finding.new_terms);
            let terms: Vec<_> =
                terms.map(|(field, term)| format!("{} {}", schema.name(*field), term.to_text())).collect();
            line.push_str(&format!("; the first in {} for {}", span(history.as_secs()), terms.join(", ")));
        }
        if let Some(first) = finding.enrichments.first() {
            let count = finding.enrichments.len();
            let more = if count > 1 { format!(" and {} more", count - 1) } else { String::new() };
            line.push_str(&format!(
                "; {} {} is an indicator of {}{more}",
                first.field, first.atomic, first.id
            ));
        }
        if let Some(result) = &finding.threshold {
            line.push_str(&counted(result, schema));
        }
        if let Some(anomaly) = &finding.anomaly {
            let among =
                anomaly.partition_value.as_deref().map(|value| format!(" for {value}")).unwrap_or_default();
            let what = match (&anomaly.by_value, anomaly.size) {
                (_, Some(size)) => {
                    let Size { field, actual, typical } = size;
                    format!("{actual} different {} instead of {typical}{among}", schema.name(field))
                }
                (value, None) => format!("{} is rare{among}", value.as_deref().unwrap_or_default()),
            };
            line.push_str(&format!("; {what}: score {:.0}", anomaly.record_score));
        }
    }
    line
}

fn suppressed_reason(alert: &Alert, suppressed: &Suppressed, schema: &Schema) -> String {
    let Suppressed { count, start, end, group } = suppressed;
    let limit = match group {
        None => format!("more than {} in {}", alert.rule.max_signals, span(alert.rule.interval.as_secs())),
        Some(group) => {
            let terms = group.iter().map(|(field, value)| {
                format!("{} {}", schema.name(*field), value.as_deref().unwrap_or("(missing)"))
            });
            let terms: Vec<_> = terms.collect();
            let of = if terms.is_empty() { String::new() } else { format!(" for {}", terms.join(", ")) };
            format!("the rule tells the first{of} alone")
        }
    };
    format!("{count} more alerts of this rule between {start} and {end} were not raised: {limit}")
}

fn counted(result: &ThresholdResult, schema: &Schema) -> String {
    let terms = result.terms.iter();
    let terms: Vec<_> =
        terms.map(|(field, term)| format!("{} {}", schema.name(*field), term.to_text())).collect();
    let of = if terms.is_empty() { String::new() } else { format!(" for {}", terms.join(", ")) };
    let distinct = result.cardinality.iter();
    let distinct = distinct.map(|(field, count)| format!(" with {count} different {}", schema.name(*field)));
    let distinct: String = distinct.collect();
    format!("; {} events{of}{distinct} since {}", result.count, result.from)
}

struct Root<'a>(&'a Map<String, Json>);

impl Root<'_> {
    /// A value as text; of several the first.
    fn text(&self, pointer: &str) -> Option<String> {
        let mut parts = pointer.trim_start_matches('/').splitn(2, '/');
        let outer = self.0.get(parts.next()?)?;
        let value = parts.next().map_or(Some(outer), |rest| outer.pointer(&format!("/{rest}")))?;
        match value {
            Json::String(text) => Some(text.clone()),
            Json::Number(number) => Some(number.to_string()),
            Json::Array(values) => {
                values.first().map(|value| value.as_str().map_or(value.to_string(), str::to_owned))
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

    fn program(&self) -> String {
        let name = self.text("/process/name").unwrap_or_else(|| "a process".to_owned());
        let pid = self.text("/process/pid").map(|pid| format!(" (pid {pid})")).unwrap_or_default();
        let parent =
            self.text("/process/parent/name").map(|parent| format!(" under {parent}")).unwrap_or_default();
        format!("{name}{pid}{parent}")
    }

    fn command_line(&self) -> String {
        let Some(line) = self.text("/process/command_line") else { return String::new() };
        let short: String = line.chars().take(COMMAND_LINE_MAX).collect();
        let more = if short.len() < line.len() { "…" } else { "" };
        format!(": {short}{more}")
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

fn process(root: &Root<'_>) -> String {
    let verb = match root.text("/event/action").as_deref() {
        Some("exec") => "ran",
        Some("fork") => "was started",
        Some("end") => "ended",
        _ => "was seen",
    };
    format!("{} {verb}{}{}", root.program(), root.actor(), root.command_line())
}

fn network(root: &Root<'_>) -> String {
    let what = match root.text("/event/action").as_deref() {
        Some("connection_accepted") => format!("accepted a connection from {}", root.endpoint("source")),
        _ => format!("connected to {}", root.endpoint("destination")),
    };
    format!("{} {what}{}{}", root.program(), root.actor(), root.command_line())
}

fn cloud(root: &Root<'_>) -> String {
    let who = root.text("/aws/cloudtrail/user_identity/arn").or_else(|| root.text("/user/name"));
    let who = who.unwrap_or_else(|| "somebody".to_owned());
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
