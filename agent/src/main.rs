//! Lapwing: a host sensor that runs detection rules where events happen.

#![deny(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

mod action;
mod alarm;
mod alert;
mod alert_log;
mod backoff;
mod bounded;
mod budget;
mod clock;
mod command;
mod config;
mod control;
mod coverage;
mod digest;
mod error_chain;
mod evidence;
mod explain;
mod fixture;
mod folder;
mod frames;
mod http_client;
mod indicators;
mod inflate;
mod integrity;
mod lane;
mod ledger;
mod log;
mod pipeline;
mod privileges;
mod program;
mod recording;
#[cfg(test)]
mod reference;
mod report;
mod rules;
mod runtime;
mod sensor;
mod sink;
mod source;
mod store;
mod streams;
mod terminal;
#[cfg(test)]
mod testing;
mod trace;
mod trim_rss;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match command::Args::parse().run() {
        Ok(code) => code,
        Err(error) => command::fail(&error),
    }
}
