//! Compiled texts and patterns, case-sensitive or not.

use smol_str::SmolStr;

use crate::lang::wildcard::{Wildcard, WildcardPart};

/// Folds case as Elasticsearch's case-insensitive terms do: each character is mapped to lower case by itself. A folded
/// text is not copied.
pub(super) fn fold<'a>(text: &'a str, scratch: &'a mut String) -> &'a str {
    if text.is_ascii() {
        // It reads every byte without a branch, so that it is vectorized.
        if !text.bytes().fold(false, |found, byte| found | byte.is_ascii_uppercase()) {
            return text;
        }
        scratch.clear();
        scratch.push_str(text);
        scratch.make_ascii_lowercase();
        return scratch;
    }
    scratch.clear();
    scratch.extend(text.chars().map(fold_char));
    scratch
}

fn fold_char(c: char) -> char {
    let mut lower = c.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(lower), None) => lower,
        _ => c,
    }
}

/// A compiled pattern. The common forms are separate variants, because they need no loop over segments.
#[derive(Clone, Debug)]
pub(super) enum Pattern {
    Exact(SmolStr),
    Prefix(SmolStr),
    Suffix(SmolStr),
    Contains(SmolStr),
    Anything,
    /// Segments between `*`. A text matches if it contains them one after the other.
    Segments {
        segments: Vec<Segment>,
        open_start: bool,
        open_end: bool,
    },
}

/// The part between two `*`.
#[derive(Clone, Debug)]
pub(super) enum Segment {
    Text(SmolStr),
    /// A segment with `?`: `None` matches any character.
    Characters(Vec<Option<char>>),
}

impl Pattern {
    /// Compiles a pattern. If it ignores case, the texts must be folded before matching.
    pub(super) fn new(wildcard: &Wildcard, insensitive: bool) -> Self {
        let text = |text: &SmolStr| {
            if insensitive { fold(text, &mut String::new()).into() } else { text.clone() }
        };
        use WildcardPart::{Many, Text};
        match wildcard.0.as_slice() {
            [] => Self::Exact(SmolStr::default()),
            [Many] => Self::Anything,
            [Text(exact)] => Self::Exact(text(exact)),
            [Text(start), Many] => Self::Prefix(text(start)),
            [Many, Text(end)] => Self::Suffix(text(end)),
            [Many, Text(part), Many] => Self::Contains(text(part)),
            parts => Self::Segments {
                segments: parts
                    .split(|part| *part == Many)
                    .filter(|segment| !segment.is_empty())
                    .map(|segment| Segment::new(segment, insensitive))
                    .collect(),
                open_start: parts.first() == Some(&Many),
                open_end: parts.last() == Some(&Many),
            },
        }
    }

    /// Whether the pattern matches the whole text.
    pub(super) fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => text == exact,
            Self::Prefix(start) => text.starts_with(start.as_str()),
            Self::Suffix(end) => text.ends_with(end.as_str()),
            Self::Contains(part) => text.contains(part.as_str()),
            Self::Anything => true,
            Self::Segments { segments, open_start, open_end } => {
                walk(segments, text, *open_start, *open_end).is_some()
            }
        }
    }
}

/// Finds the segments in the text one after the other, each at its earliest position. The earliest position leaves the
/// most room for the next segments, so no backtracking is needed. If the end is closed, the last segment must be at the
/// end.
fn walk(segments: &[Segment], text: &str, open_start: bool, open_end: bool) -> Option<()> {
    let mut rest = text;
    for (index, segment) in segments.iter().enumerate() {
        let first = index == 0 && !open_start;
        let last = index + 1 == segments.len() && !open_end;
        rest = match (first, last) {
            (true, false) => &rest[segment.at_start(rest)?..],
            (true, true) => &rest[segment.at_start(rest).filter(|length| *length == rest.len())?..],
            (false, true) => &rest[rest.len() - segment.at_end(rest)?..][..0],
            (false, false) => &rest[segment.find_end(rest)?..],
        };
    }
    Some(())
}

