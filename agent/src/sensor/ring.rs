//! The reader of the rings. It polls, because wake-ups are most of a sensor's cost, and reorders records by their
//! times, because processors write to a ring out of order, and there are two rings.

use std::io;
use std::mem;
use std::os::fd::AsFd;
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use lapwing_common::{Header, Kind, SLOTS, WAKE_INTERVAL_NANOS};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use zerocopy::{FromBytes, IntoBytes};

use super::clock;

/// How long the reader waits while records come.
const WAIT_BUSY: Duration = Duration::from_millis(10);
/// How long it waits at most when none come. With [`WAIT_BUSY`] and [`WINDOW_NANOS`] it bounds an event's delay.
const WAIT_IDLE: Duration = Duration::from_millis(40);
/// How long the reader waits after a wake-up: an urgent record that comes soon after another does not wake it.
const WAIT_WOKEN: Duration = Duration::from_nanos(WAKE_INTERVAL_NANOS);
/// How long a record is held back, so that records are ordered by time: an earlier record of another processor is in
/// the ring by then. It is several times the delay between a record's time and its write. If a processor is delayed
/// longer, its record is out of order, which is counted.
const WINDOW_NANOS: u64 = 2_000_000;
/// Maximum number of bytes that are taken from the rings at once. The rest is taken the next time.
const BUFFER_BYTES_MAX: usize = 512 * 1024;
/// Maximum number of these bytes from one ring.
const SHARE_BYTES_MAX: usize = BUFFER_BYTES_MAX / 2;

/// The reader.
pub(super) struct Ring {
    rings: [Part; 2],
    poll: Epoll,
    wait: Duration,
    /// Whether the last wait ended by a wake-up.
    is_woken: bool,
    /// Records one after the other, each at a multiple of eight bytes.
    buffer: Vec<u64>,
    /// The buffer to which records that are not ready are moved. It is swapped with `buffer`.
    spare: Vec<u64>,
    /// The positions of the records, the oldest first.
    pending: Vec<RecordSpan>,
    /// How many of `pending` are ready now.
    ready: usize,
    delivered: [u64; SLOTS],
    order: Order,
    is_full: bool,
    end: End,
}

/// Whether the rings are still read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    /// They are read to their ends once more.
    Closing,
    /// They are not read any more.
    Closed,
}

/// Whether records come in the order of their times.
#[derive(Default)]
struct Order {
    /// The latest time that was handed out.
    latest: u64,
    /// How many records were older than one that had been handed out before them.
    late: u64,
}

impl Order {
    /// Adds the times of records that are handed out, oldest first.
    fn pass(&mut self, times: impl Iterator<Item = u64>) {
        for time in times {
            self.late += u64::from(time < self.latest);
            self.latest = self.latest.max(time);
        }
    }
}

/// One of the rings.
struct Part {
    ring: RingBuf<MapData>,
    /// If records are left in the ring, the time of the last one that was taken. Those that are left are not older.
    left_from: Option<u64>,
}

/// A record's place in the buffer.
#[derive(Clone, Copy)]
struct RecordSpan {
    time: u64,
    cpu: u32,
    /// Its index in the buffer, in words.
    start: u32,
    words: u32,
    len: u32,
}

impl Ring {
    /// Takes over the rings.
    ///
    /// # Errors
    /// epoll is not available.
    pub(super) fn new(rings: [RingBuf<MapData>; 2]) -> io::Result<Self> {
        let poll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        // Edge-triggered: data alone does not end the wait, only a wake-up does, which the kernel side sends when
        // the ring fills.
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        for ring in &rings {
            poll.add(ring.as_fd(), EpollEvent::new(flags, 0))?;
        }
        Ok(Self {
            rings: rings.map(|ring| Part { ring, left_from: None }),
            poll,
            wait: WAIT_BUSY,
            is_woken: false,
            buffer: Vec::new(),
            spare: Vec::new(),
            pending: Vec::new(),
            ready: 0,
            delivered: [0; SLOTS],
            order: Order::default(),
            is_full: false,
            end: End::Open,
        })
    }

    /// Reads the rings to their present ends, in as many steps as needed, and then stops reading.
    pub(super) fn close(&mut self) {
        if self.end == End::Open {
            self.end = End::Closing;
        }
    }

    /// Waits for the next poll, at most `wait_max`, or until a ring fills.
    pub(super) fn wait(&mut self, wait_max: Duration) {
        self.is_woken = false;
        if self.is_full {
            return;
        }
        let wait = self.wait.min(wait_max);
        let timeout = EpollTimeout::try_from(wait).unwrap_or(EpollTimeout::ZERO);
        // A signal or an error ends the wait early, which is harmless.
        self.is_woken = self.poll.wait(&mut [EpollEvent::empty()], timeout).is_ok_and(|events| events > 0);
    }

    /// Reads the rings, and makes the records ready that are old enough to be in order. Records that were ready before
    /// are dropped. `on_signal` gets each record of a signal while it is still in its ring.
    pub(super) fn drain(&mut self, mut on_signal: impl FnMut(&[u8])) {
        self.forget_ready();
        self.take(&mut on_signal);
        if self.is_woken && !self.is_full {
            // The record that woke the reader is ready then.
            std::thread::sleep(Duration::from_nanos(WINDOW_NANOS));
            self.take(&mut on_signal);
        }
        self.wait = match self.pending.is_empty() {
            _ if self.is_woken => WAIT_WOKEN,
            true => (self.wait * 2).min(WAIT_IDLE),
            false => WAIT_BUSY,
        };
        // Records that are left in one ring may be older than those that were taken from the other.
        let left_from = self.rings.iter().filter_map(|part| part.left_from).min().unwrap_or(u64::MAX);
        let old = clock::now().min(left_from).saturating_sub(WINDOW_NANOS);
        self.ready = self.pending.partition_point(|place| place.time <= old);
    }

