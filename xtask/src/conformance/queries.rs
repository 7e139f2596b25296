//! Queries over a file of events, with the events that must be found: TOML with a table `[[queries]]` for each.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::Case;
use super::agent::Agent;

#[derive(Deserialize)]
struct Suite {
    queries: Vec<Query>,
}

#[derive(Deserialize)]
struct Query {
    name: String,
    query: String,
    /// The events of all results, one after the other; [`MISSING`] where there must be none.
    expected_event_ids: Vec<i64>,
    /// The join keys of all results, one after the other.
    #[serde(default)]
    join_keys: Vec<String>,
}

/// In the place of an event that must not be there.
const MISSING: i64 = -1;

/// The field that identifies an event.
const ID: &str = "sequence";

/// A value of the index of the extra suite that is not in its data: the meaning of a null.
const EXTRA_MAPPING: &str = r#"{"properties": {
    "optional_field_default_null": {"type": "keyword", "null_value": "NULL"},
    "version": {"type": "version"}
}}"#;

/// Runs the suite about optional fields, versions and fields of several values.
pub(super) fn extra(agent: &Agent, path: &Path) -> Result<Vec<Case>> {
    let mapping = agent.write("mapping.json", EXTRA_MAPPING)?.display().to_string();
    run(agent, path, "extra.data.json", &mapping)
}

/// Runs the suite about events that must be missing.
pub(super) fn missing_events(agent: &Agent, path: &Path) -> Result<Vec<Case>> {
    run(agent, path, "missing-events.data.json", "infer")
}

fn run(agent: &Agent, path: &Path, data: &str, schema: &str) -> Result<Vec<Case>> {
    let suite: Suite = toml::from_str(&fs::read_to_string(path)?)?;
    let data = path.with_file_name(data);
    let options = ["--schema", schema, "--event-category-field", "event_type"];
    let case = |query: &Query| {
        let found = agent.search(&query.query, &data, &options, ID);
        let found = found.map(|found| (found.events, found.keys));
        Case::compare(&query.name, &query.expected(), &found)
    };
    data.exists().then_some(()).with_context(|| format!("{} is not there", data.display()))?;
    Ok(suite.queries.iter().map(case).collect())
}

impl Query {
    fn expected(&self) -> (Vec<Option<String>>, Vec<String>) {
        let ids = self.expected_event_ids.iter().map(|id| (*id != MISSING).then(|| id.to_string()));
        (ids.collect(), self.join_keys.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_is_read() {
        let text =
            "[[queries]]\nname = \"n\"\nquery = '''\nany where true\n'''\nexpected_event_ids = [1, -1, 2]\n";
        let suite: Suite = toml::from_str(text).unwrap();
        let expected = suite.queries[0].expected();
        assert_eq!(expected, (vec![Some("1".into()), None, Some("2".into())], Vec::new()));
        assert!(toml::from_str::<Suite>("[[queries]]\nname = \"n\"").is_err());
    }
}
