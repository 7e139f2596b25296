//! `new_terms` against a model that remembers everything: a term is new where nothing in the history window brought it.

use std::time::Duration;

use arbitrary::{Result, Unstructured};
use lapwing_engine::{Cause, Engine, Options, Output, Schema};
use serde_json::{Map, json};

use super::run::{event, events, rule};
use super::{below, choose};

/// Seconds between what happens: detectors write a sighting down once in that time, and a restart forgets the rest.
const STEP: i64 = 60;

struct Seen {
    at: i64,
    terms: Vec<Vec<String>>,
}

pub(super) fn check(u: &mut Unstructured<'_>) -> Result<()> {
    let fields =
        *choose(u, &[&["user.id"][..], &["user.id", "host.id"], &["host.id", "user.id", "user.name"]])?;
    let (history, learn) = (1 + below(u, 6)? as i64, below(u, 4)? as i64);
    let restart = below(u, 24)?;
    let mut schema = Schema::new();
    let rule = rule(
        &format!(
            "type = 'new_terms'\nquery = 'event.category: a'\nmax_signals = 1000\n[rule.new_terms]\nfield = 'new_terms_fields'\nvalue = {fields:?}\n[[rule.new_terms.history_window_start]]\nfield = 'history_window_start'\nvalue = 'now-{history}m'"
        ),
        &mut schema,
    );
    let schema = std::sync::Arc::new(schema);
    let options = Options { learn: Duration::from_secs((learn * STEP) as u64), ..Options::default() };
    let new = || Engine::new(schema.clone(), std::slice::from_ref(&rule), options);
    let (mut engine, mut output) = (new(), Output::default());
    let (mut seen, mut expected, mut at) = (Vec::<Seen>::new(), Vec::new(), 0);
    for number in 0..below(u, 24)? {
        at += below(u, 4)? as i64;
        let mut document = Map::new();
        document.insert("@timestamp".into(), (at * STEP * 1000).into());
        document.insert("event".into(), json!({"id": number.to_string(), "category": "a"}));
        let mut terms = vec![Vec::new()];
        for field in fields {
            let values = (0..*choose(u, &[1, 1, 0, 2, 3])?).map(|_| choose(u, &["x", "y", "z"]));
            let values = values.collect::<Result<Vec<_>>>()?;
            document.insert((*field).into(), json!(values));
            let longer = terms.iter().flat_map(|term: &Vec<String>| {
                values.iter().map(|value| [term.as_slice(), &[value.to_string()]].concat())
            });
            terms = longer.collect();
        }
        for (place, term) in terms.iter().enumerate() {
            let before = seen.iter().filter(|seen| seen.at + history >= at).flat_map(|seen| &seen.terms);
            let is_new = !before.chain(&terms[..place]).any(|known| known == term);
            // The rule learns from its first match on, and this may be it.
            let since = seen.first().map_or(at, |seen| seen.at);
            if is_new && since + learn <= at {
                expected.push((number.to_string(), term.clone()));
            }
        }
        seen.push(Seen { at, terms });
        if number == restart {
            engine = new();
            restore(&mut engine, &output);
        }
        let event = event(&schema, &document.into());
        let time = event.time();
        engine.push(event, &mut output);
        engine.advance(time, &mut output);
    }
    let found: Vec<_> = output
        .alerts
        .iter()
        .map(|alert| {
            let Cause::Detection(finding) = &alert.cause else { panic!("{alert:?}") };
            let term: Vec<_> = finding.new_terms.iter().map(|value| value.to_text().into_owned()).collect();
            (events(alert).concat(), term)
        })
        .collect();
    assert_eq!(found, expected, "fields {fields:?}, history {history}, learn {learn}, restart {restart}");
    Ok(())
}

/// Gives an engine what another one wanted kept; a row that is deleted and written again stands where it stood last.
fn restore(engine: &mut Engine, output: &Output) {
    let rows =
        output.changes.iter().enumerate().filter(|(at, row)| {
            output.changes[at + 1..].iter().all(|later| later.change.key != row.change.key)
        });
    for (_, row) in rows {
        if let Some(value) = &row.change.value {
            engine.restore(&row.rule_id, &row.change.key, value);
        }
    }
}
