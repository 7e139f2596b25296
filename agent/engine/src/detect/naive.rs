//! The semantics of a typed query, as a direct recursion over its nodes, without precomputation, sharing or state.
//!
//! It is the reference. The matcher must give the same result for every query and every event. Tests, the fuzzer and
//! benchmarks compare the two. `lapwing explain` evaluates a query node by node with it.

use std::borrow::Cow;
use std::cmp::Ordering;

use smol_str::SmolStr;

use crate::event::{Event, FieldId, Value, version};
use crate::field;
use crate::lang::function::arithmetic;
use crate::lang::operator::{Arithmetic, Comparison};
use crate::lang::query::{Condition, EventQuery, Expr, Test};
use crate::lang::wildcard::{Wildcard, WildcardPart};

/// Maximum number of combinations of values for a function of several multi-valued fields.
pub const COMBINATIONS_MAX: usize = 1024;

/// Whether the event is of the query's category and its condition holds.
#[must_use]
pub fn matches(query: &EventQuery, event: &Event) -> bool {
    is_of(query, event) && holds(&query.condition, event)
}

/// Whether the event is of the query's category.
#[must_use]
pub fn is_of(query: &EventQuery, event: &Event) -> bool {
    query.category.as_ref().is_none_or(|category| {
        event.values(field!("event.category")).any(|value| value.as_text() == Some(category.as_str()))
    })
}

/// Whether the condition holds for the event.
#[must_use]
pub fn holds(condition: &Condition, event: &Event) -> bool {
    match condition {
        Condition::Always(truth) => *truth,
        Condition::Not(inner) => !holds(inner, event),
        Condition::All(parts) => parts.iter().all(|part| holds(part, event)),
        Condition::Any(parts) => parts.iter().any(|part| holds(part, event)),
        Condition::Exists(expr) => !values(expr, event).is_empty(),
        Condition::Test(expr, test) => values(expr, event).iter().any(|value| passes(test, value)),
        Condition::Compare(comparison, left, right) => {
            let right = values(right, event);
            let stands =
                |left: &Value, right| compare(left, right).is_some_and(|order| lies(*comparison, order));
            values(left, event).iter().any(|left| right.iter().any(|right| stands(left, right)))
        }
        Condition::Anywhere(groups) => {
            groups.iter().any(|(fields, test)| anywhere(fields, test.as_ref(), event))
        }
        // Detectors resolve it before the evaluation.
        Condition::Related(..) => false,
    }
}

/// Whether one of the fields is present and, if there is a test, has a value that passes it.
fn anywhere(fields: &[FieldId], test: Option<&Test>, event: &Event) -> bool {
    let present = event.fields().into_iter().filter(|(field, _)| fields.binary_search(field).is_ok());
    let passes = |value: &Value| test.is_none_or(|test| passes(test, value));
    present.into_iter().any(|(_, value)| value.elements().any(|value| passes(&value)))
}

/// Whether one value passes a test.
#[must_use]
pub fn passes(test: &Test, value: &Value) -> bool {
    match (test, value) {
        (Test::OneOf { values, insensitive: true }, Value::Text(text)) => {
            let wanted =
                |wanted: &Value| wanted.as_text().is_some_and(|wanted| folded(wanted) == folded(text));
            values.iter().any(wanted)
        }
        (Test::OneOf { values, .. }, value) => {
            values.iter().any(|wanted| compare(value, wanted) == Some(Ordering::Equal))
        }
        (Test::Like { patterns, insensitive }, Value::Text(text)) => {
            patterns.iter().any(|pattern| like(pattern, text, *insensitive))
        }
        (Test::Regex { patterns, .. }, Value::Text(text)) => {
            patterns.iter().any(|regex| regex.is_match(text))
        }
        (Test::Within(networks), Value::Ip(address)) => {
            networks.iter().any(|network| network.contains(address))
        }
        (Test::Order(comparison, wanted), value) => {
            compare(value, wanted).is_some_and(|order| lies(*comparison, order))
        }
        (Test::Version(comparison, wanted), Value::Text(text)) => {
            lies(*comparison, version::compare(text, wanted))
        }
        (Test::WordsLike(patterns), Value::Text(text)) => {
            words_of(text).any(|word| patterns.iter().any(|pattern| pattern.matches(&word)))
        }
        (Test::Words { words, phrase }, Value::Text(text)) => has_words(text, words, *phrase),
        _ => false,
    }
}

