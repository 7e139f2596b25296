//! What an expression says.

use regex_syntax::hir::{ClassUnicode, ClassUnicodeRange};

/// A set of texts.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Ast {
    /// No text at all: `#`.
    Nothing,
    /// The text without characters: `()`.
    Empty,
    /// One of these characters.
    Class(ClassUnicode),
    /// One after the other.
    Concat(Vec<Ast>),
    /// One of them: `a|b`.
    Union(Vec<Ast>),
    /// All of them at once: `a&b`.
    Intersection(Vec<Ast>),
    /// Every other text: `~a`.
    Complement(Box<Ast>),
    /// So many times, without an upper end where there is no `max`.
    Repeat {
        /// What is repeated.
        inner: Box<Ast>,
        /// How often at least.
        min: u32,
        /// How often at most.
        max: Option<u32>,
    },
}

impl Ast {
    /// One character of a range.
    pub(super) fn range(start: char, end: char) -> Self {
        Self::Class(ClassUnicode::new([ClassUnicodeRange::new(start, end)]))
    }

    /// Any character: `.`.
    pub(super) fn any() -> Self {
        Self::range('\0', char::MAX)
    }

    /// Any text: `@`.
    pub(super) fn anything() -> Self {
        Self::Repeat { inner: Box::new(Self::any()), min: 0, max: None }
    }

    /// Whether a complement or an intersection is in it, which `regex-automata` does not know.
    pub(super) fn is_boolean(&self) -> bool {
        match self {
            Self::Nothing | Self::Empty | Self::Class(_) => false,
            Self::Intersection(_) | Self::Complement(_) => true,
            Self::Concat(parts) | Self::Union(parts) => parts.iter().any(Self::is_boolean),
            Self::Repeat { inner, .. } => inner.is_boolean(),
        }
    }
}
