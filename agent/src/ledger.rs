//! The thread that owns what is on disk: the alert log and the store. Whoever has something to keep sends it here,
//! in order, and everything in one [`Commit`] becomes durable together.

use bytes::Bytes;
use lapwing_engine::Timestamp;

/// An alert as it is written and delivered.
pub(crate) struct AlertDocument {
    /// The stable id: the same cause gives the same id, so that a second delivery can be told.
    pub(crate) id: String,
    /// When the last event of the match happened.
    pub(crate) time: Timestamp,
    /// One JSON object without line breaks, as in the log and as sent upstream.
    pub(crate) json: Bytes,
}

/// A change of what must survive a restart: a row of the store's one key-value table.
pub(crate) struct Change {
    /// Whose row it is, such as `rule/<uuid>` or `cloudtrail/files`.
    pub(crate) scope: String,
    /// The row's key within the scope.
    pub(crate) key: String,
    /// The new value; `None` deletes the row.
    pub(crate) value: Option<Vec<u8>>,
}

/// What a source wants remembered about a batch once its alerts are safe.
#[derive(Default)]
pub(crate) struct Checkpoint {
    /// Rows such as the source's cursor, written in the same transaction as the alerts.
    pub(crate) changes: Vec<Change>,
    /// Called after that transaction is on disk: to delete the queue message, say.
    pub(crate) done: Option<Box<dyn FnOnce() + Send>>,
}

/// What becomes durable together: first the alerts' lines in the log, synced; then, in one transaction, the alerts
/// in the spool and all changes.
#[derive(Default)]
pub(crate) struct Commit {
    /// Alerts in the order in which they were raised. One whose id is already known is not written again.
    pub(crate) alerts: Vec<AlertDocument>,
    /// State of rules that changed with these alerts, and the source's checkpoint.
    pub(crate) checkpoint: Checkpoint,
}
