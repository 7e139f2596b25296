//! What is written to the store with the alerts of a batch.

/// A change of state that must survive a restart: a row of the store's key-value table.
pub(crate) struct Change {
    /// The row's owner, such as `rule/<uuid>` or `cloudtrail/files`.
    pub(crate) scope: String,
    /// The row's key within the scope.
    pub(crate) key: String,
    /// The new value; `None` deletes the row.
    pub(crate) value: Option<Vec<u8>>,
}

impl Change {
    /// What it takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + self.scope.len() + self.key.len() + self.value.as_ref().map_or(0, Vec::len)
    }
}

/// What a source wants to have saved about a batch once its alerts are on disk.
#[derive(Default)]
pub(crate) struct Checkpoint {
    /// Rows such as the source's cursor, written in the same transaction as the alerts.
    pub(crate) changes: Vec<Change>,
    /// Called after that transaction is on disk, for example to delete the queue's message.
    pub(crate) done: Option<Box<dyn FnOnce() + Send>>,
}

impl Checkpoint {
    /// What it takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.changes.iter().map(Change::bytes).sum()
    }
}
