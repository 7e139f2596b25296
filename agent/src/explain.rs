//! Why a rule did or did not match, as text and JSON. Text is escaped.

use lapwing_engine::explain::{Chain, Explanation, Part, Trace, Traced};
use lapwing_engine::lang::Query;
use lapwing_engine::rule::{Exception, RuleKind};
use lapwing_engine::{Event, Rule, Schema, Value, field};
use serde_json::{Value as Json, json};

use crate::terminal::{escape, shows_unicode};

/// Maximum number of characters of a value, and of values of a field.
const VALUE_CHARACTERS_MAX: usize = 160;
const VALUES_MAX: usize = 8;
/// Maximum number of characters of a condition: lists of patterns are long, and the rule contains them.
const CONDITION_CHARACTERS_MAX: usize = 240;
/// Maximum number of alternatives that are shown if none holds.
const ALTERNATIVES_MAX: usize = 12;

/// The marks for conditions that hold and do not hold.
#[derive(Clone, Copy)]
pub(crate) struct Marks {
    holds: &'static str,
    fails: &'static str,
}

impl Marks {
    /// The marks that the locale can show.
    pub(crate) fn of_locale() -> Self {
        if shows_unicode() { Self { holds: "✓", fails: "✗" } } else { Self::ascii() }
    }

    /// Marks in ASCII.
    pub(crate) const fn ascii() -> Self {
        Self { holds: "ok", fails: "--" }
    }

    fn of(self, holds: bool) -> &'static str {
        if holds { self.holds } else { self.fails }
    }
}

/// The names of the rule's event queries, in their order.
pub(crate) fn names(rule: &Rule) -> Vec<String> {
    let RuleKind::Eql(query) = &rule.kind else { return vec!["the query".to_owned()] };
    let until = match query.inner() {
        Query::Sequence(sequence) => sequence.until.is_some(),
        _ => false,
    };
    let stages = query.stages().count();
    let events = query.events().count();
    let name = |index: usize| match stages {
        0 if index == 0 => "the query".to_owned(),
        stages if until && index + 1 == stages => "until".to_owned(),
        stages if index < stages => format!("stage {}", index + 1),
        stages => format!("relative {}", index + 1 - stages.max(1)),
    };
    (0..events).map(name).collect()
}

/// The explanation in lines. `names` are those of the rule's event queries.
pub(crate) fn lines(explanation: &Explanation, names: &[String], marks: Marks) -> Vec<String> {
    let Explanation { events, alert_count, alerts, parts, chain, state, excused } = explanation;
    let mut lines = vec![format!("events: {events}, alerts: {alert_count}")];
    for alert in alerts {
        lines.push(format!("  alert at {}", alert.time));
        lines.extend(alert.events().map(|event| format!("    {}", brief(event))));
    }
    // The closest attempt is printed first, because it is the most useful.
    let mut order: Vec<_> = parts.iter().zip(names).collect();
    let nearest = |part: &Part| part.misses.first().map_or(2.0, |miss| miss.nearness);
    order.sort_by(|(left, _), (right, _)| nearest(left).total_cmp(&nearest(right)).reverse());
    if chain.is_some() || *alert_count > 0 {
        order.sort_by_key(|(part, _)| part.matched == 0);
    }
    lines.extend(chain.iter().flat_map(|chain| chain_lines(chain, names)));
    lines.extend(order.into_iter().flat_map(|(part, name)| part_lines(part, name, marks)));
    if !state.is_empty() {
        lines.push("memory".to_owned());
        lines.extend(state.iter().map(|line| format!("  {}", escape(line))));
    }
    if !excused.is_empty() {
        lines.push("exceptions".to_owned());
        lines.extend(excused.iter().map(|(exception, times)| {
            let Exception { file, line, reason, .. } = &**exception;
            format!("  {} suppressed {times}: {}", escape(&format!("{file}:{line}")), escape(reason))
        }));
    }
    lines
}

fn part_lines(part: &Part, name: &str, marks: Marks) -> Vec<String> {
    if let Some(first) = &part.first {
        let mut lines = vec![format!("{name}: matching events: {}; the first ones", part.matched)];
        lines.extend(traced_lines(first, marks, true));
        return lines;
    }
    let mut lines = vec![format!(
        "{name}: no event matched{}",
        if part.misses.is_empty() { "" } else { "; the closest ones" }
    )];
    let misses = part.misses.iter().enumerate();
    lines.extend(misses.flat_map(|(index, miss)| traced_lines(miss, marks, index == 0)));
    lines
}

/// An event with its result: every condition, or those that fail.
fn traced_lines(traced: &Traced, marks: Marks, whole: bool) -> Vec<String> {
    let mut lines = vec![format!("  {}", brief(&traced.event))];
    for part in traced.trace.parts.iter().filter(|part| whole || !part.holds) {
        tree(part, marks, 4, &mut lines);
    }
    lines
}

