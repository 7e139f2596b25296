//! The compiled engine against the reference: any queries over any events, all of the rules in one engine, so that what
//! they share is tried too.

use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use lapwing_engine::Schema;
use lapwing_engine::lang::{eql, kql};

use serde_json::{Map, Value as Json};

use super::run::{eql_rule, event, kql_rule, same_as_reference};
use super::{below, grammar};

const RULES_MAX: usize = 6;
const EVENTS_MAX: usize = 16;
/// How many of the events are crossed with each other.
const CROSSED_MAX: usize = 10;

pub(super) fn check(u: &mut Unstructured<'_>) -> Result<()> {
    let mut schema = Schema::new();
    let mut rules = Vec::new();
    for number in 0..1 + below(u, RULES_MAX)? {
        let (text, rule) = if u.ratio(1, 5)? {
            let text = grammar::kql(u, 3)?;
            let rule = kql::parse(&text, &mut schema).map(|(query, _)| kql_rule(number, query));
            (text, rule)
        } else {
            let text = query(u)?;
            let rule = eql::parse(&text, &mut schema).map(|(query, _)| eql_rule(number, query));
            (text, rule)
        };
        match rule {
            Ok(rule) => rules.push(rule),
            Err(faults) => panic!("{text}\n{faults:?}"),
        }
    }
    let schema = Arc::new(schema);
    let documents = (0..1 + below(u, EVENTS_MAX)?).map(|id| grammar::document(u, id));
    let documents = crossed(documents.collect::<Result<Vec<_>>>()?);
    let events: Vec<_> = documents.iter().map(|document| event(&schema, document)).collect();
    same_as_reference(&schema, &rules, &events);
    Ok(())
}

/// The documents, and of each two of the first ones a third with every other member of either: making engines takes
/// longer than asking them, and most queries ask for fields together.
fn crossed(mut documents: Vec<Json>) -> Vec<Json> {
    let first: Vec<_> = documents.iter().take(CROSSED_MAX).filter_map(Json::as_object).cloned().collect();
    for (left, one) in first.iter().enumerate() {
        for (_, other) in first.iter().enumerate().filter(|(right, _)| *right != left) {
            let id = documents.len();
            let halves = one.iter().step_by(2).chain(other.iter().skip(1).step_by(2));
            let mut document: Map<_, _> = halves.map(|(name, value)| (name.clone(), value.clone())).collect();
            document.insert("@timestamp".into(), id.into());
            document.insert("event.id".into(), id.to_string().into());
            documents.push(document.into());
        }
    }
    documents
}

/// Single events mostly, and now and then several.
fn query(u: &mut Unstructured<'_>) -> Result<String> {
    if u.ratio(1, 5)? { grammar::several_events(u) } else { grammar::eql(u) }
}
