//! Compiles queries to trees over shared tests. A test that several queries contain exists once.

use std::collections::HashMap;

use super::field::{FieldTest, FieldTests};
use crate::event::{Event, FieldId};
use crate::field;
use crate::lang::query::{Condition, EventQuery, Expr, Test};

/// The slot of a field that no query tests.
const NONE: u16 = u16::MAX;

/// Fields with few values that appear in many queries. The tests of these fields give an event its class.
const DISCRIMINATING: [FieldId; 11] = [
    field!("data_stream.dataset"),
    field!("event.action"),
    field!("event.category"),
    field!("event.dataset"),
    field!("event.kind"),
    field!("event.module"),
    field!("event.outcome"),
    field!("event.provider"),
    field!("event.type"),
    field!("host.os.type"),
    field!("network.direction"),
];

/// All queries, compiled.
pub(super) struct Program {
    /// The slot of each queried field, by the field's index in the schema.
    slots: Box<[u16]>,
    /// The tests of each field, by slot.
    pub(super) fields: Vec<FieldTests>,
    /// The expected frequency with which each test is passed, by slot. Cheaper branches are chosen by it.
    pub(super) weights: Vec<Vec<u32>>,
    /// The slots of the discriminating fields.
    pub(super) discriminating: Vec<u16>,
    /// Conditions that are evaluated by the reference implementation.
    pub(super) computed: Vec<Condition>,
    /// The queries, in the order in which they were given.
    pub(super) queries: Vec<Node>,
}

/// A test of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fact {
    pub(super) slot: u16,
    pub(super) test: u32,
}

/// A condition over tests.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Always(bool),
    Fact(Fact),
    /// The first if the event has its field, otherwise the second.
    FirstOf([Fact; 2]),
    /// The condition of this number in `computed`.
    Computed(u32),
    Not(Box<Self>),
    All(Box<[Self]>),
    Any(Box<[Self]>),
}

impl Program {
    /// Compiles queries.
    pub(super) fn new<'a>(queries: impl IntoIterator<Item = &'a EventQuery>) -> Self {
        let mut compiler = Compiler::default();
        let queries = queries.into_iter().map(|query| compiler.query(query)).collect();
        let mut slots = vec![NONE; compiler.slots.keys().map(|field| field.index() + 1).max().unwrap_or(0)];
        for (field, slot) in &compiler.slots {
            slots[field.index()] = *slot;
        }
        let mut program = Self {
            fields: compiler.fields.iter().map(|(_, tests)| FieldTests::new(tests)).collect(),
            weights: compiler
                .fields
                .iter()
                .map(|(field, tests)| tests.iter().map(|wanted| weight(*field, wanted)).collect())
                .collect(),
            discriminating: Vec::new(),
            computed: compiler.computed,
            slots: slots.into(),
            queries,
        };
        program.discriminating = DISCRIMINATING.iter().filter_map(|field| program.slot(*field)).collect();
        program
    }

    /// The slot of a field, if a query tests it.
    pub(super) fn slot(&self, field: FieldId) -> Option<u16> {
        self.slots.get(field.index()).copied().filter(|slot| *slot != NONE)
    }

    fn weight_of(&self, fact: Fact) -> u32 {
        self.weights[usize::from(fact.slot)][fact.test as usize]
    }

    /// The expected frequency with which a node holds, as a relative weight.
    pub(super) fn weight(&self, node: &Node) -> u32 {
        let sum = |parts: &[Node]| parts.iter().fold(0u32, |sum, part| sum.saturating_add(self.weight(part)));
        match node {
            Node::Fact(fact) => self.weight_of(*fact),
            Node::FirstOf(facts) => {
                facts.iter().map(|fact| self.weight_of(*fact)).fold(0, u32::saturating_add)
            }
            Node::All(parts) => parts.iter().map(|part| self.weight(part)).min().unwrap_or(OFTEN),
            Node::Any(parts) => sum(parts),
            Node::Always(_) | Node::Computed(_) | Node::Not(_) => OFTEN,
        }
    }
}

