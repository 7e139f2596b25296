//! `threshold` against a model that keeps every event and counts anew each time.

use std::collections::BTreeSet;
use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use lapwing_engine::{Cause, Engine, Options, Schema};
use serde_json::{Map, json};

use super::run::{alerts, event, events, rule};
use super::{below, choose};

const FIELDS: &[&str] = &["user.id", "host.id"];
const COUNTED: &str = "process.pid";

/// An event that counts.
struct Seen {
    minute: i64,
    terms: Vec<Vec<String>>,
    values: Vec<i64>,
}

pub(super) fn check(u: &mut Unstructured<'_>) -> Result<()> {
    let fields = &FIELDS[..below(u, 3)?];
    let value = 1 + below(u, 4)?;
    let least = *choose(u, &[None, Some(1), Some(2), Some(3)])?;
    let lookback = 1 + below(u, 5)? as i64;
    let cardinality = least.map_or(String::new(), |least| {
        format!("[[rule.threshold.cardinality]]\nfield = '{COUNTED}'\nvalue = {least}\n")
    });
    let lines = format!(
        "type = 'threshold'\nlanguage = 'kuery'\nquery = 'event.category: a'\nmax_signals = 1000\nfrom = 'now-{lookback}m'\n\
         [rule.threshold]\nfield = {fields:?}\nvalue = {value}\n{cardinality}"
    );
    let mut schema = Schema::new();
    let rule = rule(&lines, &mut schema);
    let schema = Arc::new(schema);
    let seen = stream(u, fields)?;
    let recording: Vec<_> =
        seen.iter().enumerate().map(|(id, seen)| document(&schema, fields, id, seen)).collect();
    let found = alerts(Engine::new(schema.clone(), &[rule], Options::default()), &recording);
    let found = found.iter().map(|alert| {
        let Cause::Detection(finding) = &alert.cause else { panic!("{alert:?}") };
        let result = finding.threshold.as_ref().unwrap();
        let terms = result.terms.iter().map(|(_, value)| value.to_text().into_owned()).collect();
        let id: usize = events(alert).concat().parse().unwrap();
        (id, terms, result.count, result.cardinality.map(|(_, count)| count))
    });
    let found: Vec<Found> = found.collect();
    assert_eq!(found, expected(&seen, value, least, lookback), "{lines}");
    Ok(())
}

/// The event that raised it, the terms of the bucket, how many events, and how many values.
type Found = (usize, Vec<String>, u64, Option<u64>);

fn stream(u: &mut Unstructured<'_>, fields: &[&str]) -> Result<Vec<Seen>> {
    let mut stream = Vec::new();
    let mut minute = 0;
    for _ in 0..below(u, 24)? {
        minute += *choose(u, &[0, 1, 0, 2, 6])?;
        let mut terms = vec![Vec::new()];
        for _ in fields {
            let values = (0..*choose(u, &[1, 1, 1, 0, 2])?).map(|_| choose(u, &["x", "y"]));
            let values: BTreeSet<_> = values.collect::<Result<_>>()?;
            let longer = terms.iter().flat_map(|term: &Vec<String>| {
                values.iter().map(|value| [term.as_slice(), &[value.to_string()]].concat())
            });
            terms = longer.collect();
        }
        let values = (0..*choose(u, &[1, 0, 2])?).map(|_| Ok(below(u, 3)? as i64));
        stream.push(Seen { minute, terms, values: values.collect::<Result<_>>()? });
    }
    Ok(stream)
}

fn document(schema: &Schema, fields: &[&str], id: usize, seen: &Seen) -> Arc<lapwing_engine::Event> {
    let mut document = Map::new();
    document.insert("@timestamp".into(), (seen.minute * 60_000).into());
    document.insert("event".into(), json!({"id": id.to_string(), "category": "a"}));
    document.insert(COUNTED.into(), json!(seen.values));
    for (place, field) in fields.iter().enumerate() {
        let values: BTreeSet<_> = seen.terms.iter().map(|term| &term[place]).collect();
        document.insert((*field).into(), json!(values));
    }
    event(schema, &document.into())
}

/// A bucket raises an alert when it held enough for the length of the window, is silent as long, and then counts from zero.
fn expected(stream: &[Seen], value: usize, least: Option<u64>, lookback: i64) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    for (id, seen) in stream.iter().enumerate() {
        for term in &seen.terms {
            let raised = found.iter().rev().find(|(_, terms, ..)| terms == term).map(|(raised, ..)| *raised);
            if raised.is_some_and(|raised| seen.minute < stream[raised].minute + lookback) {
                continue;
            }
            // What came after an alert and was silent is not counted later either.
            let counts =
                |other: &Seen| raised.is_none_or(|raised| other.minute >= stream[raised].minute + lookback);
            let held = stream[..=id].iter().filter(|other| {
                other.minute >= seen.minute - lookback && other.terms.contains(term) && counts(other)
            });
            let held: Vec<_> = held.collect();
            let values: BTreeSet<_> = held.iter().flat_map(|other| &other.values).collect();
            let (count, cardinality) = (held.len(), values.len() as u64);
            if count >= value && least.is_none_or(|least| cardinality >= least) {
                found.push((id, term.clone(), count as u64, least.map(|_| cardinality)));
            }
        }
    }
    found
}
