//! Conditions that never hold: contradictions, and exclusions that exclude nothing.
//!
//! Only fields with a single value are checked: with several values each may satisfy another condition.

use std::cmp::Ordering;

use super::clause::{Clause, ClauseKind};
use super::literal::domain;
use crate::event::{FieldId, Schema, Type, Value};
use crate::lang::DIAGNOSTICS_MAX;
use crate::lang::diagnostic::{Diagnostic, code};
use crate::lang::operator::Comparison;
use crate::lang::query::{Condition, Expr, Test};
use crate::lang::wildcard::{Wildcard, WildcardPart};

/// Maximum number of compared pairs of values or patterns of two tests.
const PAIRS_MAX: usize = 100_000;

/// Maximum number of conditions that another one is compared with.
const GIVEN_MAX: usize = 256;

/// The tests of a field, one of which a part requires.
type Required<'a> = (FieldId, Vec<&'a Test>);

/// Reports the conditions that never hold if all of `given` holds.
pub(super) fn unreachable(
    schema: &Schema,
    clause: &Clause<'_>,
    given: &[Required<'_>],
    found: &mut Vec<Diagnostic>,
) {
    match &clause.kind {
        _ if found.len() >= DIAGNOSTICS_MAX => {}
        ClauseKind::Leaf(..) => {
            if impossible(schema, clause, given) {
                found.push(never(schema, clause));
            }
        }
        ClauseKind::All(parts) => {
            let mut given = given.to_vec();
            for part in parts {
                if let Some(required) = required(schema, part) {
                    unreachable(schema, part, &given, found);
                    also(&mut given, required);
                }
            }
            for part in parts.iter().filter(|part| required(schema, part).is_none()) {
                unreachable(schema, part, &given, found);
            }
        }
        ClauseKind::Any(parts) => {
            parts.iter().for_each(|part| unreachable(schema, part, given, found));
        }
        ClauseKind::Not(inner) => excluded(schema, inner, given, found),
    }
}

/// Reports the alternatives of an exclusion that exclude nothing.
fn excluded(schema: &Schema, clause: &Clause<'_>, given: &[Required<'_>], found: &mut Vec<Diagnostic>) {
    match &clause.kind {
        _ if found.len() >= DIAGNOSTICS_MAX => {}
        ClauseKind::Any(parts) => parts.iter().for_each(|part| excluded(schema, part, given, found)),
        _ if impossible(schema, clause, given) => found.push(
            Diagnostic::new(code::DEAD_EXCLUSION, clause.span, "this excludes nothing")
                .label("it contradicts the conditions beside the `not`")
                .help("take it out, or look for the alternative it was meant for"),
        ),
        _ => {}
    }
}

fn never(schema: &Schema, clause: &Clause<'_>) -> Diagnostic {
    if let Some((field, tests)) = required(schema, clause)
        && let (name, Some((low, high))) = (schema.name(field), domain(schema.name(field)))
        && tests.iter().all(|test| outside(name, test))
    {
        let message = format!("`{name}` lies between {} and {}", low.to_text(), high.to_text());
        return Diagnostic::new(code::IMPOSSIBLE, clause.span, message).label("this can never hold");
    }
    Diagnostic::new(code::IMPOSSIBLE, clause.span, "this can never hold")
        .label("it contradicts another condition on the same field")
        .help("a field of one value cannot satisfy both; is one of them an alternative?")
}

/// Whether a part never holds if all of `given` does.
fn impossible(schema: &Schema, clause: &Clause<'_>, given: &[Required<'_>]) -> bool {
    match &clause.kind {
        ClauseKind::Leaf(..) => required(schema, clause).is_some_and(|(field, tests)| {
            let contradicts =
                |known: &Vec<&Test>| known.iter().all(|known| tests.iter().all(|test| disjoint(known, test)));
            given.iter().any(|(other, known)| *other == field && contradicts(known))
                || tests.iter().all(|test| outside(schema.name(field), test))
        }),
        ClauseKind::All(parts) => {
            let mut given = given.to_vec();
            parts.iter().any(|part| {
                let impossible = impossible(schema, part, &given);
                required(schema, part).into_iter().for_each(|required| also(&mut given, required));
                impossible
            })
        }
        ClauseKind::Any(parts) => {
            !parts.is_empty() && parts.iter().all(|part| impossible(schema, part, given))
        }
        ClauseKind::Not(_) => false,
    }
}

/// The requirement of a part on a field with a single value.
fn required<'a>(schema: &Schema, clause: &Clause<'a>) -> Option<Required<'a>> {
    match &clause.kind {
        ClauseKind::Leaf(Condition::Test(Expr::Field(field), test), _) if has_one_value(schema, *field) => {
            Some((*field, vec![test]))
        }
        ClauseKind::Any(parts) if parts.len() <= GIVEN_MAX => {
            let mut parts = parts.iter().map(|part| required(schema, part));
            let (field, mut tests) = parts.next()??;
            for part in parts {
                let (_, more) = part.filter(|(other, _)| *other == field)?;
                tests.extend(more);
            }
            Some((field, tests))
        }
        _ => None,
    }
}

fn also<'a>(given: &mut Vec<Required<'a>>, required: Required<'a>) {
    if given.len() < GIVEN_MAX {
        given.push(required);
    }
}

