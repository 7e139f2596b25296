//! The regular expressions of `regex` and `regex~`: Lucene's, with all optional operators.
//!
//! Matching takes time linear in the text, without backtracking. `regex-automata` runs expressions without complement and
//! intersection. An outermost complement or intersection becomes a boolean combination of matchers; an inner one is run by
//! our own automaton.

mod ast;
mod automaton;
mod compile;
mod interval;
mod parser;

use std::fmt;
use std::sync::Arc;

use smol_str::SmolStr;
use thiserror::Error;

use compile::RegexProgram;

/// Longest expression, in characters: the default of Elasticsearch's `index.max_regex_length`.
pub const REGEX_LENGTH_MAX: usize = 1000;
/// Maximum number of bytes of a compiled expression, without the caches of matching.
pub const REGEX_BYTES_MAX: usize = 1 << 20;
/// Maximum number of bytes of all compiled expressions of a query.
pub const REGEXES_BYTES_MAX: usize = 16 << 20;
/// Maximum number of states of the automaton of an expression with an inner complement or intersection.
pub const REGEX_STATES_MAX: usize = 4096;

/// Why a text is not a supported regular expression.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RegexError {
    /// It is not in the syntax.
    #[error("{message} at character {place} of the expression")]
    Syntax {
        /// The fault.
        message: String,
        /// The position in characters, from one.
        place: usize,
    },
    /// It exceeds a limit.
    #[error("{0}")]
    TooLarge(String),
}

/// A compiled regular expression. It matches whole texts, as if it were anchored at both ends.
#[derive(Clone)]
pub struct Regex {
    pattern: SmolStr,
    insensitive: bool,
    program: Arc<RegexProgram>,
}

impl Regex {
    /// Parses and compiles an expression.
    ///
    /// If case is ignored, characters and the ranges of classes match all characters with the same simple folding of
    /// Unicode.
    ///
    /// # Errors
    /// See [`RegexError`].
    pub fn new(pattern: &str, insensitive: bool) -> Result<Self, RegexError> {
        let length = pattern.chars().count();
        if length > REGEX_LENGTH_MAX {
            let message = format!(
                "the regular expression has {length} characters; at most {REGEX_LENGTH_MAX} are read"
            );
            return Err(RegexError::TooLarge(message));
        }
        let program = compile::compile(&parser::parse(pattern, insensitive)?)?;
        Ok(Self { pattern: pattern.into(), insensitive, program: program.into() })
    }

    /// The source of the expression.
    #[must_use]
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// Whether the whole text matches.
    #[must_use]
    pub fn is_match(&self, text: &str) -> bool {
        self.program.is_match(text)
    }

    /// Its bytes, without the caches of matching.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.program.bytes()
    }
}

impl PartialEq for Regex {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern && self.insensitive == other.insensitive
    }
}

impl fmt::Debug for Regex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Regex({:?})", self.pattern)
    }
}

#[cfg(test)]
mod tests;
