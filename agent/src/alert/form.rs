//! Smaller forms of an alert, for a receiver that rejects the complete one: an incomplete alert that is delivered is worth
//! more than a dead letter. Each form is built from the complete document.

use bytes::Bytes;
use serde_json::{Map, Value as Json, json};

use super::{cut, object};

/// How much of an alert is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Form {
    /// The document as in the log.
    #[default]
    Whole,
    /// ECS fields that every index of alerts maps, and the complete document as one text in `event.original`, which is not
    /// indexed.
    Reduced,
    /// Fields that no index rejects: id, rule, host, severity, and the reason.
    Minimal,
}

/// Longest value in the reduced form, in bytes of JSON.
const REDUCED_VALUE_BYTES_MAX: usize = 1024;
/// Longest `event.original` in the reduced form, in bytes of JSON.
const ORIGINAL_BYTES_MAX: usize = 16 << 10;
/// Longest text in the minimal form, in characters.
const MINIMAL_CHARS_MAX: usize = 256;

/// The fields of the minimal form.
const MINIMAL: &[&str] = &[
    "@timestamp",
    "message",
    "event.created",
    "event.dataset",
    "event.id",
    "event.kind",
    "event.module",
    "event.reason",
    "event.risk_score",
    "event.severity",
    "data_stream.dataset",
    "data_stream.namespace",
    "data_stream.type",
    "ecs.version",
    "host.id",
    "host.name",
    "rule.id",
    "rule.name",
    "rule.uuid",
    "lapwing.alert.id",
    "lapwing.alert.reason",
    "lapwing.alert.severity",
];

/// The fields that only the reduced form has.
const REDUCED: &[&str] = &[
    "agent.id",
    "agent.type",
    "agent.version",
    "aws.cloudtrail.user_identity.arn",
    "cloud.account.id",
    "cloud.instance.id",
    "cloud.provider",
    "cloud.region",
    "destination.ip",
    "destination.port",
    "event.action",
    "event.category",
    "event.end",
    "event.outcome",
    "event.provider",
    "event.start",
    "event.type",
    "host.hostname",
    "host.os.type",
    "lapwing.actor.id",
    "lapwing.alert.complete",
    "lapwing.alert.lost_records",
    "lapwing.alert.rule_type",
    "lapwing.alert.suppressed_count",
    "process.command_line",
    "process.entity_id",
    "process.executable",
    "process.hash.sha256",
    "process.name",
    "process.parent.entity_id",
    "process.parent.executable",
    "process.parent.name",
    "process.parent.pid",
    "process.pid",
    "process.start",
    "process.working_directory",
    "related.hash",
    "related.hosts",
    "related.ip",
    "related.user",
    "rule.version",
    "source.address",
    "source.ip",
    "source.port",
    "tags",
    "user.id",
    "user.name",
];

impl Form {
    /// The next smaller form.
    pub(crate) fn smaller(self) -> Option<Self> {
        match self {
            Self::Whole => Some(Self::Reduced),
            Self::Reduced => Some(Self::Minimal),
            Self::Minimal => None,
        }
    }

    /// This form of a complete document; `why` is the reason for which the larger form was rejected. Other JSON is unchanged.
    pub(crate) fn of(self, whole: &Bytes, why: &str) -> Bytes {
        let name = match self {
            Self::Whole => return whole.clone(),
            Self::Reduced => "reduced",
            Self::Minimal => "minimal",
        };
        let Ok(Json::Object(document)) = serde_json::from_slice(whole) else { return whole.clone() };
        let mut form = match self {
            Self::Reduced => reduced(&document, &String::from_utf8_lossy(whole)),
            _ => pick(&document, MINIMAL.iter(), minimal),
        };
        let own = object(object(&mut form, "lapwing"), "alert");
        own.insert("form".to_owned(), name.into());
        own.insert("form_reason".to_owned(), cut::letters(why, MINIMAL_CHARS_MAX).into());
        Bytes::from(Json::Object(form).to_string())
    }
}

fn reduced(document: &Map<String, Json>, whole: &str) -> Map<String, Json> {
    let names = MINIMAL.iter().chain(REDUCED);
    let mut form = pick(document, names, |json| cut::shrink(json, REDUCED_VALUE_BYTES_MAX));
    let original = cut::shrink(&whole.into(), ORIGINAL_BYTES_MAX);
    object(&mut form, "event").insert("original".to_owned(), original);
    form
}

/// A text of the minimal form; the first of several values.
fn minimal(json: &Json) -> Json {
    match json {
        Json::String(text) => cut::letters(text, MINIMAL_CHARS_MAX).into(),
        Json::Array(values) => values.first().map_or(Json::Null, minimal),
        Json::Object(_) => json!({}),
        scalar => scalar.clone(),
    }
}

/// The fields with these names, shortened by `short`.
fn pick<'a>(
    document: &Map<String, Json>,
    names: impl Iterator<Item = &'a &'a str>,
    short: impl Fn(&Json) -> Json,
) -> Map<String, Json> {
    let mut picked = Map::new();
    for name in names {
        let mut parts = name.split('.');
        let outer = parts.next().and_then(|part| document.get(part));
        if let Some(json) = parts.fold(outer, |json, part| json?.get(part)).filter(|json| !json.is_null()) {
            lapwing_engine::event::insert(&mut picked, name, short(json));
        }
    }
    picked
}
