//! What is rare in the data of a test of Elastic's rare function: for each value of `status` a file with the times, in
//! seconds, at which it was there. What that test says of them is one case: in eleven spans of time, and no others, two
//! values are rare, both of them in each.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde_json::{Value as Json, json};

use super::Case;
use super::agent::Agent;

/// The values, each with a file of its name.
const VALUES: [&str; 3] = ["status200", "status503", "mysqlabort"];
/// Those of them that are rare.
const RARE: [&str; 2] = ["mysqlabort", "status503"];
/// In how many spans they are.
const ANOMALOUS_BUCKETS: usize = 11;

/// Length of the spans of time.
const BUCKET_SECONDS: i64 = 600;
/// The first whole span begins at or after the one time, and the last one ends at or before the other.
const FIRST_SECOND: i64 = 1_346_713_620;
const LAST_SECOND: i64 = 1_347_317_974;

/// The rule, with which every anomaly is an alert, and its job.
const RULE: &str = r#"
[rule]
rule_id = "rare-by-status"
name = "Rare status"
description = "What is rare by status."
severity = "low"
type = "machine_learning"
machine_learning_job_id = "rare_by_status"
anomaly_threshold = 0
max_signals = 1000

[job]
id = "rare_by_status"
description = "What is rare by status."
function = "rare"
by_field_name = "event.action"
bucket_span = "10m"
buckets_learned_min = 0
query = "event.action: *"
"#;

/// Runs it.
pub(super) fn run(agent: &Agent, folder: &Path) -> Result<Vec<Case>> {
    let files = VALUES.map(|value| (value, folder.join(format!("{value}.txt"))));
    let mut events = Vec::new();
    for (value, path) in files {
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        events.extend(times(&text)?.into_iter().map(|second| (second, value)));
    }
    let rules = agent.write("rare.toml", RULE)?.display().to_string();
    let events = agent.write("rare.ndjson", &documents(events)?)?.display().to_string();
    let alerts = agent.ask(&["replay", "--json", "--rules", &rules, &events]);
    let found = alerts.and_then(|alerts| anomalies(&alerts));
    let found = found.map(|buckets| {
        let values: BTreeSet<_> = buckets.values().cloned().collect();
        (buckets.len(), values.into_iter().collect())
    });
    let expected = (ANOMALOUS_BUCKETS, vec![RARE.map(str::to_owned).into()]);
    Ok(vec![Case::compare("rare by status", &expected, &found)])
}

/// The times that lie in whole spans.
fn times(text: &str) -> Result<Vec<i64>> {
    let start = (FIRST_SECOND + BUCKET_SECONDS - 1).div_euclid(BUCKET_SECONDS) * BUCKET_SECONDS;
    let end = LAST_SECOND.div_euclid(BUCKET_SECONDS) * BUCKET_SECONDS;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let seconds: Result<Vec<i64>, _> = lines.map(str::parse).collect();
    let seconds = seconds.context("a line is no number of seconds")?;
    Ok(seconds.into_iter().filter(|second| (start..end).contains(second)).collect())
}

/// The events in their order, a line each.
fn documents(mut events: Vec<(i64, &str)>) -> Result<String> {
    events.sort_unstable();
    let mut text = String::new();
    for (second, value) in events {
        writeln!(text, "{}", json!({"@timestamp": second * 1000, "event.action": value}))?;
    }
    Ok(text)
}

/// What is rare in each span, by its start in seconds.
fn anomalies(alerts: &[Json]) -> Result<BTreeMap<i64, BTreeSet<String>>> {
    let mut buckets = BTreeMap::<_, BTreeSet<_>>::new();
    for alert in alerts {
        let text = |name: &str| {
            let path = format!("/lapwing/alert/anomaly/{name}");
            alert.pointer(&path).and_then(Json::as_str).with_context(|| format!("an alert has no {path}"))
        };
        let bucket: Timestamp = text("bucket")?.parse()?;
        buckets.entry(bucket.as_second()).or_default().insert(text("by_value")?.to_owned());
    }
    Ok(buckets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_whole_spans_are_taken() {
        let text = "1346713799\n1346713800\n\n 1347317399\n1347317400\n";
        assert_eq!(times(text).unwrap(), [1_346_713_800, 1_347_317_399]);
        assert!(times("soon").is_err());
    }

    #[test]
    fn events_are_put_in_order() {
        let text = documents(vec![(2, "b"), (1, "a")]).unwrap();
        assert_eq!(
            text,
            "{\"@timestamp\":1000,\"event.action\":\"a\"}\n{\"@timestamp\":2000,\"event.action\":\"b\"}\n"
        );
    }

    #[test]
    fn anomalies_are_read_from_alerts() {
        let alert = |value| json!({"lapwing": {"alert": {"anomaly": {"bucket": "1970-01-01T00:10:00.000Z", "by_value": value}}}});
        let found = anomalies(&[alert("a"), alert("b")]).unwrap();
        assert_eq!(found, BTreeMap::from([(600, BTreeSet::from(["a".to_owned(), "b".to_owned()]))]));
        assert!(anomalies(&[json!({})]).is_err());
    }
}
