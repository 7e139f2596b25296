//! What a query demands of a field: nothing, any value, or one of those that it names.

use super::query::{Condition, EventQuery, Expr, Test};
use super::wildcard::WildcardPart;
use crate::event::FieldId;

/// What the values of a field must be where a condition holds, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Demand {
    /// The field may be absent, or hold whatever it does not exclude.
    Nothing,
    /// It is there, and any value will do.
    Any,
    /// It has a value that passes a test.
    Passing,
}

impl EventQuery {
    /// What it demands of a field.
    #[must_use]
    pub fn demand(&self, field: FieldId) -> Demand {
        self.condition.demand(field)
    }
}

impl Condition {
    fn demand(&self, field: FieldId) -> Demand {
        let of = |parts: &[Self]| parts.iter().map(|part| part.demand(field)).collect::<Vec<_>>();
        let is_it = |expr: &Expr| matches!(expr, Expr::Field(one) | Expr::Opened(one) if *one == field);
        match self {
            Self::All(parts) => of(parts).into_iter().max().unwrap_or(Demand::Nothing),
            // Where one of them takes any value, the others take none away.
            Self::Any(parts) if of(parts).contains(&Demand::Any) => Demand::Any,
            Self::Any(parts) => of(parts).into_iter().min().unwrap_or(Demand::Nothing),
            Self::Exists(expr) if is_it(expr) => Demand::Any,
            Self::Test(expr, test) if is_it(expr) && test.takes_any() => Demand::Any,
            Self::Test(expr, _) if expr.names(field) => Demand::Passing,
            // An exclusion among them: it demands no value.
            _ => Demand::Nothing,
        }
    }
}

impl Test {
    /// Whether every text passes that is not empty.
    fn takes_any(&self) -> bool {
        use WildcardPart::{Many, One};
        match self {
            Self::Like { patterns, .. } | Self::WordsLike(patterns) => patterns
                .iter()
                .any(|pattern| matches!(pattern.0.as_slice(), [Many] | [One, Many] | [Many, One])),
            Self::Regex { patterns, .. } => {
                patterns.iter().any(|pattern| matches!(pattern.pattern(), ".*" | ".+"))
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Schema;
    use crate::field;
    use crate::lang::{eql, kql};

    #[test]
    fn demands_are_those_of_all_parts_together() {
        const FIELD: FieldId = field!("process.env_vars");
        for (query, demand) in [
            ("process.env_vars: *", Demand::Any),
            ("process.name: x and process.env_vars: * and not process.parent.name: y", Demand::Any),
            ("process.name: x or process.env_vars: *", Demand::Any),
            ("process.env_vars: * and not process.env_vars: HISTSIZE=*", Demand::Any),
            ("process.env_vars: LD_PRELOAD=*", Demand::Passing),
            ("process.env_vars: * and process.env_vars: LD_PRELOAD=*", Demand::Passing),
            ("process.env_vars: (LD_PRELOAD=* or LD_AUDIT=*)", Demand::Passing),
            ("process.name: x or process.env_vars: LD_PRELOAD=*", Demand::Nothing),
            ("process.name: x and not process.env_vars: *", Demand::Nothing),
        ] {
            let parsed = kql::parse(query, &mut Schema::new());
            let (parsed, _) = parsed.unwrap_or_else(|faults| panic!("{query}: {faults:?}"));
            assert_eq!(parsed.demand(FIELD), demand, "{query}");
        }
        for (condition, demand) in [
            (r#"process.env_vars like "*""#, Demand::Any),
            (r#"process.env_vars : ("*", "A=*")"#, Demand::Any),
            (r#"process.env_vars like "?*""#, Demand::Any),
            (r#"process.env_vars like "??""#, Demand::Passing),
            (r#"process.env_vars regex ".*""#, Demand::Any),
            (r#"process.env_vars regex "LD_.*""#, Demand::Passing),
            ("process.env_vars != null", Demand::Any),
            ("process.env_vars == null", Demand::Nothing),
            (r#"process.env_vars != "A=1""#, Demand::Nothing),
            (r#"startsWith(process.env_vars, "LD_")"#, Demand::Passing),
        ] {
            let query = format!("process where {condition}");
            let parsed = eql::parse(&query, &mut Schema::new());
            let (parsed, _) = parsed.unwrap_or_else(|faults| panic!("{query}: {faults:?}"));
            let demands: Vec<_> = parsed.events().map(|event| event.demand(FIELD)).collect();
            assert_eq!(demands, [demand], "{query}");
        }
    }
}
