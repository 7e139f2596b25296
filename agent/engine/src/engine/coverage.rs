//! Whether the sources emit the events that a rule needs. The typed query is compared with the descriptions of the
//! sources' events.
//!
//! A kind of event is described by the fixed values of some fields (`event.action`), and by the other fields that it
//! may have. A condition is evaluated on this description: a test of a field that such an event never has is false, a
//! test of a field with a fixed value has a fixed result, and every other test may be true or false.

use std::collections::BTreeSet;

use crate::detect::naive;
use crate::event::{Event, FieldId, Fields, Schema, Timestamp};
use crate::field;
use crate::lang::query::{Condition, EventQuery, Expr, Query, Test};
use crate::rule::{Rule, RuleKind};

/// A source of events.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// Its name.
    pub name: String,
    /// The data streams of its events. A rule that reads one of them is evaluated on all of its events.
    pub data_streams: Vec<String>,
    /// The kinds of its events.
    pub kinds: Vec<EventKind>,
}

/// The description of a kind of event.
#[derive(Clone, Debug)]
pub struct EventKind {
    /// Its name.
    pub name: String,
    /// The values that every event of the kind has.
    pub(super) fixed: Event,
    /// All fields that an event of the kind may have, with the fixed ones; of a flattened field every leaf.
    fields: BTreeSet<FieldId>,
    /// The names of its action in other sensors.
    synonyms: Vec<String>,
}

/// Whether sources emit the events that a rule needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Covered {
    /// None of them.
    None,
    /// Only some of them, or events without fields that the rule requires.
    Partly,
    /// All of them, with every field that the rule requires.
    All,
}

/// The coverage of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// Whether the source emits the events.
    pub events: Covered,
    /// Whether the rule can match at all.
    pub can_match: bool,
    /// Fields that the rule requires and that its events never have. Fields that occur only in an exclusion, or that
    /// must be absent, are not listed.
    pub missing_fields: Vec<String>,
    /// Events that the rule requires and that no source emits.
    pub missing_events: Vec<String>,
    /// The source with the best coverage; `None` if no source has a data stream that the rule's `index` names.
    pub source: Option<String>,
    /// The kinds of events that each of its event queries can match.
    pub listens: Vec<Vec<String>>,
}

/// Maximum number of values of a condition in the description of a missing event.
const VALUES_SHOWN_MAX: usize = 3;

/// Fields that identify the kind of an event: an event without them is of another kind.
const IDENTITY: &[FieldId] = &[
    field!("data_stream.dataset"),
    field!("event.action"),
    field!("event.category"),
    field!("event.dataset"),
    field!("event.kind"),
    field!("event.module"),
    field!("event.type"),
];

impl EventKind {
    /// A kind of event with the values `fixed`, which may also have `fields`.
    #[must_use]
    pub fn new(name: &str, fixed: Fields, fields: impl IntoIterator<Item = FieldId>) -> Self {
        let fields = fixed.iter().map(|(id, _)| id).chain(fields).chain([field!("@timestamp")]).collect();
        let fixed = Event::new(Timestamp::default(), fixed, Vec::new());
        Self { name: name.to_owned(), fixed, fields, synonyms: Vec::new() }
    }

    /// The same kind with the names of its action in other sensors. A rule that lists several of them means the same
    /// event.
    #[must_use]
    pub fn also_called(mut self, names: &[&str]) -> Self {
        self.synonyms.extend(names.iter().map(|name| (*name).to_owned()));
        self
    }

    /// The same kind with the field values of another source: `fixed` replaces values, and `fields` may be present too.
    #[must_use]
    pub fn renamed(&self, name: &str, fixed: &Fields, fields: impl IntoIterator<Item = FieldId>) -> Self {
        let mut kind = Self { name: name.to_owned(), ..self.clone() }.also_called(&[&self.name]);
        for (id, value) in fixed.iter() {
            kind.fixed.set(id, value.clone());
        }
        kind.fields.extend(fixed.iter().map(|(id, _)| id).chain(fields));
        kind
    }

    /// Whether an event of the kind may have the field.
    #[must_use]
    pub fn has(&self, id: FieldId, schema: &Schema) -> bool {
        self.fields.contains(&id)
            || schema.flattened_above(schema.name(id)).is_some_and(|above| self.fields.contains(&above))
    }

    /// Every field that an event of the kind may have.
    pub fn fields(&self) -> impl Iterator<Item = FieldId> {
        self.fields.iter().copied()
    }
}

