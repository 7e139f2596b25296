//! What a source reports about itself: interference, a time in which it did not run, lost records. Each becomes an alert.

use lapwing_engine::{Event, Timestamp};

/// Somebody interfered with the source, or it does not show what happens.
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

/// How much it weighs that somebody did something to the source.
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
    /// The event that tells it.
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
    /// The event that tells it.
    pub(crate) event: Event,
    /// From when: nothing was lost between what was told last and this.
    pub(crate) from: Timestamp,
    /// Until when.
    pub(crate) to: Timestamp,
    /// How many of each kind; only kinds of which any were lost.
    pub(crate) by_kind: Vec<(&'static str, u64)>,
    /// Those that were dropped because a user's records filled too much of a ring, by the user's id: the users with the
    /// most.
    pub(crate) by_user: Vec<(u32, u64)>,
}