/// Whether events have at most one value of the field. A process has several names, several sources write the fields of
/// `event` as lists, and fields that are not in the table are unknown.
fn has_one_value(schema: &Schema, field: FieldId) -> bool {
    let one = schema.is_built_in(field) && !schema.is_list(field) && field.opened().is_none();
    one && schema.ty(field) != Type::Text && !schema.name(field).starts_with("event.")
}

/// Whether a test is for a value that the field cannot have.
fn outside(name: &str, test: &Test) -> bool {
    domain(name).is_some_and(|(low, high)| {
        disjoint(test, &Test::Order(Comparison::GreaterOrEqual, low))
            || disjoint(test, &Test::Order(Comparison::LessOrEqual, high))
    })
}

/// Whether no value passes both tests; false if that cannot be decided.
fn disjoint(left: &Test, right: &Test) -> bool {
    match (left, right) {
        (Test::OneOf { values, insensitive }, other) | (other, Test::OneOf { values, insensitive }) => {
            values.len() <= PAIRS_MAX / size(other).max(1)
                && values.iter().all(|value| !admits(other, value, *insensitive))
        }
        (Test::Like { patterns: left, .. }, Test::Like { patterns: right, .. }) => {
            left.len() * right.len() <= PAIRS_MAX
                && left.iter().all(|left| right.iter().all(|right| ends_differ(left, right)))
        }
        (Test::Order(first, low), Test::Order(second, high)) => {
            ranges_part(*first, low, *second, high) || ranges_part(*second, high, *first, low)
        }
        (Test::Within(left), Test::Within(right)) => {
            let apart =
                |left: &ipnet::IpNet, right: &ipnet::IpNet| !left.contains(right) && !right.contains(left);
            left.iter().all(|left| right.iter().all(|right| apart(left, right)))
        }
        _ => false,
    }
}

/// The number of values or patterns of a test.
fn size(test: &Test) -> usize {
    match test {
        Test::OneOf { values, .. } => values.len(),
        Test::Like { patterns, .. } => patterns.len(),
        _ => 1,
    }
}

/// Whether a value may pass a test; with `folded`, in any case of its letters.
fn admits(test: &Test, value: &Value, folded: bool) -> bool {
    let lower = |text: &str| text.to_lowercase();
    match (test, value) {
        (Test::OneOf { values, insensitive }, Value::Text(text)) => values.iter().any(|other| {
            let other = other.as_text().unwrap_or_default();
            other == text || ((folded || *insensitive) && lower(other) == lower(text))
        }),
        (Test::OneOf { values, .. }, value) => {
            values.iter().any(|other| order(other, value) == Some(Ordering::Equal))
        }
        (Test::Like { patterns, insensitive }, Value::Text(text)) if folded || *insensitive => {
            let text = lower(text);
            patterns.iter().any(|pattern| Wildcard::parse(&lower(&pattern.to_string()), true).matches(&text))
        }
        (Test::Like { patterns, .. }, Value::Text(text)) => {
            patterns.iter().any(|pattern| pattern.matches(text))
        }
        (Test::Regex { patterns, .. }, Value::Text(text)) if !folded => {
            patterns.iter().any(|regex| regex.is_match(text))
        }
        (Test::Within(networks), Value::Ip(address)) => {
            networks.iter().any(|network| network.contains(address))
        }
        (Test::Order(comparison, bound), value) => order(value, bound).is_none_or(|order| match comparison {
            Comparison::Less => order.is_lt(),
            Comparison::LessOrEqual => order.is_le(),
            Comparison::Greater => order.is_gt(),
            Comparison::GreaterOrEqual => order.is_ge(),
            Comparison::Equal | Comparison::NotEqual => true,
        }),
        _ => true,
    }
}

/// The order of two numbers or times.
fn order(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Long(left), Value::Long(right)) => Some(left.cmp(right)),
        (Value::Long(left), Value::Double(right)) => (*left as f64).partial_cmp(right),
        (Value::Double(left), Value::Long(right)) => left.partial_cmp(&(*right as f64)),
        (Value::Double(left), Value::Double(right)) => left.partial_cmp(right),
        (Value::Date(left), Value::Date(right)) => Some(left.cmp(right)),
        (Value::Ip(left), Value::Ip(right)) => Some(left.cmp(right)),
        (Value::Boolean(left), Value::Boolean(right)) => Some(left.cmp(right)),
        _ => None,
    }
}

/// Whether the values above `low` are above all values below `high`.
fn ranges_part(first: Comparison, low: &Value, second: Comparison, high: &Value) -> bool {
    use Comparison::{Greater, GreaterOrEqual, Less, LessOrEqual};
    match (first, second, order(low, high)) {
        (GreaterOrEqual, LessOrEqual, Some(order)) => order.is_gt(),
        (Greater | GreaterOrEqual, Less | LessOrEqual, Some(order)) => order.is_ge(),
        _ => false,
    }
}

/// Whether two patterns begin or end with characters that differ in every case.
fn ends_differ(left: &Wildcard, right: &Wildcard) -> bool {
    let text = |part: Option<&WildcardPart>| match part {
        Some(WildcardPart::Text(text)) => text.to_lowercase(),
        _ => String::new(),
    };
    let differ =
        |left: String, right: String| left.chars().zip(right.chars()).any(|(left, right)| left != right);
    let backwards = |text: String| text.chars().rev().collect();
    differ(text(left.0.first()), text(right.0.first()))
        || differ(backwards(text(left.0.last())), backwards(text(right.0.last())))
}
