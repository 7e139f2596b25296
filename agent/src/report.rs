//! Diagnostics of rule files, as text and JSON.

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use lapwing_engine::Report;
use lapwing_engine::lang::{self, Diagnostic};
use serde_json::{Value as Json, json};

/// A report with excerpts of the file, coloured if `styled`.
pub(crate) fn render(report: &Report, styled: bool) -> String {
    let renderer = if styled { Renderer::styled() } else { Renderer::plain() };
    let renderer = renderer.decor_style(if styled { DecorStyle::Unicode } else { DecorStyle::Ascii });
    let shown: Vec<_> =
        report.diagnostics.iter().map(|diagnostic| one(&renderer, report, diagnostic)).collect();
    shown.join("\n\n")
}

fn one(renderer: &Renderer, report: &Report, diagnostic: &Diagnostic) -> String {
    let level = match diagnostic.level() {
        lang::Level::Error => Level::ERROR,
        lang::Level::Warning => Level::WARNING,
    };
    let text = &*report.text;
    let start = floor(text, diagnostic.span.start);
    let end = floor(text, diagnostic.span.end).max(start);
    let mut place = AnnotationKind::Primary.span(start..end);
    if !diagnostic.label.is_empty() {
        place = place.label(diagnostic.label.as_str());
    }
    let mut group = level
        .primary_title(diagnostic.message.as_str())
        .id(diagnostic.code.id)
        .element(Snippet::source(text).path(&*report.file).annotation(place));
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    renderer.render(&[group])
}

/// The diagnostics of a report, as an object each.
pub(crate) fn to_json(report: &Report) -> impl Iterator<Item = Json> + '_ {
    report.diagnostics.iter().map(|diagnostic| {
        let (line, column) = position(&report.text, diagnostic.span.start);
        json!({
            "file": &*report.file,
            "line": line,
            "column": column,
            "code": diagnostic.code.id,
            "severity": match diagnostic.level() {
                lang::Level::Error => "error",
                lang::Level::Warning => "warning",
            },
            "message": diagnostic.message,
            "label": diagnostic.label,
            "help": diagnostic.help,
        })
    })
}

/// Line and column of an offset, both from one, the column in characters.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..floor(text, at)];
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    (line, column)
}

fn floor(text: &str, at: usize) -> usize {
    text.floor_char_boundary(at.min(text.len()))
}
