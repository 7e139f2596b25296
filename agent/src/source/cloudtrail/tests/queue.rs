//! Queues and objects, against a real server that checks signatures and policies.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::json;

use super::super::config::{Config, QueueConfig};
use super::moto::{ACCOUNT, Moto, REGION};
use super::support::{Bench, file, gzip, lines};

const QUEUE_ACTIONS: &[&str] = &["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility"];
const ALL_ACTIONS: &[&str] =
    &["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility", "s3:GetObject"];

fn config(moto: &Moto, url: &str, environment: &[(&str, &str)]) -> QueueConfig {
    let text = format!(
        "url = '{url}'\nregion = '{REGION}'\nendpoint = '{0}'\ns3_endpoint = '{0}'\nsts_endpoint = '{0}'",
        moto.url
    );
    let environment =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    // Requests do not wait, because one that is cancelled when a test stops the source would receive a message and hide
    // it.
    QueueConfig { environment: Some(environment), poll_secs: Some(0), ..toml::from_str(&text).unwrap() }
}

fn bench(queue: QueueConfig) -> Bench {
    Bench::new(Config { queue: vec![queue], ..Config::default() })
}

/// A server with a bucket, a queue, and a user that may do these actions.
fn setup(actions: &[&str]) -> (Moto, String, QueueConfig) {
    let moto = Moto::start();
    moto.make_bucket("logs");
    let queue = moto.make_queue("trail");
    let (id, secret) = moto.make_user("sensor", actions);
    let config = config(&moto, &queue, &[("AWS_ACCESS_KEY_ID", &id), ("AWS_SECRET_ACCESS_KEY", &secret)]);
    (moto, queue, config)
}

/// S3's notification of a new object.
fn notification(key: &str) -> String {
    json!({"Records": [{"eventSource": "aws:s3", "awsRegion": REGION, "eventName": "ObjectCreated:Put",
        "s3": {"bucket": {"name": "logs"}, "object": {"key": key}}}]})
    .to_string()
}

/// Waits until a queue holds this many visible and hidden messages, while the source works.
fn until_queue(moto: &Moto, bench: &mut Bench, queue: &str, expected: (u64, u64)) {
    moto.open();
    bench.until(&format!("a queue with {expected:?}"), |_| moto.messages(queue) == expected);
}

#[test]
fn objects_are_read_by_every_kind_of_notification() {
    let (moto, queue, config) = setup(ALL_ACTIONS);
    let topic = format!("arn:aws:sns:{REGION}:{ACCOUNT}:new");
    moto.form("sns", "CreateTopic", &[("Name", "new")]);
    moto.form(
        "sns",
        "Subscribe",
        &[("TopicArn", &topic), ("Protocol", "sqs"), ("Endpoint", &Moto::queue_arn("trail"))],
    );
    let event = "<Event>s3:ObjectCreated:*</Event>";
    // S3 notifies the queue directly, and for another bucket a topic that the queue has subscribed to.
    moto.notify(
        "logs",
        &format!(
            "<QueueConfiguration><Queue>{}</Queue>{event}</QueueConfiguration>",
            Moto::queue_arn("trail")
        ),
    );
    moto.make_bucket("more");
    moto.notify("more", &format!("<TopicConfiguration><Topic>{topic}</Topic>{event}</TopicConfiguration>"));
    moto.put("logs", "AWSLogs/1/CloudTrail/eu-central-1/2026/11/21/a b+c.json.gz", gzip(&file(0..3)));
    moto.put("more", "b.json", file(3..6));
    moto.put("more", "vpcflowlogs/x.log.gz", vec![0; 10]);
    moto.put("logs", "AWSLogs/1/CloudTrail-Digest/x.json.gz", vec![0; 10]);
    moto.put("logs", "c.json.gz", gzip(&file(6..9)));
    let bridge = json!({"version": "0", "source": "aws.s3", "detail-type": "Object Created", "region": REGION,
        "detail": {"bucket": {"name": "logs"}, "object": {"key": "c.json.gz"}}});
    moto.send(&queue, &bridge.to_string());
    moto.send(&queue, &json!({"s3Bucket": "logs", "s3ObjectKey": ["c.json.gz", "b.json"]}).to_string());
    moto.enforce();
    let mut bench = bench(config);
    bench.expect(0..9);
    until_queue(&moto, &mut bench, &queue, (0, 0));
    let report = bench.report();
    assert_eq!((report.duplicates, report.objects_ignored, report.objects_gone), (6, 2, 1), "{report:?}");
    assert_eq!((report.messages_left, report.alarms.len()), (0, 0), "{report:?}");
}

#[test]
fn a_message_is_deleted_only_when_its_alerts_are_durable() {
    let (moto, queue, config) = setup(ALL_ACTIONS);
    // Long enough to be copied to disk, and for several batches.
    moto.put("logs", "long.json", lines(0..6_000, true));
    moto.send(&queue, &notification("long.json"));
    moto.enforce();
    let mut bench = bench(config);
    bench.hold = true;
    bench.until("all events", |bench| {
        bench.held.iter().map(|batch| batch.events.len()).sum::<usize>() == 6_000
    });
    bench.settle();
    moto.open();
    assert_eq!(moto.messages(&queue), (0, 1), "hidden, not deleted");
    bench.hold = false;
    bench.commit();
    until_queue(&moto, &mut bench, &queue, (0, 0));
    bench.expect(0..6_000);
}

