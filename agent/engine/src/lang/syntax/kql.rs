//! KQL's text: its tokens and its syntax tree.

pub mod ast;
pub(in crate::lang) mod lexer;
mod parser;

pub(in crate::lang) use self::parser::read;
