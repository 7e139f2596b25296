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
    /// Check the configuration, the rules and this host before anything runs
    Check(check::Args),
    /// Print events as they happen
    Events(events::Args),
    /// Say what a rule does and why it did or did not match, or what a code means
    Explain(explain::Args),
    /// Lay out the queries in rule files
    Fmt(fmt::Args),
    /// Record events into a file, to replay them
    Record(record::Args),
    /// Run the rules over recorded events and print the alerts
    Replay(replay::Args),
    /// Run the agent in the foreground
    Run(run::Args),
    /// Find events in recordings, by a query in EQL or KQL
    Search(search::Args),
    /// Have a sink send again what upstream refused
    Sink(sink::Args),
    /// Show how the running agent does
    Status(status::Args),
    /// Run the tests that lie beside rules
    Test(test::Args),
}

impl Args {
    /// Does what the command line asks for.
    ///
    /// # Errors
    /// What kept it from being done.
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

/// Writes a line to standard output. A reader that has gone away ends the command without a fuss.
fn print(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    Ok(writeln!(out, "{line}")?)
}

/// Writes a line of JSON to standard output. On a terminal nothing in it acts.
fn print_json(line: &str) -> Result<()> {
    print(&json_shown(line.as_bytes()))
}

/// JSON as standard output is to have it: as it is, but on a terminal nothing in it acts.
fn json_shown(json: &[u8]) -> Cow<'_, str> {
    static IS_TERMINAL: LazyLock<bool> = LazyLock::new(|| std::io::stdout().is_terminal());
    let json = String::from_utf8_lossy(json);
    if *IS_TERMINAL { escape_json(&json).into_owned().into() } else { json }
}

/// Writes a line to standard error; where that fails there is nobody left to tell.
fn complain(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Shows on standard error what is wrong with rule files.
fn tell_reports<'a>(reports: impl IntoIterator<Item = &'a Report>) {
    reports.into_iter().for_each(|found| complain(&report::render(found, styled())));
}

/// Events of recordings that could not be read: the first are told one by one, all are counted.
#[derive(Debug, Default)]
struct Refused {
    count: u64,
}

impl Refused {
    /// Most events that could not be read of which each is told.
    const TOLD_MAX: u64 = 20;

    /// Tells why one could not be read.
    fn tell(&mut self, error: &anyhow::Error) {
        self.count += 1;
        if self.count <= Self::TOLD_MAX {
            complain(&escape(&format!("{error:#}")));
        }
    }

    /// Tells how many there were; where there were any, the command has not done all that it was asked for.
    fn finish(&self) -> ExitCode {
        if self.count == 0 {
            return ExitCode::SUCCESS;
        }
        complain(&format!("{} events could not be read", self.count));
        ExitCode::FAILURE
    }
}

/// Whether standard error takes colours.
fn styled() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// Says in one sentence what kept the command from being done.
pub(crate) fn fail(error: &anyhow::Error) -> ExitCode {
    let closed = |cause: &(dyn std::error::Error + 'static)| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    };
    // Whoever read has seen enough.
    if error.chain().any(closed) {
        return ExitCode::SUCCESS;
    }
    complain(&format!("lapwing: {error:#}"));
    ExitCode::FAILURE
}