#[test]
fn a_message_stays_hidden_while_it_is_processed() {
    let (moto, queue, config) = setup(ALL_ACTIONS);
    moto.put("logs", "a.json", file(0..3));
    moto.send(&queue, &notification("a.json"));
    moto.enforce();
    let mut bench = bench(QueueConfig { visibility_timeout: Duration::from_secs(10), ..config });
    bench.hold = true;
    let until = Instant::now() + Duration::from_secs(13);
    bench.until("the end of the first time", |_| Instant::now() > until);
    moto.open();
    assert_eq!(moto.messages(&queue), (0, 1));
    assert_eq!(bench.report().duplicates, 0);
    bench.hold = false;
    bench.commit();
    until_queue(&moto, &mut bench, &queue, (0, 0));
}

#[test]
fn undurable_messages_are_returned_and_read_again() {
    let (moto, queue, config) = setup(ALL_ACTIONS);
    moto.put("logs", "a.json", file(0..300));
    moto.send(&queue, &notification("a.json"));
    let mut bench = bench(config);
    bench.hold = true;
    bench.until("some events", |bench| {
        !bench.held.is_empty() && bench.held.iter().any(|batch| !batch.events.is_empty())
    });
    // It never reaches the store; at the stop the message is returned at once.
    bench.held.clear();
    bench.stop();
    assert_eq!(moto.messages(&queue), (1, 0));
    bench.calls.clear();
    bench.store.clear();
    bench.hold = false;
    bench.restart();
    bench.expect(0..300);
    // Announced again, it is deduplicated.
    moto.send(&queue, &notification("a.json"));
    bench.until("duplicates", |bench| bench.report().duplicates == 300);
    bench.restart();
    moto.send(&queue, &notification("a.json"));
    bench.until("duplicates after a restart", |bench| bench.report().duplicates == 300);
    bench.expect(0..300);
}

#[test]
fn denied_access_is_an_alarm_and_no_loss() {
    let (moto, queue, config) = setup(QUEUE_ACTIONS);
    moto.put("logs", "a.json", file(0..3));
    moto.send(&queue, &notification("a.json"));
    moto.enforce();
    let mut bench = bench(config);
    bench.until("an alarm", |bench| bench.report().alarms.contains_key("s3://logs"));
    let alarm = bench.report().alarms["s3://logs"].clone();
    assert!(
        alarm.starts_with("S3: AccessDenied (status 403)") && alarm.contains("; allow s3:GetObject"),
        "{alarm}"
    );
    moto.open();
    assert_eq!(moto.messages(&queue), (0, 1), "it is held");
    moto.allow("sensor", ALL_ACTIONS);
    moto.enforce();
    bench.expect(0..3);
    until_queue(&moto, &mut bench, &queue, (0, 0));
    assert_eq!(bench.report().alarms.len(), 0);
}

