//! The page of one alert: rule, place, events, processes; then the rule's description and guide.

use std::fmt::Write as _;

use lapwing_engine::Timestamp;
use serde_json::Value;
use unicode_width::UnicodeWidthStr as _;

use super::document::{field, list, text, texts};
use super::words::Precision;
use super::{Severity, words};
use crate::terminal::{Look, Screen, escape};

/// How much of an alert is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DetailLevel {
    /// What happened.
    Brief,
    /// Everything, with the rule's texts.
    Whole,
}

/// Width of the labels.
const LABEL: usize = 12;
/// Width of the column with the time of an event.
const EVENT: usize = 14;
/// Maximum number of terminal lines of one value: an attacker may choose arguments of megabytes.
const LINES_MAX: usize = 8;

/// Labels with their fields; the values of a label are joined.
const SCENE: &[(&str, &[&str])] = &[
    ("id", &["event.id"]),
    ("host", &["host.name", "host.id"]),
    ("container", &["container.id", "container.name", "container.image.name"]),
    ("cloud", &["cloud.provider", "cloud.account.id", "cloud.region", "cloud.instance.id"]),
    ("user", &["user.name", "user.id"]),
    ("actor", &["aws.cloudtrail.user_identity.arn", "aws.cloudtrail.user_identity.access_key_id"]),
    ("client", &["user_agent.original"]),
    ("new term", &["lapwing.alert.new_terms"]),
];

/// Members of `lapwing.alert` that have their own place on the page, or are elsewhere in the alert. All others are printed as
/// name and value.
const KNOWN: &[&str] = &[
    "ancestors",
    "anomaly",
    "complete",
    "events",
    "false_positives",
    "group",
    "guide",
    "id",
    "lost_records",
    "new_terms",
    "original_time",
    "reason",
    "references",
    "rule_type",
    "severity",
    "span_ms",
    "suppressed_count",
    "suppressed_from",
    "suppressed_to",
];

/// Renders the alert as text.
pub(super) fn render(screen: Screen, alert: &Value, now: Timestamp, extent: DetailLevel) -> String {
    let mut page = Page { screen, extent, text: String::new() };
    page.heading(alert, now);
    page.scene(alert);
    page.events(alert);
    page.processes(alert);
    if extent == DetailLevel::Whole {
        page.rule(alert);
        page.guide(alert);
    }
    page.text
}

struct Page {
    screen: Screen,
    extent: DetailLevel,
    text: String,
}

impl Page {
    fn heading(&mut self, alert: &Value, now: Timestamp) {
        let severity = Severity::of(field(alert, "event.severity").and_then(Value::as_i64).unwrap_or(0));
        let name = escape(&text(alert, "message")).into_owned();
        let risk = text(alert, "event.risk_score");
        self.line(&self.screen.paint(Look::Strong, &name));
        let (level, time) = (self.screen.paint(severity.look(), severity.name()), text(alert, "@timestamp"));
        let ago = Timestamp::parse(&time).map(|time| format!(" ({} ago)", words::short(now.since(time))));
        let ago = ago.unwrap_or_default();
        self.line(&format!(
            "{level}, risk {}, {}{ago}",
            escape(&risk),
            words::moment(&time, Precision::Milliseconds)
        ));
        let reason = escape(&text(alert, "lapwing.alert.reason")).into_owned();
        if !reason.is_empty() {
            self.line(&format!("\n{}", self.screen.wrap_within(&reason, 0, LINES_MAX)));
        }
    }

    fn scene(&mut self, alert: &Value) {
        self.line("");
        for (label, fields) in SCENE {
            let values: Vec<String> = fields
                .iter()
                .map(|name| texts(alert, name).join(", "))
                .filter(|value| !value.is_empty())
                .collect();
            if !values.is_empty() {
                self.fact(label, &escape(&values.join("  ")));
            }
        }
        if let Some(anomaly) = words::anomaly(alert) {
            self.fact("anomaly", &anomaly);
        }
        let ours = field(alert, "lapwing.alert").and_then(Value::as_object);
        for (name, value) in ours.into_iter().flatten() {
            if !KNOWN.contains(&name.as_str()) && !value.is_null() {
                self.fact(&escape(&name.replace('_', " ")), &words::any(value));
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

    /// Whether the sensor lost records.
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
                (Some(time), Some(first)) if time > first => {
                    format!("  +{}", words::short(time.since(first)))
                }
                _ => String::new(),
            };
            let (action, outcome) = (texts(event, "event.action").join(", "), text(event, "event.outcome"));
            // The outcome of a connection is not known at its start.
            let outcome = if outcome == "unknown" { "" } else { &outcome };
            let outcome = if outcome.is_empty() { outcome } else { &format!(", {outcome}") };
            let action = self.screen.paint(Look::Strong, &escape(&action));
            self.line(&format!("{}  {action}{}{later}", escape(clock), escape(outcome)));
            let shown = [
                words::subject(event),
                words::command(event),
                words::request(event),
                words::connection(event),
            ];
            for shown in shown.into_iter().flatten() {
                self.below(&shown);
            }
        }
        for shown in words::holders(alert).into_iter().chain(words::successor(alert)) {
            let shown = self.screen.wrap_within(&shown, EVENT, LINES_MAX);
            let shown = self.screen.paint(Look::Bad, &shown);
            self.line(&format!("{:EVENT$}{shown}", ""));
        }
    }

