//! EQL's AST to the typed query.

mod matching;

pub(super) use self::matching::network;
use super::Lowering;
use super::lint::{Alternative, mixed_and_or};
use crate::event::{Schema, Type, Value};
use crate::lang::diagnostic::{Diagnostic, Span, code};
use crate::lang::function::{ARGUMENTS_MAX, Argument, Function, Gives};
use crate::lang::operator::Comparison;
use crate::lang::query::{Condition, Expr, Key, Query, Sample, Sequence, Stage, Test, Wanted};
use crate::lang::suggest::nearest;
use crate::lang::syntax::eql::ast::{Expr as Ast, ExprKind, Key as AstKey, Literal, Name};
use crate::lang::syntax::eql::ast::{
    Query as AstQuery, Sample as AstSample, Sequence as AstSequence, Stage as AstStage,
};

/// The typed query and its warnings, or everything that is wrong with it.
pub(in crate::lang) fn lower(
    ast: &AstQuery,
    schema: &mut Schema,
) -> Result<(Query, Vec<Diagnostic>), Vec<Diagnostic>> {
    let mut lowering = Lowering::new(schema);
    let query = match ast {
        AstQuery::Event(filter) => lowering.event_query(filter).map(|(query, _)| Query::Event(query)),
        AstQuery::Sequence(sequence) => lowering.sequence(sequence).map(Query::Sequence),
        AstQuery::Sample(sample) => lowering.sample(sample).map(Query::Sample),
    };
    let query = query.map(|query| lowering.with_subqueries(query).guarded());
    lowering.finish(query)
}

/// What an expression's values are, as far as that is known without an event.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ValueKind {
    Null,
    Of(Type),
}

