//! `threat_match`: events that a threat indicator matches.
//!
//! The caller provides the indicators. Each group of the rule's mapping is looked up by the values of its first field.
//! So the cost of an event does not grow with the number of indicators.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value as Json};
use smol_str::SmolStr;

use super::{Finding, Findings, Hit, Matcher};
use crate::event::{Event, Schema, Value};
use crate::rule::{ThreatEntry, ThreatMapping};

/// Maximum number of indicators in an alert.
const ENRICHMENTS_MAX: usize = 32;
/// The type of such a match in alerts, as in Kibana.
pub const MATCHED_TYPE: &str = "indicator_match_rule";

/// Threat indicators, each an ECS document with `threat.indicator`.
#[derive(Clone, Debug, Default)]
pub struct Indicators {
    documents: Vec<(Box<str>, SmolStr)>,
}

impl Indicators {
    /// Adds an indicator. `place` is its origin, such as a file and a line. Returns its approximate bytes.
    pub fn push(&mut self, document: &Map<String, Json>, place: impl Into<SmolStr>) -> usize {
        // Text takes less memory than a tree, and few indicators ever match.
        let text = serde_json::to_string(document).unwrap_or_default();
        let place = place.into();
        let bytes = size_of::<(Box<str>, SmolStr)>() + text.len() + place.len();
        self.documents.push((text.into(), place));
        bytes
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.documents.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.documents.is_empty()
    }

    fn document(&self, index: u32) -> Json {
        let text = self.documents.get(index as usize).map_or("null", |(text, _)| text);
        serde_json::from_str(text).unwrap_or_default()
    }
}

/// An indicator that matched an event, in the terms of Kibana's `threat.enrichments`.
#[derive(Clone, Debug, PartialEq)]
pub struct Enrichment {
    /// The part of the indicator at the rule's `threat_indicator_path`.
    pub indicator: Json,
    /// The common value.
    pub atomic: SmolStr,
    /// The name of the event's field with this value.
    pub field: SmolStr,
    /// The origin of the indicator.
    pub id: SmolStr,
}

/// The indicators of one rule.
#[derive(Debug)]
pub struct IndicatorMatch {
    threat: ThreatMapping,
    indicators: Arc<Indicators>,
    /// For each group, the indicators by the values of the field that is looked up.
    groups: Vec<HashMap<SmolStr, Vec<u32>>>,
}

impl IndicatorMatch {
    /// The indicators that the rule's `threat_query` selects.
    #[must_use]
    pub fn new(threat: &ThreatMapping, indicators: &Arc<Indicators>, schema: &Schema) -> Self {
        let mut groups = vec![HashMap::<_, Vec<u32>>::new(); threat.groups.len()];
        let mut indicator_query = threat.query.as_ref().map(|query| Matcher::new([query]));
        for index in 0..u32::try_from(indicators.len()).unwrap_or(u32::MAX) {
            let document = indicators.document(index);
            if indicator_query
                .as_mut()
                .is_some_and(|indicator_query| !counts(indicator_query, &document, schema))
            {
                continue;
            }
            for (group, by_value) in threat.groups.iter().zip(&mut groups) {
                for value in first(group).map(|entry| values(&document, entry, schema)).unwrap_or_default() {
                    by_value.entry(value).or_default().push(index);
                }
            }
        }
        Self { threat: threat.clone(), indicators: indicators.clone(), groups }
    }

    /// Evaluates an event that matched the rule's query.
    pub(crate) fn event(&self, schema: &Schema, hit: &Hit, findings: &mut Findings) {
        let mut enrichments = Vec::new();
        for (group, by_value) in self.threat.groups.iter().zip(&self.groups) {
            let Some(entry) = first(group) else { continue };
            for value in hit.event.values(entry.field) {
                let atomic = value.key();
                for index in by_value.get(&atomic).into_iter().flatten() {
                    let document = self.indicators.document(*index);
                    let holds = group.iter().all(|entry| holds(entry, &document, &hit.event, schema));
                    if holds && enrichments.len() < ENRICHMENTS_MAX {
                        enrichments.push(self.enrichment(*index, &document, &atomic, entry, schema));
                    }
                }
            }
        }
        if !enrichments.is_empty() {
            let events = vec![Some(hit.event.clone())];
            findings.found.push(Finding { events, enrichments, ..Finding::default() });
        }
    }

    fn enrichment(
        &self,
        index: u32,
        document: &Json,
        atomic: &SmolStr,
        entry: &ThreatEntry,
        schema: &Schema,
    ) -> Enrichment {
        Enrichment {
            indicator: below(document, &self.threat.indicator_path),
            atomic: atomic.clone(),
            field: schema.name(entry.field).into(),
            id: self.indicators.documents[index as usize].1.clone(),
        }
    }
}

/// The entry of a group by which indicators are looked up.
fn first(group: &[ThreatEntry]) -> Option<&ThreatEntry> {
    group.iter().find(|entry| !entry.negate)
}

fn holds(entry: &ThreatEntry, document: &Json, event: &Event, schema: &Schema) -> bool {
    let wanted = values(document, entry, schema);
    event.values(entry.field).map(|value| value.key()).any(|value| wanted.contains(&value)) != entry.negate
}

/// The values of an indicator's field, as values of the event's field.
fn values(document: &Json, entry: &ThreatEntry, schema: &Schema) -> Vec<SmolStr> {
    let found = leaves(document, &entry.indicator).into_iter().flat_map(|json| match json {
        Json::Array(values) => values.as_slice(),
        value => std::slice::from_ref(value),
    });
    let ty = schema.ty(entry.field);
    found.filter_map(|json| Value::from_json(ty, json)).map(|value| value.key()).collect()
}

/// The values at a dotted name, in nested objects or dotted keys.
fn leaves<'a>(document: &'a Json, name: &str) -> Vec<&'a Json> {
    let Some(object) = document.as_object() else {
        let inner = document.as_array().into_iter().flatten();
        return inner.filter(|inner| inner.is_object()).flat_map(|inner| leaves(inner, name)).collect();
    };
    let mut found: Vec<_> = object.get(name).into_iter().collect();
    for (end, _) in name.match_indices('.') {
        if let Some(inner) = object.get(&name[..end]) {
            found.extend(leaves(inner, &name[end + 1..]));
        }
    }
    found
}

/// The part of a document below a dotted name, nested or not; the whole document if there is none.
fn below(document: &Json, name: &str) -> Json {
    if let Some(nested) = leaves(document, name).into_iter().next() {
        return nested.clone();
    }
    let fields = document.as_object().into_iter().flatten();
    let flat =
        fields.filter_map(|(field, value)| Some((field.strip_prefix(name)?.strip_prefix('.')?, value)));
    let flat: Map<_, _> = flat.map(|(field, value)| (field.to_owned(), value.clone())).collect();
    if flat.is_empty() { document.clone() } else { flat.into() }
}

/// Whether the rule's indicator query matches this indicator.
fn counts(indicator_query: &mut Matcher, document: &Json, schema: &Schema) -> bool {
    let mut document = document.clone();
    if let Json::Object(object) = &mut document {
        object.entry("@timestamp").or_insert(Json::from(0));
    }
    Event::from_json(schema, &document).is_ok_and(|event| indicator_query.matches(&event))
}
