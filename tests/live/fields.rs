//! What the agent says of its events' fields beforehand is what they have.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::agent::{all, binary, names, ready};

/// The fields that an event of each kind may have.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let output =
        Command::new(binary()).args(["explain", "--sources", "--json"]).output().expect("the program");
    let text = String::from_utf8(output.stdout).expect("text");
    let kinds = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let of_sensor = kinds.filter(|kind| kind["source"] == "sensor");
    of_sensor
        .map(|kind| {
            let fields = kind["fields"].as_array().expect("a list").iter();
            let fields = fields.map(|field| field.as_str().expect("a name").to_owned());
            (kind["kind"].as_str().expect("a name").to_owned(), fields.collect())
        })
        .collect()
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn no_event_has_an_undocumented_field() {
    ready();
    assert!(Command::new("sh").args(["-c", "true; true & wait"]).status().expect("a shell").success());
    let documented = documented();
    for event in all(|_| true) {
        let action = event["event"]["action"].as_str().expect("an action");
        let fields =
            documented.get(action).unwrap_or_else(|| panic!("no fields are documented for {action}"));
        let mut found = Vec::new();
        names(&event, "", &mut found);
        for name in found {
            assert!(fields.contains(&name), "{name} of {action}");
        }
    }
}
