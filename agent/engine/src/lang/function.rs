//! The functions of EQL, a row each: its name, what it takes, what it makes of that.
//!
//! A function is given one value for each argument; absent arguments make its result absent before it is called,
//! and arguments of several values are given one combination after the other. Where the documentation is silent
//! the behaviour is that of Elasticsearch.

use std::fmt;

use smol_str::{SmolStr, ToSmolStr};

use crate::event::Value;

/// Most arguments of a function that is computed for every event.
pub const ARGUMENTS_MAX: usize = 256;
/// Longest text that `concat` makes, in bytes; it makes nothing of what would be longer.
pub const TEXT_BYTES_MAX: usize = 1 << 20;

/// A function of the language.
#[derive(Clone, Copy)]
pub struct Function(&'static Row);

struct Row {
    name: &'static str,
    /// What arguments it takes; those after `required` may be left out.
    takes: &'static [Argument],
    required: usize,
    /// Whether the last argument may be repeated.
    repeats: bool,
    gives: Gives,
    /// Whether there is a form with `~`.
    cased: bool,
    apply: fn(&[Value], bool) -> Option<Value>,
}

/// What an argument must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// Anything.
    Any,
    /// A number.
    Number,
    /// Text.
    Text,
    /// True or false.
    Boolean,
    /// An address.
    Ip,
}

/// What a function gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gives {
    /// True or false: it can stand as a condition.
    Boolean,
    /// A number.
    Number,
    /// Text.
    Text,
}

use Argument::{Any, Boolean, Ip, Number, Text};

const fn row(
    name: &'static str,
    takes: &'static [Argument],
    required: usize,
    gives: Gives,
    apply: fn(&[Value], bool) -> Option<Value>,
) -> Row {
    Row { name, takes, required, repeats: false, gives, cased: false, apply }
}

const fn cased(row: Row) -> Row {
    Row { cased: true, ..row }
}

const fn repeating(row: Row) -> Row {
    Row { repeats: true, ..row }
}

/// All functions, sorted by name.
static FUNCTIONS: &[Row] = &[
    row("add", &[Number, Number], 2, Gives::Number, |v, _| arithmetic(v, i64::checked_add, |a, b| a + b)),
    cased(row("between", &[Text, Text, Text, Boolean], 3, Gives::Text, between)),
    // Lowered to a test of its own, so that the networks are read once.
    repeating(row("cidrMatch", &[Ip, Text], 2, Gives::Boolean, |_, _| None)),
    repeating(row("concat", &[Any], 1, Gives::Text, concat)),
    row("divide", &[Number, Number], 2, Gives::Number, |v, _| arithmetic(v, i64::checked_div, |a, b| a / b)),
    cased(row("endsWith", &[Text, Text], 2, Gives::Boolean, |v, i| {
        let (text, end) = (folded(&v[0], i)?, folded(&v[1], i)?);
        Some(text.ends_with(end.as_str()).into())
    })),
    cased(row("indexOf", &[Text, Text, Number], 2, Gives::Number, index_of)),
    row("length", &[Text], 1, Gives::Number, |v, _| {
        Some(Value::Long(v[0].as_text()?.chars().count() as i64))
    }),
    row("modulo", &[Number, Number], 2, Gives::Number, |v, _| arithmetic(v, i64::checked_rem, |a, b| a % b)),
    row("multiply", &[Number, Number], 2, Gives::Number, |v, _| {
        arithmetic(v, i64::checked_mul, |a, b| a * b)
    }),
    row("number", &[Text, Number], 1, Gives::Number, number),
    cased(row("startsWith", &[Text, Text], 2, Gives::Boolean, |v, i| {
        let (text, start) = (folded(&v[0], i)?, folded(&v[1], i)?);
        Some(text.starts_with(start.as_str()).into())
    })),
    row("string", &[Any], 1, Gives::Text, |v, _| Some(Value::Text(v[0].to_text().to_smolstr()))),
    cased(row("stringContains", &[Text, Text], 2, Gives::Boolean, |v, i| {
        let (text, part) = (folded(&v[0], i)?, folded(&v[1], i)?);
        Some(text.contains(part.as_str()).into())
    })),
    row("substring", &[Text, Number, Number], 2, Gives::Text, substring),
    row("subtract", &[Number, Number], 2, Gives::Number, |v, _| {
        arithmetic(v, i64::checked_sub, |a, b| a - b)
    }),
];

