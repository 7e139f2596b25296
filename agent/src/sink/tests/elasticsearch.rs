//! `_bulk` against real servers, with nginx in front for what they lack, and against answers that no server here gives
//! on demand.

use serde_json::{Value, json};

use super::*;
use lapwing_stage::servers::{self, certificates, curl, nginx, opensearch};

/// A sink that is tried again soon, to this URL, with these further lines.
fn siem(url: &str, lines: &str) -> String {
    format!(
        "[[sink]]\ntype = \"elasticsearch\"\nname = \"siem\"\nurls = [\"{url}\"]\nindex = \"alerts\"\n\
         {}{lines}\n",
        if lines.contains("retry_delay_max") { "" } else { "retry_delay_max = \"50ms\"\n" }
    )
}

const DIRECT: &str = "http://127.0.0.1:9200";
const BEHIND_TLS: &str = "https://localhost:9443";

/// The ids in an index, sorted.
fn indexed(index: &str) -> Vec<String> {
    curl(&["-XPOST", &format!("{DIRECT}/_refresh")]).unwrap();
    let url = format!("{DIRECT}/{index}/_search?size=10000&_source=false");
    let mut ids: Vec<String> = curl(&[&url]).unwrap()["hits"]["hits"]
        .as_array()
        .unwrap()
        .iter()
        .map(|hit| hit["_id"].as_str().unwrap().to_owned())
        .collect();
    ids.sort();
    ids
}

/// Installs the shipped template for indices of these names. This server has neither data streams nor pipelines, and here
/// a value that does not fit is to be an error.
fn install_template(patterns: &[&str]) {
    let mut template: Value =
        serde_json::from_str(include_str!("../../../../packaging/elasticsearch/index-template.json"))
            .unwrap();
    template["index_patterns"] = json!(patterns);
    template.as_object_mut().unwrap().remove("data_stream");
    let settings = template["template"]["settings"].as_object_mut().unwrap();
    settings.remove("index.default_pipeline");
    settings.remove("index.mapping.ignore_malformed");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), template.to_string()).unwrap();
    let (url, body) = (format!("{DIRECT}/_index_template/lapwing"), format!("@{}", file.path().display()));
    let put = curl(&["-XPUT", &url, "-H", "Content-Type: application/json", "-d", &body]).unwrap();
    assert_eq!(put["acknowledged"], true, "{put}");
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn alerts_are_created_once_each() {
    private_network();
    let _server = opensearch().unwrap();
    install_template(&["gzip", "plain"]);
    for (index, lines) in [("gzip", ""), ("plain", "gzip = false\nbatch.count_max = 3")] {
        let mut host = TestHost::new();
        let config = siem(DIRECT, lines).replace("\"alerts\"", &format!("{index:?}"));
        let agent = Agent::start(&mut host, &config);
        agent.raise(0..10);
        agent.wait_until_delivered("siem");
        assert_eq!(indexed(index), ids(0..10));
        agent.stop();
        // As if it had crashed before it could acknowledge.
        std::fs::remove_dir_all(host.state_dir()).unwrap();
        let agent = Agent::start(&mut host, &config);
        agent.raise(10..11);
        wait_until("all are counted as already delivered", || agent.report("siem").already_delivered == 10);
        agent.wait_until_delivered("siem");
        assert_eq!(indexed(index), ids(0..11));
        assert!(agent.report("siem").alarms.is_empty());
        agent.stop();
    }
}

