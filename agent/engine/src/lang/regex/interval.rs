//! `<1-100>`: the numbers of an interval as an expression of digits.

use super::ast::Ast;

/// The numbers from `min` to `max`. Where both are written with as many digits, so must be the numbers; else any number of
/// zeros may stand before them.
pub(super) fn interval(min: &str, max: &str) -> Option<Ast> {
    let (low, high): (u32, u32) = (min.parse().ok()?, max.parse().ok()?);
    let (low, high) = (low.min(high), low.max(high));
    if min.len() == max.len() {
        let width = min.len();
        return Some(between(&digits(low, width), &digits(high, width)));
    }
    let lengths = digits(low, 1).len()..=digits(high, 1).len();
    let parts = lengths.map(|length| {
        let least = if length == 1 { 0 } else { 10_u64.pow(length as u32 - 1) };
        let most = 10_u64.pow(length as u32) - 1;
        let (low, high) = (u64::from(low).max(least), u64::from(high).min(most));
        between(&digits(low, length), &digits(high, length))
    });
    let zeros = Ast::Repeat { inner: Box::new(digit(b'0', b'0')), min: 0, max: None };
    Some(Ast::Concat(vec![zeros, Ast::Union(parts.collect())]))
}

fn digits(number: impl std::fmt::Display, width: usize) -> Vec<u8> {
    format!("{number:0>width$}").into_bytes()
}

fn digit(start: u8, end: u8) -> Ast {
    Ast::range(start.into(), end.into())
}

/// Numbers of as many digits as both have, from `low` to `high`.
fn between(low: &[u8], high: &[u8]) -> Ast {
    let (Some((&first, low)), Some((&last, high))) = (low.split_first(), high.split_first()) else {
        return Ast::Empty;
    };
    if first == last {
        return Ast::Concat(vec![digit(first, first), between(low, high)]);
    }
    let (nines, zeros) = (vec![b'9'; low.len()], vec![b'0'; low.len()]);
    let mut parts = vec![
        Ast::Concat(vec![digit(first, first), between(low, &nines)]),
        Ast::Concat(vec![digit(last, last), between(&zeros, high)]),
    ];
    if last - first > 1 {
        let rest = vec![digit(b'0', b'9'); low.len()];
        parts.push(Ast::Concat([vec![digit(first + 1, last - 1)], rest].concat()));
    }
    Ast::Union(parts)
}
