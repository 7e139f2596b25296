//! Everything a person or CI runs: `cargo xtask VERB`, a file a verb.
#![deny(unsafe_code)]

mod bench;
mod build;
mod demo;
mod needs;
mod setup;
mod shell;
mod toolchain;
mod vm;

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
    /// Measures what the agent costs the host's processes
    Bench(bench::Arguments),
    /// Sets off each of the five detections, for real, on this host
    Demo,
    /// Runs the agent on other kernels, in an emulator
    Vm(vm::Arguments),
}

fn main() -> ExitCode {
    match run(Arguments::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nowhere is left to report to when standard error is closed.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::Setup => setup::run().map(drop),
        Verb::Build(arguments) => build::run(&arguments).map(drop),
        Verb::Bench(arguments) => bench::run(&arguments),
        Verb::Demo => demo::run(),
        Verb::Vm(arguments) => vm::run(&arguments),
    }
}
