//! What a webhook sends, and what becomes of each answer.

use serde_json::{Value, json};

use super::*;

fn agent(host: &mut TestHost, lines: &str) -> (Agent, Receiver) {
    let receiver = Receiver::start(host.path()).unwrap();
    (Agent::start(host, &hook(lines)), receiver)
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn bodies_have_the_form_that_is_configured() {
    private_network();
    let slack = r#"template = '''{"text": {{ ("*" ~ alert.message ~ "* on " ~ alert.host.name) }}, "who": {{ alert.process.args[0] }}, "port": {{ alert.destination.port }}, "no": {{ alert.dns.question.name }}, "n": {{ alerts | length }}}'''"#;
    let text = "template = '{% for alert in alerts %}{{ alert.message }} {{ alert.event.severity }};{% endfor %}'\ncontent_type = \"text/plain\"\nbatch.count_max = 9";
    let name = "Potential Reverse Shell via Suspicious Child Process";
    type Check = fn(&str, &str);
    let cases: [(&str, &str, usize, Check); 4] = [
        ("", "application/json", 1, |body, _| assert_eq!(ids_in(&[body.to_owned()]), ids(0..3))),
        ("format = \"ndjson\"\nmethod = \"put\"", "application/x-ndjson", 1, |body, _| {
            let read: Vec<_> = body.lines().map(|line| crate::testing::id_of(line.as_bytes())).collect();
            assert_eq!(read, ids(0..3));
        }),
        (slack, "application/json", 3, |body, name| {
            let expected = json!({"text": format!("*{name}* on ip-10-0-0-7"), "who": "python3", "port": 4444, "no": null, "n": 1});
            assert_eq!(serde_json::from_str::<Value>(body).unwrap(), expected);
        }),
        (text, "text/plain", 1, |body, name| assert_eq!(body, format!("{name} 47;").repeat(3))),
    ];
    for (lines, content_type, requests, check) in cases {
        let mut host = TestHost::new();
        let (agent, receiver) = agent(&mut host, lines);
        agent.raise(0..3);
        agent.wait_until_delivered("hook");
        let received = receiver.requests().unwrap();
        assert_eq!(received.len(), requests, "{lines}");
        let method = if lines.contains("put") { "PUT" } else { "POST" };
        assert_eq!(received[0].line(), format!("{method} /in"));
        assert_eq!(received[0].header("content-type"), Some(content_type));
        assert_eq!(received[0].header("user-agent"), Some(concat!("lapwing/", env!("CARGO_PKG_VERSION"))));
        check(&received[0].body().unwrap(), name);
        agent.stop();
    }
}

/// Whatever an attacker puts into an argument stays inside the text where the template puts it.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn hostile_values_cannot_leave_their_place_in_a_template() {
    private_network();
    let hostile = "\"}, \"text\": \"all is well\", {{ alert }} \u{1b}[31m \\ \u{202e} \0 </script>";
    let mut document = crate::testing::reverse_shell();
    document["process"]["args"] = json!([hostile]);
    let mut host = TestHost::new();
    let (agent, receiver) = agent(&mut host, "template = '{\"args\": {{ alert.process.args }}}'");
    agent.ledger.commit(commit([crate::testing::alert_of(1, &document.to_string())]));
    agent.wait_until_delivered("hook");
    let body: Value = serde_json::from_str(&receiver.taken().unwrap()[0]).unwrap();
    assert_eq!(body, json!({"args": [hostile]}));
    agent.stop();
}

/// The library that receivers use confirms the signature, and refuses one made with another key.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn signatures_are_those_of_standard_webhooks() {
    private_network();
    let mut host = TestHost::new();
    let key = "whsec_bGFwd2luZyBsYXB3aW5nIGxhcHdpbmch";
    std::fs::write(host.path().join("signing_key"), key).unwrap();
    std::fs::write(host.path().join("ours"), "whsec_d3JvbmcgbGFwd2luZyBsYXB3aW5nISEh").unwrap();
    let ours = format!("signing_key = {{ file = {:?} }}", host.path().join("ours"));
    let (agent, receiver) = agent(&mut host, &ours);
    agent.raise(0..2);
    agent.wait_for_alarm("hook", "answers 401: No matching signature found; check the credentials");
    // A key that was corrected is used without a restart.
    std::fs::write(host.path().join("ours"), format!("{key}\n")).unwrap();
    agent.wait_until_delivered("hook");
    assert_eq!(ids_in(&receiver.taken().unwrap()), ids(0..2));
    let requests = receiver.requests().unwrap();
    let sent: Vec<_> = requests.iter().map(|request| request.header("webhook-id")).collect();
    assert!(sent.windows(2).all(|pair| pair[0] == pair[1]), "a repetition keeps its id: {sent:?}");
    agent.stop();
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn headers_and_credentials_are_sent() {
    private_network();
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "hunter2\n").unwrap();
    for (lines, header, value) in [
        (format!("bearer = {{ file = {file:?} }}"), "authorization", "Bearer hunter2"),
        ("username = \"u\"\npassword = \"p\"".to_owned(), "authorization", "Basic dTpw"),
        (format!("http.headers = {{ X-Key = {{ file = {file:?} }}, X-Plain = \"1\" }}"), "x-key", "hunter2"),
    ] {
        let mut host = TestHost::new();
        let (agent, receiver) = agent(&mut host, &lines);
        agent.raise(0..1);
        agent.wait_until_delivered("hook");
        assert_eq!(receiver.requests().unwrap()[0].header(header), Some(value));
        agent.stop();
    }
}

