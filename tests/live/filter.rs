//! What no rule can match and stays in the kernel, and that the account of records is whole.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::Stdio;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lapwing_stage::{Agent, Settings, until};
use rustix::net::{AddressFamily, SocketType, connect, socket};
use serde_json::Value;
use tempfile::TempDir;

use crate::agent::{CONFIG, DEADLINE, binary};
use crate::connect::in_own_network;

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(100);
/// The address of this host in a network of its own.
const NEAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Connections to elsewhere, and no end of any.
const ELSEWHERE: &str = "network where event.action == \"connection_attempted\" and \
    not cidrMatch(destination.ip, \"127.0.0.0/8\", \"::1\")";
const DATAGRAMS: &str = "network where event.action == \"datagram_attempted\"";

/// What must live as long as an agent: its rules, and that no other test of these runs. For what they do matches each
/// other's rules, and would use up the alerts that one may raise.
type Rest = (TempDir, MutexGuard<'static, ()>);
static ALONE: Mutex<()> = Mutex::new(());

/// An agent with the smallest rings and no rule but one that asks for connections to elsewhere.
fn agent() -> (Agent, Rest) {
    agent_that_asks(ELSEWHERE)
}

fn agent_that_asks(query: &str) -> (Agent, Rest) {
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let rules = tempfile::tempdir().unwrap();
    let rule = format!(
        "[rule]\nrule_id = 'id'\nname = 'name'\ndescription = 'text'\nseverity = 'low'\ntype = 'eql'\n\
         language = 'eql'\nindex = ['logs-endpoint.events.*']\nquery = '''{query}'''\n"
    );
    std::fs::write(rules.path().join("rule.toml"), rule).unwrap();
    let settings = Settings {
        program: binary().into(),
        rules: rules.path().to_owned(),
        configuration: format!("sensor.ring_size = \"256 KiB\"\nsensor.udp = true\n{}", hooks()),
        ..Settings::default()
    };
    (Agent::start(settings).unwrap(), (rules, alone))
}

/// The configuration that attaches each hook by its method on this host.
pub(crate) fn hooks() -> String {
    let Some(path) = std::env::var_os(CONFIG) else { return String::new() };
    let config: toml::Table = std::fs::read_to_string(path).unwrap().parse().unwrap();
    let hooks = config["sensor"].get("hooks").and_then(toml::Value::as_table).into_iter().flatten();
    hooks.map(|(hook, method)| format!("sensor.hooks.{hook} = '{}'\n", method.as_str().unwrap())).collect()
}

/// What the agent counts of a kind of records.
fn counts(agent: &Agent, kind: &str) -> Value {
    let status = agent.status().unwrap();
    let records = status["lanes"][0]["source"]["records"].as_array().unwrap().clone();
    records.into_iter().find(|record| record["name"] == kind).unwrap()
}

/// Ends the agent, and returns of each kind of records how many it saw, delivered, filtered and lost. That is whole to
/// the record.
fn account(agent: &mut Agent) -> Vec<(String, [u64; 4])> {
    agent.stop().unwrap();
    let log = agent.log();
    let (_, line) = log.lines().filter_map(|line| line.split_once("records seen: ")).next_back().unwrap();
    let account = line.split("), ").map(|part| {
        let numbers: Vec<u64> =
            part.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect();
        let [seen, delivered, filtered, lost] = numbers[..] else { panic!("{line}") };
        assert_eq!(seen, delivered + filtered + lost, "{line}");
        (part.split(' ').next().unwrap().to_owned(), [seen, delivered, filtered, lost])
    });
    account.collect()
}

/// An address of this host at which nothing listens.
fn closed(address: Ipv4Addr) -> SocketAddr {
    TcpListener::bind((address, 0)).unwrap().local_addr().unwrap()
}

/// Connects so often; where nothing listens it is refused.
fn knock(address: SocketAddr, times: usize) {
    for _ in 0..times {
        let _ = connect(socket(AddressFamily::INET, SocketType::STREAM, None).unwrap(), &address);
    }
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn what_no_rule_can_match_stays_in_the_kernel() {
    const KNOCKS: usize = 200;
    let (mut agent, _rest) = agent();
    let before = counts(&agent, "connect");
    assert_eq!(before["filtered_to"], serde_json::json!(["loopback"]));
    assert!(counts(&agent, "closed")["filtered_to"].as_array().unwrap().len() > 1, "nothing asks for ends");
    knock(closed(Ipv4Addr::LOCALHOST), KNOCKS);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    knock(listener.local_addr().unwrap(), 1);
    for (kind, least) in [("connect", KNOCKS as u64 + 1), ("connected", 1), ("closed", KNOCKS as u64)] {
        let filtered = counts(&agent, kind)["filtered"].as_u64().unwrap();
        assert!(filtered >= least, "{kind}: {filtered}");
    }
    let port = in_own_network(|| {
        let address = closed(NEAR);
        knock(address, 1);
        address.port()
    });
    let is_it = |alert: &lapwing_stage::Alert| alert.document["destination"]["port"] == port;
    let alert = agent.wait_for_within("a connection to elsewhere", 0, DEADLINE, is_it).unwrap();
    // It was refused, so that the socket is gone, and the record of its end is filtered.
    assert!(alert.document["source"]["port"].as_u64() > Some(0), "{}", alert.document["source"]);
    let alerts = agent.alerts().unwrap();
    assert!(alerts.iter().all(|alert| alert.text("/destination/ip") != "127.0.0.1"));
    let account = account(&mut agent);
    assert_eq!(account.len(), lapwing_common::Kind::ALL.len(), "every kind of record: {account:?}");
    for (kind, [_, delivered, filtered, _]) in account {
        assert!(delivered > 0 || kind != "connect", "{kind}");
        assert!(
            filtered == 0 || matches!(&*kind, "connect" | "connected" | "accept" | "closed" | "datagram"),
            "{kind}"
        );
    }
}

/// The account is whole too where the agent is held while more is recorded than has room.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn filtered_and_lost_records_are_counted_separately() {
    let (mut agent, _rest) = agent();
    agent.signal("STOP").unwrap();
    in_own_network(|| knock(closed(NEAR), 700));
    knock(closed(Ipv4Addr::LOCALHOST), 300);
    agent.signal("CONT").unwrap();
    let account = account(&mut agent);
    let [_, delivered, filtered, lost] = account.iter().find(|(kind, _)| kind == "connect").unwrap().1;
    assert!(delivered > 0 && filtered >= 300 && lost > 0, "{account:?}");
}

/// A destination of datagrams is deduplicated; the account has the repetitions.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn repeated_datagrams_are_filtered() {
    const TIMES: u64 = 50;
    let (mut agent, _rest) = agent_that_asks(DATAGRAMS);
    let here = (Ipv4Addr::LOCALHOST, 0);
    let (sender, receiver) = (UdpSocket::bind(here).unwrap(), UdpSocket::bind(here).unwrap());
    for _ in 0..TIMES {
        sender.send_to(b"again", receiver.local_addr().unwrap()).unwrap();
    }
    let account = account(&mut agent);
    let [_, delivered, filtered, _] = account.iter().find(|(kind, _)| kind == "datagram").unwrap().1;
    assert!(delivered > 0 && filtered >= TIMES - 1, "{account:?}");
}

