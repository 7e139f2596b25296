//! A TOML table that is read key by key: every fault has its position, and unread keys are reported.

use std::borrow::Cow;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::lang::diagnostic::{Diagnostic, Span, code};

/// A value with its position in the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed<T> {
    pub(super) value: T,
    pub(super) span: Span,
}

/// A table of a document.
pub(super) struct DocumentTable<'a> {
    table: &'a DeTable<'a>,
    span: Span,
    /// The table's name, for messages: `rule`, `job`.
    name: &'a str,
}

impl<'a> DocumentTable<'a> {
    pub(super) fn new(table: &'a DeTable<'a>, span: Span, name: &'a str) -> Self {
        Self { table, span, name }
    }

    /// The table in a value; `None` if the value is not a table.
    pub(super) fn of(value: &'a Spanned<DeValue<'a>>, name: &'a str) -> Option<Self> {
        value.get_ref().as_table().map(|table| Self::new(table, value.span().into(), name))
    }

    /// Its position.
    pub(super) fn span(&self) -> Span {
        self.span
    }

    /// The keys with their positions.
    pub(super) fn keys(&self) -> impl Iterator<Item = Placed<&'a str>> {
        self.table.keys().map(|key| Placed { value: key.get_ref().as_ref(), span: key.span().into() })
    }

    pub(super) fn value(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.table.get(key)
    }

    /// Whether a key has a value that is not an empty list, string or table.
    pub(super) fn holds(&self, key: &str) -> bool {
        self.value(key).is_some_and(|value| match value.get_ref() {
            DeValue::Array(array) => !array.is_empty(),
            DeValue::Table(table) => !table.is_empty(),
            DeValue::String(text) => !text.is_empty(),
            _ => true,
        })
    }

    pub(super) fn text(&self, key: &str, faults: &mut Vec<Diagnostic>) -> Option<Placed<&'a str>> {
        let value = self.value(key)?;
        let text = value.get_ref().as_str();
        if text.is_none() {
            faults.push(wrong(key, value, "a string"));
        }
        text.map(|text| Placed { value: text, span: value.span().into() })
    }

    /// A required text, which must not be empty.
    pub(super) fn required(&self, key: &str, faults: &mut Vec<Diagnostic>) -> Option<Placed<&'a str>> {
        match self.value(key) {
            None => {
                faults.push(self.missing(key));
                None
            }
            Some(_) => {
                let text = self.text(key, faults)?;
                if text.value.trim().is_empty() {
                    faults.push(Diagnostic::new(code::BAD_VALUE, text.span, format!("`{key}` is empty")));
                }
                Some(text)
            }
        }
    }

    pub(super) fn missing(&self, key: &str) -> Diagnostic {
        let message = format!("`[{}]` has no `{key}`", self.name);
        // The span of the root table is the whole document: point at its first line.
        let span = Span::new(self.span.start, self.span.start + 1);
        Diagnostic::new(code::MISSING_KEY, span, message).help(format!("add `{key} = …`"))
    }

    /// A list of texts; a single text is a list of one.
    pub(super) fn texts(&self, key: &str, faults: &mut Vec<Diagnostic>) -> Vec<Placed<&'a str>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let entries = match value.get_ref() {
            DeValue::Array(array) => array.iter().collect(),
            _ => vec![value],
        };
        let mut texts = Vec::new();
        for entry in entries {
            match entry.get_ref().as_str() {
                Some(text) => texts.push(Placed { value: text, span: entry.span().into() }),
                None => faults.push(wrong(key, entry, "a list of strings")),
            }
        }
        texts
    }

    /// A list of texts without their positions.
    pub(super) fn strings(&self, key: &str, faults: &mut Vec<Diagnostic>) -> Vec<String> {
        self.texts(key, faults).into_iter().map(|text| text.value.to_owned()).collect()
    }

    pub(super) fn boolean(&self, key: &str, faults: &mut Vec<Diagnostic>) -> Option<bool> {
        let value = self.value(key)?;
        let truth = value.get_ref().as_bool();
        if truth.is_none() {
            faults.push(wrong(key, value, "true or false"));
        }
        truth
    }

    /// A whole number from `least` to `most`.
    pub(super) fn integer(
        &self,
        key: &str,
        least: i64,
        most: i64,
        faults: &mut Vec<Diagnostic>,
    ) -> Option<i64> {
        let value = self.value(key)?;
        let number = value
            .get_ref()
            .as_integer()
            .and_then(|integer| i64::from_str_radix(integer.as_str(), integer.radix()).ok())
            .filter(|number| (least..=most).contains(number));
        if number.is_none() {
            faults.push(wrong(key, value, &format!("a whole number from {least} to {most}")));
        }
        number
    }

    /// A time span such as `5m`, after `prefix`, as in `now-9m`.
    pub(super) fn duration(&self, key: &str, prefix: &str, faults: &mut Vec<Diagnostic>) -> Option<Duration> {
        let text = self.text(key, faults)?;
        let span = text.value.strip_prefix(prefix).and_then(duration);
        if span.is_none() {
            let message = format!("`{key}` is no time span: {:?}", text.value);
            let fault = Diagnostic::new(code::BAD_VALUE, text.span, message);
            faults.push(fault.help(format!("write it like \"{prefix}5m\"; units are ms, s, m, h, d and w")));
        }
        span
    }

    /// A table below this one.
    pub(super) fn table(&self, key: &'a str, faults: &mut Vec<Diagnostic>) -> Option<DocumentTable<'a>> {
        let value = self.value(key)?;
        let table = value.get_ref().as_table();
        if table.is_none() {
            faults.push(wrong(key, value, "a table"));
        }
        table.map(|table| DocumentTable::new(table, value.span().into(), key))
    }

    /// The tables of an array of tables; a single table is an array of one.
    pub(super) fn tables(&self, key: &'a str, faults: &mut Vec<Diagnostic>) -> Vec<DocumentTable<'a>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let entries = match value.get_ref() {
            DeValue::Array(array) => array.iter().collect(),
            _ => vec![value],
        };
        let mut tables = Vec::new();
        for entry in entries {
            match entry.get_ref().as_table() {
                Some(table) => tables.push(DocumentTable::new(table, entry.span().into(), key)),
                None => faults.push(wrong(key, entry, "a table")),
            }
        }
        tables
    }
}

