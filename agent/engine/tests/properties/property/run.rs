//! Engines run on events, and what they found in a form that can be compared.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use lapwing_engine::lang::{EventQuery, Query};
use lapwing_engine::rule::RuleKind;
use lapwing_engine::{
    Alert, Cause, Engine, Event, Loaded, Options, Output, Rule, Schema, StateChange, Timestamp, field,
};
use serde_json::Value as Json;

/// Events about which the engine and the reference have agreed.
pub(crate) static AGREED: AtomicU64 = AtomicU64::new(0);

/// A rule of which only its kind, its id and its number of alerts are ever changed.
static TEMPLATE: LazyLock<Arc<Rule>> = LazyLock::new(|| {
    rule("type = 'query'\nquery = 'process.name: *'\nmax_signals = 1000", &mut Schema::new())
});

/// The one rule of these lines.
pub(super) fn rule(lines: &str, schema: &mut Schema) -> Arc<Rule> {
    let file = format!(
        "[rule]\nrule_id = 'id'\nname = 'name'\ndescription = 'text'\nseverity = 'low'\nrisk_score = 21\n{lines}"
    );
    let loaded = Loaded::read([("rule.toml", file.as_bytes())], schema);
    assert_eq!(loaded.rules.len(), 1, "{file}\n{:?}", loaded.reports);
    loaded.rules[0].clone()
}

/// A rule with an EQL query.
pub(super) fn eql_rule(id: usize, query: Query) -> Arc<Rule> {
    Arc::new(Rule { id: id.to_string(), kind: RuleKind::Eql(query), ..Rule::clone(&TEMPLATE) })
}

/// A rule with a KQL query.
pub(super) fn kql_rule(id: usize, query: EventQuery) -> Arc<Rule> {
    Arc::new(Rule { id: id.to_string(), kind: RuleKind::Query(query), ..Rule::clone(&TEMPLATE) })
}

/// Asserts that the engine finds in these events what the reference finds, all of it and in the same order.
pub(super) fn same_as_reference(schema: &Arc<Schema>, rules: &[Arc<Rule>], events: &[Arc<Event>]) {
    let options = Options::default();
    let found = alerts(Engine::new(schema.clone(), rules, options), events);
    let expected = alerts(Engine::naive(schema.clone(), rules, options), events);
    let (found, expected) = (shown(&found), shown(&expected));
    if found != expected {
        let rules: Vec<_> = rules.iter().map(|rule| (&rule.id, &rule.kind)).collect();
        let events: Vec<_> = events.iter().map(|event| event.to_json(schema).to_string()).collect();
        panic!("found {found:?}, expected {expected:?}\nrules: {rules:#?}\nevents:\n{}", events.join("\n"));
    }
    AGREED.fetch_add(events.len() as u64, Ordering::Relaxed);
}

/// The alerts that an engine raises for a recording of these events, the clock being that of the latest one.
pub(super) fn alerts(mut engine: Engine, events: &[Arc<Event>]) -> Vec<Alert> {
    let mut output = Output::default();
    show(&mut engine, events, Timestamp::MIN, &mut output);
    engine.finish(&mut output);
    output.alerts
}

/// The same, where one engine is suspended in between and another goes on with what it held.
pub(super) fn alerts_of_two(
    mut first: Engine,
    before: &[Arc<Event>],
    mut second: Engine,
    after: &[Arc<Event>],
) -> Vec<Alert> {
    let mut output = Output::default();
    let now = show(&mut first, before, Timestamp::MIN, &mut output);
    first.suspend(&mut output);
    for StateChange { rule_id, change } in output.changes.drain(..) {
        second.restore(&rule_id, &change.key, &change.value.unwrap_or_default());
    }
    show(&mut second, after, now, &mut output);
    second.finish(&mut output);
    assert!(output.changes.iter().all(|changed| changed.change.value.is_none()), "what was held is deleted");
    output.alerts
}

/// Pushes events to an engine, and advances its time.
fn show(engine: &mut Engine, events: &[Arc<Event>], mut now: Timestamp, output: &mut Output) -> Timestamp {
    for event in events {
        now = now.max(event.time());
        engine.push(event.clone(), output);
        engine.advance(now, output);
    }
    now
}

/// Alerts by what distinguishes them: the rule, the id of the cause, and the events.
fn shown(alerts: &[Alert]) -> Vec<(&str, &str, Vec<String>)> {
    alerts.iter().map(|alert| (alert.rule.id.as_str(), alert.id.as_str(), events(alert))).collect()
}

/// The ids of an alert's events; `_` where one is missing.
pub(super) fn events(alert: &Alert) -> Vec<String> {
    let Cause::Detection(finding) = &alert.cause else { return Vec::new() };
    let id = |event: &Event| event.text(field!("event.id")).unwrap_or_default().to_owned();
    finding.events.iter().map(|event| event.as_deref().map_or("_".to_owned(), id)).collect()
}

/// An event of an ECS document.
pub(super) fn event(schema: &Schema, document: &Json) -> Arc<Event> {
    match Event::from_json(schema, document) {
        Ok(event) => event.into(),
        Err(error) => panic!("{error}: {document}"),
    }
}

/// A few events of the kinds that hosts and clouds report, for which every query is evaluated.
pub(super) fn usual_events(schema: &Schema) -> Vec<Arc<Event>> {
    static DOCUMENTS: LazyLock<Vec<Json>> = LazyLock::new(|| {
        let lines = include_str!("../events.ndjson").lines();
        lines.map(|line| serde_json::from_str(line).unwrap()).collect()
    });
    DOCUMENTS.iter().map(|document| event(schema, document)).collect()
}
