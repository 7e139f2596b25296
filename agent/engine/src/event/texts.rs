//! Lists of texts, and the iterator over the values of any list.
//!
//! The user who starts a program chooses the number and the lengths of its arguments. A value for each would take 24
//! bytes, also for an empty argument. So a list is one buffer, in which each argument ends with a NUL, which no
//! argument contains.

use std::borrow::Cow;
use std::iter::FusedIterator;
use std::sync::Arc;

use memchr::memchr;

use super::{SHARED_BYTES, Value, allocated};

/// The end of each text.
const END: char = '\0';
const END_BYTE: u8 = END as u8;
/// The initial capacity, in texts and bytes of each: most lists are of entity ids, of 28 bytes.
const ROOM_TEXTS: usize = 32;
const ROOM_BYTES: usize = 32;

/// Texts without NULs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Texts(Arc<str>);

impl Texts {
    /// A list of these texts. The error is for a text with a NUL: the texts before it, and that text.
    pub(super) fn new<T: AsRef<str>>(texts: &mut impl Iterator<Item = T>) -> Result<Self, (Self, T)> {
        let mut ended = String::with_capacity(texts.size_hint().0.min(ROOM_TEXTS) * ROOM_BYTES);
        for text in texts {
            if memchr(END_BYTE, text.as_ref().as_bytes()).is_some() {
                return Err((Self(ended.into()), text));
            }
            ended.push_str(text.as_ref());
            ended.push(END);
        }
        Ok(Self(ended.into()))
    }

    /// The list of a buffer in which each text ends with a NUL.
    #[must_use]
    pub fn of_ended(mut ended: String) -> Self {
        if !ended.is_empty() && !ended.ends_with(END) {
            ended.push(END);
        }
        Self(ended.into())
    }

    /// The buffer, in which each text ends with a NUL.
    #[must_use]
    pub fn as_ended(&self) -> &str {
        &self.0
    }

    /// The texts in order.
    pub fn iter(&self) -> Iter<'_> {
        Iter(&self.0)
    }

    /// Whether there are more than one.
    #[must_use]
    pub fn are_several(&self) -> bool {
        memchr(END_BYTE, self.0.as_bytes()).is_some_and(|first| first + 1 < self.0.len())
    }

    /// The texts with this separator between them.
    #[must_use]
    pub fn join(&self, between: &str) -> String {
        let ended = self.0.strip_suffix(END).unwrap_or(&self.0);
        ended.replace(END, between)
    }

    /// The beginning of the list, in at most this many bytes with the NULs. The last text may be cut.
    #[must_use]
    pub fn cut(&self, bytes_max: usize) -> Self {
        if self.0.len() <= bytes_max {
            return self.clone();
        }
        let whole = self.0.floor_char_boundary(bytes_max.saturating_sub(1));
        Self::of_ended(self.0[..whole].to_owned())
    }

    /// The buffer. Its address identifies a list that events share.
    pub(crate) fn shared(&self) -> &Arc<str> {
        &self.0
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        allocated(SHARED_BYTES + self.0.len())
    }
}

/// An iterator over the texts of a list. It holds the rest of the buffer.
#[derive(Clone, Debug)]
pub struct Iter<'a>(&'a str);

impl<'a> Iterator for Iter<'a> {
    type Item = &'a str;

    #[inline]
    fn next(&mut self) -> Option<&'a str> {
        let (text, rest) = self.0.split_at_checked(memchr(END_BYTE, self.0.as_bytes())?)?;
        self.0 = &rest[1..];
        Some(text)
    }
}

impl FusedIterator for Iter<'_> {}

/// The values of a field one by one.
#[derive(Clone, Debug)]
pub struct Elements<'a>(Source<'a>);

#[derive(Clone, Debug)]
enum Source<'a> {
    Values(&'a [Value]),
    Texts(Iter<'a>),
}

impl<'a> Elements<'a> {
    /// These values.
    #[must_use]
    pub fn of(values: &'a [Value]) -> Self {
        Self(Source::Values(values))
    }

    pub(super) fn of_texts(texts: &'a Texts) -> Self {
        Self(Source::Texts(texts.iter()))
    }

    /// Whether there are no more.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match &self.0 {
            Source::Values(values) => values.is_empty(),
            Source::Texts(texts) => texts.0.is_empty(),
        }
    }

    /// The value, if there is exactly one.
    #[must_use]
    pub fn only(mut self) -> Option<Cow<'a, Value>> {
        let only = self.next()?;
        self.is_empty().then_some(only)
    }

    /// All of them.
    #[must_use]
    pub fn to_vec(self) -> Vec<Value> {
        self.map(Cow::into_owned).collect()
    }
}

impl Default for Elements<'_> {
    fn default() -> Self {
        Self::of(&[])
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Cow<'a, Value>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Source::Values(values) => {
                let (first, rest) = values.split_first()?;
                *values = rest;
                Some(Cow::Borrowed(first))
            }
            Source::Texts(texts) => texts.next().map(|text| Cow::Owned(Value::Text(text.into()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_fits_and_is_text() {
        let texts = Texts::of_ended("sh\0-c\0\0öö".into());
        assert_eq!(texts.iter().collect::<Vec<_>>(), ["sh", "-c", "", "öö"]);
        assert_eq!(texts.join(" "), "sh -c  öö");
        for (bytes, expected) in [
            (0, &[][..]),
            (1, &[]),
            (2, &["s"]),
            (3, &["sh"]),
            (4, &["sh"]),
            (6, &["sh", "-c"]),
            (7, &["sh", "-c"]),
            (8, &["sh", "-c", ""]),
            (9, &["sh", "-c", ""]),
            (10, &["sh", "-c", "", "ö"]),
            (12, &["sh", "-c", "", "öö"]),
        ] {
            let cut = texts.cut(bytes);
            assert_eq!(cut.iter().collect::<Vec<_>>(), expected, "{bytes}");
            assert!(cut.as_ended().len() <= bytes);
        }
    }
}
