//! The index template: made of the schema, so that no field of an alert lacks its type, and none can be refused for what
//! a user typed.
//!
//! After a change of the schema `LAPWING_WRITE_TEMPLATE=1 cargo test -p lapwing the_template_is_of_the_schema` writes it
//! anew.

use std::fs;
use std::path::Path;

use lapwing_engine::{Schema, Type};
use serde_json::{Map, Value as Json, json};

/// Longest keyword that is indexed, in letters: four bytes each are less than Lucene takes.
const KEYWORD_CHARS_MAX: u64 = 8191;

fn path() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/elasticsearch/index-template.json")
}

/// Fields of alerts that are not in the schema, because no event has them.
const OWN: &[(&str, &str)] = &[
    ("lapwing.alert.ancestors", "off"),
    ("lapwing.alert.anomaly.actual", "double"),
    ("lapwing.alert.anomaly.bucket", "date"),
    ("lapwing.alert.anomaly.buckets_learned", "long"),
    ("lapwing.alert.anomaly.by_value", "keyword"),
    ("lapwing.alert.anomaly.field", "keyword"),
    ("lapwing.alert.anomaly.job_id", "keyword"),
    ("lapwing.alert.anomaly.partition_value", "keyword"),
    ("lapwing.alert.anomaly.probability", "double"),
    ("lapwing.alert.anomaly.record_score", "double"),
    ("lapwing.alert.anomaly.typical", "double"),
    ("lapwing.alert.building_block_type", "keyword"),
    ("lapwing.alert.complete", "boolean"),
    ("lapwing.alert.cut", "keyword"),
    ("lapwing.alert.dropped_matches", "long"),
    ("lapwing.alert.events", "off"),
    ("lapwing.alert.false_positives", "keyword"),
    ("lapwing.alert.form", "keyword"),
    ("lapwing.alert.form_reason", "keyword"),
    ("lapwing.alert.group.id", "keyword"),
    ("lapwing.alert.group.keys", "keyword"),
    ("lapwing.alert.group.stages", "long"),
    ("lapwing.alert.guide", "unindexed"),
    ("lapwing.alert.held_back.cgroup", "keyword"),
    ("lapwing.alert.held_back.count", "long"),
    ("lapwing.alert.held_back.destination", "keyword"),
    ("lapwing.alert.held_back.executable", "keyword"),
    ("lapwing.alert.held_back.user", "keyword"),
    ("lapwing.alert.held_back_others", "long"),
    ("lapwing.alert.id", "keyword"),
    ("lapwing.alert.lost_records", "long"),
    ("lapwing.alert.new_terms", "keyword"),
    ("lapwing.alert.original_time", "date"),
    ("lapwing.alert.reason", "text"),
    ("lapwing.alert.references", "keyword"),
    ("lapwing.alert.rule_type", "keyword"),
    ("lapwing.alert.severity", "keyword"),
    ("lapwing.alert.span_ms", "long"),
    ("lapwing.alert.suppressed_count", "long"),
    ("lapwing.alert.suppressed_from", "date"),
    ("lapwing.alert.suppressed_to", "date"),
    ("lapwing.alert.suppression.docs_count", "long"),
    ("lapwing.alert.suppression.end", "date"),
    ("lapwing.alert.suppression.start", "date"),
    ("lapwing.alert.suppression.terms.field", "keyword"),
    ("lapwing.alert.suppression.terms.value", "keyword"),
    ("lapwing.alert.threshold_result.cardinality.field", "keyword"),
    ("lapwing.alert.threshold_result.cardinality.value", "long"),
    ("lapwing.alert.threshold_result.count", "long"),
    ("lapwing.alert.threshold_result.from", "date"),
    ("lapwing.alert.threshold_result.terms.field", "keyword"),
    ("lapwing.alert.threshold_result.terms.value", "keyword"),
    ("lapwing.lost.by_kind", "off"),
    ("lapwing.lost.down_seconds", "double"),
    ("lapwing.tampered.reason", "keyword"),
];

