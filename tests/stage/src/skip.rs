//! Tests that cannot run on a machine.

/// Says why a test cannot run, in the words that `cargo xtask test` counts.
#[expect(clippy::print_stderr, reason = "the test harness captures what this prints, and nothing else")]
pub fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}
