//! What a query says, as it is written.

use crate::lang::Span;
use crate::lang::operator::Comparison;
use crate::lang::wildcard::Wildcard;

/// A condition and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// What it is.
    pub kind: QueryKind,
    /// Where it stands.
    pub span: Span,
    /// Whether parentheses stand around it.
    pub parenthesized: bool,
}

/// The kinds of condition.
#[derive(Clone, Debug, PartialEq)]
pub enum QueryKind {
    /// A part that could not be parsed and was reported.
    Wrong,
    /// All of them hold.
    And(Vec<Query>),
    /// One of them holds.
    Or(Vec<Query>),
    /// It does not hold.
    Not(Box<Query>),
    /// `field: value`.
    Is(Literal, Literal),
    /// `field < value` and the like.
    Range(Literal, Comparison, Literal),
    /// `field: { query }`: the names in the query go on from the field's.
    Group(Literal, Box<Query>),
    /// A value without a field.
    Text(Literal),
    /// Nothing at all: an empty query matches every event.
    Everything,
}

/// A field's name or a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Literal {
    /// The text; where it is not quoted, `*` is a wildcard.
    pub text: Wildcard,
    /// Whether it stands in quotation marks.
    pub quoted: bool,
    /// Where it stands.
    pub span: Span,
}
