//! Lost records. Records are lost only in the rings; this module counts them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use aya::Pod;
use aya::maps::{MapData, PerCpuArray};
use lapwing_common::{Counts, Kind, SLOTS};

use super::shares::RingShares;

/// How often the counters are read.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Maximum number of remembered windows with losses. Each is at least a second long; the events of an alert span far
/// less.
const WINDOWS_MAX: usize = 1024;

/// [`Counts`] as they are in the kernel's map.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct PodCounts(pub(super) Counts);

const _: () = assert!(size_of::<PodCounts>() == 3 * 8 * SLOTS);
// SAFETY: three arrays of numbers, without padding, as asserted above.
#[expect(unsafe_code, reason = "aya reads and writes this type as bytes")]
unsafe impl Pod for PodCounts {}

/// The counters of lost records.
pub(super) struct Losses {
    counts: PerCpuArray<MapData, PodCounts>,
    shares: RingShares,
    looked: Instant,
    /// The time of the last reading, in nanoseconds since boot.
    looked_at: u64,
    /// The lost records at the last reading, by [`Kind::slot`].
    lost: [u64; SLOTS],
    /// The skipped runs of programs at the last reading.
    missed: u64,
    /// Windows with losses: start and end in nanoseconds since boot, and the number of lost records.
    windows: VecDeque<(u64, u64, u64)>,
    /// The last result of [`Losses::written`].
    written: Option<u64>,
}

/// The losses between two readings of the counters.
pub(super) struct LossPeriod {
    /// The time of the previous reading, in nanoseconds since boot.
    pub(super) from: u64,
    /// The time of this reading.
    pub(super) to: u64,
    /// The number of lost records, with skipped runs.
    pub(super) records: u64,
    /// The number of lost records since the start of the agent.
    pub(super) total: u64,
    /// The lost records by kind.
    pub(super) by_kind: Vec<(Kind, u64)>,
    /// Runs of programs that the kernel skipped because the program was running on that processor already. Each may
    /// have written a record, of an unknown kind.
    pub(super) missed: u64,
    /// Records that were dropped because a user held too much of a ring, by the responsible user. Only the users with
    /// the most are listed.
    pub(super) by_user: Vec<(u32, u64)>,
}

/// Records of one kind: how many were seen, filtered, lost because the ring was full, and delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct KindCounts {
    /// How often the kernel programs saw what such a record reports.
    pub(crate) seen: u64,
    /// Records that were not written because no rule can match them; for datagrams, also repetitions.
    pub(crate) filtered: u64,
    /// Records for which the ring had no room.
    pub(crate) lost: u64,
    /// Records that were read. Once all are read, `seen == delivered + filtered + lost`.
    pub(crate) delivered: u64,
}

impl Losses {
    pub(super) fn new(counts: PerCpuArray<MapData, PodCounts>, shares: RingShares) -> Self {
        Self {
            counts,
            shares,
            looked: Instant::now(),
            looked_at: super::clock::now(),
            lost: [0; SLOTS],
            missed: 0,
            windows: VecDeque::new(),
            written: None,
        }
    }

    /// Reads the counters every [`LOOK_EVERY`], or at once. Returns the losses since the last reading, if any. `missed`
    /// returns the number of runs of programs that the kernel has skipped so far.
    pub(super) fn look(
        &mut self,
        now: u64,
        at_once: bool,
        missed: impl FnOnce() -> u64,
    ) -> Option<LossPeriod> {
        if self.looked.elapsed() < LOOK_EVERY && !at_once {
            return None;
        }
        let missed = missed();
        let (sums, before) = (self.sums().lost, self.lost);
        let from = self.looked_at;
        (self.looked, self.looked_at, self.lost) = (Instant::now(), now, sums);
        let missed = missed.saturating_sub(std::mem::replace(&mut self.missed, missed));
        let lost = std::array::from_fn(|slot| sums[slot].saturating_sub(before[slot]));
        let lost = self.add(from, now, &lost, missed, sums.iter().sum())?;
        Some(LossPeriod { by_user: self.shares.look(), ..lost })
    }

    /// Adds the losses between two times: `lost` by [`Kind::slot`], and `missed` runs of programs. `total` is the
    /// number since the start of the agent. `None` if nothing was lost.
    pub(super) fn add(
        &mut self,
        from: u64,
        to: u64,
        lost: &[u64; SLOTS],
        missed: u64,
        total: u64,
    ) -> Option<LossPeriod> {
        let by_kind: Vec<_> = Kind::ALL.into_iter().map(|kind| (kind, lost[kind.slot()])).collect();
        let records = by_kind.iter().map(|(_, count)| count).sum::<u64>() + missed;
        if records == 0 {
            return None;
        }
        if self.windows.len() == WINDOWS_MAX {
            self.windows.pop_front();
        }
        self.windows.push_back((from, to, records));
        Some(LossPeriod { from, to, records, total, by_kind, missed, by_user: Vec::new() })
    }

    /// How many records may have been lost between two times since boot.
    pub(super) fn between(&self, from: u64, to: u64) -> u64 {
        let known = self.windows.iter().filter(|(start, end, _)| *start <= to && *end >= from);
        let known: u64 = known.map(|(_, _, lost)| lost).sum();
        let is_open = to >= self.looked_at;
        known + if is_open { self.lost_total().saturating_sub(self.lost.iter().sum()) } else { 0 }
    }

    /// The counts by kind.
    pub(super) fn by_kind(&self, delivered: &[u64; SLOTS]) -> Vec<(Kind, KindCounts)> {
        let sums = self.sums();
        let of = |kind: Kind| {
            let slot = kind.slot();
            KindCounts {
                seen: sums.written[slot] + sums.filtered[slot] + sums.lost[slot],
                filtered: sums.filtered[slot],
                lost: sums.lost[slot],
                delivered: delivered[slot],
            }
        };
        Kind::ALL.into_iter().map(|kind| (kind, of(kind))).collect()
    }

    /// The number of records of all kinds that were written to the rings, and whether it is unchanged since the last
    /// call.
    pub(super) fn written(&mut self) -> (u64, bool) {
        let written = self.sums().written.iter().sum();
        (written, self.written.replace(written) == Some(written))
    }

    /// All records that were lost.
    pub(super) fn lost_total(&self) -> u64 {
        self.lost().iter().sum()
    }

    /// The number of lost records, by [`Kind::slot`].
    pub(super) fn lost(&self) -> [u64; SLOTS] {
        self.sums().lost
    }

    fn sums(&self) -> Counts {
        sums(&self.counts)
    }
}

/// The sums over all processors.
pub(super) fn sums(counts: &PerCpuArray<MapData, PodCounts>) -> Counts {
    let mut sums = Counts { written: [0; SLOTS], lost: [0; SLOTS], filtered: [0; SLOTS] };
    // The map exists as long as its handle. A failed reading adds nothing; the next one includes it.
    for PodCounts(counts) in counts.get(&0, 0).iter().flat_map(|values| values.iter()) {
        for slot in 0..SLOTS {
            sums.written[slot] += counts.written[slot];
            sums.lost[slot] += counts.lost[slot];
            sums.filtered[slot] += counts.filtered[slot];
        }
    }
    sums
}
