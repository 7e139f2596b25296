//! Row `exec`: the reported part of the environment that a program is started with.

use std::process::Command;

use serde_json::json;

use crate::act;
use crate::agent::{assert_fields, of, ready};

/// Runs a program with these variables alone. Its process's number.
fn run(variables: &[(&str, &str)]) -> u32 {
    let mut command = Command::new("/bin/true");
    let mut child = command.env_clear().envs(variables.iter().copied()).spawn().unwrap();
    assert!(child.wait().unwrap().success());
    child.id()
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn wanted_variables_are_reported_and_no_others() {
    ready();
    let pid = run(&[
        ("A", "1"),
        ("HISTFILE", "/dev/null"),
        ("LD_PRELOADED", "no"),
        ("SECRET", "LD_PRELOAD=/x"),
        ("http_proxy", "socks5h://127.0.0.1:9050"),
    ]);
    let found = json!({
        "process.env_vars": ["HISTFILE=/dev/null", "http_proxy=socks5h://127.0.0.1:9050"],
        "lapwing.process.env_truncated": null,
    });
    assert_fields(&of("exec", pid), found.clone());
    assert_fields(&of("end", pid), found);
    assert_fields(&of("exec", act::run("/bin/true", &[b"true"])), json!({"process.env_vars": null}));
}

/// A wanted variable cannot be hidden behind long variables, nor behind many.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_large_environment_is_looked_through() {
    ready();
    let long = "x".repeat(100_000);
    let names: Vec<_> = (0..5000).map(|number| format!("AAA{number}")).collect();
    let mut variables: Vec<_> = names.iter().map(|name| (name.as_str(), "LD_PRELOAD=")).collect();
    variables.push(("AAAA", &long));
    variables.push(("HISTSIZE", "0"));
    let pid = run(&variables);
    assert_fields(
        &of("exec", pid),
        json!({"process.env_vars": ["HISTSIZE=0"], "lapwing.process.env_truncated": null}),
    );
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn what_was_not_looked_at_is_marked() {
    ready();
    let names: Vec<_> = (0..20_000).map(|number| format!("A{number}")).collect();
    let mut variables: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();
    variables.extend([("HISTCONTROL", "ignorespace"), ("HISTSIZE", "0")]);
    // The variables lie in the order of their names.
    variables.insert(0, ("A", ""));
    let event = of("exec", run(&variables));
    assert_fields(&event, json!({"lapwing.process.env_truncated": true}));
    let found = event["process"]["env_vars"].as_array().unwrap();
    assert!(found.contains(&json!("LD_PRELOAD=(not read)")), "any may have been there: {found:?}");
    assert!(found.contains(&json!("HISTSIZE=(not read)")), "{found:?}");

    let long = format!("/{}", "x".repeat(5000));
    let pid = run(&[("HISTFILE", &long), ("HISTSIZE", "0")]);
    let event = of("exec", pid);
    let found = event["process"]["env_vars"].as_array().unwrap();
    assert_eq!(found[0].as_str().unwrap().len(), 1023, "cut");
    assert_eq!(found[1], "HISTSIZE=0");
    assert_fields(&event, json!({"lapwing.process.env_truncated": true}));
}