impl Function {
    /// The function of this name; case is not regarded, as in Elasticsearch.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        FUNCTIONS.iter().find(|row| row.name.eq_ignore_ascii_case(name)).map(Self)
    }

    /// The names of all functions.
    pub fn names() -> impl Iterator<Item = &'static str> {
        FUNCTIONS.iter().map(|row| row.name)
    }

    /// The name as the documentation writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// What it gives.
    #[must_use]
    pub fn gives(self) -> Gives {
        self.0.gives
    }

    /// Whether there is a form with `~` that does not regard case.
    #[must_use]
    pub fn has_insensitive_form(self) -> bool {
        self.0.cased
    }

    /// What the argument at `index` must be; `None` where there can be no such argument.
    #[must_use]
    pub fn takes(self, index: usize) -> Option<Argument> {
        self.0.takes.get(index).or_else(|| self.0.takes.last().filter(|_| self.0.repeats)).copied()
    }

    /// How many arguments it must be given at least.
    #[must_use]
    pub fn required(self) -> usize {
        self.0.required
    }

    /// What it makes of these values; `None` where it makes nothing of them.
    #[must_use]
    pub fn apply(self, values: &[Value], insensitive: bool) -> Option<Value> {
        if values.len() < self.0.required {
            return None;
        }
        (self.0.apply)(values, insensitive)
    }
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name)
    }
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}

/// Whole numbers as long as both are, else with a fraction; nothing on overflow and division by zero.
pub(crate) fn arithmetic(
    values: &[Value],
    whole: fn(i64, i64) -> Option<i64>,
    fraction: fn(f64, f64) -> f64,
) -> Option<Value> {
    match values {
        [Value::Long(left), Value::Long(right)] => whole(*left, *right).map(Value::Long),
        [left, right] => Some(fraction(as_double(left)?, as_double(right)?))
            .filter(|number| number.is_finite())
            .map(Value::Double),
        _ => None,
    }
}

fn as_double(value: &Value) -> Option<f64> {
    match value {
        Value::Long(number) => Some(*number as f64),
        Value::Double(number) => Some(*number),
        _ => None,
    }
}

fn folded(value: &Value, insensitive: bool) -> Option<SmolStr> {
    let text = value.as_text()?;
    Some(if insensitive { text.to_lowercase().into() } else { text.into() })
}

fn as_index(value: &Value) -> Option<i64> {
    match value {
        Value::Long(number) => Some(*number),
        Value::Double(number) => Some(*number as i64),
        _ => None,
    }
}

/// `concat(value, …)`: the values as texts, one after the other.
fn concat(values: &[Value], _: bool) -> Option<Value> {
    let texts: Vec<_> = values.iter().map(Value::to_text).collect();
    let length: usize = texts.iter().map(|text| text.len()).sum();
    (length <= TEXT_BYTES_MAX).then(|| texts.concat().into())
}

/// `between(source, left, right, greedy = false)`: what stands between the first `left` and the next `right`, or the
/// last one where greedy; an empty text where either is not there.
fn between(values: &[Value], insensitive: bool) -> Option<Value> {
    let source = values[0].as_text()?;
    let (search, left, right) = (
        folded(&values[0], insensitive)?,
        folded(&values[1], insensitive)?,
        folded(&values[2], insensitive)?,
    );
    let greedy = values.get(3) == Some(&Value::Boolean(true));
    // Lower case may have other lengths; then what was found in it has no place in the source.
    let source = if search.len() == source.len() { source } else { search.as_str() };
    let found = search.find(left.as_str()).and_then(|start| {
        let start = start + left.len();
        let rest = &search[start..];
        let end = if greedy { rest.rfind(right.as_str()) } else { rest.find(right.as_str()) }?;
        source.get(start..start + end)
    });
    Some(found.unwrap_or_default().into())
}

