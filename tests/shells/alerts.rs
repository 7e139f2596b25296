//! Which alerts belong to which row, and what an alert must say.

use std::time::{Duration, Instant};

use lapwing_stage::{Agent, Alert, until};
use serde_json::Value;

use crate::data::{Shell, Words};

/// How long the log must have stayed as it is until no more is expected, and how long that may take.
const QUIET: Duration = Duration::from_secs(3);
const QUIET_WITHIN: Duration = Duration::from_secs(60);
/// What the names of all runs' folders begin with.
pub(crate) const FOLDER: &str = "lapwing-shells-";
/// What shells are called.
const SHELLS: &[&str] = &["sh", "bash", "dash", "zsh", "ksh", "ksh93", "mksh", "busybox"];

/// All alerts that came, once no more come.
pub(crate) fn all(agent: &Agent) -> Vec<Alert> {
    let (mut mark, mut since) = (agent.mark(), Instant::now());
    until("an end of alerts", QUIET_WITHIN, || {
        std::thread::sleep(Duration::from_millis(100));
        if agent.mark() != mark {
            (mark, since) = (agent.mark(), Instant::now());
        }
        Ok((since.elapsed() > QUIET).then_some(()))
    })
    .expect("an end of alerts");
    agent.alerts().expect("the alert log")
}

/// Whether an alert came of a row: the row's folder stands in it, be it an ancestor's argument, or the folder of no row of
/// any run and a port of the row's.
pub(crate) fn is_of(alert: &Alert, words: &Words) -> bool {
    let within = format!("{}/", words.folder);
    let has_row = is_of_a_row(alert);
    any(&alert.document, &mut |key, value| match value {
        Value::Number(number) => {
            !has_row && key == "port" && number.as_u64().is_some_and(|port| words.has_port(port))
        }
        Value::String(text) => text.contains(&within) || *text == words.folder,
        _ => false,
    })
}

/// Whether the folder of a row stands in an alert, be it of another run.
pub(crate) fn is_of_a_row(alert: &Alert) -> bool {
    any(&alert.document, &mut |_, value| value.as_str().is_some_and(|text| text.contains(FOLDER)))
}

/// What an alert about a shell lacks.
pub(crate) fn lacks(alert: &Alert, words: &Words, shell: &Shell) -> Option<String> {
    let mut lacks = Vec::new();
    if !shell.bare && !names_a_shell(&alert.document) {
        lacks.push("the shell");
    }
    if !shell.relayed {
        let own = |value: &Value| value.as_u64().is_some_and(|port| words.has_port(port));
        if !any(&alert.document, &mut |key, value| key == "port" && own(value)) {
            lacks.push("the socket");
        }
        // An address may be a mapped one.
        let peers = [words.far, words.far_ipv6];
        let is_peer =
            |value: &Value| value.as_str().is_some_and(|text| peers.iter().any(|peer| text.ends_with(peer)));
        if !any(&alert.document, &mut |key, value| key == "ip" && is_peer(value)) {
            lacks.push("the peer");
        }
    }
    (!lacks.is_empty()).then(|| format!("does not name {}", lacks.join(", ")))
}

/// Whether a process that a document is about is a shell, and not only one that is there in every case: it was typed into
/// one.
fn names_a_shell(document: &Value) -> bool {
    let is_name = |value: &Value| value.as_str().is_some_and(|name| SHELLS.contains(&name));
    match document {
        Value::Object(fields) => fields.iter().any(|(key, value)| match key.as_str() {
            "ancestors" | "parent" | "previous" => false,
            "name" => is_name(value) || value.as_array().is_some_and(|names| names.iter().any(is_name)),
            _ => !key.ends_with("_leader") && names_a_shell(value),
        }),
        Value::Array(items) => items.iter().any(names_a_shell),
        _ => false,
    }
}

/// Whether this holds for any value of a document, with its key.
fn any(value: &Value, holds: &mut impl FnMut(&str, &Value) -> bool) -> bool {
    match value {
        Value::Object(fields) => fields.iter().any(|(key, value)| holds(key, value) || any(value, holds)),
        Value::Array(items) => items.iter().any(|item| holds("", item) || any(item, holds)),
        _ => false,
    }
}
