//! One message of a queue: its objects are fetched and handed to the source, and it is deleted when the alerts from
//! all of them are on disk.
//!
//! While it is processed it stays hidden from other readers. One that cannot be processed is left to the queue and its
//! redrive policy. An access or network error is not the message's fault, so the message is held and retried for
//! [`HOLD`] before the redrive policy counts it as bad.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lapwing_engine::{Fields, field};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::inbox::{FetchedObject, Message, Receipt};
use super::notification::{self, Object};
use super::queue::{Queue, new_backoff, pause};
use super::s3::{Body, FetchError};
use super::tree;
use crate::terminal::escape;

/// How long a message is held when its object cannot be fetched, before it is left to the queue.
const HOLD: Duration = Duration::from_secs(900);
/// How often a message that cannot be processed raises an alarm; after that it is only logged.
const TRIES_MAX: u32 = 5;

/// A message as it was received.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct SqsMessage {
    message_id: String,
    /// By which this receipt of the message is hidden and deleted.
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

impl SqsMessage {
    /// Processes the message until it can be deleted, or cannot be processed.
    pub(crate) async fn work(self, queue: Queue) {
        let outcome = tokio::select! {
            outcome = self.objects(&queue) => outcome,
            () = queue.keep_hidden(&self.receipt_handle) => Outcome::Released,
        };
        let tries = self.attributes.approximate_receive_count.as_deref().and_then(|count| count.parse().ok());
        let tries = tries.unwrap_or(1_u32);
        let place = format!("a message of {}", queue.url);
        match outcome {
            Outcome::Done => {
                queue.delete(&self.receipt_handle).await;
                queue.status.messages_done.one();
                if tries > 1 {
                    queue.status.well(&place);
                }
            }
            // If this fails, the message becomes visible when its time is over.
            Outcome::Released => drop(queue.hide(&self.receipt_handle, 0).await),
            Outcome::Left(reason) => {
                queue.status.messages_left.one();
                let failure = format!("{} is left to the queue's redrive policy: {reason}", self.message_id);
                match tries {
                    ..=TRIES_MAX => queue.status.alarm(&place, &failure),
                    _ => tracing::info!("cloudtrail: {place}: {} (received {tries} times)", escape(&failure)),
                }
            }
        }
    }

    /// Hands over a message's objects, and waits until their alerts are on disk.
    async fn objects(&self, queue: &Queue) -> Outcome {
        let objects = match notification::objects(&self.body) {
            Ok(objects) => objects,
            Err(reason) => return Outcome::Left(reason),
        };
        let mut receipts = Vec::new();
        for object in objects {
            if !tree::is_candidate(&Path::new("/").join(&object.key)) {
                queue.status.objects_ignored.one();
                continue;
            }
            match hand_over(queue, &object).await {
                Ok(Some(done)) => receipts.push(done),
                Ok(None) => {}
                Err(outcome) => return outcome,
            }
        }
        let mut broken = false;
        for done in receipts {
            broken |= done.await.is_err();
        }
        match (broken, *queue.stopped.borrow()) {
            (false, _) => Outcome::Done,
            (true, true) => Outcome::Released,
            (true, false) => Outcome::Left("one of its objects is broken".to_owned()),
        }
    }
}

/// What became of a message.
enum Outcome {
    /// It is processed and can be deleted.
    Done,
    /// The agent stops: the message is returned at once.
    Released,
    /// It stays hidden until its time is over, for this reason.
    Left(String),
}

/// Fetches an object and hands it to the source; `None` where it is gone.
async fn hand_over(queue: &Queue, object: &Object) -> Result<Option<oneshot::Receiver<()>>, Outcome> {
    let name = format!("s3://{}/{}", object.bucket, object.key);
    let Some((body, waiting)) = fetch(queue, object, &name).await? else {
        return Ok(None);
    };
    let mut origin = Fields::new();
    origin
        .set(field!("aws.s3.bucket.name"), object.bucket.as_str())
        .set(field!("aws.s3.object.key"), object.key.as_str());
    let (done, finished) = oneshot::channel();
    let receipt = Receipt { done, _waiting: waiting };
    let delivery = FetchedObject { body, origin: origin.into(), name, receipt };
    // A source that has ended drops the receipt, which `objects` sees.
    let _ = queue.source.0.send(Message::FetchedObject(Box::new(delivery)));
    Ok(Some(finished))
}

/// Fetches an object, with its place among those that may wait to be read; `None` where it is gone.
async fn fetch(
    queue: &Queue,
    object: &Object,
    name: &str,
) -> Result<Option<(Body, OwnedSemaphorePermit)>, Outcome> {
    let place = format!("s3://{}", object.bucket);
    let mut backoff = new_backoff();
    let mut stopped = queue.stopped.clone();
    let began = Instant::now();
    loop {
        // Given back while it pauses, so that a bucket that denies access does not hold up the others.
        let waiting = tokio::select! {
            waiting = Arc::clone(&queue.waiting).acquire_owned() => waiting.map_err(|_| Outcome::Released)?,
            _ = stopped.wait_for(|stopped| *stopped) => return Err(Outcome::Released),
        };
        match queue.buckets.fetch(object).await {
            Ok(body) => {
                queue.status.well(&place);
                return Ok(Some((body, waiting)));
            }
            Err(FetchError::Gone) => {
                queue.status.objects_gone.one();
                tracing::warn!("cloudtrail: {} is gone from its bucket", escape(name));
                return Ok(None);
            }
            Err(FetchError::Never(reason)) => {
                queue.status.quarantined(name, &reason);
                return Err(Outcome::Left(format!("{name}: {reason}")));
            }
            Err(FetchError::Later(reason)) => queue.status.alarm(&place, &reason),
        }
        drop(waiting);
        if began.elapsed() > HOLD {
            return Err(Outcome::Left(format!("{name} could not be fetched for {} s", HOLD.as_secs())));
        }
        if pause(&mut backoff, &queue.stopped).await {
            return Err(Outcome::Released);
        }
    }
}