/// Fields whose mapping has more than a type.
fn special(name: &str) -> Option<Json> {
    let also_words = || json!({"words": {"type": "text"}});
    Some(match name {
        "message" => json!({"type": "text", "fields": {"keyword": keyword(1024)}}),
        "event.risk_score" => json!({"type": "float"}),
        "event.original" => {
            json!({"type": "keyword", "index": false, "doc_values": false, "ignore_above": KEYWORD_CHARS_MAX})
        }
        // Its indicators have any shape that a feed gives them.
        "threat.enrichments" => json!({"type": "nested", "dynamic": false, "properties": {
            "indicator": {"type": "object", "enabled": false},
            "matched": {"dynamic": false, "properties": {
                "atomic": keyword(KEYWORD_CHARS_MAX),
                "field": keyword(KEYWORD_CHARS_MAX),
                "id": keyword(KEYWORD_CHARS_MAX),
                "type": keyword(KEYWORD_CHARS_MAX),
            }},
        }}),
        "process.command_line" | "process.parent.command_line" | "rule.description" => {
            let mut mapping = keyword(KEYWORD_CHARS_MAX);
            mapping["fields"] = also_words();
            mapping
        }
        _ => return None,
    })
}

fn keyword(chars_max: u64) -> Json {
    json!({"type": "keyword", "ignore_above": chars_max})
}

fn mapping(name: &str, ty: &str) -> Json {
    special(name).unwrap_or_else(|| match ty {
        // `version` is Elasticsearch's alone, and so is `flattened`.
        "keyword" | "version" => keyword(KEYWORD_CHARS_MAX),
        "off" | "flattened" => json!({"type": "object", "enabled": false}),
        "unindexed" => json!({"type": "text", "index": false}),
        ty => json!({"type": ty}),
    })
}

/// The types of all fields that an alert can have.
fn fields() -> Vec<(String, &'static str)> {
    let schema = Schema::new();
    let known = schema.names().filter(|name| !name.starts_with("kibana."));
    let mut fields: Vec<_> =
        known.map(|name| (name.to_owned(), schema.ty(schema.id(name).unwrap()).name())).collect();
    fields.extend(OWN.iter().map(|(name, ty)| ((*name).to_owned(), *ty)));
    fields.push(("aws.cloudtrail.other".to_owned(), "off"));
    fields.push(("event.ingested".to_owned(), Type::Date.name()));
    fields.sort();
    fields.dedup();
    fields
}

fn properties() -> Map<String, Json> {
    let mut root = Map::new();
    for (name, ty) in fields() {
        let parts: Vec<&str> = name.split('.').collect();
        put(&mut root, &parts, mapping(&name, ty));
    }
    root
}

/// Puts a mapping into its place. Below an object that is not indexed nothing has a type.
fn put(properties: &mut Map<String, Json>, parts: &[&str], mapping: Json) {
    match parts {
        [name] => _ = properties.entry(*name).or_insert(mapping),
        [name, below @ ..] => {
            let object = properties.entry(*name).or_insert_with(|| json!({"properties": {}}));
            if let Some(Json::Object(properties)) = object.get_mut("properties") {
                put(properties, below, mapping);
            }
        }
        [] => {}
    }
}

fn template() -> Json {
    json!({
        "index_patterns": ["logs-lapwing.alerts-*"],
        "data_stream": {},
        "priority": 250,
        "version": 2,
        "_meta": {"description": "Alerts of Lapwing: Elastic Common Schema and lapwing.*"},
        "template": {
            "settings": {
                "index.default_pipeline": "lapwing-alerts",
                "index.mapping.total_fields.limit": 5000,
                "index.mapping.ignore_malformed": true,
                "index.query.default_field": [
                    "message", "rule.name", "lapwing.alert.reason", "process.command_line.words", "host.name", "user.name"
                ],
            },
            "mappings": {
                "_meta": {"lapwing": {"template": 2}},
                "dynamic": false,
                "date_detection": false,
                "numeric_detection": false,
                "properties": properties(),
            },
        },
    })
}

/// Longest object that is written in one line.
const LINE_CHARS_MAX: usize = 120;

