//! An alert as a document: ECS, so that any collector can read it and Elastic's "External Alerts" rule promotes it, and
//! `lapwing.alert.*` for what ECS lacks.
//!
//! The root is the last event of the match, completed with what the source has about its process; every event is stored
//! unchanged in `lapwing.alert.events`. No clock and no host state is read here: the same alert gives the same document.

pub(crate) mod cause;
mod context;
mod cut;
mod document;
mod form;
mod incident;
pub(crate) mod lost;
mod reason;
mod statement;
pub(crate) mod tampered;

pub(crate) use context::Context;
pub(crate) use cut::ALERT_BYTES_MAX;
pub(crate) use document::{AlertDocument, BUILDING_BLOCK_KIND};
pub(crate) use form::Form;
pub(crate) use incident::{Down, Lost, Tampered, Weight};
#[cfg(test)]
pub(crate) use reason::examples;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use lapwing_engine::event::Leaf;
use lapwing_engine::rule::{Reference, Severity, Threat};
use lapwing_engine::{Alert, Cause, Event, Fields, Schema, Timestamp, Value, field};
use serde_json::{Map, Value as Json, json};

use self::cut::{Cuts, Part, Piece};

/// The ECS version of the document, unless the event has one.
const ECS_VERSION: &str = "8.11.0";
/// Longest value in a line of text, such as `message`, in characters.
const NAME_CHARS_MAX: usize = 256;
/// Longest reason, in characters.
const REASON_CHARS_MAX: usize = 2048;
/// Maximum size of each part from the rule, the indicators and `related.*`, in bytes of JSON.
const SAID_BYTES_MAX: usize = 16 << 10;
/// Maximum size of each member of `lapwing.alert.*`, in bytes of JSON.
const OWN_BYTES_MAX: usize = 8 << 10;
/// Maximum size of a rule's guide, in bytes of JSON.
const GUIDE_BYTES_MAX: usize = 32 << 10;
/// Allowance for the parts that are not measured: names of objects, the reason, the agent's own fields, the list of cuts.
const OVERHEAD_BYTES_MAX: usize = 64 << 10;

/// Data that completes an alert's document.
#[derive(Default)]
pub(crate) struct Evidence {
    /// What the source has about the last event.
    pub(crate) context: Context,
    /// Records lost during the alert's events; `None` if the source cannot lose any.
    pub(crate) lost_records: Option<u64>,
    /// When the alert was raised; absent in a replay, which has no such time.
    pub(crate) created: Option<Timestamp>,
}

/// Builds the document of an alert, of at most [`ALERT_BYTES_MAX`].
pub(crate) fn document(alert: &Alert, schema: &Schema, evidence: &Evidence) -> AlertDocument {
    let mut cuts = Cuts::default();
    let completed = completed(alert, schema, evidence);
    let said = said(alert, completed.as_ref(), &mut cuts);
    let mut own = own(alert, schema, evidence, &mut cuts);
    let mut pieces = pieces(alert, schema, evidence, completed.as_ref());
    let room = ALERT_BYTES_MAX - OVERHEAD_BYTES_MAX;
    let taken = [&said, &own].map(|map| map.values().map(cut::bytes_of_json).sum::<usize>()).iter().sum();
    cut::fit(&mut pieces, room.saturating_sub(taken), &mut cuts);
    let (mut root, mut events, mut ancestors) = (Map::new(), Vec::new(), Vec::new());
    for piece in &pieces {
        let built = piece.build(schema, &mut cuts);
        match piece.part() {
            Part::Root => root = built,
            Part::Event(_) => events.push(Json::Object(built)),
            Part::Ancestor(_) => ancestors.push(Json::Object(built)),
        }
    }
    drop(pieces);
    let reason = cut::letters(&reason::reason(alert, schema, &root), REASON_CHARS_MAX);
    let mut set = |name: &str, value: Json| own.insert(name.to_owned(), value);
    if !ancestors.is_empty() {
        set("ancestors", ancestors.into());
    }
    set("events", events.into());
    set("reason", reason.as_str().into());
    if let Some(cuts) = cuts.json() {
        set("cut", cuts);
    }
    root.insert("@timestamp".to_owned(), alert.time.to_string().into());
    describe_event(alert, evidence, &reason, object(&mut root, "event"));
    describe_agent(&mut root);
    said.into_iter().for_each(|(name, value)| merge(&mut root, name, value));
    object(&mut root, "lapwing").insert("alert".to_owned(), own.into());
    AlertDocument {
        id: alert.id.clone(),
        time: alert.time,
        json: written(root),
        local: alert.rule.building_block,
    }
}

