//! The real memory of what is charged. Each of the largest owners is filled beyond its limit, in a process of its own, and the
//! growth of that process is compared with the charge: `cargo xtask bench memory` prints it, and the test compares it with
//! the assumption of the sum of the limits.

use std::any::Any;
use std::ops::Range;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use std::{env, fs};

use lapwing_engine::detect::Limits;
use lapwing_engine::{Counters, Engine, Event, Loaded, Options, Output, Schema};
use serde_json::{Value as Json, json};

use super::limits::OVERHEAD_PERCENT;
use crate::{ledger, sensor};

/// The owner that a child process fills.
const OWNER: &str = "LAPWING_TEST_OWNER";
/// Number of users: enough to hold nearly all of a pool.
const USERS: usize = 48;
/// Rules of each kind; each may hold half of what the others leave.
const RULES: usize = 8;
/// Events between two checks whether an engine still grows.
const STEP: usize = 16 * USERS * RULES;

/// Measures the growth of the process.
pub(crate) struct Probe {
    before: u64,
    grown: u64,
}

impl Probe {
    /// From now on, all growth is the owner's.
    pub(crate) fn begin(&mut self) {
        self.before = resident();
    }

    /// The owner is full; it is kept until this returns.
    fn end(&mut self) {
        self.grown = resident().saturating_sub(self.before);
    }
}

/// What an owner holds, and its charge.
pub(crate) type Full = (Box<dyn Any>, usize);

/// Fills an owner.
type Fill = fn(&mut Probe) -> Full;

/// The owners that may hold most.
const OWNERS: &[(&str, Fill)] = &[
    ("half matches", |probe| engine(probe, SEQUENCE, Duration::ZERO, exec, |counters| counters.state_bytes)),
    ("half matches, long arguments", |probe| {
        engine(probe, SEQUENCE, Duration::ZERO, long_exec, |counters| counters.state_bytes)
    }),
    ("counts", |probe| engine(probe, THRESHOLD, Duration::ZERO, exec, |counters| counters.state_bytes)),
    ("terms", |probe| engine(probe, TERMS, Duration::ZERO, exec, |counters| counters.learned_bytes)),
    ("jobs", |probe| engine(probe, JOB, Duration::from_secs(900), call, |counters| counters.learned_bytes)),
    ("unordered events", |probe| {
        // Partial matches that were evicted are excluded.
        let held = |counters: &Counters| counters.unordered_bytes + counters.state_bytes;
        engine(probe, SEQUENCE, Duration::from_secs(900), exec, held)
    }),
    ("processes", sensor::full::processes),
    ("processes, long arguments", sensor::full::fat_processes),
    ("control groups", sensor::full::groups),
    ("connections", sensor::full::connections),
    ("alerts that no disk takes", ledger::full),
];

const SEQUENCE: &str = r#"
    type = "eql"
    query = 'sequence by process.entity_id with maxspan=1h [process where process.name == "NAME"] [network where true]'
"#;
const THRESHOLD: &str = r#"
    type = "threshold"
    query = "process.name: NAME"
    [rule.threshold]
    field = ["process.entity_id"]
    value = 1000
"#;
const TERMS: &str = r#"
    type = "new_terms"
    query = "process.name: NAME"
    [rule.new_terms]
    field = "new_terms_fields"
    value = ["process.command_line"]
    [[rule.new_terms.history_window_start]]
    field = "history_window_start"
    value = "now-14d"
"#;
const JOB: &str = r#"
    type = "machine_learning"
    anomaly_threshold = 50
    machine_learning_job_id = "NAME"
    [job]
    id = "NAME"
    description = "errors that are rare"
    function = "rare"
    by_field_name = "aws.cloudtrail.error_code"
    bucket_span = "60m"
    query = "process.name: NAME"
"#;

fn name(number: usize) -> String {
    format!("n{}", number % RULES)
}

/// A program start by one of many users.
fn exec(number: usize) -> Json {
    let (user, name) = (number / RULES % USERS, name(number));
    json!({
        "@timestamp": 1_000_000_000_000_u64 + number as u64, "event.category": "process", "event.type": "start",
        "lapwing.actor.id": user.to_string(), "user.name": format!("user-{user}"), "process.name": name,
        "process.pid": number, "process.entity_id": format!("YWJjZGVmZ2hpamtsbW5vcHFyc3Q{number:09}"),
        "process.executable": format!("/usr/local/lib/application/bin/{name}"),
        "process.command_line": format!("{name} --number {number}"), "process.args": [name, "--number", number.to_string()],
        "process.working_directory": format!("/var/lib/application/{user}"),
    })
}

