//! Lucene's regular expressions against a matcher that knows nothing but their definition: which stretches of a text an
//! expression is, computed from those that its parts are.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

use arbitrary::{Result, Unstructured};
use lapwing_engine::lang::regex::{Regex, RegexError};

use super::{below, choose};

/// Letters of both cases, one whose other case is of another alphabet, digits, and signs that mean something.
const CHARACTERS: &[char] =
    &['a', 'b', 'A', 'B', 'k', '\u{212a}', 'é', 'É', '0', '1', '2', '9', '.', '-', '"', '\\', '&', '日'];
/// What any text may be made of, to try what is no expression too.
const PIECES: &[&str] = &[
    "a", "b", "é", "[", "]", "[^", "-", "(", ")", "()", "{", "}", "{2}", "{1,", "<", ">", "<1-12>", "*", "+",
    "?", "|", "&", "~", "@", "#", ".", "\"", "\\", "\\d", "\\W", "1", "0", ",", "{1000}", "{9,9}",
];
const TEXT_MAX: usize = 7;

/// An expression, as the documentation defines it.
#[derive(Clone, Debug)]
enum Expression {
    Nothing,
    Empty,
    Any,
    Anything,
    Character(char),
    Class { negated: bool, ranges: Vec<(char, char)> },
    Text(String),
    Interval(String, String),
    Concat(Vec<Self>),
    Union(Vec<Self>),
    Intersection(Vec<Self>),
    Complement(Box<Self>),
    Repeat(Box<Self>, usize, Option<usize>),
}

pub(super) fn check(u: &mut Unstructured<'_>) -> Result<()> {
    let texts = (0..4).map(|_| text(u)).collect::<Result<Vec<_>>>()?;
    let insensitive = u.ratio(1, 3)?;
    if u.ratio(1, 5)? {
        let pieces = (0..below(u, 40)?).map(|_| choose(u, PIECES).copied());
        if let Ok(regex) = Regex::new(&pieces.collect::<Result<String>>()?, insensitive) {
            // Whatever it means, matching neither panics nor hangs.
            assert!(texts.iter().filter(|text| regex.is_match(text)).count() <= texts.len());
        }
        return Ok(());
    }
    let expression = expression(u, 4)?;
    let pattern = expression.to_string();
    let regex = match Regex::new(&pattern, insensitive) {
        Ok(regex) => regex,
        Err(RegexError::TooLarge(_)) => return Ok(()),
        Err(error) => panic!("{pattern}: {error}\n{expression:?}"),
    };
    for text in texts {
        let characters: Vec<_> = text.chars().collect();
        let matcher = Matcher { text: &characters, insensitive };
        let expected = matcher.ends(&expression, 0).contains(&characters.len());
        assert_eq!(regex.is_match(&text), expected, "{pattern} and {text:?}, insensitive {insensitive}");
    }
    Ok(())
}

fn text(u: &mut Unstructured<'_>) -> Result<String> {
    (0..below(u, TEXT_MAX + 1)?).map(|_| choose(u, CHARACTERS).copied()).collect()
}

fn expression(u: &mut Unstructured<'_>, depth: usize) -> Result<Expression> {
    let several = |u: &mut Unstructured<'_>| -> Result<Vec<Expression>> {
        (0..2 + below(u, 2)?).map(|_| expression(u, depth - 1)).collect()
    };
    Ok(match below(u, if depth == 0 { 9 } else { 16 })? {
        0 | 1 => Expression::Character(*choose(u, CHARACTERS)?),
        2 => Expression::Any,
        3 => Expression::Anything,
        4 => choose(u, &[Expression::Empty, Expression::Nothing])?.clone(),
        5 => {
            let text = (0..below(u, 3)?).map(|_| choose(u, CHARACTERS).copied());
            Expression::Text(text.collect::<Result<String>>()?.replace('"', ""))
        }
        6 => {
            let ends = ["0", "1", "9", "10", "12", "120", "01", "002"];
            Expression::Interval((*choose(u, &ends)?).to_owned(), (*choose(u, &ends)?).to_owned())
        }
        7 | 8 => {
            let range = |u: &mut Unstructured<'_>| -> Result<(char, char)> {
                let start = *choose(u, CHARACTERS)?;
                let near = ['a', 'b', 'c', 'z', 'Z', '9', 'é'];
                let end = if u.ratio(1, 2)? { start } else { *choose(u, &near)? };
                Ok(if start <= end { (start, end) } else { (start, start) })
            };
            let ranges = (0..1 + below(u, 3)?).map(|_| range(u)).collect::<Result<_>>()?;
            Expression::Class { negated: u.arbitrary()?, ranges }
        }
        9 | 10 => Expression::Concat(several(u)?),
        11 => Expression::Union(several(u)?),
        12 => Expression::Intersection(several(u)?),
        13 => Expression::Complement(expression(u, depth - 1)?.into()),
        _ => {
            let (min, max) = *choose(
                u,
                &[(0, None), (1, None), (0, Some(1)), (2, Some(2)), (0, Some(0)), (1, Some(3)), (2, None)],
            )?;
            Expression::Repeat(expression(u, depth - 1)?.into(), min, max)
        }
    })
}

impl Expression {
    /// How tightly it holds together: what stands in something that binds tighter needs parentheses.
    fn strength(&self) -> u8 {
        match self {
            Self::Union(_) => 0,
            Self::Intersection(_) => 1,
            Self::Concat(_) => 2,
            Self::Repeat(..) => 3,
            Self::Complement(_) => 4,
            _ => 5,
        }
    }

