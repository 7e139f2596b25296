//! The compiled matcher gives the reference's answers: random queries, many at once, over random events that share
//! lists of fields as a sensor's do.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::sync::Arc;

use fastrand::Rng;
use lapwing_engine::detect::{Matcher, naive};
use lapwing_engine::lang::function::Function;
use lapwing_engine::lang::operator::{Arithmetic, Comparison};
use lapwing_engine::lang::query::{Condition, EventQuery, Expr, Test};
use lapwing_engine::lang::wildcard::Wildcard;
use lapwing_engine::{Event, FieldId, Fields, Schema, Timestamp, Value, field};

/// How many sets of queries, and for how many events each is evaluated.
const ROUNDS: u64 = 150;
const EVENTS: usize = 300;

/// Few fields, so that queries and events meet; one discriminating, one in several lists.
const FIELDS: [FieldId; 8] = [
    field!("event.action"),
    field!("event.category"),
    field!("process.name"),
    field!("lapwing.process.opened_name"),
    field!("process.args"),
    field!("process.command_line"),
    field!("process.args_count"),
    field!("destination.ip"),
];

/// Texts that overlap, begin and end alike, and differ in case only.
const TEXTS: [&str; 22] = [
    "", "a", "A", "ab", "aB", "abc", "b", "bc", "xabcx", "abcabc", "exec", "EXEC", "fork", "process",
    "/tmp/a", "/tmp/", "/TMP/x", "é", "Éa", "aéc", "İ", "ſ",
];
const PATTERNS: [&str; 30] = [
    "*", "", "?", "??", "*?", "a*", "A*", "ab*", "*c", "*C", "*bc", "*b*", "*B*", "*abc*", "a*c", "a*b*c",
    "*a*b*", "?b*", "a?c", "*?c", "/tmp/*", "/tmp/?", "*/*", "é*", "*É*", "?é?", "i*", "exec", "EX*C", "*x?",
];
const NETWORKS: [&str; 7] =
    ["10.0.0.0/8", "10.0.0.0/9", "0.0.0.0/0", "10.1.2.3/32", "255.255.255.255/32", "::/0", "fe80::/10"];
const ADDRESSES: [&str; 6] = ["10.1.2.3", "10.200.0.1", "255.255.255.255", "0.0.0.0", "fe80::1", "::1"];

fn some<T: Clone>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.usize(..from.len())].clone()
}

fn several<T>(rng: &mut Rng, make: impl Fn(&mut Rng) -> T) -> Vec<T> {
    (0..rng.usize(1..4)).map(|_| make(rng)).collect()
}

/// A value of any type, whatever the field: a matcher must not lean on the schema.
fn value(rng: &mut Rng) -> Value {
    match rng.u8(..12) {
        0 => rng.i64(-2..4).into(),
        1 => Value::Double(f64::from(rng.i8(-2..4)) / 2.0),
        2 => rng.bool().into(),
        3 => Value::Ip(some(rng, &ADDRESSES).parse().unwrap()),
        4 => Timestamp::from_millis(rng.i64(0..3)).into(),
        5 => Value::Double(f64::NAN),
        _ => some(rng, &TEXTS).into(),
    }
}

fn test(rng: &mut Rng) -> Test {
    let insensitive = rng.bool();
    match rng.u8(..10) {
        0..=2 => Test::OneOf { values: several(rng, |rng| some(rng, &TEXTS).into()), insensitive },
        3 => Test::OneOf { values: several(rng, value), insensitive },
        4 => Test::OneOf { values: several(rng, |rng| rng.i64(-2..4).into()), insensitive },
        5..=6 => {
            let pattern = |rng: &mut Rng| Wildcard::parse(some(rng, &PATTERNS), rng.u8(..4) > 0);
            Test::Like { patterns: several(rng, pattern), insensitive }
        }
        7 => Test::Within(several(rng, |rng| some(rng, &NETWORKS).parse().unwrap())),
        8 => {
            let comparisons = [
                Comparison::Less,
                Comparison::LessOrEqual,
                Comparison::Greater,
                Comparison::GreaterOrEqual,
                Comparison::Equal,
                Comparison::NotEqual,
            ];
            Test::Order(some(rng, &comparisons), value(rng))
        }
        _ => Test::Words { words: several(rng, |rng| some(rng, &TEXTS).into()), phrase: rng.bool() },
    }
}

