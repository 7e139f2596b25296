//! Everything a person or CI runs: `cargo xtask VERB`, a file a verb.
#![deny(unsafe_code)]

mod bench;
mod build;
mod check;
mod conformance;
mod demo;
mod fuzz;
mod package;
mod run;
mod setup;
mod test;

mod debian;
mod needs;
mod processor;
mod shell;
mod targets;
mod third_party;
mod tidy;
mod toolchain;
mod tools;

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Builds, runs, tests and packages Lapwing.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Sets up what the build of the kernel programs needs, into `.toolchain/`
    Setup,
    /// Builds the kernel programs and the agent that carries them
    Build(build::Arguments),
    /// Measures what the agent costs the host's processes, and how soon it alerts
    #[command(subcommand)]
    Bench(bench::Measurement),
    /// Runs test suites of others, for EQL and for what is rare
    Conformance(conformance::Arguments),
    /// Sets off each of the five detections, for real, on this host
    Demo,
    /// Tries the engine's properties on inputs made up by coverage
    Fuzz(fuzz::Arguments),
    /// Checks format, lints, documentation, licences, advisories, rules and the rules of the house
    Check(check::Arguments),
    /// Makes the Debian package
    Package(package::Arguments),
    /// Runs the agent live, in the foreground
    Run(run::Arguments),
    /// Runs every test, as root also those on the live kernel; or those on other kernels, in an emulator
    Test(test::Arguments),
}

fn main() -> ExitCode {
    match act(Arguments::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nowhere is left to report to when standard error is closed.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(verb: Verb) -> Result<()> {
    match verb {
        Verb::Setup => setup::run().map(drop),
        Verb::Build(arguments) => build::run(&arguments).map(drop),
        Verb::Bench(measurement) => bench::run(&measurement),
        Verb::Conformance(arguments) => conformance::run(&arguments),
        Verb::Demo => demo::run(),
        Verb::Fuzz(arguments) => fuzz::run(&arguments),
        Verb::Check(arguments) => check::run(&arguments),
        Verb::Package(arguments) => {
            let package = package::run(&arguments)?;
            Ok(writeln!(std::io::stdout(), "{}", package.display())?)
        }
        Verb::Run(arguments) => run::run(&arguments),
        Verb::Test(arguments) => test::run(&arguments),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        super::Arguments::command().debug_assert();
    }
}
