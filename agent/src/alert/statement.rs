//! The agent's own alerts, which are not raised by a rule file: their common parts.

use bytes::Bytes;
use lapwing_engine::rule::Severity;
use lapwing_engine::{Event, Schema, Timestamp, field};
use serde_json::{Map, Value as Json, json};
use sha2::{Digest as _, Sha256};

use super::document::AlertDocument;
use super::{Heading, describe_agent, object};
use crate::digest::hex;

/// A rule of the agent itself.
pub(super) struct OwnRule {
    /// The id of the rule, which its alerts have as `rule.id`.
    pub(super) id: &'static str,
    pub(super) name: &'static str,
    pub(super) description: &'static str,
    /// `rule.category`, and `lapwing.alert.rule_type`.
    pub(super) category: &'static str,
    /// `event.action`.
    pub(super) action: &'static str,
}

/// The content of such an alert.
pub(super) struct Statement<'a> {
    pub(super) rule: &'static OwnRule,
    /// The event on which it is based.
    pub(super) event: &'a Event,
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
    pub(super) reason: String,
    pub(super) severity: Severity,
    pub(super) risk_score: u32,
    pub(super) guide: &'a str,
    pub(super) lost_records: Option<u64>,
    /// The member below `lapwing`, with its name.
    pub(super) detail: (&'static str, Json),
}

impl Statement<'_> {
    /// Builds the document.
    pub(super) fn document(self, schema: &Schema) -> AlertDocument {
        let mut root = match self.event.to_json(schema) {
            Json::Object(root) => root,
            _ => Map::new(),
        };
        let first = self.event.text(field!("event.id")).unwrap_or_default();
        let digest = Sha256::digest(format!("{} {first} {}", self.rule.id, self.from));
        let id = hex(&digest[..16]);
        root.insert("@timestamp".to_owned(), self.to.to_string().into());
        root.insert("message".to_owned(), self.rule.name.into());
        let event = object(&mut root, "event");
        for name in ["sequence", "created"] {
            event.remove(name);
        }
        let heading = Heading {
            kind: "alert",
            id: &id,
            severity: self.severity,
            risk_score: self.risk_score.into(),
            reason: &self.reason,
        };
        heading.write(event);
        for (name, value) in [
            ("action", self.rule.action.to_owned()),
            ("start", self.from.to_string()),
            ("end", self.to.to_string()),
        ] {
            event.insert(name.to_owned(), value.into());
        }
        describe_agent(&mut root);
        root.insert("rule".to_owned(), self.rule.to_json());
        let own = json!({
            "id": id,
            "reason": self.reason,
            "rule_type": self.rule.category,
            "severity": self.severity.name(),
            "complete": false,
            "lost_records": self.lost_records,
            "guide": self.guide,
        });
        let ours = object(&mut root, "lapwing");
        ours.insert("alert".to_owned(), own);
        ours.insert(self.detail.0.to_owned(), self.detail.1);
        AlertDocument { id, time: self.to, json: Bytes::from(Json::Object(root).to_string()), local: false }
    }
}

impl OwnRule {
    fn to_json(&self) -> Json {
        json!({
            "id": self.id,
            "uuid": self.id,
            "name": self.name,
            "description": self.description,
            "category": self.category,
            "version": "1",
            "author": ["Lapwing"],
            "license": "Apache-2.0",
            "ruleset": "lapwing",
        })
    }
}
