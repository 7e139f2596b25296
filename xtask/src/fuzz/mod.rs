//! `cargo xtask fuzz`: the engine's properties on millions of inputs, led by coverage.
//!
//! What is tried are the properties of `agent/engine/tests/properties`, under libFuzzer. The compiler's own
//! instrumentation serves, so that a stable compiler is enough; of the system only a C++ compiler is needed.

mod corpus;
mod job;
mod program;

use std::fs;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use clap::builder::PossibleValuesParser;

use self::job::{Job, Numbers};
use crate::shell::{self, say};

#[derive(Args)]
pub(crate) struct Arguments {
    /// The properties that are tried, one after the other
    #[arg(required = true, value_name = "NAME", value_parser = PossibleValuesParser::new(TARGETS.iter().map(|target| target.name)))]
    names: Vec<String>,
    /// For how long, each
    #[arg(long, value_name = "N", default_value_t = 5.0)]
    minutes: f64,
    /// In how many processes at once
    #[arg(long, value_name = "N", default_value_t = 1)]
    jobs: usize,
    /// Tries this input alone
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
}

/// A property as it is fuzzed.
struct Target {
    name: &'static str,
    /// Files that hold right inputs, below `agent/engine/tests`, and how they are taken apart.
    seeds: &'static [(&'static str, corpus::Form)],
    /// The dictionary of its language.
    dictionary: Option<&'static str>,
    /// Longest input, in bytes.
    bytes_max: usize,
}

/// Inputs that are choices: there is nothing to start from.
const fn choices(name: &'static str) -> Target {
    Target { name, seeds: &[], dictionary: None, bytes_max: 1024 }
}

#[rustfmt::skip]
const TARGETS: &[Target] = &[
    Target { name: "eql", seeds: &[("queries/eql.txt", corpus::Form::Blocks), ("queries/eql_faults.txt", corpus::Form::Blocks)], dictionary: Some("eql"), bytes_max: 2048 },
    Target { name: "kql", seeds: &[("queries/kql.txt", corpus::Form::Blocks)], dictionary: Some("kql"), bytes_max: 2048 },
    Target { name: "rule", seeds: &[], dictionary: Some("rule"), bytes_max: 4096 },
    Target { name: "event", seeds: &[("properties/events.ndjson", corpus::Form::Lines)], dictionary: Some("event"), bytes_max: 4096 },
    Target { name: "fmt", seeds: &[("queries/eql.txt", corpus::Form::Blocks), ("queries/kql.txt", corpus::Form::Blocks)], dictionary: Some("eql"), bytes_max: 2048 },
    choices("regex"),
    choices("differential"),
    choices("sequence"),
    choices("new_terms"),
    choices("sample"),
    choices("threshold"),
];

/// Fuzzes.
///
/// # Errors
/// Where a property does not hold: what is said before names the input and how to try it again. Where something is
/// missing that is needed for building: its cure.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let program = program::build()?;
    let is_wanted = |target: &&Target| arguments.names.iter().any(|name| name == target.name);
    let mut broken = Vec::new();
    for target in TARGETS.iter().filter(is_wanted) {
        let tried = match &arguments.input {
            Some(input) => try_one(&program, target, input),
            None => fuzz(&program, target, arguments),
        };
        if let Err(error) = tried {
            say(&format!("{error:#}"));
            broken.push(target.name);
        }
    }
    if broken.is_empty() { Ok(()) } else { bail!("does not hold: {}", broken.join(", ")) }
}

/// Where everything of fuzzing lies that is not kept.
fn folder() -> PathBuf {
    shell::root().join("target/fuzz")
}

/// Inputs of a target that are kept, because they once broke it or are right.
fn kept(target: &Target) -> PathBuf {
    shell::root().join("agent/engine/fuzz/inputs").join(target.name)
}

fn try_one(program: &Path, target: &Target, input: &Path) -> Result<()> {
    let mut command = job::command(program, target);
    let output = command.arg(input).output().with_context(|| program.display().to_string())?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        bail!("{} breaks {}:\n{}", input.display(), target.name, said.trim_end());
    }
    Ok(writeln!(std::io::stdout(), "{} holds for {}", target.name, input.display())?)
}

fn fuzz(program: &Path, target: &Target, arguments: &Arguments) -> Result<()> {
    let (start, cpu) = (Instant::now(), cpu_of_children()?);
    let command = command(program, target, arguments.minutes)?;
    let jobs = (0..arguments.jobs.max(1)).map(|_| Job::start(command())).collect::<Result<Vec<_>>>()?;
    watch(target, &jobs, start);
    let ends = job::end(jobs)?;
    let numbers = ends.iter().fold(Numbers::default(), |sum, end| sum.and(end.numbers));
    let minutes = (cpu_of_children()? - cpu) / 60.0;
    let crashed = ends.iter().find(|end| !end.is_well);
    writeln!(
        std::io::stdout(),
        "{}: {} executions{} in {minutes:.1} CPU minutes, coverage {} (+{}), {}",
        target.name,
        grouped(numbers.executions),
        if numbers.events > 0 {
            format!(", {} events agreed on,", grouped(numbers.events))
        } else {
            String::new()
        },
        grouped(numbers.coverage),
        grouped(numbers.coverage.saturating_sub(numbers.coverage_first)),
        if crashed.is_some() { "a crash" } else { "no crash" }
    )?;
    crashed.map_or(Ok(()), |end| bail!("{}", report(target, end)))
}