/// The coverage of a rule by the best of the sources. A rule reads the events of one source only.
#[must_use]
pub fn coverage(rule: &Rule, sources: &[Source], schema: &Schema) -> Coverage {
    let reads = |source: &&Source| source.data_streams.iter().any(|stream| rule.reads(stream));
    let needs = needs(rule);
    let read = sources.iter().filter(reads).map(|source| CoverageCheck { source, schema }.coverage(&needs));
    // The first of equally good sources.
    let best = read.rev().max_by_key(|found| (found.events, found.can_match));
    best.unwrap_or_else(|| {
        let index = if rule.index.is_empty() { "none".to_owned() } else { rule.index.join(", ") };
        let mut missing_events: Vec<_> =
            needs.iter().map(|need| format!("{} (index {index})", category(need.query))).collect();
        missing_events.dedup();
        Coverage {
            events: Covered::None,
            can_match: false,
            missing_fields: Vec::new(),
            missing_events,
            source: None,
            listens: needs.iter().map(|_| Vec::new()).collect(),
        }
    })
}

/// The categories that a query requires, as text. An event must have one of them.
fn category(query: &EventQuery) -> String {
    let named = query.category.as_ref().map(|category| vec![category.to_string()]);
    let named_in_condition = || required(&query.condition, field!("event.category"));
    let names: BTreeSet<_> = named.or_else(named_in_condition).unwrap_or_default().into_iter().collect();
    if names.is_empty() { "any".to_owned() } else { names.into_iter().collect::<Vec<_>>().join(" or ") }
}

/// The texts that the condition requires of a field, which must have one of them; `None` if it requires none.
fn required(condition: &Condition, field: FieldId) -> Option<Vec<String>> {
    match condition {
        Condition::Test(Expr::Field(tested), Test::OneOf { values, .. }) if *tested == field => {
            Some(values.iter().map(|value| value.to_text().into_owned()).collect())
        }
        Condition::All(parts) => parts.iter().find_map(|part| required(part, field)),
        Condition::Any(parts) => {
            let parts: Vec<_> = parts.iter().map(|part| required(part, field)).collect::<Option<_>>()?;
            Some(parts.concat())
        }
        _ => None,
    }
}

/// An event that a rule needs.
struct Need<'a> {
    query: &'a EventQuery,
    /// Fields that the event must have.
    required: Vec<FieldId>,
    /// Whether the rule can match without it.
    dispensable: bool,
}

fn needs(rule: &Rule) -> Vec<Need<'_>> {
    if let RuleKind::Eql(query) = &rule.kind
        && !matches!(query, Query::Event(_))
    {
        let until = match query.inner() {
            Query::Sequence(sequence) => sequence.until.as_ref(),
            _ => None,
        };
        let mut staged = Vec::new();
        for stage in query.stages() {
            let keys = stage.keys.iter().filter(|key| !key.optional).filter_map(|key| key.field);
            let dispensable = stage.missing || until.is_some_and(|until| std::ptr::eq(until, stage));
            staged.push(Need { query: &stage.query, required: keys.collect(), dispensable });
        }
        // Whether the rule can match without the events of subqueries depends on its conditions.
        let alone = usize::from(staged.is_empty());
        let others = query.events().skip(staged.len()).enumerate();
        let other = |(index, query)| Need { query, required: Vec::new(), dispensable: index >= alone };
        let others: Vec<_> = others.map(other).collect();
        return staged.into_iter().chain(others).collect();
    }
    let queries = rule.kind.events();
    let queried: BTreeSet<_> = queries.iter().flat_map(|query| query.fields()).collect();
    // Fields that the rule uses outside its queries are required: terms, groups, the field of a job.
    let required: Vec<_> = rule.fields().difference(&queried).copied().collect();
    queries.into_iter().map(|query| Need { query, required: required.clone(), dispensable: false }).collect()
}

/// The possible results of a condition.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Possible {
    pub(super) holds: bool,
    pub(super) fails: bool,
}

impl Possible {
    pub(super) const EITHER: Self = Self { holds: true, fails: true };

    pub(super) fn only(truth: bool) -> Self {
        Self { holds: truth, fails: !truth }
    }

    pub(super) fn negated(self) -> Self {
        Self { holds: self.fails, fails: self.holds }
    }

    pub(super) fn all(parts: impl Iterator<Item = Self>) -> Self {
        parts.fold(Self::only(true), |all, part| Self {
            holds: all.holds && part.holds,
            fails: all.fails || part.fails,
        })
    }

    pub(super) fn any(parts: impl Iterator<Item = Self>) -> Self {
        parts.fold(Self::only(false), |any, part| Self {
            holds: any.holds || part.holds,
            fails: any.fails && part.fails,
        })
    }
}

