//! `_bulk` against servers that speak it, with nginx before them for what they lack, and against answers that
//! no server here gives on demand.

use serde_json::{Value, json};

use super::*;
use lapwing_stage::servers::{self, certificates, curl, nginx, opensearch};

/// A sink that is tried again soon, to this URL, with these further lines.
fn siem(url: &str, lines: &str) -> String {
    format!(
        "[[sink]]\ntype = \"elasticsearch\"\nname = \"siem\"\nurls = [\"{url}\"]\nindex = \"alerts\"\n\
         retry_delay_max = \"50ms\"\n{lines}\n"
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

#[test]
fn alerts_are_created_once_each() {
    if !private_network() {
        return;
    }
    let _server = opensearch().unwrap();
    for (index, lines) in [("gzip", ""), ("plain", "gzip = false\nbatch.count_max = 3")] {
        let mut host = Host::new();
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
        wait_until("all is told as known", || agent.report("siem").known == 10);
        agent.wait_until_delivered("siem");
        assert_eq!(indexed(index), ids(0..11));
        assert!(agent.report("siem").alarms.is_empty());
        agent.stop();
    }
}

/// The template gives our alert its types, on a server that refuses what does not fit them; and an alert that
/// does not fit is set aside while the others go on.
#[test]
fn the_shipped_template_takes_our_alerts() {
    if !private_network() {
        return;
    }
    let _server = opensearch().unwrap();
    let mut template: Value =
        serde_json::from_str(include_str!("../../../../packaging/elasticsearch/index-template.json"))
            .unwrap();
    // This server has neither data streams nor pipelines, and here a value that does not fit is to be an
    // error.
    template.as_object_mut().unwrap().remove("data_stream");
    let settings = template["template"]["settings"].as_object_mut().unwrap();
    settings.remove("index.default_pipeline");
    settings.remove("index.mapping.ignore_malformed");
    let put = curl(&[
        "-XPUT",
        &format!("{DIRECT}/_index_template/lapwing"),
        "-H",
        "Content-Type: application/json",
        "-d",
        &template.to_string(),
    ])
    .unwrap();
    assert_eq!(put["acknowledged"], true, "{put}");
    let mut host = Host::new();
    let index = "logs-lapwing.alerts-default";
    let agent = Agent::start(&mut host, &siem(DIRECT, "").replace("\"alerts\"", &format!("{index:?}")));
    let mut wrong = crate::testing::reverse_shell();
    wrong["destination"]["ip"] = json!("not an address");
    let wrong = crate::testing::alert_of(1, &wrong.to_string());
    agent.ledger.commit(commit([alert(0), wrong, alert(2)]));
    agent.wait_until_delivered("siem");
    assert_eq!(indexed(index), [id(0), id(2)]);
    for (query, hits) in [
        ("event.severity:>=47", 2),
        ("destination.ip:\"203.0.113.0/24\"", 2),
        ("process.args:\"-c\"", 2),
        ("rule.name:\"Potential Reverse Shell via Suspicious Child Process\"", 2),
        ("lapwing.alert.events.process.pid:4242", 0),
    ] {
        let body = json!({"query": {"query_string": {"query": query}}}).to_string();
        let url = format!("{DIRECT}/{index}/_search");
        let found = curl(&[&url, "-H", "Content-Type: application/json", "-d", &body]).unwrap();
        assert_eq!(found["hits"]["total"]["value"], hits, "{query}: {found}");
    }
    let path = host.path().join("dead-letters/siem.ndjson");
    let line: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!((&line["alert"]["event"]["id"], &line["sink"]), (&json!(id(1)), &json!("siem")));
    assert!(line["reason"].as_str().unwrap().starts_with("400 mapper_parsing_exception: "), "{line}");
    agent.stop();
}

#[test]
fn a_data_stream_takes_them_too() {
    if !private_network() {
        return;
    }
    let mut host = Host::new();
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
fn a_proxy_with_tls_keys_and_limits_loses_nothing() {
    if !private_network() {
        return;
    }
    let _server = opensearch().unwrap();
    let mut host = Host::new();
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
    let start = |host: &mut Host| Agent::start(host, &siem(BEHIND_TLS, &lines));
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
    assert_eq!(indexed("alerts").len(), 42);
    let report = agent.report("siem");
    assert_eq!(report.set_aside, 1, "only what the proxy never takes: {report:?}");
    assert!(report.alarms[0].contains("larger than https://localhost:9443 takes (413"), "{report:?}");
    agent.stop();
    std::fs::copy(folder.join("other.pem"), &ca).unwrap();
    let agent = start(&mut host);
    agent.raise(43..44);
    agent.wait_for_alarm("siem", "UnknownIssuer; set `http.ca_file`");
    agent.stop();
}

#[test]
fn a_client_certificate_opens_the_door() {
    if !private_network() {
        return;
    }
    let _server = opensearch().unwrap();
    let mut host = Host::new();
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
fn the_next_node_is_tried() {
    if !private_network() {
        return;
    }
    let _server = opensearch().unwrap();
    let mut host = Host::new();
    let config =
        siem(DIRECT, "").replace("urls = [", "urls = [\"http://127.0.0.1:1\", \"http://127.0.0.1:2\", ");
    let agent = Agent::start(&mut host, &config);
    agent.raise(0..3);
    agent.wait_until_delivered("siem");
    assert_eq!(indexed("alerts"), ids(0..3));
    agent.stop();
}

/// What a cluster answers to three alerts, which of them are to be sent again, and how many are set aside.
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
        (
            "unmappable",
            bulk(&[ok(), error(400, "document_parsing_exception", "failed to parse"), busy()]),
            vec![2],
            1,
        ),
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
fn each_item_is_judged_by_itself() {
    if !private_network() {
        return;
    }
    for (name, answer, again, set_aside) in troubles() {
        let mut host = Host::new();
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
        assert!(report.set_aside == set_aside && report.retries > 0, "{name}: {report:?}");
        agent.stop();
    }
}