impl Segment {
    fn new(parts: &[WildcardPart], insensitive: bool) -> Self {
        if let [WildcardPart::Text(text)] = parts {
            return Self::Text(if insensitive {
                fold(text, &mut String::new()).into()
            } else {
                text.clone()
            });
        }
        let characters = parts.iter().flat_map(|part| match part {
            WildcardPart::Text(text) => {
                text.chars().map(|c| Some(if insensitive { fold_char(c) } else { c })).collect()
            }
            WildcardPart::One | WildcardPart::Many => vec![None],
        });
        Self::Characters(characters.collect())
    }

    /// How many bytes of the text's start it matches.
    fn at_start(&self, text: &str) -> Option<usize> {
        match self {
            Self::Text(start) => text.starts_with(start.as_str()).then_some(start.len()),
            Self::Characters(wanted) => {
                let mut found = text.chars();
                let fits = wanted.iter().all(|wanted| {
                    found.next().is_some_and(|found| wanted.is_none_or(|wanted| wanted == found))
                });
                fits.then_some(text.len() - found.as_str().len())
            }
        }
    }

    /// How many bytes of the text's end it matches.
    fn at_end(&self, text: &str) -> Option<usize> {
        match self {
            Self::Text(end) => text.ends_with(end.as_str()).then_some(end.len()),
            Self::Characters(wanted) => {
                let mut found = text.chars();
                let fits = wanted.iter().rev().all(|wanted| {
                    found.next_back().is_some_and(|found| wanted.is_none_or(|wanted| wanted == found))
                });
                fits.then_some(text.len() - found.as_str().len())
            }
        }
    }

    /// The end of the earliest match.
    fn find_end(&self, text: &str) -> Option<usize> {
        match self {
            Self::Text(part) => text.find(part.as_str()).map(|start| start + part.len()),
            Self::Characters(_) => text
                .char_indices()
                .find_map(|(start, _)| self.at_start(&text[start..]).map(|length| start + length)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_from_end_to_end() {
        for (pattern, matching, others) in [
            ("curl", &["curl"][..], &["curl1", "acurl", "Curl", ""][..]),
            ("python*", &["python", "python3.11"], &["apython"]),
            ("*.sh", &[".sh", "a.sh"], &["a.shx"]),
            (
                "*import*pty*spawn*",
                &["import pty;pty.spawn()", "ximportptyspawn"],
                &["pty import spawn", "import pty"],
            ),
            ("/etc/rc*.d/*", &["/etc/rc.d/x", "/etc/rc2.d/"], &["/etc/rc2.d", "/etc/rc2d/x"]),
            ("a*b*b", &["abb", "a--b--b"], &["ab", "abbc"]),
            ("?", &["a", "é"], &["", "ab"]),
            ("a?c*", &["abc", "aécd"], &["ac", "abd"]),
            ("*?", &["a", "ab"], &[""]),
            ("*b?d*f?", &["abcdef1", "bxdfff"], &["abcdef", "bdf1"]),
            ("*a*a", &["aa", "aba"], &["a"]),
            ("a*a", &["aa", "aba"], &["a"]),
            ("*", &["", "x"], &[]),
            ("", &[""], &["x"]),
        ] {
            let pattern_ready = Pattern::new(&Wildcard::parse(pattern, true), false);
            for text in matching {
                assert!(pattern_ready.matches(text), "{pattern} matches {text}");
            }
            for text in others {
                assert!(!pattern_ready.matches(text), "{pattern} does not match {text}");
            }
        }
    }

    #[test]
    fn case_is_folded_character_by_character() {
        let pattern = Pattern::new(&Wildcard::parse("*PyTHÖN?x*", true), true);
        let mut scratch = String::new();
        assert!(pattern.matches(fold("…pYthön3X…", &mut scratch)));
        assert_eq!(fold("plain", &mut String::new()), "plain");
        assert_eq!(fold("İ", &mut String::new()), "İ", "what has no single lower case stays");
    }
}