/// Fields with a value that about half of all events have.
const SPREAD: [FieldId; 11] = [
    field!("group.id"),
    field!("process.group.id"),
    field!("process.parent.group.id"),
    field!("process.parent.user.id"),
    field!("process.real_group.id"),
    field!("process.real_user.id"),
    field!("process.thread.capabilities.effective"),
    field!("process.thread.capabilities.permitted"),
    field!("process.user.id"),
    field!("user.Ext.real.id"),
    field!("user.id"),
];

/// The weight of a condition that mostly holds.
const OFTEN: u32 = 100_000;

/// The expected frequency with which a test is passed: by the number of its values, and by how frequent each is.
fn weight(field: FieldId, wanted: &FieldTest) -> u32 {
    let spread = match field {
        _ if DISCRIMINATING.contains(&field) => 2000,
        _ if [field!("process.name"), field!("destination.ip")].contains(&field) => 1,
        _ if [field!("process.executable"), field!("process.command_line")].contains(&field) => 2,
        _ if [field!("process.args"), field!("file.path")].contains(&field) => 4,
        // Nearly all processes run as root or as the user of one service.
        _ if SPREAD.contains(&field) => 5000,
        _ => 20,
    };
    let count = |number: usize| u32::try_from(number).unwrap_or(OFTEN);
    match wanted {
        FieldTest::Exists => OFTEN,
        FieldTest::Test(Test::OneOf { values, .. }) => match values.first() {
            Some(crate::event::Value::Boolean(_)) => OFTEN / 2,
            _ => spread * count(values.len()),
        },
        FieldTest::Test(Test::Like { patterns, .. }) => {
            spread.saturating_mul(4).saturating_mul(count(patterns.len()))
        }
        FieldTest::Test(Test::Within(networks)) => {
            spread.saturating_mul(100).saturating_mul(count(networks.len()))
        }
        FieldTest::Test(_) => OFTEN / 2,
    }
    .min(OFTEN)
}

#[derive(Default)]
struct Compiler {
    slots: HashMap<FieldId, u16>,
    fields: Vec<(FieldId, Vec<FieldTest>)>,
    /// Tests by slot and by their debug text.
    tests: HashMap<(u16, String), u32>,
    computed: Vec<Condition>,
    computed_places: HashMap<String, u32>,
}

impl Compiler {
    fn query(&mut self, query: &EventQuery) -> Node {
        let condition = self.node(&query.condition);
        let Some(category) = &query.category else { return condition };
        let test = Test::OneOf { values: vec![category.clone().into()], insensitive: false };
        let category = self.fact(field!("event.category"), FieldTest::Test(test));
        Node::All([category.map_or(Node::Always(true), Node::Fact), condition].into())
    }

    fn node(&mut self, condition: &Condition) -> Node {
        let wanted = match condition {
            Condition::Always(truth) => return Node::Always(*truth),
            Condition::Not(inner) => return Node::Not(Box::new(self.node(inner))),
            Condition::All(parts) => return Node::All(parts.iter().map(|part| self.node(part)).collect()),
            Condition::Any(parts) => return Node::Any(parts.iter().map(|part| self.node(part)).collect()),
            Condition::Exists(Expr::Opened(field)) => {
                return self.opened(*field, FieldTest::Exists, condition);
            }
            Condition::Test(Expr::Opened(field), test) if is_cheap(test) => {
                return self.opened(*field, FieldTest::Test(test.clone()), condition);
            }
            Condition::Exists(Expr::Field(field)) => self.fact(*field, FieldTest::Exists),
            Condition::Test(Expr::Field(field), test) if is_cheap(test) => {
                self.fact(*field, FieldTest::Test(test.clone()))
            }
            Condition::Exists(_)
            | Condition::Test(..)
            | Condition::Compare(..)
            | Condition::Anywhere(_)
            | Condition::Related(..) => None,
        };
        wanted.map_or_else(|| self.computed(condition), Node::Fact)
    }

