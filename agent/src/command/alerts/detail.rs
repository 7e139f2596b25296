//! One alert whole, in the order in which it is asked about at night: what is it, is it complete, what happened, who
//! started whom, and what to do now.

use std::fmt::Write as _;
use std::time::Duration;

use lapwing_engine::Timestamp;
use serde_json::Value;

use super::Severity;
use super::document::{field, text, texts};
use crate::terminal::{Look, Screen, escape};

/// Columns of a label and what follows it.
const LABEL: usize = 12;

/// What is shown beside labels: the fields of a label are put after one another.
const FACTS: &[(&str, &[&str])] = &[
    ("id", &["event.id"]),
    ("host", &["host.name", "host.id"]),
    ("cloud", &["cloud.provider", "cloud.account.id", "cloud.region", "cloud.instance.id"]),
    ("user", &["user.name", "user.id"]),
    ("actor", &["aws.cloudtrail.user_identity.arn", "aws.cloudtrail.user_identity.access_key_id"]),
    ("client", &["source.address", "source.geo.country_name", "source.geo.city_name", "user_agent.original"]),
    ("rule", &["rule.uuid", "rule.version", "rule.ruleset"]),
    ("tactic", &["threat.tactic.name", "threat.tactic.id"]),
    ("technique", &["threat.technique.name", "threat.technique.id"]),
    ("", &["threat.technique.subtechnique.name", "threat.technique.subtechnique.id"]),
    ("new", &["lapwing.alert.new_terms"]),
    ("reference", &["rule.reference"]),
];

/// Parts of `lapwing.alert` that are shown elsewhere; what else there is, is shown as it is.
const SHOWN_ELSEWHERE: &[&str] = &[
    "ancestors",
    "complete",
    "events",
    "group",
    "guide",
    "id",
    "lost_records",
    "new_terms",
    "original_time",
    "reason",
    "suppressed_count",
];

/// The alert as text.
pub(super) fn render(screen: Screen, alert: &Value, now: Timestamp) -> String {
    let mut page = Page { screen, text: String::new() };
    page.heading(alert, now);
    page.facts(alert);
    page.events(alert);
    page.processes(alert);
    page.socket(alert);
    page.guide(alert);
    page.text
}

struct Page {
    screen: Screen,
    text: String,
}

impl Page {
    fn heading(&mut self, alert: &Value, now: Timestamp) {
        let severity = Severity::of(field(alert, "event.severity").and_then(Value::as_i64).unwrap_or(0));
        let name = escape(&text(alert, "message")).into_owned();
        let risk = text(alert, "event.risk_score");
        self.line(&self.screen.paint(Look::Strong, &name));
        let (level, time) = (self.screen.paint(severity.look(), severity.name()), text(alert, "@timestamp"));
        let ago = Timestamp::parse(&time).map_or_else(String::new, |time| ago(now.since(time)));
        self.line(&format!("{level}, risk {}, {}{ago}", escape(&risk), escape(&time)));
        let reason = escape(&text(alert, "lapwing.alert.reason")).into_owned();
        if !reason.is_empty() {
            self.line(&format!("\n{}", self.screen.wrap(&reason, 0)));
        }
    }

    fn facts(&mut self, alert: &Value) {
        self.line("");
        for (label, fields) in FACTS {
            let values: Vec<String> = fields
                .iter()
                .map(|name| texts(alert, name).join(", "))
                .filter(|value| !value.is_empty())
                .collect();
            if !values.is_empty() {
                self.fact(label, &values.join("  "));
            }
        }
        let ours = field(alert, "lapwing.alert").and_then(Value::as_object);
        for (name, value) in ours.into_iter().flatten() {
            if !SHOWN_ELSEWHERE.contains(&name.as_str()) && !value.is_null() {
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                self.fact(&name.replace('_', " "), &value);
            }
        }
        let suppressed = field(alert, "lapwing.alert.suppressed_count").and_then(Value::as_u64).unwrap_or(0);
        if suppressed > 0 {
            self.fact(
                "suppressed",
                &format!("{suppressed} more alerts of this rule, which were not written"),
            );
        }
        self.evidence(alert);
    }

    /// Whether the sensor saw all there was.
    fn evidence(&mut self, alert: &Value) {
        let lost = field(alert, "lapwing.alert.lost_records").and_then(Value::as_u64).unwrap_or(0);
        let (look, says) = match field(alert, "lapwing.alert.complete").and_then(Value::as_bool) {
            None => return,
            Some(true) if lost == 0 => {
                (Look::Good, "complete: no records were lost in this window".to_owned())
            }
            Some(_) => (Look::Bad, format!("INCOMPLETE: {lost} records were lost in this window")),
        };
        let says = self.screen.paint(look, &says);
        self.line(&format!("{:<LABEL$}{says}", "evidence"));
    }

    fn events(&mut self, alert: &Value) {
        let events = list(alert, "lapwing.alert.events");
        if events.is_empty() {
            return;
        }
        self.section("What happened");
        let first = Timestamp::parse(&text(&events[0], "@timestamp"));
        for event in events {
            let time = text(event, "@timestamp");
            let clock =
                time.split_once('T').map_or(time.as_str(), |(_, clock)| clock.get(..12).unwrap_or(clock));
            let later = match (Timestamp::parse(&time), first) {
                (Some(time), Some(first)) if time > first => format!("  +{}", short(time.since(first))),
                _ => String::new(),
            };
            let action = texts(event, "event.action").join(", ");
            self.line(&format!(
                "{}  {}{later}",
                escape(clock),
                self.screen.paint(Look::Strong, &escape(&action))
            ));
            for told in [subject(event), joined(event), connection(event)].into_iter().flatten() {
                self.indented(&told);
            }
        }
    }

