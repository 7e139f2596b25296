//! The agent under test, run by its commands as a user would.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value as Json;
use tempfile::TempDir;

use crate::shell;

/// The agent, and a folder for what it reads.
pub(super) struct Agent {
    binary: PathBuf,
    folder: TempDir,
}

/// What a search found.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Found {
    /// The events of all results, each by a field of its; `None` where there must be none.
    pub(super) events: Vec<Option<String>>,
    /// The join keys of all results.
    pub(super) keys: Vec<String>,
    /// After how many of the events each result ends.
    pub(super) ends: Vec<usize>,
}

impl Agent {
    pub(super) fn new(binary: PathBuf) -> Result<Self> {
        Ok(Self { binary, folder: tempfile::tempdir().context("a folder for what the agent reads")? })
    }

    /// Writes a file for the agent to read.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.folder.path().join(name);
        fs::write(&path, text).with_context(|| path.display().to_string())?;
        Ok(path)
    }

    /// The objects that a command of the agent prints, a line each.
    pub(super) fn ask(&self, arguments: &[&str]) -> Result<Vec<Json>> {
        let printed = shell::output(Command::new(&self.binary).args(arguments))?;
        let lines = printed.lines().map(|line| serde_json::from_str(line).context("a line is no JSON"));
        lines.collect()
    }

    /// What `lapwing search` finds in a file; events are identified by their field `id`.
    pub(super) fn search(&self, query: &str, file: &Path, options: &[&str], id: &str) -> Result<Found> {
        let file = file.display().to_string();
        let arguments = [&["search", "--json", query, &file], options].concat();
        found(&self.ask(&arguments)?, id)
    }
}

fn found(results: &[Json], id: &str) -> Result<Found> {
    let mut found = Found::default();
    for result in results {
        let single = result.get("event").map(std::slice::from_ref);
        let several = result.get("events").and_then(Json::as_array).map(Vec::as_slice);
        for event in single.or(several).context("a result has no events")? {
            found.events.push(match event.get("missing") {
                Some(Json::Bool(true)) => None,
                _ => Some(text(event.get(id).with_context(|| format!("an event has no `{id}`"))?)),
            });
        }
        let keys = result.get("join_keys").and_then(Json::as_array).map(Vec::as_slice);
        found.keys.extend(keys.unwrap_or_default().iter().map(text));
        found.ends.push(found.events.len());
    }
    Ok(found)
}

fn text(json: &Json) -> String {
    json.as_str().map_or_else(|| json.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_both_kinds_are_read() {
        let results = [
            serde_json::json!({"event": {"id": 7}}),
            serde_json::json!({"join_keys": ["a", null], "events": [{"id": "x"}, {"missing": true}]}),
        ];
        let found = found(&results, "id").unwrap();
        assert_eq!(found.events, [Some("7".into()), Some("x".into()), None]);
        assert_eq!((found.keys, found.ends), (vec!["a".into(), "null".into()], vec![1, 3]));
        assert!(super::found(&[serde_json::json!({"event": {}})], "id").is_err());
        assert!(super::found(&[serde_json::json!({})], "id").is_err());
    }
}
