//! A rejected alert is dead-lettered and the others are delivered; errors of upstream are reported.

use std::fs;

use jiff::{Timestamp, ToSpan as _};
use lapwing_stage::servers::{Receiver, private_network};
use lapwing_stage::trail::{Trail, key_upload};
use lapwing_stage::{Agent, until};
use serde_json::{Value as Json, json};

use crate::{PATIENCE, UPLOAD, of, settings};

const HOOK: &str = r#"
[[sink]]
type = "webhook"
name = "hook"
url = "http://127.0.0.1:8080/in"
batch.count_max = 1
retry_delay_max = "50ms"
"#;

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_rejected_alert_is_dead_lettered_and_the_others_are_delivered() {
    private_network().expect("a network of its own");
    let trail = Trail::new().expect("a trail");
    fs::remove_file(trail.places()).expect("a database");
    let folder = tempfile::tempdir().expect("a folder");
    let mut agent = Agent::start(settings(&trail, HOOK)).expect("an agent");
    let sink = |agent: &Agent| agent.status().map(|status| status["sinks"][0].clone());
    let deliver = |name: &str, minutes: i64| {
        trail.deliver(name, &[key_upload(Timestamp::now() - minutes.minutes())]).expect("a file");
    };
    deliver("first", 3);
    let alarm = until("an alarm", PATIENCE, || {
        Ok(Some(sink(&agent)?["alarms"].to_string()).filter(|alarms| alarms.contains("cannot be reached")))
    });
    alarm.expect("an alarm while upstream is down");

    deliver("second", 2);
    deliver("third", 1);
    until("three alerts", PATIENCE, || Ok((sink(&agent)?["waiting"] == 3).then_some(())))
        .expect("three alerts");
    let receiver = Receiver::start(folder.path()).expect("a receiver");
    // The first alert is sent alone, and is rejected as it is and in its smaller forms: the fault may be the receiver's. Then it
    // is rejected while others are accepted.
    let mut answers = vec![json!({"status": 400, "body": "no"}); 6];
    answers.insert(0, json!({"status": 401}));
    receiver.answer(answers).expect("answers");
    let delivered = until("two deliveries", PATIENCE, || Ok((sink(&agent)?["delivered"] == 2).then_some(())));
    delivered.unwrap_or_else(|error| panic!("{error:#}: {:?}\n{}", sink(&agent), agent.log()));
    agent.stop().expect("an end");

    let id = |alert: &Json| alert["event"]["id"].clone();
    let alerts: Vec<_> = of(&agent, UPLOAD).iter().map(id).collect();
    let aside = fs::read_to_string(agent.folder().join("state/dead-letters/hook.ndjson")).expect("a file");
    let letter: Json = serde_json::from_str(&aside).expect("one line");
    assert_eq!(id(&letter["alert"]), alerts[0]);
    assert!(letter["reason"].as_str().is_some_and(|reason| reason.contains("400")), "{letter}");
    let taken = receiver.taken().expect("what was taken").join("\n");
    let taken: Vec<_> = taken.lines().map(|body| serde_json::from_str::<Json>(body).expect("JSON")).collect();
    assert_eq!(taken.iter().map(|batch| id(&batch[0])).collect::<Vec<_>>(), alerts[1..]);
}
