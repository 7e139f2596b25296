//! A deterministic automaton by derivatives, for expressions in which something stands around a complement or an
//! intersection.
//!
//! The derivative of an expression by a character is the expression of what may follow it (Brzozowski 1964), and both
//! operators have simple ones. States are expressions; expressions that are the same but for order, repetition and
//! nesting of unions and intersections are one, which keeps their number finite, and a limit keeps it small.

use std::collections::HashMap;

use super::ast::Ast;
use super::{REGEX_STATES_MAX, RegexError};

/// Most expressions, and references between them, that are made or looked for on the way: some hundredths of a second.
const WORK_MAX: usize = 1 << 20;
/// Most transitions.
const TRANSITIONS_MAX: usize = 1 << 20;

/// The automaton.
#[derive(Debug)]
pub(super) struct Automaton {
    /// The first character of every symbol but the first: characters between two of these are never distinguished.
    bounds: Box<[char]>,
    symbols: usize,
    /// The next state by state and symbol.
    next: Box<[u16]>,
    accepting: Box<[bool]>,
}

impl Automaton {
    pub(super) fn new(ast: &Ast) -> Result<Self, RegexError> {
        let mut bounds = Vec::new();
        collect_bounds(ast, &mut bounds);
        bounds.sort_unstable();
        bounds.dedup();
        let mut builder = Builder { symbols: bounds.len() + 1, ..Builder::default() };
        let start = builder.expression(ast, &bounds)?;
        let mut states = vec![start];
        let mut places = HashMap::from([(start, 0_u16)]);
        let mut next = Vec::new();
        let mut state = 0;
        while state < states.len() {
            for symbol in 0..builder.symbols {
                let expression = builder.derivative(states[state], symbol)?;
                let place = places.len();
                let place = *places.entry(expression).or_insert_with(|| {
                    states.push(expression);
                    place as u16
                });
                next.push(place);
            }
            if states.len() > REGEX_STATES_MAX || next.len() > TRANSITIONS_MAX {
                return Err(too_large());
            }
            state += 1;
        }
        let accepting = states.iter().map(|state| builder.nullable[*state as usize]).collect();
        Ok(Self { bounds: bounds.into(), symbols: builder.symbols, next: next.into(), accepting })
    }

    pub(super) fn is_match(&self, text: &str) -> bool {
        let end = text.chars().fold(0, |state: usize, c| {
            let symbol = self.bounds.partition_point(|bound| *bound <= c);
            self.next[state * self.symbols + symbol].into()
        });
        self.accepting[end]
    }

    pub(super) fn bytes(&self) -> usize {
        self.next.len() * 2 + self.accepting.len() + self.bounds.len() * 4
    }
}

fn too_large() -> RegexError {
    RegexError::TooLarge(format!(
        "the regular expression would need more than {REGEX_STATES_MAX} states, because something stands around a `~` or a `&`"
    ))
}

fn collect_bounds(ast: &Ast, bounds: &mut Vec<char>) {
    match ast {
        Ast::Nothing | Ast::Empty => {}
        Ast::Class(class) => {
            for range in class.iter() {
                bounds.extend(Some(range.start()).filter(|start| *start > '\0'));
                bounds.extend((range.end()..=char::MAX).nth(1));
            }
        }
        Ast::Concat(parts) | Ast::Union(parts) | Ast::Intersection(parts) => {
            parts.iter().for_each(|part| collect_bounds(part, bounds));
        }
        Ast::Complement(inner) | Ast::Repeat { inner, .. } => collect_bounds(inner, bounds),
    }
}

type Id = u32;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Node {
    Nothing,
    Empty,
    /// The symbols, ascending.
    Class(Box<[usize]>),
    Concat(Id, Id),
    /// Ascending, and none twice.
    Union(Box<[Id]>),
    /// Ascending, and none twice.
    Intersection(Box<[Id]>),
    Complement(Id),
    Repeat(Id, u32, Option<u32>),
}

