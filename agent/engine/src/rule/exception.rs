//! Exceptions, which suppress alerts. Each has a reason, an owner and an expiry date.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use toml::de::DeValue;

use super::Rule;
use super::document::{DocumentTable, Placed, place_in_string};
use super::file::{Report, SourceFile};
use super::keys::{check_exception, check_exceptions};
use crate::event::{Schema, Timestamp};
use crate::lang::diagnostic::{Diagnostic, Level, Span, code};
use crate::lang::suggest::nearest;
use crate::lang::{EventQuery, kql};

/// The value of `rule` for every rule.
const ALL: &str = "*";
/// The value of `expires` for an exception without an end.
const NEVER: &str = "never";
const DAY: Duration = Duration::from_hours(24);

/// Suppresses alerts of a rule.
///
/// A rule that counts events (`threshold`) does not count an event for which the condition holds. Any other rule raises
/// no alert if the condition holds for one of the alert's events. Its learned terms and partial matches are not
/// affected.
#[derive(Clone, Debug)]
pub struct Exception {
    /// The ids or names of its rules; empty if it is for all rules.
    pub rules: Vec<String>,
    /// The condition on events.
    pub condition: EventQuery,
    /// The text of the condition.
    pub query: String,
    /// The reason for the suppression.
    pub reason: String,
    /// The person or team that is responsible for it.
    pub owner: String,
    /// The time from which it no longer applies; `None` if it has no end. It is compared with the time of the events.
    pub expires: Option<Timestamp>,
    /// The file from which it was read.
    pub file: Arc<str>,
    /// The line in the file, from one. File and line identify the exception.
    pub line: usize,
}

impl Exception {
    /// Whether it is for this rule.
    #[must_use]
    pub fn is_for(&self, rule: &Rule) -> bool {
        self.rules.is_empty() || self.rules.iter().any(|wanted| *wanted == rule.id || *wanted == rule.name)
    }

    /// Whether it has expired at this time.
    #[must_use]
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

/// The exceptions of some files.
#[derive(Clone, Debug, Default)]
pub struct Exceptions {
    /// The valid exceptions, in the order of the files.
    pub list: Vec<Arc<Exception>>,
    /// The diagnostics of the files.
    pub reports: Vec<Report>,
    /// The number of invalid exceptions and of files that could not be read.
    pub refused: usize,
    /// The positions of the exceptions of the list.
    places: Vec<(Report, Span)>,
}

impl Exceptions {
    /// Reads files of `[[exception]]` tables. `files` are names and contents. An invalid exception does not affect the
    /// others.
    pub fn read<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>, schema: &mut Schema) -> Self {
        let mut exceptions = Self::default();
        for (name, bytes) in files {
            let source = SourceFile::new(name, bytes);
            let found = exceptions.file(&source, schema);
            exceptions.reports.extend(source.report(found));
        }
        exceptions
    }

    /// Records that a file could not be read, and why.
    pub fn unreadable(&mut self, file: &str, why: &str) {
        self.refused += 1;
        self.reports.push(Report::unreadable(file, why));
    }

    /// Warns of exceptions that have expired at this time, and of rules that do not exist.
    pub fn check(&mut self, rules: &[Arc<Rule>], now: Timestamp) {
        let known: HashSet<_> =
            rules.iter().flat_map(|rule| [rule.id.as_str(), rule.name.as_str()]).collect();
        for (exception, (place, span)) in self.list.iter().zip(&self.places) {
            let mut found = Vec::new();
            if let Some(expires) = exception.expires.filter(|_| exception.is_over(now)) {
                let message = format!("this exception is over since {expires} and does not apply any more");
                let help = "take it out, or give it a later `expires`";
                found.push(Diagnostic::new(code::EXPIRED, *span, message).help(help));
            }
            for wanted in exception.rules.iter().filter(|wanted| !known.contains(wanted.as_str())) {
                let help = match nearest(wanted, known.iter().copied()) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => "write the rule's `rule_id` or `name`, or \"*\" for all".to_owned(),
                };
                let message = format!("there is no rule {wanted:?}");
                found.push(Diagnostic::new(code::NO_SUCH_RULE, *span, message).help(help));
            }
            match self.reports.iter_mut().find(|report| report.file == exception.file) {
                Some(report) => report.diagnostics.extend(found),
                None if found.is_empty() => {}
                None => self.reports.push(Report { diagnostics: found, ..place.clone() }),
            }
        }
    }

    fn file(&mut self, source: &SourceFile, schema: &mut Schema) -> Vec<Diagnostic> {
        let document = match source.parse() {
            Ok(document) => document,
            Err(faults) => {
                self.refused += 1;
                return faults;
            }
        };
        let mut faults = Vec::new();
        let root = DocumentTable::new(document.get_ref(), document.span().into(), "file");
        check_exceptions(&root, &mut faults);
        self.refused += faults.len();
        let place = Report { diagnostics: Vec::new(), file: source.file.clone(), text: source.text.clone() };
        for table in root.tables("exception", &mut faults) {
            match (Reader { source, table: &table, schema, faults: &mut Vec::new() }).read() {
                Ok(exception) => {
                    self.list.push(Arc::new(exception));
                    self.places.push((place.clone(), table.span()));
                }
                Err(found) => {
                    self.refused += 1;
                    faults.extend(found);
                }
            }
        }
        faults
    }
}

