//! A condition made ready to be asked about many events.

use std::collections::HashSet;

use ipnet::IpNet;
use smol_str::SmolStr;

use super::naive::{compare, has_words, lies, values};
use super::pattern::{Pattern, fold};
use crate::event::{Event, FieldId, Value, version};
use crate::field;
use crate::lang::eql::ast::Comparison;
use crate::lang::query::{Condition, EventQuery, Expr, Test};
use crate::lang::regex::Regex;

/// An event query that can be asked whether it matches.
#[derive(Clone, Debug)]
pub struct Matcher {
    root: Node,
    keys: Option<(FieldId, Vec<SmolStr>)>,
}

#[derive(Clone, Debug)]
enum Node {
    Always(bool),
    Not(Box<Node>),
    All(Box<[Node]>),
    Any(Box<[Node]>),
    Exists(Expr),
    Check(Expr, Check),
}

#[derive(Clone, Debug)]
enum Check {
    Texts(HashSet<SmolStr>),
    Values(Vec<Value>),
    Patterns(Vec<Pattern>),
    Folded(Box<Check>),
    Regexes(Vec<Regex>),
    Within(Vec<IpNet>),
    Order(Comparison, Value),
    Version(Comparison, SmolStr),
    Words { words: Vec<SmolStr>, phrase: bool },
}

impl Matcher {
    /// Makes a query ready.
    #[must_use]
    pub fn new(query: &EventQuery) -> Self {
        let mut parts = Vec::new();
        if let Some(category) = &query.category {
            let texts = HashSet::from([category.clone()]);
            parts.push(Node::Check(Expr::Field(field!("event.category")), Check::Texts(texts)));
        }
        parts.push(node(&query.condition));
        Self { root: Node::All(parts.into()), keys: keys(query) }
    }

    /// Whether the event matches.
    #[must_use]
    pub fn matches(&self, event: &Event) -> bool {
        self.root.holds(event, &mut String::new())
    }

    /// Values of which a matching event must have one in this field: what an index of matchers is made by. `None`
    /// where it may match any event.
    #[must_use]
    pub fn keys(&self) -> Option<(FieldId, &[SmolStr])> {
        self.keys.as_ref().map(|(field, keys)| (*field, keys.as_slice()))
    }
}

/// The most telling field that a query fixes to certain values.
fn keys(query: &EventQuery) -> Option<(FieldId, Vec<SmolStr>)> {
    let telling = [field!("event.action"), field!("event.dataset"), field!("event.category")];
    let fixed = |wanted: FieldId| fixed(&query.condition, wanted).map(|texts| (wanted, texts));
    let category = query.category.iter().map(|category| (field!("event.category"), vec![category.clone()]));
    telling.into_iter().find_map(fixed).or_else(|| category.into_iter().next())
}

/// The texts one of which `field` must have for the condition to hold, where the condition says so.
fn fixed(condition: &Condition, field: FieldId) -> Option<Vec<SmolStr>> {
    match condition {
        Condition::Test(Expr::Field(tested), Test::OneOf { values, insensitive: false })
            if *tested == field =>
        {
            values.iter().map(|value| value.as_text().map(SmolStr::from)).collect()
        }
        Condition::All(parts) => parts.iter().find_map(|part| fixed(part, field)),
        Condition::Any(parts) => {
            let parts: Vec<_> = parts.iter().map(|part| fixed(part, field)).collect::<Option<_>>()?;
            Some(parts.concat())
        }
        _ => None,
    }
}

fn node(condition: &Condition) -> Node {
    match condition {
        Condition::Always(truth) => Node::Always(*truth),
        Condition::Not(inner) => Node::Not(Box::new(node(inner))),
        Condition::All(parts) => Node::All(parts.iter().map(node).collect()),
        Condition::Any(parts) => Node::Any(parts.iter().map(node).collect()),
        Condition::Exists(expr) => Node::Exists(expr.clone()),
        Condition::Test(expr, test) => Node::Check(expr.clone(), check(test)),
    }
}

fn check(test: &Test) -> Check {
    let folded = |insensitive: bool, check| if insensitive { Check::Folded(Box::new(check)) } else { check };
    match test {
        Test::OneOf { values, insensitive } => {
            let texts: Option<HashSet<SmolStr>> = values
                .iter()
                .map(|value| value.as_text())
                .map(|text| {
                    text.map(
                        |text| if *insensitive { fold(text, &mut String::new()).into() } else { text.into() },
                    )
                })
                .collect();
            match texts {
                Some(texts) => folded(*insensitive, Check::Texts(texts)),
                None => Check::Values(values.clone()),
            }
        }
        Test::Like { patterns, insensitive } => {
            let patterns = patterns.iter().map(|pattern| Pattern::new(pattern, *insensitive)).collect();
            folded(*insensitive, Check::Patterns(patterns))
        }
        Test::Regex { patterns, .. } => Check::Regexes(patterns.clone()),
        Test::Within(networks) => Check::Within(networks.clone()),
        Test::Order(comparison, value) => Check::Order(*comparison, value.clone()),
        Test::Version(comparison, version) => Check::Version(*comparison, version.clone()),
        Test::Words { words, phrase } => Check::Words { words: words.clone(), phrase: *phrase },
    }
}

impl Node {
    fn holds(&self, event: &Event, scratch: &mut String) -> bool {
        match self {
            Self::Always(truth) => *truth,
            Self::Not(inner) => !inner.holds(event, scratch),
            Self::All(parts) => parts.iter().all(|part| part.holds(event, scratch)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(event, scratch)),
            Self::Exists(Expr::Field(field)) => event.get(*field).is_some(),
            Self::Exists(expr) => !values(expr, event).is_empty(),
            Self::Check(Expr::Field(field), check) => {
                event.values(*field).iter().any(|value| check.passes(value, scratch))
            }
            Self::Check(expr, check) => values(expr, event).iter().any(|value| check.passes(value, scratch)),
        }
    }
}

impl Check {
    fn passes(&self, value: &Value, scratch: &mut String) -> bool {
        match (self, value) {
            (Self::Folded(check), Value::Text(text)) => match (&**check, fold(text, scratch)) {
                (Self::Texts(texts), folded) => texts.contains(folded),
                (Self::Patterns(patterns), folded) => patterns.iter().any(|pattern| pattern.matches(folded)),
                _ => false,
            },
            (Self::Texts(texts), Value::Text(text)) => texts.contains(text),
            (Self::Patterns(patterns), Value::Text(text)) => {
                patterns.iter().any(|pattern| pattern.matches(text))
            }
            (Self::Regexes(regexes), Value::Text(text)) => regexes.iter().any(|regex| regex.is_match(text)),
            (Self::Within(networks), Value::Ip(address)) => {
                networks.iter().any(|network| network.contains(address))
            }
            (Self::Values(wanted), value) => {
                wanted.iter().any(|wanted| compare(value, wanted).is_some_and(|o| o.is_eq()))
            }
            (Self::Order(comparison, wanted), value) => {
                compare(value, wanted).is_some_and(|order| lies(*comparison, order))
            }
            (Self::Version(comparison, wanted), Value::Text(text)) => {
                lies(*comparison, version::compare(text, wanted))
            }
            (Self::Words { words, phrase }, Value::Text(text)) => has_words(text, words, *phrase),
            _ => false,
        }
    }
}
