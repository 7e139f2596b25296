//! The typed query: names are resolved to fields, types are checked, and shorthands are expanded. Matchers and
//! detectors are built from it.

mod display;

use std::fmt;
use std::time::Duration;

use ipnet::IpNet;
use smol_str::SmolStr;

use self::display::Shown;
use super::function::Function;
use super::operator::{Arithmetic, Comparison, Relation};
use super::regex::Regex;
use super::wildcard::Wildcard;
use crate::event::{FieldId, Schema, Type, Value};
use crate::field;

/// A query of a rule.
#[derive(Clone, Debug, PartialEq)]
pub enum Query {
    /// Single events.
    Event(EventQuery),
    /// Several events in order.
    Sequence(Sequence),
    /// Several events in any order.
    Sample(Sample),
    /// One of the above, with conditions on the ancestry of processes.
    Lineage(Lineage),
}

/// A query with conditions on the processes of events that subqueries match, such as `descendant of […]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Lineage {
    /// The main query; never a `Lineage`.
    pub query: Box<Query>,
    /// The event queries in brackets. A nested one comes before the one that contains it.
    pub subqueries: Vec<EventQuery>,
    /// Additional conditions, for each event query of `query` and then for each of `subqueries`. Only these conditions
    /// contain [`Condition::Related`].
    pub conditions: Vec<Option<Condition>>,
}

/// Events of a category for which a condition holds.
#[derive(Clone, Debug, PartialEq)]
pub struct EventQuery {
    /// A value that `event.category` must contain; `None` if the query does not name a category.
    pub category: Option<SmolStr>,
    /// The condition that must hold.
    pub condition: Condition,
}

/// Stages that must be met in order, by events with equal join keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Sequence {
    /// The stages.
    pub stages: Vec<Stage>,
    /// The stage that ends a sequence before it is complete.
    pub until: Option<Stage>,
    /// Longest time from the first to the last event.
    pub maxspan: Option<Duration>,
}

/// Stages that must be met in any order, by different events with equal join keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The stages. None is a missing one, and each has at least one key.
    pub stages: Vec<Stage>,
}

/// One stage of a sequence or sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// The event query.
    pub query: EventQuery,
    /// The keys, those of the whole sequence first.
    pub keys: Vec<Key>,
    /// Whether no such event may occur.
    pub missing: bool,
    /// An additional condition on events of earlier stages. Only this condition contains [`Expr::Earlier`].
    pub later: Option<Condition>,
}

/// A join key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The field; `None` for an optional field that is unknown, which is absent from every event.
    pub field: Option<FieldId>,
    /// Whether events without the field take part. They match each other.
    pub optional: bool,
}

/// A condition on an event. It is true or false, never null: a test of an absent value is false.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// Holds for every event, or for none.
    Always(bool),
    /// Holds if the inner condition does not.
    Not(Box<Self>),
    /// Holds if all of them hold.
    All(Vec<Self>),
    /// Holds if one of them holds.
    Any(Vec<Self>),
    /// The expression has a value.
    Exists(Expr),
    /// One of the expression's values passes the test.
    Test(Expr, Test),
    /// In one of the groups, one of the fields (in ascending order) is present and, if the group has a test, has a
    /// value that passes it: for `process.*: x` and for values without a field.
    Anywhere(Vec<(Vec<FieldId>, Option<Test>)>),
    /// The comparison holds for a value of the first and a value of the second. One of them is of an earlier event.
    Compare(Comparison, Expr, Expr),
    /// The event's process has this relation to a process of an event that the subquery matched.
    Related(Relation, usize),
}

/// A test of one value.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// The value equals one of these.
    OneOf {
        /// The values, of the type of the tested expression.
        values: Vec<Value>,
        /// Whether case is ignored.
        insensitive: bool,
    },
    /// One of these patterns matches the whole value. `*` matches any characters and, in EQL, `?` matches one.
    Like {
        /// The patterns.
        patterns: Vec<Wildcard>,
        /// Whether case is ignored.
        insensitive: bool,
    },
    /// One of these regular expressions matches the whole value.
    Regex {
        /// The expressions.
        patterns: Vec<Regex>,
        /// Whether case is ignored; the expressions are compiled for it.
        insensitive: bool,
    },
    /// The value is an address in one of these networks.
    Within(Vec<IpNet>),
    /// The comparison with a value of the same type holds.
    Order(Comparison, Value),
    /// The comparison with a version holds.
    Version(Comparison, SmolStr),
    /// The value contains these words: all of them in this order and adjacent if `phrase`, otherwise any of them.
    Words {
        /// The words, in lower case.
        words: Vec<SmolStr>,
        /// Whether they must be adjacent.
        phrase: bool,
    },
    /// One of these patterns matches a word of the value, in lower case.
    WordsLike(Vec<Wildcard>),
}

impl Test {
    /// The comparison test for values of this type.
    pub(super) fn order(ty: Type, comparison: Comparison, value: Value) -> Self {
        match value {
            Value::Text(version) if ty == Type::Version => Self::Version(comparison, version),
            value => Self::Order(comparison, value),
        }
    }
}

