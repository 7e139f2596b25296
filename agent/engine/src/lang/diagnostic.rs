//! Diagnostics: the errors and warnings about a rule, each with a position and a hint. The caller renders them for a
//! terminal, as JSON or for a log.

use std::fmt;
use std::ops::Range;

/// A range of a text, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    /// The first byte.
    pub start: usize,
    /// The byte after the last.
    pub end: usize,
}

impl Span {
    /// The range from `start` up to `end`.
    #[must_use]
    pub const fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    /// The first character of a text.
    #[must_use]
    pub fn first_of(text: &str) -> Self {
        Self::new(0, text.chars().next().map_or(0, char::len_utf8))
    }

    /// The range from the start of this to the end of `other`.
    #[must_use]
    pub const fn to(self, other: Self) -> Self {
        Self { start: self.start, end: other.end }
    }

    /// The range moved by `offset` bytes.
    #[must_use]
    pub const fn shifted(self, offset: usize) -> Self {
        Self { start: self.start + offset, end: self.end + offset }
    }
}

impl From<Range<usize>> for Span {
    fn from(range: Range<usize>) -> Self {
        Self::new(range.start, range.end)
    }
}

/// The severity of a diagnostic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Level {
    /// The rule cannot run.
    Error,
    /// The rule runs, but probably not as intended.
    Warning,
}

/// A kind of diagnostic. Codes are never reused.
#[derive(PartialEq, Eq, Hash)]
pub struct Code {
    /// `E` and four digits for errors, `W` and four digits for warnings.
    pub id: &'static str,
    /// The error in a few words.
    pub title: &'static str,
    /// Why it is an error, and how to correct it.
    pub explanation: &'static str,
}

impl Code {
    /// Whether this version of Lapwing does not support the rule, although the rule may be valid.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        [code::UNSUPPORTED, code::UNSUPPORTED_KEY, code::UNSUPPORTED_TYPE].contains(&self)
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id)
    }
}

/// An error or a warning about a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Its kind.
    pub code: &'static Code,
    /// The message.
    pub message: String,
    /// The position.
    pub span: Span,
    /// The text at that position.
    pub label: String,
    /// A hint how to correct it.
    pub help: Option<String>,
}

impl Diagnostic {
    /// A diagnostic of this kind at this position.
    pub fn new(code: &'static Code, span: Span, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), span, label: String::new(), help: None }
    }

    /// Sets the text at the position.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Sets the hint.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The severity, by its code.
    #[must_use]
    pub fn level(&self) -> Level {
        if self.code.id.starts_with('E') { Level::Error } else { Level::Warning }
    }

    /// The diagnostic with its position moved by `offset` bytes.
    #[must_use]
    pub fn shifted(mut self, offset: usize) -> Self {
        self.span = self.span.shifted(offset);
        self
    }
}

macro_rules! codes {
    ($($name:ident $id:literal $title:literal $explanation:literal)*) => {
        /// Every kind of diagnostic, as a constant.
        pub mod code {
            use super::Code;
            $(
                #[doc = $title]
                pub const $name: &Code = &Code { id: $id, title: $title, explanation: $explanation };
            )*
            /// All of them, in the order of their ids.
            pub const ALL: &[&Code] = &[$($name),*];
        }
    };
}