/// The serialised document.
fn written(root: Map<String, Json>) -> Bytes {
    let json = Bytes::from(Json::Object(root).to_string());
    // Measured sizes are upper bounds. If a document is too large nevertheless, its smallest form is still an alert.
    if json.len() <= ALERT_BYTES_MAX { json } else { Form::Minimal.of(&json, "its document is too large") }
}

/// The parts that can be cut, in their order in the document.
fn pieces<'a>(
    alert: &'a Alert,
    schema: &'a Schema,
    evidence: &'a Evidence,
    completed: Option<&'a Event>,
) -> Vec<Piece<'a>> {
    let root = completed.map(|event| Piece::new(Part::Root, event.leaves(), schema));
    let event =
        |(index, event): (usize, &'a Arc<Event>)| Piece::new(Part::Event(index), event.leaves(), schema);
    let ancestor = |(distance, fields): (usize, &'a Fields)| {
        let leaves = fields.iter().map(|(id, value)| Leaf::Field(id, value));
        Piece::new(Part::Ancestor(distance), leaves, schema)
    };
    let (events, ancestors) = (alert.events().enumerate(), evidence.context.ancestors.iter().enumerate());
    root.into_iter().chain(events.map(event)).chain(ancestors.map(ancestor)).collect()
}

/// The last event's fields, completed with those of the source and then with those of earlier events of the same process.
fn completed(alert: &Alert, schema: &Schema, evidence: &Evidence) -> Option<Event> {
    let last = alert.events().last()?;
    let mut event = (**last).clone();
    let mut complete = |fields: Vec<(lapwing_engine::FieldId, &Value)>| {
        for (id, value) in fields {
            if event.get(id).is_none() {
                event.set(id, value.clone());
            }
        }
    };
    complete(evidence.context.fields.iter().collect());
    let process = last.text(field!("process.entity_id"));
    for earlier in alert.events().rev().skip(1) {
        if process.is_some() && earlier.text(field!("process.entity_id")) == process {
            complete(
                earlier
                    .fields()
                    .into_iter()
                    .filter(|(id, _)| schema.name(*id).starts_with("process."))
                    .collect(),
            );
        }
    }
    Some(event)
}

/// The rule's texts and the values gathered from all events. Each has a limit, because rules and indicators are not local.
fn said(alert: &Alert, completed: Option<&Event>, cuts: &mut Cuts) -> Map<String, Json> {
    let mut threat = if alert.rule.threat.is_empty() { json!({}) } else { threat(&alert.rule.threat) };
    if let Some(enrichments) = alert.finding().and_then(cause::enrichments) {
        threat["enrichments"] = enrichments;
    }
    let said = [
        ("message", cut::letters(&alert.name, NAME_CHARS_MAX).into()),
        ("tags", alert.rule.tags.clone().into()),
        ("rule", rule(alert)),
        ("threat", threat),
        ("related", related(alert, completed)),
    ];
    said.into_iter()
        .map(|(name, value)| (name.to_owned(), limited(name, &value, SAID_BYTES_MAX, cuts)))
        .collect()
}

