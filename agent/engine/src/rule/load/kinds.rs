//! The part of a rule that depends on its type: queries, terms, thresholds, jobs.

use std::sync::Arc;
use std::time::Duration;

use super::{Job, Reader, place_in_string};
use crate::event::FieldId;
use crate::lang::diagnostic::{Diagnostic, Span, code};
use crate::lang::{EventQuery, eql, kql};
use crate::rule::document::DocumentTable;
use crate::rule::{RuleKind, Threshold};

/// Maximum number of fields of a term, as in the Elastic stack.
const TERM_FIELDS_MAX: usize = 3;
/// Maximum number of fields of a threshold, as in the Elastic stack.
const THRESHOLD_FIELDS_MAX: usize = 5;
/// The highest number of events of a threshold: the time of each is kept.
const THRESHOLD_VALUE_MAX: i64 = 100_000;
/// The highest cardinality of a threshold.
const CARDINALITY_MAX: i64 = 10_000;
/// Maximum number of jobs of a rule.
const JOBS_MAX: usize = 64;
/// Types of the Elastic stack that are refused, and the alternative.
const REFUSED: [(&str, &str); 2] = [
    (
        "esql",
        "ES|QL searches what is stored, with pipes over all of it, and this runs where events happen: leave the rule in \
         Elasticsearch, or write it as one of type eql, query or threshold",
    ),
    ("saved_query", "the query lies in Kibana: make it a rule of type query with the text as `query`"),
];

