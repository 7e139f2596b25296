//! Tests that cannot run on a machine.

/// Whether this runs as root; says that the test is skipped where not.
#[must_use]
pub fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        skipped("it needs root");
    }
    root
}

/// Says why a test cannot run, in the words that `cargo xtask test` counts.
#[expect(clippy::print_stderr, reason = "the test harness captures what this prints, and nothing else")]
pub fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}
