//! `[[rule.filters]]`: the filters that Kibana's filter bar writes, in its part of Elasticsearch's query language.
//!
//! A filter restricts every event query of the rule, as in the Elastic stack. It is translated to KQL, so that a value
//! means the same in both.

use toml::Spanned;
use toml::de::DeValue;

use super::Reader;
use crate::lang::diagnostic::{Diagnostic, Span, code};
use crate::lang::kql;
use crate::lang::query::Condition;
use crate::rule::document::DocumentTable;

/// Maximum nesting of `bool`.
const NESTING_MAX: usize = 16;
/// The supported part of the language, for messages.
const KNOWN: &str = "match_all, match, match_phrase, term, terms, exists, range and bool are";
/// The condition that every event satisfies.
const EVERYTHING: &str = "@timestamp: *";
/// The bounds of a range, in KQL.
const BOUNDS: [(&str, &str); 4] = [("gt", ">"), ("gte", ">="), ("lt", "<"), ("lte", "<=")];

/// A part of a filter that is not supported.
struct Unknown(Span, String);

type Clause = Result<String, Unknown>;

impl Reader<'_, '_> {
    /// The conjunction of all filters; `None` without filters.
    pub(super) fn filters(&mut self) -> Option<Condition> {
        let mut conditions = Vec::new();
        for filter in self.table.tables("filters", self.faults) {
            let meta = filter.table("meta", self.faults);
            let flag = |key: &str, faults: &mut Vec<Diagnostic>| {
                meta.as_ref().and_then(|meta| meta.boolean(key, faults)).unwrap_or(false)
            };
            if flag("disabled", self.faults) {
                continue;
            }
            let negate = flag("negate", self.faults);
            let query = filter.table("query", self.faults);
            match clauses(query.as_ref().unwrap_or(&filter), query.is_none(), NESTING_MAX) {
                Err(Unknown(span, message)) => {
                    let fault = Diagnostic::new(code::UNSUPPORTED_KEY, span, message);
                    self.faults.push(fault.help(KNOWN));
                }
                Ok(text) => {
                    let text = if negate { format!("not ({text})") } else { text };
                    conditions.extend(self.filter(&text, filter.span()));
                }
            }
        }
        (!conditions.is_empty()).then_some(Condition::All(conditions))
    }

    /// Parses a filter that was translated to KQL. Its faults point at the whole filter.
    fn filter(&mut self, text: &str, span: Span) -> Option<Condition> {
        let (query, found) = match kql::parse(text, self.schema) {
            Ok((query, _)) => (Some(query), Vec::new()),
            Err(found) => (None, found),
        };
        self.faults.extend(found.into_iter().map(|fault| Diagnostic { span, ..fault }));
        query.map(|query| query.condition)
    }
}

/// The conjunction of all clauses of a table. The top of a filter has other keys too.
fn clauses(table: &DocumentTable<'_>, is_top: bool, depth: usize) -> Clause {
    let mut parts = Vec::new();
    for key in table.keys() {
        if is_top && ["meta", "$state", "query"].contains(&key.value) {
            continue;
        }
        let Some(value) = table.value(key.value) else { continue };
        let body = DocumentTable::of(value, key.value);
        let part = match (key.value, body) {
            ("match_all", Some(_)) => EVERYTHING.to_owned(),
            ("match" | "match_phrase" | "term", Some(body)) => {
                fields(&body, |field, value| is(field, value, "query"))?
            }
            ("terms", Some(body)) => fields(&body, one_of)?,
            ("range", Some(body)) => fields(&body, range)?,
            ("exists", Some(body)) => match body.value("field").and_then(|field| field.get_ref().as_str()) {
                Some(field) => format!("{}: *", name(field, key.span)?),
                None => return Err(Unknown(key.span, "`exists` names no field".to_owned())),
            },
            ("bool", Some(body)) if depth > 0 => boolean(&body, depth - 1)?,
            (other, _) => return Err(Unknown(key.span, format!("`{other}` in a filter is not supported"))),
        };
        parts.push(format!("({part})"));
    }
    if parts.is_empty() {
        return Err(Unknown(table.span(), "the filter asks for nothing".to_owned()));
    }
    Ok(parts.join(" and "))
}

