//! The order of version numbers, as Elasticsearch's `version` fields have it: semantic versions by their precedence,
//! and behind them, in the order of their letters, all that is none.

use std::cmp::Ordering;

/// A semantic version: its three numbers, and what is before their release.
struct Version<'a> {
    numbers: [&'a str; 3],
    pre: Option<&'a str>,
}

/// How two versions stand to each other. They are equal only where their texts are.
pub(crate) fn compare(left: &str, right: &str) -> Ordering {
    let order = match (read(left), read(right)) {
        (Some(left), Some(right)) => precedence(&left, &right),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    };
    order.then_with(|| left.cmp(right))
}

/// Reads `1.2.3`, `1.2.3-pre.1`, `1.2.3+build`.
fn read(text: &str) -> Option<Version<'_>> {
    let (text, build) = text.split_once('+').map_or((text, None), |(text, build)| (text, Some(build)));
    let (main, pre) = text.split_once('-').map_or((text, None), |(main, pre)| (main, Some(pre)));
    let mut parts = main.split('.');
    let numbers = [parts.next()?, parts.next()?, parts.next()?];
    let labels = [pre, build].into_iter().flatten().flat_map(|labels| labels.split('.'));
    let valid = parts.next().is_none()
        && numbers.iter().all(|part| is_number(part) && (*part == "0" || !part.starts_with('0')))
        && labels.into_iter().all(is_label);
    valid.then_some(Version { numbers, pre })
}

fn precedence(left: &Version<'_>, right: &Version<'_>) -> Ordering {
    let numbers = left.numbers.iter().zip(right.numbers).map(|(left, right)| by_number(left, right));
    numbers.fold(Ordering::Equal, Ordering::then).then_with(|| match (left.pre, right.pre) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(left), Some(right)) => {
            let (mut left, mut right) = (left.split('.'), right.split('.'));
            loop {
                match (left.next(), right.next()) {
                    (None, None) => return Ordering::Equal,
                    (None, Some(_)) => return Ordering::Less,
                    (Some(_), None) => return Ordering::Greater,
                    (Some(left), Some(right)) => match by_label(left, right) {
                        Ordering::Equal => {}
                        order => return order,
                    },
                }
            }
        }
    })
}

/// Labels of digits are numbers and stand before all others.
fn by_label(left: &str, right: &str) -> Ordering {
    match (is_number(left), is_number(right)) {
        (true, true) => by_number(left, right),
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        (false, false) => left.cmp(right),
    }
}

/// Numbers of any length, written in digits.
fn by_number(left: &str, right: &str) -> Ordering {
    let (left, right) = (left.trim_start_matches('0'), right.trim_start_matches('0'));
    left.len().cmp(&right.len()).then_with(|| left.cmp(right))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_label(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_the_order_of_their_precedence() {
        let ordered = [
            "0.9.9",
            "1.0.0-2",
            "1.0.0-11",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.0+build",
            "1.0.1",
            "1.2.10",
            "1.11.3",
            "99999999999999999999.0.0",
            "",
            "01.0.0",
            "1.2",
            "1.2.3-",
            "1.2.x",
            "none",
        ];
        for (index, left) in ordered.iter().enumerate() {
            for (other, right) in ordered.iter().enumerate() {
                assert_eq!(compare(left, right), index.cmp(&other), "{left} and {right}");
            }
        }
    }
}
