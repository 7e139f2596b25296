//! Reads the output of cargo and the test harness line by line, and counts the results. Of a target that passes one
//! line is shown, of one that fails everything.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

/// The prefix of the line by which a test reports that it cannot run here.
const SKIPPED: &str = "skipped: ";

/// The results of all tests so far.
pub(super) struct Report {
    /// Prints a line for the user.
    show: fn(&str),
    passed: usize,
    failed: usize,
    /// The number of skipped tests, by reason.
    skipped: BTreeMap<String, usize>,
    failed_targets: Vec<String>,
    /// The target whose output is being read.
    target: Option<Target>,
    /// The output of cargo that belongs to no target.
    outside: Vec<String>,
}

/// One program of tests.
struct Target {
    name: String,
    start: Instant,
    passed: usize,
    failed: usize,
    /// Tests that printed that they were skipped. The harness counts them as passed.
    skipped: usize,
    /// Tests that the harness ignored.
    ignored: usize,
    /// Whether the harness has printed its summary.
    is_complete: bool,
    /// Its output, which is shown if it fails.
    lines: Vec<String>,
    /// Whether the current lines are the output of tests that passed.
    in_successes: bool,
    /// Whether the current test has reported that it was skipped.
    is_skipped: bool,
}

impl Report {
    pub(super) fn new(show: fn(&str)) -> Self {
        Self {
            show,
            passed: 0,
            failed: 0,
            skipped: BTreeMap::new(),
            failed_targets: Vec::new(),
            target: None,
            outside: Vec::new(),
        }
    }

    /// Begins a target that cargo does not run.
    pub(super) fn begin(&mut self, name: String) {
        self.close();
        self.target = Some(Target::new(name));
    }

    /// Reads the next line.
    pub(super) fn line(&mut self, line: &str) {
        if let Some(name) = begins(line) {
            return self.begin(name);
        }
        if line.contains("has been running for over") {
            (self.show)(line);
        }
        let Some(target) = &mut self.target else { return self.outside.push(line.to_owned()) };
        if let Some(reason) = target.line(line) {
            *self.skipped.entry(reason.to_owned()).or_default() += 1;
        }
    }

    /// Ends one run of cargo.
    pub(super) fn end(&mut self, is_success: bool) {
        self.close();
        let outside = std::mem::take(&mut self.outside);
        if !is_success && self.failed_targets.is_empty() {
            (self.show)(&outside.join("\n"));
            self.failed_targets.push("cargo itself".to_owned());
        }
    }

    /// Adds the result of one test without a harness. The error is its output.
    pub(super) fn one(&mut self, name: &str, result: Result<(), String>) {
        match result {
            Ok(()) => self.passed += 1,
            Err(seen) => {
                (self.show)(&format!("{name}: {seen}"));
                self.failed += 1;
                self.failed_targets.push(name.to_owned());
            }
        }
    }

    /// Counts tests that were not started.
    pub(super) fn skip(&mut self, count: usize, reason: &str) {
        *self.skipped.entry(reason.to_owned()).or_default() += count;
    }

    /// The reasons for which tests could not run, one per line.
    pub(super) fn skipped(&self) -> impl Iterator<Item = String> {
        self.skipped.iter().map(|(reason, count)| format!("{count} skipped: {reason}"))
    }

    /// The numbers of passed and failed tests so far.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.passed, self.failed)
    }

    /// The targets with failed tests.
    pub(super) fn failed_targets(&self) -> &[String] {
        &self.failed_targets
    }

    fn close(&mut self) {
        let Some(mut target) = self.target.take() else { return };
        if !target.is_complete {
            target.failed += 1;
            target.lines.push("it ended without a result".to_owned());
        }
        self.passed += target.passed;
        self.failed += target.failed;
        if target.failed > 0 {
            (self.show)(&target.lines.join("\n"));
            self.failed_targets.push(target.name.clone());
        }
        if target.passed + target.failed + target.skipped + target.ignored > 0 {
            (self.show)(&target.to_string());
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let skipped: usize = self.skipped.values().sum();
        write!(f, "{} passed, {} failed, {skipped} skipped", self.passed, self.failed)
    }
}

impl Target {
    fn new(name: String) -> Self {
        Self {
            name,
            start: Instant::now(),
            passed: 0,
            failed: 0,
            skipped: 0,
            ignored: 0,
            is_complete: false,
            lines: Vec::new(),
            in_successes: false,
            is_skipped: false,
        }
    }

