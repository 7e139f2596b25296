//! Text for a terminal. What processes are named and told by their arguments is written by whoever starts them: a
//! terminal must never get it raw.

use std::borrow::Cow;
use std::fmt::Write;

/// The text with everything escaped that a terminal would act on or that would hide or reorder what is shown.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hazardous) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' => plain.push_str("\\n"),
            '\r' => plain.push_str("\\r"),
            '\t' => plain.push_str("\\t"),
            c if is_hazardous(c) => {
                // Writing to a `String` cannot fail.
                let _ = write!(plain, "\\u{{{:x}}}", u32::from(c));
            }
            c => plain.push(c),
        }
    }
    Cow::Owned(plain)
}

/// Control characters, and the marks by which Unicode changes the direction of text or is not seen at all.
fn is_hazardous(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_hazardous_comes_through() {
        for (text, shown) in [
            ("curl -s http://ü.example", "curl -s http://ü.example"),
            ("\x1b[2J\x1b]0;owned\x07", "\\u{1b}[2J\\u{1b}]0;owned\\u{7}"),
            ("one\ntwo\r\tthree", "one\\ntwo\\r\\tthree"),
            ("txt.\u{202e}exe", "txt.\\u{202e}exe"),
            ("\u{9b}31m", "\\u{9b}31m"),
        ] {
            assert_eq!(plain(text), shown);
        }
    }
}
