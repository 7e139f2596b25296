//! What rules look for, by their types, and what becomes of what they find.

use std::sync::Arc;
use std::time::Duration;

use smol_str::SmolStr;

use super::{Job, Severity};
use crate::event::FieldId;
use crate::lang::{EventQuery, Query};

/// What a rule looks for, by its type.
#[derive(Clone, Debug)]
pub enum RuleKind {
    /// `eql`: events or sequences of events.
    Eql(Query),
    /// `query`: every event that matches.
    Query(EventQuery),
    /// `new_terms`: events that match and bring a term not seen for a while.
    NewTerms {
        /// Which events.
        query: EventQuery,
        /// The fields whose values together are a term.
        fields: Vec<FieldId>,
        /// How long a term counts as seen.
        history: Duration,
    },
    /// `threshold`: so many events in a while that agree in some fields.
    Threshold {
        /// Which events.
        query: EventQuery,
        /// How many.
        threshold: Threshold,
    },
    /// `threat_match`: events that match and that an indicator of a threat is about.
    ThreatMatch {
        /// Which events.
        query: EventQuery,
        /// Which indicators, and what they have in common with events.
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
    /// Every event query of the rule that may be changed: not those of jobs, which are others' too.
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
    /// What the events that are counted together agree in; without any, all are counted together. An event that lacks
    /// one of the fields is not counted.
    pub fields: Vec<FieldId>,
    /// How many events there must be.
    pub value: u64,
    /// A field, and how many different values the events must have in it.
    pub cardinality: Option<(FieldId, u64)>,
}

impl Threshold {
    /// Every field that it looks at.
    pub fn fields(&self) -> impl Iterator<Item = FieldId> {
        self.fields.iter().copied().chain(self.cardinality.map(|(field, _)| field))
    }
}

/// `[rule.alert_suppression]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suppression {
    /// What alerts that are counted together agree in.
    pub group_by: Vec<FieldId>,
    /// For how long after the alert that was raised the others are only counted; the rule's interval, where it does
    /// not say.
    pub duration: Duration,
    /// Whether an alert that lacks one of the fields is raised in any case: `missing_fields_strategy = "doNotSuppress"`.
    pub keep_without_fields: bool,
}

/// What of an alert its events say, and not the rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `rule_name_override`: the field that holds the alert's name.
    pub name: Option<FieldId>,
    /// `risk_score_mapping`: the field that holds the risk score.
    pub risk_score: Option<FieldId>,
    /// `severity_mapping`: the severities of values of fields; the worst of those that are met counts.
    pub severity: Vec<(FieldId, SmolStr, Severity)>,
}

/// The `threat_…` keys of a rule of type `threat_match`.
#[derive(Clone, Debug, PartialEq)]
pub struct ThreatMapping {
    /// `threat_query`: which indicators count; `None` for all.
    pub query: Option<EventQuery>,
    /// `threat_mapping`: an indicator is about an event where all entries of one of these hold.
    pub groups: Vec<Vec<ThreatEntry>>,
    /// `threat_indicator_path`: the path of the indicator in its document, for alerts.
    pub indicator_path: String,
}

/// A field of events that has a value in common with a field of indicators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreatEntry {
    /// The event's field.
    pub field: FieldId,
    /// The dotted name of the indicator's.
    pub indicator: String,
    /// Whether they must have none in common: `negate`.
    pub negate: bool,
}

impl ThreatMapping {
    /// Every field of events that it looks at.
    pub fn fields(&self) -> impl Iterator<Item = FieldId> {
        self.groups.iter().flatten().map(|entry| entry.field)
    }
}
