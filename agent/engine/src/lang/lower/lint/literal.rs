//! Constants that a field never has: patterns where nothing is a pattern, letters of the wrong case, words that ECS does not
//! know.

use crate::event::Value;
use crate::lang::diagnostic::{Diagnostic, Span, code};
use crate::lang::query::Test;
use crate::lang::suggest::nearest;

/// The values that ECS allows in a field.
const ALLOWED: &[(&str, &[&str])] = &[
    (
        "event.category",
        &[
            "api",
            "authentication",
            "configuration",
            "database",
            "driver",
            "email",
            "file",
            "host",
            "iam",
            "intrusion_detection",
            "library",
            "malware",
            "network",
            "package",
            "process",
            "registry",
            "session",
            "threat",
            "vulnerability",
            "web",
        ],
    ),
    ("event.kind", &["alert", "asset", "enrichment", "event", "metric", "pipeline_error", "signal", "state"]),
    ("event.outcome", &["failure", "success", "unknown"]),
    (
        "event.type",
        &[
            "access",
            "admin",
            "allowed",
            "change",
            "connection",
            "creation",
            "deletion",
            "denied",
            "device",
            "end",
            "error",
            "group",
            "indicator",
            "info",
            "installation",
            "protocol",
            "start",
            "user",
        ],
    ),
    ("host.os.type", &["android", "ios", "linux", "macos", "unix", "windows"]),
];

/// Ends of names of fields whose values are in lower case.
const LOWER_CASE: &[&str] = &[".hash.md5", ".hash.sha1", ".hash.sha256", ".hash.sha384", ".hash.sha512"];

/// What is odd about the constants that a field is compared with.
pub(super) fn constants(name: &str, test: &Test, span: Span, places: &[Span], found: &mut Vec<Diagnostic>) {
    let Test::OneOf { values, insensitive } = test else { return };
    for (index, text) in
        values.iter().enumerate().filter_map(|(index, value)| Some((index, value.as_text()?)))
    {
        let place = if places.len() == values.len() { places.get(index).copied() } else { None };
        if place.is_some() && is_pattern(text) {
            let message = format!("the `*` in {text:?} stands for itself here");
            found.push(
                Diagnostic::new(code::PATTERN_AS_TEXT, place.unwrap_or(span), message)
                    .label("compared character by character")
                    .help("`:`, `like` and `like~` take patterns; so does KQL without quotation marks"),
            );
        }
        found.extend(unlike_the_field(name, text, *insensitive, place.unwrap_or(span)));
    }
}

/// Whether a text looks like a pattern: a `*` beside a letter or a digit. Command lines, in which `*` is an argument of its
/// own or stands among other signs, do not.
fn is_pattern(text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let (Some(first), Some(last)) = (text.first(), text.last()) else { return false };
    let inner = text.iter().any(|c| c.is_alphanumeric());
    inner && !text.contains(&' ') && (*first == '*' || *last == '*')
}

/// A value that the field never has.
fn unlike_the_field(name: &str, text: &str, insensitive: bool, span: Span) -> Option<Diagnostic> {
    let lower = text.to_lowercase();
    let allowed = ALLOWED.iter().find(|(field, _)| *field == name).map(|(_, values)| *values);
    let in_lower_case = allowed.is_some() || LOWER_CASE.iter().any(|end| name.ends_with(end));
    if in_lower_case && !insensitive && text != lower {
        let message = format!("the values of `{name}` are in lower case, and this comparison regards case");
        return Some(Diagnostic::new(code::WRONG_CASE, span, message).help(format!("write {lower:?}")));
    }
    let allowed = allowed.filter(|values| !values.contains(&lower.as_str()))?;
    let message = format!("`{name}` never is {text:?}");
    let fault =
        Diagnostic::new(code::UNKNOWN_VALUE, span, message).label("not among the values that ECS allows");
    Some(match nearest(&lower, allowed.iter().copied()) {
        Some(near) => fault.help(format!("did you mean {near:?}?")),
        None => fault.help(format!("ECS knows {}", allowed.join(", "))),
    })
}

/// The category of an event query, where it is a slip of the finger: other data may have other categories.
pub(super) fn category(category: &str, span: Span) -> Option<Diagnostic> {
    let (name, known) = ALLOWED[0];
    let near = nearest(category, known.iter().copied()).filter(|near| *near != category)?;
    let message = format!("`{name}` never is {category:?}");
    let fault =
        Diagnostic::new(code::UNKNOWN_VALUE, span, message).label("not among the values that ECS allows");
    Some(fault.help(format!("did you mean `{near}`?")))
}

/// The smallest and the largest value that a field can have.
pub(super) fn domain(name: &str) -> Option<(Value, Value)> {
    let (low, high) = match name.rsplit('.').next()? {
        "port" => (0, 65_535),
        "pid" | "args_count" | "vpid" => (0, i64::from(u32::MAX)),
        "risk_score" => (0, 100),
        _ => return None,
    };
    Some((Value::Long(low), Value::Long(high)))
}
