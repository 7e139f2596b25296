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
/// How much memory one may take, in MiB.
const MEMORY_MIB_MAX: u32 = 2048;
/// Most lines that are kept of what a job says beside its progress.
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

/// How far a job has come, or several together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    /// Inputs that were tried.
    pub(super) executions: u64,
    /// Branches that some input took.
    pub(super) coverage: u64,
    /// Those that were taken by what it started from.
    pub(super) coverage_first: u64,
    /// Events about which the engine and the reference agreed.
    pub(super) events: u64,
}

/// What came of a job.
pub(super) struct End {
    pub(super) numbers: Numbers,
    /// Whether it came to its end without finding anything.
    pub(super) is_well: bool,
    /// What it said beside its progress.
    pub(super) said: Vec<String>,
    /// Where it wrote the input that it found.
    pub(super) input: Option<PathBuf>,
}

/// The program set to try a target, with the limits of one input.
pub(super) fn command(program: &Path, target: &Target) -> Command {
    let mut command = Command::new(program);
    command.env("LAPWING_PROPERTY", target.name).env("RUST_BACKTRACE", "0");
    command.arg(format!("-timeout={INPUT_SECONDS_MAX}")).arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}"));
    command.arg(format!("-max_len={}", target.bytes_max)).args(["-print_funcs=0", "-print_final_stats=0"]);
    if target.dictionary.is_none() {
        // Of a few choices no input of any interest is made.
        command.arg("-len_control=0");
    }
    if let Some(dictionary) = target.dictionary {
        let folder = shell::root().join("agent/engine/fuzz/dictionaries");
        command.arg(format!("-dict={}", folder.join(format!("{dictionary}.txt")).display()));
    }
    command.stdin(Stdio::null()).current_dir(shell::root());
    command
}

/// Waits for jobs, and stops those that still run when one has ended badly. Returns what came of them.
///
/// # Errors
/// Where the machine itself fails.
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
    /// Starts a process and listens to it.
    ///
    /// # Errors
    /// Where it cannot be started.
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

    /// How far it has come.
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

/// Poisoned only by a panic of a thread that does nothing but read lines; the numbers are good all the same.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Numbers {
    /// The sum of two jobs over one corpus: both tried inputs, and what one covers the other soon does.
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

/// What libFuzzer says of itself whatever happens.
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
