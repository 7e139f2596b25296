//! The compiled engine against the reference: any queries over any events, all of the rules in one engine, so that what
//! they share is tried too.

use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use lapwing_engine::Schema;
use lapwing_engine::lang::{eql, kql};

use super::run::{eql_rule, event, kql_rule, same_as_reference};
use super::{below, grammar};

const RULES_MAX: usize = 6;
const EVENTS_MAX: usize = 16;

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
    let documents = documents.collect::<Result<Vec<_>>>()?;
    let events: Vec<_> = documents.iter().map(|document| event(&schema, document)).collect();
    same_as_reference(&schema, &rules, &events);
    Ok(())
}

/// Single events mostly, and now and then several.
fn query(u: &mut Unstructured<'_>) -> Result<String> {
    if u.ratio(1, 5)? { grammar::several_events(u) } else { grammar::eql(u) }
}
