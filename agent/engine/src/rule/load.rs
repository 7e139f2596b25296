//! Reads a rule file into a rule.

mod alerting;
mod endpoint;
mod filters;
mod kinds;
mod threat;

use std::sync::Arc;
use std::time::Duration;

use super::document::{DocumentTable, Placed, place_in_string};
use super::job::field;
use super::keys::check_rule;
use super::{Job, Reference, Rule, Severity, Threat};
use crate::event::{FieldId, Schema};
use crate::lang::diagnostic::{self, Diagnostic, Span, code};

/// The interval of a rule without one.
const INTERVAL: Duration = Duration::from_secs(300);
/// The look-back of a rule without one.
const LOOKBACK: Duration = Duration::from_secs(360);
/// The maximum number of alerts in an interval for a rule without one.
const MAX_SIGNALS: i64 = 100;
/// The highest `max_signals` of a rule, as in the Elastic stack.
const MAX_SIGNALS_MAX: i64 = 1000;

pub(super) use endpoint::{is_endpoint, read as read_endpoint};

/// A rule whose job is not looked up yet.
pub(super) struct Draft {
    pub(super) rule: Rule,
    pub(super) id_span: Span,
}

/// Reads the `[rule]` table of a file. `job` finds jobs by their ids.
pub(super) fn read(
    name: &Arc<str>,
    file: &str,
    table: &DocumentTable<'_>,
    schema: &mut Schema,
    job: &dyn Fn(&str) -> Option<Arc<Job>>,
    faults: &mut Vec<Diagnostic>,
) -> Option<Draft> {
    check_rule(table, faults);
    let mut reader = Reader { file, table, schema, faults };
    let id = reader.table.required("rule_id", reader.faults);
    let title = reader.table.required("name", reader.faults);
    let description = reader.table.required("description", reader.faults);
    let severity = reader.severity();
    let risk_score = reader.risk_score(severity);
    let kind = reader.kind(job);
    let interval = table.duration("interval", "", reader.faults).unwrap_or(INTERVAL);
    let suppression = reader.suppression(kind.as_ref(), interval);
    let overrides = reader.overrides();
    let building_block = reader.building_block();
    let threat = reader.threat(table);
    let text = |key, faults: &mut Vec<Diagnostic>| table.text(key, faults).map(|text| text.value.to_owned());
    let faults = reader.faults;
    let rule = Rule {
        id: id.map_or_else(String::new, |id| id.value.to_owned()),
        name: title.map_or_else(String::new, |title| title.value.to_owned()),
        description: description.map_or_else(String::new, |text| text.value.trim().to_owned()),
        author: table.strings("author", faults),
        license: text("license", faults),
        version: table.integer("version", 0, i64::MAX, faults),
        severity: severity.unwrap_or(Severity::Low),
        risk_score,
        tags: table.strings("tags", faults),
        references: table.strings("references", faults),
        false_positives: table.strings("false_positives", faults),
        note: text("note", faults),
        threat,
        index: table.strings("index", faults),
        enabled: table.boolean("enabled", faults).unwrap_or(true),
        interval,
        lookback: table.duration("from", "now-", faults).unwrap_or(LOOKBACK),
        max_signals: u32::try_from(
            table.integer("max_signals", 1, MAX_SIGNALS_MAX, faults).unwrap_or(MAX_SIGNALS),
        )
        .unwrap_or(u32::MAX),
        suppression,
        overrides,
        building_block,
        query: text("query", faults).unwrap_or_default(),
        kind: kind?,
        file: name.clone(),
    };
    let failed = faults.iter().any(|fault| fault.level() == diagnostic::Level::Error);
    (!failed).then(|| Draft { rule, id_span: id.map(|id| id.span).unwrap_or_default() })
}

struct Reader<'a, 'f> {
    file: &'a str,
    table: &'a DocumentTable<'a>,
    schema: &'f mut Schema,
    faults: &'f mut Vec<Diagnostic>,
}

impl<'a> Reader<'a, '_> {
    fn severity(&mut self) -> Option<Severity> {
        let name = self.table.required("severity", self.faults)?;
        let severity = Severity::named(name.value);
        if severity.is_none() {
            let message = format!("there is no severity {:?}", name.value);
            let fault = Diagnostic::new(code::BAD_VALUE, name.span, message);
            self.faults.push(fault.help("write \"low\", \"medium\", \"high\" or \"critical\""));
        }
        severity
    }

    fn risk_score(&mut self, severity: Option<Severity>) -> i64 {
        let usual = severity.map_or(0, |severity| i64::from(severity.number()));
        self.table.integer("risk_score", 0, 100, self.faults).unwrap_or(usual)
    }

    /// The field that a key names; `None` without the key.
    fn field(&mut self, key: &str) -> Option<FieldId> {
        let name = self.table.text(key, self.faults).filter(|name| !name.value.is_empty())?;
        self.lookup(name)
    }

    /// A required field.
    fn lookup(&mut self, name: Placed<&str>) -> Option<FieldId> {
        field(name, self.schema, self.faults)
    }

    fn wrong(&mut self, span: Span, message: impl Into<String>, help: &str) {
        let fault = Diagnostic::new(code::BAD_VALUE, span, message);
        self.faults.push(if help.is_empty() { fault } else { fault.help(help) });
    }

    /// The `[[threat]]` tables below this one.
    fn threat(&mut self, above: &DocumentTable<'a>) -> Vec<Threat> {
        let reference = |table: &DocumentTable<'a>, faults: &mut Vec<Diagnostic>| {
            let text = |key, faults: &mut Vec<Diagnostic>| {
                table.text(key, faults).map_or_else(String::new, |text| text.value.to_owned())
            };
            Reference {
                id: text("id", faults),
                name: text("name", faults),
                reference: text("reference", faults),
            }
        };
        let faults = &mut *self.faults;
        let mut threats = Vec::new();
        for table in above.tables("threat", faults) {
            let framework =
                table.text("framework", faults).map_or_else(String::new, |text| text.value.to_owned());
            let tactic =
                table.table("tactic", faults).map(|table| reference(&table, faults)).unwrap_or_default();
            let mut techniques = Vec::new();
            for technique in table.tables("technique", faults) {
                let below = technique.tables("subtechnique", faults);
                let below = below.iter().map(|table| reference(table, faults)).collect();
                techniques.push((reference(&technique, faults), below));
            }
            threats.push(Threat { framework, tactic, techniques });
        }
        threats
    }
}
