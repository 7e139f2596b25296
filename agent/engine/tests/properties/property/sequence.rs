//! Sequences against a model that looks at the whole recording at once: any stages, keys, spans, runs, `until` and
//! missing events, over events of few times, categories and keys, so that they meet often; by one engine, or by two of
//! which the second goes on where the first was suspended.

mod model;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use lapwing_engine::lang::eql;
use lapwing_engine::{Cause, Engine, Event, Options, Schema};
use serde_json::{Map, Value as Json, json};

use self::model::{Key, Match, Moment, Sequence, Stage};
use super::run::{alerts_of_two, eql_rule, event, events};
use super::{below, choose};

const CATEGORIES: &[&str] = &["a", "b", "c"];
const FIELDS: &[&str] = &["user.id", "host.id", "process.pid"];
const EVENTS_MAX: usize = 20;

pub(super) fn check(u: &mut Unstructured<'_>) -> Result<()> {
    let sequence = sequence(u)?;
    // Events that are late by this much or more may be evaluated in any order.
    let lateness = below(u, 4)? as i64;
    let moments = moments(u, lateness)?;
    // Behind all of them there is no second engine.
    let cut = below(u, EVENTS_MAX + 1)?;
    let query = text(&sequence);
    let mut schema = Schema::new();
    let typed = match eql::parse(&query, &mut schema) {
        Ok((typed, _)) => typed,
        Err(faults) => panic!("{query}\n{faults:?}"),
    };
    let schema = Arc::new(schema);
    let recording: Vec<_> = moments.iter().map(|moment| event(&schema, &document(moment))).collect();
    let mut found = found(&schema, typed, recording.split_at(cut.min(recording.len())), lateness);
    if !sequence.stages.last().is_some_and(|stage| stage.missing) {
        let last = |matched: &Match| matched.events.iter().flatten().last().copied();
        let order: Vec<_> = found.iter().map(|matched| last(matched).map(|at| moments[at].place())).collect();
        assert!(order.is_sorted(), "{query}\n{order:?} is not the order of the last events");
    }
    let mut expected = model::matches(&sequence, &moments);
    found.sort();
    expected.sort();
    assert_eq!(found, expected, "{query}\nlateness {lateness} s, suspended after {cut}\n{moments:#?}");
    Ok(())
}

fn sequence(u: &mut Unstructured<'_>) -> Result<Sequence> {
    let draw_keys = |u: &mut Unstructured<'_>, count: usize| -> Result<Vec<Key>> {
        (0..count).map(|_| Ok(Key { field: choose(u, FIELDS)?, optional: u.ratio(1, 3)? })).collect()
    };
    let shared = *choose(u, &[0, 1, 2])?;
    let shared = draw_keys(u, shared)?;
    let own = *choose(u, &[0, 0, 1])?;
    let maxspan = *choose(u, &[None, Some(1), Some(2), Some(3), Some(5)])?;
    let mut stages = Vec::new();
    for _ in 0..2 + below(u, 4)? {
        let missing = maxspan.is_some() && u.ratio(1, 4)?;
        let stage = Stage { category: category(u)?, keys: draw_keys(u, own)?, missing, runs: 1 };
        let runs = if missing { 1 } else { *choose(u, &[1, 1, 1, 2, 3])? };
        stages.push(Stage { runs, ..stage });
    }
    if stages.iter().all(|stage| stage.missing) {
        stages[0].missing = false;
    }
    let until = if u.ratio(1, 3)? {
        Some(Stage { category: category(u)?, keys: draw_keys(u, own)?, missing: false, runs: 1 })
    } else {
        None
    };
    Ok(Sequence { shared, maxspan, stages, until })
}