/// Every field of a clause.
fn fields(body: &DocumentTable<'_>, clause: impl Fn(&str, &Spanned<DeValue<'_>>) -> Clause) -> Clause {
    let mut parts = Vec::new();
    for key in body.keys().filter(|key| key.value != "boost") {
        if let Some(value) = body.value(key.value) {
            parts.push(clause(name(key.value, key.span)?, value)?);
        }
    }
    Ok(parts.join(" and "))
}

/// `field = "value"`, or `field = { query = "value" }`
fn is(field: &str, value: &Spanned<DeValue<'_>>, inner: &str) -> Clause {
    let nested = value.get_ref().as_table();
    let value = nested.and_then(|table| table.get(inner).or_else(|| table.get("value"))).unwrap_or(value);
    Ok(format!("{field}: {}", scalar(value)?))
}

fn one_of(field: &str, value: &Spanned<DeValue<'_>>) -> Clause {
    let values = value.get_ref().as_array().filter(|values| !values.is_empty());
    let Some(values) = values else {
        return Err(Unknown(value.span().into(), "`terms` has no list of values".to_owned()));
    };
    let values = values.iter().map(scalar).collect::<Result<Vec<_>, _>>()?;
    Ok(format!("{field}: ({})", values.join(" or ")))
}

fn range(field: &str, value: &Spanned<DeValue<'_>>) -> Clause {
    let Some(table) = value.get_ref().as_table() else {
        return Err(Unknown(value.span().into(), "`range` has no bounds".to_owned()));
    };
    let mut parts = Vec::new();
    for (key, bound) in table.iter().filter(|(key, _)| key.get_ref() != "format") {
        let sign = BOUNDS.iter().find(|(known, _)| *known == key.get_ref().as_ref());
        let Some((_, sign)) = sign else {
            return Err(Unknown(
                key.span().into(),
                format!("`{}` in a range is not supported", key.get_ref()),
            ));
        };
        parts.push(format!("{field} {sign} {}", scalar(bound)?));
    }
    Ok(parts.join(" and "))
}

fn boolean(body: &DocumentTable<'_>, depth: usize) -> Clause {
    let mut parts = Vec::new();
    let listed = |key: &str| -> Result<Vec<String>, Unknown> {
        let Some(value) = body.value(key) else { return Ok(Vec::new()) };
        let entries = match value.get_ref() {
            DeValue::Array(entries) => entries.iter().collect(),
            _ => vec![value],
        };
        entries
            .into_iter()
            .map(|entry| match DocumentTable::of(entry, "bool") {
                Some(table) => clauses(&table, false, depth).map(|clause| format!("({clause})")),
                None => Err(Unknown(entry.span().into(), format!("`{key}` holds no clause"))),
            })
            .collect()
    };
    parts.extend(listed("must")?);
    parts.extend(listed("filter")?);
    parts.extend(listed("must_not")?.into_iter().map(|clause| format!("not {clause}")));
    let should = listed("should")?;
    let least = body.value("minimum_should_match").and_then(|value| value.get_ref().as_integer());
    match least.map_or(if parts.is_empty() { "1" } else { "0" }, |least| least.as_str()) {
        "1" if !should.is_empty() => parts.push(format!("({})", should.join(" or "))),
        "0" | "1" => {}
        _ => return Err(Unknown(body.span(), "`minimum_should_match` can only be 0 or 1".to_owned())),
    }
    let known = ["must", "filter", "must_not", "should", "minimum_should_match"];
    match body.keys().find(|key| !known.contains(&key.value)) {
        Some(key) => Err(Unknown(key.span, format!("`{}` in a bool is not supported", key.value))),
        None if parts.is_empty() => Ok(EVERYTHING.to_owned()),
        None => Ok(parts.join(" and ")),
    }
}

/// The name of a field. KQL needs no quotation marks for it.
fn name(field: &str, span: Span) -> Result<&str, Unknown> {
    let plain = |c: char| c.is_alphanumeric() || ['.', '_', '@', '-'].contains(&c);
    if field.chars().all(plain) && !field.is_empty() {
        return Ok(field);
    }
    Err(Unknown(span, format!("{field:?} is no name of a field")))
}

/// A value in quotation marks. In it only these and the backslash are special.
fn scalar(value: &Spanned<DeValue<'_>>) -> Clause {
    let text = match value.get_ref() {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) => number.as_str().to_owned(),
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(_) | DeValue::Table(_) => {
            return Err(Unknown(value.span().into(), "a filter compares single values".to_owned()));
        }
    };
    Ok(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
}
