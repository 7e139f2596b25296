//! Queues that tell of new objects: a message is received, its objects are fetched and handed to the source, and it
//! is deleted when the alerts from all of them are on disk.
//!
//! While a message is worked on it stays hidden from others. One that cannot be worked off is left to the queue,
//! whose redrive policy decides what becomes of it. Trouble with access or network is no fault of a message, so
//! it is held and tried again for [`HOLD`], lest the redrive policy take it for a bad one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lapwing_engine::{Fields, field};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::aws::{self, AwsError, Client};
use super::config::QueueConfig;
use super::notification::{self, Object};
use super::s3::{Body, Buckets, FetchError};
use super::status::Status;
use super::{Control, Message, tree};

/// Most messages of one queue that are worked on at once.
const MESSAGES_IN_FLIGHT_MAX: usize = 4;
/// Most objects of all queues that are fetched and wait to be read.
const OBJECTS_WAITING_MAX: usize = 2;
/// How long a queue holds a request when it has no message, in seconds: the longest that SQS allows.
const POLL_SECS: u32 = 20;
/// The pause after an answer without messages, for an endpoint that does not hold requests as it should.
const EMPTY_PAUSE: Duration = Duration::from_millis(200);
/// How long a message is held when its object cannot be fetched, before it is left to the queue.
const HOLD: Duration = Duration::from_secs(900);
/// How often a message that cannot be worked off raises an alarm; after that it is only logged.
const TRIES_MAX: u32 = 5;
/// The shortest and the longest pause between two tries.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

/// An object that was fetched.
pub(crate) struct Delivery {
    /// Its bytes.
    pub(crate) body: Body,
    /// Fields that tell where an event was read.
    pub(crate) origin: Arc<Fields>,
    /// Its name for people, `s3://bucket/key`.
    pub(crate) name: String,
    /// What is to be called when what was in it is safe.
    pub(crate) receipt: Receipt,
}

/// A message's claim on one of its objects. Dropped without [`Receipt::done`], the message is left to the queue.
pub(crate) struct Receipt {
    done: oneshot::Sender<()>,
    /// Held while the object waits to be read and is read, to bound how many do.
    _waiting: OwnedSemaphorePermit,
}

impl Receipt {
    /// All alerts from the object are on disk.
    pub(crate) fn done(self) {
        // A task that does not listen any more has given the message back.
        let _ = self.done.send(());
    }
}

/// The tasks of all queues.
pub(crate) struct Queues {
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Queues {
    /// Starts a task for each queue on `runtime`.
    pub(super) fn start(
        configs: &[QueueConfig],
        source: &Control,
        directory: &Path,
        status: &Arc<Status>,
        runtime: &tokio::runtime::Handle,
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        let waiting = Arc::new(Semaphore::new(OBJECTS_WAITING_MAX));
        let start = |config: &QueueConfig| {
            let queue = Starting {
                config: config.clone(),
                source: source.clone(),
                directory: directory.to_owned(),
                status: Arc::clone(status),
                waiting: Arc::clone(&waiting),
                stopped: stopped.clone(),
            };
            runtime.spawn(queue.run())
        };
        Self { stop, tasks: configs.iter().map(start).collect() }
    }

    /// No message is received any more; what is under way ends.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Ends when every message is deleted or given back.
    pub(crate) fn ended(&mut self) -> impl Future<Output = ()> + Send + 'static {
        let tasks = std::mem::take(&mut self.tasks);
        async move {
            for task in tasks {
                // A task that panicked has ended too.
                let _ = task.await;
            }
        }
    }
}

/// A queue whose client is not made yet.
struct Starting {
    config: QueueConfig,
    source: Control,
    directory: PathBuf,
    status: Arc<Status>,
    waiting: Arc<Semaphore>,
    stopped: watch::Receiver<bool>,
}

impl Starting {
    async fn run(self) {
        let mut pause = Pause::default();
        let client = loop {
            match Client::new(&self.config).await {
                Ok(client) => break client,
                Err(error) => self.status.alarm(&self.config.url, &format!("{error:#}")),
            }
            if pause.wait(&self.stopped).await {
                return;
            }
        };
        let endpoint = self.config.endpoint.clone().or_else(|| origin(&self.config.url)).unwrap_or_default();
        let queue = Queue {
            buckets: Buckets::new(client.clone(), &self.config, &self.directory),
            client,
            endpoint,
            url: self.config.url.into(),
            visibility_secs: self.config.visibility_timeout_secs,
            poll_secs: self.config.poll_secs.unwrap_or(POLL_SECS),
            source: self.source,
            status: self.status,
            waiting: self.waiting,
            stopped: self.stopped,
        };
        queue.run().await;
    }
}