struct Reader<'a, 'f> {
    source: &'a SourceFile,
    table: &'a DocumentTable<'a>,
    schema: &'f mut Schema,
    faults: &'f mut Vec<Diagnostic>,
}

impl<'a> Reader<'a, '_> {
    fn read(mut self) -> Result<Exception, Vec<Diagnostic>> {
        check_exception(self.table, self.faults);
        let rules = self.rules();
        let query = self.table.required("condition", self.faults);
        let condition = query.and_then(|query| self.condition(query));
        let mut text = |key| self.table.required(key, self.faults).map(|text| text.value.trim().to_owned());
        let (reason, owner) = (text("reason"), text("owner"));
        let expires = self.expires();
        let failed = self.faults.iter().any(|fault| fault.level() == Level::Error);
        match (condition, query, reason, owner, expires) {
            (Some(condition), Some(query), Some(reason), Some(owner), Some(expires)) if !failed => {
                let before = &self.source.text[..self.table.span().start];
                Ok(Exception {
                    rules,
                    condition,
                    query: query.value.trim().to_owned(),
                    reason,
                    owner,
                    expires,
                    file: self.source.file.clone(),
                    line: before.matches('\n').count() + 1,
                })
            }
            _ => Err(std::mem::take(self.faults)),
        }
    }

    /// The rules it is for; none where it is for all.
    fn rules(&mut self) -> Vec<String> {
        let rules = self.table.strings("rule", self.faults);
        if rules.is_empty() || rules.iter().any(|rule| rule.trim().is_empty()) {
            let fault = self.table.missing("rule");
            self.faults.push(fault.help("name rules by `rule_id` or `name`, or write \"*\" for all of them"));
        }
        if rules.iter().any(|rule| rule == ALL) { Vec::new() } else { rules }
    }

    fn condition(&mut self, query: Placed<&str>) -> Option<EventQuery> {
        let (condition, found) = match kql::parse(query.value, self.schema) {
            Ok((condition, found)) => (Some(condition.into_exclusion()), found),
            Err(found) => (None, found),
        };
        for mut fault in found {
            let place = |at| place_in_string(&self.source.text, query.span, at);
            fault.span = (place(fault.span.start)..place(fault.span.end)).into();
            self.faults.push(fault);
        }
        condition
    }

    /// The end: a day, of which it is the last moment, a time, or never.
    fn expires(&mut self) -> Option<Option<Timestamp>> {
        let Some(value) = self.table.value("expires") else {
            let help = "write its last day, as `expires = 2027-01-31`, or `expires = \"never\"`";
            self.faults.push(self.table.missing("expires").help(help));
            return None;
        };
        let text = match value.get_ref() {
            DeValue::Datetime(time) => time.to_string(),
            DeValue::String(text) => text.to_string(),
            _ => String::new(),
        };
        if text == NEVER {
            return Some(None);
        }
        let day = Timestamp::parse(&format!("{text}T00:00:00Z")).map(|start| start + DAY);
        let end = day.or_else(|| Timestamp::parse(&text));
        if end.is_none() {
            let message = "`expires` must be a day, a time with its zone, or \"never\"";
            let fault = Diagnostic::new(code::BAD_VALUE, value.span().into(), message);
            self.faults.push(fault.help("write it like 2027-01-31, 2027-01-31T12:00:00Z or \"never\""));
        }
        end.map(Some)
    }
}
