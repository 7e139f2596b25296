//! Events are in the kernel's order, and each process is reported once, however much happens while a sensor starts and
//! ends.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::agent::{DEADLINE, events, field};

/// What a sensor of its own reported from its start to its end.
struct Run {
    events: Vec<Value>,
    /// How many records it counted as out of order.
    out_of_order: u64,
}

/// A sensor that runs, and the thread that keeps its events.
struct Sensor {
    child: Child,
    events: std::thread::JoinHandle<Vec<Value>>,
}

impl Sensor {
    /// Starts one and waits until its hooks are attached.
    fn start() -> Self {
        let mut child = events().spawn().expect("the agent");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let first = lines.next().expect("an event").expect("an event");
        let parse = |line: String| serde_json::from_str(&line).expect("JSON");
        let keep = move || std::iter::once(first).chain(lines.map_while(Result::ok)).map(parse).collect();
        Self { child, events: std::thread::spawn(keep) }
    }

    fn end(mut self) -> Run {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        let events = self.events.join().expect("events");
        let mut said = String::new();
        self.child.stderr.take().expect("a pipe").read_to_string(&mut said).unwrap();
        assert!(self.child.wait().unwrap().success(), "{said}");
        let out_of_order = said.lines().find_map(|line| {
            line.strip_prefix("records: ")?.rsplit(", ").next()?.strip_suffix(" out of order")
        });
        Run {
            events,
            out_of_order: out_of_order.and_then(|count| count.parse().ok()).expect("the account at the end"),
        }
    }
}

/// How many processes end while a sensor runs, and while none does: more than there are at once, so that some of them
/// began then too.
const ENDS: usize = 120;

/// Waits until so many more processes have ended.
fn await_ends(count: &AtomicUsize) {
    let (start, wanted) = (Instant::now(), count.load(Ordering::Relaxed) + ENDS);
    while count.load(Ordering::Relaxed) < wanted {
        assert!(start.elapsed() < DEADLINE, "too little happens");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Starts processes on every processor until it has to stop: some that end at once and some that stay a while. Where
/// that takes long, as on an emulated processor, most of the time is left to the sensors.
/// Returns their numbers with when each was started and when it had ended, and counts `ends` meanwhile.
fn churn(stop: &AtomicBool, ends: &AtomicUsize) -> Vec<(u32, Instant, Instant)> {
    let work = || {
        let (mut started, mut ended): (Vec<(Child, Instant)>, Vec<_>) = (Vec::new(), Vec::new());
        while !stop.load(Ordering::Relaxed) || !started.is_empty() {
            let begin = Instant::now();
            if !stop.load(Ordering::Relaxed) {
                for seconds in ["0", "0.7"] {
                    let mut sleep = Command::new("sleep");
                    started.push((sleep.arg(seconds).stdin(Stdio::null()).spawn().unwrap(), Instant::now()));
                }
            }
            started.retain_mut(|(child, since)| {
                let is_over = child.try_wait().unwrap().is_some();
                if is_over {
                    ended.push((child.id(), *since, Instant::now()));
                    ends.fetch_add(1, Ordering::Relaxed);
                }
                !is_over
            });
            std::thread::sleep((begin.elapsed() * 3).max(Duration::from_millis(50)));
        }
        ended
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

/// How often the begin of each process was reported, by its name and its number.
fn begun(run: &Run) -> HashMap<(u64, String), usize> {
    let mut begun = HashMap::new();
    let of = |event: &&Value| {
        ["fork", "already_running"].contains(&event["event"]["action"].as_str().unwrap_or(""))
    };
    for event in run.events.iter().filter(of) {
        let id = field(event, "process.entity_id").as_str().expect("an id").to_owned();
        *begun.entry((event["process"]["pid"].as_u64().expect("a number"), id)).or_default() += 1;
    }
    begun
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn events_are_in_order_and_each_process_is_reported_once_over_a_restart() {
    let (stop, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (first, second, processes, times) = std::thread::scope(|scope| {
        let churn = scope.spawn(|| churn(&stop, &count));
        std::thread::sleep(Duration::from_millis(500));
        let sensor = Sensor::start();
        let began = Instant::now();
        await_ends(&count);
        let ends = Instant::now();
        let first = sensor.end();
        let ended = Instant::now();
        await_ends(&count);
        let starts = Instant::now();
        let sensor = Sensor::start();
        let again = Instant::now();
        await_ends(&count);
        stop.store(true, Ordering::Relaxed);
        let processes = churn.join().unwrap();
        // What has happened is read within less.
        std::thread::sleep(Duration::from_millis(300));
        (first, sensor.end(), processes, [began, ends, ended, starts, again])
    });
    let [began, ends, ended, starts, again] = times;

    for run in [&first, &second] {
        // Events about the sensor itself are reported when they are found.
        let of_processes = run.events.iter().filter(|event| event["event"]["category"][0] != "host");
        let found: Vec<_> = of_processes.collect();
        let brief = |event: &Value| {
            format!("{} {} {}", event["@timestamp"], event["event"]["action"], event["process"]["pid"])
        };
        let is_behind = |pair: &&[&Value]| time(pair[1]) < time(pair[0]);
        let behind: Vec<_> =
            found.windows(2).filter(is_behind).map(|pair| [brief(pair[0]), brief(pair[1])]).collect();
        assert!(
            behind.len() as u64 <= run.out_of_order,
            "{behind:?} follow later ones, {} counted as out of order",
            run.out_of_order
        );
        for ((pid, id), count) in begun(run) {
            assert_eq!(count, 1, "process {pid}, {id}, was reported to begin {count} times");
        }
    }
    let [first, second] = [&first, &second].map(begun);
    let is_in = |begun: &HashMap<(u64, String), usize>, pid: u32| {
        begun.keys().any(|(found, _)| *found == u64::from(pid))
    };
    let (mut seen, mut unseen) = (0, 0);
    for (pid, since, until) in processes {
        if until > began && since < ends {
            assert!(is_in(&first, pid), "{pid} ran while the first sensor did");
            seen += 1;
        }
        if until > again {
            assert!(is_in(&second, pid), "{pid} ran while the second sensor did");
            seen += 1;
        }
        if since > ended && until < starts {
            assert!(!is_in(&first, pid) && !is_in(&second, pid), "{pid} ran while none did");
            unseen += 1;
        }
    }
    assert!(seen > 50 && unseen > 5, "{seen} seen, {unseen} unseen");
}

/// When an event was by the clock that orders them, which is not the one that the test of the clock sets in a guest.
fn time(event: &Value) -> jiff::Timestamp {
    let monotonic = event["lapwing"]["event"]["monotonic_time"].as_str();
    monotonic.or(event["@timestamp"].as_str()).expect("a time").parse().expect("a time")
}
