//! Where events come from. A source knows no rule and no sink: a lane asks it for batches until there are none.

pub(crate) mod cloudtrail;
mod replay;

use std::time::Duration;

use anyhow::Result;
use lapwing_engine::{Event, Timestamp};

pub(crate) use self::replay::{Documents, Recorded, Replay, ReplayEvents};
use crate::alert::{Context, Down, Lost, Tampered};
use crate::clock;
pub(crate) use crate::store::{Change, Checkpoint};

/// A stream of events, in the order in which they are to be evaluated.
pub(crate) trait Source: Send {
    /// The next events. It waits for them up to about `wait`; an empty batch means that none came in time, and
    /// `None` that none will come any more: the end of a file, or the agent stops.
    ///
    /// # Errors
    /// What cannot be worked around by the source itself and ends its lane.
    fn next(&mut self, wait: Duration) -> Result<Option<Batch>>;

    /// What the source knows beyond an event. It is called only for an alert.
    fn context(&mut self, _event: &Event) -> Context {
        Context::default()
    }

    /// The events that describe the present state, as at the source's start, for a subscriber that begins now.
    fn running(&mut self, _take: &mut dyn FnMut(Event)) {}

    /// Sets whether a subscriber wants the events, also those that no rule can match. It is called often.
    fn watch(&mut self, _is_watched: bool) {}

    /// How the source does, for `lapwing status`.
    fn status(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    /// The current correlation time.
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
    /// What is to be remembered once every alert from these events, and from all before, is on disk.
    pub(crate) checkpoint: Checkpoint,
    /// What was lost and was not reported before, where the source can lose records.
    pub(crate) lost: Option<Lost>,
    /// The downtime before this run, where there was one and it was not reported before.
    pub(crate) down: Option<Down>,
    /// Tampering with the source itself that was not reported before.
    pub(crate) tampered: Vec<Tampered>,
}
