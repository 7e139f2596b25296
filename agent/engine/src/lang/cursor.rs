//! A place in a text that is read character by character; both lexers walk with it.

use super::diagnostic::Span;

/// The unread rest of a text.
pub(super) struct Cursor<'a> {
    text: &'a str,
    place: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, place: 0 }
    }

    /// Where the next character starts.
    pub(super) fn place(&self) -> usize {
        self.place
    }

    pub(super) fn rest(&self) -> &'a str {
        &self.text[self.place..]
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    pub(super) fn bump(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.place += next.len_utf8();
        Some(next)
    }

    /// Goes over `prefix` where the rest starts with it.
    pub(super) fn eat(&mut self, prefix: &str) -> bool {
        let found = self.rest().starts_with(prefix);
        if found {
            self.place += prefix.len();
        }
        found
    }

    /// Goes over all characters that `wanted` holds for, and returns them.
    pub(super) fn eat_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        self.place += end;
        &rest[..end]
    }

    /// Goes on to just after `mark`, or to the end where there is none; whether there is one.
    pub(super) fn eat_past(&mut self, mark: &str) -> bool {
        let found = self.rest().find(mark);
        self.place = found.map_or(self.text.len(), |at| self.place + at + mark.len());
        found.is_some()
    }

    /// The text from `start` up to here.
    pub(super) fn since(&self, start: usize) -> &'a str {
        &self.text[start..self.place]
    }

    pub(super) fn span(&self, start: usize) -> Span {
        Span::new(start, self.place)
    }
}