/// The values of an expression for an event; none if it is null or depends on an absent value.
#[must_use]
pub fn values(expr: &Expr, event: &Event) -> Vec<Value> {
    match expr {
        Expr::Constant(value) => value.iter().flat_map(Value::elements).map(Cow::into_owned).collect(),
        Expr::Field(field) => event.values(*field).to_vec(),
        Expr::Opened(field) => event.opened_values(*field).to_vec(),
        // Detectors resolve it before the evaluation.
        Expr::Earlier { .. } => Vec::new(),
        Expr::Call { function, insensitive, arguments } => {
            let arguments: Vec<_> = arguments.iter().map(|argument| values(argument, event)).collect();
            combinations(&arguments)
                .iter()
                .filter_map(|values| function.apply(values, *insensitive))
                .collect()
        }
        Expr::Arithmetic(operator, left, right) => {
            let sides = [values(left, event), values(right, event)];
            combinations(&sides).iter().filter_map(|values| computed(*operator, values)).collect()
        }
        Expr::Truth(condition) => truth(condition, event).map(Value::Boolean).into_iter().collect(),
    }
}

/// The truth value of a condition that is used as a value. Only here is there a third result: `None` if the condition
/// depends on an absent value.
fn truth(condition: &Condition, event: &Event) -> Option<bool> {
    match condition {
        Condition::Always(_) | Condition::Exists(_) | Condition::Anywhere(_) | Condition::Related(..) => {
            Some(holds(condition, event))
        }
        Condition::Not(inner) => truth(inner, event).map(|truth| !truth),
        Condition::All(parts) => decided(parts, event, false),
        Condition::Any(parts) => decided(parts, event, true),
        Condition::Test(expr, test) => {
            let values = values(expr, event);
            (!values.is_empty()).then(|| values.iter().any(|value| passes(test, value)))
        }
        Condition::Compare(_, left, right) => {
            let known = !values(left, event).is_empty() && !values(right, event).is_empty();
            known.then(|| holds(condition, event))
        }
    }
}

/// The result is `deciding` if one part is; otherwise all parts must be known.
fn decided(parts: &[Condition], event: &Event, deciding: bool) -> Option<bool> {
    let truths: Vec<_> = parts.iter().map(|part| truth(part, event)).collect();
    if truths.contains(&Some(deciding)) {
        Some(deciding)
    } else {
        (!truths.contains(&None)).then_some(!deciding)
    }
}

fn computed(operator: Arithmetic, values: &[Value]) -> Option<Value> {
    match operator {
        Arithmetic::Add => arithmetic(values, i64::checked_add, |left, right| left + right),
        Arithmetic::Subtract => arithmetic(values, i64::checked_sub, |left, right| left - right),
        Arithmetic::Multiply => arithmetic(values, i64::checked_mul, |left, right| left * right),
        Arithmetic::Divide => arithmetic(values, i64::checked_div, |left, right| left / right),
        Arithmetic::Modulo => arithmetic(values, i64::checked_rem, |left, right| left % right),
    }
}

/// All combinations of one value of each list; none if a list is empty.
fn combinations(lists: &[Vec<Value>]) -> Vec<Vec<Value>> {
    lists.iter().fold(vec![Vec::new()], |combinations, list| {
        let mut longer = Vec::new();
        for combination in combinations {
            for value in list {
                if longer.len() < COMBINATIONS_MAX {
                    longer.push([combination.as_slice(), std::slice::from_ref(value)].concat());
                }
            }
        }
        longer
    })
}

