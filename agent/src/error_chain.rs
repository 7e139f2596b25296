//! An error with its causes, in one line.

use std::error::Error;

/// The error and its causes. A cause that the text already contains is left out.
pub(crate) fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text.replace('\n', " ")
}

/// The innermost cause of an error, or the error itself where it has none.
pub(crate) fn root_cause(error: &dyn Error) -> String {
    let mut root = error;
    while let Some(cause) = root.source() {
        root = cause;
    }
    root.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Layer(&'static str, #[source] Option<Box<Layer>>);

    #[test]
    fn each_cause_is_printed_once() {
        let layer = |text, cause: Option<Layer>| Layer(text, cause.map(Box::new));
        let error = layer("no answer", Some(layer("timed out", Some(layer("out", None)))));
        assert_eq!(error_chain(&error), "no answer: timed out");
        assert_eq!(error_chain(&layer("two\nlines", Some(layer("why", None)))), "two lines: why");
    }
}
