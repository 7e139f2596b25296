//! Lapwing: a host sensor that runs detection rules where events happen.
#![allow(dead_code, reason = "the skeleton: what is declared here is used by the modules that follow")]

mod alarm;
mod alert_log;
mod clock;
mod command;
mod ledger;
mod sink;
mod source;
mod store;
mod terminal;
#[cfg(test)]
mod testing;

fn main() {}
