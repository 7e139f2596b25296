//! Files of a trail: read in every form, each record once, across restarts, with the same alerts as a replay.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use jiff::Timestamp;
use lapwing_stage::trail::{self, Trail, key_upload, rare_call};
use lapwing_stage::{Agent, Settings, until};
use serde_json::{Value as Json, json};

use crate::{PATIENCE, RARE, UPLOAD, agent, ids, of, replay, settings};

/// A key upload that is like no other.
fn upload(number: u32) -> Json {
    let mut record = key_upload(Timestamp::now());
    record["eventID"] = format!("{number:08x}-0000-4000-8000-000000000000").into();
    record
}

/// Waits until the log has this many alerts about key uploads.
fn wait_for_uploads(agent: &Agent, count: usize) {
    let found = until("key uploads", PATIENCE, || Ok((of(agent, UPLOAD).len() >= count).then_some(())));
    found
        .unwrap_or_else(|error| panic!("{error:#}: {} of {count}\n{}", of(agent, UPLOAD).len(), agent.log()));
}

fn source(agent: &Agent) -> Json {
    agent.status().expect("a status")["lanes"][0]["source"].clone()
}

fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new().create(true).append(true).open(path).expect("a file");
    file.write_all(text.as_bytes()).expect("a text");
}

#[test]
fn every_form_of_file_is_read_once_and_a_broken_one_is_quarantined() {
    let trail = Trail::new().expect("a trail");
    let root = trail.folder();
    let mut agent = agent(&trail);
    trail.deliver("first", &[upload(1)]).expect("a compressed file in the folder of its day");
    trail.put(&root.join("plain.json"), &trail::file(&[upload(2), upload(3)])).expect("a plain file");
    wait_for_uploads(&agent, 3);

    // A file that grows, and for a while ends inside a record.
    let growing = root.join("growing.ndjson");
    let line = format!("{}\n", upload(4));
    append(&growing, &line[..100]);
    trail.put(&root.join("broken.json.gz"), b"this is not gzip").expect("a broken file");
    trail.put(&root.join("no_record.json"), b"{\"Records\": [{\"eventVersion\": 1}]}").expect("a file");
    trail.deliver("later", &[upload(5)]).expect("a file");
    wait_for_uploads(&agent, 4);
    append(&growing, &line[100..]);
    append(&growing, &format!("{}\n", upload(6)));
    wait_for_uploads(&agent, 6);
    let printed = source(&agent);
    assert_eq!((&printed["files_quarantined"], &printed["records"]), (&json!(2), &json!(6)), "{printed}");
    let log = agent.log();
    for words in [
        "broken.json.gz is refused and quarantined: ",
        "no_record.json is refused and quarantined: one of its records is refused: ",
    ] {
        assert!(log.contains(words), "{words}: {log}");
    }

    // After a stop and a kill nothing is repeated: neither what was read, nor a copy of it in another file.
    agent.stop().expect("an end");
    append(&growing, &format!("{}\n", upload(7)));
    agent.start_again().expect("a start");
    wait_for_uploads(&agent, 7);
    agent.kill().expect("an end");
    trail.deliver("again", &[upload(1), upload(8)]).expect("a file");
    agent.start_again().expect("a start");
    wait_for_uploads(&agent, 8);
    assert_eq!(source(&agent)["duplicates"], 1);
    agent.stop().expect("an end");
    assert_eq!(of(&agent, UPLOAD).len(), 8);
}

#[test]
fn a_rare_call_and_a_key_upload_fire_live_and_in_a_replay() {
    let trail = Trail::new().expect("a trail");
    let mut agent = agent(&trail);
    let mut records = rare_call(Timestamp::now());
    records.push(key_upload(Timestamp::now()));
    trail.deliver("calls", &records).expect("a file");
    agent.wait_for_within("a rare call", 0, PATIENCE, |alert| alert.rule() == RARE).expect("an alert");
    agent.wait_for_within("an upload", 0, PATIENCE, |alert| alert.rule() == UPLOAD).expect("an alert");
    agent.stop().expect("an end");
    let rare = of(&agent, RARE);
    assert_eq!((rare.len(), of(&agent, UPLOAD).len()), (1, 1));
    let anomaly = &rare[0]["lapwing"]["alert"]["anomaly"];
    assert_eq!((&anomaly["by_value"], &anomaly["partition_value"]), (&json!("StopLogging"), &json!("DE")));
    assert_eq!(rare[0]["source"]["geo"]["country_iso_code"], "DE");

    let alerts: Vec<_> = agent.alerts().expect("the log").into_iter().map(|alert| alert.document).collect();
    let lines: String = records.iter().map(|record| format!("{record}\n")).collect();
    let array = Json::from(records.clone()).to_string();
    let document = String::from_utf8(trail::file(&records)).expect("text");
    for recording in [lines, array, document] {
        assert_eq!(ids(&replay(&agent, &recording)), ids(&alerts));
    }
    let file = trail.folder().join("written.json.gz");
    fs::write(&file, trail::gzip(&trail::file(&records)).expect("gzip")).expect("a file");
    let replayed = agent.command("replay").arg("--json").arg(&file).output().expect("lapwing replay");
    assert!(replayed.status.success(), "{replayed:?}");
    let text = String::from_utf8(replayed.stdout).expect("text");
    let replayed: Vec<Json> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(ids(&replayed), ids(&alerts));
}

#[test]
fn rules_that_need_a_geoip_database_are_reported_at_the_start() {
    let trail = Trail::new().expect("a trail");
    fs::remove_file(trail.places()).expect("a database");
    let none = format!("sensor.enabled = false\ncloudtrail.folders = [\"{}\"]\n", trail.folder().display());
    let gone = settings(&trail, "");
    for (configuration, why) in
        [(none, "set `cloudtrail.geoip`"), (gone.configuration.clone(), "places.mmdb")]
    {
        let agent = Agent::start(Settings { configuration, ..gone.clone() }).expect("an agent");
        trail.deliver("key", &[upload(1)]).expect("a file");
        wait_for_uploads(&agent, 1);
        let log = agent.log();
        let words = format!("rule \"{RARE}\" cannot run: ");
        let line = log.lines().find(|line| line.contains(&words)).unwrap_or_else(|| panic!("{log}"));
        assert!(line.contains(why), "{line}");
    }
}
