//! The types of rules with their queries, and the settings for their alerts.

use std::sync::Arc;
use std::time::Duration;

use smol_str::SmolStr;

use super::{Job, Severity};
use crate::event::FieldId;
use crate::lang::{EventQuery, Query};

/// The type of a rule, with its queries.
#[derive(Clone, Debug)]
pub enum RuleKind {
    /// `eql`: events or sequences of events.
    Eql(Query),
    /// `query`: every event that matches.
    Query(EventQuery),
    /// `new_terms`: events that match and have a term that was not seen in the history.
    NewTerms {
        /// The event query.
        query: EventQuery,
        /// The fields whose values together are a term.
        fields: Vec<FieldId>,
        /// How long a term counts as seen.
        history: Duration,
    },
    /// `threshold`: a number of events with the same values in some fields, within a time window.
    Threshold {
        /// The event query.
        query: EventQuery,
        /// The threshold.
        threshold: Threshold,
    },
    /// `threat_match`: events that match and that a threat indicator matches.
    ThreatMatch {
        /// The event query.
        query: EventQuery,
        /// The indicators, and the fields that they are compared with.
        threat: Box<ThreatMapping>,
    },
    /// `machine_learning`: anomalies of jobs.
    MachineLearning {
        /// The jobs.
        jobs: Vec<Arc<Job>>,
        /// Anomalies below this score do not count.
        anomaly_threshold: f64,
    },
}

impl RuleKind {
    /// The type's name in rule files.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Eql(_) => "eql",
            Self::Query(_) => "query",
            Self::NewTerms { .. } => "new_terms",
            Self::Threshold { .. } => "threshold",
            Self::ThreatMatch { .. } => "threat_match",
            Self::MachineLearning { .. } => "machine_learning",
        }
    }

    /// Every event query of the rule, in the order of its stages.
    #[must_use]
    pub fn events(&self) -> Vec<&EventQuery> {
        match self {
            Self::Eql(query) => query.events().collect(),
            Self::Query(query)
            | Self::NewTerms { query, .. }
            | Self::Threshold { query, .. }
            | Self::ThreatMatch { query, .. } => vec![query],
            Self::MachineLearning { jobs, .. } => jobs.iter().map(|job| &job.query).collect(),
        }
    }
}

impl RuleKind {
    /// The event queries that belong to this rule alone, mutable. Other rules may use the queries of jobs too.
    pub(super) fn events_mut(&mut self) -> Vec<&mut EventQuery> {
        match self {
            Self::Eql(query) => query.events_mut(),
            Self::Query(query)
            | Self::NewTerms { query, .. }
            | Self::Threshold { query, .. }
            | Self::ThreatMatch { query, .. } => vec![query],
            Self::MachineLearning { .. } => Vec::new(),
        }
    }
}

/// `[rule.threshold]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Threshold {
    /// The fields by which events are grouped; if empty, all events are one group. An event that lacks one of the
    /// fields is not counted.
    pub fields: Vec<FieldId>,
    /// The minimum number of events.
    pub value: u64,
    /// A field, and the minimum number of its distinct values.
    pub cardinality: Option<(FieldId, u64)>,
}

impl Threshold {
    /// Every field that it reads.
    pub fn fields(&self) -> impl Iterator<Item = FieldId> {
        self.fields.iter().copied().chain(self.cardinality.map(|(field, _)| field))
    }
}

/// `[rule.alert_suppression]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suppression {
    /// The fields by which alerts are grouped.
    pub group_by: Vec<FieldId>,
    /// How long after a raised alert further alerts of its group are only counted. Default: the rule's interval.
    pub duration: Duration,
    /// Whether an alert that lacks one of the fields is never suppressed: `missing_fields_strategy = "doNotSuppress"`.
    pub keep_without_fields: bool,
}

/// The values of an alert that come from its events and not from the rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `rule_name_override`: the field that holds the alert's name.
    pub name: Option<FieldId>,
    /// `risk_score_mapping`: the field that holds the risk score.
    pub risk_score: Option<FieldId>,
    /// `severity_mapping`: severities by field and value. The highest one whose value is present counts.
    pub severity: Vec<(FieldId, SmolStr, Severity)>,
}

/// The `threat_…` keys of a rule of type `threat_match`.
#[derive(Clone, Debug, PartialEq)]
pub struct ThreatMapping {
    /// `threat_query`: selects indicators; `None` for all.
    pub query: Option<EventQuery>,
    /// `threat_mapping`: an indicator matches an event if all entries of one of these groups hold.
    pub groups: Vec<Vec<ThreatEntry>>,
    /// `threat_indicator_path`: the path of the indicator in its document, for alerts.
    pub indicator_path: String,
}

/// A comparison of an event's field with an indicator's field: they must have a common value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreatEntry {
    /// The event's field.
    pub field: FieldId,
    /// The dotted name of the indicator's field.
    pub indicator: String,
    /// `negate`: whether they must have no common value.
    pub negate: bool,
}

impl ThreatMapping {
    /// Every field of events that it reads.
    pub fn fields(&self) -> impl Iterator<Item = FieldId> {
        self.groups.iter().flatten().map(|entry| entry.field)
    }
}
