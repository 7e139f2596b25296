//! What is said of alerts that were not raised: who did what how often.

use super::Limits;
use super::actor::{Act, Actor, Charge};
use super::window::Window;
use crate::event::{Event, Timestamp};

/// Most rows of a summary; those who did most stand first.
const ROWS_MAX: usize = 20;
/// What a row takes beside its texts, in bytes.
const ROW_BYTES: usize = 256;

/// Alerts that were not raised of who did the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldBack {
    /// Who, and on what.
    pub act: Act,
    /// How often.
    pub count: u64,
}

/// Who did what how often, as far as there is room. Those who act share it.
#[derive(Debug)]
pub(crate) struct Rows {
    rows: Window<Act, u64>,
    /// How many are in no row.
    others: u64,
}

impl Rows {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { rows: Window::new(limits.held_back_bytes_max), others: 0 }
    }

    /// One more, of this actor.
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

    /// Those who did most, and how many did the rest.
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

    /// Gives up a row; what it counted is counted on.
    pub(crate) fn give_way(&mut self) {
        self.others += self.rows.give_way().map_or(0, |(_, count)| count);
    }
}
