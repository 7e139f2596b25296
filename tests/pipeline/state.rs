//! Learned state on disk: the agent starts soon and in little memory whatever its size, and reports what it dropped.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lapwing_stage::trail::Trail;
use lapwing_stage::{Agent, until};
use rusqlite::{Connection, params};

use crate::{PATIENCE, agent};

/// Maximum time for a start with any state. Other processes may use the processors.
const START: Duration = Duration::from_secs(if cfg!(debug_assertions) { 15 } else { 5 });
/// The rule that learns which errors are rare, and its job.
const RARE_ERROR: &str = "rule/5b1f0c64-9d0f-4c9a-8f1c-4a2f7a6b9e45";
const RARE_ERROR_JOB: &str = "rare_error_code";
/// The rule that learns from which countries an account is used.
const FIRST_COUNTRY: &str = "rule/e343793f-1498-49ae-be7d-9afe2d9dfe9a";

fn store(agent: &Agent) -> PathBuf {
    agent.folder().join("state/lapwing.db")
}

fn rows(store: &Path) -> i64 {
    let connection = Connection::open(store).expect("the store");
    connection.query_row("SELECT count(*) FROM state", [], |row| row.get(0)).expect("a number")
}

/// Peak memory of the process, in bytes.
fn peak(agent: &Agent) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// Inserts rows as versions without limits left them.
fn fill(store: &Path, terms: usize, examples: usize) {
    let mut connection = Connection::open(store).expect("the store");
    let transaction = connection.transaction().expect("a transaction");
    let insert = "INSERT INTO state (scope, key, value) VALUES (?1, ?2, ?3)";
    let now = jiff::Timestamp::now();
    for number in 0..terms {
        let key = format!("term:{number}{}", "x".repeat(if number % 100 == 0 { 10 } else { 46_000 }));
        let value = now.as_nanosecond().to_string().into_bytes();
        transaction.execute(insert, params![FIRST_COUNTRY, key, value]).expect("a row");
    }
    let bucket = now.as_second() / 900 * 900 * 1_000_000_000;
    for number in 0..examples {
        let key = format!("{RARE_ERROR_JOB}\u{1e}open:{bucket}\u{1f}\u{1f}Err{number}");
        let value = serde_json::json!({
            "@timestamp": now.to_string(), "event": {"action": "Cmd", "id": number.to_string()},
            "user": {"name": format!("u{number}")}, "error": {"message": "m".repeat(4000)},
        });
        transaction.execute(insert, params![RARE_ERROR, key, value.to_string().into_bytes()]).expect("a row");
    }
    transaction.commit().expect("the rows");
}

#[test]
fn a_state_beyond_all_limits_is_trimmed_when_it_is_read() {
    let trail = Trail::new().expect("a trail");
    let mut agent = agent(&trail);
    let before = peak(&agent);
    agent.stop().expect("an end");
    fill(&store(&agent), 1500, 25_000);
    let begin = Instant::now();
    agent.start_again().expect("an agent");
    assert!(begin.elapsed() < START, "{:?}", begin.elapsed());
    assert!(peak(&agent) < before + (96 << 20), "{} and {before} before", peak(&agent));
    let status = agent.status().expect("a status");
    assert!(status["ledger"]["state_rows_dropped"].as_u64() > Some(10_000), "{status}");
    let log = agent.log();
    assert!(log.contains("the rules' state exceeds its limit in the store"), "{log}");
    // Rows that were not loaded are deleted while it runs, and the file shrinks.
    let left = || {
        let connection = Connection::open(store(&agent)).ok()?;
        let pages =
            connection.query_row("SELECT page_count FROM pragma_page_count", [], |row| row.get(0)).ok();
        pages.filter(|pages: &i64| *pages < (96 << 20) / 4096)
    };
    until("nothing is left behind", PATIENCE, || Ok(left())).expect("an end of it");
    assert!(rows(&store(&agent)) < 15_000);
    agent.stop().expect("an end");
    let size = fs::metadata(store(&agent)).expect("the store").len();
    assert!(size < 96 << 20, "{size}");
    agent.start_again().expect("an agent");
    assert_eq!(agent.status().expect("a status")["ledger"]["state_rows_dropped"], 0);
}

#[test]
fn a_state_of_an_earlier_version_within_the_limits_is_loaded() {
    let trail = Trail::new().expect("a trail");
    let mut agent = agent(&trail);
    agent.stop().expect("an end");
    fill(&store(&agent), 200, 100);
    agent.start_again().expect("an agent");
    let status = agent.status().expect("a status");
    assert_eq!(status["ledger"]["state_rows_dropped"], 0);
    assert!(status["lanes"][0]["learned_bytes"].as_u64() > Some(50_000), "{status}");
    agent.stop().expect("an end");
    let connection = Connection::open(store(&agent)).expect("the store");
    let longest: i64 = connection
        .query_row("SELECT max(length(key) + length(value)) FROM state", [], |row| row.get(0))
        .expect("a number");
    assert!(longest < 6000, "{longest}");
    assert!(rows(&store(&agent)) >= 300);
}
