//! The exceptions that rules have: for whom, why, by whom and how long.

use anyhow::Result;
use lapwing_engine::{Exception, Exceptions};
use serde_json::{Value as Json, json};

use crate::clock;
use crate::command::print;
use crate::terminal::escape;

/// As JSON: those that can be applied, and how many cannot.
pub(super) fn to_json(exceptions: &Exceptions) -> Json {
    let now = clock::now();
    let list = exceptions.list.iter().map(|exception| {
        json!({
            "file": &*exception.file,
            "line": exception.line,
            "rules": if exception.rules.is_empty() { vec!["*".to_owned()] } else { exception.rules.clone() },
            "condition": exception.query,
            "reason": exception.reason,
            "owner": exception.owner,
            "expires": exception.expires.map(|expires| expires.to_string()),
            "over": exception.is_over(now),
        })
    });
    json!({"applied": list.collect::<Vec<_>>(), "refused": exceptions.refused})
}

/// For people: a line each.
pub(super) fn tell(exceptions: &Exceptions) -> Result<()> {
    let Exceptions { list, refused, .. } = exceptions;
    if list.is_empty() && *refused == 0 {
        return Ok(());
    }
    let not_applied = if *refused > 0 { " and are NOT applied" } else { "" };
    print(&format!("exceptions: {}; those that are wrong{not_applied}: {refused}", list.len()))?;
    list.iter().try_for_each(|exception| print(&line(exception)))
}

fn line(exception: &Exception) -> String {
    let rules = if exception.rules.is_empty() { "all rules".to_owned() } else { exception.rules.join(", ") };
    let until = match exception.expires {
        None => "without an end".to_owned(),
        Some(expires) if exception.is_over(clock::now()) => format!("over since {expires}"),
        Some(expires) => format!("until {expires}"),
    };
    let Exception { file, line, owner, reason, query, .. } = exception;
    escape(&format!("exception {file}:{line} for {rules}, {until}, of {owner}: {reason} ({query})"))
        .into_owned()
}