impl Node {
    /// How many others, or symbols, it names.
    fn references(&self) -> usize {
        match self {
            Self::Nothing | Self::Empty => 0,
            Self::Class(symbols) => symbols.len(),
            Self::Complement(_) | Self::Repeat(..) => 1,
            Self::Concat(..) => 2,
            Self::Union(parts) | Self::Intersection(parts) => parts.len(),
        }
    }
}

#[derive(Default)]
struct Builder {
    symbols: usize,
    nodes: Vec<Node>,
    ids: HashMap<Node, Id>,
    /// Whether the text without characters is in the expression.
    nullable: Vec<bool>,
    derivatives: HashMap<(Id, usize), Id>,
    work: usize,
}

type Made = Result<Id, RegexError>;

impl Builder {
    fn expression(&mut self, ast: &Ast, bounds: &[char]) -> Made {
        match ast {
            Ast::Nothing => self.add(Node::Nothing),
            Ast::Empty => self.add(Node::Empty),
            Ast::Class(class) => {
                let symbol = |c: char| bounds.partition_point(|bound| *bound <= c);
                let symbols = class.iter().flat_map(|range| symbol(range.start())..=symbol(range.end()));
                let symbols = symbols.collect();
                self.add(Node::Class(symbols))
            }
            Ast::Concat(parts) => {
                let empty = self.add(Node::Empty)?;
                parts.iter().rev().try_fold(empty, |rest, part| {
                    let part = self.expression(part, bounds)?;
                    self.concat(part, rest)
                })
            }
            Ast::Union(parts) => {
                let parts =
                    parts.iter().map(|part| self.expression(part, bounds)).collect::<Result<_, _>>()?;
                self.union(parts)
            }
            Ast::Intersection(parts) => {
                let parts =
                    parts.iter().map(|part| self.expression(part, bounds)).collect::<Result<_, _>>()?;
                self.intersection(parts)
            }
            Ast::Complement(inner) => {
                let inner = self.expression(inner, bounds)?;
                self.complement(inner)
            }
            Ast::Repeat { inner, min, max } => {
                let inner = self.expression(inner, bounds)?;
                self.repeat(inner, *min, *max)
            }
        }
    }

    /// What may follow a symbol.
    fn derivative(&mut self, id: Id, symbol: usize) -> Made {
        if let Some(known) = self.derivatives.get(&(id, symbol)) {
            return Ok(*known);
        }
        let node = self.nodes[id as usize].clone();
        // Of many parts all are looked at, and what comes of them may be little.
        self.work += node.references();
        let found = match node {
            Node::Nothing | Node::Empty => self.add(Node::Nothing)?,
            Node::Class(symbols) if symbols.binary_search(&symbol).is_ok() => self.add(Node::Empty)?,
            Node::Class(_) => self.add(Node::Nothing)?,
            Node::Concat(first, rest) => {
                let after = self.derivative(first, symbol)?;
                let after = self.concat(after, rest)?;
                if self.nullable[first as usize] {
                    let skipped = self.derivative(rest, symbol)?;
                    self.union(vec![after, skipped])?
                } else {
                    after
                }
            }
            Node::Union(parts) => {
                let parts =
                    parts.iter().map(|part| self.derivative(*part, symbol)).collect::<Result<_, _>>()?;
                self.union(parts)?
            }
            Node::Intersection(parts) => {
                let parts =
                    parts.iter().map(|part| self.derivative(*part, symbol)).collect::<Result<_, _>>()?;
                self.intersection(parts)?
            }
            Node::Complement(inner) => {
                let inner = self.derivative(inner, symbol)?;
                self.complement(inner)?
            }
            Node::Repeat(inner, min, max) => {
                let after = self.derivative(inner, symbol)?;
                let rest = self.repeat(inner, min.saturating_sub(1), max.map(|max| max - 1))?;
                self.concat(after, rest)?
            }
        };
        self.derivatives.insert((id, symbol), found);
        Ok(found)
    }

