//! With which texts a query compares a field: what a source must collect for the query to find it.

use std::collections::BTreeSet;

use smol_str::{SmolStr, ToSmolStr as _};

use super::query::{Condition, EventQuery, Expr, Query, Test};
use crate::event::FieldId;

/// Texts in the order of the alphabet, each once.
type Found = BTreeSet<SmolStr>;

impl Query {
    /// Every text that it compares values of the field with: values, patterns with their wildcards, regular expressions and
    /// arguments of functions, whether or not they must match.
    #[must_use]
    pub fn texts(&self, field: FieldId) -> BTreeSet<SmolStr> {
        let mut found: Found = self.events().flat_map(|event| event.texts(field)).collect();
        let later = self.stages().filter_map(|stage| stage.later.as_ref());
        let related = match self {
            Self::Lineage(lineage) => lineage.conditions.as_slice(),
            _ => &[],
        };
        later
            .chain(related.iter().flatten())
            .for_each(|condition| condition.collect_texts(field, &mut found));
        found
    }
}

impl EventQuery {
    /// As [`Query::texts`].
    #[must_use]
    pub fn texts(&self, field: FieldId) -> BTreeSet<SmolStr> {
        self.condition.texts(field)
    }
}

impl Condition {
    /// As [`Query::texts`].
    #[must_use]
    pub fn texts(&self, field: FieldId) -> BTreeSet<SmolStr> {
        let mut found = Found::new();
        self.collect_texts(field, &mut found);
        found
    }

    fn collect_texts(&self, field: FieldId, found: &mut Found) {
        match self {
            Self::Always(_) | Self::Related(..) => {}
            Self::Not(inner) => inner.collect_texts(field, found),
            Self::All(parts) | Self::Any(parts) => {
                parts.iter().for_each(|part| part.collect_texts(field, found))
            }
            Self::Exists(expr) => expr.collect_texts(field, found),
            Self::Test(expr, test) => {
                if expr.names(field) {
                    test.collect_texts(found);
                }
                expr.collect_texts(field, found);
            }
            Self::Anywhere(groups) => {
                let tests = groups.iter().filter(|(fields, _)| fields.contains(&field));
                tests.filter_map(|(_, test)| test.as_ref()).for_each(|test| test.collect_texts(found));
            }
            Self::Compare(_, left, right) => {
                left.collect_texts(field, found);
                right.collect_texts(field, found);
            }
        }
    }
}

impl Expr {
    pub(super) fn names(&self, field: FieldId) -> bool {
        let mut fields = Vec::new();
        self.collect_fields(&mut fields);
        fields.contains(&field)
    }

    fn collect_texts(&self, field: FieldId, found: &mut Found) {
        match self {
            Self::Constant(_) | Self::Field(_) | Self::Opened(_) | Self::Earlier { .. } => {}
            Self::Call { arguments, .. } => {
                if self.names(field) {
                    found.extend(arguments.iter().filter_map(|argument| match argument {
                        Self::Constant(Some(value)) => value.as_text().map(SmolStr::new),
                        _ => None,
                    }));
                }
                arguments.iter().for_each(|argument| argument.collect_texts(field, found));
            }
            Self::Arithmetic(_, left, right) => {
                left.collect_texts(field, found);
                right.collect_texts(field, found);
            }
            Self::Truth(condition) => condition.collect_texts(field, found),
        }
    }
}

impl Test {
    fn collect_texts(&self, found: &mut Found) {
        match self {
            Self::OneOf { values, .. } => {
                found.extend(values.iter().filter_map(|value| value.as_text().map(SmolStr::new)));
            }
            Self::Like { patterns, .. } | Self::WordsLike(patterns) => {
                found.extend(patterns.iter().map(|pattern| pattern.to_smolstr()));
            }
            Self::Regex { patterns, .. } => {
                found.extend(patterns.iter().map(|pattern| SmolStr::new(pattern.pattern())));
            }
            Self::Words { words, .. } => found.extend(words.iter().cloned()),
            Self::Within(_) | Self::Order(..) | Self::Version(..) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::event::Schema;
    use crate::field;

    #[test]
    fn texts_are_found_wherever_a_query_has_them() {
        for (query, expected) in [
            (r#"process where process.env_vars == "A=1" and process.name == "x""#, &["A=1"][..]),
            (r#"process where not process.env_vars : ("B=*", "C?")"#, &["B=*", "C?"]),
            (r#"process where process.env_vars regex~ "D(E|F)=.*""#, &["D(E|F)=.*"]),
            (r#"process where stringContains(process.env_vars, "G") or process.pid == 1"#, &["G"]),
            (
                r#"sequence by process.entity_id [process where process.env_vars like~ "H=*"] [process where true]"#,
                &["H=*"],
            ),
            ("process where process.env_vars != null", &[]),
        ] {
            let parsed = crate::lang::eql::parse(query, &mut Schema::new());
            let (parsed, _) = parsed.unwrap_or_else(|faults| panic!("{query}: {faults:?}"));
            let found: Vec<_> = parsed.texts(field!("process.env_vars")).into_iter().collect();
            assert_eq!(found, expected, "{query}");
        }
    }
}