    fn processes(&mut self, alert: &Value) {
        let ancestors = list(alert, "lapwing.alert.ancestors");
        let same =
            |left: &Value, right: &Value| text(left, "process.entity_id") == text(right, "process.entity_id");
        let mut own: Vec<&Value> = Vec::new();
        for event in list(alert, "lapwing.alert.events").iter().chain([alert]) {
            // The alert has more fields of its process than the event.
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
        let name = words::named(of);
        let name = self.screen.fit(&name, 3 * depth);
        let used = 3 * depth + name.width();
        let users = [text(of, "process.user.name"), text(of, "user.name")];
        let user = users.iter().find(|user| !user.is_empty());
        let user = user.map_or_else(String::new, |user| format!(" {}", escape(user)));
        let command = words::command(of).map_or_else(String::new, |command| format!("  {command}"));
        let rest = self.screen.paint(Look::Faint, &self.screen.fit(&format!("{user}{command}"), used));
        let name = if is_own { self.screen.paint(Look::Strong, &name) } else { name.into_owned() };
        self.line(&format!("{indent}{name}{rest}"));
        let hash = text(of, "process.hash.sha256");
        let skipped = text(of, "lapwing.process.hash_skipped");
        let shown = match (hash.is_empty(), skipped.is_empty()) {
            (false, _) => format!("sha256 {}", escape(&hash)),
            (true, false) => format!("no sha256: {}", escape(&skipped)),
            (true, true) => return,
        };
        if self.extent == DetailLevel::Whole {
            let hash = self.screen.paint(Look::Faint, &shown);
            self.line(&format!("{:width$}{hash}", "", width = 3 * depth));
        }
    }

    fn rule(&mut self, alert: &Value) {
        if field(alert, "rule").is_none() {
            return;
        }
        self.section("Rule");
        let description = escape(&text(alert, "rule.description").trim().replace('\n', " ")).into_owned();
        if !description.is_empty() {
            self.line(&self.screen.wrap(&description, 0));
        }
        let rule: Vec<_> =
            [("", "rule.uuid"), ("version ", "rule.version"), ("", "rule.category"), ("", "rule.ruleset")]
                .iter()
                .map(|(before, name)| (before, text(alert, name)))
                .filter(|(_, value)| !value.is_empty())
                .map(|(before, value)| format!("{before}{value}"))
                .collect();
        let named = [
            ("tactic", "threat.tactic"),
            ("technique", "threat.technique"),
            ("", "threat.technique.subtechnique"),
        ];
        self.fact("rule", &escape(&rule.join("  ")));
        for (label, of) in named {
            if let Some(shown) = words::references(alert, of) {
                self.fact(label, &shown);
            }
        }
        self.references(alert);
        let false_positives = texts(alert, "lapwing.alert.false_positives");
        if !false_positives.is_empty() {
            self.section("Known false positives");
        }
        for known in false_positives {
            self.paragraph(&format!("- {}", escape(&known)));
        }
    }

    fn references(&mut self, alert: &Value) {
        let all = texts(alert, "lapwing.alert.references");
        let mut label = "reference";
        for reference in if all.is_empty() { texts(alert, "rule.reference") } else { all } {
            // Not wrapped, so that a terminal recognises a link.
            self.line(&format!("{label:<LABEL$}{}", escape(&reference)));
            label = "";
        }
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
                None => self.paragraph(&line),
            }
        }
    }

    /// A paragraph, or a list item whose continuation lines are aligned with its first word.
    fn paragraph(&mut self, text: &str) {
        let mark = text.split_once(' ').map_or("", |(mark, _)| mark);
        let is_item =
            mark == "-" || mark.strip_suffix('.').is_some_and(|number| number.parse::<u8>().is_ok());
        let indent = if is_item { mark.len() + 1 } else { 0 };
        let (mark, rest) = text.split_at(indent);
        self.line(&format!("{mark}{}", self.screen.wrap(rest, indent)));
    }

    fn section(&mut self, title: &str) {
        let title = self.screen.paint(Look::Strong, title);
        self.line(&format!("\n{title}"));
    }

    /// A labelled value; both are escaped already.
    fn fact(&mut self, label: &str, value: &str) {
        let value = self.screen.wrap_within(value, LABEL, LINES_MAX);
        self.line(&format!("{:<width$} {value}", label, width = LABEL - 1));
    }

    /// A line about an event, below its time.
    fn below(&mut self, shown: &str) {
        let shown = self.screen.wrap_within(shown, EVENT, LINES_MAX);
        self.line(&format!("{:EVENT$}{shown}", ""));
    }

    fn line(&mut self, line: &str) {
        // Writing to a string cannot fail.
        _ = writeln!(self.text, "{}", line.trim_end());
    }
}