impl<'a> Reader<'a, '_> {
    /// The type of the rule with its queries, restricted by its filters.
    pub(super) fn kind(&mut self, job: &dyn Fn(&str) -> Option<Arc<Job>>) -> Option<RuleKind> {
        let ty = self.table.required("type", self.faults)?;
        let kind = match ty.value {
            "eql" => self.eql(),
            "query" => {
                self.language("kuery")?;
                self.kql().map(RuleKind::Query)
            }
            "new_terms" => {
                self.language("kuery")?;
                let (query, terms) = (self.kql(), self.new_terms());
                let (fields, history) = terms?;
                Some(RuleKind::NewTerms { query: query?, fields, history })
            }
            "threshold" => {
                self.language("kuery")?;
                let (query, threshold) = (self.kql(), self.threshold());
                Some(RuleKind::Threshold { query: query?, threshold: threshold? })
            }
            "threat_match" => {
                self.language("kuery")?;
                let (query, threat) = (self.kql(), self.threat_match());
                Some(RuleKind::ThreatMatch { query: query?, threat: threat?.into() })
            }
            "machine_learning" => self.machine_learning(job),
            other => {
                let message = format!("rules of type `{other}` are not supported");
                let fault = Diagnostic::new(code::UNSUPPORTED_TYPE, ty.span, message);
                let help = REFUSED.iter().find(|(refused, _)| *refused == other).map(|(_, help)| *help);
                self.faults.push(match help {
                    Some(help) => fault.help(help),
                    None => fault,
                });
                None
            }
        };
        self.time(ty.value);
        let filter = self.filters();
        let mut kind = kind?;
        if let Some(filter) = filter {
            kind.events_mut().into_iter().for_each(|query| *query = query.clone().narrowed(filter.clone()));
        }
        Some(kind)
    }

    pub(super) fn eql(&mut self) -> Option<RuleKind> {
        self.language("eql")?;
        let query = self.table.required("query", self.faults)?;
        let found = eql::parse(query.value, self.schema);
        let mut query = self.found(query.span, found)?;
        self.only("timestamp_field", "@timestamp");
        self.only("tiebreaker_field", "event.sequence");
        if let Some(category) = self.field("event_category_override") {
            let schema = &*self.schema;
            let queries = query.events_mut().into_iter();
            queries.for_each(|query| *query = query.clone().with_category_in(category, schema));
        }
        Some(RuleKind::Eql(query))
    }

    /// The key may have only the value that always applies.
    fn only(&mut self, key: &str, value: &str) {
        let text = self.table.text(key, self.faults).filter(|text| !text.value.is_empty());
        if let Some(other) = text.filter(|text| text.value != value) {
            let message = format!("`{key}` can only be `{value}` and not `{}`", other.value);
            self.wrong(other.span, message, "events of a sequence are ordered by it");
        }
    }

    /// `timestamp_override`: the time by which a run of the rule in the Elastic stack selects events. Here events are
    /// evaluated when they arrive, which is `event.ingested`. Counts use `@timestamp`.
    fn time(&mut self, ty: &str) {
        let text = self.table.text("timestamp_override", self.faults).filter(|text| !text.value.is_empty());
        let Some(other) = text.filter(|text| !["event.ingested", "@timestamp"].contains(&text.value)) else {
            return;
        };
        if ["threshold", "new_terms"].contains(&ty) {
            let message = format!("a rule of type {ty} cannot count time by `{}`", other.value);
            self.wrong(other.span, message, "it can by `@timestamp` and `event.ingested`");
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

    pub(super) fn kql(&mut self) -> Option<EventQuery> {
        let query = self.table.required("query", self.faults)?;
        let found = kql::parse(query.value, self.schema);
        self.found(query.span, found)
    }

    /// Adds the diagnostics of a query, at its position in the file.
    pub(super) fn found<T>(
        &mut self,
        span: Span,
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
        let fields: Vec<_> = names.into_iter().map(|name| self.lookup(name)).collect();
        let windows = terms.tables("history_window_start", self.faults);
        let Some(window) = windows.first() else {
            self.faults.push(terms.missing("history_window_start"));
            return None;
        };
        if window.value("value").is_none() {
            self.faults.push(window.missing("value"));
        }
        let history = window.duration("value", "now-", self.faults)?;
        fields.into_iter().collect::<Option<_>>().map(|fields| (fields, history))
    }

    /// `[rule.threshold]` and `[[rule.threshold.cardinality]]`
    fn threshold(&mut self) -> Option<Threshold> {
        let Some(table) = self.table.table("threshold", self.faults) else {
            self.faults.push(self.table.missing("threshold"));
            return None;
        };
        let mut names = table.texts("field", self.faults);
        names.retain(|name| !name.value.is_empty());
        if let Some(over) = names.get(THRESHOLD_FIELDS_MAX) {
            let message = format!("a threshold groups by {THRESHOLD_FIELDS_MAX} fields at most");
            self.wrong(over.span, message, "");
        }
        let fields: Vec<_> = names.into_iter().map(|name| self.lookup(name)).collect();
        let value = self.number(&table, "value", THRESHOLD_VALUE_MAX);
        let cardinality = match table.tables("cardinality", self.faults).as_slice() {
            [] => None,
            [one] => Some(self.cardinality(one)?),
            [_, second, ..] => {
                self.wrong(second.span(), "a threshold has one cardinality at most", "");
                None
            }
        };
        let fields = fields.into_iter().collect::<Option<_>>()?;
        Some(Threshold { fields, value: value?, cardinality })
    }

    fn cardinality(&mut self, table: &DocumentTable<'a>) -> Option<(FieldId, u64)> {
        let name = table.required("field", self.faults);
        let field = name.and_then(|name| self.lookup(name));
        let value = self.number(table, "value", CARDINALITY_MAX);
        Some((field?, value?))
    }

    pub(super) fn number(&mut self, table: &DocumentTable<'a>, key: &str, most: i64) -> Option<u64> {
        if table.value(key).is_none() {
            self.faults.push(table.missing(key));
        }
        table.integer(key, 1, most, self.faults).map(i64::unsigned_abs)
    }

    fn machine_learning(&mut self, job: &dyn Fn(&str) -> Option<Arc<super::Job>>) -> Option<RuleKind> {
        let ids = self.table.texts("machine_learning_job_id", self.faults);
        let threshold = self.table.integer("anomaly_threshold", 0, 100, self.faults);
        let Some(anomaly_threshold) = threshold else {
            self.faults.push(self.table.missing("anomaly_threshold"));
            return None;
        };
        if ids.is_empty() {
            self.faults.push(self.table.missing("machine_learning_job_id"));
        }
        if let Some(over) = ids.get(JOBS_MAX) {
            self.wrong(over.span, format!("a rule has {JOBS_MAX} jobs at most"), "");
        }
        let mut jobs: Vec<Arc<Job>> = Vec::new();
        for id in &ids {
            match job(id.value) {
                Some(job) if jobs.iter().all(|known| known.id != job.id) => jobs.push(job),
                Some(_) => {}
                None => {
                    let message = format!("no job has the id `{}`", id.value);
                    let fault = Diagnostic::new(code::UNKNOWN_JOB, id.span, message);
                    self.faults.push(fault.help("put a file with its `[job]` table beside the rules"));
                }
            }
        }
        (!jobs.is_empty())
            .then_some(RuleKind::MachineLearning { jobs, anomaly_threshold: anomaly_threshold as f64 })
    }
}
