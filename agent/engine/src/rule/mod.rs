//! Rules and machine learning jobs, read from TOML files as Elastic publishes them.
//!
//! A rule is loaded only if Lapwing supports all of it; otherwise it is refused with an error. No key that changes its
//! meaning is ignored. An invalid file never stops another from being read.

mod allow;
mod document;
mod exception;
mod file;
mod format;
mod job;
mod keys;
mod kind;
mod load;
mod set;

pub use exception::{Exception, Exceptions};
pub use file::Report;
pub use format::{Formatted, format_file};
pub use job::{Job, JobFunction};
pub use kind::{Overrides, RuleKind, Suppression, ThreatEntry, ThreatMapping, Threshold};
pub use set::Loaded;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use smol_str::SmolStr;

use crate::event::FieldId;
use crate::lang::{Demand, EventQuery};

/// Longest rule file that is read, in bytes.
pub const FILE_BYTES_MAX: usize = 1 << 20;

/// A detection rule that can run.
#[derive(Clone, Debug)]
pub struct Rule {
    /// `rule_id`, which is the same in all versions of the rule.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its description.
    pub description: String,
    /// Its authors.
    pub author: Vec<String>,
    /// The licence of its text.
    pub license: Option<String>,
    /// Its version, if the file has one.
    pub version: Option<i64>,
    /// The severity of its alerts.
    pub severity: Severity,
    /// The risk score of its alerts, from 0 to 100.
    pub risk_score: i64,
    /// Its tags.
    pub tags: Vec<String>,
    /// Links to further information.
    pub references: Vec<String>,
    /// Known causes of false positives.
    pub false_positives: Vec<String>,
    /// The investigation guide, in Markdown.
    pub note: Option<String>,
    /// Its tactics and techniques in MITRE ATT&CK.
    pub threat: Vec<Threat>,
    /// Patterns of Elasticsearch indices. They select the sources whose events it gets.
    pub index: Vec<String>,
    /// Whether it runs.
    pub enabled: bool,
    /// How often it would run in the Elastic stack; here the length of the window of `max_signals`.
    pub interval: Duration,
    /// How far back a run would look in the Elastic stack; here the length of the window of a threshold.
    pub lookback: Duration,
    /// Maximum number of alerts for one executable in an interval. For all executables together it is eight times as
    /// high.
    pub max_signals: u32,
    /// `alert_suppression`: which alerts are counted and not raised.
    pub suppression: Option<Suppression>,
    /// The values of an alert that come from its events.
    pub overrides: Overrides,
    /// `building_block_type`: whether its alerts are input for other rules and searches, and need no attention by
    /// themselves.
    pub building_block: bool,
    /// The type of the rule, with its queries.
    pub kind: RuleKind,
    /// The text of its query; empty for a machine learning rule.
    pub query: String,
    /// The file from which it was read.
    pub file: Arc<str>,
}

/// The severity of a rule's alerts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// `low`
    Low,
    /// `medium`
    Medium,
    /// `high`
    High,
    /// `critical`
    Critical,
}

impl Severity {
    /// All of them with their names and the numbers that Elastic gives them, from low to critical.
    pub const ALL: [(Self, &str, u8); 4] = [
        (Self::Low, "low", 21),
        (Self::Medium, "medium", 47),
        (Self::High, "high", 73),
        (Self::Critical, "critical", 99),
    ];

    /// The severity of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known, _)| *known == name).map(|(severity, _, _)| *severity)
    }

    /// Its name, as in rule files.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// Its number, as in `event.severity`: 21, 47, 73 or 99.
    #[must_use]
    pub fn number(self) -> u8 {
        Self::ALL[self as usize].2
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A tactic and techniques of a framework.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Threat {
    /// `MITRE ATT&CK`.
    pub framework: String,
    /// The tactic.
    pub tactic: Reference,
    /// The techniques, each with its sub-techniques.
    pub techniques: Vec<(Reference, Vec<Reference>)>,
}

/// An entry of a threat framework.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reference {
    /// Such as `T1059.004`.
    pub id: String,
    /// Such as `Unix Shell`.
    pub name: String,
    /// Its page.
    pub reference: String,
}

impl Rule {
    /// Every field that the rule reads.
    #[must_use]
    pub fn fields(&self) -> BTreeSet<FieldId> {
        let mut fields: BTreeSet<_> = match &self.kind {
            RuleKind::Eql(query) => query.fields().into_iter().collect(),
            kind => kind.events().into_iter().flat_map(EventQuery::fields).collect(),
        };
        match &self.kind {
            RuleKind::NewTerms { fields: terms, .. } => fields.extend(terms),
            RuleKind::Threshold { threshold, .. } => fields.extend(threshold.fields()),
            RuleKind::ThreatMatch { threat, .. } => fields.extend(threat.fields()),
            RuleKind::MachineLearning { jobs, .. } => fields.extend(jobs.iter().flat_map(|job| job.fields())),
            RuleKind::Eql(_) | RuleKind::Query(_) => {}
        }
        fields
    }

    /// Every text that the rule compares values of the field with ([`Query::texts`](crate::lang::Query::texts)).
    #[must_use]
    pub fn texts(&self, field: FieldId) -> BTreeSet<SmolStr> {
        match &self.kind {
            RuleKind::Eql(query) => query.texts(field),
            kind => kind.events().into_iter().flat_map(|event| event.texts(field)).collect(),
        }
    }

    /// Whether any value of the field can cause an alert: the query requires the field without a particular value, or
    /// the field is one of the rule's new terms, and the query does not restrict its values.
    #[must_use]
    pub fn takes_any(&self, field: FieldId) -> bool {
        let mut demands = self.kind.events().into_iter().map(|event| event.demand(field));
        match &self.kind {
            RuleKind::NewTerms { fields, .. } if fields.contains(&field) => {
                demands.all(|demand| demand != Demand::Passing)
            }
            _ => demands.any(|demand| demand == Demand::Any),
        }
    }

    /// Whether the rule reads a data stream such as `logs-endpoint.events.process-default`: one of its index patterns
    /// matches that name. For a machine learning rule these are the patterns of its jobs.
    #[must_use]
    pub fn reads(&self, data_stream: &str) -> bool {
        let patterns: Vec<_> = match &self.kind {
            RuleKind::MachineLearning { jobs, .. } => jobs.iter().flat_map(|job| &job.index).collect(),
            _ => self.index.iter().collect(),
        };
        patterns.iter().any(|pattern| index_matches(pattern, data_stream))
    }
}

/// Whether an index pattern matches a name. `*` matches any characters.
fn index_matches(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(start) else { return false };
    let mut parts: Vec<_> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        match name.find(part) {
            Some(at) => name = &name[at + part.len()..],
            None => return false,
        }
    }
    name.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_patterns_match_names() {
        let name = "logs-endpoint.events.process-default";
        for pattern in
            ["logs-endpoint.events.*", "logs-*", "logs-endpoint.events.process*", "*", "l*process*t", name]
        {
            assert!(index_matches(pattern, name), "{pattern}");
        }
        for pattern in ["logs-endpoint.events.network*", "auditbeat-*", "logs", "*x*", "logs-*-defaul"] {
            assert!(!index_matches(pattern, name), "{pattern}");
        }
    }
}
