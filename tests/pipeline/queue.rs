//! Objects in S3 that an SQS queue announces: both rules for CloudTrail fire. The server implements AWS's APIs and is set up
//! by the AWS command line.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use jiff::Timestamp;
use lapwing_stage::pypi::{AWS, Environment};
use lapwing_stage::trail::{self, Trail, key_upload, rare_call};
use lapwing_stage::{Agent, Settings, skipped, until};
use serde_json::{Value as Json, json};

use crate::{PATIENCE, RARE, UPLOAD, of, settings};

const REGION: &str = "eu-central-1";
const BUCKET: &str = "trail";

/// A server with AWS's APIs, and the command line for it.
struct Cloud {
    environment: Environment,
    server: Child,
    url: String,
}

impl Cloud {
    fn start(environment: Environment) -> Self {
        let mut server = Command::new(environment.program("moto_server"))
            .args(["-H", "127.0.0.1", "-p", "0"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("moto");
        let mut lines = BufReader::new(server.stderr.take().expect("a pipe")).lines();
        let printed = lines.by_ref().map_while(Result::ok);
        let url = printed.filter_map(|line| Some(line.split_once("Running on ")?.1.to_owned())).next();
        // The server must not block on unread output.
        std::thread::spawn(move || lines.for_each(drop));
        Self { environment, server, url: url.expect("the address of moto") }
    }

    /// The response to the AWS command line.
    fn aws(&self, arguments: &[&str]) -> Json {
        let mut command = Command::new(self.environment.program("aws"));
        command.args(["--endpoint-url", &self.url, "--region", REGION, "--output", "json"]).args(arguments);
        let output = command.envs(credentials()).output().expect("aws");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    fn put(&self, file: &Path, key: &str) {
        let to = format!("s3://{BUCKET}/{key}");
        self.aws(&["s3", "cp", "--only-show-errors", &file.display().to_string(), &to]);
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn credentials() -> Vec<(&'static str, String)> {
    [("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test"), ("AWS_EC2_METADATA_DISABLED", "true")]
        .map(|(name, value)| (name, value.to_owned()))
        .into()
}

#[test]
fn a_rare_call_and_a_key_upload_fire_from_objects_in_s3() {
    let environment = match Environment::install(AWS) {
        Ok(environment) => environment,
        Err(error) => return skipped(&format!("moto cannot be installed: {error:#}")),
    };
    let cloud = Cloud::start(environment);
    let queue = cloud.aws(&["sqs", "create-queue", "--queue-name", "trail"]);
    let queue = queue["QueueUrl"].as_str().expect("a queue").to_owned();
    let location = format!("LocationConstraint={REGION}");
    cloud.aws(&["s3api", "create-bucket", "--bucket", BUCKET, "--create-bucket-configuration", &location]);
    let arn = format!("arn:aws:sqs:{REGION}:123456789012:trail");
    let printed =
        json!({"QueueConfigurations": [{"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}]}).to_string();
    let notify = ["s3api", "put-bucket-notification-configuration", "--bucket", BUCKET];
    cloud.aws(&[&notify[..], &["--notification-configuration", &printed]].concat());

    let trail = Trail::new().expect("a trail");
    let url = &cloud.url;
    // A request of a killed agent may still receive a message, which is visible again after this time.
    let configuration = format!(
        "cloudtrail.queue = [{{ url = \"{queue}\", region = \"{REGION}\", visibility_timeout = \"10s\", \
         endpoint = \"{url}\", s3_endpoint = \"{url}\" }}]"
    );
    let settings = settings(&trail, &configuration);
    let mut agent = Agent::start(Settings { environment: credentials(), ..settings }).expect("an agent");
    let object = trail.places().with_file_name("object");
    let now = Timestamp::now();
    let records = [rare_call(now), vec![key_upload(now)]].concat();
    std::fs::write(&object, trail::gzip(&trail::file(&records)).expect("gzip")).expect("a file");
    let key = trail::key(now, "x");
    cloud.put(&object, &key);
    for rule in [RARE, UPLOAD] {
        agent.wait_for_within(rule, 0, PATIENCE, |alert| alert.rule() == rule).expect("an alert");
    }
    // The same object announced again, before and after a kill, is read once.
    wait_for_duplicates(&agent, &cloud, &object, &key);
    agent.kill().expect("an end");
    agent.start_again().expect("a start");
    wait_for_duplicates(&agent, &cloud, &object, &key);
    agent.stop().expect("an end");
    assert_eq!((of(&agent, RARE).len(), of(&agent, UPLOAD).len()), (1, 1));
    let alert = &of(&agent, UPLOAD)[0];
    assert_eq!(alert["aws"]["s3"]["object"]["key"], key.as_str(), "{alert}");
}

/// Adds an object that was read before, and waits until the agent has recognised its records.
fn wait_for_duplicates(agent: &Agent, cloud: &Cloud, object: &Path, key: &str) {
    cloud.put(object, key);
    let duplicates = || agent.status().map(|status| status["lanes"][0]["source"]["duplicates"].clone());
    let known = until("what is known", PATIENCE, || Ok((duplicates()? != 0).then_some(())));
    known.unwrap_or_else(|error| panic!("{error:#}: {}", agent.log()));
}