    fn processes(&mut self, alert: &Value) {
        let ancestors = list(alert, "lapwing.alert.ancestors");
        let same =
            |left: &Value, right: &Value| text(left, "process.entity_id") == text(right, "process.entity_id");
        let mut own: Vec<&Value> = Vec::new();
        for event in list(alert, "lapwing.alert.events").iter().chain([alert]) {
            // The alert itself knows more of its process than the event does.
            let event = if same(event, alert) { alert } else { event };
            if field(event, "process.pid").is_some() && !own.iter().any(|other| same(other, event)) {
                own.push(event);
            }
        }
        if ancestors.is_empty() && own.is_empty() {
            return;
        }
        self.section("Process tree");
        for (depth, ancestor) in ancestors.iter().rev().enumerate() {
            self.branch(depth, ancestor, false);
        }
        for process in own {
            self.branch(ancestors.len(), process, true);
        }
    }

    fn branch(&mut self, depth: usize, of: &Value, is_own: bool) {
        let indent = match depth {
            0 => String::new(),
            depth => format!("{:width$}└─ ", "", width = 3 * (depth - 1)),
        };
        let name = named(of);
        let name = if is_own { self.screen.paint(Look::Strong, &name) } else { name };
        let used = 3 * depth + 1;
        let users = [text(of, "process.user.name"), text(of, "user.name")];
        let user = users.iter().find(|user| !user.is_empty());
        let user = user.map_or_else(String::new, |user| format!(" {}", escape(user)));
        let command = joined(of).map_or_else(String::new, |command| format!("  {command}"));
        let rest = self
            .screen
            .paint(Look::Faint, &self.screen.fit(&format!("{user}{command}"), used + named(of).len()));
        self.line(&format!("{indent}{name}{rest}"));
        let hash = text(of, "process.hash.sha256");
        if !hash.is_empty() {
            let hash = self.screen.paint(Look::Faint, &format!("sha256 {}", escape(&hash)));
            self.line(&format!("{:width$}{hash}", "", width = 3 * depth));
        }
    }

    fn socket(&mut self, alert: &Value) {
        let Some(connection) = connection(alert) else { return };
        self.section("Socket");
        self.line(&connection);
    }

    fn guide(&mut self, alert: &Value) {
        let guide = text(alert, "lapwing.alert.guide");
        if guide.trim().is_empty() {
            return;
        }
        self.section("Guide");
        for line in guide.trim().lines() {
            let line = escape(line).into_owned();
            match line.strip_prefix('#') {
                Some(heading) => {
                    self.line(&self.screen.paint(Look::Strong, heading.trim_start_matches('#').trim()))
                }
                None => self.line(&self.screen.wrap(&line, 0)),
            }
        }
    }

    fn section(&mut self, title: &str) {
        let title = self.screen.paint(Look::Strong, title);
        self.line(&format!("\n{title}"));
    }

    /// A value beside its label; neither is escaped yet.
    fn fact(&mut self, label: &str, value: &str) {
        let value = self.screen.wrap(&escape(value), LABEL);
        self.line(&format!("{:<LABEL$}{value}", escape(label)));
    }

    fn indented(&mut self, line: &str) {
        let line = self.screen.wrap(line, 14);
        self.line(&format!("{:14}{line}", ""));
    }

    fn line(&mut self, line: &str) {
        // Writing to a string cannot fail.
        _ = writeln!(self.text, "{}", line.trim_end());
    }
}

fn list<'a>(document: &'a Value, name: &str) -> &'a [Value] {
    field(document, name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Who did it: a process, or an account.
fn subject(event: &Value) -> Option<String> {
    let user = text(event, "user.name");
    if field(event, "process.pid").is_none() {
        let from = text(event, "source.address");
        let from = if from.is_empty() { from } else { format!(" from {from}") };
        let outcome = text(event, "event.outcome");
        return (!user.is_empty()).then(|| escape(&format!("{user}{from} {outcome}")).trim_end().to_owned());
    }
    let mut told = named(event);
    for (before, name) in [(" as ", "user.name"), (" in ", "process.working_directory")] {
        let value = text(event, name);
        if !value.is_empty() {
            told = format!("{told}{before}{}", escape(&value));
        }
    }
    let parent = texts(event, "process.parent.name").join(" ");
    if !parent.is_empty() {
        told =
            format!("{told}, child of {} ({})", escape(&parent), escape(&text(event, "process.parent.pid")));
    }
    Some(told)
}

/// Who talked to whom.
fn connection(event: &Value) -> Option<String> {
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

fn named(of: &Value) -> String {
    let name = texts(of, "process.name").join(" ");
    escape(&format!("{name} ({})", text(of, "process.pid"))).into_owned()
}

/// The arguments as a shell would need them, so that one with a blank is told from two.
fn joined(of: &Value) -> Option<String> {
    let args = texts(of, "process.args");
    let quoted = args.iter().map(|arg| {
        let plain = !arg.is_empty() && arg.chars().all(|c| c.is_alphanumeric() || "-_./:=,@%+".contains(c));
        if plain { arg.clone() } else { format!("'{}'", arg.replace('\'', "'\\''")) }
    });
    let line = quoted.collect::<Vec<_>>().join(" ");
    (!line.is_empty()).then(|| escape(&line).into_owned())
}

fn ago(since: Duration) -> String {
    format!(" ({} ago)", short(since))
}

/// A length of time in its largest unit.
fn short(length: Duration) -> String {
    let seconds = length.as_secs();
    match seconds {
        0 => format!("{} ms", length.as_millis()),
        1..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}
