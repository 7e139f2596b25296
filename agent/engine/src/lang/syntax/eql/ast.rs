//! The syntax tree of an EQL query. Names are not resolved and types are not checked yet.

use std::time::Duration;

use crate::lang::Span;
use crate::lang::operator::{Arithmetic, Comparison, Relation};

/// A whole query.
#[derive(Clone, Debug, PartialEq)]
pub enum Query {
    /// `category where condition`.
    Event(Filter),
    /// `sequence …`.
    Sequence(Sequence),
    /// `sample by keys [stage]…`.
    Sample(Sample),
}

/// A pipe, which selects results of a search: `| head 5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pipe {
    /// This many of the first results.
    Head(u64),
    /// This many of the last results.
    Tail(u64),
}

/// `sample by keys [stage] by keys…`.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Keys that every stage shares.
    pub by: Vec<Key>,
    /// The stages.
    pub stages: Vec<Stage>,
    /// The word `sample`.
    pub span: Span,
}

/// `category where condition`.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    /// The event category; `None` for `any`.
    pub category: Option<String>,
    /// The position of the category.
    pub category_span: Span,
    /// The condition.
    pub condition: Expr,
}

/// `sequence by keys with maxspan=span [stage]… until [stage]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Sequence {
    /// Keys that every stage shares.
    pub by: Vec<Key>,
    /// Longest time from the first to the last event.
    pub maxspan: Option<Duration>,
    /// The stages, with `with runs` expanded.
    pub stages: Vec<Stage>,
    /// The stage that ends a sequence before it is complete.
    pub until: Option<Stage>,
    /// The word `sequence`.
    pub span: Span,
}

/// `[filter] by keys`, or `![filter] by keys`.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// Whether the event must be missing.
    pub missing: bool,
    /// The event filter.
    pub filter: Filter,
    /// Keys of this stage, after those of the sequence.
    pub by: Vec<Key>,
    /// `as name`: the name of its event for later stages, with its position.
    pub alias: Option<(String, Span)>,
    /// The stage from bracket to bracket.
    pub span: Span,
}

/// A join key.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// The field.
    pub field: Name,
}

/// A field's name.
#[derive(Clone, Debug, PartialEq)]
pub struct Name {
    /// The dotted name.
    pub text: String,
    /// Written `?name`: the field may be unknown.
    pub optional: bool,
    /// Its position.
    pub span: Span,
}

/// An expression with its position.
#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    /// Its kind.
    pub kind: ExprKind,
    /// Its position, without the parentheses around it.
    pub span: Span,
    /// Whether it is in parentheses.
    pub parenthesized: bool,
}

/// The kinds of expression.
#[derive(Clone, Debug, PartialEq)]
pub enum ExprKind {
    /// A part that could not be parsed and was reported.
    Wrong,
    /// A constant.
    Literal(Literal),
    /// A field.
    Field(Name),
    /// `name(arguments)`; with `~` it ignores case.
    Call {
        /// The function's name without `~`.
        name: String,
        /// Whether `~` follows the name.
        insensitive: bool,
        /// The arguments.
        arguments: Vec<Expr>,
    },
    /// `descendant of [filter]` and the like.
    Related(Relation, Box<Filter>),
    /// `not condition`.
    Not(Box<Expr>),
    /// `-number`.
    Negative(Box<Expr>),
    /// `left and right and …`.
    And(Vec<Expr>),
    /// `left or right or …`.
    Or(Vec<Expr>),
    /// `left + right` and the like.
    Arithmetic(Arithmetic, Box<Expr>, Box<Expr>),
    /// `left == right` and the like.
    Compare(Comparison, Box<Expr>, Box<Expr>),
    /// `value in (list)`, `value : pattern`, `value like~ (patterns)` and the like.
    Match {
        /// The operator.
        operator: Operator,
        /// The left side.
        value: Box<Expr>,
        /// The constants on the right.
        list: Vec<Expr>,
        /// `not` before the operator, as in `not in`.
        negated: bool,
    },
}

/// A constant.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// `null`.
    Null,
    /// `true` or `false`.
    Boolean(bool),
    /// A whole number.
    Long(i64),
    /// A number with a fraction.
    Double(f64),
    /// Text, escapes resolved.
    Text(String),
}

/// The operators whose right side is a constant or a list of them; `insensitive` is their form with `~`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `in`, `in~`: the value equals one of the constants.
    In {
        /// `in~`.
        insensitive: bool,
    },
    /// `:` (always ignores case), `like`, `like~`: one of the constants, a wildcard pattern, matches the value.
    Like {
        /// `:` and `like~`.
        insensitive: bool,
    },
    /// `regex`, `regex~`: one of the constants, a regular expression, matches the value.
    Regex {
        /// `regex~`.
        insensitive: bool,
    },
}
