//! What the source receives while it runs: fetched objects, reloads and the stop.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use lapwing_engine::Fields;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::s3::Body;

/// What the source receives from queues and from the agent.
pub(super) enum Message {
    /// An object of S3 is here to be read.
    FetchedObject(Box<FetchedObject>),
    /// The databases of places may have changed.
    Reload,
    /// The agent stops.
    Stop,
}

/// Sends to the source.
#[derive(Clone)]
pub(crate) struct Control(pub(super) Sender<Message>);

impl Control {
    /// The agent stops: the source hands over what it has and ends. It may be called twice.
    pub(crate) fn stop(&self) {
        // A source that has ended has no receiver.
        let _ = self.0.send(Message::Stop);
    }

    /// The configuration's files may have changed: the databases of places are looked at.
    pub(crate) fn reload(&self) {
        let _ = self.0.send(Message::Reload);
    }
}

/// An object that was fetched.
pub(crate) struct FetchedObject {
    /// Its bytes.
    pub(crate) body: Body,
    /// Fields that say where an event was read.
    pub(crate) origin: Arc<Fields>,
    /// Its name for people, `s3://bucket/key`.
    pub(crate) name: String,
    /// Called when all alerts from it are on disk.
    pub(crate) receipt: Receipt,
}

/// A message's claim on one of its objects. Dropped without [`Receipt::done`], the message is left to the queue.
pub(crate) struct Receipt {
    pub(super) done: oneshot::Sender<()>,
    /// Held while the object waits to be read and is read, to bound how many do.
    pub(super) _waiting: OwnedSemaphorePermit,
}

impl Receipt {
    /// All alerts from the object are on disk.
    pub(crate) fn done(self) {
        // A task without a receiver has returned the message.
        let _ = self.done.send(());
    }
}
