//! Sinks between a ledger and real servers.

mod crash;
mod elasticsearch;
mod measure;
mod template;
mod webhook;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;

use lapwing_stage::servers::Receiver;

use super::*;
use crate::testing::{Ledger, TestHost, alert, commit, id, private_network, wait_until};

/// An agent without sensor and rules: a ledger, and its sinks on their thread.
pub(super) struct Agent {
    pub(super) ledger: Ledger,
    statuses: BTreeMap<String, Arc<status::SinkStatus>>,
    edges: JoinHandle<()>,
}

impl Agent {
    /// Starts with the sinks of this configuration.
    pub(super) fn start(host: &mut TestHost, config: &str) -> Self {
        let sinks = sinks(&configs(config), &host.path().join("dead-letters")).unwrap();
        host.sinks = sinks.iter().map(|sink| sink.name.clone()).collect();
        let statuses = sinks.iter().map(|sink| (sink.name.clone(), sink.status())).collect();
        let ledger = host.start().unwrap();
        let client = ledger.client().clone();
        let edges = std::thread::spawn(move || crate::testing::block_on(run(sinks, client)));
        Self { ledger, statuses, edges }
    }

    pub(super) fn raise(&self, numbers: std::ops::Range<u64>) {
        self.ledger.commit(commit(numbers.map(alert)));
    }

    pub(super) fn report(&self, sink: &str) -> status::SinkReport {
        self.statuses[sink].report()
    }

    /// Waits until a sink's alarm contains this text.
    pub(super) fn wait_for_alarm(&self, sink: &str, words: &str) {
        wait_until(&format!("the alarm says `{words}`"), || {
            self.report(sink).alarms.iter().any(|alarm| alarm.contains(words))
        });
    }

    /// Waits until a sink has nothing left to deliver, while it makes progress.
    pub(super) fn wait_until_delivered(&self, sink: &str) {
        let client = self.ledger.client();
        let cursor = || crate::testing::block_on(client.cursor(sink)).unwrap();
        let is_delivered = |cursor| {
            let next = crate::testing::block_on(client.read(cursor, 1, 1)).unwrap();
            next.is_empty() && client.report().alerts_in_log_only == 0
        };
        let mut last = cursor();
        while !is_delivered(last) {
            wait_until("more is delivered", || cursor() > last || is_delivered(last));
            last = cursor();
        }
    }

    pub(super) fn stop(self) {
        let Self { ledger, edges, .. } = self;
        let stopped = std::thread::spawn(|| ledger.stop());
        edges.join().unwrap();
        stopped.join().unwrap().unwrap();
    }
}

/// The sinks of a configuration file.
pub(super) fn configs(text: &str) -> Vec<Config> {
    #[derive(Deserialize)]
    struct File {
        sink: Vec<Config>,
    }
    toml::from_str::<File>(text).unwrap().sink
}

fn ids(numbers: std::ops::Range<u64>) -> Vec<String> {
    numbers.map(id).collect()
}

/// A webhook to the receiver that is tried again soon, with these further lines.
fn hook(lines: &str) -> String {
    format!(
        "[[sink]]\ntype = \"webhook\"\nname = \"hook\"\nurl = \"http://127.0.0.1:8080/in\"\n\
         retry_delay_max = \"50ms\"\n{lines}\n"
    )
}