fn expr(rng: &mut Rng, depth: u8) -> Expr {
    match rng.u8(..20) {
        0 => Expr::Constant(rng.bool().then(|| value(rng))),
        1 if depth > 0 => Expr::Call {
            function: Function::named(some(rng, &["length", "stringContains", "concat", "startsWith"]))
                .unwrap(),
            insensitive: rng.bool(),
            arguments: (0..2).map(|_| expr(rng, depth - 1)).collect(),
        },
        2 if depth > 0 => {
            let operators = [Arithmetic::Add, Arithmetic::Subtract, Arithmetic::Modulo];
            let sides = [expr(rng, depth - 1), expr(rng, depth - 1)].map(Box::new);
            let [left, right] = sides;
            Expr::Arithmetic(some(rng, &operators), left, right)
        }
        3 if depth > 0 => Expr::Truth(Box::new(condition(rng, 1))),
        4..=6 => Expr::Opened(field!("process.name")),
        _ => Expr::Field(some(rng, &FIELDS)),
    }
}

fn condition(rng: &mut Rng, depth: u8) -> Condition {
    match rng.u8(..12) {
        0 => Condition::Always(rng.bool()),
        1 => Condition::Exists(expr(rng, 2)),
        2..=3 if depth > 0 => Condition::Not(Box::new(condition(rng, depth - 1))),
        4..=6 if depth > 0 => Condition::All(several(rng, |rng| condition(rng, depth - 1))),
        7..=8 if depth > 0 => Condition::Any(several(rng, |rng| condition(rng, depth - 1))),
        _ => Condition::Test(expr(rng, 2), test(rng)),
    }
}

fn query(rng: &mut Rng) -> EventQuery {
    let category = rng.bool().then(|| some(rng, &["process", "fork", "a"]).into());
    EventQuery { category, condition: condition(rng, 4) }
}

fn fields(rng: &mut Rng) -> Fields {
    let mut fields = Fields::new();
    for id in FIELDS.into_iter().chain([field!("user.id")]) {
        match rng.u8(..4) {
            0 => fields.set(id, value(rng)),
            1 => fields.set(id, Value::List((0..rng.usize(..4)).map(|_| value(rng)).collect())),
            _ => &mut fields,
        };
    }
    fields
}

#[test]
fn the_matcher_agrees_with_the_reference() {
    for seed in 0..ROUNDS {
        let mut rng = Rng::with_seed(seed);
        let queries: Vec<_> = (0..rng.usize(1..40)).map(|_| query(&mut rng)).collect();
        let mut matcher = Matcher::new(&queries);
        let mut shared: Vec<Arc<Fields>> = (0..20).map(|_| fields(&mut rng).into()).collect();
        for _ in 0..EVENTS {
            // Lists come and go, so that what is known about one must not be taken for another's.
            let place = rng.usize(..shared.len());
            shared[place] = fields(&mut rng).into();
            let layers = (0..rng.usize(..4)).map(|_| some(&mut rng, &shared)).collect();
            let event = Event::new(Timestamp::from_millis(1), fields(&mut rng), layers);
            let expected: Vec<u32> = (0..)
                .zip(&queries)
                .filter(|(_, query)| naive::matches(query, &event))
                .map(|(number, _)| number)
                .collect();
            let found = matcher.matching(&event);
            if found != expected {
                let schema = Schema::new();
                let wrong = (0..).zip(&queries).find(|(n, _)| found.contains(n) != expected.contains(n));
                let (_, query) = wrong.unwrap();
                panic!("seed {seed}: {} over {}", query.display(&schema), event.to_json(&schema));
            }
        }
    }
}