/// Scheme and host of a URL.
fn origin(url: &str) -> Option<String> {
    let (scheme, _) = url.split_once("://")?;
    Some(format!("{scheme}://{}", aws::host(url)?))
}

#[derive(Clone)]
struct Queue {
    client: Client,
    buckets: Buckets,
    endpoint: String,
    url: Arc<str>,
    visibility_secs: u32,
    poll_secs: u32,
    source: Control,
    status: Arc<Status>,
    waiting: Arc<Semaphore>,
    stopped: watch::Receiver<bool>,
}

#[derive(Deserialize)]
struct Received {
    #[serde(rename = "Messages", default)]
    messages: Vec<Letter>,
}

/// A message as it was received.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Letter {
    message_id: String,
    receipt_handle: String,
    body: String,
    #[serde(default)]
    attributes: Attributes,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Attributes {
    approximate_receive_count: Option<String>,
}

/// What became of a message.
enum Outcome {
    /// It is worked off and can be deleted.
    Done,
    /// The agent stops: it goes back at once.
    Released,
    /// It stays hidden until its time is over, for this reason.
    Left(String),
}

impl Queue {
    async fn run(self) {
        let mut working = JoinSet::new();
        let mut pause = Pause::default();
        while !*self.stopped.borrow() {
            while working.try_join_next().is_some() {}
            if working.len() >= MESSAGES_IN_FLIGHT_MAX {
                working.join_next().await;
                continue;
            }
            let mut stopped = self.stopped.clone();
            let received = tokio::select! {
                received = self.receive(MESSAGES_IN_FLIGHT_MAX - working.len()) => received,
                _ = stopped.wait_for(|stopped| *stopped) => break,
            };
            match received {
                Ok(letters) => {
                    self.status.well(&self.url);
                    pause = Pause::default();
                    if letters.is_empty() {
                        tokio::time::sleep(EMPTY_PAUSE).await;
                    }
                    for letter in letters {
                        working.spawn(self.clone().work(letter));
                    }
                }
                Err(error) => {
                    self.status.alarm(&self.url, &format!("{error:#}"));
                    if pause.wait(&self.stopped).await {
                        break;
                    }
                }
            }
        }
        while working.join_next().await.is_some() {}
    }

    async fn work(self, letter: Letter) {
        let outcome = tokio::select! {
            outcome = self.objects(&letter) => outcome,
            () = self.keep_hidden(&letter) => Outcome::Released,
        };
        let tries =
            letter.attributes.approximate_receive_count.as_deref().and_then(|count| count.parse().ok());
        let place = format!("message {} of {}", letter.message_id, self.url);
        match outcome {
            Outcome::Done => {
                self.delete(&letter).await;
                self.status.messages_done.one();
                self.status.well(&place);
            }
            // Where this fails the message shows again when its time is over.
            Outcome::Released => drop(self.hide(&letter, 0).await),
            Outcome::Left(reason) => {
                self.status.messages_left.one();
                match tries.unwrap_or(1_u32) {
                    1..=TRIES_MAX => self
                        .status
                        .alarm(&place, &format!("{reason}; it is left to the queue's redrive policy")),
                    tries => tracing::info!(
                        "cloudtrail: {place}: {reason}, seen {tries} times; give the queue a redrive policy"
                    ),
                }
            }
        }
    }

    /// Hands over a message's objects, and waits until what was in them is safe.
    async fn objects(&self, letter: &Letter) -> Outcome {
        let objects = match notification::objects(&letter.body) {
            Ok(objects) => objects,
            Err(reason) => return Outcome::Left(reason),
        };
        let mut receipts = Vec::new();
        for object in objects {
            if !tree::is_candidate(&Path::new("/").join(&object.key)) {
                self.status.objects_ignored.one();
                continue;
            }
            match self.hand_over(&object).await {
                Ok(Some(done)) => receipts.push(done),
                Ok(None) => {}
                Err(outcome) => return outcome,
            }
        }
        let mut broken = false;
        for done in receipts {
            broken |= done.await.is_err();
        }
        match (broken, *self.stopped.borrow()) {
            (false, _) => Outcome::Done,
            (true, true) => Outcome::Released,
            (true, false) => Outcome::Left("one of its objects is broken".to_owned()),
        }
    }

