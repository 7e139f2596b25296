//! Whether the events that rules need are there, for people and for programs.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use lapwing_engine::coverage::{Coverage, Covered, Source, coverage};
use lapwing_engine::{Rule, Schema};
use serde_json::{Value as Json, json};

use super::super::print;
use crate::terminal::escape;

/// Most rows of what is missing that are told where nobody asked for all.
const ROWS_MAX: usize = 15;

/// Rules, and what of their needs is met.
pub(super) struct Needs(Vec<(Arc<Rule>, Coverage)>);

impl Needs {
    pub(super) fn of(rules: &[Arc<Rule>], sources: &[Source], schema: &Schema) -> Self {
        Self(rules.iter().map(|rule| (rule.clone(), coverage(rule, sources, schema))).collect())
    }

    /// What is found out of each rule, in their order.
    pub(super) fn to_json(&self) -> impl Iterator<Item = Json> {
        self.0.iter().map(|(_, found)| to_json(found))
    }

    /// How many rules have what they need; and what is missing, what the most rules lack first.
    pub(super) fn tell(&self) -> Result<()> {
        let count =
            |wanted: &dyn Fn(&Coverage) -> bool| self.0.iter().filter(|(_, found)| wanted(found)).count();
        let of = |covered: Covered| count(&|found| found.events == covered);
        let idle = count(&|found| found.events == Covered::Partly && !found.can_match);
        let idle = if idle == 0 { String::new() } else { format!(" ({idle} of these can never match)") };
        print(&format!(
            "events that they need: all are here for {}, some for {}{idle}, none for {}",
            of(Covered::All),
            of(Covered::Partly),
            of(Covered::None),
        ))?;
        let mut lacking: BTreeMap<String, usize> = BTreeMap::new();
        for (_, found) in self.0.iter().filter(|(_, found)| found.events != Covered::All) {
            for missing in missing(found) {
                // Which index it is matters for the one rule and not for the sum of them.
                let missing = match missing.split_once(" (index ") {
                    Some((event, _)) => format!("{event} of an index that has no source here"),
                    None => missing,
                };
                *lacking.entry(missing).or_default() += 1;
            }
        }
        let mut rows: Vec<_> = lacking.into_iter().collect();
        rows.sort_by_key(|(_, rules)| std::cmp::Reverse(*rules));
        for (missing, rules) in rows.iter().take(ROWS_MAX) {
            print(&escape(&format!("  {rules:>4} lack {missing}")))?;
        }
        match rows.len().saturating_sub(ROWS_MAX) {
            0 => Ok(()),
            more => print(&format!("       and {more} more; `--verbose` tells of each rule")),
        }
    }

    /// A line for each rule, or for those of a name or id that holds one of these words.
    pub(super) fn tell_each(&self, wanted: &[String]) -> Result<()> {
        let is_wanted = |rule: &Rule| {
            let name = rule.name.to_lowercase();
            wanted.is_empty()
                || wanted.iter().any(|word| rule.id == *word || name.contains(&word.to_lowercase()))
        };
        for (rule, found) in self.0.iter().filter(|(rule, _)| is_wanted(rule)) {
            let never = if found.can_match { "" } else { ", and can never match" };
            let lacks = match missing(found).join("; ") {
                missing if missing.is_empty() => String::new(),
                missing => format!(": lacks {missing}{never}"),
            };
            print(&escape(&format!("{:<6} {}{lacks}", word(found.events), rule.name)))?;
        }
        Ok(())
    }
}

/// What of a rule's needs is met.
pub(super) fn to_json(found: &Coverage) -> Json {
    json!({
        "events": word(found.events),
        "can_match": found.can_match,
        "missing_fields": found.missing_fields,
        "missing_events": found.missing_events,
        "source": found.source,
    })
}

fn word(covered: Covered) -> &'static str {
    match covered {
        Covered::All => "all",
        Covered::Partly => "partly",
        Covered::None => "none",
    }
}

fn missing(found: &Coverage) -> Vec<String> {
    let fields = found.missing_fields.iter().map(|field| format!("field {field}"));
    found.missing_events.iter().map(|event| format!("event {event}")).chain(fields).collect()
}