    /// A test of opened names: of the field with the opened names, or, if the event lacks it, of the name field itself,
    /// whose values are then all opened names.
    fn opened(&mut self, names: FieldId, wanted: FieldTest, condition: &Condition) -> Node {
        let fields = [names.opened().unwrap_or(names), names];
        let [Some(first), Some(second)] = fields.map(|field| self.fact(field, wanted.clone())) else {
            return self.computed(condition);
        };
        Node::FirstOf([first, second])
    }

    /// The test of a field, shared by all queries that contain it; `None` if there are more fields than slots.
    fn fact(&mut self, field: FieldId, wanted: FieldTest) -> Option<Fact> {
        let slot = match self.slots.get(&field) {
            Some(slot) => *slot,
            None => {
                let slot = u16::try_from(self.fields.len()).ok().filter(|slot| *slot != NONE)?;
                self.fields.push((field, Vec::new()));
                *self.slots.entry(field).or_insert(slot)
            }
        };
        let tests = &mut self.fields[usize::from(slot)].1;
        let test = *self.tests.entry((slot, format!("{wanted:?}"))).or_insert_with(|| {
            tests.push(wanted);
            tests.len() as u32 - 1
        });
        Some(Fact { slot, test })
    }

    fn computed(&mut self, condition: &Condition) -> Node {
        let computed = &mut self.computed;
        Node::Computed(*self.computed_places.entry(format!("{condition:?}")).or_insert_with(|| {
            computed.push(condition.clone());
            computed.len() as u32 - 1
        }))
    }
}

/// Whether a test is so cheap that it may be evaluated before its result is needed.
fn is_cheap(test: &Test) -> bool {
    match test {
        Test::OneOf { .. } | Test::Like { .. } | Test::Within(_) | Test::Order(..) => true,
        // Tests that are not combined with others of their kind.
        Test::Regex { .. } | Test::Version(..) | Test::Words { .. } | Test::WordsLike(_) => false,
    }
}

impl Node {
    /// Simplifies a condition by known facts, and negates it if `holds` is false. In the result `Not` occurs only
    /// directly before tests, so that the required tests of a condition can be found.
    pub(super) fn given(&self, known: &impl Fn(Fact) -> Option<bool>, holds: bool) -> Self {
        let negated_unless_holds = |node: Self| if holds { node } else { Self::Not(Box::new(node)) };
        match self {
            Self::Always(truth) => Self::Always(*truth == holds),
            Self::Fact(fact) => known(*fact)
                .map_or_else(|| negated_unless_holds(self.clone()), |truth| Self::Always(truth == holds)),
            Self::FirstOf(_) | Self::Computed(_) => negated_unless_holds(self.clone()),
            Self::Not(inner) => inner.given(known, !holds),
            Self::All(parts) => Self::joined(parts, known, holds, holds),
            Self::Any(parts) => Self::joined(parts, known, holds, !holds),
        }
    }

    /// Joins the simplified parts: all of them, or any of them. A constant part equal to `all` is removed.
    fn joined(parts: &[Self], known: &impl Fn(Fact) -> Option<bool>, holds: bool, all: bool) -> Self {
        let mut left = Vec::new();
        for part in parts {
            match (part.given(known, holds), all) {
                (Self::Always(truth), _) if truth == all => {}
                (Self::Always(truth), _) => return Self::Always(truth),
                (Self::All(parts), true) | (Self::Any(parts), false) => left.extend(parts),
                (part, _) => left.push(part),
            }
        }
        match (left.len(), all) {
            (0, _) => Self::Always(all),
            (1, _) => left.swap_remove(0),
            (_, true) => Self::All(left.into()),
            (_, false) => Self::Any(left.into()),
        }
    }
}

/// Evaluates a condition by the reference implementation.
pub(super) fn compute(condition: &Condition, event: &Event) -> bool {
    crate::detect::naive::holds(condition, event)
}
