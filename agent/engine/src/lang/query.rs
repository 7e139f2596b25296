//! The typed query: fields are found, types fit, sugar is gone. What runs rules is made from this.

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

/// What a rule looks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Query {
    /// Single events.
    Event(EventQuery),
    /// Several events in order.
    Sequence(Sequence),
    /// Several events in any order.
    Sample(Sample),
    /// One of these, with conditions on the ancestry of processes.
    Lineage(Lineage),
}

/// A query some of whose conditions ask about the processes of events that other event queries match, as
/// `descendant of […]` does.
#[derive(Clone, Debug, PartialEq)]
pub struct Lineage {
    /// What is looked for; no `Lineage` itself.
    pub query: Box<Query>,
    /// The event queries in brackets. One that stands inside another comes before it.
    pub subqueries: Vec<EventQuery>,
    /// What must hold besides, for each event query of `query` and then each of `subqueries`; in these conditions
    /// alone is [`Condition::Related`].
    pub conditions: Vec<Option<Condition>>,
}

/// Events of a category for which a condition holds.
#[derive(Clone, Debug, PartialEq)]
pub struct EventQuery {
    /// The value that `event.category` must have among its values; `None` where the query does not name one.
    pub category: Option<SmolStr>,
    /// What must hold.
    pub condition: Condition,
}

/// Stages that must be met in order by events that agree in the stages' keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Sequence {
    /// The stages.
    pub stages: Vec<Stage>,
    /// What ends a sequence before it is complete.
    pub until: Option<Stage>,
    /// Longest time from the first to the last event.
    pub maxspan: Option<Duration>,
}

/// Stages that must be met in any order, each by an event of its own, by events that agree in the stages' keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The stages, of which none is missing and each has a key at least.
    pub stages: Vec<Stage>,
}

/// One stage of a sequence or sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// Which event it is.
    pub query: EventQuery,
    /// The keys, those of the whole sequence first.
    pub keys: Vec<Key>,
    /// Whether no such event may be there.
    pub missing: bool,
    /// What must hold besides and hangs on events of earlier stages; in this condition alone is [`Expr::Earlier`].
    pub later: Option<Condition>,
}

/// A join key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The field; `None` where an optional field is not known, so that it is absent from every event.
    pub field: Option<FieldId>,
    /// Whether events without the field take part, agreeing among themselves.
    pub optional: bool,
}

/// Something that holds for an event or does not: there is no third, and what is absent makes every test false.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// Holds for every event, or for none.
    Always(bool),
    /// Holds where the other does not.
    Not(Box<Self>),
    /// Holds where all of them do.
    All(Vec<Self>),
    /// Holds where one of them does.
    Any(Vec<Self>),
    /// It is there.
    Exists(Expr),
    /// One of its values passes the test.
    Test(Expr, Test),
    /// One of these fields, which are ascending, is there, and where there is a test beside them one of its values passes
    /// it: `process.*: x` and values without a field.
    Anywhere(Vec<(Vec<FieldId>, Option<Test>)>),
    /// A value of the first stands so to a value of the second, of which one is of an earlier event.
    Compare(Comparison, Expr, Expr),
    /// The event's process is so related to one of those that events of this subquery had.
    Related(Relation, usize),
}

/// A test of one value.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// It equals one of these.
    OneOf {
        /// Of the type of what is tested.
        values: Vec<Value>,
        /// Whether case is not regarded.
        insensitive: bool,
    },
    /// It is matched from end to end by one of these patterns, in which `*` stands for any characters and, in EQL,
    /// `?` for one.
    Like {
        /// The patterns.
        patterns: Vec<Wildcard>,
        /// Whether case is not regarded.
        insensitive: bool,
    },
    /// It is matched from end to end by one of these regular expressions.
    Regex {
        /// The expressions.
        patterns: Vec<Regex>,
        /// Whether case is not regarded; the expressions are made ready for it.
        insensitive: bool,
    },
    /// It is an address in one of these networks.
    Within(Vec<IpNet>),
    /// It lies on this side of a value of its type.
    Order(Comparison, Value),
    /// It is a version on this side of another one.
    Version(Comparison, SmolStr),
    /// Its words hold these, next to each other in this order where `phrase`, else anywhere and any one of them.
    Words {
        /// In lower case.
        words: Vec<SmolStr>,
        /// Whether they must stand next to each other.
        phrase: bool,
    },
    /// One of its words, in lower case, is matched by one of these patterns.
    WordsLike(Vec<Wildcard>),
}

impl Test {
    /// The test by which values of this type are put in order.
    pub(super) fn order(ty: Type, comparison: Comparison, value: Value) -> Self {
        match value {
            Value::Text(version) if ty == Type::Version => Self::Version(comparison, version),
            value => Self::Order(comparison, value),
        }
    }
}

/// Something that is computed from an event: a value, several or none.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// Always the same; `None` is null.
    Constant(Option<Value>),
    /// The field's values.
    Field(FieldId),
    /// Those of the field's values that are names of files that the kernel opened: what an exclusion sees of it.
    Opened(FieldId),
    /// The values that the field has in the event of an earlier stage.
    Earlier {
        /// The stage, by its place among all of the sequence.
        stage: usize,
        /// The field.
        field: FieldId,
        /// Whether only names of files count that the kernel opened.
        opened: bool,
    },
    /// What the function makes of its arguments.
    Call {
        /// Which function.
        function: Function,
        /// Whether it compares without regard to case.
        insensitive: bool,
        /// What it is given.
        arguments: Vec<Self>,
    },
    /// A sum and the like.
    Arithmetic(Arithmetic, Box<Self>, Box<Self>),
    /// Whether the condition holds; nothing where that hangs on something that is absent, as `process.pid > 1` does on
    /// an absent `process.pid`.
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

    /// Every event query in it: the only one, or the stages' in order and `until`'s after them; subqueries come last.
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

    /// The stages in order, `until` last; none of a query for single events.
    pub fn stages(&self) -> impl Iterator<Item = &Stage> {
        let (stages, until) = match self.inner() {
            Self::Event(_) | Self::Lineage(_) => (&[][..], None),
            Self::Sequence(sequence) => (sequence.stages.as_slice(), sequence.until.as_ref()),
            Self::Sample(sample) => (sample.stages.as_slice(), None),
        };
        stages.iter().chain(until)
    }

    /// The same, to be changed.
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

    /// The query in a form that says exactly what is run; for people and for tests, not to be read again.
    #[must_use]
    pub fn display<'a>(&'a self, schema: &'a Schema) -> impl fmt::Display + 'a {
        Shown(self, schema)
    }
}

impl EventQuery {
    /// The query with its category required of this field, in place of `event.category`.
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

    /// The query for which another condition must hold too.
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
    /// The condition with every question about other events answered.
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

/// What a condition asks about other events, answered for one event and its place.
pub(crate) trait Answers {
    /// Whether the event's process is so related to one of those that events of the subquery had.
    fn related(&self, relation: Relation, subquery: usize) -> bool;
    /// The value of a field of the event of an earlier stage.
    fn earlier(&self, stage: usize, field: FieldId) -> Option<Value>;
}

/// What is looked for in a condition.
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