fn wrong(key: &str, value: &Spanned<DeValue<'_>>, wanted: &str) -> Diagnostic {
    let found = value.get_ref().type_str();
    let message = format!("`{key}` must be {wanted}, and this is of type {found}");
    Diagnostic::new(code::BAD_VALUE, value.span().into(), message).label(format!("expected {wanted}"))
}

/// Reads a time span such as `30s`, `5m` or `7d`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let millis = match &text[digits..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "w" => 604_800_000,
        _ => return None,
    };
    text[..digits].parse::<u64>().ok()?.checked_mul(millis).map(Duration::from_millis)
}

/// The position in the file of the byte at `offset` of a TOML string's text. `span` is the string with its quotation
/// marks.
pub(super) fn place_in_string(file: &str, span: Span, offset: usize) -> usize {
    let raw = &file[span.start..span.end];
    let quotes =
        ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quotes| raw.starts_with(quotes)).unwrap_or_default();
    let mut at = quotes.len();
    if quotes.len() == 3 {
        // A line break just after the opening quotation marks is not part of the text.
        at += raw[at..].len() - raw[at..].trim_start_matches('\r').len();
        at += usize::from(raw[at..].starts_with('\n'));
    }
    let mut read = 0;
    while read < offset && at + quotes.len() < raw.len() {
        let (taken, given) =
            if quotes.starts_with('"') { escape_lengths(&raw[at..]) } else { char_lengths(&raw[at..]) };
        at += taken;
        read += given;
    }
    span.start + at
}

/// The number of bytes of the next character in the file, and in the text.
fn escape_lengths(raw: &str) -> (usize, usize) {
    let Some(escaped) = raw.strip_prefix('\\') else { return char_lengths(raw) };
    let code = |digits: usize| {
        let character = escaped
            .get(1..=digits)
            .and_then(|hex| u32::from_str_radix(hex, 16).ok())
            .and_then(char::from_u32);
        (2 + digits, character.map_or(1, char::len_utf8))
    };
    match escaped.chars().next() {
        Some('x') => code(2),
        Some('u') => code(4),
        Some('U') => code(8),
        // A backslash at the end of a line removes the blanks after it.
        Some(c) if c.is_whitespace() => (1 + escaped.len() - escaped.trim_start().len(), 0),
        Some(c) => (1 + c.len_utf8(), 1),
        None => (1, 1),
    }
}

fn char_lengths(raw: &str) -> (usize, usize) {
    let length = raw.chars().next().map_or(1, char::len_utf8);
    (length, length)
}

/// The text of a file without its byte order mark.
pub(super) fn without_mark(text: &str) -> Cow<'_, str> {
    // Spaces replace it, so that positions do not change.
    text.strip_prefix('\u{feff}').map_or(Cow::Borrowed(text), |rest| Cow::Owned(format!("   {rest}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_spans_are_read() {
        for (text, millis) in
            [("5m", Some(300_000)), ("7d", Some(604_800_000)), ("m", None), ("5", None), ("5y", None)]
        {
            assert_eq!(duration(text).map(|span| span.as_millis()), millis, "{text}");
        }
    }

    #[test]
    fn places_in_strings_are_places_in_the_file() {
        for (file, offset, expected) in [
            ("q = '''\nabc'''", 1, 'b'),
            ("q = \"a\\tbc\"", 2, 'b'),
            ("q = \"\\u00e9bc\"", 2, 'b'),
            ("q = \"\"\"\\\n   abc\"\"\"", 1, 'b'),
            ("q = 'abc'", 1, 'b'),
        ] {
            let at = place_in_string(file, Span::new(4, file.len()), offset);
            assert_eq!(file[at..].chars().next(), Some(expected), "{file}");
        }
    }
}