    /// Fetches an object and hands it to the source; `None` where it is gone.
    async fn hand_over(&self, object: &Object) -> Result<Option<oneshot::Receiver<()>>, Outcome> {
        let name = format!("s3://{}/{}", object.bucket, object.key);
        let mut stopped = self.stopped.clone();
        let permit = tokio::select! {
            permit = Arc::clone(&self.waiting).acquire_owned() => permit.map_err(|_| Outcome::Released)?,
            _ = stopped.wait_for(|stopped| *stopped) => return Err(Outcome::Released),
        };
        let Some(body) = self.fetch(object, &name).await? else {
            return Ok(None);
        };
        let mut origin = Fields::new();
        origin
            .set(field!("aws.s3.bucket.name"), object.bucket.as_str())
            .set(field!("aws.s3.object.key"), object.key.as_str());
        let (done, told) = oneshot::channel();
        let receipt = Receipt { done, _waiting: permit };
        let delivery = Delivery { body, origin: origin.into(), name, receipt };
        // A source that has ended drops the receipt, which `objects` sees.
        let _ = self.source.0.send(Message::Delivery(Box::new(delivery)));
        Ok(Some(told))
    }

    async fn fetch(&self, object: &Object, name: &str) -> Result<Option<Body>, Outcome> {
        let place = format!("s3://{}", object.bucket);
        let mut pause = Pause::default();
        let began = Instant::now();
        loop {
            match self.buckets.fetch(object).await {
                Ok(body) => {
                    self.status.well(&place);
                    return Ok(Some(body));
                }
                Err(FetchError::Gone) => {
                    self.status.objects_gone.one();
                    tracing::warn!("cloudtrail: {name} is gone from its bucket");
                    return Ok(None);
                }
                Err(FetchError::Never(reason)) => {
                    self.status.set_aside(name, &reason);
                    return Err(Outcome::Left(format!("{name}: {reason}")));
                }
                Err(FetchError::Later(reason)) => self.status.alarm(&place, &reason),
            }
            if began.elapsed() > HOLD {
                return Err(Outcome::Left(format!("{name} could not be fetched for {} s", HOLD.as_secs())));
            }
            if pause.wait(&self.stopped).await {
                return Err(Outcome::Released);
            }
        }
    }

    async fn receive(&self, most: usize) -> Result<Vec<Letter>> {
        let body = json!({"QueueUrl": &*self.url, "MaxNumberOfMessages": most, "WaitTimeSeconds": self.poll_secs,
            "VisibilityTimeout": self.visibility_secs, "MessageSystemAttributeNames": ["ApproximateReceiveCount"]});
        let answer = self.call("AmazonSQS.ReceiveMessage", &body).await?;
        let bytes = answer.bytes().await.map_err(AwsError::from)?;
        let received: Received =
            serde_json::from_slice(&bytes).context("the queue's answer is not understood")?;
        Ok(received.messages)
    }

    /// Extends the time for which a message is hidden, again and again.
    async fn keep_hidden(&self, letter: &Letter) {
        loop {
            tokio::time::sleep(Duration::from_secs(self.visibility_secs.into()) / 2).await;
            if let Err(error) = self.hide(letter, self.visibility_secs).await {
                tracing::warn!(
                    "cloudtrail: {}: a message cannot be kept hidden and may come twice: {error:#}",
                    self.url
                );
            }
        }
    }

    async fn hide(&self, letter: &Letter, secs: u32) -> Result<()> {
        let body = json!({"QueueUrl": &*self.url, "ReceiptHandle": letter.receipt_handle, "VisibilityTimeout": secs});
        self.call("AmazonSQS.ChangeMessageVisibility", &body).await.map(drop)
    }

    /// Deletes a message; one that cannot be deleted comes again, and nothing in it is told twice.
    async fn delete(&self, letter: &Letter) {
        let body = json!({"QueueUrl": &*self.url, "ReceiptHandle": letter.receipt_handle});
        let mut pause = Pause::default();
        while let Err(error) = self.call("AmazonSQS.DeleteMessage", &body).await {
            self.status.alarm(&self.url, &format!("{error:#}"));
            if pause.wait(&self.stopped).await {
                return;
            }
        }
    }

    async fn call(&self, target: &'static str, body: &serde_json::Value) -> Result<reqwest::Response> {
        let request = aws::json_request(&self.endpoint, target, body)?;
        Ok(self.client.send("sqs", self.client.region(), request).await?)
    }
}

/// Pauses that grow, with chance in them so that many agents do not ask at once.
struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(PAUSE.0)
    }
}

impl Pause {
    /// Pauses; whether the agent stops.
    async fn wait(&mut self, stopped: &watch::Receiver<bool>) -> bool {
        let mut stopped = stopped.clone();
        let pause = self.0.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.0 = (self.0 * 2).min(PAUSE.1);
        tokio::time::timeout(pause, stopped.wait_for(|stopped| *stopped)).await.is_ok()
    }
}
