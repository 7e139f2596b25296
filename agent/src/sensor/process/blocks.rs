//! What is derived from a process and kept with it until the process changes. The decoder fills it; the table only
//! clears it.

use std::cell::{Cell, OnceCell};
use std::sync::Arc;

use lapwing_engine::Fields;

use crate::budget::Meter;

/// How many blocks a process may have.
pub(in crate::sensor) const BLOCKS: usize = 6;

/// The blocks of a process, by number.
pub(in crate::sensor) struct Blocks {
    slots: [OnceCell<Arc<Fields>>; BLOCKS],
    meter: Arc<Meter>,
    bytes: Cell<usize>,
}

impl Blocks {
    /// None yet; what is built is charged to this meter.
    pub(super) fn new(meter: Arc<Meter>) -> Self {
        Self { slots: Default::default(), meter, bytes: Cell::new(0) }
    }

    /// Drops all.
    pub(super) fn clear(&mut self) {
        if self.bytes.get() > 0 {
            *self = Self::new(self.meter.clone());
        }
    }

    /// A block, built if it is not there.
    pub(in crate::sensor) fn get_or_build(&self, slot: usize, build: impl FnOnce() -> Fields) -> Arc<Fields> {
        let charged = || {
            let fields = build();
            let bytes = fields.held_bytes();
            self.meter.take(bytes);
            self.bytes.set(self.bytes.get() + bytes);
            Arc::new(fields)
        };
        self.slots[slot].get_or_init(charged).clone()
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        self.meter.give_back(self.bytes.get());
    }
}
