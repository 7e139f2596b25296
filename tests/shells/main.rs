//! Reverse and bind shells, done for real: each row of `shells.toml` is typed on a host that is attacked, the attacker's
//! end types a command into the shell that comes of it, and what the agent alerts is held against the row. So is what
//! looks like such a shell and is none.
//!
//! `cargo xtask test` does a few of each; `cargo xtask test --shells` does all, against an optimised agent.
//! `LAPWING_TEST_SHELL=TEXT` does those whose names contain a text, and `LAPWING_TEST_RULES` names other rules than the
//! packaged ones. The outcome is a table, in `target/tmp/shells.txt` too, beside the alerts.
#![expect(
    clippy::expect_used,
    reason = "all of this is test code, and clippy takes only its test functions for such"
)]

/// Which alerts belong to which row.
mod alerts;
/// The attacker's end of a shell.
mod attacker;
/// What is started for a row.
mod children;
/// The data file.
mod data;
/// The outcome.
mod outcome;
/// Rows at work.
mod stage;

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::data::{Act, Data, Kind};
use crate::outcome::Outcome;
use crate::stage::Stage;

/// Set by `cargo xtask test --shells`: all rows are done.
const WHOLE: &str = "LAPWING_TEST_SHELLS";
/// Only rows whose names contain this.
const FILTER: &str = "LAPWING_TEST_SHELL";

/// Every agent sees what all tests do.
static TURN: Mutex<()> = Mutex::new(());

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn shells_are_alerted_and_what_looks_like_them_is_not() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let data = Data::read();
    let shells: Vec<_> = data.shell.iter().filter(|shell| is_wanted(&shell.act)).collect();
    let benign: Vec<_> = data.benign.iter().filter(|benign| is_wanted(&benign.act)).collect();
    if shells.is_empty() && benign.is_empty() {
        return;
    }
    let stage = Stage::new(false);
    Outcome::of(&stage, &data, &shells, &benign).say("shells");
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn shells_over_datagrams_are_alerted() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let data = Data::read();
    let shells: Vec<_> =
        data.shell.iter().filter(|shell| shell.kind == Kind::Udp && is_wanted(&shell.act)).collect();
    if shells.is_empty() {
        return;
    }
    let stage = Stage::new(true);
    Outcome::of(&stage, &data, &shells, &[]).say("shells-udp");
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn the_data_is_sound() {
    let data = Data::read();
    assert_eq!(Data::unknown(), Vec::<String>::new(), "fields that mean nothing");
    let acts = || data.shell.iter().map(|row| &row.act).chain(data.benign.iter().map(|row| &row.act));
    let names: BTreeSet<_> = acts().map(|act| &act.name).collect();
    assert_eq!(names.len(), acts().count(), "each name is there once");
    for act in acts() {
        let known = act.shared.iter().all(|name| data.files.contains_key(name));
        assert!(known, "{}: a shared file is missing", act.name);
    }
    for shell in &data.shell {
        let text = format!("{}{:?}{}", shell.act.run, shell.act.files, shell.act.build);
        let has_port = text.contains("{port") || !shell.act.shared.is_empty();
        assert!(has_port, "{}: it names no port", shell.act.name);
        assert!(shell.alerts.is_empty() || shell.missed.is_none(), "{}: alerted or missed", shell.act.name);
    }
}

/// Whether a row is done in this run.
fn is_wanted(act: &Act) -> bool {
    match std::env::var(FILTER) {
        Ok(filter) => act.name.contains(&filter),
        Err(_) => act.quick || std::env::var_os(WHOLE).is_some(),
    }
}
