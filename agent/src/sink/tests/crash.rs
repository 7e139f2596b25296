//! The promise of the whole system: an agent that is killed at any moment, with an upstream that comes and goes, a
//! spool that overflows and a log that rotates, has every alert of its log upstream in the end, once.

use std::env;
use std::process::{Child, Command, Stdio};

use bytesize::ByteSize;
use nix::sys::signal::Signal;

use super::*;
use crate::ledger::Commit;
use crate::store::{Change, Checkpoint};
use crate::testing::hand_over;
use lapwing_stage::servers::{ids_in_index, nginx, opensearch};

/// How often the agent is killed; the environment variable of this name says another number.
const ROUNDS: (&str, u32) = ("LAPWING_CRASH_ROUNDS", 6);
/// Says to a test process that it is the victim, and where its host is.
const VICTIM: &str = "LAPWING_CRASH_VICTIM";

const SINK: &str = r#"
[[sink]]
type = "elasticsearch"
name = "siem"
urls = ["http://127.0.0.1:9443"]
index = "alerts"
retry_delay_max = "100ms"
http.timeout = "3s"
"#;

fn host(folder: &Path) -> TestHost {
    let mut host = TestHost::at(folder);
    // Small, so that a moment without upstream fills the one and rotates the other.
    host.spool.size_max = ByteSize::mib(2);
    host.alerts.rotate_size = ByteSize::mib(1);
    host.alerts.rotate_keep = u16::MAX;
    host
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn no_alert_is_lost_however_often_the_agent_is_killed() {
    private_network();
    let folder = tempfile::TempDir::with_prefix("lapwing-crash-").unwrap();
    let rounds = env::var(ROUNDS.0).map_or(ROUNDS.1, |rounds| rounds.parse().unwrap());
    let _upstream = opensearch().unwrap();
    let proxy = || {
        let server = "server { listen 127.0.0.1:9443; client_max_body_size 2m;
            location / { proxy_pass http://127.0.0.1:9200; } }";
        nginx(folder.path(), server).unwrap()
    };
    let mut door = Some(proxy());
    for round in 0..rounds {
        let mut victim = victim_in(folder.path());
        // The moment is the point: anywhere from before the store is open to well into the load.
        std::thread::sleep(Duration::from_millis(fastrand::u64(1..600)));
        match fastrand::u8(0..4) {
            0 => door = None,
            1 => door.iter().for_each(|door| door.signal(Signal::SIGSTOP).unwrap()),
            _ => {
                drop(door.take());
                door = Some(proxy());
            }
        }
        std::thread::sleep(Duration::from_millis(fastrand::u64(1..600)));
        victim.kill().unwrap();
        assert!(!victim.wait().unwrap().success(), "round {round}: the victim ended by itself");
    }
    drop(door);
    let _door = proxy();
    let mut host = host(folder.path());
    let agent = Agent::start(&mut host, SINK);
    agent.wait_until_delivered("siem");
    let logged = host.logged();
    let report = agent.ledger.client().report();
    println!("{} alerts in {rounds} rounds; the last run: {report:?}", logged.len());
    assert!(logged.len() as u64 > u64::from(rounds), "there was load");
    assert_eq!(logged, ids(0..logged.len() as u64), "in the log each is once, in order");
    assert_eq!(ids_in_index("alerts").unwrap(), logged, "upstream each is once, and none is missing");
    assert!(next_number(&agent.ledger) <= logged.len() as u64, "state is never ahead of the log");
    assert_eq!((report.alerts_undeliverable, agent.report("siem").dead_lettered), (0, 0));
    agent.stop();
}

fn victim_in(folder: &Path) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "sink::tests::crash::victim", "--nocapture"])
        .env(VICTIM, folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Not a test by itself: an agent that raises alerts until it is killed. Its state says which comes next.
#[test]
fn victim() {
    let Some(folder) = env::var_os(VICTIM) else { return };
    let agent = Agent::start(&mut host(Path::new(&folder)), SINK);
    let mut number = next_number(&agent.ledger);
    loop {
        let alerts = (number..number + fastrand::u64(1..5)).map(alert).collect::<Vec<_>>();
        number += alerts.len() as u64;
        let value = Some(number.to_string().into_bytes());
        let changes = vec![Change { scope: "test".to_owned(), key: "next".to_owned(), value }];
        let commit = Commit { alerts, checkpoint: Checkpoint { changes, done: None } };
        hand_over(agent.ledger.sender(), commit);
        // Load that an upstream of a test can hold.
        std::thread::sleep(Duration::from_millis(3));
    }
}

fn next_number(ledger: &Ledger) -> u64 {
    let mut next = 0;
    let each = |_, value| {
        next = String::from_utf8(value)?.parse()?;
        Ok(())
    };
    ledger.client().rows("test", each).unwrap();
    next
}
