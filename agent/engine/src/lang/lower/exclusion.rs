//! Conditions that exclude: below a `not`, in `until`, in a missing event, in an exception.
//!
//! Such a condition suppresses an alert if it holds. The names that a process chooses must not do that: of fields such as
//! `process.name` the condition sees only the names of opened files. All other conditions see all names. A condition on
//! values holds if one of them passes, so that fewer values never make it hold. The same is true of a function's result
//! and of a comparison of two fields. If a condition is itself a value, as in `string(process.name == "a") == "false"`,
//! it may exclude or not: the rule matches by either reading.

use crate::lang::query::{Condition, EventQuery, Expr, Query, Sequence, Stage, Test};

impl Query {
    /// The query, with exclusions that see only the names of opened files.
    pub(super) fn guarded(self) -> Self {
        match self {
            Self::Event(query) => Self::Event(query.guarded()),
            Self::Sequence(Sequence { stages, until, maxspan }) => Self::Sequence(Sequence {
                stages: stages.into_iter().map(|stage| stage.guarded(false)).collect(),
                until: until.map(|until| until.guarded(true)),
                maxspan,
            }),
            Self::Sample(mut sample) => {
                sample.stages = sample.stages.into_iter().map(|stage| stage.guarded(false)).collect();
                Self::Sample(sample)
            }
            Self::Lineage(mut lineage) => {
                lineage.query = Box::new(lineage.query.guarded());
                let own = lineage.query.exclusions();
                // The queries that use a subquery come after it. In this order they are visited first.
                let mut excludes = vec![false; lineage.subqueries.len()];
                let count = own.len() + lineage.subqueries.len();
                for place in (0..own.len()).chain((own.len()..count).rev()) {
                    let subquery = place.checked_sub(own.len());
                    let is_excluded = subquery.map_or_else(|| own[place], |subquery| excludes[subquery]);
                    if let Some(subquery) = subquery {
                        let query = &mut lineage.subqueries[subquery];
                        query.condition = std::mem::replace(&mut query.condition, Condition::Always(false))
                            .guarded(is_excluded);
                    }
                    if let Some(condition) = lineage.conditions[place].take() {
                        condition.mark_exclusions(is_excluded, &mut excludes);
                        lineage.conditions[place] = Some(condition.guarded(is_excluded));
                    }
                }
                Self::Lineage(lineage)
            }
        }
    }

    /// For each event query, in order, whether its match suppresses an alert.
    fn exclusions(&self) -> Vec<bool> {
        match self {
            Self::Event(_) => vec![false],
            Self::Sequence(sequence) => {
                let stages = sequence.stages.iter().map(|stage| stage.missing);
                stages.chain(sequence.until.iter().map(|_| true)).collect()
            }
            Self::Sample(sample) => vec![false; sample.stages.len()],
            Self::Lineage(_) => Vec::new(),
        }
    }
}

impl Stage {
    fn guarded(self, is_until: bool) -> Self {
        let excludes = self.missing || is_until;
        let query = EventQuery { condition: self.query.condition.guarded(excludes), ..self.query };
        Self { query, later: self.later.map(|later| later.guarded(excludes)), ..self }
    }
}

impl EventQuery {
    /// The query, with exclusions that see only the names of opened files.
    pub(super) fn guarded(self) -> Self {
        Self { condition: self.condition.guarded(false), ..self }
    }

    /// The same for a query that is wholly an exclusion, such as an exception's.
    pub(crate) fn into_exclusion(self) -> Self {
        Self { condition: self.condition.guarded(true), ..self }
    }
}

impl Condition {
    fn guarded(self, excludes: bool) -> Self {
        let all = |parts: Vec<Self>| parts.into_iter().map(|part| part.guarded(excludes)).collect();
        match self {
            Self::Not(inner) => Self::Not(Box::new(inner.guarded(!excludes))),
            Self::All(parts) => Self::All(all(parts)),
            Self::Any(parts) => Self::Any(all(parts)),
            Self::Anywhere(groups) if excludes => of_opened_files(groups),
            leaf if excludes => leaf.seeing(true),
            leaf if leaf.has_truth_of_names() => {
                Self::Any(vec![leaf.clone().seeing(false), leaf.seeing(true)])
            }
            leaf => leaf.seeing(false),
        }
    }

