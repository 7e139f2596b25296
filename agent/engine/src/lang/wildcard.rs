//! Patterns with wildcards.

use std::fmt;

use smol_str::SmolStr;

/// A pattern with wildcards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wildcard(pub Vec<WildcardPart>);

/// A part of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WildcardPart {
    /// These characters.
    Text(SmolStr),
    /// Any characters, or none: `*`.
    Many,
    /// One character: `?`.
    One,
}

impl Wildcard {
    /// Reads a pattern in which `*`, and `?` too where `one` says so, are wildcards, and nothing escapes them.
    #[must_use]
    pub fn parse(text: &str, one: bool) -> Self {
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let end = rest.find(|c| c == '*' || (one && c == '?')).unwrap_or(rest.len());
            if end > 0 {
                parts.push(WildcardPart::Text(rest[..end].into()));
            }
            match rest[end..].chars().next() {
                Some('*') if parts.last() != Some(&WildcardPart::Many) => parts.push(WildcardPart::Many),
                Some('?') => parts.push(WildcardPart::One),
                _ => {}
            }
            rest = rest.get(end + 1..).unwrap_or_default();
        }
        Self(parts)
    }

    /// Whether it matches a text from end to end. For a few texts: patterns that are matched often are compiled.
    pub(crate) fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        // The places in the text up to which the parts so far can reach.
        let mut reached = vec![false; text.len() + 1];
        reached[0] = true;
        let step = |reached: &mut Vec<bool>, wanted: Option<char>| {
            for at in (0..text.len()).rev() {
                reached[at + 1] = reached[at] && wanted.is_none_or(|wanted| text[at] == wanted);
            }
            reached[0] = false;
        };
        for part in &self.0 {
            match part {
                WildcardPart::Many => {
                    let first = reached.iter().position(|reached| *reached).unwrap_or(reached.len());
                    reached[first..].fill(true);
                }
                WildcardPart::One => step(&mut reached, None),
                WildcardPart::Text(part) => part.chars().for_each(|c| step(&mut reached, Some(c))),
            }
        }
        reached[text.len()]
    }

    /// The text it stands for, where it has no wildcard.
    #[must_use]
    pub fn as_text(&self) -> Option<SmolStr> {
        match self.0.as_slice() {
            [] => Some(SmolStr::default()),
            [WildcardPart::Text(text)] => Some(text.clone()),
            _ => None,
        }
    }
}

impl fmt::Display for Wildcard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            WildcardPart::Text(text) => f.write_str(text),
            WildcardPart::Many => f.write_str("*"),
            WildcardPart::One => f.write_str("?"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_are_read() {
        for (text, one, parts) in
            [("a*b?c", true, 5), ("a?", false, 1), ("***", true, 1), ("", true, 0), ("*é?*", true, 4)]
        {
            let pattern = Wildcard::parse(text, one);
            assert_eq!(pattern.0.len(), parts, "{text}");
        }
        assert_eq!(Wildcard::parse("a**b", true).to_string(), "a*b");
        assert_eq!(Wildcard::parse("plain", true).as_text().as_deref(), Some("plain"));
    }
}
