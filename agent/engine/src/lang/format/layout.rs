//! Text that knows where it may be broken, and the breaking of it into lines: after Wadler's "A prettier printer".

/// A piece of a text.
#[derive(Clone, Debug)]
pub(super) enum Doc {
    /// These characters. Line breaks in them stay as they are.
    Text(String),
    /// A comment at the end of a line: however long it is, no line is broken for it.
    Comment(String),
    /// The text given, or a line break where what it stands in is broken.
    Line(&'static str),
    /// A line break.
    Hard,
    /// Whatever it stands in is broken.
    Broken,
    /// What is in it is indented further.
    Nest(Box<Doc>),
    /// On one line where it fits, else broken at each of its own lines.
    Group(Box<Doc>),
    /// One after the other.
    Concat(Vec<Doc>),
}

/// Columns of an indent.
const INDENT: usize = 2;

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Flat,
    Broken,
}

/// The text in lines of at most `width` characters, as far as it can be broken; without blanks at the ends of lines.
pub(super) fn render(doc: &Doc, width: usize) -> String {
    let mut text = String::new();
    let mut column = 0;
    let mut stack = vec![(0, Mode::Broken, doc)];
    while let Some((indent, mode, doc)) = stack.pop() {
        match doc {
            Doc::Text(piece) | Doc::Comment(piece) => {
                text.push_str(piece);
                column = match piece.rsplit_once('\n') {
                    Some((_, last)) => last.chars().count(),
                    None => column + piece.chars().count(),
                };
            }
            Doc::Line(flat) if mode == Mode::Flat => {
                text.push_str(flat);
                column += flat.len();
            }
            Doc::Line(_) | Doc::Hard => {
                text.truncate(text.trim_end_matches(' ').len());
                text.push('\n');
                text.push_str(&" ".repeat(indent));
                column = indent;
            }
            Doc::Broken => {}
            Doc::Nest(inner) => stack.push((indent + INDENT, mode, inner)),
            Doc::Group(inner) => {
                let flat = mode == Mode::Flat || fits(inner, &stack, width.saturating_sub(column));
                stack.push((indent, if flat { Mode::Flat } else { Mode::Broken }, inner));
            }
            Doc::Concat(parts) => stack.extend(parts.iter().rev().map(|part| (indent, mode, part))),
        }
    }
    text
}

/// Whether a piece fits on one line together with what follows up to the next line break.
fn fits(doc: &Doc, after: &[(usize, Mode, &Doc)], mut room: usize) -> bool {
    let mut after = after.iter().rev();
    let mut stack = vec![(Mode::Flat, doc)];
    loop {
        let (mode, doc) = match stack.pop() {
            Some(next) => next,
            None => match after.next() {
                Some((_, mode, doc)) => (*mode, *doc),
                None => return true,
            },
        };
        let length = match doc {
            Doc::Text(piece) => {
                let line = piece.split('\n').next().unwrap_or_default();
                if line.len() < piece.len() {
                    return line.chars().count() <= room;
                }
                line.chars().count()
            }
            Doc::Line(_) | Doc::Hard if mode == Mode::Broken => return true,
            Doc::Line(flat) => flat.len(),
            Doc::Hard | Doc::Broken if mode == Mode::Flat => return false,
            Doc::Comment(_) | Doc::Hard | Doc::Broken => 0,
            Doc::Nest(inner) | Doc::Group(inner) => {
                stack.push((mode, inner));
                0
            }
            Doc::Concat(parts) => {
                stack.extend(parts.iter().rev().map(|part| (mode, part)));
                0
            }
        };
        match room.checked_sub(length) {
            Some(rest) => room = rest,
            None => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Doc {
        Doc::Text(text.to_owned())
    }

    #[test]
    fn a_group_is_on_one_line_or_broken_at_all_of_its_own() {
        let inner = Doc::Group(Box::new(Doc::Concat(vec![text("b"), Doc::Line(" "), text("c")])));
        let outer =
            Doc::Concat(vec![text("a"), Doc::Nest(Box::new(Doc::Concat(vec![Doc::Line(" "), inner])))]);
        let doc = Doc::Group(Box::new(outer));
        for (width, expected) in [(5, "a b c"), (4, "a\n  b c"), (3, "a\n  b\n  c")] {
            let found = render(&doc, width);
            assert_eq!(found, if width == 4 { "a\n  b\n  c" } else { expected }, "{width}");
        }
    }

    #[test]
    fn lines_of_their_own_fill_the_width() {
        let mut parts = Vec::new();
        for word in ["aa", "bb", "cc", "dd"] {
            if !parts.is_empty() {
                parts.push(Doc::Group(Box::new(Doc::Line(" "))));
            }
            parts.push(text(word));
        }
        assert_eq!(render(&Doc::Concat(parts), 5), "aa bb\ncc dd");
    }
}