/// Compares two values of one type. Integers and floating-point numbers count as one type.
pub(crate) fn compare(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Long(left), Value::Long(right)) => Some(left.cmp(right)),
        (Value::Long(left), Value::Double(right)) => (*left as f64).partial_cmp(right),
        (Value::Double(left), Value::Long(right)) => left.partial_cmp(&(*right as f64)),
        (Value::Double(left), Value::Double(right)) => left.partial_cmp(right),
        (Value::Text(left), Value::Text(right)) => Some(left.cmp(right)),
        (Value::Boolean(left), Value::Boolean(right)) => Some(left.cmp(right)),
        (Value::Ip(left), Value::Ip(right)) => Some(left.cmp(right)),
        (Value::Date(left), Value::Date(right)) => Some(left.cmp(right)),
        _ => None,
    }
}

/// Whether values in this order satisfy the comparison.
pub(super) fn lies(comparison: Comparison, order: Ordering) -> bool {
    match comparison {
        Comparison::Less => order.is_lt(),
        Comparison::LessOrEqual => order.is_le(),
        Comparison::Greater => order.is_gt(),
        Comparison::GreaterOrEqual => order.is_ge(),
        Comparison::Equal => order.is_eq(),
        Comparison::NotEqual => order.is_ne(),
    }
}

/// Folds case as Elasticsearch's case-insensitive terms do: each character is mapped to lower case by itself. A
/// character whose lower case has several characters is not changed.
fn folded(text: &str) -> String {
    text.chars()
        .map(|c| {
            let mut lower = c.to_lowercase();
            if lower.len() == 1 { lower.next().unwrap_or(c) } else { c }
        })
        .collect()
}

/// Whether the pattern matches the whole text. `reached` has the positions in the text that the parts up to the current
/// one can reach.
fn like(pattern: &Wildcard, text: &str, insensitive: bool) -> bool {
    let fold = |text: &str| if insensitive { folded(text) } else { text.to_owned() };
    let text: Vec<char> = fold(text).chars().collect();
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    for part in &pattern.0 {
        match part {
            WildcardPart::Many => {
                let first = reached.iter().position(|reached| *reached).unwrap_or(reached.len());
                reached[first..].fill(true);
            }
            WildcardPart::One => step(&mut reached, |_| true),
            WildcardPart::Text(part) => {
                for wanted in fold(part).chars() {
                    step(&mut reached, |at| text[at] == wanted);
                }
            }
        }
    }
    reached[text.len()]
}

/// Advances by one character from every reached position whose character fits.
fn step(reached: &mut [bool], fits: impl Fn(usize) -> bool) {
    for at in (0..reached.len() - 1).rev() {
        reached[at + 1] = reached[at] && fits(at);
    }
    reached[0] = false;
}

/// A text's words, in lower case.
fn words_of(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
    words.filter(|word| !word.is_empty()).map(str::to_lowercase)
}

/// Whether the text contains the wanted words: as a phrase, or any of them.
pub(super) fn has_words(text: &str, wanted: &[SmolStr], phrase: bool) -> bool {
    let words: Vec<String> = words_of(text).collect();
    if phrase {
        !wanted.is_empty() && words.windows(wanted.len()).any(|window| window.iter().eq(wanted.iter()))
    } else {
        wanted.iter().any(|wanted| words.iter().any(|word| word == wanted.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_from_end_to_end() {
        for (pattern, text, matched) in [
            ("curl", "curl", true),
            ("curl", "curl1", false),
            ("*a*b?", "xxaxxbé", true),
            ("*a*b?", "xxaxxb", false),
            ("", "", true),
            ("?", "", false),
            ("*", "", true),
            ("ÄB*", "äbc", true),
        ] {
            assert_eq!(like(&Wildcard::parse(pattern, true), text, true), matched, "{pattern} {text}");
        }
    }
}
