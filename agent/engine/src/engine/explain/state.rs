//! What a rule remembers: how much it may, and what events made of it.

use std::collections::HashMap;
use std::time::Duration;

use crate::detect::Limits;
use crate::event::{Event, FieldId, Schema};
use crate::lang::query::Query;
use crate::rule::{Rule, RuleKind};

/// What bounds the memory of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// What it remembers, in words.
    pub what: String,
    /// Bytes that it holds at most; `None` where entries are counted.
    pub bytes_max: Option<usize>,
    /// Entries that it holds at most; `None` where bytes are counted.
    pub entries_max: Option<usize>,
    /// How long it remembers; `None` where only the limit makes it forget.
    pub window: Option<Duration>,
}

/// The state that a rule may keep under these limits: none for rules for single events.
#[must_use]
pub fn bounds(rule: &Rule, limits: Limits) -> Vec<Bound> {
    let bytes = |what: &str, bytes_max, window| Bound {
        what: what.to_owned(),
        bytes_max: Some(bytes_max),
        entries_max: None,
        window,
    };
    let mut bounds = Vec::new();
    match &rule.kind {
        RuleKind::Query(_) | RuleKind::ThreatMatch { .. } => {}
        RuleKind::Eql(query) => {
            match query.inner() {
                Query::Sequence(sequence) => bounds.push(bytes(
                    "sequences that are not complete, those of who holds most given up first",
                    limits.sequence_bytes_max,
                    sequence.maxspan,
                )),
                Query::Sample(_) => bounds.push(bytes(
                    "samples that are not complete, those of who holds most given up first",
                    limits.sequence_bytes_max,
                    Some(rule.lookback),
                )),
                Query::Event(_) | Query::Lineage(_) => {}
            }
            if let Query::Lineage(lineage) = query {
                let bytes_max = limits.lineage_bytes_max.saturating_mul(lineage.subqueries.len());
                bounds.push(bytes("processes that later ones may be related to", bytes_max, None));
            }
        }
        RuleKind::NewTerms { history, .. } => {
            bounds.push(bytes(
                "terms that were seen, those of who has most and of the oldest sighting forgotten first",
                limits.terms_bytes_max,
                Some(*history),
            ));
        }
        RuleKind::Threshold { .. } => {
            bounds.push(bytes("counts by group", limits.threshold_bytes_max, Some(rule.lookback)));
        }
        RuleKind::MachineLearning { jobs, .. } => {
            let learned = limits.job_bytes_max.saturating_mul(2 * jobs.len());
            bounds.push(bytes("values by partition", learned, None));
        }
    }
    if let Some(suppression) = &rule.suppression {
        let what = "groups of suppressed alerts";
        bounds.push(bytes(what, limits.suppression_bytes_max, Some(suppression.duration)));
    }
    bounds
}

/// Most groups that are counted while a rule is explained, and most that are reported.
const GROUPS_MAX: usize = 10_000;
const GROUPS_SHOWN_MAX: usize = 5;

/// Counts what a rule's memory goes by: terms, groups, values that may be rare.
pub(super) struct Groups {
    fields: Vec<FieldId>,
    counts: HashMap<Vec<String>, u64>,
    lacking: u64,
    order: Vec<Vec<String>>,
}

impl Groups {
    /// Of rules that count; `None` of others.
    pub(super) fn of(rule: &Rule) -> Option<Self> {
        let fields = match &rule.kind {
            RuleKind::NewTerms { fields, .. } => fields.clone(),
            RuleKind::Threshold { threshold, .. } => threshold.fields.clone(),
            // Several jobs of a rule are of one kind; the first stands for them.
            RuleKind::MachineLearning { jobs, .. } => jobs.first()?.fields().collect(),
            RuleKind::Eql(_) | RuleKind::Query(_) | RuleKind::ThreatMatch { .. } => return None,
        };
        Some(Self { fields, counts: HashMap::new(), lacking: 0, order: Vec::new() })
    }

    /// Takes an event that met the rule's query.
    pub(super) fn count(&mut self, event: &Event) {
        let values = self.fields.iter().map(|id| Some(event.get(*id)?.to_text().into_owned()));
        let Some(group) = values.collect::<Option<Vec<_>>>() else {
            self.lacking += 1;
            return;
        };
        if let Some(count) = self.counts.get_mut(&group) {
            *count += 1;
        } else if self.counts.len() < GROUPS_MAX {
            self.order.push(group.clone());
            self.counts.insert(group, 1);
        }
    }

    /// What came together, in sentences, the most frequent first.
    pub(super) fn lines(&self, rule: &Rule, schema: &Schema) -> Vec<String> {
        let names: Vec<_> = self.fields.iter().map(|id| schema.name(*id)).collect();
        let names = if names.is_empty() { "all events together".to_owned() } else { names.join(", ") };
        let mut lines = vec![match &rule.kind {
            RuleKind::NewTerms { history, .. } => format!(
                "{} different terms of {names}; each is new at its first sighting, and again after {} without one",
                self.order.len(),
                spelled(*history)
            ),
            RuleKind::Threshold { threshold, .. } => {
                let cardinality = threshold
                    .cardinality
                    .map(|(id, least)| format!(", with {least} different values of {}", schema.name(id)));
                format!(
                    "counted by {names}: {} must come together within {}{}",
                    threshold.value,
                    spelled(rule.lookback),
                    cardinality.unwrap_or_default()
                )
            }
            RuleKind::MachineLearning { jobs, anomaly_threshold } => {
                let first = jobs.first().map(|job| (spelled(job.bucket_span), job.buckets_learned_min));
                let (span, learned) = first.unwrap_or_default();
                format!(
                    "values of {names}, in spans of {span}: no alert before {learned} spans were learned, and \
                     an alert takes a score of {anomaly_threshold}"
                )
            }
            RuleKind::Eql(_) | RuleKind::Query(_) | RuleKind::ThreatMatch { .. } => String::new(),
        }];
        let mut groups: Vec<_> = self.order.iter().map(|group| (group, self.counts[group])).collect();
        groups.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let shown = groups.iter().take(GROUPS_SHOWN_MAX);
        lines.extend(shown.map(|(group, count)| format!("{}: {count} events", group.join(", "))));
        if groups.len() > GROUPS_SHOWN_MAX {
            lines.push(format!("and {} more", groups.len() - GROUPS_SHOWN_MAX));
        }
        if self.lacking > 0 {
            lines.push(format!("{} events lack one of these fields and do not count", self.lacking));
        }
        lines
    }
}

/// A span in the largest unit that it is whole in.
#[must_use]
pub fn spelled(span: Duration) -> String {
    let seconds = span.as_secs();
    let units = [(86_400, "d"), (3_600, "h"), (60, "m")];
    let whole = units.into_iter().find(|(length, _)| seconds > 0 && seconds.is_multiple_of(*length));
    whole.map_or_else(|| format!("{span:?}"), |(length, unit)| format!("{}{unit}", seconds / length))
}
