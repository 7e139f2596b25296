//! Alerts: a rule and its finding, with an id that is the same for the same cause.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use smol_str::SmolStr;

use crate::detect::{Finding, Suppressed};
use crate::event::{Event, FieldId, Schema, Timestamp, Value};
use crate::field;
use crate::rule::{Rule, Severity};

/// An alert.
#[derive(Clone, Debug)]
pub struct Alert {
    /// The rule that raised it.
    pub rule: Arc<Rule>,
    /// 64 hexadecimal digits: the same rule and cause give the same id, after a restart and in a replay too.
    pub id: String,
    /// The time of its last event.
    pub time: Timestamp,
    /// Its name: the rule's name, or the value of the rule's `rule_name_override`.
    pub name: SmolStr,
    /// The severity.
    pub severity: Severity,
    /// The risk score, from 0 to 100.
    pub risk_score: i64,
    /// The cause.
    pub cause: Cause,
    /// How many partial matches of the rule a limit evicted recently. Evidence of this alert, or of missing alerts, may
    /// be among them.
    pub dropped: u64,
}

/// The cause of an alert.
#[derive(Clone, Debug)]
pub enum Cause {
    /// A finding of a rule.
    Detection(Finding),
    /// Findings of a rule that were suppressed: they exceeded its limit, or repeated an earlier alert.
    Suppressed(Suppressed),
}

impl Alert {
    pub(super) fn detection(schema: &Schema, rule: &Arc<Rule>, finding: Finding) -> Self {
        let events = finding.events.iter().flatten();
        let last = events.clone().max_by_key(|event| event.time());
        let time = last.map(|event| event.timestamp()).unwrap_or_default();
        let mut identity = Identity::new(rule, "detection");
        events.for_each(|event| identity.event(schema, event));
        finding.new_terms.iter().for_each(|term| identity.text(&term.key()));
        if let Some(anomaly) = &finding.anomaly {
            identity.text(&anomaly.bucket.as_nanos().to_string());
            identity.text(&anomaly.job_id);
            identity.text(anomaly.by_value.as_deref().unwrap_or_default());
            identity.text(anomaly.partition_value.as_deref().unwrap_or_default());
        }
        if let Some(threshold) = &finding.threshold {
            threshold.terms.iter().for_each(|(_, term)| identity.text(&term.key()));
        }
        let (name, severity, risk_score) = overridden(rule, &finding);
        let (rule, id) = (rule.clone(), identity.finish());
        Self { rule, id, time, name, severity, risk_score, cause: Cause::Detection(finding), dropped: 0 }
    }

    pub(super) fn summary(rule: &Arc<Rule>, suppressed: Suppressed) -> Self {
        let mut identity = Identity::new(rule, "suppressed");
        identity.text(&suppressed.start.as_nanos().to_string());
        for (_, value) in suppressed.group.iter().flatten() {
            identity.text(if value.is_some() { "value" } else { "missing" });
            identity.text(value.as_deref().unwrap_or_default());
        }
        Self {
            rule: rule.clone(),
            id: identity.finish(),
            time: suppressed.end,
            name: rule.name.as_str().into(),
            severity: rule.severity,
            risk_score: rule.risk_score,
            cause: Cause::Suppressed(suppressed),
            dropped: 0,
        }
    }

    /// The finding, if it is the cause.
    #[must_use]
    pub fn finding(&self) -> Option<&Finding> {
        match &self.cause {
            Cause::Detection(finding) => Some(finding),
            Cause::Suppressed(_) => None,
        }
    }

    /// The events of the finding, in order, without missing ones.
    pub fn events(&self) -> impl DoubleEndedIterator<Item = &Arc<Event>> {
        self.finding().map_or(&[][..], |finding| finding.events.as_slice()).iter().flatten()
    }
}

/// Name, severity and risk score: the rule's, or those of the events by the rule's overrides.
fn overridden(rule: &Rule, finding: &Finding) -> (SmolStr, Severity, i64) {
    let overrides = &rule.overrides;
    let first = |field: Option<FieldId>| field.and_then(|field| finding.values(field).next());
    let name = first(overrides.name);
    let name = name.as_deref().map(Value::to_text).filter(|name| !name.trim().is_empty());
    let named = overrides
        .severity
        .iter()
        .filter(|(field, wanted, _)| finding.values(*field).any(|value| value.to_text() == wanted.as_str()));
    let severity = named.map(|(_, _, severity)| *severity).max().unwrap_or(rule.severity);
    let risk_score = match first(overrides.risk_score).as_deref() {
        Some(Value::Long(score)) => Some(*score),
        Some(Value::Double(score)) => Some(score.round() as i64),
        Some(Value::Text(score)) => score.parse().ok(),
        _ => None,
    };
    let risk_score = risk_score.filter(|score| (0..=100).contains(score)).unwrap_or(rule.risk_score);
    (name.map_or_else(|| rule.name.as_str().into(), SmolStr::from), severity, risk_score)
}

/// A hash over texts, each with its length, so that their boundaries count.
struct Identity(Sha256);

impl Identity {
    fn new(rule: &Rule, kind: &str) -> Self {
        let mut identity = Self(Sha256::new());
        identity.text(kind);
        identity.text(&rule.id);
        identity
    }

    fn text(&mut self, text: &str) {
        self.0.update((text.len() as u64).to_le_bytes());
        self.0.update(text.as_bytes());
    }

    /// Adds an event: its `event.id`, or otherwise all of its fields.
    fn event(&mut self, schema: &Schema, event: &Event) {
        if let Some(id) = event.text(field!("event.id")) {
            return self.text(id);
        }
        for (field, value) in event.fields() {
            self.text(schema.name(field));
            self.text(&value.key());
        }
    }

    fn finish(self) -> String {
        let hash: [u8; 32] = self.0.finalize().into();
        let (halves, _) = hash.as_chunks::<16>();
        halves.iter().map(|half| format!("{:032x}", u128::from_be_bytes(*half))).collect()
    }
}
