//! Sources of events. A source imports no rule and no sink. A lane takes batches from it until there are none.

pub(crate) mod cloudtrail;
mod replay;

use std::time::Duration;

use anyhow::Result;
use lapwing_engine::{Event, Timestamp};

pub(crate) use self::replay::{Documents, Recorded, Replay, ReplayEvents};
use crate::alert::{Context, Down, Lost, Tampered};
use crate::clock;
pub(crate) use crate::store::{Change, Checkpoint};

/// A stream of events, in the order in which they are evaluated.
pub(crate) trait Source: Send {
    /// Returns the next events, and waits for them up to about `wait`. An empty batch means that none came in time;
    /// `None` means that no more will come: the file has ended, or the agent stops.
    ///
    /// # Errors
    /// An error that the source cannot handle and that ends its lane.
    fn next(&mut self, wait: Duration) -> Result<Option<Batch>>;

    /// What the source can add to an event. It is called only when an alert is built from the event.
    fn context(&mut self, _event: &Event) -> Context {
        Context::default()
    }

    /// Events for what is running now, as at the source's start, for a subscriber that begins here.
    fn running(&mut self, _take: &mut dyn FnMut(Event)) {}

    /// Sets whether there are subscribers, who also get events that no rule can match. It is called often.
    fn watch(&mut self, _is_watched: bool) {}

    /// The source's part of `lapwing status`.
    fn status(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    /// The time now by the clock that its events are correlated by.
    fn now(&self) -> Timestamp {
        clock::now()
    }

    /// How many records were lost between two times by that clock; `None` where the source cannot lose any.
    fn lost(&self, _from: Timestamp, _to: Timestamp) -> Option<u64> {
        None
    }
}

/// Events that were read together.
#[derive(Default)]
pub(crate) struct Batch {
    /// The events, oldest first as far as the source can order them.
    pub(crate) events: Vec<Event>,
    /// What is saved once every alert from these events, and from all before, is on disk.
    pub(crate) checkpoint: Checkpoint,
    /// Losses that were not reported before, if the source can lose records.
    pub(crate) lost: Option<Lost>,
    /// A time before this run in which no agent observed the host, if not reported before.
    pub(crate) down: Option<Down>,
    /// Interference with the source that was not reported before.
    pub(crate) tampered: Vec<Tampered>,
}
