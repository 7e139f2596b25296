//! The clock, set while something is going on: a guest's by a day, and this machine's only where `LAPWING_SET_CLOCK`
//! allows it, for here it is everybody's, by some seconds and for half a second.

use std::fs;
use std::process::Command;
use std::time::Duration;

use lapwing_stage::{Agent, Settings, skipped};

use crate::act::{Folder, true_path};
use crate::agent::binary;

const DAY_SECONDS: i64 = 86_400;
/// More than the rule below lets lie between its steps.
const SOME_SECONDS: i64 = 10;
/// By which it is allowed here.
const ALLOWED: &str = "LAPWING_SET_CLOCK";
/// A program and another within five seconds, and no others.
const RULE: &str = r#"
[rule]
rule_id = "two-steps"
name = "Two steps"
description = "A program, and another soon after it."
severity = "low"
type = "eql"
language = "eql"
index = ["logs-endpoint.events.*"]
query = '''
sequence by process.parent.entity_id with maxspan=5s
  [process where event.action == "exec" and process.name == "lapwing-first"]
  [process where event.action == "exec" and process.name == "lapwing-second"]
'''
"#;

/// Setting the clock, forward or back, between two steps neither separates nor reorders them.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_clock_that_is_set_tears_no_sequence() {
    let folder = Folder::new();
    let rules = folder.0.join("rules");
    fs::create_dir(&rules).unwrap();
    fs::write(rules.join("rule.toml"), RULE).unwrap();
    let program = fs::read(true_path()).unwrap();
    let [first, second] = ["lapwing-first", "lapwing-second"].map(|name| folder.executable(name, &program));
    let run = |program| assert!(Command::new(program).status().unwrap().success());
    let settings = Settings { program: binary().into(), rules, ..Settings::default() };
    let agent = Agent::start(settings).unwrap();
    let seconds = if is_guest() {
        DAY_SECONDS
    } else if std::env::var_os(ALLOWED).is_some() {
        SOME_SECONDS
    } else {
        skipped(&format!("the clock stays: only a guest's is set, or with {ALLOWED}=1 this machine's"));
        0
    };
    for step in [seconds, -seconds] {
        let mark = agent.mark();
        run(&first);
        set_forward(step);
        run(&second);
        // Long enough for the agent to have looked at the clock.
        std::thread::sleep(Duration::from_millis(500));
        set_forward(-step);
        let alert = agent.wait_for(&format!("the clock set by {step} s"), mark, |_| true).unwrap();
        assert_eq!(alert.rule(), "Two steps");
    }
}

/// Sets the wall clock forward, or back.
fn set_forward(seconds: i64) {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    if seconds == 0 {
        return;
    }
    // SAFETY: both take a time of ours.
    let is_set = unsafe {
        libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut now);
        now.tv_sec += seconds;
        libc::clock_settime(libc::CLOCK_REALTIME, &raw const now) == 0
    };
    assert!(is_set, "{}", std::io::Error::last_os_error());
}

/// Whether this is a guest that `cargo xtask test --vm` has booted, whose first process is the test runner.
fn is_guest() -> bool {
    fs::read("/proc/1/cmdline").is_ok_and(|line| line.ends_with(b"/init\0inside\0"))
}