fn long_exec(number: usize) -> Json {
    let mut event = exec(number);
    event["process.args"] = (0..100).map(|arg| format!("--argument-{arg}")).collect();
    event
}

/// A call of a cloud API with a unique error.
fn call(number: usize) -> Json {
    let mut event = exec(number);
    event["aws.cloudtrail.error_code"] = format!("Client.SomeErrorOfAnInterface{number}").into();
    event
}

/// An engine that was fed events until it stopped growing, and the value of one of its counters.
fn engine(
    probe: &mut Probe,
    kind: &str,
    lateness: Duration,
    event: fn(usize) -> Json,
    held: fn(&Counters) -> u64,
) -> Full {
    let mut schema = Schema::new();
    let rules: Vec<_> = (0..RULES)
        .map(|number| {
            let head = format!(
                "[rule]\nrule_id = \"NAME\"\nname = \"NAME\"\ndescription = \"d\"\nseverity = \"low\"\n{kind}"
            );
            (format!("{number}.toml"), head.replace("NAME", &name(number)))
        })
        .collect();
    let loaded = Loaded::read(rules.iter().map(|(file, text)| (file.as_str(), text.as_bytes())), &mut schema);
    assert_eq!(loaded.rules.len(), RULES, "{:?}", loaded.reports);
    let options = Options { lateness, limits: Limits::default(), ..Options::default() };
    let mut engine = Engine::new(Arc::new(schema), &loaded.rules, options);
    let mut output = Output::default();
    probe.begin();
    let mut push = |engine: &mut Engine, numbers: Range<usize>| {
        for number in numbers {
            let event = Event::from_json(engine.schema(), &event(number)).unwrap();
            engine.push(event, &mut output);
            output = Output::default();
        }
    };
    let (mut number, mut before) = (0, 0);
    while held(&engine.counters()) > before || number == 0 {
        before = held(&engine.counters()) * 17 / 16;
        push(&mut engine, number..number + STEP);
        number += STEP;
    }
    // Evictions leave gaps.
    push(&mut engine, number..number * 5 / 4);
    let charged = held(&engine.counters()) as usize;
    (Box::new(engine), charged)
}

/// Anonymous memory of this process, in bytes.
#[expect(unsafe_code, reason = "mallinfo2 is a call of libc")]
fn resident() -> u64 {
    // SAFETY: it has no preconditions.
    #[cfg(target_env = "gnu")]
    unsafe {
        nix::libc::malloc_trim(0)
    };
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Fills the owner that the environment names, and prints its charge and the growth of this process. It has no effect
/// by itself: the test below runs it in a process per owner.
#[test]
fn one_owner() {
    let Ok(wanted) = env::var(OWNER) else { return };
    let (_, fill) = OWNERS.iter().find(|(name, _)| *name == wanted).unwrap();
    let mut probe = Probe { before: 0, grown: 0 };
    let (held, charged) = fill(&mut probe);
    probe.end();
    drop(held);
    println!("measured: {charged} {}", probe.grown);
}

#[test]
fn no_owner_exceeds_the_assumed_overhead() {
    let mut heavy = Vec::new();
    println!("owner | charged, MiB | taken, MiB | taken for each byte charged");
    for (name, _) in OWNERS {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "budget::overhead::one_owner", "--nocapture"]).env(OWNER, name);
        let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
        let numbers = output
            .lines()
            .find_map(|line| line.split_once("measured: "))
            .unwrap_or_else(|| panic!("{name}: {output}"));
        let (charged, taken) = numbers.1.split_once(' ').unwrap();
        let [charged, taken] = [charged, taken].map(|number| number.parse::<u64>().unwrap());
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        println!("{name} | {:.2} | {:.2} | {:.2}", mib(charged), mib(taken), taken as f64 / charged as f64);
        if taken * 100 > charged * OVERHEAD_PERCENT {
            heavy.push(name);
        }
    }
    assert!(
        heavy.is_empty(),
        "more than {OVERHEAD_PERCENT} bytes are taken for a hundred that are charged: {heavy:?}"
    );
}
