//! Samples against a model that keeps every event: one is emitted with the first event that completes it.

use arbitrary::{Result, Unstructured};
use lapwing_engine::lang::eql;
use lapwing_engine::{Cause, Engine, Options, Schema};
use serde_json::json;

use super::run::{alerts, eql_rule, event, events};
use super::{below, choose};

const CATEGORIES: &[&str] = &["a", "b", "c"];
/// How far back a rule looks that does not say, in minutes.
const LOOKBACK: i64 = 6;

struct Moment {
    minute: i64,
    categories: Vec<&'static str>,
    keys: Vec<i64>,
}

pub(super) fn check(u: &mut Unstructured<'_>) -> Result<()> {
    let stages = (0..2 + below(u, 3)?).map(|_| Ok(CATEGORIES.get(below(u, 4)?).copied()));
    let stages = stages.collect::<Result<Vec<_>>>()?;
    let shown: Vec<_> =
        stages.iter().map(|stage| format!("[{} where true]", stage.unwrap_or("any"))).collect();
    let query = format!("sample by user.id {}", shown.join(" "));
    let moments = moments(u)?;
    let mut schema = Schema::new();
    let typed = match eql::parse(&query, &mut schema) {
        Ok((typed, _)) => typed,
        Err(faults) => panic!("{query}\n{faults:?}"),
    };
    let schema = std::sync::Arc::new(schema);
    let recording = moments.iter().enumerate().map(|(id, moment)| {
        let document = json!({"@timestamp": moment.minute * 60_000, "event.id": id.to_string(),
            "event.category": moment.categories, "user.id": moment.keys});
        event(&schema, &document)
    });
    let recording: Vec<_> = recording.collect();
    let engine = Engine::new(schema.clone(), &[eql_rule(0, typed)], Options::default());
    let found = alerts(engine, &recording);
    let emitted = found.iter().map(|alert| {
        let Cause::Detection(finding) = &alert.cause else { panic!("{alert:?}") };
        let key: i64 = finding.keys[0].as_ref().unwrap().parse().unwrap();
        (key, events(alert).iter().map(|id| id.parse().unwrap()).collect::<Vec<usize>>())
    });
    let emitted: Vec<_> = emitted.collect();
    (0..3).for_each(|key| check_key(&query, &stages, &moments, key, &emitted));
    Ok(())
}

fn moments(u: &mut Unstructured<'_>) -> Result<Vec<Moment>> {
    let mut minute = 0;
    let mut moment = |u: &mut Unstructured<'_>| {
        minute += *choose(u, &[0, 1, 0, 3, 7])?;
        let categories = (0..1 + below(u, 2)?).map(|_| choose(u, CATEGORIES).copied());
        let categories = categories.collect::<Result<_>>()?;
        let keys = (0..*choose(u, &[1, 1, 2, 0])?).map(|_| Ok(below(u, 3)? as i64));
        Ok(Moment { minute, categories, keys: keys.collect::<Result<_>>()? })
    };
    (0..below(u, 20)?).map(|_| moment(u)).collect()
}

/// Walks through the events of a key. Whenever those since its last sample make one, a sample must have been emitted that
/// consists of them and contains the last of them.
fn check_key(
    query: &str,
    stages: &[Option<&str>],
    moments: &[Moment],
    key: i64,
    emitted: &[(i64, Vec<usize>)],
) {
    let fits =
        |stage: Option<&str>, id: usize| stage.is_none_or(|stage| moments[id].categories.contains(&stage));
    let mut emitted = emitted.iter().filter(|(of, _)| *of == key).map(|(_, events)| events);
    let mut held: Vec<usize> = Vec::new();
    for (id, moment) in moments.iter().enumerate().filter(|(_, moment)| moment.keys.contains(&key)) {
        held.push(id);
        held.retain(|held| moments[*held].minute >= moment.minute - LOOKBACK);
        if !can_fill(stages, &held, &fits) {
            continue;
        }
        let Some(sample) = emitted.next() else {
            panic!("{query}: key {key} has a sample of {held:?}, none was emitted")
        };
        let is_right = sample.iter().zip(stages).all(|(id, stage)| held.contains(id) && fits(*stage, *id));
        let are_different = sample.iter().collect::<std::collections::BTreeSet<_>>().len() == stages.len();
        assert!(
            is_right && are_different && sample.contains(&id),
            "{query}: {sample:?} is no sample of {held:?}"
        );
        held.clear();
    }
    assert_eq!(emitted.next(), None, "{query}: key {key} has no such sample");
}

/// Whether each stage can have an event of its own.
fn can_fill(stages: &[Option<&str>], events: &[usize], fits: &dyn Fn(Option<&str>, usize) -> bool) -> bool {
    let Some((first, rest)) = stages.split_first() else { return true };
    events.iter().filter(|event| fits(*first, **event)).any(|taken| {
        let others: Vec<_> = events.iter().copied().filter(|event| event != taken).collect();
        can_fill(rest, &others, fits)
    })
}
