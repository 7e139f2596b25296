//! moto, a server of AWS's interfaces from PyPI, which checks signatures and policies.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use lapwing_stage::pypi::{AWS, Environment};
use serde_json::{Value as Json, json};

use super::support::runtime;

pub(super) const REGION: &str = "eu-central-1";
/// The account that moto plays.
pub(super) const ACCOUNT: &str = "123456789012";

/// A server of its own for one test.
pub(super) struct Moto {
    server: Child,
    pub(super) url: String,
    http: reqwest::Client,
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Moto {
    /// Starts a server, which lets everyone do everything until [`Self::enforce`].
    pub(super) fn start() -> Self {
        let mut server = Command::new(Environment::install(AWS).unwrap().program("moto_server"))
            .args(["-H", "127.0.0.1", "-p", "0"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(server.stderr.take().unwrap()).lines();
        let url = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| Some(line.split_once("Running on ")?.1.to_owned()));
        // The server must not block on unread output.
        std::thread::spawn(move || lines.for_each(drop));
        let _ = rustls::crypto::ring::default_provider().install_default();
        let moto = Self { server, url: url.expect("moto prints its address"), http: reqwest::Client::new() };
        moto.open();
        moto
    }

    /// From now on signatures and policies are checked.
    pub(super) fn enforce(&self) {
        self.post("/moto-api/reset-auth", "0");
    }

    /// From now on everyone may do everything.
    pub(super) fn open(&self) {
        self.post("/moto-api/reset-auth", "inf");
    }

    fn post(&self, path: &str, body: &'static str) {
        let request = self.http.post(format!("{}{path}", self.url)).body(body);
        runtime().block_on(async { request.send().await.unwrap().error_for_status().unwrap() });
    }

    /// Sends an unsigned request to the interface of `service`.
    fn request_text(&self, service: &str, request: reqwest::RequestBuilder) -> String {
        let signed = format!(
            "AWS4-HMAC-SHA256 Credential=x/20260101/{REGION}/{service}/aws4_request, SignedHeaders=host, Signature=0"
        );
        runtime().block_on(async {
            let answer = request.header("authorization", signed).send().await.unwrap();
            let status = answer.status();
            let body = answer.text().await.unwrap();
            assert!(status.is_success(), "{service}: {status} {body}");
            body
        })
    }

    pub(super) fn sqs(&self, action: &str, body: &Json) -> Json {
        let request = self.http.post(&self.url).header("x-amz-target", format!("AmazonSQS.{action}"));
        let request = request.header("content-type", "application/x-amz-json-1.0").body(body.to_string());
        serde_json::from_str(&self.request_text("sqs", request)).unwrap_or_default()
    }

    /// Calls an interface that takes forms.
    pub(super) fn form(&self, service: &str, action: &str, parameters: &[(&str, &str)]) -> String {
        let mut body = format!("Action={action}");
        for (name, value) in parameters {
            body += &format!("&{name}={}", escaped(value));
        }
        let request = self.http.post(&self.url).header("content-type", "application/x-www-form-urlencoded");
        self.request_text(service, request.body(body))
    }

    pub(super) fn make_queue(&self, name: &str) -> String {
        let made =
            self.sqs("CreateQueue", &json!({"QueueName": name, "Attributes": {"VisibilityTimeout": "30"}}));
        made["QueueUrl"].as_str().unwrap().to_owned()
    }

    pub(super) fn queue_arn(name: &str) -> String {
        format!("arn:aws:sqs:{REGION}:{ACCOUNT}:{name}")
    }

    pub(super) fn send(&self, queue: &str, body: &str) {
        self.sqs("SendMessage", &json!({"QueueUrl": queue, "MessageBody": body}));
    }

    /// How many messages of a queue are visible, and how many hidden.
    pub(super) fn messages(&self, queue: &str) -> (u64, u64) {
        let names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"];
        let attributes = self.sqs("GetQueueAttributes", &json!({"QueueUrl": queue, "AttributeNames": names}));
        let number =
            |name| attributes["Attributes"][name].as_str().and_then(|text| text.parse().ok()).unwrap_or(0);
        (number(names[0]), number(names[1]))
    }

    pub(super) fn make_bucket(&self, name: &str) {
        let body = format!(
            "<CreateBucketConfiguration><LocationConstraint>{REGION}</LocationConstraint></CreateBucketConfiguration>"
        );
        self.request_text("s3", self.http.put(format!("{}/{name}", self.url)).body(body));
    }

    pub(super) fn put(&self, bucket: &str, key: &str, body: Vec<u8>) {
        self.request_text(
            "s3",
            self.http.put(format!("{}/{bucket}/{}", self.url, escaped(key).replace("%2F", "/"))).body(body),
        );
    }

    /// Lets a bucket announce new objects, by a `QueueConfiguration` or a `TopicConfiguration`.
    pub(super) fn notify(&self, bucket: &str, configuration: &str) {
        let body = format!("<NotificationConfiguration>{configuration}</NotificationConfiguration>");
        self.request_text("s3", self.http.put(format!("{}/{bucket}?notification", self.url)).body(body));
    }

    /// Creates a user with these policies and returns its key and secret.
    pub(super) fn make_user(&self, name: &str, allowed: &[&str]) -> (String, String) {
        self.form("iam", "CreateUser", &[("UserName", name)]);
        self.allow(name, allowed);
        let made = self.form("iam", "CreateAccessKey", &[("UserName", name)]);
        (element(&made, "AccessKeyId"), element(&made, "SecretAccessKey"))
    }

    /// Allows a user these actions.
    pub(super) fn allow(&self, user: &str, actions: &[&str]) {
        let policy = policy(actions);
        self.form(
            "iam",
            "PutUserPolicy",
            &[("UserName", user), ("PolicyName", "p"), ("PolicyDocument", &policy)],
        );
    }

    /// Makes a role that may do these actions, that a user may assume with an external id, and returns its ARN.
    pub(super) fn make_role(&self, name: &str, actions: &[&str], user: &str, external_id: &str) -> String {
        let trust = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole",
            "Principal": {"AWS": format!("arn:aws:iam::{ACCOUNT}:user/{user}")},
            "Condition": {"StringEquals": {"sts:ExternalId": external_id}}}]});
        self.form(
            "iam",
            "CreateRole",
            &[("RoleName", name), ("AssumeRolePolicyDocument", &trust.to_string())],
        );
        let policy = policy(actions);
        self.form(
            "iam",
            "PutRolePolicy",
            &[("RoleName", name), ("PolicyName", "p"), ("PolicyDocument", &policy)],
        );
        format!("arn:aws:iam::{ACCOUNT}:role/{name}")
    }

    /// Passing credentials of a role: key, secret and token.
    pub(super) fn assume(&self, role: &str) -> [String; 3] {
        let given = self.form("sts", "AssumeRole", &[("RoleArn", role), ("RoleSessionName", "s")]);
        ["AccessKeyId", "SecretAccessKey", "SessionToken"].map(|name| element(&given, name))
    }
}

/// The text of the first element of this name.
fn element(xml: &str, name: &str) -> String {
    let (_, rest) = xml.split_once(&format!("<{name}>")).unwrap();
    rest.split_once('<').unwrap().0.to_owned()
}

fn policy(actions: &[&str]) -> String {
    json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}]})
        .to_string()
}

fn escaped(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}
