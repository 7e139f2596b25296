//! The delivery guarantee with real parts: an agent that is killed at any moment, under load, while upstream comes and
//! goes, has every alert in its log once and delivers each upstream, and no alert that the trail has a cause for is
//! missing.
//!
//! Elasticsearch stores an alert once by its id. A webhook is called at least once, in order: the receiver deduplicates by
//! id, as this test does.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use fastrand::Rng;
use lapwing_stage::servers::{Receiver, Server, ids_in_index, nginx, opensearch, private_network, taken};
use lapwing_stage::trail::Trail;
use lapwing_stage::{Agent, until};
use nix::sys::signal::Signal;
use serde_json::Value as Json;
use tempfile::TempDir;

use crate::load::Load;
use crate::{FIRST, UPLOAD, ids as ids_of, replay, settings};

/// Number of kills; the environment variable of this name overrides it.
const ROUNDS: (&str, u32) = ("LAPWING_KILL_ROUNDS", 6);
/// The environment variable with the random seed, which is printed.
const SEED: &str = "LAPWING_KILL_SEED";
/// How long the agent, or upstream, is left unchanged, in milliseconds.
const MOMENT_MS_MAX: u64 = 1500;
/// Maximum time for the agent to catch up.
const PATIENCE: Duration = Duration::from_secs(300);

/// Small files and a small spool, so that a short outage of upstream fills the spool and rotates the log.
const CONFIGURATION: &str = r#"
alerts.rotate_size = "1 MiB"
alerts.rotate_keep = 65535
spool.size_max = "2 MiB"
cloudtrail.rescan_interval = "1s"
[[sink]]
type = "elasticsearch"
name = "siem"
urls = ["http://127.0.0.1:9443"]
index = "alerts"
retry_delay_max = "100ms"
http.timeout = "2s"
[[sink]]
type = "webhook"
name = "hook"
url = "http://127.0.0.1:8080/in"
format = "ndjson"
retry_delay_max = "100ms"
http.timeout = "2s"
"#;

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn every_alert_is_upstream_once_however_often_the_agent_is_killed() {
    private_network().expect("a network of its own");
    let rounds = env::var(ROUNDS.0).map_or(ROUNDS.1, |rounds| rounds.parse().expect("a number"));
    let seed = env::var(SEED).map_or_else(|_| fastrand::u64(..), |seed| seed.parse().expect("a number"));
    println!("{SEED}={seed}");
    let mut random = Rng::with_seed(seed);
    let trail = Trail::new().expect("a trail");
    let mut upstream = Upstream::start();
    let writer = Writer::start(&trail, random.fork());
    let mut agent = Agent::start(settings(&trail, CONFIGURATION)).expect("an agent");
    for round in 0..rounds {
        moment(&mut random);
        upstream.change(&mut random);
        moment(&mut random);
        agent.kill().unwrap_or_else(|error| panic!("round {round}: {error:#}"));
        agent.launch().expect("the program");
    }
    upstream.change_to(Way::Up, Way::Up);
    let load = writer.stop();
    wait_until_delivered(&agent, &load);
    agent.stop().expect("a good end");

    let logged = logged(&agent, "0");
    let log = agent.log();
    let ids: Vec<_> = logged.iter().map(|alert| text(alert, "/event/id").to_owned()).collect();
    let unique: BTreeSet<_> = ids.iter().cloned().collect();
    println!("{rounds} rounds, {} records, {} files of the log:", load.records.len(), files(&agent));
    for (rule, count) in counts(&logged) {
        println!("{count} alerts \"{rule}\"");
    }
    assert_eq!(unique.len(), ids.len(), "in the log each is once");
    let uploads = causes(&logged, UPLOAD);
    assert_eq!(uploads, load.uploads(), "each upload is alerted");
    let firsts = causes(&logged, FIRST);
    assert_eq!(firsts, load.firsts(), "each account is alerted");
    assert_eq!(unique, replayed(&agent, &load), "live and replayed are the same");
    let indexed = ids_in_index("alerts").expect("a search");
    assert_eq!(indexed, unique.iter().cloned().collect::<Vec<_>>(), "each is upstream, once by id");
    assert_eq!(upstream.called(), ids, "the webhook got each, in the order of the log");
    assert!(!log.contains("panicked"), "{log}");
}

/// Waits for a random time: from before the store is open to well into the load.
fn moment(random: &mut Rng) {
    std::thread::sleep(Duration::from_millis(random.u64(1..MOMENT_MS_MAX)));
}

/// Waits until the agent has read everything and its sinks have delivered everything.
fn wait_until_delivered(agent: &Agent, load: &Load) {
    let uploads = load.uploads();
    let last = uploads.last().expect("an upload");
    let seen = until("the alert of the last record", PATIENCE, || {
        Ok(logged(agent, "20").iter().any(|alert| cause(alert) == last).then_some(()))
    });
    seen.unwrap_or_else(|error| panic!("{error:#}; the agent said:\n{}", agent.log()));
    let delivered = until("an end of the delivery", PATIENCE, || {
        std::thread::sleep(Duration::from_millis(100));
        let status = agent.status()?;
        let waiting = status["sinks"].as_array().into_iter().flatten().any(|sink| sink["waiting"] != 0);
        Ok((!waiting && status["ledger"]["alerts_in_log_only"] == 0).then_some(()))
    });
    delivered.unwrap_or_else(|error| panic!("{error:#}: {:?}", agent.status()));
}

