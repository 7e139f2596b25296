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
    struct Told(&'static str, #[source] Option<Box<Told>>);

    #[test]
    fn each_cause_is_told_once() {
        let told = |text, cause: Option<Told>| Told(text, cause.map(Box::new));
        let error = told("no answer", Some(told("timed out", Some(told("out", None)))));
        assert_eq!(causes(&error), "no answer: timed out");
        assert_eq!(causes(&told("two\nlines", Some(told("why", None)))), "two lines: why");
    }
}
