//! The operators of both languages and of the typed query.

use std::fmt;

use crate::event::FieldId;
use crate::field;

/// How the process of an event is related to that of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// It is the same: `event of […]`.
    Event,
    /// It is its child: `child of […]`.
    Child,
    /// It is its child, or a descendant of its child: `descendant of […]`.
    Descendant,
}

impl Relation {
    /// All of them with the words that they are written with.
    pub const ALL: [(Self, &str); 3] =
        [(Self::Event, "event"), (Self::Child, "child"), (Self::Descendant, "descendant")];
}

impl Relation {
    /// The fields of an event that name its related processes: itself, its parent or its ancestors.
    pub(crate) fn fields(self) -> &'static [FieldId] {
        match self {
            Self::Event => &[field!("process.entity_id")],
            Self::Child => &[field!("process.parent.entity_id")],
            // The ancestry holds the parent too, where there is one.
            Self::Descendant => &[field!("process.Ext.ancestry"), field!("process.parent.entity_id")],
        }
    }

    pub(crate) fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// `+ - * / %`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`
    Divide,
    /// `%`
    Modulo,
}

/// `== != < <= > >=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

impl Comparison {
    /// The operator with its sides exchanged.
    #[must_use]
    pub const fn flipped(self) -> Self {
        match self {
            Self::Less => Self::Greater,
            Self::LessOrEqual => Self::GreaterOrEqual,
            Self::Greater => Self::Less,
            Self::GreaterOrEqual => Self::LessOrEqual,
            same => same,
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        })
    }
}