/// A subscriber gets all events.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn nothing_is_filtered_while_a_subscriber_gets_the_events() {
    let (agent, _rest) = agent();
    let mut events = agent.command("events");
    let mut watching = events.arg("--json").stdout(Stdio::piped()).spawn().unwrap();
    until("a filter that is lifted", DEADLINE, || {
        Ok(counts(&agent, "connect")["filtered_to"].is_null().then_some(()))
    })
    .unwrap();
    let address = closed(Ipv4Addr::LOCALHOST);
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines().map_while(Result::ok);
    let port = format!("\"port\":{}", address.port());
    let is_shown = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // More than once, for the rings are small and other tests fill them.
        scope.spawn(|| {
            let end = Instant::now() + DEADLINE;
            while !is_shown.load(Relaxed) && Instant::now() < end {
                knock(address, 1);
                std::thread::sleep(PAUSE);
            }
            watching.kill().unwrap();
        });
        for action in ["connection_attempted", "disconnect_received"] {
            assert!(lines.any(|line| line.contains(action) && line.contains(&port)), "{action}");
        }
        is_shown.store(true, Relaxed);
    });
    watching.wait().unwrap();
    until("the filter again", DEADLINE, || {
        Ok(counts(&agent, "connect")["filtered_to"].is_array().then_some(()))
    })
    .unwrap();
}
