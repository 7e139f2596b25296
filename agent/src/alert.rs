//! An alert as a document: ECS, so that any collector can read it and Elastic's "External Alerts" rule promotes it, and
//! `lapwing.alert.*` for what ECS lacks.
//!
//! The root is the last event of the match, completed with what the source knows about its process; every event stands
//! whole in `lapwing.alert.events`. Nothing here reads a clock or the host: the same alert gives the same document.

pub(crate) mod cause;
pub(crate) mod lost;
mod reason;
mod statement;
pub(crate) mod tampered;

use std::collections::BTreeSet;

use bytes::Bytes;
use lapwing_engine::rule::{Reference, Threat};
use lapwing_engine::{Alert, Cause, Event, Fields, Schema, Timestamp, Value, field};
use serde_json::{Map, Value as Json, json};

use crate::ledger::AlertDocument;
use crate::source::Context;

/// The `event.kind` of an alert of a building block, which stays on this host; of the others it is `alert`.
pub(crate) const BUILDING_BLOCK_KIND: &str = "signal";

/// What else is told with an alert.
#[derive(Default)]
pub(crate) struct Evidence {
    /// What the source knows about the last event.
    pub(crate) context: Context,
    /// Records lost while the alert's events happened; `None` where the source cannot lose any.
    pub(crate) lost_records: Option<u64>,
    /// When the alert was made; absent in a replay, which has no such time.
    pub(crate) created: Option<Timestamp>,
}

/// Makes the document of an alert.
pub(crate) fn document(alert: &Alert, schema: &Schema, evidence: &Evidence) -> AlertDocument {
    let mut root = root(alert, schema, evidence);
    let reason = reason::reason(alert, schema, &root);
    root.insert("@timestamp".to_owned(), alert.time.to_string().into());
    root.insert("message".to_owned(), alert.name.as_str().into());
    root.insert("tags".to_owned(), alert.rule.tags.clone().into());
    describe_event(alert, evidence, &reason, object(&mut root, "event"));
    root.insert("rule".to_owned(), rule(alert));
    if !alert.rule.threat.is_empty() {
        root.insert("threat".to_owned(), threat(&alert.rule.threat));
    }
    if let Some(enrichments) = alert.finding().and_then(cause::enrichments) {
        object(&mut root, "threat").insert("enrichments".to_owned(), enrichments);
    }
    relate(&mut root, alert);
    let own = own(alert, schema, evidence, reason);
    object(&mut root, "lapwing").insert("alert".to_owned(), own);
    let json = Bytes::from(Json::Object(root).to_string());
    AlertDocument { id: alert.id.clone(), time: alert.time, json, local: alert.rule.building_block }
}

/// The last event's fields, the source's below them and below these what earlier events say of the same process.
fn root(alert: &Alert, schema: &Schema, evidence: &Evidence) -> Map<String, Json> {
    let Some(last) = alert.events().last() else { return Map::new() };
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
    match event.to_json(schema) {
        Json::Object(root) => root,
        _ => Map::new(),
    }
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
    let mut set = |name: &str, value: Json| event.insert(name.to_owned(), value);
    set("kind", if alert.rule.building_block { BUILDING_BLOCK_KIND } else { "alert" }.into());
    set("module", "lapwing".into());
    set("dataset", "lapwing.alert".into());
    set("id", alert.id.clone().into());
    set("severity", alert.severity.number().into());
    set("risk_score", alert.risk_score.into());
    set("reason", reason.into());
    if let Some(created) = evidence.created {
        set("created", created.to_string().into());
    }
}

fn rule(alert: &Alert) -> Json {
    let rule = &alert.rule;
    json!({
        "id": rule.id,
        "uuid": rule.id,
        "name": alert.name.as_str(),
        "description": rule.description,
        "category": rule.kind.name(),
        "version": rule.version.unwrap_or(1).to_string(),
        "author": rule.author,
        "license": rule.license,
        "reference": rule.references.first(),
        "ruleset": "lapwing",
    })
}

/// `threat.*`: as ECS has it, the entries of all tactics side by side.
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

/// `related.*`: every address, user, host and hash of all events, to search by.
fn relate(root: &mut Map<String, Json>, alert: &Alert) {
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
    let hash = root.get("process").and_then(|process| process.pointer("/hash/sha256")).and_then(Json::as_str);
    let hash = hash.map(str::to_owned);
    for (name, fields) in names {
        let mut found = BTreeSet::new();
        for event in alert.events() {
            let values = fields.iter().flat_map(|field| event.values(*field));
            found.extend(values.map(|value| value.to_text().into_owned()));
        }
        if name == "hash" {
            found.extend(hash.clone());
        }
        if !found.is_empty() {
            object(root, "related").insert(name.to_owned(), found.into_iter().collect());
        }
    }
}

/// `lapwing.alert.*`.
fn own(alert: &Alert, schema: &Schema, evidence: &Evidence, reason: String) -> Json {
    let rule = &alert.rule;
    let mut own = Map::new();
    let mut set = |name: &str, value: Json| own.insert(name.to_owned(), value);
    set("id", alert.id.clone().into());
    set("reason", reason.into());
    set("rule_type", rule.kind.name().into());
    set("severity", alert.severity.name().into());
    if rule.building_block {
        set("building_block_type", "default".into());
    }
    let events: Vec<_> = alert.events().map(|event| event.to_json(schema)).collect();
    if let Some(first) = alert.events().min_by_key(|event| event.time()) {
        let last = alert.events().map(|event| event.time()).max().unwrap_or_default();
        let span = last.since(first.time()).as_millis();
        set("original_time", first.told_time().to_string().into());
        set("span_ms", u64::try_from(span).unwrap_or(u64::MAX).into());
    }
    match &alert.cause {
        Cause::Detection(finding) => own.extend(cause::detection(alert, finding, schema)),
        Cause::Suppressed(suppressed) => own.extend(cause::suppressed(suppressed, schema)),
    }
    let mut set = |name: &str, value: Json| own.insert(name.to_owned(), value);
    if let Some(lost) = evidence.lost_records {
        set("complete", (lost == 0).into());
        set("lost_records", lost.into());
    }
    if alert.dropped > 0 {
        set("complete", false.into());
        set("dropped_matches", alert.dropped.into());
    }
    let ancestors = &evidence.context.ancestors;
    if !ancestors.is_empty() {
        set("ancestors", ancestors.iter().map(|ancestor: &Fields| ancestor.to_json(schema)).collect());
    }
    set("references", rule.references.clone().into());
    set("false_positives", rule.false_positives.clone().into());
    if let Some(guide) = &rule.note {
        set("guide", guide.clone().into());
    }
    set("events", events.into());
    Json::Object(own)
}

/// The last of an alert's events: what the source is asked about.
pub(crate) fn last_event(alert: &Alert) -> Option<&Event> {
    alert.events().last().map(|event| &**event)
}
