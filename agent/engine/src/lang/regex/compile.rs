//! An expression to what is run.

use regex_automata::meta;
use regex_automata::{Anchored, Input};
use regex_syntax::hir::{Class, Hir, Look, Repetition};

use super::ast::Ast;
use super::automaton::Automaton;
use super::{REGEX_BYTES_MAX, RegexError};

/// Most bytes that matching one expression may cache.
const CACHE_BYTES_MAX: usize = 256 << 10;

/// What is run.
#[derive(Debug)]
pub(super) enum RegexProgram {
    /// Without complement and intersection.
    Plain(Box<meta::Regex>),
    /// With one of them inside something else.
    Automaton(Automaton),
    Not(Box<Self>),
    All(Vec<Self>),
    Any(Vec<Self>),
}

/// Makes an expression ready.
pub(super) fn compile(ast: &Ast) -> Result<RegexProgram, RegexError> {
    let all = |parts: &[Ast]| parts.iter().map(compile).collect::<Result<Vec<_>, _>>();
    match ast {
        Ast::Complement(inner) => compile(inner).map(|inner| RegexProgram::Not(Box::new(inner))),
        Ast::Intersection(parts) => all(parts).map(RegexProgram::All),
        Ast::Union(parts) if ast.is_boolean() => all(parts).map(RegexProgram::Any),
        _ if ast.is_boolean() => Automaton::new(ast).map(RegexProgram::Automaton),
        _ => plain(ast),
    }
}

fn plain(ast: &Ast) -> Result<RegexProgram, RegexError> {
    let hir = Hir::concat(vec![Hir::look(Look::Start), hir(ast), Hir::look(Look::End)]);
    let config = meta::Config::new()
        .nfa_size_limit(Some(REGEX_BYTES_MAX))
        .hybrid_cache_capacity(CACHE_BYTES_MAX)
        .utf8_empty(true);
    match meta::Builder::new().configure(config).build_from_hir(&hir) {
        Ok(regex) => Ok(RegexProgram::Plain(Box::new(regex))),
        Err(_) => Err(RegexError::TooLarge(format!(
            "the regular expression would take more than {REGEX_BYTES_MAX} bytes"
        ))),
    }
}

fn hir(ast: &Ast) -> Hir {
    match ast {
        // An expression with a complement or an intersection never comes here, and matches nothing.
        Ast::Nothing | Ast::Complement(_) | Ast::Intersection(_) => Hir::fail(),
        Ast::Empty => Hir::empty(),
        Ast::Class(class) => Hir::class(Class::Unicode(class.clone())),
        Ast::Concat(parts) => Hir::concat(parts.iter().map(hir).collect()),
        Ast::Union(parts) => Hir::alternation(parts.iter().map(hir).collect()),
        Ast::Repeat { inner, min, max } => {
            Hir::repetition(Repetition { min: *min, max: *max, greedy: true, sub: Box::new(hir(inner)) })
        }
    }
}

impl RegexProgram {
    pub(super) fn is_match(&self, text: &str) -> bool {
        match self {
            Self::Plain(regex) => regex.is_match(Input::new(text).anchored(Anchored::Yes).earliest(true)),
            Self::Automaton(automaton) => automaton.is_match(text),
            Self::Not(inner) => !inner.is_match(text),
            Self::All(parts) => parts.iter().all(|part| part.is_match(text)),
            Self::Any(parts) => parts.iter().any(|part| part.is_match(text)),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Plain(regex) => regex.memory_usage(),
            Self::Automaton(automaton) => automaton.bytes(),
            Self::Not(inner) => inner.bytes(),
            Self::All(parts) | Self::Any(parts) => parts.iter().map(Self::bytes).sum(),
        }
    }
}
