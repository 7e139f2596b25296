//! The summary of alerts that were held back: rows of actor, target and count.

use super::Limits;
use super::actor::{Act, Actor, Charge};
use super::window::Window;
use crate::event::{Event, Timestamp};

/// Maximum number of rows of a summary, the highest counts first.
const ROWS_MAX: usize = 20;
/// Bytes of a row without its texts.
const ROW_BYTES: usize = 256;

/// Held back alerts with the same actor and target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldBack {
    /// The actor and the target.
    pub act: Act,
    /// The number of alerts.
    pub count: u64,
}

/// Rows of held back alerts, within a limit in bytes that actors share.
#[derive(Debug)]
pub(crate) struct Rows {
    rows: Window<Act, u64>,
    /// The number of alerts without a row.
    others: u64,
}

impl Rows {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { rows: Window::new(limits.held_back_bytes_max), others: 0 }
    }

    /// Adds an alert about this event and actor.
    pub(crate) fn add(&mut self, time: Timestamp, event: Option<&Event>, actor: &Actor) {
        let Some(event) = event else {
            self.others += 1;
            return;
        };
        let act = Act::of(event);
        if let (Some(()), _) = self.rows.change(&act, |_, _, count| *count += 1) {
            return;
        }
        let charge = Charge { actor: *actor, bytes: ROW_BYTES + act.bytes() };
        let gone = self.rows.insert(act, time, charge, 1);
        self.others += gone.iter().map(|(_, count)| count).sum::<u64>();
    }

    /// The rows with the highest counts, and the number of all other alerts.
    pub(crate) fn shown(&self) -> (Vec<HeldBack>, u64) {
        let row = |(act, count): (&Act, &u64)| HeldBack { act: act.clone(), count: *count };
        let mut rows: Vec<_> = self.rows.iter().map(row).collect();
        rows.sort_by(|left, right| (right.count, &left.act).cmp(&(left.count, &right.act)));
        let rest = rows.split_off(ROWS_MAX.min(rows.len()));
        (rows, self.others + rest.iter().map(|row| row.count).sum::<u64>())
    }

    /// Bytes held by rows.
    pub(crate) fn bytes(&self) -> usize {
        self.rows.bytes()
    }

    /// Evicts a row. Its count is added to the others.
    pub(crate) fn give_way(&mut self) {
        self.others += self.rows.give_way().map_or(0, |(_, count)| count);
    }
}
