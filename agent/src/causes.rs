//! An error as people read it: with its causes, in one line.

use std::error::Error;

/// The error and its causes, each where what stands before does not say it already.
pub(crate) fn causes(error: &dyn Error) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Cause(&'static str, #[source] Option<Box<Cause>>);

    #[test]
    fn each_cause_is_shown_once() {
        let caused = |text, cause: Option<Cause>| Cause(text, cause.map(Box::new));
        let error = caused("no answer", Some(caused("timed out", Some(caused("out", None)))));
        assert_eq!(causes(&error), "no answer: timed out");
        assert_eq!(causes(&caused("two\nlines", Some(caused("why", None)))), "two lines: why");
    }
}
