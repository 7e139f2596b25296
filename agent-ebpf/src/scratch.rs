//! Memory for records that do not fit on the stack: a slot for each program that builds large records, on each
//! processor.
//!
//! Programs of one kind do not interrupt each other on a processor (the kernel counts what it skips for that as
//! missed), those of different kinds do: one that builds a large record has a row in [`Builder`], and with it its own
//! slot.

use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use lapwing_common::{BUILDERS, Kind, RECORD_BYTES_MAX};

use crate::emit;
use crate::walk::Walk;

/// The programs that build large records.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(crate) enum Builder {
    /// Of [`Kind::EXEC`].
    Exec = 0,
}

const _: () = assert!((Builder::Exec as u32) < BUILDERS, "each builder has a place on each processor");

/// A record that is being built, and the state of its walk.
#[repr(C)]
pub(crate) struct Scratch {
    pub(crate) record: [u64; RECORD_BYTES_MAX / 8],
    pub(crate) walk: Walk,
}

// SAFETY: it is what a map holds, and the addresses in it are only numbers to the kernel's checked copy.
unsafe impl Sync for Scratch {}

/// A per-processor array could not hold values of this size. User space makes it of [`BUILDERS`] places for each
/// processor.
#[map]
static SCRATCH: Array<Scratch> = Array::with_max_entries(1, 0);

/// This processor's place for the builder, by its number too; what it was for is counted as lost where there is none.
#[inline(always)]
pub(crate) fn of(builder: Builder, kind: Kind) -> Option<(u64, *mut Scratch)> {
    // SAFETY: the helper has no preconditions.
    let processor = unsafe { bpf_get_smp_processor_id() };
    let place = u64::from(processor as u32 * BUILDERS + builder as u32);
    let scratch = at(place);
    if scratch.is_none() {
        emit::lost(kind);
    }
    Some((place, scratch?))
}

/// The place of this number.
#[inline(always)]
pub(crate) fn at(place: u64) -> Option<*mut Scratch> {
    SCRATCH.get_ptr_mut(place as u32)
}