/// The last alerts in all files of the log, oldest first, from `lapwing alerts`.
fn logged(agent: &Agent, limit: &str) -> Vec<Json> {
    let output = agent.command("alerts").args(["--json", "--limit", limit]).output().expect("lapwing alerts");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    let mut alerts: Vec<Json> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    alerts.reverse();
    alerts
}

/// Number of files of the log.
fn files(agent: &Agent) -> usize {
    let entries = std::fs::read_dir(agent.folder()).expect("a folder").flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("alerts")).count()
}

/// Number of alerts by rule.
fn counts(alerts: &[Json]) -> BTreeMap<&str, usize> {
    alerts.iter().fold(BTreeMap::new(), |mut counts, alert| {
        *counts.entry(text(alert, "/message")).or_default() += 1;
        counts
    })
}

/// The ids of the alerts of a replay of the records.
fn replayed(agent: &Agent, load: &Load) -> BTreeSet<String> {
    let lines: String = load.records.iter().map(|record| format!("{record}\n")).collect();
    ids_of(&replay(agent, &lines))
}

/// The ids of the records for which a rule's alerts were raised, sorted.
fn causes(alerts: &[Json], rule: &str) -> BTreeSet<String> {
    alerts.iter().filter(|alert| alert["message"] == rule).map(|alert| cause(alert).to_owned()).collect()
}

fn cause(alert: &Json) -> &str {
    text(alert, "/lapwing/alert/events/0/event/id")
}

fn text<'a>(alert: &'a Json, pointer: &str) -> &'a str {
    alert.pointer(pointer).and_then(Json::as_str).unwrap_or_default()
}

/// A thread that delivers files until it is stopped.
struct Writer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Load>,
}

impl Writer {
    fn start(trail: &Trail, random: Rng) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let mut load = Load::new(&trail.folder(), random);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Relaxed) {
                load.deliver();
                std::thread::sleep(Duration::from_millis(load.random.u64(1..60)));
            }
            load.end();
            load
        });
        Self { stop, thread }
    }

    fn stop(self) -> Load {
        self.stop.store(true, Relaxed);
        self.thread.join().expect("the writer")
    }
}

/// The state of an upstream.
#[derive(Clone, Copy)]
enum Way {
    /// It does not listen.
    Down,
    /// It accepts connections and does not answer.
    Silent,
    Up,
}

impl Way {
    fn any(random: &mut Rng) -> Self {
        [Self::Down, Self::Silent, Self::Up, Self::Up][random.usize(..4)]
    }
}

/// The upstreams: an index behind a proxy, which is stopped and started because the index is in memory; and a webhook,
/// which is stopped and started itself.
struct Upstream {
    folder: TempDir,
    _index: Server,
    door: Option<Server>,
    hook: Option<Receiver>,
    /// The folders of all webhook receivers, a new one for each: a line may be incomplete when the receiver is killed.
    received: Vec<PathBuf>,
}

impl Upstream {
    fn start() -> Self {
        let folder = TempDir::with_prefix("lapwing-upstream-").expect("a folder");
        let index = opensearch().expect("a server");
        let mut upstream = Self { folder, _index: index, door: None, hook: None, received: Vec::new() };
        upstream.change_to(Way::Up, Way::Up);
        upstream
    }

    fn change(&mut self, random: &mut Rng) {
        self.change_to(Way::any(random), Way::any(random));
    }

    fn change_to(&mut self, door: Way, hook: Way) {
        match door {
            Way::Down => self.door = None,
            Way::Silent => silence(self.door.as_ref()),
            Way::Up => {
                // Its port must be free again.
                drop(self.door.take());
                let server = "server { listen 127.0.0.1:9443; client_max_body_size 2m;
                    location / { proxy_pass http://127.0.0.1:9200; } }";
                self.door = Some(nginx(self.folder.path(), server).expect("nginx"));
            }
        }
        match hook {
            Way::Down => self.hook = None,
            Way::Silent => silence(self.hook.as_ref().map(Receiver::server)),
            Way::Up => {
                drop(self.hook.take());
                let folder = self.folder.path().join(self.received.len().to_string());
                std::fs::create_dir(&folder).expect("a folder");
                self.hook = Some(Receiver::start(&folder).expect("a receiver"));
                self.received.push(folder);
            }
        }
    }

    /// The ids that the webhook received, in the order of their first arrival.
    fn called(&self) -> Vec<String> {
        let bodies = self.received.iter().flat_map(|folder: &PathBuf| bodies(folder));
        let mut known = HashSet::new();
        let mut ids = Vec::new();
        for line in bodies.flat_map(|body| body.lines().map(str::to_owned).collect::<Vec<_>>()) {
            let alert: Json = serde_json::from_str(&line).expect("JSON");
            let id = text(&alert, "/event/id").to_owned();
            if known.insert(id.clone()) {
                ids.push(id);
            }
        }
        ids
    }
}

fn bodies(folder: &Path) -> Vec<String> {
    taken(folder).expect("what was received")
}

fn silence(server: Option<&Server>) {
    server.into_iter().for_each(|server| server.signal(Signal::SIGSTOP).expect("a signal"));
}
