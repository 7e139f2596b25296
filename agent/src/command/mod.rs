//! The commands, a file each.

mod alerts;
mod check;
mod events;
mod explain;
mod fmt;
mod record;
mod replay;
mod run;
mod search;
mod sink;
mod status;
mod test;

use std::borrow::Cow;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::LazyLock;

use anyhow::Result;
use clap::{Parser, Subcommand};
use lapwing_engine::Report;

use crate::report;
use crate::terminal::{escape, escape_json};

/// A host sensor that runs detection rules where events happen.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, disable_help_subcommand = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the alerts of this host
    Alerts(alerts::Args),
    /// Check the configuration, the rules and this host
    Check(check::Args),
    /// Print events as they happen
    Events(events::Args),
    /// Explain a rule, its result for recorded events, or a diagnostic code
    Explain(explain::Args),
    /// Format the queries in rule files
    Fmt(fmt::Args),
    /// Record events to a file
    Record(record::Args),
    /// Run the rules on recorded events and print the alerts
    Replay(replay::Args),
    /// Run the agent in the foreground
    Run(run::Args),
    /// Search recorded events with an EQL or KQL query
    Search(search::Args),
    /// Manage the delivery of alerts
    Sink(sink::Args),
    /// Show the agent's status
    Status(status::Args),
    /// Run rule tests (NAME.test.toml)
    Test(test::Args),
}

impl Args {
    /// Runs the command.
    ///
    /// # Errors
    /// The command's error.
    pub(crate) fn run(self) -> Result<ExitCode> {
        match self.command {
            Command::Alerts(args) => alerts::run(&args),
            Command::Check(args) => check::run(&args),
            Command::Events(args) => events::run(&args),
            Command::Explain(args) => explain::run(&args),
            Command::Fmt(args) => fmt::run(&args),
            Command::Record(args) => record::run(&args),
            Command::Replay(args) => replay::run(&args),
            Command::Run(args) => run::run(&args),
            Command::Search(args) => search::run(&args),
            Command::Sink(args) => sink::run(&args),
            Command::Status(args) => status::run(&args),
            Command::Test(args) => test::run(&args),
        }
    }
}

/// Writes a line to standard output. A broken pipe ends the command without an error message.
fn print(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    Ok(writeln!(out, "{line}")?)
}

/// Writes a line of JSON to standard output. On a terminal, control characters are escaped.
fn print_json(line: &str) -> Result<()> {
    print(&json_shown(line.as_bytes()))
}

/// JSON for standard output: unchanged, but on a terminal control characters are escaped.
fn json_shown(json: &[u8]) -> Cow<'_, str> {
    static IS_TERMINAL: LazyLock<bool> = LazyLock::new(|| std::io::stdout().is_terminal());
    let json = String::from_utf8_lossy(json);
    if *IS_TERMINAL { escape_json(&json).into_owned().into() } else { json }
}

/// Writes a line to standard error. Errors are ignored, because there is nowhere left to report them.
fn complain(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Prints the diagnostics of rule files on standard error.
fn print_reports<'a>(reports: impl IntoIterator<Item = &'a Report>) {
    reports.into_iter().for_each(|found| complain(&report::render(found, styled())));
}

/// Recorded events that could not be read. The first are reported one by one; all are counted.
#[derive(Debug, Default)]
struct Refused {
    count: u64,
}

impl Refused {
    /// Maximum number of events that are reported one by one.
    const REPORTED_MAX: u64 = 20;

    /// Reports why an event could not be read.
    fn report_error(&mut self, error: &anyhow::Error) {
        self.count += 1;
        if self.count <= Self::REPORTED_MAX {
            complain(&escape(&format!("{error:#}")));
        }
    }

    /// Prints the count. The exit code is a failure if any event could not be read.
    fn finish(&self) -> ExitCode {
        if self.count == 0 {
            return ExitCode::SUCCESS;
        }
        complain(&format!("{} events could not be read", self.count));
        ExitCode::FAILURE
    }
}

/// Whether standard error is a terminal that may be coloured.
fn styled() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// Prints the error with its causes in one line. A broken pipe is no error: the reader has closed it, as `head` does.
pub(crate) fn fail(error: &anyhow::Error) -> ExitCode {
    let is_broken_pipe = |cause: &(dyn std::error::Error + 'static)| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    };
    if error.chain().any(is_broken_pipe) {
        return ExitCode::SUCCESS;
    }
    complain(&format!("lapwing: {error:#}"));
    ExitCode::FAILURE
}
