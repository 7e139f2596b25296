//! Reports of a source about itself: interference, a time in which it did not run, lost records. Each becomes an alert.

use lapwing_engine::{Event, Timestamp};

/// Interference with the source, or a failure of it to report events.
pub(crate) struct Tampered {
    /// The event of it.
    pub(crate) event: Event,
    /// The earliest time at which it began.
    pub(crate) from: Timestamp,
    /// When it was noticed.
    pub(crate) to: Timestamp,
    /// What was done, and by whom, as far as that is known.
    pub(crate) reason: String,
    /// Its severity.
    pub(crate) weight: Weight,
}

/// The severity of an action on the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Weight {
    /// As far as can be seen an administrator did it, and it does not take effect yet.
    Meant,
    /// The kernel or the service manager did it; others may have caused it.
    Managed,
    /// It is interference.
    Interference,
}

/// A time in which the source did not run.
pub(crate) struct Down {
    /// The event of it.
    pub(crate) event: Event,
    /// The latest time at which it began: the previous run observed everything before.
    pub(crate) from: Timestamp,
    /// When it ended: this run observes everything after.
    pub(crate) to: Timestamp,
    /// Whether the previous run was killed: what it had read in that time was not evaluated, and what came after was
    /// kept.
    pub(crate) is_killed: bool,
}

/// Records that were lost.
pub(crate) struct Lost {
    /// The event of it.
    pub(crate) event: Event,
    /// When it began: nothing was lost between the last report and this time.
    pub(crate) from: Timestamp,
    /// When it ended.
    pub(crate) to: Timestamp,
    /// How many of each kind; kinds without losses are left out.
    pub(crate) by_kind: Vec<(&'static str, u64)>,
    /// Those that were dropped because a user's records filled too much of a ring, by the user's id: the users with the
    /// most.
    pub(crate) by_user: Vec<(u32, u64)>,
}
