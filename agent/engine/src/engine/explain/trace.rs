//! How an event query came out for an event, condition by condition, with the values that were there.

use std::sync::Arc;

use crate::detect::naive;
use crate::event::{Event, Schema, Value};
use crate::lang::query::{Condition, EventQuery, Expr};

/// How a condition came out.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// The condition, or `all of`, `one of` and `none of` where it has parts.
    pub text: String,
    /// Whether it holds.
    pub holds: bool,
    /// The fields it looks at, each with its values; none where the field is absent.
    pub values: Vec<(String, Vec<Value>)>,
    /// What it is made of.
    pub parts: Vec<Trace>,
}

/// An event for which a query was evaluated, with the result.
#[derive(Clone, Debug)]
pub struct Traced {
    /// The event.
    pub event: Arc<Event>,
    /// How it came out.
    pub trace: Trace,
    /// How near it came: 1 where it holds, else the part of the conditions that do.
    pub nearness: f64,
}

impl Traced {
    pub(super) fn new(query: &EventQuery, event: &Arc<Event>, nearness: f64, schema: &Schema) -> Self {
        Self { event: event.clone(), trace: Trace::of(query, event, schema), nearness }
    }
}

impl Trace {
    /// Evaluates a query for an event. Every condition is evaluated, even where the result is already decided.
    #[must_use]
    pub fn of(query: &EventQuery, event: &Event, schema: &Schema) -> Self {
        let mut parts = Vec::new();
        if let Some(category) = &query.category {
            let found = event.values(crate::field!("event.category")).to_vec();
            parts.push(Self {
                text: format!("event.category is {category}"),
                holds: naive::is_of(query, event),
                values: vec![("event.category".to_owned(), found)],
                parts: Vec::new(),
            });
        }
        match Self::condition(&query.condition, event, schema) {
            all if all.text == ALL => parts.extend(all.parts),
            other => parts.push(other),
        }
        Self { text: ALL.to_owned(), holds: naive::matches(query, event), values: Vec::new(), parts }
    }

    /// Asks a condition about an event.
    #[must_use]
    pub fn condition(condition: &Condition, event: &Event, schema: &Schema) -> Self {
        let holds = naive::holds(condition, event);
        let branch = |text: &str, parts: &[Condition]| {
            let parts = parts.iter().map(|part| Self::condition(part, event, schema)).collect();
            Self { text: text.to_owned(), holds, values: Vec::new(), parts }
        };
        match condition {
            Condition::All(parts) => branch(ALL, parts),
            Condition::Any(parts) => branch("one of", parts),
            Condition::Not(inner) => match &**inner {
                Condition::All(parts) => branch("not all of", parts),
                Condition::Any(parts) => branch("none of", parts),
                inner => {
                    let inner = Self::condition(inner, event, schema);
                    Self { text: format!("not {}", inner.text), holds, ..inner }
                }
            },
            leaf => Self {
                text: shown(leaf, schema),
                holds,
                values: values(leaf, event, schema),
                parts: Vec::new(),
            },
        }
    }
}

/// How near an event comes to meeting a query: 1 where it does, else the part of its conditions that hold.
pub(super) fn nearness(query: &EventQuery, event: &Event) -> f64 {
    let category = f64::from(u8::from(naive::is_of(query, event)));
    let parts = match &query.condition {
        Condition::All(parts) => parts.as_slice(),
        one => std::slice::from_ref(one),
    };
    let held: f64 = parts.iter().map(|part| near(part, event)).sum();
    (category + held) / (parts.len() + 1) as f64
}

fn near(condition: &Condition, event: &Event) -> f64 {
    match condition {
        Condition::All(parts) => {
            parts.iter().map(|part| near(part, event)).sum::<f64>() / parts.len().max(1) as f64
        }
        Condition::Any(parts) => parts.iter().map(|part| near(part, event)).fold(0.0, f64::max),
        leaf => f64::from(u8::from(naive::holds(leaf, event))),
    }
}

const ALL: &str = "all of";

/// A condition as the typed query has it.
fn shown(condition: &Condition, schema: &Schema) -> String {
    let query = EventQuery { category: None, condition: condition.clone() };
    let text = query.display(schema).to_string();
    text.strip_prefix("any where ").unwrap_or(&text).to_owned()
}

/// The values of the fields that a condition looks at, and of what it computes of them.
fn values(condition: &Condition, event: &Event, schema: &Schema) -> Vec<(String, Vec<Value>)> {
    let mut ids = condition.fields();
    ids.sort();
    ids.dedup();
    let mut found: Vec<_> = Vec::new();
    for id in ids {
        found.push((schema.name(id).to_owned(), event.values(id).to_vec()));
        // Which of the names are more than what the process goes by.
        if let Some(opened) = id.opened().filter(|opened| event.get(*opened).is_some()) {
            found.push((schema.name(opened).to_owned(), event.values(opened).to_vec()));
        }
    }
    if let Condition::Exists(expr) | Condition::Test(expr, _) = condition
        && matches!(expr, Expr::Call { .. } | Expr::Arithmetic(..))
    {
        found.push(("computed".to_owned(), naive::values(expr, event)));
    }
    found
}