impl Lowering<'_> {
    fn sequence(&mut self, ast: &AstSequence) -> Option<Sequence> {
        let positive = ast.stages.iter().filter(|stage| !stage.missing).count();
        let wrong = if ast.stages.len() < 2 {
            Some("a sequence needs two stages at least")
        } else if positive == 0 {
            Some("a sequence needs a stage that is not missing")
        } else if positive < ast.stages.len() && ast.maxspan.is_none() {
            Some("a sequence with a missing event needs `with maxspan`")
        } else if ast.until.as_ref().is_some_and(|until| until.missing) {
            Some("`until` cannot be a missing event")
        } else {
            None
        };
        if let Some(wrong) = wrong {
            self.report(Diagnostic::new(code::BAD_SEQUENCE, ast.span, wrong));
            return None;
        }
        if ast.maxspan.is_none() {
            self.lint_span(ast.span);
        }
        let shared = self.keys(&ast.by);
        let mut stages = Vec::new();
        for (place, stage) in ast.stages.iter().enumerate() {
            stages.push(self.stage(stage, shared.as_deref()));
            self.name_stage(stage, place);
        }
        let until = ast.until.as_ref().map(|stage| self.stage(stage, shared.as_deref()));
        self.refuse_later(ast, &stages, until.as_ref());
        self.same_key_count(ast.stages.iter().chain(&ast.until));
        Some(Sequence {
            stages: stages.into_iter().collect::<Option<_>>()?,
            until: until.map_or(Some(None), |until| until.map(Some))?,
            maxspan: ast.maxspan,
        })
    }

    fn sample(&mut self, ast: &AstSample) -> Option<Sample> {
        let wrong = if ast.stages.len() < 2 {
            Some("a sample needs two stages at least")
        } else if ast.by.is_empty() && ast.stages.iter().any(|stage| stage.by.is_empty()) {
            Some("a sample needs a join key: `sample by host.id […] […]`")
        } else {
            None
        };
        if let Some(wrong) = wrong {
            self.report(Diagnostic::new(code::BAD_SAMPLE, ast.span, wrong));
            return None;
        }
        for (_, span) in ast.stages.iter().filter_map(|stage| stage.alias.as_ref()) {
            let message = "a sample has no order, so that no event of it is earlier than another";
            self.report(Diagnostic::new(code::BAD_ALIAS, *span, message));
        }
        let shared = self.keys(&ast.by);
        let stages: Vec<_> = ast.stages.iter().map(|stage| self.stage(stage, shared.as_deref())).collect();
        self.same_key_count(ast.stages.iter());
        Some(Sample { stages: stages.into_iter().collect::<Option<_>>()? })
    }

    fn same_key_count<'s>(&mut self, stages: impl Iterator<Item = &'s AstStage>) {
        let mut stages = stages.filter(|stage| stage.filter.condition.kind != ExprKind::Wrong);
        let Some(wanted) = stages.next().map(|first| first.by.len()) else { return };
        for stage in stages {
            if stage.by.len() != wanted {
                let message = format!(
                    "the first stage is joined by {wanted} fields of its own, this one by {}",
                    stage.by.len()
                );
                let fault = Diagnostic::new(code::BAD_KEYS, stage.span, message);
                self.report(fault.help("give every stage the same number of `by` fields"));
            }
        }
    }

    fn stage(&mut self, ast: &AstStage, shared: Option<&[Key]>) -> Option<Stage> {
        let query = self.event_query(&ast.filter);
        let own = self.keys(&ast.by)?;
        let (query, later) = query?;
        Some(Stage { query, keys: [shared?, &own].concat(), missing: ast.missing, later })
    }

    fn keys(&mut self, ast: &[AstKey]) -> Option<Vec<Key>> {
        let keys: Vec<_> = ast.iter().map(|key| self.key(&key.field)).collect();
        keys.into_iter().collect()
    }

    fn key(&mut self, name: &Name) -> Option<Key> {
        if name.optional {
            return Some(Key { field: self.lookup(&name.text), optional: true });
        }
        self.field(&name.text, name.span).map(|field| Key { field: Some(field), optional: false })
    }

    pub(super) fn condition(&mut self, ast: &Ast) -> Option<Condition> {
        match &ast.kind {
            ExprKind::Wrong => None,
            ExprKind::Not(inner) => self.condition(inner).map(|inner| Condition::Not(Box::new(inner))),
            ExprKind::And(parts) => self.conditions(parts).map(Condition::All),
            ExprKind::Or(parts) => {
                let alternatives: Vec<_> = parts.iter().map(alternative).collect();
                mixed_and_or(&alternatives).into_iter().for_each(|warning| self.report(warning));
                self.conditions(parts).map(Condition::Any)
            }
            ExprKind::Literal(Literal::Boolean(truth)) => Some(Condition::Always(*truth)),
            ExprKind::Compare(comparison, left, right) => self.compare(*comparison, left, right, ast.span),
            ExprKind::Match { operator, value, list, negated } => {
                let condition = self.matching(*operator, value, list)?;
                Some(if *negated { Condition::Not(Box::new(condition)) } else { condition })
            }
            ExprKind::Call { name, arguments, .. } if is_cidr_match(name) => {
                self.cidr_match(arguments, ast.span)
            }
            ExprKind::Related(relation, filter) => self.related(*relation, filter),
            _ => {
                let (expr, kind) = self.expression(ast)?;
                match kind {
                    ValueKind::Null => Some(Condition::Always(false)),
                    ValueKind::Of(Type::Boolean) => Some(is_true(expr)),
                    ValueKind::Of(ty) => {
                        let message =
                            format!("this is {} and neither true nor false", kind_name(ValueKind::Of(ty)));
                        self.report(
                            Diagnostic::new(code::NOT_BOOLEAN, ast.span, message)
                                .label("expected a condition"),
                        );
                        None
                    }
                }
            }
        }
    }

    fn conditions(&mut self, parts: &[Ast]) -> Option<Vec<Condition>> {
        let parts: Vec<_> = parts.iter().map(|part| self.condition(part)).collect();
        parts.into_iter().collect()
    }

    /// An expression that is computed, and of what kind its values are.
    fn expression(&mut self, ast: &Ast) -> Option<(Expr, ValueKind)> {
        match &ast.kind {
            ExprKind::Wrong => None,
            ExprKind::Literal(literal) => {
                let value = constant(literal);
                let kind = value.as_ref().map_or(ValueKind::Null, |value| ValueKind::Of(type_of(value)));
                Some((Expr::Constant(value), kind))
            }
            ExprKind::Field(name) => self.field_expression(name),
            ExprKind::Call { name, arguments, .. } if is_cidr_match(name) => {
                let condition = self.cidr_match(arguments, ast.span)?;
                Some((Expr::Truth(Box::new(condition)), ValueKind::Of(Type::Boolean)))
            }
            ExprKind::Call { name, insensitive, arguments } => {
                self.call(name, *insensitive, arguments, ast.span)
            }
            ExprKind::Negative(inner) => {
                let (inner, kind) = self.number(inner)?;
                let zero = Expr::Constant(Some(Value::Long(0)));
                let operator = crate::lang::operator::Arithmetic::Subtract;
                Some((Expr::Arithmetic(operator, Box::new(zero), Box::new(inner)), kind))
            }
            ExprKind::Arithmetic(operator, left, right) => {
                let (left, right) = (self.number(left), self.number(right));
                let ((left, _), (right, _)) = (left?, right?);
                Some((
                    Expr::Arithmetic(*operator, Box::new(left), Box::new(right)),
                    ValueKind::Of(Type::Double),
                ))
            }
            ExprKind::Not(_)
            | ExprKind::And(_)
            | ExprKind::Or(_)
            | ExprKind::Compare(..)
            | ExprKind::Related(..)
            | ExprKind::Match { .. } => {
                let condition = self.condition(ast)?;
                Some((Expr::Truth(Box::new(condition)), ValueKind::Of(Type::Boolean)))
            }
        }
    }

    fn field_expression(&mut self, name: &Name) -> Option<(Expr, ValueKind)> {
        if let Some((stage, text)) = self.earlier(&name.text) {
            let field = self.field(&text, name.span)?;
            return Some((
                Expr::Earlier { stage, field, opened: false },
                ValueKind::Of(self.schema.ty(field)),
            ));
        }
        let found =
            if name.optional { self.lookup(&name.text) } else { Some(self.field(&name.text, name.span)?) };
        Some(match found {
            None => (Expr::Constant(None), ValueKind::Null),
            Some(field) => (Expr::Field(field), ValueKind::Of(self.schema.ty(field))),
        })
    }

    fn number(&mut self, ast: &Ast) -> Option<(Expr, ValueKind)> {
        let (expr, kind) = self.expression(ast)?;
        self.argument_fits(Argument::Number, kind, ast.span, "arithmetic").then_some((expr, kind))
    }

    fn call(
        &mut self,
        name: &str,
        insensitive: bool,
        arguments: &[Ast],
        span: Span,
    ) -> Option<(Expr, ValueKind)> {
        let Some(function) = Function::named(name) else {
            let fault = Diagnostic::new(code::UNKNOWN_FUNCTION, span, format!("unknown function `{name}`"));
            if self.is_full() {
                return None;
            }
            self.report(match nearest(name, Function::names()) {
                Some(near) => fault.help(format!("did you mean `{near}`?")),
                None => fault,
            });
            return None;
        };
        if insensitive && !function.has_insensitive_form() {
            let message = format!("`{}` has no form with `~`", function.name());
            self.report(Diagnostic::new(code::ARGUMENTS, span, message));
            return None;
        }
        if arguments.len() < function.required()
            || function.takes(arguments.len().saturating_sub(1)).is_none()
        {
            let message =
                format!("`{}` takes other arguments than these {}", function.name(), arguments.len());
            self.report(Diagnostic::new(code::ARGUMENTS, span, message));
            return None;
        }
        // Networks are read once, other arguments with every event.
        if function.gives() != Gives::Boolean && arguments.len() > ARGUMENTS_MAX {
            let message = format!("`{}` may be given {ARGUMENTS_MAX} arguments", function.name());
            self.report(Diagnostic::new(code::TOO_LONG, span, message));
            return None;
        }
        let mut lowered = Vec::new();
        for (index, argument) in arguments.iter().enumerate() {
            let (expr, kind) = self.expression(argument)?;
            let wanted = function.takes(index)?;
            if !self.argument_fits(wanted, kind, argument.span, &format!("`{}`", function.name())) {
                return None;
            }
            lowered.push(expr);
        }
        let ty = match function.gives() {
            Gives::Boolean => Type::Boolean,
            Gives::Number => Type::Double,
            Gives::Text => Type::Keyword,
        };
        Some((Expr::Call { function, insensitive, arguments: lowered }, ValueKind::Of(ty)))
    }

    fn argument_fits(&mut self, wanted: Argument, kind: ValueKind, span: Span, whose: &str) -> bool {
        let fits = match (wanted, kind) {
            (Argument::Any, _) | (_, ValueKind::Null) => true,
            (Argument::Number, ValueKind::Of(ty)) => matches!(ty, Type::Long | Type::Double),
            (Argument::Text, ValueKind::Of(ty)) => ty.is_text(),
            (Argument::Boolean, ValueKind::Of(ty)) => ty == Type::Boolean,
            (Argument::Ip, ValueKind::Of(ty)) => ty == Type::Ip,
        };
        if !fits {
            let wanted = match wanted {
                Argument::Any => "anything",
                Argument::Number => "a number",
                Argument::Text => "text",
                Argument::Boolean => "true or false",
                Argument::Ip => "an address",
            };
            let message = format!("{whose} takes {wanted} here, and this is {}", kind_name(kind));
            self.report(Diagnostic::new(code::ARGUMENTS, span, message).label(format!("expected {wanted}")));
        }
        fits
    }

    fn compare(&mut self, comparison: Comparison, left: &Ast, right: &Ast, span: Span) -> Option<Condition> {
        let (left_expr, left_kind) = self.expression(left)?;
        let (right_expr, right_kind) = self.expression(right)?;
        let (comparison, expr, kind, constant, place) = match (left_expr, right_expr) {
            (expr, Expr::Constant(constant)) => (comparison, expr, left_kind, constant, right.span),
            (Expr::Constant(constant), expr) => (comparison.flipped(), expr, right_kind, constant, left.span),
            (left, right) if left.has(&Wanted::Earlier) || right.has(&Wanted::Earlier) => {
                return self.compare_earlier(comparison, (left, left_kind), (right, right_kind), span);
            }
            _ => {
                let fault =
                    Diagnostic::new(code::FIELD_TO_FIELD, span, "two fields are compared with each other");
                self.report(fault.help("one side must be a constant"));
                return None;
            }
        };
        let Some(constant) = constant else { return Some(against_null(comparison, expr)) };
        if let Some(condition) = against_truth(comparison, &expr, kind, &constant) {
            return Some(condition);
        }
        let test = match kind {
            ValueKind::Null => return Some(Condition::Always(false)),
            ValueKind::Of(ty) => self.test(comparison, &expr, ty, &constant, place)?,
        };
        Some(match (comparison, &expr) {
            (Comparison::NotEqual, Expr::Field(_)) => Condition::Not(Box::new(Condition::Test(expr, test))),
            // A comparison with what a function makes of an absent field holds in neither form.
            (Comparison::NotEqual, _) => Condition::All(vec![
                Condition::Exists(expr.clone()),
                Condition::Not(Box::new(Condition::Test(expr, test))),
            ]),
            _ => Condition::Test(expr, test),
        })
    }

    fn test(
        &mut self,
        comparison: Comparison,
        expr: &Expr,
        ty: Type,
        constant: &Value,
        span: Span,
    ) -> Option<Test> {
        let name = self.name_of(expr);
        let value = self.constant(&name, ty, constant, span)?;
        match comparison {
            Comparison::Equal | Comparison::NotEqual => {
                Some(Test::OneOf { values: vec![value], insensitive: false })
            }
            _ if ty == Type::Boolean => {
                let message = format!("`{name}` is true or false and has no order");
                self.report(Diagnostic::new(code::TYPES, span, message));
                None
            }
            _ => Some(Test::order(ty, comparison, value)),
        }
    }

    fn name_of(&self, expr: &Expr) -> String {
        match expr {
            Expr::Field(field) | Expr::Earlier { field, .. } => self.schema.name(*field).to_owned(),
            Expr::Call { function, .. } => format!("{}(…)", function.name()),
            _ => "this".to_owned(),
        }
    }
}

