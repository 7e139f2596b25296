//! Changes to the state of rules that restoring it requires.

use lapwing_engine::StateChange;

use crate::lane;
use crate::ledger::LedgerClient;
use crate::store::Change;

/// Changed rows on their way to the ledger: rows that an earlier version wrote, or for which there is no room.
pub(super) struct Settled<'a> {
    client: &'a LedgerClient,
    changes: Vec<Change>,
    bytes: usize,
    count: usize,
}

impl<'a> Settled<'a> {
    /// How much is handed over at once.
    const BYTES_MAX: usize = 256 << 10;

    pub(super) fn new(client: &'a LedgerClient) -> Self {
        Self { client, changes: Vec::new(), bytes: 0, count: 0 }
    }

    pub(super) fn take(&mut self, changes: Vec<StateChange>) {
        for StateChange { rule_id, change } in changes {
            self.count += usize::from(change.value.is_none());
            self.bytes += change.key.len() + change.value.as_ref().map_or(0, Vec::len);
            self.changes.push(Change { scope: lane::scope(&rule_id), key: change.key, value: change.value });
        }
        if self.bytes >= Self::BYTES_MAX {
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        self.bytes = 0;
        self.client.change(std::mem::take(&mut self.changes));
    }

    pub(super) fn finish(mut self) {
        if !self.changes.is_empty() {
            self.hand_over();
        }
        if self.count > 0 {
            tracing::info!(
                "{} rows of the rules' state are shortened, or dropped for lack of room",
                self.count
            );
        }
    }
}