fn lines(json: &Json, depth: usize, out: &mut String) {
    let short = json.to_string();
    let Json::Object(members) = json else { return out.push_str(&short) };
    if short.len() <= LINE_CHARS_MAX {
        return out.push_str(&short);
    }
    out.push('{');
    for (index, (name, value)) in members.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        out.push_str(&format!("{comma}\n{}{}: ", " ".repeat(depth + 1), json!(name)));
        lines(value, depth + 1, out);
    }
    out.push_str(&format!("\n{}}}", " ".repeat(depth)));
}

#[test]
fn the_template_is_of_the_schema() {
    let mut text = String::new();
    lines(&template(), 0, &mut text);
    text.push('\n');
    if std::env::var_os("LAPWING_WRITE_TEMPLATE").is_some() {
        fs::write(path(), &text).unwrap();
    }
    let there = fs::read_to_string(path()).unwrap();
    assert!(there == text, "write it anew as the head of this file says");
    assert_eq!(serde_json::from_str::<Json>(&there).unwrap(), template());
}

/// Calls `each` for every mapping of a field.
fn walk(properties: &Json, above: &str, each: &mut impl FnMut(&str, &Json)) {
    for (name, mapping) in properties.as_object().into_iter().flatten() {
        let name = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
        each(&name, mapping);
        walk(&mapping["properties"], &name, each);
        walk(&mapping["fields"], &name, each);
    }
}

/// A cluster refuses a keyword over 32,766 bytes, an object where it knows a text, and a field beyond its limit.
#[test]
fn no_user_input_is_rejected() {
    let template: Json = serde_json::from_str(&fs::read_to_string(path()).unwrap()).unwrap();
    let mappings = &template["template"]["mappings"];
    assert_eq!((&mappings["dynamic"], &mappings["dynamic_templates"]), (&json!(false), &Json::Null));
    assert_eq!(template["template"]["settings"]["index.mapping.ignore_malformed"], true);
    let mut count = 0_u64;
    walk(&mappings["properties"], "", &mut |name, mapping| {
        count += 1;
        let ty = mapping["type"].as_str().unwrap_or("object");
        match ty {
            "keyword" => assert!(
                mapping["ignore_above"].as_u64().is_some_and(|chars| chars <= KEYWORD_CHARS_MAX),
                "{name} has no `ignore_above`"
            ),
            // Values of these are malformed, or are words.
            "date" | "ip" | "long" | "double" | "float" | "geo_point" | "text" | "boolean" | "nested" => {}
            "object" => assert!(mapping["enabled"] == false || mapping["properties"].is_object(), "{name}"),
            other => panic!("{name}: {other} is not a type of both Elasticsearch and OpenSearch"),
        }
    });
    let limit = template["template"]["settings"]["index.mapping.total_fields.limit"].as_u64().unwrap();
    assert!(count < limit && count > 1500, "{count} fields");
    for (name, ty) in [
        ("process.entry_leader.start", "date"),
        ("process.session_leader.start", "date"),
        ("process.group_leader.start", "date"),
        ("process.command_line", "keyword"),
        ("rule.description", "keyword"),
        ("threat.enrichments", "nested"),
        ("lapwing.alert.new_terms", "keyword"),
    ] {
        let path = name.split('.').collect::<Vec<_>>().join("/properties/");
        assert_eq!(mappings["properties"].pointer(&format!("/{path}/type")), Some(&json!(ty)), "{name}");
    }
}

/// The template expects the type of every value of an alert.
#[test]
fn every_field_of_an_alert_is_mapped() {
    let template = template();
    let mut unmapped = Vec::new();
    compare(&crate::testing::reverse_shell(), &template["template"]["mappings"], "", &mut unmapped);
    assert!(unmapped.is_empty(), "{unmapped:?}");
}

fn compare(json: &Json, mapping: &Json, name: &str, unmapped: &mut Vec<String>) {
    match json {
        _ if mapping["enabled"] == false => {}
        Json::Object(members) => {
            for (part, json) in members {
                let below = format!("{name}.{part}");
                match mapping["properties"].get(part) {
                    Some(mapping) => compare(json, mapping, &below, unmapped),
                    None => unmapped.push(below),
                }
            }
        }
        Json::Array(values) => values.iter().for_each(|json| compare(json, mapping, name, unmapped)),
        Json::Null => {}
        scalar if mapping["properties"].is_object() => unmapped.push(format!("{name}: {scalar}")),
        _ => {}
    }
}
