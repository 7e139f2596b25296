//! How much memory and time delivery takes, in a process of its own. Memory is held to a limit; times are printed, on
//! request: `LAPWING_MEASURE=100000 cargo test --release -p lapwing measure -- --nocapture`.

use std::env;
use std::process::Command;
use std::sync::mpsc;
use std::time::Instant;

use bytesize::ByteSize;

use super::*;
use crate::testing::hand_over;

/// How many alerts are spooled; the environment variable of this name says another number.
const ALERTS: (&str, u64) = ("LAPWING_MEASURE", 4000);
/// Says to a test process that it is the one that is measured.
const MEASURED: &str = "LAPWING_MEASURED";
/// What alerts, however many, may add to the memory of an agent at rest.
const RSS_GROWTH_MAX: ByteSize = ByteSize::mib(16);

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn memory_stays_flat() {
    if env::var_os(MEASURED).is_some() {
        measure();
        return;
    }
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "sink::tests::measure::memory_stays_flat", "--nocapture"])
        .env(MEASURED, "1")
        .output()
        .unwrap();
    println!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn measure() {
    private_network();
    let count = env::var(ALERTS.0).map_or(ALERTS.1, |count| count.parse().unwrap());
    let mut host = TestHost::new();
    host.spool.size_max = ByteSize::gib(4);
    let agent = Agent::start(&mut host, &hook("http.timeout = \"5s\""));
    agent.raise(0..1);
    agent.wait_for_alarm("hook", "cannot be reached");
    let at_rest = rss();
    println!("at rest: RSS {at_rest}");

    let latencies = latencies(&agent, 1..501);
    println!(
        "one alert, until it is durable: p50 {:?}, p99 {:?}, max {:?}",
        latencies[250], latencies[495], latencies[499]
    );

    let begin = Instant::now();
    for number in 501..count {
        hand_over(agent.ledger.sender(), commit([alert(number)]));
    }
    agent.raise(count..count + 1);
    let seconds = begin.elapsed().as_secs_f64();
    let full = rss();
    let report = agent.ledger.client().report();
    let bytes = ByteSize::b(report.spooled_bytes);
    println!("{:.0} commits/s, sent one after another", (count - 501) as f64 / seconds);
    println!("{} alerts of {bytes} in the spool: RSS {full}", report.alerts_spooled);

    let _receiver = Receiver::start(host.path()).unwrap();
    let begin = Instant::now();
    agent.wait_until_delivered("hook");
    let delivered = rss();
    let seconds = begin.elapsed().as_secs_f64();
    println!("delivered {:.0} alerts/s: RSS {delivered}", count as f64 / seconds);
    for rss in [full, delivered] {
        assert!(rss.as_u64() < at_rest.as_u64() + RSS_GROWTH_MAX.as_u64(), "{rss} after {at_rest} at rest");
    }
    agent.stop();
}

/// How long each of these alerts takes until it is durable, sorted.
fn latencies(agent: &Agent, numbers: std::ops::Range<u64>) -> Vec<Duration> {
    let mut latencies: Vec<Duration> = numbers
        .map(|number| {
            let (mut commit, (done, wait)) = (commit([alert(number)]), mpsc::channel());
            commit.checkpoint.done = Some(Box::new(move || done.send(()).unwrap()));
            let begin = Instant::now();
            hand_over(agent.ledger.sender(), commit);
            wait.recv().unwrap();
            begin.elapsed()
        })
        .collect();
    latencies.sort();
    latencies
}

fn rss() -> ByteSize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    ByteSize::kib(line.trim().trim_end_matches(" kB").parse().unwrap())
}
