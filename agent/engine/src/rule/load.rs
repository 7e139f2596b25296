//! One rule file to one rule.

use std::sync::Arc;
use std::time::Duration;

use super::document::{Placed, Table, place_in_string};
use super::job::field;
use super::keys::check_rule;
use super::{Kind, Reference, Rule, Severity, Threat};
use crate::event::{FieldId, Schema};
use crate::lang::diagnostic::{self, Diagnostic, code};
use crate::lang::{EventQuery, eql, kql};

/// What a rule runs every, where it does not say.
const INTERVAL: Duration = Duration::from_secs(300);
/// How far back a run looks, where the rule does not say.
const LOOKBACK: Duration = Duration::from_secs(360);
/// Most alerts in one interval, where the rule does not say.
const MAX_SIGNALS: i64 = 100;
/// Most alerts in one interval that a rule can ask for, as in the Elastic stack.
const MAX_SIGNALS_MAX: i64 = 1000;
/// Most fields of a term, as in the Elastic stack.
const TERM_FIELDS_MAX: usize = 3;

/// A rule of which the job, if it names any, is not found yet.
pub(super) struct Draft {
    pub(super) rule: Rule,
    pub(super) id_span: crate::lang::Span,
}

/// Reads the `[rule]` table of a file. `job` finds jobs by their ids.
pub(super) fn read(
    name: &Arc<str>,
    file: &str,
    table: &Table<'_>,
    schema: &mut Schema,
    job: &dyn Fn(&str) -> Option<Arc<super::Job>>,
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
    let threat = reader.threat();
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
        interval: table.duration("interval", "", faults).unwrap_or(INTERVAL),
        lookback: table.duration("from", "now-", faults).unwrap_or(LOOKBACK),
        max_signals: u32::try_from(
            table.integer("max_signals", 1, MAX_SIGNALS_MAX, faults).unwrap_or(MAX_SIGNALS),
        )
        .unwrap_or(u32::MAX),
        query: text("query", faults).unwrap_or_default(),
        kind: kind?,
        file: name.clone(),
    };
    let failed = faults.iter().any(|fault| fault.severity() == diagnostic::Severity::Error);
    (!failed).then(|| Draft { rule, id_span: id.map(|id| id.span).unwrap_or_default() })
}

struct Reader<'a, 'f> {
    file: &'a str,
    table: &'a Table<'a>,
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

    fn kind(&mut self, job: &dyn Fn(&str) -> Option<Arc<super::Job>>) -> Option<Kind> {
        let ty = self.table.required("type", self.faults)?;
        match ty.value {
            "eql" => {
                self.language("eql")?;
                let query = self.table.required("query", self.faults)?;
                let found = eql::parse(query.value, self.schema);
                self.found(query.span, found).map(Kind::Eql)
            }
            "query" => {
                self.language("kuery")?;
                self.kql().map(Kind::Query)
            }
            "new_terms" => {
                self.language("kuery")?;
                let (query, terms) = (self.kql(), self.new_terms());
                let (fields, history) = terms?;
                Some(Kind::NewTerms { query: query?, fields, history })
            }
            "machine_learning" => self.machine_learning(job),
            other => {
                let message = format!("rules of type `{other}` are not supported");
                self.faults.push(Diagnostic::new(code::UNSUPPORTED_TYPE, ty.span, message));
                None
            }
        }
    }

    /// The rule's language must be the one of its type.
    fn language(&mut self, wanted: &str) -> Option<()> {
        let language = self.table.text("language", self.faults);
        match language {
            Some(language) if language.value != wanted => {
                let message = format!("the language `{}` is not supported for this type", language.value);
                let fault = Diagnostic::new(code::BAD_VALUE, language.span, message);
                self.faults.push(fault.help(format!("`{wanted}` is")));
                None
            }
            _ => Some(()),
        }
    }

    fn kql(&mut self) -> Option<EventQuery> {
        let query = self.table.required("query", self.faults)?;
        let found = kql::parse(query.value, self.schema);
        self.found(query.span, found)
    }

    /// Takes what was found in a query, at its place in the file.
    fn found<T>(
        &mut self,
        span: crate::lang::Span,
        found: Result<(T, Vec<Diagnostic>), Vec<Diagnostic>>,
    ) -> Option<T> {
        let (query, found) =
            found.map_or_else(|faults| (None, faults), |(query, found)| (Some(query), found));
        for mut diagnostic in found {
            let place = |at| place_in_string(self.file, span, at);
            diagnostic.span = (place(diagnostic.span.start)..place(diagnostic.span.end)).into();
            self.faults.push(diagnostic);
        }
        query
    }

    /// `[rule.new_terms]` and `[[rule.new_terms.history_window_start]]`, as Elastic's rule files write them.
    fn new_terms(&mut self) -> Option<(Vec<FieldId>, Duration)> {
        let Some(terms) = self.table.table("new_terms", self.faults) else {
            self.faults.push(self.table.missing("new_terms"));
            return None;
        };
        let names = terms.texts("value", self.faults);
        if names.is_empty() || names.len() > TERM_FIELDS_MAX {
            let span = terms.value("value").map_or_else(Default::default, |value| value.span().into());
            let message = format!("a term is made of 1 to {TERM_FIELDS_MAX} fields, not {}", names.len());
            self.faults.push(Diagnostic::new(code::BAD_VALUE, span, message));
        }
        let fields: Vec<_> = names.into_iter().map(|name| field(name, self.schema, self.faults)).collect();
        let windows = terms.tables("history_window_start", self.faults);
        let Some(window) = windows.first() else {
            self.faults.push(terms.missing("history_window_start"));
            return None;
        };
        let history = window.duration("value", "now-", self.faults)?;
        fields.into_iter().collect::<Option<_>>().map(|fields| (fields, history))
    }

    fn machine_learning(&mut self, job: &dyn Fn(&str) -> Option<Arc<super::Job>>) -> Option<Kind> {
        let ids = self.table.texts("machine_learning_job_id", self.faults);
        let threshold = self.table.integer("anomaly_threshold", 0, 100, self.faults);
        let Some(anomaly_threshold) = threshold else {
            self.faults.push(self.table.missing("anomaly_threshold"));
            return None;
        };
        let id: Placed<&str> = match ids.as_slice() {
            [id] => *id,
            [] => {
                self.faults.push(self.table.missing("machine_learning_job_id"));
                return None;
            }
            [_, second, ..] => {
                let message = "a rule with several jobs is not supported yet";
                self.faults.push(Diagnostic::new(code::UNSUPPORTED_KEY, second.span, message));
                return None;
            }
        };
        let Some(job) = job(id.value) else {
            let fault =
                Diagnostic::new(code::UNKNOWN_JOB, id.span, format!("no job has the id `{}`", id.value));
            self.faults.push(fault.help("put a file with its `[job]` table beside the rules"));
            return None;
        };
        Some(Kind::MachineLearning { job, anomaly_threshold: anomaly_threshold as f64 })
    }

    fn threat(&mut self) -> Vec<Threat> {
        let reference = |table: &Table<'a>, faults: &mut Vec<Diagnostic>| {
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
        for table in self.table.tables("threat", faults) {
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