/// `indexOf(source, part, start = 0)`: the place of `part` at or after `start`, in characters; nothing where it is not.
fn index_of(values: &[Value], insensitive: bool) -> Option<Value> {
    let (text, part) = (folded(&values[0], insensitive)?, folded(&values[1], insensitive)?);
    let start = usize::try_from(values.get(2).map_or(Some(0), as_index)?.max(0)).ok()?;
    let skipped: usize = text.chars().take(start).map(char::len_utf8).sum();
    let at = text[skipped..].find(part.as_str())?;
    Some(Value::Long(text[..skipped + at].chars().count() as i64))
}

/// `number(text, base = 10)`; with base 16 the text may start with `0x`.
fn number(values: &[Value], _: bool) -> Option<Value> {
    let text = values[0].as_text()?;
    let base = values.get(1).map_or(Some(10), as_index).and_then(|base| u32::try_from(base).ok())?;
    let hexadecimal = text.strip_prefix("0x").filter(|_| matches!(base, 10 | 16));
    let (text, base) = hexadecimal.map_or((text, base), |digits| (digits, 16));
    if !(2..=36).contains(&base) {
        return None;
    }
    i64::from_str_radix(text, base).ok().map(Value::Long).or_else(|| {
        let fraction = text.parse::<f64>().ok().filter(|number| base == 10 && number.is_finite());
        fraction.map(Value::Double)
    })
}

/// `substring(source, start, end = length)`: characters from `start` up to before `end`; negative places count from the
/// end.
fn substring(values: &[Value], _: bool) -> Option<Value> {
    let text = values[0].as_text()?;
    let length = text.chars().count() as i64;
    let place = |index: i64| if index < 0 { (index + length).max(0) } else { index.min(length) };
    let start = place(as_index(&values[1])?);
    let end = place(values.get(2).map_or(Some(length), as_index)?);
    let taken = (end - start).max(0) as usize;
    Some(Value::Text(text.chars().skip(start as usize).take(taken).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_do_what_is_documented() {
        let rows: &[(&str, &[Value], Option<Value>)] = &[
            ("add", &[1.into(), 2.into()], Some(3.into())),
            ("add", &[i64::MAX.into(), 1.into()], None),
            ("divide", &[7.into(), 2.into()], Some(3.into())),
            ("divide", &[7.into(), 0.into()], None),
            ("divide", &[Value::Double(7.0), 2.into()], Some(Value::Double(3.5))),
            ("modulo", &[(-7).into(), 3.into()], Some((-1).into())),
            ("between", &["System Idle Process".into(), "s".into(), "e".into()], Some("t".into())),
            ("between", &["a-b-c-d".into(), "-".into(), "-".into(), true.into()], Some("b-c".into())),
            ("between", &["abc".into(), "x".into(), "c".into()], Some("".into())),
            ("concat", &["a".into(), 1.into(), true.into()], Some("a1true".into())),
            ("concat", &["a".repeat(TEXT_BYTES_MAX).into(), "b".into()], None),
            ("endsWith", &["regsvr32.exe".into(), ".exe".into()], Some(true.into())),
            ("indexOf", &["aébéc".into(), "é".into(), 2.into()], Some(3.into())),
            ("indexOf", &["abc".into(), "z".into()], None),
            ("length", &["né".into()], Some(2.into())),
            ("number", &["0x10".into()], Some(16.into())),
            ("number", &["ff".into(), 16.into()], Some(255.into())),
            ("number", &["-1.5".into()], Some(Value::Double(-1.5))),
            ("startsWith", &["abc".into(), "b".into()], Some(false.into())),
            ("string", &[5.into()], Some("5".into())),
            ("stringContains", &["process.exe".into(), "EXE".into()], Some(false.into())),
            ("substring", &["hello".into(), (-3).into(), (-1).into()], Some("ll".into())),
            ("substring", &["hello".into(), 1.into()], Some("ello".into())),
            ("substring", &["hello".into(), 4.into(), 2.into()], Some("".into())),
        ];
        for (name, values, expected) in rows {
            assert_eq!(Function::named(name).unwrap().apply(values, false), *expected, "{name} {values:?}");
        }
        let contains = Function::named("STRINGCONTAINS").unwrap();
        assert_eq!(contains.apply(&["process.exe".into(), "EXE".into()], true), Some(true.into()));
    }

    #[test]
    fn the_table_is_sorted() {
        assert!(FUNCTIONS.is_sorted_by_key(|row| row.name.to_lowercase()));
    }
}
