//! Lapwing: a host sensor that runs detection rules where events happen.
#![allow(dead_code, reason = "the skeleton: what is declared here is used by the modules that follow")]

mod command;
mod ledger;
mod sensor;
mod source;
mod terminal;

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let result = match arguments.as_slice() {
        ["events"] => command::events::run(false),
        ["events", "--json"] => command::events::run(true),
        ["--version"] => {
            writeln!(std::io::stdout(), "lapwing {}", env!("CARGO_PKG_VERSION")).map_err(Into::into)
        }
        _ => Err(anyhow::anyhow!("usage: lapwing events [--json]")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nowhere is left to report to when standard error is closed.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