/// The template gives our alert its types, on a server that refuses what does not fit them; and an alert that
/// does not fit arrives in a smaller form.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn the_shipped_template_accepts_alerts() {
    private_network();
    let _server = opensearch().unwrap();
    let mut host = TestHost::new();
    let index = "logs-lapwing.alerts-default";
    let config = siem(DIRECT, "").replace("\"alerts\"", &format!("{index:?}"));
    install_template(&["logs-lapwing.alerts-*"]);
    let agent = Agent::start(&mut host, &config);
    let mut wrong = crate::testing::reverse_shell();
    wrong["destination"]["ip"] = json!("not an address");
    let wrong = crate::testing::alert_of(1, &wrong.to_string());
    agent.ledger.commit(commit([alert(0), wrong, alert(2)]));
    agent.wait_until_delivered("siem");
    assert_eq!(indexed(index), ids(0..3));
    let report = agent.report("siem");
    assert_eq!((report.delivered_smaller, report.dead_lettered), (1, 0), "{report:?}");
    for (query, hits) in [
        ("event.severity:>=47", 3),
        ("destination.ip:\"203.0.113.0/24\"", 2),
        ("process.args:\"-c\"", 2),
        ("rule.name:\"Potential Reverse Shell via Suspicious Child Process\"", 3),
        ("lapwing.alert.events.process.pid:4242", 0),
    ] {
        let body = json!({"query": {"query_string": {"query": query}}}).to_string();
        let url = format!("{DIRECT}/{index}/_search");
        let found = curl(&[&url, "-H", "Content-Type: application/json", "-d", &body]).unwrap();
        assert_eq!(found["hits"]["total"]["value"], hits, "{query}: {found}");
    }
    // User input: a term that is too long, and keys that contradict each other.
    let odd = |change: &dyn Fn(&mut Value), number: u64| {
        let mut alert = crate::testing::reverse_shell();
        change(&mut alert);
        crate::testing::alert_of(number, &alert.to_string())
    };
    let other = |json: Value| move |alert: &mut Value| alert["aws"]["cloudtrail"]["other"] = json.clone();
    agent.ledger.commit(commit([
        odd(&|alert| alert["lapwing"]["alert"]["new_terms"] = json!(["x".repeat(40_000)]), 3),
        odd(&|alert| alert["user"]["name"] = json!("x".repeat(40_000)), 4),
        odd(&other(json!({"team": "a", ".": 1, "a..b": 2, "": 3, " ": 4})), 5),
        odd(&other(json!({"team": {"name": 1}, "many": (0..3000).map(|n| (n.to_string(), n.into())).collect::<serde_json::Map<_, _>>()})), 6),
        odd(&other(json!({"team": [[{"x": 1}]]})), 7),
    ]));
    agent.wait_until_delivered("siem");
    assert_eq!(indexed(index), ids(0..8));
    let report = agent.report("siem");
    assert_eq!((report.delivered_smaller, report.waiting), (1, 0), "all as they are: {report:?}");
    agent.stop();
}

/// An index that was not made with the template is seen, and so is a template that is missing before the first alert
/// makes an index without it.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn the_target_index_is_checked() {
    private_network();
    let _server = opensearch().unwrap();
    let mut host = TestHost::new();
    let agent = Agent::start(&mut host, &siem(DIRECT, ""));
    agent.raise(0..1);
    agent.wait_until_delivered("siem");
    agent.stop();
    let sink = |index: &str| {
        let config = siem(DIRECT, "").replace("\"alerts\"", &format!("{index:?}"));
        sinks(&configs(&config), host.path()).unwrap().remove(0)
    };
    let error = sink("alerts").check_target().unwrap_err().to_string();
    assert!(error.contains("`alerts` was not made with the index template of this version"), "{error}");
    let agent = Agent::start(&mut TestHost::at(host.path()), &siem(DIRECT, ""));
    agent.raise(1..2);
    agent.wait_for_alarm("siem", "was not made with the index template");
    agent.wait_until_delivered("siem");
    agent.stop();
    install_template(&["other*"]);
    sink("other").check_target().unwrap();
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_data_stream_accepts_alerts_too() {
    private_network();
    let mut host = TestHost::new();
    let _server = servers::elasticsearch(&host.path().join("data")).unwrap();
    let put = |path: &str, file: &str| {
        let answer =
            curl(&["-XPUT", &format!("{DIRECT}/{path}"), "-H", "Content-Type: application/json", "-d", file])
                .unwrap();
        assert_eq!(answer["acknowledged"], true, "{path}: {answer}");
    };
    put(
        "_ingest/pipeline/lapwing-alerts",
        include_str!("../../../../packaging/elasticsearch/ingest-pipeline.json"),
    );
    put(
        "_index_template/lapwing-alerts",
        include_str!("../../../../packaging/elasticsearch/index-template.json"),
    );
    let config = siem(DIRECT, "").replace("index = \"alerts\"\n", "");
    let agent = Agent::start(&mut host, &config);
    agent.raise(0..5);
    agent.wait_until_delivered("siem");
    assert_eq!(indexed("logs-lapwing.alerts-default"), ids(0..5));
    let found = curl(&[&format!("{DIRECT}/logs-lapwing.alerts-default/_search?size=1")]).unwrap();
    assert!(found["hits"]["hits"][0]["_source"]["event"]["ingested"].is_string(), "{found}");
    agent.stop();
}