    /// Reads a line. Returns the reason if a test reports in it that it was skipped.
    fn line<'a>(&mut self, line: &'a str) -> Option<&'a str> {
        match line {
            "successes:" => self.in_successes = true,
            "failures:" => self.in_successes = false,
            _ if line.starts_with("---- ") => self.is_skipped = false,
            _ => {}
        }
        if let Some(result) = line.strip_prefix("test result: ") {
            self.in_successes = false;
            self.sum_up(result);
        }
        if let Some((_, reason)) = line.split_once(" ... ignored, ") {
            self.ignored += 1;
            return Some(reason);
        }
        if !self.in_successes {
            if !line.ends_with(" ... ok") {
                self.lines.push(line.to_owned());
            }
            return None;
        }
        let reason = line.strip_prefix(SKIPPED).filter(|_| !self.is_skipped)?;
        self.is_skipped = true;
        self.skipped += 1;
        Some(reason)
    }

    /// Reads the harness's summary, such as `ok. 3 passed; 0 failed; 0 ignored; …; finished in 0.01s`. Documentation
    /// tests may have two, because some run together and some alone.
    fn sum_up(&mut self, result: &str) {
        let count = |word: &str| {
            let part = result.split(['.', ';']).find_map(|part| part.trim().strip_suffix(word));
            part.and_then(|number| number.parse().ok()).unwrap_or(0_usize)
        };
        self.passed += count(" passed");
        self.failed += count(" failed");
        // The harness counts a skipped test as passed.
        if !std::mem::replace(&mut self.is_complete, true) {
            self.passed = self.passed.saturating_sub(self.skipped);
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, passed, failed, .. } = self;
        let skipped = self.skipped + self.ignored;
        let seconds = self.start.elapsed().as_secs_f64();
        write!(f, "{name}: {passed} passed, {failed} failed, {skipped} skipped in {seconds:.1} s")
    }
}

/// The name of the target whose output begins with this line.
fn begins(line: &str) -> Option<String> {
    let line = line.trim_start();
    if let Some(name) = line.strip_prefix("Doc-tests ") {
        return Some(format!("{name} (documentation)"));
    }
    let (what, program) = line.strip_prefix("Running ")?.split_once(" (")?;
    let stem = program.trim_end_matches(')').rsplit('/').next()?;
    let name = stem.rsplit_once('-').map_or(stem, |(name, _)| name);
    Some(if what.starts_with("unittests ") { format!("{name} (unit)") } else { name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSING: &str = "     Running unittests src/main.rs (target/debug/deps/lapwing-0a1b)

running 3 tests
test a ... ok
test b ... ok
test c ... ok

successes:

---- a stdout ----
skipped: no nc here
skipped: no nc here

---- b stdout ----
this is not skipped: it only talks
failures:
    a

successes:
    a
    b

test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
";

    fn report(text: &str, is_success: bool) -> Report {
        let mut report = Report::new(|_| {});
        text.lines().for_each(|line| report.line(line));
        report.end(is_success);
        report
    }

    #[test]
    fn skipped_tests_did_not_pass() {
        let mut report = report(PASSING, true);
        report.skip(4, "needs root");
        assert_eq!(report.to_string(), "2 passed, 0 failed, 5 skipped");
        let reasons: Vec<_> = report.skipped().collect();
        assert_eq!(reasons, ["4 skipped: needs root", "1 skipped: no nc here"]);
        assert!(report.failed_targets().is_empty());
    }

    #[test]
    fn ignored_tests_are_skipped() {
        let text = "     Running tests/live.rs (target/debug/deps/live-0a1b)\ntest a ... ignored, needs root\n\
            test b ... ok\ntest result: ok. 1 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s\n";
        let report = report(text, true);
        assert_eq!(report.to_string(), "1 passed, 0 failed, 1 skipped");
        assert_eq!(report.skipped().collect::<Vec<_>>(), ["1 skipped: needs root"]);
    }

    #[test]
    fn what_fails_or_crashes_is_named() {
        let text = format!(
            "{PASSING}     Running tests/replay.rs (target/debug/deps/replay-0a1b)\ntest d ... FAILED\n\
             test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n   \
             Running tests/sinks.rs (target/debug/deps/sinks-0a1b)\nrunning 9 tests\n   Doc-tests lapwing_engine\n\
             test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n\
             test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n"
        );
        let report = report(&text, false);
        assert_eq!(report.to_string(), "6 passed, 2 failed, 1 skipped");
        assert_eq!(report.failed_targets(), ["replay", "sinks"]);
    }

    #[test]
    fn cargo_itself_may_fail() {
        assert_eq!(report("error: no such target\n", false).failed_targets(), ["cargo itself"]);
    }
}