codes! {
    UNKNOWN_CHARACTER "E0101" "unknown character"
        "The query contains a character with which no operator, name, number or string of the language starts."
    UNTERMINATED "E0102" "string or comment without end"
        "A string ends with the quotation mark it started with, on the same line; `\"\"\"` strings may span lines. \
         A comment that starts with `/*` ends with `*/`."
    BAD_ESCAPE "E0103" "unknown escape in a string"
        "EQL strings know \\n, \\r, \\t, \\b, \\f, \\\\, \\\", \\' and \\u{…}. Write a backslash as `\\\\`, or use a \
         `\"\"\"raw string\"\"\"`."
    UNEXPECTED "E0104" "the query goes on in a way the language does not know"
        "At this place the grammar expects something else."
    BAD_NUMBER "E0105" "number out of range"
        "Whole numbers lie between -9223372036854775808 and 9223372036854775807."
    TOO_DEEP "E0106" "nested too deeply"
        "Parentheses, `not` and function calls may be nested 128 deep."
    TOO_LONG "E0107" "query too long"
        "A query may have one MiB with its `runs` expanded, 256 stages, lists of 65536 entries and functions of 256 \
         arguments."
    QUOTES "E0108" "single quotation marks are no strings"
        "EQL strings are in double quotation marks, as in Elasticsearch 7.11 and later."
    BAD_REGEX "E0109" "wrong regular expression"
        "`regex` and `regex~` take Lucene's regular expressions, which match whole values: `. ? + * | {n,m} [] () \"\"` \
         and the operators `~` (complement), `&` (intersection), `@` (any text), `<1-100>` (numbers), `#` (nothing). A \
         backslash makes a character of an operator, and \\d, \\s, \\w and their upper case are classes."
    REGEX_TOO_LARGE "E0110" "regular expression too large"
        "An expression may have 1000 characters and one MiB when it is compiled. It may have 4096 states if a `~` or a `&` \
         is inside another operator. All expressions of a query together may have 16 MiB."
    PIPE "E0111" "a rule has no pipes"
        "`| head` and `| tail` are for searches in recordings: the events of a rule have no first and no last."
    UNKNOWN_FIELD "E0201" "unknown field"
        "The field is neither in ECS nor set by the sources of this host, so the condition can never match. \
         Write `?field` if it may be absent from the data."
    UNKNOWN_FUNCTION "E0202" "unknown function"
        "EQL has no such function."
    TYPES "E0203" "types do not fit"
        "The types of the two sides of the comparison can never be equal."
    ARGUMENTS "E0204" "wrong arguments"
        "The function takes other arguments."
    NOT_BOOLEAN "E0205" "neither true nor false"
        "A condition must be true or false: a comparison, a boolean field or a boolean function."
    FIELD_TO_FIELD "E0206" "fields are compared with each other"
        "As in Elasticsearch, a comparison needs a constant on one side."
    BAD_MAXSPAN "E0207" "wrong time span"
        "A span is a whole number and one of the units ms, s, m, h and d, as in `with maxspan=1m`."
    BAD_KEYS "E0208" "join keys do not fit"
        "Every stage of a sequence needs the same number of `by` fields."
    BAD_SEQUENCE "E0209" "wrong sequence"
        "A sequence needs at least two stages, not all of them missing (`![…]`). With a missing stage it needs \
         `with maxspan`."
    UNSUPPORTED "E0210" "not supported yet"
        "This is valid in the language, but this version of Lapwing does not support it. The rule is not loaded."
    BAD_SAMPLE "E0211" "wrong sample"
        "A sample needs two to five stages, and every stage needs a join key."
    BAD_ALIAS "E0212" "wrong reference to an earlier event"
        "`as event0` names the event of a stage of a sequence, so that later stages can refer to its fields as in \
         `event0.file.path`. Only later stages can refer to it. A missing event and `until` cannot refer to other events."
    DATE_MATH "E0213" "a date with date math"
        "A query is evaluated when an event arrives. It has no query time to which `now-1d` could refer. Rules \
         look back by `maxspan` of sequences, by `from` and by history windows."
    BAD_TOML "E0301" "no valid TOML"
        "A rule file is TOML with a `[rule]` table."
    MISSING_KEY "E0302" "a key is missing"
        "The rule needs this key."
    BAD_VALUE "E0303" "wrong value"
        "The key does not take this value."
    UNKNOWN_KEY "E0304" "unknown key"
        "No rule has this key. It is refused and not ignored, because a misspelt key would change the meaning of the rule."
    UNSUPPORTED_KEY "E0305" "key not supported"
        "Rules of the Elastic stack may have this key, but Lapwing does not support it, or not for this rule type. The \
         rule is not loaded."
    UNSUPPORTED_TYPE "E0306" "rule type not supported"
        "Lapwing runs rules of the types eql, query, threshold, new_terms, threat_match and machine_learning."
    DUPLICATE_ID "E0307" "rule id used twice"
        "Two rules have the same rule_id; the first one is kept."
    UNKNOWN_JOB "E0308" "unknown machine learning job"
        "No job file defines the job that the rule names."
    BAD_FILE "E0309" "file cannot be read as a rule"
        "A rule file is UTF-8 text of at most one MiB."
    MIXED_AND_OR "W0401" "`and` and `or` are mixed without parentheses"
        "`and` binds tighter than `or`: `a and b or c and not d` means `(a and b) or (c and not d)`, so that a guard at \
         the start covers the first alternative only, and an exclusion at the end covers the last only. Put the \
         alternatives into parentheses, also if this is the intended meaning."
    FIELD_AS_TEXT "W0402" "the name of a field is looked for as a text"
        "In KQL a word without `:` is searched for in every field. If it is the name of a field, its value or `: *` is \
         probably missing."
    PATTERN_AS_TEXT "W0403" "a pattern is compared as text"
        "`==`, `!=`, `in` and `in~` compare character by character, and so does KQL with text in quotation marks: a `*` \
         matches only itself. `:`, `like` and `like~` accept patterns, and so does KQL without quotation marks."
    WRONG_CASE "W0404" "upper case where values are in lower case"
        "The field's values are in lower case, and the comparison is case-sensitive, so it never holds."
    UNKNOWN_VALUE "W0405" "a value that the field never has"
        "ECS defines the values of this field, and this value is not one of them."
    IMPOSSIBLE "W0406" "a condition that can never hold"
        "A field with one value cannot satisfy two contradicting conditions, and cannot have a value out of its range. \
         The check ignores fields with several values, because each value may satisfy another condition."
    DEAD_EXCLUSION "W0407" "an exclusion that excludes nothing"
        "The other conditions already exclude everything that the `not` excludes. It was probably meant for another \
         alternative, or the other conditions have changed."
    UNBOUNDED "W0408" "a sequence without an end"
        "Without `with maxspan` an event of today can continue a sequence of last month. Every event that may start a \
         sequence is kept until the rule's memory limit evicts it."
    NO_ACTIONS "W0409" "what the rule asks to be done is not done"
        "Behaviour rules of Elastic Defend may have response actions, such as to kill processes. Lapwing raises the alert \
         and changes nothing on the host."
    EXPIRED "W0501" "exception is over"
        "The exception has expired and no longer applies: the alerts that it suppressed are raised again."
    NO_SUCH_RULE "W0502" "exception for a rule that is not there"
        "No loaded rule has this rule_id or name, so the exception suppresses nothing."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_and_never_twice() {
        for pair in code::ALL.windows(2) {
            assert!(pair[0].id < pair[1].id, "{} {}", pair[0].id, pair[1].id);
        }
    }
}