/// TLS by a certificate authority of one's own, an API key, a limit of size and one of rate, as a proxy
/// enforces them.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_proxy_with_tls_keys_and_limits_loses_nothing() {
    private_network();
    let _server = opensearch().unwrap();
    let mut host = TestHost::new();
    let folder = host.path().to_owned();
    certificates(&folder).unwrap();
    let _proxy = nginx(
        &folder,
        "map $http_authorization $denied { default 1; 'ApiKey aWQ6a2V5' 0; }
         limit_req_zone $server_name zone=z:1m rate=20r/s; limit_req_status 429;
         server { listen 127.0.0.1:9443 ssl; ssl_certificate server.pem; ssl_certificate_key server.key;
           client_max_body_size 30k; limit_req zone=z burst=2 nodelay;
           location / { if ($denied) { return 401 'no such key'; } proxy_pass http://127.0.0.1:9200; } }",
    )
    .unwrap();
    let (key, ca) = (folder.join("key"), folder.join("trusted.pem"));
    let lines = format!("api_key = {{ file = {key:?} }}\ngzip = false\nhttp.ca_file = {ca:?}");
    let start = |host: &mut TestHost| Agent::start(host, &siem(BEHIND_TLS, &lines));
    let agent = start(&mut host);
    agent.raise(0..40);
    agent.wait_for_alarm("siem", "`http.ca_file`: cannot read");
    std::fs::copy(folder.join("ca.pem"), &ca).unwrap();
    agent.wait_for_alarm("siem", "key: No such file or directory");
    std::fs::write(&key, "id:wrong\n").unwrap();
    agent.wait_for_alarm("siem", "https://localhost:9443 answers 401: no such key; check the credentials");
    std::fs::write(&key, "id:key\n").unwrap();
    agent.wait_until_delivered("siem");
    assert_eq!(indexed("alerts"), ids(0..40));
    let mut large = crate::testing::reverse_shell();
    large["process"]["command_line"] = "x".repeat(40_000).into();
    agent.ledger.commit(commit([alert(40), crate::testing::alert_of(41, &large.to_string()), alert(42)]));
    agent.wait_until_delivered("siem");
    assert_eq!(indexed("alerts"), ids(0..43), "what is too large for the proxy arrives in a smaller form");
    let report = agent.report("siem");
    assert_eq!((report.dead_lettered, report.delivered_smaller), (0, 1), "{report:?}");
    agent.stop();
    std::fs::copy(folder.join("other.pem"), &ca).unwrap();
    let agent = start(&mut host);
    agent.raise(43..44);
    agent.wait_for_alarm("siem", "UnknownIssuer; set `http.ca_file`");
    agent.stop();
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_client_certificate_authenticates_the_sink() {
    private_network();
    let _server = opensearch().unwrap();
    let mut host = TestHost::new();
    let folder = host.path().to_owned();
    certificates(&folder).unwrap();
    let _proxy = nginx(
        &folder,
        "server { listen 127.0.0.1:9443 ssl; ssl_certificate server.pem; ssl_certificate_key server.key;
           ssl_client_certificate ca.pem; ssl_verify_client on;
           location / { proxy_pass http://127.0.0.1:9200; } }",
    )
    .unwrap();
    let lines = format!("http.ca_file = {:?}", folder.join("ca.pem"));
    let agent = Agent::start(&mut host, &siem(BEHIND_TLS, &lines));
    agent.raise(0..1);
    agent.wait_for_alarm("siem", "answers 400: ");
    agent.stop();
    let own = format!(
        "{lines}\nhttp.certificate_file = {:?}\nhttp.key_file = {:?}",
        folder.join("client.pem"),
        folder.join("client.key")
    );
    let agent = Agent::start(&mut host, &siem(BEHIND_TLS, &own));
    agent.wait_until_delivered("siem");
    assert_eq!(indexed("alerts"), ids(0..1));
    agent.stop();
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn the_next_node_is_tried() {
    private_network();
    let _server = opensearch().unwrap();
    let mut host = TestHost::new();
    let config =
        siem(DIRECT, "").replace("urls = [", "urls = [\"http://127.0.0.1:1\", \"http://127.0.0.1:2\", ");
    let agent = Agent::start(&mut host, &config);
    agent.raise(0..3);
    agent.wait_until_delivered("siem");
    assert_eq!(indexed("alerts"), ids(0..3));
    agent.stop();
}

/// What a cluster answers to three alerts, which of them are to be sent again, and how many are dead-lettered.
fn troubles() -> Vec<(&'static str, Value, Vec<u64>, u64)> {
    let ok = || (201, Value::Null);
    let error = |status: u64, kind: &str, reason: &str| (status, json!({"type": kind, "reason": reason}));
    let busy =
        || error(429, "es_rejected_execution_exception", "rejected execution of coordinating operation");
    let first = |status, kind, reason| bulk(&[error(status, kind, reason), ok(), ok()]);
    vec![
        ("busy", bulk(&[ok(), busy(), busy()]), vec![1, 2], 0),
        ("conflict", bulk(&[error(409, "version_conflict_engine_exception", ""), ok(), busy()]), vec![2], 0),
        ("unavailable", first(503, "unavailable_shards_exception", ""), vec![0], 0),
        ("blocked", bulk(&[ok(), error(403, "cluster_block_exception", ""), ok()]), vec![1], 0),
        ("no permission", first(403, "security_exception", ""), vec![0], 0),
        ("no index", first(404, "index_not_found_exception", ""), vec![0], 0),
        (
            "no pipeline",
            first(400, "illegal_argument_exception", "pipeline with id [x] does not"),
            vec![0],
            0,
        ),
        ("too many shards", first(400, "validation_exception", "this cluster currently has"), vec![0], 0),
        ("no bulk answer", json!({"status": 200, "body": "<html>Please log in</html>"}), vec![0, 1, 2], 0),
        ("too few items", bulk(&[ok()]), vec![0, 1, 2], 0),
        ("whole request", json!({"status": 503, "body": "{}"}), vec![0, 1, 2], 0),
        ("whole request refused", json!({"status": 400, "body": "{}"}), vec![0, 1, 2], 0),
    ]
}

/// An answer to `_bulk` with these items.
fn bulk(items: &[(u64, Value)]) -> Value {
    let create = |(status, error): &(u64, Value)| json!({"create": {"status": status, "error": error}});
    let items: Vec<_> = items.iter().map(create).collect();
    json!({"status": 200, "body": json!({"errors": true, "items": items}).to_string()})
}

/// Answers of clusters in trouble, as documented; no server here can be brought to give them. After each the
/// cluster takes everything, and what was sent then must be what was not taken before.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn each_item_has_its_own_verdict() {
    private_network();
    for (name, answer, again, dead_lettered) in troubles() {
        let mut host = TestHost::new();
        let receiver = Receiver::start(host.path()).unwrap();
        receiver.answer([answer, bulk(&vec![(201, Value::Null); again.len()])]).unwrap();
        let url = "http://127.0.0.1:8080/base/";
        let agent = Agent::start(&mut host, &siem(url, "gzip = false\npipeline = \"p q\""));
        agent.raise(0..3);
        agent.wait_until_delivered("siem");
        let requests = receiver.requests().unwrap();
        assert_eq!(requests.len(), 2, "{name}");
        let query = "filter_path=items.*.status%2Citems.*.error&pipeline=p+q";
        assert_eq!(requests[0].line(), format!("POST /base/alerts/_bulk?{query}"));
        let body = requests[1].body().unwrap();
        let operations: Vec<Value> =
            body.lines().step_by(2).map(|line| serde_json::from_str(line).unwrap()).collect();
        let expected: Vec<_> = again.iter().map(|number| json!({"create": {"_id": id(*number)}})).collect();
        assert_eq!(operations, expected, "{name}");
        let report = agent.report("siem");
        assert!(report.dead_lettered == dead_lettered && report.retries > 0, "{name}: {report:?}");
        agent.stop();
    }
}

/// A receiver that answers so, and a sink to it.
fn scripted(host: &mut TestHost, answers: Vec<Value>, lines: &str) -> (Agent, Receiver) {
    let receiver = Receiver::start(host.path()).unwrap();
    receiver.answer(answers).unwrap();
    let config = siem("http://127.0.0.1:8080", &format!("gzip = false\n{lines}"));
    (Agent::start(host, &config), receiver)
}

fn ok() -> (u64, Value) {
    (201, Value::Null)
}

fn refused(reason: &str) -> (u64, Value) {
    (400, json!({"type": "illegal_argument_exception", "reason": reason}))
}

/// The ids and the forms of the alerts in each request.
fn sent(receiver: &Receiver) -> Vec<Vec<(String, String)>> {
    let of = |body: String| {
        let lines = body.lines().skip(1).step_by(2).map(|line| serde_json::from_str::<Value>(line).unwrap());
        let text = |json: &Value| json.as_str().unwrap_or("whole").to_owned();
        lines.map(|alert| (text(&alert["event"]["id"]), text(&alert["lapwing"]["alert"]["form"]))).collect()
    };
    receiver.requests().unwrap().iter().map(|request| of(request.body().unwrap())).collect()
}

fn forms(number: u64, names: &[&str]) -> Vec<Vec<(String, String)>> {
    names.iter().map(|name| vec![(id(number), (*name).to_owned())]).collect()
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_rejected_alert_is_sent_in_a_smaller_form() {
    private_network();
    for (reason, forms_sent) in
        [("no", &["reduced", "minimal"][..]), ("Limit of total fields [9] has", &["reduced"])]
    {
        let mut host = TestHost::new();
        let mut answers = vec![bulk(&[ok(), refused(reason), ok()])];
        answers.extend(forms_sent.iter().skip(1).map(|_| bulk(&[refused(reason)])));
        answers.push(bulk(&[ok()]));
        let (agent, receiver) = scripted(&mut host, answers, "");
        agent.raise(0..3);
        agent.wait_until_delivered("siem");
        assert_eq!(sent(&receiver)[1..], forms(1, forms_sent));
        let report = agent.report("siem");
        assert_eq!(
            (report.delivered, report.delivered_smaller, report.dead_lettered),
            (3, 1, 0),
            "{report:?}"
        );
        assert!(report.alarms[0].contains(&format!("because of: 400 illegal_argument_exception: {reason}")));
        agent.stop();
    }
}

/// Dead letters survive a restart and can be sent again.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn an_alert_rejected_in_every_form_is_dead_lettered_and_sent_again() {
    private_network();
    let mut host = TestHost::new();
    let refuse = || bulk(&[refused("no")]);
    let answers = vec![bulk(&[ok(), refused("no"), ok()]), refuse(), refuse()];
    let (agent, receiver) = scripted(&mut host, answers, "");
    agent.raise(0..3);
    agent.wait_until_delivered("siem");
    let report = agent.report("siem");
    assert_eq!((report.delivered, report.dead_lettered, report.waiting), (2, 1, 0), "{report:?}");
    agent.stop();
    let config = siem("http://127.0.0.1:8080", "gzip = false");
    let agent = Agent::start(&mut host, &config);
    wait_until("it is counted", || agent.report("siem").dead_lettered == 1);
    assert!(agent.report("siem").alarms[0].contains("`lapwing sink retry siem` sends them again"));
    receiver.answer([bulk(&[ok()])]).unwrap();
    assert_eq!(retry(&host.path().join("dead-letters"), "siem").unwrap(), 1);
    wait_until("it is sent again", || agent.report("siem").delivered == 1);
    wait_until("nothing is left", || {
        agent.report("siem").dead_lettered == 0 && agent.report("siem").alarms.is_empty()
    });
    assert_eq!(sent(&receiver).last(), forms(1, &["whole"]).last());
    agent.stop();
    assert_eq!(std::fs::read_dir(host.path().join("dead-letters")).unwrap().count(), 0);
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_cluster_that_refuses_everything_is_an_outage() {
    private_network();
    let mut host = TestHost::new();
    let none = bulk(&[refused("no"), refused("no"), refused("no")]);
    let mut answers = vec![none; 6];
    answers.push(bulk(&[ok(), ok(), ok()]));
    let (agent, receiver) = scripted(&mut host, answers, "");
    agent.raise(0..3);
    agent.wait_until_delivered("siem");
    let report = agent.report("siem");
    assert_eq!((report.delivered, report.delivered_smaller, report.dead_lettered), (3, 0, 0), "{report:?}");
    assert_eq!(sent(&receiver).last().unwrap().iter().filter(|(_, form)| form == "whole").count(), 3);
    agent.stop();
}

/// One alert on which something upstream fails each time; later ones pass, and it is not forgotten.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn an_alert_that_always_fails_lets_later_ones_pass() {
    private_network();
    let mut host = TestHost::new();
    let fails = || (503, json!({"type": "x", "reason": "the pipeline failed"}));
    let answers = vec![bulk(&[ok(), fails(), ok()]), bulk(&[fails()]), bulk(&[fails()]), bulk(&[ok(), ok()])];
    // Long enough that it is not tried again here.
    let (agent, receiver) = scripted(&mut host, answers, "retry_delay_max = \"4s\"");
    agent.raise(0..3);
    wait_until("it waits alone", || agent.report("siem").waiting_alone == 1);
    agent.raise(3..5);
    wait_until("later ones pass", || agent.report("siem").delivered == 4);
    let report = agent.report("siem");
    assert_eq!((report.waiting, report.waiting_alone, report.dead_lettered), (0, 1, 0), "{report:?}");
    assert!(
        report.alarms.iter().any(|alarm| alarm.contains("1 alerts fail while others are taken")),
        "{report:?}"
    );
    agent.stop();
    receiver.answer([bulk(&[ok()])]).unwrap();
    let agent = Agent::start(&mut host, &siem("http://127.0.0.1:8080", "gzip = false"));
    wait_until("it is delivered", || agent.report("siem").delivered == 1);
    assert_eq!(sent(&receiver).last(), forms(1, &["whole"]).last());
    wait_until("nothing is left", || agent.report("siem").waiting_alone == 0);
    agent.stop();
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_request_that_is_too_large_now_is_halved() {
    private_network();
    let mut host = TestHost::new();
    let much = json!({"status": 429, "body": r#"{"error":{"type":"circuit_breaking_exception","reason":"Data too large"}}"#});
    let (agent, receiver) = scripted(&mut host, vec![much, bulk(&[ok(), ok()]), bulk(&[ok(), ok()])], "");
    agent.raise(0..4);
    agent.wait_until_delivered("siem");
    assert_eq!(sent(&receiver).iter().map(Vec::len).collect::<Vec<_>>(), [4, 2, 2]);
    agent.stop();
}

#[test]
fn dropped_dead_letters_are_counted_across_restarts() {
    let folder = tempfile::TempDir::new().unwrap();
    let config = dead_letter::Config { size_max: ByteSize::kib(8) };
    let mut letters = dead_letter::DeadLetters::open(folder.path(), "siem", &config);
    for number in 0..100 {
        let alert = Spooled {
            sequence: 1,
            id: id(number),
            json: json!({"event": {"id": id(number)}}).to_string().into(),
        };
        letters.write(&alert, "no").unwrap();
        assert_eq!(letters.count + letters.dropped, number + 1);
    }
    assert!(letters.count < 60 && letters.dropped > 40, "{} {}", letters.count, letters.dropped);
    let again = dead_letter::DeadLetters::open(folder.path(), "siem", &config);
    assert_eq!((again.count, again.dropped), (letters.count, letters.dropped));
}