    fn within(&self, strength: u8) -> String {
        if self.strength() < strength { format!("({self})") } else { self.to_string() }
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |parts: &[Self], strength, mark: &str| {
            parts.iter().map(|part| part.within(strength)).collect::<Vec<_>>().join(mark)
        };
        match self {
            Self::Nothing => f.write_str("#"),
            Self::Empty => f.write_str("()"),
            Self::Any => f.write_str("."),
            Self::Anything => f.write_str("@"),
            Self::Character(c) => escaped(f, *c),
            Self::Class { negated, ranges } => {
                f.write_str(if *negated { "[^" } else { "[" })?;
                for (start, end) in ranges {
                    escaped(f, *start)?;
                    if start != end {
                        f.write_char('-')?;
                        escaped(f, *end)?;
                    }
                }
                f.write_char(']')
            }
            Self::Text(text) => write!(f, "\"{text}\""),
            Self::Interval(low, high) => write!(f, "<{low}-{high}>"),
            Self::Concat(parts) => f.write_str(&joined(parts, 3, "")),
            Self::Intersection(parts) => f.write_str(&joined(parts, 2, "&")),
            Self::Union(parts) => f.write_str(&joined(parts, 1, "|")),
            Self::Complement(inner) => write!(f, "~{}", inner.within(4)),
            Self::Repeat(inner, min, max) => {
                let inner = inner.within(3);
                match (min, max) {
                    (0, None) => write!(f, "{inner}*"),
                    (1, None) => write!(f, "{inner}+"),
                    (0, Some(1)) => write!(f, "{inner}?"),
                    (min, None) => write!(f, "{inner}{{{min},}}"),
                    (min, Some(max)) if min == max => write!(f, "{inner}{{{min}}}"),
                    (min, Some(max)) => write!(f, "{inner}{{{min},{max}}}"),
                }
            }
        }
    }
}

fn escaped(f: &mut fmt::Formatter<'_>, c: char) -> fmt::Result {
    if c.is_alphanumeric() { f.write_char(c) } else { write!(f, "\\{c}") }
}

/// A text in which expressions are looked for.
struct Matcher<'a> {
    text: &'a [char],
    insensitive: bool,
}

type Places = BTreeSet<usize>;

impl Matcher<'_> {
    /// Where the stretches end that start here and are the expression.
    fn ends(&self, expression: &Expression, start: usize) -> Places {
        let all = start..=self.text.len();
        let one = |fits: bool| if fits { Places::from([start + 1]) } else { Places::new() };
        let here = self.text.get(start);
        match expression {
            Expression::Nothing => Places::new(),
            Expression::Empty => Places::from([start]),
            Expression::Any => one(here.is_some()),
            Expression::Anything => all.collect(),
            Expression::Character(c) => one(here.is_some_and(|here| self.is_in(*here, (*c, *c)))),
            Expression::Class { negated, ranges } => {
                one(here.is_some_and(|here| ranges.iter().any(|range| self.is_in(*here, *range)) != *negated))
            }
            Expression::Text(text) => text
                .chars()
                .fold(Places::from([start]), |places, c| self.all_ends(&places, &Expression::Character(c))),
            Expression::Interval(low, high) => {
                all.filter(|end| is_between(&self.text[start..*end], low, high)).collect()
            }
            Expression::Concat(parts) => {
                parts.iter().fold(Places::from([start]), |places, part| self.all_ends(&places, part))
            }
            Expression::Union(parts) => parts.iter().flat_map(|part| self.ends(part, start)).collect(),
            Expression::Intersection(parts) => {
                all.filter(|end| parts.iter().all(|part| self.ends(part, start).contains(end))).collect()
            }
            Expression::Complement(inner) => {
                let others = self.ends(inner, start);
                all.filter(|end| !others.contains(end)).collect()
            }
            Expression::Repeat(inner, min, max) => self.repeated(inner, *min, *max, start),
        }
    }

    fn repeated(&self, inner: &Expression, min: usize, max: Option<usize>, start: usize) -> Places {
        let mut places = Places::from([start]);
        for _ in 0..min {
            places = self.all_ends(&places, inner);
        }
        let mut ends = places.clone();
        // More times than there are places to end at find nothing new.
        for _ in min..max.unwrap_or(min + self.text.len() + 1) {
            places = self.all_ends(&places, inner);
            ends.extend(&places);
        }
        ends
    }

    fn all_ends(&self, starts: &Places, expression: &Expression) -> Places {
        starts.iter().flat_map(|start| self.ends(expression, *start)).collect()
    }

    fn is_in(&self, c: char, (start, end): (char, char)) -> bool {
        (start..=end).any(|wanted| wanted == c || (self.insensitive && folded(wanted) == folded(c)))
    }
}

/// Simple folding of the characters that are tried here.
fn folded(c: char) -> char {
    match c {
        '\u{212a}' => 'k',
        'ſ' => 's',
        'Å' | '\u{212b}' => 'å',
        c => c.to_lowercase().next().unwrap(),
    }
}

/// Numbers written with as many digits as both ends have where these are equally many, else with any zeros before.
fn is_between(text: &[char], low: &str, high: &str) -> bool {
    let text: String = text.iter().collect();
    let (first, last): (u64, u64) = (low.parse().unwrap(), high.parse().unwrap());
    let is_long = low.len() != high.len() || text.len() == low.len();
    let number =
        Some(&text).filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
    let number: Option<u64> = number.and_then(|text| text.parse().ok());
    is_long && number.is_some_and(|number| (first.min(last)..=first.max(last)).contains(&number))
}
