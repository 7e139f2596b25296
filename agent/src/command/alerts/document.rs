//! Reads the parts of alert documents that are shown. Missing fields are skipped: the log may be from an older version.

use std::borrow::Cow;

use lapwing_engine::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::alert::BUILDING_BLOCK_KIND;

/// The fields for the list.
#[derive(Debug, Deserialize)]
pub(super) struct Summary<'a> {
    #[serde(rename = "@timestamp", borrow)]
    time: Cow<'a, str>,
    #[serde(borrow)]
    event: Event<'a>,
    #[serde(borrow, default)]
    message: Cow<'a, str>,
    #[serde(borrow, default)]
    rule: Rule<'a>,
    #[serde(borrow, default)]
    lapwing: Lapwing<'a>,
}

#[derive(Debug, Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow, default)]
    kind: Cow<'a, str>,
    #[serde(default)]
    severity: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Rule<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    uuid: Cow<'a, str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Lapwing<'a> {
    #[serde(borrow)]
    alert: Alert<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Alert<'a> {
    #[serde(borrow)]
    reason: Cow<'a, str>,
    suppressed_count: u64,
}

impl<'a> Summary<'a> {
    /// Parses a line of the log; `None` if it is no alert.
    pub(super) fn read(line: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }

    pub(super) fn id(&self) -> &str {
        &self.event.id
    }

    /// Whether it is an alert of a building block rule.
    pub(super) fn is_building_block(&self) -> bool {
        self.event.kind == BUILDING_BLOCK_KIND
    }

    pub(super) fn time(&self) -> Option<Timestamp> {
        Timestamp::parse(&self.time)
    }

    pub(super) fn severity(&self) -> i64 {
        self.event.severity
    }

    pub(super) fn rule_name(&self) -> &str {
        if self.rule.name.is_empty() { &self.message } else { &self.rule.name }
    }

    pub(super) fn rule_ids(&self) -> impl Iterator<Item = &str> {
        [&*self.rule.id, &*self.rule.uuid].into_iter()
    }

    pub(super) fn reason(&self) -> &str {
        &self.lapwing.alert.reason
    }

    pub(super) fn suppressed(&self) -> u64 {
        self.lapwing.alert.suppressed_count
    }
}

/// The value of a field by its dotted name.
pub(super) fn field<'a>(document: &'a Value, name: &str) -> Option<&'a Value> {
    name.split('.').try_fold(document, |inner, part| inner.get(part)).filter(|value| !value.is_null())
}

/// The values of a field as texts; empty if it is absent.
pub(super) fn texts(document: &Value, name: &str) -> Vec<String> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match field(document, name) {
        None => Vec::new(),
        Some(Value::Array(values)) => values.iter().map(text).collect(),
        Some(value) => vec![text(value)],
    }
}

/// The first value of a field as text; empty if it is absent.
pub(super) fn text(document: &Value, name: &str) -> String {
    texts(document, name).into_iter().next().unwrap_or_default()
}

/// The values of a list field; empty if it is absent or no list.
pub(super) fn list<'a>(document: &'a Value, name: &str) -> &'a [Value] {
    field(document, name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}
