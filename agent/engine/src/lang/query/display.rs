//! The text of a query, with the names of its fields.

use std::fmt;

use super::{Condition, EventQuery, Expr, Query, Stage, Test};
use crate::event::{Schema, Value};
use crate::lang::operator::Arithmetic;

pub(super) struct Shown<'a, T>(pub(super) &'a T, pub(super) &'a Schema);

impl fmt::Display for Shown<'_, Query> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(query, schema) = self;
        match query {
            Query::Event(query) => Shown(query, schema).fmt(f),
            Query::Sequence(sequence) => {
                f.write_str("sequence")?;
                if let Some(maxspan) = sequence.maxspan {
                    write!(f, " within {maxspan:?}")?;
                }
                for stage in &sequence.stages {
                    write!(f, "\n  {}", Shown(stage, schema))?;
                }
                sequence.until.iter().try_for_each(|stage| write!(f, "\nuntil\n  {}", Shown(stage, schema)))
            }
            Query::Lineage(lineage) => {
                Shown(&*lineage.query, schema).fmt(f)?;
                for (index, subquery) in lineage.subqueries.iter().enumerate() {
                    write!(f, "\nwith #{index} [{}]", Shown(subquery, schema))?;
                }
                let conditions = lineage.conditions.iter().enumerate();
                conditions.filter_map(|(part, condition)| Some((part, condition.as_ref()?))).try_for_each(
                    |(part, condition)| write!(f, "\nand event query {part} if {}", Shown(condition, schema)),
                )
            }
            Query::Sample(sample) => {
                f.write_str("sample")?;
                sample.stages.iter().try_for_each(|stage| write!(f, "\n  {}", Shown(stage, schema)))
            }
        }
    }
}

impl fmt::Display for Shown<'_, Stage> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(stage, schema) = self;
        write!(f, "{}[{}", if stage.missing { "!" } else { "" }, Shown(&stage.query, schema))?;
        stage.later.iter().try_for_each(|later| write!(f, "; then {}", Shown(later, schema)))?;
        f.write_str("]")?;
        for (index, key) in stage.keys.iter().enumerate() {
            let name = key.field.map_or("(unknown)", |field| schema.name(field));
            let (lead, mark) = (if index == 0 { " by " } else { ", " }, if key.optional { "?" } else { "" });
            write!(f, "{lead}{mark}{name}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Shown<'_, EventQuery> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(query, schema) = self;
        write!(f, "{} where ", query.category.as_deref().unwrap_or("any"))?;
        Shown(&query.condition, schema).fmt(f)
    }
}

impl fmt::Display for Shown<'_, Condition> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(condition, schema) = self;
        match condition {
            Condition::Always(truth) => write!(f, "{truth}"),
            Condition::Not(inner) => write!(f, "not {}", Shown(&**inner, schema)),
            Condition::All(parts) => listed(f, parts, schema, " and "),
            Condition::Any(parts) => listed(f, parts, schema, " or "),
            Condition::Exists(expr) => write!(f, "exists {}", Shown(expr, schema)),
            Condition::Test(expr, test) => write!(f, "{} {test}", Shown(expr, schema)),
            Condition::Compare(comparison, left, right) => {
                write!(f, "{} {comparison} {}", Shown(left, schema), Shown(right, schema))
            }
            Condition::Anywhere(groups) => {
                f.write_str("(")?;
                for (index, (fields, test)) in groups.iter().enumerate() {
                    let what = test.as_ref().map_or("there".to_owned(), Test::to_string);
                    let word = if index == 0 { "" } else { " or " };
                    write!(f, "{word}any of {} fields {what}", fields.len())?;
                }
                f.write_str(")")
            }
            Condition::Related(relation, subquery) => write!(f, "{} of #{subquery}", relation.name()),
        }
    }
}

fn listed(f: &mut fmt::Formatter<'_>, parts: &[Condition], schema: &Schema, word: &str) -> fmt::Result {
    f.write_str("(")?;
    for (index, part) in parts.iter().enumerate() {
        write!(f, "{}{}", if index == 0 { "" } else { word }, Shown(part, schema))?;
    }
    f.write_str(")")
}

impl fmt::Display for Shown<'_, Expr> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(expr, schema) = self;
        match expr {
            Expr::Constant(None) => f.write_str("null"),
            Expr::Constant(Some(value)) => write!(f, "{}", Quoted(value)),
            Expr::Field(field) => f.write_str(schema.name(*field)),
            Expr::Opened(field) => write!(f, "opened({})", schema.name(*field)),
            Expr::Earlier { stage, field, opened } => {
                let (open, close) = if *opened { ("opened(", ")") } else { ("", "") };
                write!(f, "{open}stage {stage}'s {}{close}", schema.name(*field))
            }
            Expr::Call { function, insensitive, arguments } => {
                write!(f, "{}{}(", function.name(), if *insensitive { "~" } else { "" })?;
                for (index, argument) in arguments.iter().enumerate() {
                    write!(f, "{}{}", if index == 0 { "" } else { ", " }, Shown(argument, schema))?;
                }
                f.write_str(")")
            }
            Expr::Arithmetic(operator, left, right) => {
                let sign = match operator {
                    Arithmetic::Add => "+",
                    Arithmetic::Subtract => "-",
                    Arithmetic::Multiply => "*",
                    Arithmetic::Divide => "/",
                    Arithmetic::Modulo => "%",
                };
                write!(f, "({} {sign} {})", Shown(&**left, schema), Shown(&**right, schema))
            }
            Expr::Truth(condition) => write!(f, "truth({})", Shown(&**condition, schema)),
        }
    }
}

struct Quoted<'a>(&'a Value);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Text(text) => write!(f, "{text:?}"),
            value => f.write_str(&value.to_text()),
        }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = |insensitive: &bool| if *insensitive { "~" } else { "" };
        let joined = |texts: Vec<String>| texts.join(", ");
        match self {
            Self::OneOf { values, insensitive } => {
                let values = values.iter().map(|value| Quoted(value).to_string()).collect();
                write!(f, "in{} ({})", mark(insensitive), joined(values))
            }
            Self::Like { patterns, insensitive } => {
                let patterns = patterns.iter().map(|pattern| format!("{:?}", pattern.to_string())).collect();
                write!(f, "like{} ({})", mark(insensitive), joined(patterns))
            }
            Self::Regex { patterns, insensitive } => {
                let patterns = patterns.iter().map(|regex| format!("{:?}", regex.pattern())).collect();
                write!(f, "regex{} ({})", mark(insensitive), joined(patterns))
            }
            Self::Within(networks) => {
                write!(f, "within ({})", joined(networks.iter().map(ToString::to_string).collect()))
            }
            Self::Order(comparison, value) => write!(f, "{comparison} {}", Quoted(value)),
            Self::Version(comparison, version) => write!(f, "{comparison} version {version:?}"),
            Self::WordsLike(patterns) => {
                let patterns = patterns.iter().map(|pattern| format!("{:?}", pattern.to_string())).collect();
                write!(f, "words like ({})", joined(patterns))
            }
            Self::Words { words, phrase } => {
                write!(f, "{} {:?}", if *phrase { "phrase" } else { "words" }, words.join(" "))
            }
        }
    }
}
