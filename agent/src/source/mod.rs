//! Where events come from. A source knows no rule and no sink: a lane asks it for batches until there are none.

pub(crate) mod cloudtrail;
mod inflate;
mod replay;

use std::time::Duration;

use anyhow::Result;
use lapwing_engine::{Event, Fields, Timestamp};

pub(crate) use self::inflate::Zstd;
pub(crate) use self::replay::{Documents, Recorded, Replay, ReplayEvents};
use crate::clock;
use crate::ledger::Checkpoint;
use crate::program::{Missing, Program};

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

/// The source was tampered with, or it does not report what happens.
pub(crate) struct Tampered {
    /// The event that says so.
    pub(crate) event: Event,
    /// From when on, at the earliest.
    pub(crate) from: Timestamp,
    /// When it was noticed.
    pub(crate) to: Timestamp,
    /// What was done, and by whom, as far as that is known.
    pub(crate) reason: String,
    /// How much it weighs.
    pub(crate) weight: Weight,
}

/// How severe the tampering is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Weight {
    /// An administrator did it, as far as can be seen, and has still to put it into force.
    Meant,
    /// The kernel or the service manager did it, and others may have brought it about.
    Managed,
    /// It is interference.
    Interference,
}

/// A time in which the source did not run.
pub(crate) struct Down {
    /// The event that reports it.
    pub(crate) event: Event,
    /// From when, at the latest: the run before has seen what was until then.
    pub(crate) from: Timestamp,
    /// Until when: this run sees what is from then on.
    pub(crate) to: Timestamp,
    /// Whether the run before was killed: what it had read in that time was not evaluated, and what came after was kept.
    pub(crate) is_killed: bool,
}

/// Records that were lost.
pub(crate) struct Lost {
    /// The event that reports it.
    pub(crate) event: Event,
    /// From when: nothing was lost between the last report and this.
    pub(crate) from: Timestamp,
    /// Until when.
    pub(crate) to: Timestamp,
    /// How many of each kind; only kinds of which any were lost.
    pub(crate) by_kind: Vec<(&'static str, u64)>,
    /// Those that were dropped because a user's records filled too much of a ring, by the user's id: the users with the
    /// most.
    pub(crate) by_user: Vec<(u32, u64)>,
}

/// What a source knows beyond an event, for the alert only: rules do not see it.
#[derive(Default)]
pub(crate) struct Context {
    /// Fields that complete the event: the arguments, parent and hash of a connecting process, say.
    pub(crate) fields: Fields,
    /// The process's ancestors from the parent up to init, each as `process.*` fields.
    pub(crate) ancestors: Vec<Fields>,
    /// The programs of the process and of each ancestor, in this order: what the evidence stage hashes.
    pub(crate) programs: Vec<Result<Program, Missing>>,
    /// The user on whose account that is done.
    pub(crate) user: u32,
}
