//! Queues that announce new objects: their messages are received, a few at a time, and each has a task of its own. What a
//! message means is in `sqs_message`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::aws::{AwsError, Client};
use super::aws_host;
use super::config::QueueConfig;
use super::inbox::Control;
use super::queue::{Queue, new_backoff, pause};
use super::s3::Buckets;
use super::sqs_message::SqsMessage;
use super::status::SourceStatus;

/// Most messages of one queue that are worked on at once.
const MESSAGES_IN_FLIGHT_MAX: usize = 4;
/// Most objects of all queues that are fetched and wait to be read.
const OBJECTS_WAITING_MAX: usize = 2;
/// How long a queue holds a request when it has no message, in seconds: the longest that SQS allows.
const POLL_SECS: u32 = 20;
/// The pause after an answer without messages, for an endpoint without long polling.
const EMPTY_PAUSE: Duration = Duration::from_millis(200);

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
        status: &Arc<SourceStatus>,
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

    /// Stops receiving messages; running work is finished.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Ends when every message is deleted or returned.
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

/// A queue whose client is not built yet.
struct Starting {
    config: QueueConfig,
    source: Control,
    directory: PathBuf,
    status: Arc<SourceStatus>,
    waiting: Arc<Semaphore>,
    stopped: watch::Receiver<bool>,
}

impl Starting {
    async fn run(self) {
        let mut backoff = new_backoff();
        let client = loop {
            match Client::new(&self.config).await {
                Ok(client) => break client,
                Err(error) => self.status.alarm(&self.config.url, &format!("{error:#}")),
            }
            if pause(&mut backoff, &self.stopped).await {
                return;
            }
        };
        let endpoint = self.config.endpoint.clone().or_else(|| origin(&self.config.url)).unwrap_or_default();
        let queue = Queue {
            buckets: Buckets::new(client.clone(), &self.config, &self.directory),
            client,
            endpoint,
            url: self.config.url.into(),
            visibility_secs: self.config.visibility_timeout.as_secs(),
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
    Some(format!("{scheme}://{}", aws_host::host(url)?))
}

#[derive(Deserialize)]
struct Received {
    #[serde(rename = "Messages", default)]
    messages: Vec<SqsMessage>,
}

impl Queue {
    async fn run(self) {
        let mut working = JoinSet::new();
        let mut backoff = new_backoff();
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
                Ok(messages) => {
                    self.status.well(&self.url);
                    backoff.reset();
                    if messages.is_empty() {
                        tokio::time::sleep(EMPTY_PAUSE).await;
                    }
                    for message in messages {
                        working.spawn(message.work(self.clone()));
                    }
                }
                Err(error) => {
                    self.status.alarm(&self.url, &format!("{error:#}"));
                    if pause(&mut backoff, &self.stopped).await {
                        break;
                    }
                }
            }
        }
        while working.join_next().await.is_some() {}
    }

    async fn receive(&self, most: usize) -> Result<Vec<SqsMessage>> {
        let body = json!({"QueueUrl": &*self.url, "MaxNumberOfMessages": most, "WaitTimeSeconds": self.poll_secs,
            "VisibilityTimeout": self.visibility_secs, "MessageSystemAttributeNames": ["ApproximateReceiveCount"]});
        let answer = self.call("AmazonSQS.ReceiveMessage", &body).await?;
        let bytes = answer.bytes().await.map_err(AwsError::from)?;
        let received: Received =
            serde_json::from_slice(&bytes).context("cannot parse the queue's response")?;
        Ok(received.messages)
    }
}