/// Cuts a value that is too long, and notes the cut.
fn limited(name: &str, value: &Json, bytes_max: usize, cuts: &mut Cuts) -> Json {
    if cut::bytes_of_json(value) > bytes_max {
        cuts.name(name.to_owned());
    }
    cut::shrink(value, bytes_max)
}

/// Adds a value to the document. The members of an object are merged with existing ones.
fn merge(root: &mut Map<String, Json>, name: String, value: Json) {
    match value {
        Json::Object(members) if members.is_empty() => {}
        Json::Object(members) => object(root, &name).extend(members),
        value => _ = root.insert(name, value),
    }
}

/// Adds the fields about the agent that the event does not have.
fn describe_agent(root: &mut Map<String, Json>) {
    let version = env!("CARGO_PKG_VERSION");
    for (name, own) in [
        ("ecs", json!({"version": ECS_VERSION})),
        ("agent", json!({"type": "lapwing", "version": version})),
        (
            "observer",
            json!({"product": "Lapwing", "type": "sensor", "vendor": "Lapwing", "version": version}),
        ),
    ] {
        let mut members = own.as_object().cloned().unwrap_or_default();
        let there = object(root, name);
        members.retain(|name, _| !there.contains_key(name));
        there.extend(members);
    }
    let stream = json!({"type": "logs", "dataset": "lapwing.alerts", "namespace": "default"});
    root.insert("data_stream".to_owned(), stream);
}

fn object<'a>(root: &'a mut Map<String, Json>, name: &str) -> &'a mut Map<String, Json> {
    let entry = root.entry(name).or_insert_with(|| json!({}));
    if !entry.is_object() {
        *entry = json!({});
    }
    match entry {
        Json::Object(object) => object,
        _ => unreachable!("it was made an object just now"),
    }
}

/// `event.*`: category, type, action and outcome stay those of the last event.
fn describe_event(alert: &Alert, evidence: &Evidence, reason: &str, event: &mut Map<String, Json>) {
    for name in ["sequence", "created", "original", "ingested"] {
        event.remove(name);
    }
    Heading {
        kind: if alert.rule.building_block { BUILDING_BLOCK_KIND } else { "alert" },
        id: &alert.id,
        severity: alert.severity,
        risk_score: alert.risk_score,
        reason,
    }
    .write(event);
    if let Some(created) = evidence.created {
        event.insert("created".to_owned(), created.to_string().into());
    }
}

/// The members of `event` that make it an alert.
struct Heading<'a> {
    kind: &'a str,
    id: &'a str,
    severity: Severity,
    risk_score: i64,
    reason: &'a str,
}

impl Heading<'_> {
    fn write(&self, event: &mut Map<String, Json>) {
        let mut set = |name: &str, value: Json| event.insert(name.to_owned(), value);
        set("kind", self.kind.into());
        set("module", "lapwing".into());
        set("dataset", "lapwing.alert".into());
        set("id", self.id.into());
        set("severity", self.severity.number().into());
        set("risk_score", self.risk_score.into());
        set("reason", self.reason.into());
    }
}

fn rule(alert: &Alert) -> Json {
    let rule = &alert.rule;
    json!({
        "id": rule.id,
        "uuid": rule.id,
        "name": cut::letters(&alert.name, NAME_CHARS_MAX),
        "description": rule.description,
        "category": rule.kind.name(),
        "version": rule.version.unwrap_or(1).to_string(),
        "author": rule.author,
        "license": rule.license,
        "reference": rule.references.first(),
        "ruleset": "lapwing",
    })
}

/// `threat.*`: as in ECS, the entries of all tactics side by side.
fn threat(threats: &[Threat]) -> Json {
    let tactics: Vec<_> = threats.iter().map(|threat| &threat.tactic).collect();
    let techniques = || threats.iter().flat_map(|threat| &threat.techniques);
    let mut technique = listed(&techniques().map(|(technique, _)| technique).collect::<Vec<_>>());
    technique["subtechnique"] = listed(&techniques().flat_map(|(_, below)| below).collect::<Vec<_>>());
    let framework = threats.first().map(|threat| threat.framework.as_str());
    json!({"framework": framework, "tactic": listed(&tactics), "technique": technique})
}