#[test]
fn wrong_and_missing_credentials_are_reported_with_a_hint() {
    let moto = Moto::start();
    let queue = moto.make_queue("trail");
    let (id, _) = moto.make_user("sensor", ALL_ACTIONS);
    moto.enforce();
    let mut wrong =
        bench(config(&moto, &queue, &[("AWS_ACCESS_KEY_ID", &id), ("AWS_SECRET_ACCESS_KEY", "wrong")]));
    wrong.until("an alarm", |bench| !bench.report().alarms.is_empty());
    let alarm = wrong.report().alarms[&queue].clone();
    assert!(alarm.starts_with("SQS: SignatureDoesNotMatch (status 403)"), "{alarm}");
    let mut none = bench(config(&moto, &queue, &[("AWS_EC2_METADATA_DISABLED", "true")]));
    none.until("an alarm", |bench| !bench.report().alarms.is_empty());
    let alarm = none.report().alarms[&queue].clone();
    assert!(
        alarm.starts_with("no credentials") && alarm.contains("attach a role to the instance"),
        "{alarm}"
    );
    let mut gone = bench(config(
        &moto,
        &format!("{queue}-gone"),
        &[("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "y")],
    ));
    moto.open();
    gone.until("an alarm", |bench| {
        bench.report().alarms.values().any(|what| what.contains("check the queue's url"))
    });
}

#[test]
fn a_role_is_assumed_with_credentials_of_a_profile() {
    let moto = Moto::start();
    moto.make_bucket("logs");
    let queue = moto.make_queue("trail");
    let (id, secret) = moto.make_user("sensor", &["sts:AssumeRole"]);
    let role = moto.make_role("reader", ALL_ACTIONS, "sensor", "lapwing");
    moto.put("logs", "a.json", file(0..3));
    moto.send(&queue, &notification("a.json"));
    moto.enforce();
    let folder = tempfile::tempdir().unwrap();
    let credentials = folder.path().join("credentials");
    std::fs::write(
        &credentials,
        format!("[trail]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n"),
    )
    .unwrap();
    let environment =
        [("AWS_SHARED_CREDENTIALS_FILE", credentials.to_str().unwrap()), ("AWS_CONFIG_FILE", "/nonexistent")];
    let config = config(&moto, &queue, &environment);
    let role = QueueConfig {
        role_arn: Some(role),
        external_id: Some("lapwing".into()),
        profile: Some("trail".into()),
        ..config
    };
    let mut bench = bench(role);
    bench.expect(0..3);
    until_queue(&moto, &mut bench, &queue, (0, 0));
}

#[test]
fn invalid_messages_and_objects_are_left_and_the_rest_is_read() {
    let (moto, queue, config) = setup(ALL_ACTIONS);
    let mut broken = gzip(&file(0..50));
    let end = broken.len() - 20;
    broken.truncate(end);
    moto.put("logs", "broken.json.gz", broken);
    moto.put("logs", "good.json.gz", gzip(&file(100..103)));
    moto.send(&queue, "hello");
    moto.send(&queue, &notification("broken.json.gz"));
    moto.send(&queue, &notification("gone.json.gz"));
    moto.send(
        &queue,
        &json!({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "logs"}).to_string(),
    );
    moto.send(&queue, &notification("good.json.gz"));
    moto.enforce();
    let mut bench = bench(config);
    bench.until("good events", |bench| bench.calls.iter().filter(|call| call.len() == 7).count() == 3);
    bench.until("two messages left", |bench| bench.report().messages_left == 2);
    moto.open();
    until_queue(&moto, &mut bench, &queue, (0, 2));
    let report = bench.report();
    assert_eq!(
        (report.objects_gone, report.files_quarantined, report.messages_done),
        (1, 1, 3),
        "{report:?}"
    );
    let alarm = &report.alarms[&format!("a message of {queue}")];
    assert!(alarm.contains("is left to the queue's redrive policy: "), "{alarm}");
}

/// Answers as the instance metadata service does. A mock: moto's own leaves out `Code`, without which no client
/// takes its credentials.
fn metadata(answers: &'static [(&'static str, String)]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let length = stream.read(&mut request).unwrap();
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            let path = request.split(' ').nth(1).unwrap_or_default();
            // Version 1, without a token, is not spoken.
            let token = path == "/latest/api/token" || request.contains("x-aws-ec2-metadata-token: token");
            let body = answers.iter().find(|(of, _)| *of == path && token).map(|(_, body)| body.as_str());
            let (status, body) = body.map_or(("404 Not Found", ""), |body| ("200 OK", body));
            let head =
                format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
        }
    });
    format!("http://{address}")
}

#[test]
fn the_instance_gives_region_and_credentials() {
    let moto = Moto::start();
    moto.make_bucket("logs");
    let queue = moto.make_queue("trail");
    let role = moto.make_role("instance", ALL_ACTIONS, "nobody", "nothing");
    let [id, secret, token] = moto.assume(&role);
    moto.put("logs", "a.json", file(0..3));
    moto.send(&queue, &notification("a.json"));
    moto.enforce();
    let key = json!({"Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": id, "SecretAccessKey": secret, "Token": token,
        "LastUpdated": "2026-11-22T00:00:00Z", "Expiration": "2099-01-01T00:00:00Z"});
    let answers = vec![
        ("/latest/api/token", "token".to_owned()),
        ("/latest/meta-data/placement/region", REGION.to_owned()),
        ("/latest/meta-data/iam/security-credentials/", "role".to_owned()),
        ("/latest/meta-data/iam/security-credentials/role", key.to_string()),
    ];
    let endpoint = metadata(answers.leak());
    let config = config(&moto, &queue, &[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &endpoint)]);
    let mut bench = bench(QueueConfig { region: None, ..config });
    bench.expect(0..3);
}

#[test]
fn a_silent_metadata_service_is_reported_with_the_hop_limit() {
    let moto = Moto::start();
    let queue = moto.make_queue("trail");
    // Takes connections and never answers, as behind a hop limit that is too low.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let mut bench = bench(config(&moto, &queue, &[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &endpoint)]));
    let began = Instant::now();
    bench.until("an alarm", |bench| !bench.report().alarms.is_empty());
    let alarm = bench.report().alarms[&queue].clone();
    assert!(alarm.contains("--http-put-response-hop-limit 2"), "{alarm} after {:?}", began.elapsed());
}

#[test]
fn stopping_does_not_wait_for_the_queue() {
    let (_moto, _queue, config) = setup(ALL_ACTIONS);
    let mut bench = bench(config);
    bench.settle();
    let began = Instant::now();
    bench.stop();
    assert!(began.elapsed() < Duration::from_secs(15));
    assert_eq!(bench.store, HashMap::<(String, String), Vec<u8>>::new().into_iter().collect());
}