/// What starts a job: it adds what is new to the target's corpus, and begins with that, the seeds and what is kept.
fn command<'a>(program: &'a Path, target: &'a Target, minutes: f64) -> Result<impl Fn() -> Command + 'a> {
    let place = |name| folder().join(name).join(target.name);
    let (corpus, seeds, crashes, kept) = (place("corpus"), place("seeds"), place("crashes"), kept(target));
    for folder in [&corpus, &seeds, &crashes] {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    corpus::write_seeds(target, &seeds)?;
    Ok(move || {
        let mut command = job::command(program, target);
        command.arg(format!("-artifact_prefix={}/", crashes.display()));
        // For libFuzzer, no time at all is time without end.
        let seconds = ((minutes * 60.0).ceil() as u64).max(1);
        command.arg(format!("-max_total_time={seconds}"));
        command.args([&corpus, &seeds]).args(kept.is_dir().then_some(&kept));
        command
    })
}

/// What a person needs to go on from a crash.
fn report(target: &Target, end: &job::End) -> String {
    let said = end.said.join("\n");
    match &end.input {
        None => format!("{}: the fuzzer ended:\n{said}", target.name),
        Some(input) => format!(
            "{name} does not hold for {input}:\n{said}\n\ntry it again:  cargo xtask fuzz {name} --input {input}\n\
             once mended:   mv {input} {}/  # every `cargo test` tries what lies there",
            kept(target).display(),
            input = input.display(),
            name = target.name,
        ),
    }
}

/// Shows how far it has come, on a terminal, until a job ends.
fn watch(target: &Target, jobs: &[Job], start: Instant) {
    let mut stderr = std::io::stderr();
    let is_shown = stderr.is_terminal();
    while jobs.iter().all(Job::is_running) {
        std::thread::sleep(Duration::from_millis(200));
        if is_shown {
            let numbers = jobs.iter().fold(Numbers::default(), |sum, job| sum.and(job.numbers()));
            // A closed standard error is no reason to stop.
            let _ = write!(stderr, "\r{}\u{1b}[K", progress(target, numbers, start.elapsed().as_secs()));
        }
    }
    if is_shown {
        say("");
    }
}

fn progress(target: &Target, numbers: Numbers, seconds: u64) -> String {
    format!(
        "{}: {} executions, {} a second, coverage {} (+{}), {}:{:02}",
        target.name,
        grouped(numbers.executions),
        grouped(numbers.executions / seconds.max(1)),
        grouped(numbers.coverage),
        grouped(numbers.coverage.saturating_sub(numbers.coverage_first)),
        seconds / 60,
        seconds % 60
    )
}

/// Seconds of processor time of the programs that were run and have ended.
fn cpu_of_children() -> Result<f64> {
    /// What the kernel counts in, for programs: the same on every architecture there is now.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = fs::read_to_string("/proc/self/stat").context("/proc/self/stat")?;
    let (_, rest) = stat.rsplit_once(')').context("/proc/self/stat has no name")?;
    let ticks = rest.split_whitespace().skip(13).take(2).filter_map(|ticks| ticks.parse::<f64>().ok());
    Ok(ticks.sum::<f64>() / TICKS_PER_SECOND)
}

/// A number with its thousands parted.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let (head, tail) = digits.split_at(first);
    let groups = tail.as_bytes().chunks(3).map(String::from_utf8_lossy);
    let groups: Vec<_> = (!head.is_empty()).then(|| head.into()).into_iter().chain(groups).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn dictionaries_are_what_libfuzzer_reads() {
        for name in TARGETS.iter().filter_map(|target| target.dictionary) {
            let path = shell::root().join(format!("agent/engine/fuzz/dictionaries/{name}.txt"));
            let text = fs::read_to_string(&path).unwrap_or_default();
            let words: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
            let is_word = |line: &&str| {
                line.is_ascii() && line.len() > 2 && line.starts_with('"') && line.ends_with('"')
            };
            assert!(!words.is_empty() && words.iter().all(is_word), "{}", path.display());
        }
    }

    #[test]
    fn every_property_is_a_target() {
        let table = include_str!("../../../agent/engine/tests/properties/property/mod.rs");
        let rows = table.lines().filter_map(|line| line.trim().strip_prefix("Property { name: \""));
        let properties: Vec<_> = rows.filter_map(|row| row.split('"').next()).collect();
        assert_eq!(properties, TARGETS.iter().map(|target| target.name).collect::<Vec<_>>());
    }
}