    fn add(&mut self, node: Node) -> Made {
        self.work += 1 + node.references();
        if self.work > WORK_MAX {
            return Err(too_large());
        }
        if let Some(id) = self.ids.get(&node) {
            return Ok(*id);
        }
        let nullable = |id: &Id| self.nullable[*id as usize];
        self.nullable.push(match &node {
            Node::Nothing | Node::Class(_) => false,
            Node::Empty => true,
            Node::Concat(first, rest) => nullable(first) && nullable(rest),
            Node::Union(parts) => parts.iter().any(nullable),
            Node::Intersection(parts) => parts.iter().all(nullable),
            Node::Complement(inner) => !nullable(inner),
            Node::Repeat(inner, min, _) => *min == 0 || nullable(inner),
        });
        let id = self.nodes.len() as Id;
        self.nodes.push(node.clone());
        self.ids.insert(node, id);
        Ok(id)
    }

    fn concat(&mut self, first: Id, rest: Id) -> Made {
        match (&self.nodes[first as usize], &self.nodes[rest as usize]) {
            (Node::Nothing, _) | (_, Node::Empty) => Ok(first),
            (_, Node::Nothing) | (Node::Empty, _) => Ok(rest),
            (Node::Concat(start, middle), _) => {
                let (start, middle) = (*start, *middle);
                let rest = self.concat(middle, rest)?;
                self.concat(start, rest)
            }
            _ => self.add(Node::Concat(first, rest)),
        }
    }

    fn union(&mut self, parts: Vec<Id>) -> Made {
        let nothing = self.add(Node::Nothing)?;
        let everything = self.complement(nothing)?;
        let parts = self.flat(parts, nothing, |node| match node {
            Node::Union(inner) => Some(inner),
            _ => None,
        });
        match parts.as_slice() {
            [] => Ok(nothing),
            [only] => Ok(*only),
            parts if parts.contains(&everything) => Ok(everything),
            parts => self.add(Node::Union(parts.into())),
        }
    }

    fn intersection(&mut self, parts: Vec<Id>) -> Made {
        let nothing = self.add(Node::Nothing)?;
        let everything = self.complement(nothing)?;
        let parts = self.flat(parts, everything, |node| match node {
            Node::Intersection(inner) => Some(inner),
            _ => None,
        });
        match parts.as_slice() {
            [] => Ok(everything),
            [only] => Ok(*only),
            parts if parts.contains(&nothing) => Ok(nothing),
            parts => self.add(Node::Intersection(parts.into())),
        }
    }

    /// Parts and the parts of parts, ascending, none twice and without the one that changes nothing.
    fn flat(&self, parts: Vec<Id>, neutral: Id, inner: fn(&Node) -> Option<&[Id]>) -> Vec<Id> {
        let mut flat = Vec::new();
        for part in parts {
            match inner(&self.nodes[part as usize]) {
                Some(inner) => flat.extend(inner),
                None => flat.push(part),
            }
        }
        flat.retain(|part| *part != neutral);
        flat.sort_unstable();
        flat.dedup();
        flat
    }

    fn complement(&mut self, inner: Id) -> Made {
        match self.nodes[inner as usize] {
            Node::Complement(inner) => Ok(inner),
            _ => self.add(Node::Complement(inner)),
        }
    }

    fn repeat(&mut self, inner: Id, min: u32, max: Option<u32>) -> Made {
        match (&self.nodes[inner as usize], max) {
            (_, Some(0)) | (Node::Empty, _) => self.add(Node::Empty),
            (_, Some(1)) if min == 1 => Ok(inner),
            // What may be empty may be so any number of times.
            _ if self.nullable[inner as usize] => self.add(Node::Repeat(inner, 0, max)),
            _ => self.add(Node::Repeat(inner, min, max)),
        }
    }
}