/// `None` is `any`.
fn category(u: &mut Unstructured<'_>) -> Result<Option<&'static str>> {
    let place = below(u, CATEGORIES.len() + 1)?;
    Ok(CATEGORIES.get(place).copied())
}

/// Events in the order in which they arrive, none of which is late by `lateness` seconds.
fn moments(u: &mut Unstructured<'_>, lateness: i64) -> Result<Vec<Moment>> {
    let mut moments = Vec::new();
    let mut second = 0;
    for id in 0..below(u, EVENTS_MAX)? {
        second += *choose(u, &[1, 0, 2, 0, 4])?;
        let late = if lateness > 0 { below(u, lateness as usize)? as i64 } else { 0 };
        let tiebreaker = if u.ratio(1, 3)? { Some(below(u, 4)? as u64) } else { None };
        let mut categories = vec![*choose(u, CATEGORIES)?];
        if u.ratio(1, 5)? {
            categories.push(choose(u, CATEGORIES)?);
        }
        let mut values = Vec::new();
        for _ in FIELDS {
            let count = *choose(u, &[1, 1, 1, 0, 2, 3])?;
            values.push((0..count).map(|_| Ok(below(u, 3)? as i64)).collect::<Result<_>>()?);
        }
        moments.push((second + late, Moment { id, second, tiebreaker, categories, values }));
    }
    // Where nothing may be late, the recording is in order to the last tiebreaker.
    let in_order = |moment: &Moment| (lateness == 0).then(|| moment.place());
    moments.sort_by_key(|(arrival, moment)| (*arrival, in_order(moment)));
    let mut moments: Vec<_> = moments.into_iter().map(|(_, moment)| moment).collect();
    (0..).zip(&mut moments).for_each(|(id, moment)| moment.id = id);
    Ok(moments)
}

fn text(sequence: &Sequence) -> String {
    let by = |keys: &[Key]| {
        let keys = keys.iter().map(|key| format!("{}{}", if key.optional { "?" } else { "" }, key.field));
        let keys = keys.collect::<Vec<_>>().join(", ");
        if keys.is_empty() { keys } else { format!(" by {keys}") }
    };
    let mut text = format!("sequence{}", by(&sequence.shared));
    sequence.maxspan.iter().for_each(|span| write!(text, " with maxspan={span}s").unwrap());
    let mut stage = |stage: &Stage, lead: &str| {
        let (mark, category) = (if stage.missing { "!" } else { "" }, stage.category.unwrap_or("any"));
        write!(text, "\n{lead}{mark}[{category} where true]{}", by(&stage.keys)).unwrap();
        if stage.runs > 1 {
            write!(text, " with runs={}", stage.runs).unwrap();
        }
    };
    sequence.stages.iter().for_each(|each| stage(each, "  "));
    sequence.until.iter().for_each(|until| stage(until, "until "));
    text
}

fn document(moment: &Moment) -> Json {
    let mut document = Map::new();
    document.insert("@timestamp".into(), (moment.second * 1000).into());
    document.insert("event.id".into(), moment.id.to_string().into());
    document.insert("event.category".into(), json!(moment.categories));
    if let Some(tiebreaker) = moment.tiebreaker {
        document.insert("event.sequence".into(), tiebreaker.into());
    }
    for (field, values) in FIELDS.iter().zip(&moment.values) {
        document.insert((*field).into(), json!(values));
    }
    document.into()
}

fn found(
    schema: &Arc<Schema>,
    query: lapwing_engine::lang::Query,
    (before, after): (&[Arc<Event>], &[Arc<Event>]),
    lateness: i64,
) -> Vec<Match> {
    let rule = eql_rule(0, query);
    let options = Options { lateness: Duration::from_secs(lateness as u64), ..Options::default() };
    let engine = || Engine::new(schema.clone(), std::slice::from_ref(&rule), options);
    let alerts = alerts_of_two(engine(), before, engine(), after);
    let matched = alerts.iter().map(|alert| {
        let Cause::Detection(finding) = &alert.cause else { panic!("{alert:?}") };
        let keys = finding.keys.iter().map(|key| key.as_ref().map(|key| key.parse().unwrap()));
        let events = events(alert).iter().map(|id| id.parse().ok()).collect();
        Match { keys: keys.collect(), events }
    });
    matched.collect()
}