fn alternative(ast: &Ast) -> Alternative {
    let list = match &ast.kind {
        ExprKind::And(parts) if !ast.parenthesized => parts.as_slice(),
        _ => &[],
    };
    let negated = |part: &Ast| {
        matches!(part.kind, ExprKind::Not(_) | ExprKind::Match { negated: true, .. })
            || matches!(part.kind, ExprKind::Compare(Comparison::NotEqual, ..))
    };
    Alternative { bare_ands: list.len(), excludes: list.iter().any(negated), span: ast.span }
}

fn is_cidr_match(name: &str) -> bool {
    name.eq_ignore_ascii_case("cidrMatch")
}

fn is_true(expr: Expr) -> Condition {
    if let Expr::Truth(condition) = expr {
        return *condition;
    }
    Condition::Test(expr, Test::OneOf { values: vec![Value::Boolean(true)], insensitive: false })
}

/// `expr == true` and the like, where the expression is a condition itself: it or its opposite, as in Elasticsearch. So
/// `startsWith(process.name, "a") == false` holds where there is no name.
fn against_truth(
    comparison: Comparison,
    expr: &Expr,
    kind: ValueKind,
    constant: &Value,
) -> Option<Condition> {
    let (Expr::Call { .. } | Expr::Truth(_), ValueKind::Of(Type::Boolean), Value::Boolean(wanted)) =
        (expr, kind, constant)
    else {
        return None;
    };
    let holds = match comparison {
        Comparison::Equal => *wanted,
        Comparison::NotEqual => !*wanted,
        _ => return None,
    };
    let condition = is_true(expr.clone());
    Some(if holds { condition } else { Condition::Not(Box::new(condition)) })
}