    /// A condition without parts, which sees only the names of opened files, or all names.
    fn seeing(self, opened: bool) -> Self {
        match self {
            Self::Exists(expr) => Self::Exists(expr.seeing(opened)),
            Self::Test(expr, test) => Self::Test(expr.seeing(opened), test),
            Self::Compare(comparison, left, right) => {
                Self::Compare(comparison, left.seeing(opened), right.seeing(opened))
            }
            Self::Not(inner) => Self::Not(Box::new(inner.seeing(opened))),
            Self::All(parts) => Self::All(parts.into_iter().map(|part| part.seeing(opened)).collect()),
            Self::Any(parts) => Self::Any(parts.into_iter().map(|part| part.seeing(opened)).collect()),
            Self::Anywhere(groups) if opened => of_opened_files(groups),
            other @ (Self::Always(_) | Self::Anywhere(_) | Self::Related(..)) => other,
        }
    }

    /// Whether a condition that is a value tests names.
    fn has_truth_of_names(&self) -> bool {
        match self {
            Self::Exists(expr) | Self::Test(expr, _) => expr.has_truth_of_names(),
            Self::Compare(_, left, right) => left.has_truth_of_names() || right.has_truth_of_names(),
            _ => false,
        }
    }

    /// Marks the subqueries that it uses in exclusions.
    fn mark_exclusions(&self, excludes: bool, marks: &mut [bool]) {
        match self {
            Self::Not(inner) => inner.mark_exclusions(!excludes, marks),
            Self::All(parts) | Self::Any(parts) => {
                parts.iter().for_each(|part| part.mark_exclusions(excludes, marks));
            }
            Self::Related(_, subquery) => marks[*subquery] |= excludes,
            _ => {}
        }
    }
}

impl Expr {
    fn seeing(self, opened: bool) -> Self {
        match self {
            Self::Field(field) | Self::Opened(field) if opened && field.opened().is_some() => {
                Self::Opened(field)
            }
            Self::Field(field) | Self::Opened(field) => Self::Field(field),
            Self::Earlier { stage, field, .. } => {
                Self::Earlier { stage, field, opened: opened && field.opened().is_some() }
            }
            Self::Call { function, insensitive, arguments } => {
                let arguments = arguments.into_iter().map(|argument| argument.seeing(opened)).collect();
                Self::Call { function, insensitive, arguments }
            }
            Self::Arithmetic(operator, left, right) => {
                Self::Arithmetic(operator, Box::new(left.seeing(opened)), Box::new(right.seeing(opened)))
            }
            Self::Truth(condition) => Self::Truth(Box::new(condition.seeing(opened))),
            Self::Constant(value) => Self::Constant(value),
        }
    }

    fn has_truth_of_names(&self) -> bool {
        match self {
            Self::Truth(condition) => condition.fields().iter().any(|field| field.opened().is_some()),
            Self::Call { arguments, .. } => arguments.iter().any(Self::has_truth_of_names),
            Self::Arithmetic(_, left, right) => left.has_truth_of_names() || right.has_truth_of_names(),
            Self::Constant(_) | Self::Field(_) | Self::Opened(_) | Self::Earlier { .. } => false,
        }
    }
}

/// A condition on many fields that sees, in lists of names, only those of opened files.
fn of_opened_files(groups: Vec<(Vec<crate::event::FieldId>, Option<Test>)>) -> Condition {
    let mut parts = Vec::new();
    let mut others = Vec::new();
    for (fields, test) in groups {
        let (names, rest): (Vec<_>, Vec<_>) = fields.into_iter().partition(|field| field.opened().is_some());
        parts.extend(names.into_iter().map(|field| match &test {
            Some(test) => Condition::Test(Expr::Opened(field), test.clone()),
            None => Condition::Exists(Expr::Opened(field)),
        }));
        if !rest.is_empty() {
            others.push((rest, test));
        }
    }
    if parts.is_empty() {
        return Condition::Anywhere(others);
    }
    parts.push(Condition::Anywhere(others));
    Condition::Any(parts)
}