fn listed(references: &[&Reference]) -> Json {
    let list =
        |part: fn(&Reference) -> &str| references.iter().map(|reference| part(reference)).collect::<Vec<_>>();
    json!({
        "id": list(|reference| &reference.id),
        "name": list(|reference| &reference.name),
        "reference": list(|reference| &reference.reference),
    })
}

/// `related.*`: every address, user, host and hash of all events, for searches.
fn related(alert: &Alert, completed: Option<&Event>) -> Json {
    let names: [(&str, &[lapwing_engine::FieldId]); 4] = [
        ("ip", &[field!("source.ip"), field!("destination.ip"), field!("related.ip")]),
        (
            "user",
            &[
                field!("user.name"),
                field!("user.id"),
                field!("aws.cloudtrail.user_identity.arn"),
                field!("related.user"),
            ],
        ),
        ("hosts", &[field!("host.name"), field!("related.hosts")]),
        ("hash", &[field!("process.hash.sha256"), field!("related.hash")]),
    ];
    let mut related = Map::new();
    for (name, fields) in names {
        let events = alert.events().map(|event| &**event).chain(completed.filter(|_| name == "hash"));
        let values = events.flat_map(|event| fields.iter().flat_map(|field| event.values(*field)));
        let found: BTreeSet<_> = values.map(|value| value.to_text().into_owned()).collect();
        if !found.is_empty() {
            related.insert(name.to_owned(), found.into_iter().collect());
        }
    }
    related.into()
}

/// `lapwing.alert.*`, without events and ancestors.
fn own(alert: &Alert, schema: &Schema, evidence: &Evidence, cuts: &mut Cuts) -> Map<String, Json> {
    let rule = &alert.rule;
    let mut own = Map::new();
    let mut set = |name: &str, value: Json| own.insert(name.to_owned(), value);
    set("id", alert.id.clone().into());
    set("rule_type", rule.kind.name().into());
    set("severity", alert.severity.name().into());
    if rule.building_block {
        set("building_block_type", "default".into());
    }
    if let Some(first) = alert.events().min_by_key(|event| event.time()) {
        let last = alert.events().map(|event| event.time()).max().unwrap_or_default();
        let span = last.since(first.time()).as_millis();
        set("original_time", first.timestamp().to_string().into());
        set("span_ms", u64::try_from(span).unwrap_or(u64::MAX).into());
    }
    if let Some(lost) = evidence.lost_records {
        set("complete", (lost == 0).into());
        set("lost_records", lost.into());
    }
    if alert.dropped > 0 {
        set("complete", false.into());
        set("dropped_matches", alert.dropped.into());
    }
    let mut cause = match &alert.cause {
        Cause::Detection(finding) => cause::detection(alert, finding, schema),
        Cause::Suppressed(suppressed) => cause::suppressed(suppressed, schema),
    };
    cause.insert("references".to_owned(), rule.references.clone().into());
    cause.insert("false_positives".to_owned(), rule.false_positives.clone().into());
    if let Some(guide) = &rule.note {
        own.insert(
            "guide".to_owned(),
            limited("lapwing.alert.guide", &guide.as_str().into(), GUIDE_BYTES_MAX, cuts),
        );
    }
    for (name, value) in cause {
        let limited = limited(&format!("lapwing.alert.{name}"), &value, OWN_BYTES_MAX, cuts);
        own.insert(name, limited);
    }
    own
}

/// The last event of an alert, for which the source is queried.
pub(crate) fn last_event(alert: &Alert) -> Option<&Event> {
    alert.events().last().map(|event| &**event)
}

#[cfg(test)]
mod tests;