/// `expr == null` and the like: the only comparisons with null that can hold.
fn against_null(comparison: Comparison, expr: Expr) -> Condition {
    let exists = match expr {
        Expr::Constant(value) => Condition::Always(value.is_some()),
        expr => Condition::Exists(expr),
    };
    match comparison {
        Comparison::Equal => Condition::Not(Box::new(exists)),
        Comparison::NotEqual => exists,
        _ => Condition::Always(false),
    }
}

fn constant(literal: &Literal) -> Option<Value> {
    match literal {
        Literal::Null => None,
        Literal::Boolean(truth) => Some(Value::Boolean(*truth)),
        Literal::Long(number) => Some(Value::Long(*number)),
        Literal::Double(number) => Some(Value::Double(*number)),
        Literal::Text(text) => Some(text.as_str().into()),
    }
}

fn type_of(value: &Value) -> Type {
    match value {
        Value::Long(_) => Type::Long,
        Value::Double(_) => Type::Double,
        Value::Boolean(_) => Type::Boolean,
        Value::Ip(_) => Type::Ip,
        Value::Date(_) => Type::Date,
        Value::Text(_) | Value::List(_) | Value::Texts(_) => Type::Keyword,
    }
}

pub(super) fn kind_name(kind: ValueKind) -> &'static str {
    match kind {
        ValueKind::Null => "null",
        ValueKind::Of(Type::Keyword | Type::Text | Type::Version | Type::Flattened) => "text",
        ValueKind::Of(Type::Long | Type::Double) => "a number",
        ValueKind::Of(Type::Boolean) => "true or false",
        ValueKind::Of(Type::Ip) => "an address",
        ValueKind::Of(Type::Date) => "a time",
        ValueKind::Of(Type::Point) => "a place",
    }
}
