//! What other threads request of a lane: its status, and its events.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crossbeam_channel::Sender;
use lapwing_engine::Event;
use serde_json::Value as Json;
use tokio::sync::{mpsc, oneshot};

use crate::budget::{Meter, Taken};

/// Sends requests to a lane.
#[derive(Clone)]
pub(crate) struct LaneClient {
    pub(super) name: &'static str,
    pub(super) inbox: Sender<LaneRequest>,
    pub(super) beats: Arc<AtomicU64>,
}

/// A subscriber to the lane's events.
#[derive(Clone)]
pub(crate) struct Subscriber {
    /// Where the events go. A subscriber that is too slow misses events.
    pub(crate) events: mpsc::UnboundedSender<WaitingEvent>,
    /// The limits of what may wait: for this subscriber, and for all.
    pub(crate) meters: [Arc<Meter>; 2],
    /// How many events it missed.
    pub(crate) missed: Arc<AtomicU64>,
    /// Whether it first gets the processes that are running.
    pub(crate) wants_running: bool,
}

/// An event that waits for a subscriber, and is charged until it is dropped.
pub(crate) struct WaitingEvent {
    event: Arc<Event>,
    _taken: [Taken; 2],
}

impl WaitingEvent {
    /// `None` if a meter is exhausted.
    fn new(event: Arc<Event>, meters: &[Arc<Meter>; 2]) -> Option<Self> {
        let bytes = size_of::<Self>() + event.part_bytes();
        let [own, all] = meters;
        let taken = [Taken::try_of(own, bytes)?, Taken::try_of(all, bytes)?];
        Some(Self { event, _taken: taken })
    }

    /// The event.
    pub(crate) fn event(&self) -> &Event {
        &self.event
    }
}

impl Subscriber {
    /// Sends an event. The subscriber misses it if too much is waiting.
    pub(super) fn show(&self, event: &Arc<Event>) {
        let is_shown = WaitingEvent::new(event.clone(), &self.meters)
            .is_some_and(|waiting| self.events.send(waiting).is_ok());
        if !is_shown {
            self.missed.fetch_add(1, Relaxed);
        }
    }
}

pub(super) enum LaneRequest {
    Status(oneshot::Sender<Json>),
    Subscribe(Subscriber),
}

impl LaneClient {
    /// Requests the lane's status as JSON. There is no answer if the lane has ended.
    pub(crate) fn status(&self) -> oneshot::Receiver<Json> {
        let (reply, answer) = oneshot::channel();
        // A lane that has ended drops the reply.
        let _ = self.inbox.send(LaneRequest::Status(reply));
        answer
    }

    /// Sends the lane's events to a subscriber from now on.
    pub(crate) fn subscribe(&self, subscriber: Subscriber) {
        // A lane that has ended has no more events.
        let _ = self.inbox.send(LaneRequest::Subscribe(subscriber));
    }

    /// The lane's name.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// The lane's name, and a counter that grows while the lane makes progress.
    pub(crate) fn beats(&self) -> (&'static str, u64) {
        (self.name, self.beats.load(Relaxed))
    }
}