/// A condition and its parts, each with its mark and the values.
fn tree(trace: &Trace, marks: Marks, indent: usize, lines: &mut Vec<String>) {
    let text = cut(&trace.text, CONDITION_CHARACTERS_MAX);
    let mark = marks.of(trace.holds);
    let values: Vec<_> = trace.values.iter().map(|(name, values)| shown(name, values)).collect();
    let values = if values.is_empty() { String::new() } else { format!("    {}", values.join(", ")) };
    lines.push(format!("{:indent$}{mark} {}{}", "", escape(&text), escape(&values)));
    // One alternative that holds is sufficient.
    let parts: Vec<_> = match trace.text.as_str() {
        "one of" if trace.holds => trace.parts.iter().filter(|part| part.holds).collect(),
        _ => trace.parts.iter().collect(),
    };
    parts.iter().take(ALTERNATIVES_MAX).for_each(|part| tree(part, marks, indent + 2, lines));
    if parts.len() > ALTERNATIVES_MAX {
        let more = parts.len() - ALTERNATIVES_MAX;
        lines.push(format!("{:width$}and {more} more", "", width = indent + 2));
    }
}

fn shown(name: &str, values: &[Value]) -> String {
    let texts: Vec<_> =
        values.iter().take(VALUES_MAX).map(|value| cut(&value.to_text(), VALUE_CHARACTERS_MAX)).collect();
    match texts.as_slice() {
        [] => format!("{name} is absent"),
        [text] => format!("{name} = {text}"),
        several => {
            let more = if values.len() > VALUES_MAX { ", …" } else { "" };
            format!("{name} = [{}{more}]", several.join(", "))
        }
    }
}

fn chain_lines(chain: &Chain, names: &[String]) -> Vec<String> {
    let name = |stage: &usize| names.get(*stage).cloned().unwrap_or_default();
    let mut lines = vec!["closest attempt".to_owned()];
    for (key, value) in &chain.keys {
        let value = value.as_deref().unwrap_or("(absent)");
        lines.push(escape(&format!("  joined by {key} = {value}")).into_owned());
    }
    for (stage, event) in &chain.reached {
        lines.push(format!("  {}: {}", name(stage), brief(event)));
    }
    if let Some(stopped) = &chain.stopped {
        let stage = name(&stopped.stage);
        if stopped.refused.is_empty() {
            lines.push(format!("  {stage}: no event matched"));
        } else {
            lines.push(format!(
                "  {stage}: matching events: {}, none continued the sequence",
                stopped.refused_count
            ));
        }
        for (event, reason) in &stopped.refused {
            lines.push(format!("    {}", brief(event)));
            lines.push(format!("      {}", escape(reason)));
        }
    }
    lines
}

/// An event in a line.
fn brief(event: &Event) -> String {
    let text = |id| event.get(id).map(|value| value.to_text().into_owned());
    let mut words = vec![event.time().to_string()];
    words.extend(text(field!("event.action")).or_else(|| text(field!("event.category"))));
    words.extend(text(field!("process.name")));
    words.extend(text(field!("process.pid")).map(|pid| format!("({pid})")));
    words.extend(text(field!("process.command_line")).or_else(|| text(field!("event.provider"))));
    words.extend(text(field!("destination.ip")).map(|ip| format!("to {ip}")));
    escape(&cut(&words.join(" "), VALUE_CHARACTERS_MAX)).into_owned()
}

fn cut(text: &str, characters_max: usize) -> String {
    match text.char_indices().nth(characters_max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The explanation as JSON.
pub(crate) fn to_json(explanation: &Explanation, schema: &Schema) -> Json {
    let traced = |traced: &Traced| {
        json!({
            "event": traced.event.to_json(schema),
            "nearness": traced.nearness,
            "conditions": trace_to_json(&traced.trace),
        })
    };
    let part = |part: &Part| {
        json!({
            "matched": part.matched,
            "first": part.first.as_ref().map(traced),
            "misses": part.misses.iter().map(traced).collect::<Vec<_>>(),
        })
    };
    let chain = explanation.chain.as_ref().map(|chain| {
        let event = |(stage, event): &(usize, std::sync::Arc<Event>)| {
            json!({"stage": stage, "event": event.to_json(schema)})
        };
        let keys: serde_json::Map<_, _> =
            chain.keys.iter().map(|(key, value)| (key.clone(), value.as_deref().into())).collect();
        json!({
            "join_keys": keys,
            "reached": chain.reached.iter().map(event).collect::<Vec<_>>(),
            "stopped": chain.stopped.as_ref().map(|stopped| json!({
                "stage": stopped.stage,
                "refused_count": stopped.refused_count,
                "refused": stopped.refused.iter().map(|(event, reason)| {
                    json!({"event": event.to_json(schema), "reason": reason})
                }).collect::<Vec<_>>(),
            })),
        })
    });
    json!({
        "events": explanation.events,
        "alerts": explanation.alert_count,
        "parts": explanation.parts.iter().map(part).collect::<Vec<_>>(),
        "sequence": chain,
        "memory": explanation.state,
        "exceptions": explanation.excused.iter().map(|(exception, times)| {
            json!({"file": &*exception.file, "line": exception.line, "reason": exception.reason, "count": times})
        }).collect::<Vec<_>>(),
    })
}

fn trace_to_json(trace: &Trace) -> Json {
    let values: serde_json::Map<_, _> = trace
        .values
        .iter()
        .map(|(name, values)| (name.clone(), values.iter().map(Value::to_json).collect::<Json>()))
        .collect();
    let mut found = json!({"condition": trace.text, "holds": trace.holds});
    if !values.is_empty() {
        found["values"] = values.into();
    }
    if !trace.parts.is_empty() {
        found["parts"] = trace.parts.iter().map(trace_to_json).collect();
    }
    found
}
