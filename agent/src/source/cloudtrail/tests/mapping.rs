//! Golden tests of the mapping: `mapping/NAME.json` is a record, `mapping/NAME.ecs` its event. `UPDATE_EXPECT=1`
//! rewrites the events.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lapwing_engine::{Schema, Timestamp};
use proptest::prelude::*;
use serde_json::{Map, Value as Json};

use super::super::ecs::Mapper;
use super::super::geo::Geo;
use super::super::kinds::event_kinds;
use super::support::{write_cities, write_networks};

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/source/cloudtrail/tests/mapping");
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut cases: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|ext| ext == "json")).collect();
    cases.sort();
    assert!(!cases.is_empty());
    cases
}

fn mapper(folder: &Path, preserve_original: bool) -> Mapper {
    write_cities(&folder.join("city.mmdb"));
    write_networks(&folder.join("asn.mmdb"));
    let geo = Geo::open(Some(&folder.join("city.mmdb")), Some(&folder.join("asn.mmdb")), folder);
    assert_eq!(geo.missing(), None);
    Mapper::new(Arc::new(Schema::new()), geo, preserve_original)
}

#[test]
fn records_become_the_events_that_rules_expect() {
    let folder = tempfile::tempdir().unwrap();
    let mut mapper = mapper(folder.path(), false);
    let created = Timestamp::parse("2026-11-22T00:00:00Z");
    for case in cases() {
        let record: Json = serde_json::from_str(&std::fs::read_to_string(&case).unwrap()).unwrap();
        let event = mapper.event(record.as_object().unwrap().clone(), None, created).unwrap();
        let text = format!("{:#}\n", event.to_json(&Schema::new()));
        let golden = case.with_extension("ecs");
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&golden, &text).unwrap();
        }
        let expected = std::fs::read_to_string(&golden).unwrap_or_default();
        assert_eq!(text, expected, "{} (UPDATE_EXPECT=1 accepts it)", golden.display());
    }
}

#[test]
fn no_event_has_fields_beyond_its_record() {
    let folder = tempfile::tempdir().unwrap();
    let mut mapper = mapper(folder.path(), true);
    let (schema, kinds) = (Schema::new(), event_kinds(true));
    for case in cases() {
        let record: Json = serde_json::from_str(&std::fs::read_to_string(&case).unwrap()).unwrap();
        let event = mapper.event(record.as_object().unwrap().clone(), None, None).unwrap();
        for (id, _) in event.fields() {
            assert!(
                kinds.iter().any(|kind| kind.has(id, &schema)),
                "{} of {}",
                schema.name(id),
                case.display()
            );
        }
    }
}

#[test]
fn every_value_of_a_record_is_somewhere_in_its_event() {
    fn leaves(json: &Json, found: &mut Vec<String>) {
        match json {
            Json::Null => {}
            Json::Array(array) => array.iter().for_each(|element| leaves(element, found)),
            Json::Object(object) => object.values().for_each(|value| leaves(value, found)),
            Json::String(text) if matches!(text.as_str(), "" | "none") => {}
            Json::String(text) => found.push(text.clone()),
            other => found.push(other.to_string()),
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let mut mapper = mapper(folder.path(), false);
    for case in cases() {
        let mut record: Json = serde_json::from_str(&std::fs::read_to_string(&case).unwrap()).unwrap();
        let event = mapper.event(record.as_object().unwrap().clone(), None, None).unwrap();
        // Times are written in another form.
        record["eventTime"] = Json::Null;
        if let Some(date) = record.pointer_mut("/userIdentity/sessionContext/attributes/creationDate") {
            *date = Json::Null;
        }
        let (mut before, mut after) = (Vec::new(), Vec::new());
        leaves(&record, &mut before);
        leaves(&event.to_json(&Schema::new()), &mut after);
        for leaf in before {
            assert!(after.contains(&leaf), "{leaf} of {} is lost", case.display());
        }
    }
}

#[test]
fn the_record_itself_is_kept_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let mut mapper = mapper(folder.path(), true);
    let record: Json = serde_json::from_str(&std::fs::read_to_string(&cases()[0]).unwrap()).unwrap();
    let event = mapper.event(record.as_object().unwrap().clone(), None, None).unwrap();
    let original = event.text(lapwing_engine::field!("event.original")).unwrap();
    assert_eq!(serde_json::from_str::<Json>(original).unwrap(), record);
}

#[test]
fn hostile_records_are_refused_or_mapped_but_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let mut mapper = mapper(folder.path(), false);
    for text in [
        r#"{"eventVersion":1,"eventTime":7}"#,
        r#"{"eventVersion":"1","eventTime":"tomorrow"}"#,
        r#"{"eventVersion":"1","eventTime":"2026-01-01T00:00:00Z","userIdentity":"x","resources":{},"requestParameters":[],"sourceIPAddress":7}"#,
        r#"{"eventVersion":"1","eventTime":"2026-01-01T00:00:00Z","userIdentity":{"type":"AssumedRole","arn":"arn:aws:sts::/"},"tlsDetails":{"tlsVersion":"v"}}"#,
        r#"{"eventVersion":"1","eventTime":"2026-01-01T00:00:00Z","eventName":"\u0000\n\u001b[2J","resources":[1,{"ARN":{}}],"userAgent":"aws-cli/.."}"#,
    ] {
        let record: Json = serde_json::from_str(text).unwrap();
        let _ = mapper.event(record.as_object().unwrap().clone(), None, None);
    }
}

/// Members of records, where values of any shape are put.
const NAMES: &[&str] = &[
    "eventName",
    "eventSource",
    "sourceIPAddress",
    "userAgent",
    "userIdentity",
    "type",
    "arn",
    "sessionContext",
    "sessionIssuer",
    "onBehalfOf",
    "requestParameters",
    "responseElements",
    "additionalEventData",
    "resources",
    "ARN",
    "tlsDetails",
    "tlsVersion",
    "userName",
    "user",
    "instancesSet",
    "items",
    "errorCode",
    "readOnly",
    "ConsoleLogin",
];

fn member() -> impl Strategy<Value = Json> {
    let words = [
        "AssumedRole",
        "ConsoleLogin",
        "sts.amazonaws.com",
        "ec2.amazonaws.com",
        "RunInstances",
        "i-1",
        "none",
        "arn:aws:sts::1:assumed-role/a/b@c",
        "arn:",
        "@",
        "v",
        "2001:db8::1",
        "aws-cli/1..2",
    ];
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        "\\PC{0,6}".prop_map(Json::from),
        prop::sample::select(words.to_vec()).prop_map(Json::from),
    ];
    leaf.prop_recursive(4, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::vec((prop::sample::select(NAMES.to_vec()), inner), 0..6).prop_map(|members| {
                members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
            }),
        ]
    })
}

proptest! {
    #[test]
    fn no_record_panics(members in prop::collection::vec((prop::sample::select(NAMES.to_vec()), member()), 0..12)) {
        let mut record: Map<String, Json> = members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        record.insert("eventTime".into(), "2026-11-21T00:00:00Z".into());
        let mut mapper = Mapper::new(Arc::new(Schema::new()), Geo::default(), true);
        let event = mapper.event(record, None, None).unwrap();
        prop_assert!(event.to_json(&Schema::new()).is_object());
    }
}
