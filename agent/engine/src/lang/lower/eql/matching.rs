//! `like`, `regex`, `in`, `:` and `cidrMatch`: values against constants.

use super::super::{Lowering, convert};
use super::ValueKind;
use crate::event::{Type, Value};
use crate::lang::diagnostic::{Diagnostic, Span, code};
use crate::lang::query::{Condition, Expr, Test};
use crate::lang::regex::{REGEXES_BYTES_MAX, Regex, RegexError};
use crate::lang::syntax::eql::ast::{Expr as Ast, Operator};
use crate::lang::wildcard::Wildcard;
use ipnet::IpNet;

impl Lowering<'_> {
    pub(super) fn matching(&mut self, operator: Operator, value: &Ast, list: &[Ast]) -> Option<Condition> {
        let (expr, kind) = self.expression(value)?;
        let ValueKind::Of(ty) = kind else { return Some(Condition::Always(false)) };
        let mut constants = Vec::new();
        for entry in list {
            match self.expression(entry)?.0 {
                Expr::Constant(Some(constant)) => constants.push((constant, entry.span)),
                _ => {
                    let message = "a list holds constants only, and no null";
                    self.report(Diagnostic::new(code::TYPES, entry.span, message));
                    return None;
                }
            }
        }
        let name = self.name_of(&expr);
        let test = match operator {
            Operator::In { insensitive } => {
                let values: Vec<_> =
                    constants.iter().map(|(value, span)| self.constant(&name, ty, value, *span)).collect();
                Test::OneOf { values: values.into_iter().collect::<Option<_>>()?, insensitive }
            }
            Operator::Like { insensitive } => self.like(&name, ty, &constants, insensitive)?,
            Operator::Regex { insensitive } => self.regex(&name, ty, &constants, insensitive)?,
        };
        Some(Condition::Test(expr, test))
    }

    /// Patterns; those for a field that is no text have no wildcards and are values.
    fn like(&mut self, name: &str, ty: Type, patterns: &[(Value, Span)], insensitive: bool) -> Option<Test> {
        let mut texts = Vec::new();
        for (pattern, span) in patterns {
            let Value::Text(text) = pattern else {
                let message = format!("`{name}` is matched with patterns, which are strings");
                self.report(
                    Diagnostic::new(code::TYPES, *span, message).help("use `==` or `in` for other constants"),
                );
                return None;
            };
            texts.push((text, *span));
        }
        let wildcards: Vec<_> = texts.iter().map(|(text, _)| Wildcard::parse(text, true)).collect();
        if ty.is_text() && wildcards.iter().any(|wildcard| wildcard.as_text().is_none()) {
            return Some(Test::Like { patterns: wildcards, insensitive });
        }
        let values: Vec<_> =
            patterns.iter().map(|(pattern, span)| self.constant(name, ty, pattern, *span)).collect();
        Some(Test::OneOf { values: values.into_iter().collect::<Option<_>>()?, insensitive })
    }

    /// Regular expressions, each read and compiled within the limits.
    fn regex(&mut self, name: &str, ty: Type, patterns: &[(Value, Span)], insensitive: bool) -> Option<Test> {
        let mut regexes = Vec::new();
        for (pattern, span) in patterns {
            let Value::Text(text) = pattern else {
                let message = format!("`{name}` is matched with regular expressions, which are strings");
                self.report(Diagnostic::new(code::TYPES, *span, message));
                return None;
            };
            if !matches!(ty, Type::Keyword | Type::Text | Type::Flattened) {
                let message = format!("`{name}` is of type {} and no text to match", ty.name());
                self.report(Diagnostic::new(code::TYPES, *span, message).label("matches text only"));
                return None;
            }
            match Regex::new(text, insensitive).and_then(|regex| self.counted(regex)) {
                Ok(regex) => regexes.push(regex),
                Err(error) => {
                    let code = match error {
                        RegexError::Syntax { .. } => code::BAD_REGEX,
                        RegexError::TooLarge(_) => code::REGEX_TOO_LARGE,
                    };
                    self.report(Diagnostic::new(code, *span, error.to_string()));
                    return None;
                }
            }
        }
        Some(Test::Regex { patterns: regexes, insensitive })
    }

    /// Adds an expression to what those of the query take together.
    fn counted(&mut self, regex: Regex) -> Result<Regex, RegexError> {
        self.regex_bytes += regex.bytes();
        if self.regex_bytes <= REGEXES_BYTES_MAX {
            return Ok(regex);
        }
        let message =
            format!("the regular expressions of one query may take {REGEXES_BYTES_MAX} bytes together");
        Err(RegexError::TooLarge(message))
    }

    /// `cidrMatch(address, network, …)`
    pub(super) fn cidr_match(&mut self, arguments: &[Ast], span: Span) -> Option<Condition> {
        let (expr, kind) = self.call("cidrMatch", false, arguments, span)?;
        let Expr::Call { arguments: lowered, .. } = expr else { return None };
        let mut lowered = lowered.into_iter();
        let address = lowered.next()?;
        debug_assert!(kind == ValueKind::Of(Type::Boolean));
        let mut networks = Vec::new();
        for (argument, ast) in lowered.zip(&arguments[1..]) {
            let network = match &argument {
                Expr::Constant(Some(Value::Text(text))) => network(text),
                _ => None,
            };
            let Some(network) = network else {
                let fault = Diagnostic::new(code::ARGUMENTS, ast.span, "this is no network");
                self.report(fault.help("write networks like \"10.0.0.0/8\" or \"fd00::/8\""));
                return None;
            };
            networks.push(network);
        }
        Some(Condition::Test(address, Test::Within(networks)))
    }
}

/// Reads a network; an address alone is the network of that address.
pub(in crate::lang::lower) fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| match convert(Type::Ip, &text.into())? {
        Value::Ip(address) => Some(address.into()),
        _ => None,
    })
}
