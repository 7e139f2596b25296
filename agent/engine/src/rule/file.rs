//! One file of rules, jobs or exceptions: its text and its diagnostics.

use std::sync::Arc;

use toml::Spanned;
use toml::de::DeTable;

use super::FILE_BYTES_MAX;
use super::document::without_mark;
use crate::lang::DIAGNOSTICS_MAX;
use crate::lang::diagnostic::{Diagnostic, Level, Span, code};

/// The diagnostics of one file.
#[derive(Clone, Debug)]
pub struct Report {
    /// The file's name.
    pub file: Arc<str>,
    /// Its text, for excerpts.
    pub text: Arc<str>,
    /// The diagnostics, with positions in `text`.
    pub diagnostics: Vec<Diagnostic>,
}

impl Report {
    /// The report on a file that could not be read.
    pub(super) fn unreadable(file: &str, why: &str) -> Self {
        let diagnostics = vec![Diagnostic::new(code::BAD_FILE, Span::default(), why)];
        Self { file: file.into(), text: "".into(), diagnostics }
    }

    /// Whether the file has an error, so that it yields no rule.
    #[must_use]
    pub fn is_fault(&self) -> bool {
        self.diagnostics.iter().any(|diagnostic| diagnostic.level() == Level::Error)
    }

    /// Keeps the maximum number of diagnostics, errors before warnings.
    pub(super) fn shorten(&mut self) {
        if self.diagnostics.len() > DIAGNOSTICS_MAX {
            self.diagnostics.sort_by_key(|diagnostic| diagnostic.level() != Level::Error);
            self.diagnostics.truncate(DIAGNOSTICS_MAX);
        }
    }
}

/// A file.
pub(super) struct SourceFile {
    /// Its name.
    pub(super) file: Arc<str>,
    /// Its text; invalid UTF-8 is replaced.
    pub(super) text: Arc<str>,
    /// The error if it cannot be read as text.
    fault: Option<Diagnostic>,
}

impl SourceFile {
    pub(super) fn new(file: &str, bytes: &[u8]) -> Self {
        Self { file: file.into(), text: text(bytes).into(), fault: no_text(bytes) }
    }

    /// Parses its TOML document.
    pub(super) fn parse(&self) -> Result<Spanned<DeTable<'_>>, Vec<Diagnostic>> {
        match &self.fault {
            Some(fault) => Err(vec![fault.clone()]),
            None => document(&self.text),
        }
    }

    /// The report on the file; `None` without diagnostics.
    pub(super) fn report(&self, diagnostics: Vec<Diagnostic>) -> Option<Report> {
        let Self { file, text, .. } = self;
        (!diagnostics.is_empty()).then(|| Report { file: file.clone(), text: text.clone(), diagnostics })
    }
}

/// The text of a file, up to [`FILE_BYTES_MAX`].
pub(super) fn text(bytes: &[u8]) -> String {
    without_mark(&String::from_utf8_lossy(&bytes[..bytes.len().min(FILE_BYTES_MAX)])).into_owned()
}

/// Parses the TOML document of a file. `text` is the text of `bytes`.
pub(super) fn parse<'a>(bytes: &[u8], text: &'a str) -> Result<Spanned<DeTable<'a>>, Vec<Diagnostic>> {
    match no_text(bytes) {
        Some(fault) => Err(vec![fault]),
        None => document(text),
    }
}

fn no_text(bytes: &[u8]) -> Option<Diagnostic> {
    if bytes.len() > FILE_BYTES_MAX {
        let message = format!("the file is longer than {FILE_BYTES_MAX} bytes");
        let fault = Diagnostic::new(code::BAD_FILE, Span::default(), message);
        return Some(fault.help("one rule stands in a file: part it, or take out what is none"));
    }
    let at = std::str::from_utf8(bytes).err()?.valid_up_to();
    let message = format!("the file is not UTF-8 text from byte {at} on");
    // Invalid UTF-8 is a replacement character in the text.
    let sign = char::REPLACEMENT_CHARACTER.len_utf8();
    Some(Diagnostic::new(code::BAD_FILE, Span::new(at, at + sign), message).help("save it as UTF-8"))
}

fn document(text: &str) -> Result<Spanned<DeTable<'_>>, Vec<Diagnostic>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(document);
    }
    let place = |error: &toml::de::Error| error.span().map_or(Span::first_of(text), Span::from);
    let faults = errors.iter().take(DIAGNOSTICS_MAX);
    Err(faults
        .map(|error| Diagnostic::new(code::BAD_TOML, place(error), error.message().to_owned()))
        .collect())
}
