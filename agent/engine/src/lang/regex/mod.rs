//! Regular expressions as `regex` and `regex~` take them: Lucene's, with all of its optional operators.
//!
//! They are matched in time that grows with the text alone, and never by trying one way after the other. What has no
//! complement and no intersection is run by `regex-automata`; these two become boolean combinations of matchers where
//! they stand outermost, and an automaton of ours where something stands around them.

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

/// Longest expression that is read, in characters: what Elasticsearch's `index.max_regex_length` is by default.
pub const REGEX_LENGTH_MAX: usize = 1000;
/// Most bytes that one expression may take when it is compiled, apart from what matching it caches.
pub const REGEX_BYTES_MAX: usize = 1 << 20;
/// Most bytes that all expressions of one query may take.
pub const REGEXES_BYTES_MAX: usize = 16 << 20;
/// Most states of the automaton of an expression in which something stands around a complement or an intersection.
pub const REGEX_STATES_MAX: usize = 4096;

/// Why a text is no regular expression that can be run.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RegexError {
    /// The syntax does not know it.
    #[error("{message} at character {place} of the expression")]
    Syntax {
        /// What is wrong.
        message: String,
        /// Where, in characters from one on.
        place: usize,
    },
    /// It passes a limit.
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
    /// Reads an expression and makes it ready.
    ///
    /// Without regard to case, characters and the ranges of classes stand for those that Unicode's simple folding makes
    /// the same.
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

    /// The expression as it was written.
    #[must_use]
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// Whether the whole text matches.
    #[must_use]
    pub fn is_match(&self, text: &str) -> bool {
        self.program.is_match(text)
    }

    /// Bytes it takes, apart from what matching caches.
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