    /// Reads the rings, and makes no record ready.
    pub(super) fn take(&mut self, mut on_signal: impl FnMut(&[u8])) {
        if self.end == End::Closed {
            return;
        }
        let known = self.pending.len();
        self.is_full = false;
        // If many records wait, only the ring that is furthest behind is read.
        let behind = self.rings.iter().filter_map(|part| part.left_from).min();
        let is_waiting = self.buffer.len() * 8 > BUFFER_BYTES_MAX;
        for index in 0..self.rings.len() {
            if !is_waiting || behind.is_none() || self.rings[index].left_from == behind {
                self.take_share(index, &mut on_signal);
            }
            self.is_full |= self.rings[index].left_from.is_some();
        }
        if self.end == End::Closing && !self.is_full {
            self.end = End::Closed;
        }
        if self.pending.len() > known {
            // The sort is stable: records of one time and one processor keep the order of the ring.
            self.pending.sort_by_key(|place| (place.time, place.cpu));
        }
    }

    fn take_share(&mut self, index: usize, on_signal: &mut impl FnMut(&[u8])) {
        let part = &mut self.rings[index];
        let end = self.buffer.len() + SHARE_BYTES_MAX / 8;
        part.left_from = None;
        while let Some(item) = part.ring.next() {
            let Some((kind, place)) = append(&mut self.buffer, &item) else { continue };
            if kind == Kind::SIGNAL {
                on_signal(&item);
            }
            self.delivered[kind.slot()] += 1;
            self.pending.push(place);
            if self.buffer.len() > end {
                part.left_from = Some(place.time);
                break;
            }
        }
    }

    /// The records that are ready, oldest first.
    pub(super) fn ready(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.pending[..self.ready].iter().map(|place| self.bytes(place))
    }

    /// Keeps this record and all later ones for the next time.
    pub(super) fn hold_from(&mut self, index: usize) {
        self.ready = self.ready.min(index);
    }

    /// The records that were taken and are not ready, oldest first.
    pub(super) fn later(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.pending[self.ready..].iter().map(|place| self.bytes(place))
    }

    /// Whether the rings were closed and all records are ready or handed out.
    pub(super) fn is_over(&self) -> bool {
        self.end == End::Closed && self.ready == self.pending.len()
    }

    /// The time of the first record that was taken and not handed out.
    pub(super) fn first_time(&self) -> Option<u64> {
        self.pending.first().map(|place| place.time)
    }

    /// How many records of each kind were read, by [`Kind::slot`].
    pub(super) fn delivered(&self) -> &[u64; SLOTS] {
        &self.delivered
    }

    /// How many records came too late to be reordered.
    pub(super) fn out_of_order(&self) -> u64 {
        self.order.late
    }

    fn bytes(&self, place: &RecordSpan) -> &[u8] {
        let words = &self.buffer[place.start as usize..(place.start + place.words) as usize];
        &words.as_bytes()[..place.len as usize]
    }

    /// Drops the ready records, and moves the rest to the front.
    fn forget_ready(&mut self) {
        self.order.pass(self.pending.drain(..self.ready).map(|place| place.time));
        self.ready = 0;
        self.spare.clear();
        for place in &mut self.pending {
            let start = place.start as usize;
            place.start = self.spare.len() as u32;
            self.spare.extend_from_slice(&self.buffer[start..start + place.words as usize]);
        }
        mem::swap(&mut self.buffer, &mut self.spare);
        // Memory is returned after a burst.
        if self.spare.capacity() * 8 > BUFFER_BYTES_MAX / 4 {
            self.spare = Vec::new();
        }
    }
}

/// Copies a record into the buffer; `None` if it is too short.
fn append(buffer: &mut Vec<u64>, bytes: &[u8]) -> Option<(Kind, RecordSpan)> {
    let (header, _) = Header::read_from_prefix(bytes).ok()?;
    let (start, words) = (buffer.len(), bytes.len().div_ceil(8));
    buffer.resize(start + words, 0);
    buffer[start..].as_mut_bytes()[..bytes.len()].copy_from_slice(bytes);
    let place = RecordSpan {
        time: header.time,
        cpu: header.cpu,
        start: u32::try_from(start).ok()?,
        words: u32::try_from(words).ok()?,
        len: u32::try_from(bytes.len()).ok()?,
    };
    Some((Kind(header.kind), place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_records_are_counted() {
        for (times, late) in [
            (&[&[1, 2, 2, 3][..]][..], 0),
            (&[&[1, 5], &[5, 6]], 0),
            (&[&[1, 5], &[2, 3, 6], &[6]], 2),
            (&[&[9], &[1], &[], &[10], &[9]], 2),
        ] {
            let mut order = Order::default();
            times.iter().for_each(|times| order.pass(times.iter().copied()));
            assert_eq!(order.late, late, "{times:?}");
        }
    }
}