/// The ids of the alerts in JSON arrays, in order.
fn ids_in(bodies: &[String]) -> Vec<String> {
    let alerts = bodies.iter().flat_map(|body| serde_json::from_str::<Vec<serde_json::Value>>(body).unwrap());
    alerts.map(|alert| alert["event"]["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn alerts_from_an_upstream_outage_are_delivered_in_order() {
    private_network();
    let mut host = TestHost::new();
    let agent = Agent::start(&mut host, &hook("batch.count_max = 7"));
    agent.raise(0..20);
    agent.wait_for_alarm("hook", "http://127.0.0.1:8080 cannot be reached: Connection refused");
    assert_eq!(agent.report("hook").delivered, 0);
    agent.stop();
    let agent = Agent::start(&mut host, &hook("batch.count_max = 7"));
    agent.raise(20..30);
    let receiver = Receiver::start(host.path()).unwrap();
    agent.wait_until_delivered("hook");
    assert_eq!(ids_in(&receiver.taken().unwrap()), ids(0..30));
    let report = agent.report("hook");
    assert!(
        report.alarms.is_empty() && report.last_success.is_some() && report.delivered == 30,
        "{report:?}"
    );
    agent.stop();
    // Nothing is sent twice after a regular stop.
    let agent = Agent::start(&mut host, &hook(""));
    agent.raise(30..31);
    agent.wait_until_delivered("hook");
    assert_eq!(ids_in(&receiver.taken().unwrap()), ids(0..31));
    agent.stop();
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn the_spool_is_delivered_when_the_agent_stops() {
    private_network();
    let mut host = TestHost::new();
    let receiver = Receiver::start(host.path()).unwrap();
    let agent = Agent::start(&mut host, &hook("batch.count_max = 1"));
    agent.raise(0..50);
    agent.stop();
    assert_eq!(ids_in(&receiver.taken().unwrap()), ids(0..50));
}

/// A sink that does not answer delays neither the alert log nor another sink.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_sink_that_hangs_holds_up_no_other() {
    private_network();
    let mut host = TestHost::new();
    let receiver = Receiver::start(host.path()).unwrap();
    // It accepts connections and never answers.
    let _silent = std::net::TcpListener::bind("127.0.0.1:9999").unwrap();
    let silent = hook("http.timeout = \"1h\"").replace("\"hook\"", "\"silent\"").replace(":8080", ":9999");
    let agent = Agent::start(&mut host, &(hook("") + &silent));
    for number in 0..500 {
        agent.raise(number..number + 1);
    }
    agent.wait_until_delivered("hook");
    assert_eq!(ids_in(&receiver.taken().unwrap()), ids(0..500));
    assert_eq!(agent.report("silent").delivered, 0);
    assert_eq!(agent.ledger.client().report().alerts_spooled, 500, "they are kept for the silent one");
    agent.stop();
}

#[test]
fn invalid_configurations_are_rejected_in_a_sentence() {
    let webhook =
        |lines: &str| format!("type = \"webhook\"\nname = \"hook\"\nurl = \"https://host/x\"\n{lines}");
    let elastic = |lines: &str| {
        format!("type = \"elasticsearch\"\nname = \"siem\"\nurls = [\"https://host\"]\n{lines}")
    };
    for (config, expected) in [
        (webhook("").replace("\"hook\"", "\"ho ok\""), "`sink.name` is `ho ok`; it must be"),
        (webhook("template = \"{{ alert.message\""), "the template cannot be read"),
        (webhook("template = '{\"text\": \"{{ alert.message }}\"}'"), "do not put it between quotes"),
        (webhook("template = \"{}\"\nformat = \"json\""), "are mutually exclusive"),
        (webhook("template_file = \"/does/not/exist\""), "cannot read /does/not/exist"),
        (webhook("bearer = \"x\"\nusername = \"y\""), "`bearer` and `username` are mutually exclusive"),
        (webhook("http.key_file = \"/k\""), "`http.certificate_file` and `http.key_file` go together"),
        (webhook("http.headers = { \"b ad\" = \"x\" }"), "`b ad` is not a header name"),
        (webhook("http.proxy = \"::\""), "`::` is not a proxy URL"),
        (elastic("index = \"Logs\""), "`index` is `Logs`; the name of a data stream or index is lower case"),
        (elastic("username = \"x\""), "`username` and `password` must be set together"),
        (elastic("").replace("\"https://host\"", ""), "`urls` must hold the URL of at least one node"),
        (elastic("").replace("https://host", "https://u:p@host"), "`urls` must not hold a password"),
    ] {
        let config: Config = toml::from_str(&config).unwrap_or_else(|error| panic!("{config}: {error}"));
        let error = format!("{:#}", Sink::new(&config, Path::new("/")).err().unwrap());
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
    }
    for (config, expected) in [
        (webhook("colour = \"red\""), "unknown field `colour`"),
        (webhook("retry_delay_max = \"soon\""), "`soon` must be a length of time"),
        (elastic("api_key = { path = \"/x\" }"), "must be a text, or `{ file"),
        (
            elastic("").replace("elasticsearch", "kafka"),
            "unknown variant `kafka`, expected `elasticsearch` or `webhook`",
        ),
    ] {
        let error = toml::from_str::<Config>(&config).err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let twice = configs(&hook("").repeat(2));
    let error = sinks(&twice, Path::new("/")).err().unwrap().to_string();
    assert!(error.starts_with("two sinks have the name `hook`"), "{error}");
}