/// An expression, computed from an event. It has no value, one or several.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// A constant; `None` is null.
    Constant(Option<Value>),
    /// The field's values.
    Field(FieldId),
    /// The field's values that are opened names. An exclusion sees only these.
    Opened(FieldId),
    /// The values of the field in the event of an earlier stage.
    Earlier {
        /// The stage, by its index among all stages of the sequence.
        stage: usize,
        /// The field.
        field: FieldId,
        /// Whether only opened names count.
        opened: bool,
    },
    /// A function call.
    Call {
        /// The function.
        function: Function,
        /// Whether it ignores case.
        insensitive: bool,
        /// The arguments.
        arguments: Vec<Self>,
    },
    /// An arithmetic operation.
    Arithmetic(Arithmetic, Box<Self>, Box<Self>),
    /// Whether the condition holds. It has no value if the condition depends on an absent value, as `process.pid > 1`
    /// does on an absent `process.pid`.
    Truth(Box<Condition>),
}

impl Query {
    /// The query without conditions on ancestry.
    #[must_use]
    pub fn inner(&self) -> &Self {
        match self {
            Self::Lineage(lineage) => &lineage.query,
            query => query,
        }
    }

    /// All event queries: the only one, or those of the stages in order, then that of `until`; subqueries come last.
    pub fn events(&self) -> impl Iterator<Item = &EventQuery> {
        let single = match self.inner() {
            Self::Event(query) => Some(query),
            _ => None,
        };
        let subqueries = match self {
            Self::Lineage(lineage) => lineage.subqueries.as_slice(),
            _ => &[],
        };
        single.into_iter().chain(self.stages().map(|stage| &stage.query)).chain(subqueries)
    }

    /// The stages in order, `until` last; empty for a query for single events.
    pub fn stages(&self) -> impl Iterator<Item = &Stage> {
        let (stages, until) = match self.inner() {
            Self::Event(_) | Self::Lineage(_) => (&[][..], None),
            Self::Sequence(sequence) => (sequence.stages.as_slice(), sequence.until.as_ref()),
            Self::Sample(sample) => (sample.stages.as_slice(), None),
        };
        stages.iter().chain(until)
    }

    /// All event queries, mutable.
    pub fn events_mut(&mut self) -> Vec<&mut EventQuery> {
        match self {
            Self::Event(query) => vec![query],
            Self::Sequence(sequence) => {
                let stages = sequence.stages.iter_mut().chain(&mut sequence.until);
                stages.map(|stage| &mut stage.query).collect()
            }
            Self::Sample(sample) => sample.stages.iter_mut().map(|stage| &mut stage.query).collect(),
            Self::Lineage(lineage) => {
                let mut events = lineage.query.events_mut();
                events.extend(&mut lineage.subqueries);
                events
            }
        }
    }

    /// Every field that it names, in no order and maybe several times.
    #[must_use]
    pub fn fields(&self) -> Vec<FieldId> {
        let mut fields: Vec<_> = self.events().flat_map(EventQuery::fields).collect();
        for stage in self.stages() {
            fields.extend(stage.keys.iter().filter_map(|key| key.field));
            stage.later.iter().for_each(|later| later.collect_fields(&mut fields));
        }
        if let Self::Lineage(lineage) = self {
            lineage.conditions.iter().flatten().for_each(|condition| condition.collect_fields(&mut fields));
            fields.push(field!("process.entity_id"));
        }
        fields
    }

    /// The typed query as text, for people and for tests. The text cannot be parsed.
    #[must_use]
    pub fn display<'a>(&'a self, schema: &'a Schema) -> impl fmt::Display + 'a {
        Shown(self, schema)
    }
}

impl EventQuery {
    /// The query with its category as a condition on this field instead of `event.category`.
    #[must_use]
    pub fn with_category_in(self, field: FieldId, schema: &Schema) -> Self {
        let Some(category) = self.category.as_ref().filter(|_| field != crate::field!("event.category"))
        else {
            return self;
        };
        let required = match Value::parse(schema.ty(field), category) {
            Some(value) => {
                Condition::Test(Expr::Field(field), Test::OneOf { values: vec![value], insensitive: false })
            }
            None => Condition::Always(false),
        };
        Self { category: None, condition: Condition::All(vec![required, self.condition]) }
    }

    /// The query with an additional condition.
    #[must_use]
    pub fn narrowed(self, condition: Condition) -> Self {
        Self { condition: Condition::All(vec![self.condition, condition]), ..self }
    }

    /// Every field that it names, in no order and maybe several times.
    #[must_use]
    pub fn fields(&self) -> Vec<FieldId> {
        let mut fields = Vec::new();
        self.condition.collect_fields(&mut fields);
        fields
    }

    /// As [`Query::display`].
    #[must_use]
    pub fn display<'a>(&'a self, schema: &'a Schema) -> impl fmt::Display + 'a {
        Shown(self, schema)
    }
}

