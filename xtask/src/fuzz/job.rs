//! One process of the fuzzer, and its output.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use anyhow::{Context, Result};

use super::Target;
use crate::shell;

/// How long one input may take, in seconds.
const INPUT_SECONDS_MAX: u32 = 10;
/// Maximum memory for one input, in MiB.
const MEMORY_MIB_MAX: u32 = 2048;
/// Maximum number of kept output lines of a job, without its progress.
const LINES_MAX: usize = 200;

/// A process that fuzzes.
pub(super) struct Job {
    child: Child,
    reader: JoinHandle<()>,
    printed: Arc<Printed>,
}

/// What a process has printed so far.
#[derive(Default)]
struct Printed {
    numbers: Mutex<Numbers>,
    lines: Mutex<Vec<String>>,
    has_ended: AtomicBool,
}

/// The progress of a job, or of several together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    /// Inputs that were tried.
    pub(super) executions: u64,
    /// Branches that some input took.
    pub(super) coverage: u64,
    /// Branches that the initial corpus took.
    pub(super) coverage_first: u64,
    /// Events about which the engine and the reference agreed.
    pub(super) events: u64,
}

/// The result of a job.
pub(super) struct End {
    pub(super) numbers: Numbers,
    /// Whether it ended without a defect.
    pub(super) is_well: bool,
    /// Its output, without its progress.
    pub(super) said: Vec<String>,
    /// The file with the input that failed.
    pub(super) input: Option<PathBuf>,
}

/// The command that fuzzes a target, with the limits of one input.
pub(super) fn command(program: &Path, target: &Target) -> Command {
    let mut command = Command::new(program);
    command.env("LAPWING_PROPERTY", target.name).env("RUST_BACKTRACE", "0");
    command.arg(format!("-timeout={INPUT_SECONDS_MAX}")).arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}"));
    command.arg(format!("-max_len={}", target.bytes_max)).args(["-print_funcs=0", "-print_final_stats=0"]);
    if target.dictionary.is_none() {
        // Short inputs have too few choices to be of interest.
        command.arg("-len_control=0");
    }
    if let Some(dictionary) = target.dictionary {
        let folder = shell::root().join("agent/engine/fuzz/dictionaries");
        command.arg(format!("-dict={}", folder.join(format!("{dictionary}.txt")).display()));
    }
    command.stdin(Stdio::null()).current_dir(shell::root());
    command
}

/// Waits for jobs, and stops the others when one has failed. Returns their results.
///
/// # Errors
/// A process cannot be waited for.
pub(super) fn end(mut jobs: Vec<Job>) -> Result<Vec<End>> {
    let mut ends: Vec<End> = Vec::new();
    // Those that have ended come first.
    jobs.sort_by_key(Job::is_running);
    for mut job in jobs {
        let is_stopped = job.is_running() && ends.iter().any(|end| !end.is_well);
        if is_stopped {
            job.child.kill().context("a job of the fuzzer")?;
        }
        let status = job.child.wait().context("a job of the fuzzer")?;
        // It only reads, and ends when the process does.
        let _ = job.reader.join();
        let said = std::mem::take(&mut *lock(&job.printed.lines));
        let written = said.iter().find_map(|line| line.split_once("Test unit written to "));
        let input = written.map(|(_, path)| path.into());
        let is_well = status.success() || is_stopped;
        ends.push(End { numbers: *lock(&job.printed.numbers), is_well, said, input });
    }
    Ok(ends)
}

impl Job {
    /// Starts a process and reads its output.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn start(mut command: Command) -> Result<Self> {
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| command.get_program().to_string_lossy().into_owned())?;
        let stderr = child.stderr.take().context("a pipe")?;
        let printed = Arc::new(Printed::default());
        let reader = std::thread::spawn({
            let printed = printed.clone();
            move || {
                for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                    printed.line(&String::from_utf8_lossy(&line));
                }
                printed.has_ended.store(true, Ordering::Release);
            }
        });
        Ok(Self { child, reader, printed })
    }

    /// Whether it has not ended yet.
    pub(super) fn is_running(&self) -> bool {
        !self.printed.has_ended.load(Ordering::Acquire)
    }

    /// Its progress.
    pub(super) fn numbers(&self) -> Numbers {
        *lock(&self.printed.numbers)
    }
}

impl Printed {
    fn line(&self, line: &str) {
        let mut numbers = lock(&self.numbers);
        if !numbers.read(line) && !is_noise(line) {
            let mut lines = lock(&self.lines);
            if lines.len() < LINES_MAX {
                lines.push(line.to_owned());
            }
        }
    }
}

/// Ignores poisoning: only a panic of the thread that reads lines causes it, and the numbers are still valid.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Numbers {
    /// The sum of two jobs with a common corpus: inputs are added, and of the coverage the higher one counts, because
    /// one job soon covers what the other does.
    pub(super) fn and(self, other: Self) -> Self {
        let first = match (self.coverage_first, other.coverage_first) {
            (0, first) | (first, 0) => first,
            (one, other) => one.min(other),
        };
        Self {
            executions: self.executions + other.executions,
            coverage: self.coverage.max(other.coverage),
            coverage_first: first,
            events: self.events + other.events,
        }
    }

    /// Reads a line of progress: `#16384  pulse  cov: 2647 ft: 10764 corp: …`, or in the end `events: 17`. Returns
    /// whether it is one.
    fn read(&mut self, line: &str) -> bool {
        if let Some(events) = line.strip_prefix("events: ").and_then(|count| count.parse().ok()) {
            self.events = events;
            return true;
        }
        let Some(rest) = line.strip_prefix('#') else { return false };
        let mut words = rest.split_whitespace();
        let Some(executions) = words.next().and_then(|word| word.parse().ok()) else { return false };
        self.executions = executions;
        let event = words.next();
        if let Some(coverage) = after(line, "cov: ") {
            self.coverage = coverage;
            if event == Some("INITED") {
                self.coverage_first = coverage;
            }
        }
        true
    }
}

fn after(line: &str, mark: &str) -> Option<u64> {
    line.split_once(mark)?.1.split_whitespace().next()?.parse().ok()
}

/// Whether a line is output that libFuzzer always prints.
fn is_noise(line: &str) -> bool {
    ["INFO: ", "WARNING: Failed to find function", "Dictionary: ", "###### ", "Done ", "\"", "MS: "]
        .iter()
        .any(|start| line.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read() {
        let mut numbers = Numbers::default();
        for (line, is_progress) in [
            ("INFO: Seed: 1", false),
            ("#2\tINITED cov: 963 ft: 963 corp: 1/1b exec/s: 0 rss: 31Mb", true),
            ("#79677\tDONE   cov: 3051 ft: 14254 corp: 1106/20Kb lim: 48 exec/s: 2570 rss: 39Mb", true),
            ("events: 17", true),
            ("###### Recommended dictionary. ######", false),
        ] {
            assert_eq!(numbers.read(line), is_progress, "{line}");
        }
        assert_eq!(numbers, Numbers { executions: 79677, coverage: 3051, coverage_first: 963, events: 17 });
        let other = Numbers { executions: 3, coverage: 4000, coverage_first: 0, events: 3 };
        let both = Numbers { executions: 79680, coverage: 4000, coverage_first: 963, events: 20 };
        assert_eq!(numbers.and(other), both);
    }
}
