//! What was before this run of the sensor: the previous run's state and rings, and the snapshot. Also the state for the
//! next run.

use lapwing_engine::Event;

use super::Sensor;
use super::handover::{self, HandoverState, Inherited};
use super::key::Key;
use super::last_seen::PreviousRun;
use super::status::HandoverCounts;
use super::{clock, touched};
use crate::alert::Down;
use crate::source::Batch;

/// Most events of the snapshot in one batch.
const SNAPSHOT_BATCH: usize = 256;

impl Sensor {
    /// Takes over from the previous run, now that this run's hooks record.
    pub(super) fn inherit(&mut self) {
        let Some(inherited) = &mut self.inherited else { return self.settle() };
        inherited.close();
        if let Some(stop) = inherited.stop.take() {
            let found = touched::report(&stop, Some(inherited.by), clock::now());
            found.into_iter().for_each(|(subject, report)| self.tamper.done(subject, report));
        }
        // Without its process table, the snapshot gives the outcome, which is better than nothing.
        let Some(state) = &mut inherited.state else { return self.settle() };
        self.owners.restore(std::mem::take(&mut state.owners));
        if let Err(error) = self.table.restore(std::mem::take(&mut state.table)) {
            tracing::warn!("cannot restore the process table of the previous run: {error:#}");
        }
    }

    /// Computes the downtime from what the previous run has stored, the rows of [`LAST_SEEN_SCOPE`](super::LAST_SEEN_SCOPE).
    pub(crate) fn recall(&mut self, rows: &[(String, Vec<u8>)]) {
        match self.last_seen.recall(rows) {
            PreviousRun::Unknown => {}
            PreviousRun::OtherBoot(until) => {
                tracing::info!("first run since the host booted; the previous run ended at {until}");
            }
            PreviousRun::SameBoot(_)
                if self.inherited.as_ref().is_some_and(|inherited| inherited.state.is_some()) =>
            {
                tracing::info!("continuing where the previous run ended");
            }
            PreviousRun::SameBoot(until) => {
                let first = self.inherited.as_mut().and_then(Inherited::first_time);
                let to = first.map_or(self.cutoff.attached, |first| first.clamp(until, self.cutoff.attached));
                let is_killed = self.inherited.is_some();
                let down = Down { is_killed, ..self.decoder.down(until, to) };
                let (from, to) = (down.from, down.to);
                tracing::warn!(
                    "the sensor was down between {from} and {to}: processes that started and ended in that time were not seen"
                );
                self.downtime = Some((from, to));
                self.down = Some(down);
            }
        }
    }

    /// Takes in what ran before the hooks were attached, except what the previous run has reported better.
    pub(super) fn settle(&mut self) {
        for running in std::mem::take(&mut self.snapshot) {
            if let Some(path) = running.cgroup {
                self.table.groups.insert(running.origin.context.cgroup, path);
            }
            let start = running.origin.start;
            let known = Key::new(running.origin.pid, start);
            let key = if self.table.get(known).is_some() { known } else { self.table.add(running.origin) };
            if self.cutoff.covers(key, start) {
                self.running.push(key);
            }
        }
        self.running.reverse();
    }

    /// The snapshot's events, some at a time. Their time is the moment from which records report everything else.
    pub(super) fn emit_running(&mut self) -> Vec<Event> {
        let rest = self.running.len().saturating_sub(SNAPSHOT_BATCH);
        let keys = self.running.split_off(rest);
        let running = |key| self.decoder.already_running(&self.table, key, self.cutoff.attached);
        keys.into_iter().rev().filter_map(running).collect()
    }

    /// What happened between the previous run and this one, some at a time; `None` once all of it is emitted.
    pub(super) fn emit_inherited(&mut self) -> Option<Batch> {
        let mut inherited = self.inherited.take()?;
        if inherited.ring.is_over() {
            return Some(self.take_over(inherited));
        }
        std::mem::swap(&mut self.ring, &mut inherited.ring);
        self.ring.drain(|_| {});
        let events = self.decode(Some(inherited.by));
        std::mem::swap(&mut self.ring, &mut inherited.ring);
        self.inherited = Some(inherited);
        Some(Batch { events, ..Batch::default() })
    }

    /// Continues where the previous run ended. Its events have been emitted and their results are on disk, because a
    /// batch is requested only when the one before is durable.
    pub(super) fn take_over(&mut self, inherited: Inherited) -> Batch {
        self.settle();
        let (pid, records) = (inherited.by.pid, inherited.ring.delivered().iter().sum());
        let lost = inherited.lost.iter().sum();
        tracing::info!("handover from process {pid}: {records} records since its end, {lost} lost");
        self.handover = Some(HandoverCounts { pid, records, lost });
        let from = inherited.state.as_ref().map_or(self.cutoff.attached, |state| state.until);
        let lost = self.losses.add(from, self.cutoff.attached, &inherited.lost, 0, lost);
        inherited.release();
        let lost = lost.map(|lost| self.report_lost(&lost));
        Batch { events: lost.iter().map(|lost| lost.event.clone()).collect(), lost, ..Batch::default() }
    }

    /// Stores this run's state for the next one.
    pub(super) fn store_state(&self) {
        let state =
            HandoverState::new(clock::now(), self.losses.lost(), self.table.save(), self.owners.save());
        if let Err(error) = handover::store_state(&state) {
            tracing::warn!("cannot save state for the next run: {error:#}");
        }
    }
}