impl Condition {
    /// The condition with the references to other events replaced by their values.
    pub(crate) fn resolved(&self, answers: &dyn Answers) -> Self {
        let all = |parts: &[Self]| parts.iter().map(|part| part.resolved(answers)).collect();
        match self {
            Self::Always(truth) => Self::Always(*truth),
            Self::Not(inner) => Self::Not(Box::new(inner.resolved(answers))),
            Self::All(parts) => Self::All(all(parts)),
            Self::Any(parts) => Self::Any(all(parts)),
            Self::Exists(expr) => Self::Exists(expr.resolved(answers)),
            Self::Anywhere(_) => self.clone(),
            Self::Test(expr, test) => Self::Test(expr.resolved(answers), test.clone()),
            Self::Compare(comparison, left, right) => {
                Self::Compare(*comparison, left.resolved(answers), right.resolved(answers))
            }
            Self::Related(relation, subquery) => Self::Always(answers.related(*relation, *subquery)),
        }
    }

    /// Whether it contains an expression or condition that is `wanted`.
    pub(super) fn has(&self, wanted: &Wanted) -> bool {
        match self {
            Self::Always(_) | Self::Anywhere(_) => false,
            Self::Not(inner) => inner.has(wanted),
            Self::All(parts) | Self::Any(parts) => parts.iter().any(|part| part.has(wanted)),
            Self::Exists(expr) | Self::Test(expr, _) => expr.has(wanted),
            Self::Compare(_, left, right) => left.has(wanted) || right.has(wanted),
            Self::Related(..) => *wanted == Wanted::Related,
        }
    }

    /// Every field that it names, in no order and maybe several times.
    #[must_use]
    pub fn fields(&self) -> Vec<FieldId> {
        let mut fields = Vec::new();
        self.collect_fields(&mut fields);
        fields
    }

    fn collect_fields(&self, fields: &mut Vec<FieldId>) {
        match self {
            Self::Always(_) => {}
            Self::Compare(_, left, right) => {
                left.collect_fields(fields);
                right.collect_fields(fields);
            }
            Self::Related(relation, _) => fields.extend(relation.fields()),
            Self::Anywhere(groups) => fields.extend(groups.iter().flat_map(|(fields, _)| fields)),
            Self::Not(inner) => inner.collect_fields(fields),
            Self::All(parts) | Self::Any(parts) => parts.iter().for_each(|part| part.collect_fields(fields)),
            Self::Exists(expr) | Self::Test(expr, _) => expr.collect_fields(fields),
        }
    }
}

/// Resolves a condition's references to other events, for one event and its stage.
pub(crate) trait Answers {
    /// Whether the event's process has this relation to a process of an event that the subquery matched.
    fn related(&self, relation: Relation, subquery: usize) -> bool;
    /// The value of a field of the event of an earlier stage.
    fn earlier(&self, stage: usize, field: FieldId) -> Option<Value>;
}

/// The kind of reference that [`Condition::has`] searches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// [`Condition::Related`].
    Related,
    /// [`Expr::Earlier`].
    Earlier,
}

impl Expr {
    fn resolved(&self, answers: &dyn Answers) -> Self {
        match self {
            Self::Constant(_) | Self::Field(_) | Self::Opened(_) => self.clone(),
            Self::Earlier { stage, field, opened } => {
                let opened = field.opened().filter(|_| *opened);
                let of_files = opened.and_then(|opened| answers.earlier(*stage, opened));
                Self::Constant(of_files.or_else(|| answers.earlier(*stage, *field)))
            }
            Self::Call { function, insensitive, arguments } => Self::Call {
                function: *function,
                insensitive: *insensitive,
                arguments: arguments.iter().map(|argument| argument.resolved(answers)).collect(),
            },
            Self::Arithmetic(operator, left, right) => {
                let (left, right) = (left.resolved(answers), right.resolved(answers));
                Self::Arithmetic(*operator, Box::new(left), Box::new(right))
            }
            Self::Truth(condition) => Self::Truth(Box::new(condition.resolved(answers))),
        }
    }

    pub(super) fn has(&self, wanted: &Wanted) -> bool {
        match self {
            Self::Constant(_) | Self::Field(_) | Self::Opened(_) => false,
            Self::Earlier { .. } => *wanted == Wanted::Earlier,
            Self::Call { arguments, .. } => arguments.iter().any(|argument| argument.has(wanted)),
            Self::Arithmetic(_, left, right) => left.has(wanted) || right.has(wanted),
            Self::Truth(condition) => condition.has(wanted),
        }
    }

    pub(super) fn collect_fields(&self, fields: &mut Vec<FieldId>) {
        match self {
            Self::Constant(_) => {}
            Self::Field(field) | Self::Opened(field) | Self::Earlier { field, .. } => fields.push(*field),
            Self::Call { arguments, .. } => {
                arguments.iter().for_each(|argument| argument.collect_fields(fields))
            }
            Self::Arithmetic(_, left, right) => {
                left.collect_fields(fields);
                right.collect_fields(fields);
            }
            Self::Truth(condition) => condition.collect_fields(fields),
        }
    }
}
