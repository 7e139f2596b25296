//! The members of `lapwing.alert.*` about the cause. Names follow Kibana's `kibana.alert.*` where it has them.

use lapwing_engine::detect::{Anomaly, Enrichment, Finding, MATCHED_TYPE, ThresholdResult};
use lapwing_engine::{Act, Alert, HeldBack, Schema, Suppressed};
use serde_json::{Map, Value as Json, json};

/// The finding of a rule.
pub(super) fn detection(alert: &Alert, finding: &Finding, schema: &Schema) -> Map<String, Json> {
    let mut cause = Map::new();
    let mut set = |name: &str, value: Json| cause.insert(name.to_owned(), value);
    if finding.events.len() > 1 {
        let keys: Vec<_> = finding.keys.iter().map(|key| key.as_ref().map(|key| key.as_str())).collect();
        set("group", json!({"id": alert.id, "keys": keys, "stages": finding.events.len()}));
    }
    if !finding.new_terms.is_empty() {
        set("new_terms", finding.new_terms.iter().map(|term| Json::from(term.to_text())).collect());
    }
    if let Some(found) = &finding.anomaly {
        set("anomaly", anomaly(found, schema));
    }
    if let Some(result) = &finding.threshold {
        set("threshold_result", threshold(result, schema));
    }
    cause
}

fn anomaly(anomaly: &Anomaly, schema: &Schema) -> Json {
    json!({
        "job_id": anomaly.job_id.as_str(),
        "record_score": anomaly.record_score,
        "probability": anomaly.probability,
        "bucket": anomaly.bucket.to_string(),
        "by_value": anomaly.by_value.as_deref(),
        "partition_value": anomaly.partition_value.as_deref(),
        "buckets_learned": anomaly.buckets_learned,
        "field": anomaly.size.map(|size| schema.name(size.field)),
        "actual": anomaly.size.map(|size| size.actual),
        "typical": anomaly.size.map(|size| size.typical),
    })
}

fn threshold(result: &ThresholdResult, schema: &Schema) -> Json {
    let terms = result.terms.iter();
    let terms = terms.map(|(field, term)| json!({"field": schema.name(*field), "value": term.to_text()}));
    let cardinality = result.cardinality.iter();
    let cardinality = cardinality.map(|(field, count)| json!({"field": schema.name(*field), "value": count}));
    json!({
        "terms": terms.collect::<Vec<_>>(),
        "cardinality": cardinality.collect::<Vec<_>>(),
        "count": result.count,
        "from": result.from.to_string(),
    })
}

/// `threat.enrichments`: the indicators that the event matched, as in Kibana.
pub(super) fn enrichments(finding: &Finding) -> Option<Json> {
    let enrichment = |Enrichment { indicator, atomic, field, id }: &Enrichment| {
        let matched = json!({
            "atomic": atomic.as_str(),
            "field": field.as_str(),
            "id": id.as_str(),
            "type": MATCHED_TYPE,
        });
        json!({"indicator": indicator, "matched": matched})
    };
    (!finding.enrichments.is_empty()).then(|| finding.enrichments.iter().map(enrichment).collect())
}

/// A suppressed act: user, program, count.
pub(crate) fn held_back(HeldBack { act, count }: &HeldBack) -> Json {
    let Act { user, group, executable, destination } = act;
    let texts = [("user", user), ("cgroup", group), ("executable", executable), ("destination", destination)];
    let texts = texts.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text.as_deref()?.into())));
    let mut row: Map<String, Json> = texts.collect();
    row.insert("count".to_owned(), (*count).into());
    row.into()
}

/// The summary of suppressed alerts.
pub(super) fn suppressed(suppressed: &Suppressed, schema: &Schema) -> Map<String, Json> {
    let (start, end) = (suppressed.start.to_string(), suppressed.end.to_string());
    let mut cause = Map::new();
    let mut set = |name: &str, value: Json| cause.insert(name.to_owned(), value);
    if let Some(group) = &suppressed.group {
        let terms = group
            .iter()
            .map(|(field, value)| json!({"field": schema.name(*field), "value": value.as_deref()}));
        let terms: Vec<_> = terms.collect();
        set(
            "suppression",
            json!({"docs_count": suppressed.count, "terms": terms, "start": start, "end": end}),
        );
    }
    if !suppressed.held_back.is_empty() {
        set("held_back", suppressed.held_back.iter().map(held_back).collect());
        set("held_back_others", suppressed.others.into());
    }
    set("suppressed_count", suppressed.count.into());
    set("suppressed_from", start.into());
    set("suppressed_to", end.into());
    cause
}
