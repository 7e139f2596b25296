//! Alerts: what was found, by which rule, under an id that the same cause always gives.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::detect::Finding;
use crate::event::{Event, Schema, Timestamp};
use crate::field;
use crate::rule::Rule;

/// Something that a person should look at.
#[derive(Clone, Debug)]
pub struct Alert {
    /// The rule that raised it.
    pub rule: Arc<Rule>,
    /// 64 hexadecimal digits: the same rule and cause give the same id, after a restart and in a replay too.
    pub id: String,
    /// When the last of its events happened.
    pub time: Timestamp,
    /// What it is about.
    pub cause: Cause,
}

/// What an alert is about.
#[derive(Clone, Debug)]
pub enum Cause {
    /// A rule found something.
    Detection(Finding),
    /// A rule found more than it may tell.
    Suppressed(Suppressed),
}

/// Alerts that were not raised because there were too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suppressed {
    /// How many.
    pub count: u64,
    /// The start of the time span.
    pub start: Timestamp,
    /// Its end.
    pub end: Timestamp,
}

impl Alert {
    pub(super) fn detection(schema: &Schema, rule: &Arc<Rule>, finding: Finding) -> Self {
        let events = finding.events.iter().flatten();
        let time = events.clone().map(|event| event.time()).max().unwrap_or_default();
        let mut identity = Identity::new(rule, "detection");
        events.for_each(|event| identity.event(schema, event));
        finding.new_terms.iter().for_each(|term| identity.text(&term.key()));
        if let Some(anomaly) = &finding.anomaly {
            identity.text(&anomaly.bucket.as_nanos().to_string());
            identity.text(&anomaly.by_value);
            identity.text(anomaly.partition_value.as_deref().unwrap_or_default());
        }
        Self { rule: rule.clone(), id: identity.finish(), time, cause: Cause::Detection(finding) }
    }

    pub(super) fn summary(rule: &Arc<Rule>, suppressed: Suppressed) -> Self {
        let mut identity = Identity::new(rule, "suppressed");
        identity.text(&suppressed.start.as_nanos().to_string());
        let time = suppressed.end;
        Self { rule: rule.clone(), id: identity.finish(), time, cause: Cause::Suppressed(suppressed) }
    }

    /// The events it was raised for, in order, without those that are missing.
    pub fn events(&self) -> impl DoubleEndedIterator<Item = &Arc<Event>> {
        let events = match &self.cause {
            Cause::Detection(finding) => finding.events.as_slice(),
            Cause::Suppressed(_) => &[],
        };
        events.iter().flatten()
    }
}

/// A hash over texts of which none can run into the next.
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

    /// An event is known by its `event.id`, or else by everything that is in it.
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
        use std::fmt::Write as _;
        self.0.finalize().iter().fold(String::with_capacity(64), |mut hex, byte| {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }
}
