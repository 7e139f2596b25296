//! The only way into the rings. Every record passes here, so that each is counted: written, filtered because no rule can
//! match it or because it repeats, or lost because the ring was full.
//!
//! There are two rings, one for processes and one for connections, and the last quarter of each is kept for the kinds
//! that do not give way ([`Kind::gives_way`]): a flood of one thing must not push out another. Beyond the fill mark,
//! actors share what is left ([`share`]): a flood of one user must not push out what another does.
//!
//! The reader polls. To wake it for each record costs more than everything else that happens here. It is woken when much
//! is unread, and for urgent records at most once in [`WAKE_INTERVAL_NANOS`].

use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_CONS_POS, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::generated::{
    bpf_get_current_pid_tgid, bpf_get_smp_processor_id, bpf_ktime_get_boot_ns, bpf_ringbuf_output,
};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray, RingBuf};
use lapwing_common::{Counts, Filter, Header, Kind, Reach, ShareOf, VERSION, WAKE_INTERVAL_NANOS};

use crate::layout::{AGENT, CONNECTIONS_MARK_BYTES, FILL_MARK_BYTES};
use crate::share;

/// The ring of records about processes. Its size is set when it is loaded.
#[map]
static RECORDS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// The ring of records about connections, likewise.
#[map]
static CONNECTIONS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Records written, filtered and lost.
#[map]
static COUNTS: PerCpuArray<Counts> = PerCpuArray::with_max_entries(1, 0);

/// What no rule can match. User space sets it at any time.
#[map]
static FILTER: Array<Filter> = Array::with_max_entries(1, 0);

/// When the reader was last woken for an urgent record, in nanoseconds since boot.
#[map]
static WOKEN: Array<u64> = Array::with_max_entries(1, 0);

/// How many times the fill mark a ring holds.
const QUARTERS: u64 = 4;
/// How many quarters of a ring a kind that gives way may fill. The fill mark is one.
const QUARTERS_FOR_ALL: u64 = 3;
/// How far above the fill mark records still wake the reader: enough of them that it cannot be missed, and then no
/// more, so that a reader that is behind is not slowed by wake-ups.
const WAKE_BYTES: u64 = 64 * 1024;

/// Whether a record of this kind is filtered because no rule can match a connection whose destination is of one of these
/// classes, a bit each. The classes are computed only where the result depends on them.
#[inline(always)]
pub(crate) fn is_filtered(kind: Kind, address_classes: impl FnOnce() -> u32) -> bool {
    let Some(filter) = FILTER.get(0) else { return false };
    let is_filtered = if filter.drops(kind, Reach::EVERY) {
        true
    } else {
        filter.dropped[kind.slot()] != 0 && filter.drops(kind, address_classes())
    };
    if is_filtered && !is_agent() {
        count_filtered(kind);
        return true;
    }
    false
}

/// Whether a program runs in the agent. What is handled for a connection later runs in any process.
#[inline(always)]
fn is_agent() -> bool {
    // SAFETY: the helper has no preconditions.
    AGENT.load() != 0 && (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32 == AGENT.load()
}

/// Counts a filtered record of this kind.
#[inline(always)]
pub(crate) fn count_filtered(kind: Kind) {
    if let Some(counts) = counts() {
        add(&counts.filtered[kind.slot()]);
    }
}

/// Counts a record of this kind that could not be built.
#[inline(always)]
pub(crate) fn lost(kind: Kind) {
    if let Some(counts) = counts() {
        add(&counts.lost[kind.slot()]);
    }
}

/// This processor's counters.
#[inline(always)]
fn counts() -> Option<&'static Counts> {
    // SAFETY: a place in the map stays one, and each of its numbers is added to in one instruction.
    COUNTS.get_ptr(0).map(|counts| unsafe { &*counts })
}

/// Adds one, in one instruction: another program may interrupt this one anywhere. Kernels before 5.12 know no other
/// atomic instruction than this.
#[inline(always)]
fn add(count: &u64) {
    // Other targets only look at this.
    #[cfg(target_arch = "bpf")]
    // SAFETY: the number is aligned, and while programs run it is written by this instruction only.
    unsafe {
        core::arch::asm!(
            "lock *(u64 *)({count} + 0) += {one}",
            count = in(reg) core::ptr::from_ref(count),
            one = in(reg) 1_u64,
            options(nostack),
        );
    }
    #[cfg(not(target_arch = "bpf"))]
    let _ = count;
}

/// Whether the reader is woken for an urgent record of this time. Two processors may both find that it is.
#[inline(always)]
fn is_wake_due(time: u64) -> bool {
    let Some(woken) = WOKEN.get_ptr_mut(0) else { return false };
    // SAFETY: a place in the map stays one, and the number is aligned.
    let is_due = time.wrapping_sub(unsafe { woken.read_volatile() }) >= WAKE_INTERVAL_NANOS;
    if is_due {
        // SAFETY: as above.
        unsafe { woken.write_volatile(time) };
    }
    is_due
}

/// A header for a record of this kind; its time is set when it is written.
#[inline(always)]
pub(crate) fn header(kind: Kind) -> Header {
    Header { kind: kind.0, version: VERSION, len: 0, time: 0, cpu: 0, reserved: 0 }
}

/// Writes a record of fixed size. Whether there was room.
#[inline(always)]
pub(crate) fn emit<T>(kind: Kind, record: &mut T) -> bool {
    let record = core::ptr::from_mut(record);
    // SAFETY: every record begins with its header, and `T` is as long as `size_of` says.
    unsafe { write(kind, record.cast(), size_of::<T>() as u64, kind.is_urgent()) }
}

/// Writes a record with a tail, of `len` bytes in all. The reader is woken for one that is urgent. Whether there was room.
///
/// # Safety
/// `record` points to a header and `len` bytes that may be read.
#[inline(always)]
pub(crate) unsafe fn write(kind: Kind, record: *mut Header, len: u64, is_urgent: bool) -> bool {
    // SAFETY: as promised by the caller, and the helpers have no preconditions.
    unsafe {
        (*record).len = len as u32;
        (*record).cpu = bpf_get_smp_processor_id() as u32;
        (*record).time = bpf_ktime_get_boot_ns();
        let (ring, mark) = if kind.is_connection() {
            (&CONNECTIONS, CONNECTIONS_MARK_BYTES.load())
        } else {
            (&RECORDS, FILL_MARK_BYTES.load())
        };
        let unread = ring.query(u64::from(BPF_RB_AVAIL_DATA));
        let must_wake =
            unread >= mark && unread - mark < WAKE_BYTES || is_urgent && is_wake_due((*record).time);
        let wake = if must_wake { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP };
        let gives_way = kind.gives_way() && unread / QUARTERS_FOR_ALL >= mark
            || unread >= mark && kind.has_actor() && {
                let free = mark.wrapping_mul(QUARTERS).saturating_sub(unread);
                share::gives_way(
                    ShareOf::kind(kind),
                    len,
                    unread,
                    free,
                    ring.query(u64::from(BPF_RB_CONS_POS)),
                )
            };
        let room = core::ptr::from_ref(ring).cast_mut().cast();
        let fits = !gives_way && bpf_ringbuf_output(room, record.cast(), len, u64::from(wake)) == 0;
        if let Some(counts) = counts() {
            add(if fits { &counts.written[kind.slot()] } else { &counts.lost[kind.slot()] });
        }
        fits
    }
}