/// Answers that say more about the receiver than about the alert: each is followed by a success, and nothing
/// is lost.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn transient_errors_are_retried() {
    private_network();
    for status in [301, 401, 403, 404, 405, 408, 410, 429, 500, 502, 503, 504] {
        let mut host = TestHost::new();
        let (agent, receiver) = agent(&mut host, "");
        receiver
            .answer([
                json!({"status": status}),
                json!({"status": status, "headers": {"location": "http://127.0.0.1:1/"}}),
            ])
            .unwrap();
        agent.raise(0..2);
        agent.wait_until_delivered("hook");
        assert_eq!(ids_in(&receiver.taken().unwrap()), ids(0..2), "{status}");
        let report = agent.report("hook");
        assert_eq!((report.delivered, report.retries, report.dead_lettered), (2, 2, 0), "{status}");
        agent.stop();
    }
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn retry_after_is_honoured() {
    private_network();
    let mut host = TestHost::new();
    let (agent, receiver) = agent(&mut host, "");
    receiver.answer([json!({"status": 429, "headers": {"retry-after": "1"}})]).unwrap();
    let begin = std::time::Instant::now();
    agent.raise(0..1);
    agent.wait_until_delivered("hook");
    assert!(begin.elapsed() >= Duration::from_secs(1));
    agent.stop();
}

/// Only an alert that is refused alone is dead-lettered; those that came with it are delivered.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_rejected_alert_is_dead_lettered_and_the_others_are_delivered() {
    private_network();
    for status in [400, 413, 422] {
        let mut host = TestHost::new();
        let (agent, receiver) = agent(&mut host, "");
        // Four alerts, then two of them, then the first alone, then two smaller forms of it; then it is dead-lettered.
        receiver.answer([(); 5].map(|()| json!({"status": status, "body": "bad\u{1b} field"}))).unwrap();
        agent.raise(0..4);
        agent.wait_until_delivered("hook");
        assert_eq!(ids_in(&receiver.taken().unwrap()), ids(1..4), "{status}");
        let path = host.path().join("dead-letters/hook.ndjson");
        let line: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(line["alert"]["event"]["id"], id(0));
        assert_eq!(line["reason"], format!("{status}: bad field"));
        let report = agent.report("hook");
        assert_eq!((report.delivered, report.dead_lettered), (3, 1));
        assert!(report.alarms[0].contains("upstream refused 1 alerts, which are in"), "{report:?}");
        agent.stop();
    }
}

/// What a host's processes are called with does not write into the chat.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_text_for_a_chat_has_no_mark_up() {
    private_network();
    let mut document = crate::testing::reverse_shell();
    document["lapwing"]["alert"]["reason"] =
        json!("<!channel> *all is well* <https://evil.example|here> @everyone [x](http://y)");
    let mut host = TestHost::new();
    let (agent, receiver) = agent(
        &mut host,
        "template = '{\"text\": {{ alert.lapwing.alert.reason | chat }}, \"no\": {{ alert.nothing | chat }}}'",
    );
    agent.ledger.commit(commit([crate::testing::alert_of(1, &document.to_string())]));
    agent.wait_until_delivered("hook");
    let body: Value = serde_json::from_str(&receiver.taken().unwrap()[0]).unwrap();
    let text = body["text"].as_str().unwrap();
    for marked in ["<", ">", "*all", "://", "@everyone", "[x]"] {
        assert!(!text.contains(marked), "{marked}: {text}");
    }
    assert!(text.contains("all is well"), "{text}");
    agent.stop();
}