/// How to evaluate tests of fields that events of a kind do not have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Absent {
    /// The field is absent, and the test fails.
    Known,
    /// The test may have either result, unless the field identifies the kind of event.
    Ignored,
}

struct CoverageCheck<'a> {
    source: &'a Source,
    schema: &'a Schema,
}

impl CoverageCheck<'_> {
    fn coverage(&self, needs: &[Need<'_>]) -> Coverage {
        let mut found = Coverage {
            events: Covered::All,
            can_match: true,
            missing_fields: Vec::new(),
            missing_events: Vec::new(),
            source: Some(self.source.name.clone()),
            listens: Vec::new(),
        };
        for need in needs {
            self.check(need, &mut found);
        }
        found.missing_fields.sort();
        found.missing_fields.dedup();
        let mut seen = BTreeSet::new();
        found.missing_events.retain(|event| seen.insert(event.clone()));
        let heard =
            needs.iter().zip(&found.listens).any(|(need, kinds)| !need.dispensable && !kinds.is_empty());
        let whole = found.missing_fields.is_empty() && found.missing_events.is_empty();
        found.events = match (heard, whole) {
            (false, _) => Covered::None,
            (true, false) => Covered::Partly,
            (true, true) => Covered::All,
        };
        found
    }

    fn check(&self, need: &Need<'_>, found: &mut Coverage) {
        let heard: Vec<_> = self.source.kinds.iter().filter(|kind| self.heard(need.query, kind)).collect();
        found.listens.push(heard.iter().map(|kind| kind.name.clone()).collect());
        if heard.is_empty() {
            found.can_match &= need.dispensable;
            found.missing_events.push(self.describe(need.query));
            return;
        }
        let matched = |kind: &&&EventKind| {
            need.required.iter().all(|id| kind.has(*id, self.schema))
                && self.possible(&need.query.condition, kind, Absent::Known).holds
        };
        let matching: Vec<_> = heard.iter().copied().filter(|kind| matched(&kind)).collect();
        found.can_match &= need.dispensable || !matching.is_empty();
        let checked = if matching.is_empty() { &heard } else { &matching };
        let missing = self.missing(need, checked);
        found.missing_fields.extend(missing.iter().map(|id| self.schema.name(*id).to_owned()));
        self.missing_values(&need.query.condition, true, &mut found.missing_events);
    }

    /// Whether the query selects this kind of event, without regard to missing fields.
    fn heard(&self, query: &EventQuery, kind: &EventKind) -> bool {
        let category = kind.fixed.values(field!("event.category"));
        let unknown = category.is_empty() && kind.has(field!("event.category"), self.schema);
        (unknown || naive::is_of(query, &kind.fixed))
            && self.possible(&query.condition, kind, Absent::Ignored).holds
    }

    fn possible(&self, condition: &Condition, kind: &EventKind, absent: Absent) -> Possible {
        match condition {
            Condition::Always(truth) => Possible::only(*truth),
            Condition::Not(inner) => self.possible(inner, kind, absent).negated(),
            Condition::All(parts) => {
                Possible::all(parts.iter().map(|part| self.possible(part, kind, absent)))
            }
            Condition::Any(parts) => {
                Possible::any(parts.iter().map(|part| self.possible(part, kind, absent)))
            }
            leaf => {
                let fields = leaf.fields();
                if fields.iter().all(|id| kind.fixed.get(*id).is_some()) {
                    return Possible::only(naive::holds(leaf, &kind.fixed));
                }
                let lacks = |id: &&FieldId| !kind.has(**id, self.schema);
                let lacking =
                    fields.iter().filter(lacks).any(|id| absent == Absent::Known || IDENTITY.contains(id));
                if lacking && !leaf_is_open(leaf) { Possible::only(false) } else { Possible::EITHER }
            }
        }
    }

    /// The fields that the query requires and that none of the kinds has.
    fn missing(&self, need: &Need<'_>, kinds: &[&EventKind]) -> BTreeSet<FieldId> {
        let of_kind = |kind: &&EventKind| {
            let mut fields = BTreeSet::new();
            self.collect(&need.query.condition, kind, true, &mut fields);
            fields.extend(need.required.iter().filter(|id| !kind.has(**id, self.schema)));
            fields
        };
        let each: Vec<BTreeSet<_>> = kinds.iter().map(of_kind).collect();
        let all =
            each.iter().skip(1).fold(each.first().cloned().unwrap_or_default(), |all, fields| &all & fields);
        if all.is_empty() && each.iter().all(|fields| !fields.is_empty()) {
            return each.into_iter().flatten().collect();
        }
        all
    }

    fn collect(&self, condition: &Condition, kind: &EventKind, wanted: bool, fields: &mut BTreeSet<FieldId>) {
        // An alternative for other kinds of events has no missing fields in this kind.
        let Possible { holds, fails } = self.possible(condition, kind, Absent::Ignored);
        if !(if wanted { holds } else { fails }) {
            return;
        }
        match condition {
            Condition::Not(inner) => self.collect(inner, kind, !wanted, fields),
            Condition::All(parts) | Condition::Any(parts) => {
                parts.iter().for_each(|part| self.collect(part, kind, wanted, fields));
            }
            leaf if wanted => {
                fields.extend(leaf.fields().into_iter().filter(|id| !kind.has(*id, self.schema)))
            }
            _ => {}
        }
    }

    /// Categories and actions that the condition names among others and that no event here has.
    fn missing_values(&self, condition: &Condition, wanted: bool, missing: &mut Vec<String>) {
        match condition {
            Condition::Not(inner) => self.missing_values(inner, !wanted, missing),
            Condition::All(parts) | Condition::Any(parts) => {
                parts.iter().for_each(|part| self.missing_values(part, wanted, missing));
            }
            Condition::Test(Expr::Field(id), Test::OneOf { values, .. }) if wanted => {
                let name = match *id {
                    id if id == field!("event.category") => "",
                    id if id == field!("event.action") => "event.action ",
                    _ => return,
                };
                let texts: Vec<_> = values.iter().filter_map(|value| value.as_text()).collect();
                let kinds = || self.source.kinds.iter();
                let given = |text: &str| {
                    kinds().any(|kind| {
                        let mut fixed = kind.fixed.values(*id);
                        match fixed.is_empty() {
                            true => kind.has(*id, self.schema),
                            false => fixed.any(|value| value.as_text() == Some(text)),
                        }
                    })
                };
                let meant = |text: &str| kinds().any(|kind| kind.synonyms.iter().any(|name| name == text));
                let lacking = texts.iter().filter(|text| !given(text) && !meant(text));
                missing.extend(lacking.map(|text| format!("{name}{text}")));
            }
            _ => {}
        }
    }

    /// Describes an event that the source does not emit: by its category, or, if the source has that category, also by
    /// the condition that fails.
    fn describe(&self, query: &EventQuery) -> String {
        let name = category(query);
        let is_it = |kind: &&EventKind| {
            let any = EventQuery { category: query.category.clone(), condition: Condition::Always(true) };
            let given = kind.fixed.values(field!("event.category"));
            let wanted = required(&query.condition, field!("event.category"));
            let fits = |wanted: &String| given.clone().any(|value| value.as_text() == Some(wanted.as_str()));
            self.heard(&any, kind) && wanted.is_none_or(|wanted| wanted.iter().any(fits))
        };
        let kinds: Vec<_> = self.source.kinds.iter().filter(is_it).collect();
        if kinds.is_empty() {
            return name;
        }
        let mut leaf = &query.condition;
        while let Condition::All(parts) = leaf {
            let never = |part: &&Condition| {
                kinds.iter().all(|kind| !self.possible(part, kind, Absent::Ignored).holds)
            };
            match parts.iter().find(never) {
                Some(part) => leaf = part,
                None => return name,
            }
        }
        format!("{name} where {}", self.shown(leaf))
    }

    fn shown(&self, leaf: &Condition) -> String {
        let mut leaf = leaf.clone();
        let mut more = "";
        if let Condition::Test(_, Test::OneOf { values, .. }) = &mut leaf
            && values.len() > VALUES_SHOWN_MAX
        {
            values.truncate(VALUES_SHOWN_MAX);
            more = " and others";
        }
        let query = EventQuery { category: None, condition: leaf };
        let text = query.display(self.schema).to_string();
        format!("{}{more}", text.strip_prefix("any where ").unwrap_or(&text))
    }
}

/// Whether a test may pass although one of its fields is absent: an expression with [`Expr::Truth`] may have
/// alternatives.
fn leaf_is_open(leaf: &Condition) -> bool {
    fn is_open(expr: &Expr) -> bool {
        match expr {
            Expr::Truth(_) => true,
            Expr::Call { arguments, .. } => arguments.iter().any(is_open),
            Expr::Arithmetic(_, left, right) => is_open(left) || is_open(right),
            Expr::Constant(_) | Expr::Field(_) | Expr::Opened(_) | Expr::Earlier { .. } => false,
        }
    }
    matches!(leaf, Condition::Exists(expr) | Condition::Test(expr, _) if is_open(expr))
}
