//! The agent under test: one process for all tests, its events kept as they come.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;

/// How long an event may take to come. It takes some hundredths of a second; a busy machine, or one that is emulated,
/// takes longer.
pub(crate) const DEADLINE: Duration = Duration::from_secs(180);

/// The agent's binary.
pub(crate) fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_lapwing")
}

/// By which `cargo xtask test --vm` names the agent's configuration, and the one that it has elsewhere.
pub(crate) const CONFIG: &str = "LAPWING_LIVE_CONFIG";
const DEFAULT_CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/live/lapwing.toml");

/// A command that prints the stream of events.
pub(crate) fn events() -> Command {
    let config = std::env::var_os(CONFIG).unwrap_or_else(|| DEFAULT_CONFIG.into());
    events_by(config.as_ref())
}

/// The same with another configuration.
pub(crate) fn events_by(config: &Path) -> Command {
    let mut command = Command::new(binary());
    command.args(["events", "--json", "--config"]).arg(config);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Waits for the one event that fits, and fails with `what` where none comes, and with how far behind the agent is.
pub(crate) fn event(what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let shared = shared();
    let start = Instant::now();
    let mut seen = 0;
    let mut events = shared.0.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if let Some(event) = events[seen..].iter().find(|event| fits(event)) {
            return event.clone();
        }
        seen = events.len();
        let left = DEADLINE.checked_sub(start.elapsed());
        let left = left.unwrap_or_else(|| {
            let latest =
                events.iter().rev().find_map(|event| event["@timestamp"].as_str()).unwrap_or("never");
            panic!("no event came: {what}; it is {}, and the last of {seen} is of {latest}", Timestamp::now())
        });
        events = shared.1.wait_timeout(events, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// Every event that fits and came so far.
pub(crate) fn all(fits: impl Fn(&Value) -> bool) -> Vec<Value> {
    let events = shared().0.lock().unwrap_or_else(PoisonError::into_inner);
    events.iter().filter(|event| fits(event)).cloned().collect()
}

/// The event of this action and process.
pub(crate) fn of(action: &str, pid: u32) -> Value {
    event(&format!("{action} of {pid}"), |event| is(event, action, pid))
}

/// Whether it is the event of this action and process.
pub(crate) fn is(event: &Value, action: &str, pid: u32) -> bool {
    event["event"]["action"] == action && event["process"]["pid"] == pid
}

/// A field by its dotted name; null where it is absent.
pub(crate) fn field<'a>(event: &'a Value, name: &str) -> &'a Value {
    name.split('.').fold(event, |value, part| &value[part])
}

/// The dotted names of all fields below an object.
pub(crate) fn names(value: &Value, prefix: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                let dot = if prefix.is_empty() { "" } else { "." };
                names(value, &format!("{prefix}{dot}{name}"), found);
            }
        }
        _ => found.push(prefix.to_owned()),
    }
}

/// Asserts fields by their dotted names.
#[track_caller]
pub(crate) fn assert_fields(event: &Value, expected: Value) {
    for (name, expected) in expected.as_object().expect("an object of dotted names") {
        assert_eq!(field(event, name), expected, "{name} of {event:#}");
    }
}

pub(crate) type Shared = Arc<(Mutex<Vec<Value>>, Condvar)>;

/// The events of the one agent, which the first caller starts and which ends when its output is no longer read.
fn shared() -> &'static Shared {
    &agent().1
}

/// The one agent, with its events.
pub(crate) fn agent() -> &'static (Child, Shared) {
    static AGENT: OnceLock<(Child, Shared)> = OnceLock::new();
    AGENT.get_or_init(start)
}

/// Starts the agent before something is done that it is to see.
pub(crate) fn ready() {
    shared();
}

fn start() -> (Child, Shared) {
    let mut child = events().stderr(Stdio::inherit()).spawn().expect("the agent starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    // The snapshot comes first, so that with its first line all hooks are attached.
    let first = lines.next().and_then(Result::ok);
    let first = first.expect("the agent runs: this needs root and `cargo xtask test`, which builds it whole");
    let shared = Shared::default();
    let keep = shared.clone();
    std::thread::spawn(move || {
        for line in std::iter::once(first).chain(lines.map_while(Result::ok)) {
            let event = serde_json::from_str(&line).expect("one JSON object a line");
            keep.0.lock().unwrap_or_else(PoisonError::into_inner).push(event);
            keep.1.notify_all();
        }
    });
    (child, shared)
}
