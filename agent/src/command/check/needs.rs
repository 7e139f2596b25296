//! Event coverage: whether this host has the events that rules need.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use lapwing_engine::coverage::{Coverage, Covered, Source, coverage};
use lapwing_engine::{Rule, Schema};
use serde_json::{Value as Json, json};

use super::super::print;
use crate::terminal::escape;

/// Maximum number of rows about missing events without `--verbose`.
const ROWS_MAX: usize = 15;

/// Rules with their coverage.
pub(super) struct Needs(Vec<(Arc<Rule>, Coverage)>);

impl Needs {
    pub(super) fn of(rules: &[Arc<Rule>], sources: &[Source], schema: &Schema) -> Self {
        Self(rules.iter().map(|rule| (rule.clone(), coverage(rule, sources, schema))).collect())
    }

    /// The coverage of each rule, in the order of the rules.
    pub(super) fn to_json(&self) -> impl Iterator<Item = Json> {
        self.0.iter().map(|(_, found)| to_json(found))
    }

    /// The number of rules by coverage, and what is missing, by the number of rules that need it.
    pub(super) fn print_summary(&self) -> Result<()> {
        let count =
            |wanted: &dyn Fn(&Coverage) -> bool| self.0.iter().filter(|(_, found)| wanted(found)).count();
        let of = |covered: Covered| count(&|found| found.events == covered);
        let idle = count(&|found| found.events == Covered::Partly && !found.can_match);
        let idle = if idle == 0 { String::new() } else { format!(" ({idle} can never match)") };
        print(&format!(
            "required events: available for {}, partly for {}{idle}, missing for {}",
            rules_of(of(Covered::All)),
            of(Covered::Partly),
            of(Covered::None),
        ))?;
        let mut lacking: BTreeMap<String, usize> = BTreeMap::new();
        for (_, found) in self.0.iter().filter(|(_, found)| found.events != Covered::All) {
            for missing in missing(found) {
                // The index differs from rule to rule, and would split the sum.
                let missing = match missing.split_once(" (index ") {
                    Some((event, _)) => format!("no source for {event} of its index"),

                    None => format!("missing {missing}"),
                };
                *lacking.entry(missing).or_default() += 1;
            }
        }
        let mut rows: Vec<_> = lacking.into_iter().collect();
        rows.sort_by_key(|(_, rules)| std::cmp::Reverse(*rules));
        for (missing, rules) in rows.iter().take(ROWS_MAX) {
            print(&escape(&format!("  {:>9}: {missing}", rules_of(*rules))))?;
        }
        match rows.len().saturating_sub(ROWS_MAX) {
            0 => Ok(()),
            more => print(&format!("  {more} more rows; `--verbose` reports each rule")),
        }
    }

    /// A line for each rule, or for those whose name contains one of these words or whose id is one.
    pub(super) fn print_rules(&self, wanted: &[String]) -> Result<()> {
        let is_wanted = |rule: &Rule| {
            let name = rule.name.to_lowercase();
            wanted.is_empty()
                || wanted.iter().any(|word| rule.id == *word || name.contains(&word.to_lowercase()))
        };
        for (rule, found) in self.0.iter().filter(|(rule, _)| is_wanted(rule)) {
            let never = if found.can_match { "" } else { "; can never match" };
            let lacks = match missing(found).join("; ") {
                missing if missing.is_empty() => String::new(),
                missing => format!(": missing {missing}{never}"),
            };
            print(&escape(&format!("{:<6} {}{lacks}", word(found.events), rule.name)))?;
        }
        Ok(())
    }
}

/// The coverage of a rule.
pub(super) fn to_json(found: &Coverage) -> Json {
    json!({
        "events": word(found.events),
        "can_match": found.can_match,
        "missing_fields": found.missing_fields,
        "missing_events": found.missing_events,
        "source": found.source,
    })
}

fn rules_of(count: usize) -> String {
    format!("{count} {}", if count == 1 { "rule" } else { "rules" })
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
