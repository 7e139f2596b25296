//! One queue: what can be done with its messages. [`queues`](super::queues) receives them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use tokio::sync::{Semaphore, watch};

use super::aws::{self, Client};
use super::inbox::Control;
use super::s3::Buckets;
use super::status::SourceStatus;
use crate::backoff::Backoff;

/// The longest delay before the first retry, and before any later one.
const DELAYS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

/// A queue, and what its messages are processed with.
#[derive(Clone)]
pub(crate) struct Queue {
    pub(super) client: Client,
    pub(super) endpoint: String,
    pub(super) visibility_secs: u64,
    pub(super) poll_secs: u32,
    /// The queue's URL.
    pub(crate) url: Arc<str>,
    /// The buckets, as the queue's identity sees them.
    pub(crate) buckets: Buckets,
    /// Where fetched objects go.
    pub(crate) source: Control,
    /// Counters and alarms.
    pub(crate) status: Arc<SourceStatus>,
    /// Places for objects that are fetched and wait to be read.
    pub(crate) waiting: Arc<Semaphore>,
    /// Whether the agent stops.
    pub(crate) stopped: watch::Receiver<bool>,
}

impl Queue {
    /// Extends the time for which a message is hidden, repeatedly.
    pub(crate) async fn keep_hidden(&self, receipt_handle: &str) {
        loop {
            tokio::time::sleep(Duration::from_secs(self.visibility_secs) / 2).await;
            if let Err(error) = self.hide(receipt_handle, self.visibility_secs).await {
                tracing::warn!(
                    "cloudtrail: {}: a message cannot be kept hidden and may come twice: {error:#}",
                    self.url
                );
            }
        }
    }

    /// Hides a message for so many seconds from now; for none, it shows at once.
    pub(crate) async fn hide(&self, receipt_handle: &str, secs: u64) -> Result<()> {
        let body =
            json!({"QueueUrl": &*self.url, "ReceiptHandle": receipt_handle, "VisibilityTimeout": secs});
        self.call("AmazonSQS.ChangeMessageVisibility", &body).await.map(drop)
    }

    /// Deletes a message. One that cannot be deleted comes again, and its records are deduplicated.
    pub(crate) async fn delete(&self, receipt_handle: &str) {
        let body = json!({"QueueUrl": &*self.url, "ReceiptHandle": receipt_handle});
        let mut backoff = new_backoff();
        while let Err(error) = self.call("AmazonSQS.DeleteMessage", &body).await {
            self.status.alarm(&self.url, &format!("{error:#}"));
            if pause(&mut backoff, &self.stopped).await {
                return;
            }
        }
    }

    pub(super) async fn call(
        &self,
        target: &'static str,
        body: &serde_json::Value,
    ) -> Result<reqwest::Response> {
        let request = aws::json_request(&self.endpoint, target, body)?;
        Ok(self.client.send("sqs", self.client.region(), request).await?)
    }
}

/// The delays between two attempts at a queue or a bucket.
pub(super) fn new_backoff() -> Backoff {
    Backoff::equal_jitter(DELAYS.0, DELAYS.1)
}

/// Waits for the next delay. Returns whether the agent stops.
pub(super) async fn pause(backoff: &mut Backoff, stopped: &watch::Receiver<bool>) -> bool {
    let mut stopped = stopped.clone();
    tokio::time::timeout(backoff.next(None), stopped.wait_for(|stopped| *stopped)).await.is_ok()
}
