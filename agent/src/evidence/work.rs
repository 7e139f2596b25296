//! The stage's thread: it tracks the evidence that each alert waits for, assigns files to readers, and commits in order what is
//! complete or has waited long enough.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::Result;
use crossbeam_channel::{Receiver, Sender, after, bounded, never, select_biased};
use lapwing_engine::{Schema, field};

use super::cache::Cache;
use super::reader::{HashReader, Job, Place, ReaderMessage};
use super::share::ReadShares;
use super::{
    ALERTS_WAITING_MAX, COMMIT_BYTES_MAX, Counts, DELIVERIES_MAX, Delivery, LEDGER_WAIT, MARGIN,
    PendingAlert, READERS_MAX, Raised, WAIT_MAX, WAITING_BYTES_MAX,
};
use crate::alert;
use crate::alert::{AlertDocument, Context};
use crate::budget::Taken;
use crate::clock;
use crate::digest::{Hash, hex};
use crate::ledger::{Commit, LedgerSender};
use crate::program::{Missing, Program};

/// The stage's state.
pub(super) struct Work {
    schema: Arc<Schema>,
    ledger: LedgerSender,
    inbox: Receiver<(Delivery, Taken)>,
    /// Deliveries that are not yet committed, in order, and the number of the first.
    waiting: VecDeque<Waiting>,
    first: u64,
    jobs: VecDeque<Job>,
    readers: Vec<HashReader>,
    reports: (Sender<ReaderMessage>, Receiver<ReaderMessage>),
    cache: Cache,
    shares: ReadShares,
    counts: Arc<Counts>,
}

/// A delivery whose alerts are not all complete.
struct Waiting {
    delivery: Delivery,
    /// Its charge until it is handed over.
    taken: Taken,
    /// The results for the programs of each alert; `None` while unknown.
    outcomes: Vec<Vec<Option<Result<Hash, Missing>>>>,
}

/// The events that wake the stage.
enum Input {
    Delivery(Delivery, Taken),
    ReaderMessage(ReaderMessage),
    Deadline,
    End,
}

impl Work {
    pub(super) fn new(
        schema: Arc<Schema>,
        ledger: LedgerSender,
        inbox: Receiver<(Delivery, Taken)>,
        counts: Arc<Counts>,
    ) -> Self {
        Self {
            schema,
            ledger,
            inbox,
            waiting: VecDeque::new(),
            first: 0,
            jobs: VecDeque::new(),
            readers: Vec::new(),
            reports: bounded(2 * DELIVERIES_MAX),
            cache: Cache::default(),
            shares: ReadShares::new(Instant::now()),
            counts,
        }
    }

    pub(super) fn run(mut self) -> Result<()> {
        let mut outcome = Ok(());
        let mut is_over = false;
        while !is_over || !self.waiting.is_empty() {
            match self.wait(is_over) {
                Input::Delivery(delivery, taken) => self.accept(delivery, taken),
                Input::ReaderMessage(report) => self.take(report),
                Input::Deadline => {}
                Input::End => is_over = true,
            }
            self.dispatch();
            while let Some(waiting) = self.next_ready() {
                // At the end, the ledger writes elsewhere what it cannot store, and so does the stage with all that follows.
                let wait = if outcome.is_ok() { LEDGER_WAIT } else { Duration::ZERO };
                outcome = outcome.and(self.commit(waiting, wait));
                self.counts.has_failed.store(outcome.is_err(), Relaxed);
            }
        }
        outcome
    }

    fn wait(&self, is_over: bool) -> Input {
        let closed = never();
        let inbox = if is_over || self.waiting.len() >= DELIVERIES_MAX { &closed } else { &self.inbox };
        let timer = match self.waiting.front() {
            Some(waiting) => after(waiting.deadline().saturating_duration_since(Instant::now())),
            None => never(),
        };
        select_biased! {
            recv(self.reports.1) -> report => report.map_or(Input::Deadline, Input::ReaderMessage),
            recv(inbox) -> delivery => delivery.map_or(Input::End, |(delivery, taken)| Input::Delivery(delivery, taken)),
            recv(timer) -> _ => Input::Deadline,
        }
    }

    fn accept(&mut self, mut delivery: Delivery, taken: Taken) {
        let number = self.first + self.waiting.len() as u64;
        let until = delivery.raised + WAIT_MAX - MARGIN;
        let items = delivery.alerts.iter_mut().enumerate();
        let outcomes = items.map(|(alert, item)| match item {
            PendingAlert::Document(_) => Vec::new(),
            PendingAlert::Raised(raised) => {
                let programs = std::mem::take(&mut raised.context.programs);
                let place = Place { delivery: number, alert, program: 0 };
                self.look_up(place, programs, raised.context.user, until)
            }
        });
        let outcomes = outcomes.collect();
        self.waiting.push_back(Waiting { delivery, taken, outcomes });
        self.count_waiting();
    }

    /// The cached results for an alert's programs. The others must be read.
    fn look_up(
        &mut self,
        place: Place,
        programs: Vec<Result<Program, Missing>>,
        user: u32,
        until: Instant,
    ) -> Vec<Option<Result<Hash, Missing>>> {
        let (mut outcomes, mut unknown) = (Vec::with_capacity(programs.len()), Vec::new());
        for (index, program) in programs.into_iter().enumerate() {
            let outcome = match program {
                Err(missing) => Some(Err(missing)),
                Ok(program) => match self.cache.get(program.file).filter(|_| !program.is_fresh) {
                    Some(hash) => Some(Ok(hash)),
                    None => {
                        unknown.push((Place { program: index, ..place }, program));
                        None
                    }
                },
            };
            self.counts.known.fetch_add(matches!(outcome, Some(Ok(_))).into(), Relaxed);
            outcomes.push(outcome);
        }
        if !unknown.is_empty() {
            self.jobs.push_back(Job { user, programs: unknown, bytes_max: 0, until });
        }
        outcomes
    }

    fn take(&mut self, report: ReaderMessage) {
        match report {
            ReaderMessage::Program { place, file, outcome, is_lasting } => {
                if let (Ok(hash), true) = (outcome, is_lasting) {
                    self.cache.put(file, hash);
                    self.counts.cached.store(self.cache.len() as u64, Relaxed);
                }
                self.counts.hashed.fetch_add(outcome.is_ok().into(), Relaxed);
                self.set(place, outcome);
            }
            ReaderMessage::Done { reader, bytes_left } => {
                if let Some(user) = self.readers.get_mut(reader).and_then(|reader| reader.user.take()) {
                    self.shares.put_back(user, bytes_left);
                }
            }
        }
    }

    /// Stores the result for a program, if its alert still waits for it.
    fn set(&mut self, place: Place, outcome: Result<Hash, Missing>) {
        let index = place.delivery.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        let waiting = index.and_then(|index| self.waiting.get_mut(index));
        let alert = waiting.and_then(|waiting| waiting.outcomes.get_mut(place.alert));
        if let Some(known) = alert.and_then(|alert| alert.get_mut(place.program)) {
            known.get_or_insert(outcome);
        }
    }

    /// Assigns files to readers, oldest first. Those past their deadline are skipped.
    fn dispatch(&mut self) {
        let now = Instant::now();
        let oldest = self.first;
        let is_wanted = |job: &Job| {
            job.until > now && job.programs.first().is_some_and(|(place, _)| place.delivery >= oldest)
        };
        self.jobs.retain(is_wanted);
        while let Some(reader) = self.idle_reader() {
            let is_free = |job: &Job| self.readers.iter().all(|reader| reader.user != Some(job.user));
            let Some(mut job) = self.jobs.iter().position(is_free).and_then(|index| self.jobs.remove(index))
            else {
                return;
            };
            job.bytes_max = self.shares.take(job.user, now);
            let user = job.user;
            match self.readers[reader].jobs.try_send(job) {
                Ok(()) => self.readers[reader].user = Some(user),
                // The reader has ended; the alerts report that nothing was read.
                Err(_) => return,
            }
        }
    }

    /// An idle reader.
    fn idle_reader(&mut self) -> Option<usize> {
        if self.jobs.is_empty() {
            return None;
        }
        let idle = self.readers.iter().position(|reader| reader.user.is_none());
        if idle.is_some() || self.readers.len() == READERS_MAX {
            return idle;
        }
        match HashReader::start(self.readers.len(), self.reports.0.clone()) {
            Ok(reader) => self.readers.push(reader),
            Err(error) => {
                tracing::warn!("{error:#}");
                return None;
            }
        }
        Some(self.readers.len() - 1)
    }

    /// The first delivery, if its alerts are complete or have waited long enough.
    fn next_ready(&mut self) -> Option<Waiting> {
        let now = Instant::now();
        let first = self.waiting.front()?;
        let is_busy =
            self.alerts_waiting() > ALERTS_WAITING_MAX || self.counts.bytes.held() > WAITING_BYTES_MAX / 2;
        if !first.is_complete() && !is_busy && first.deadline() > now {
            return None;
        }
        let mut waiting = self.waiting.pop_front()?;
        let missing = if waiting.deadline() > now { Missing::Busy } else { Missing::Time };
        for outcome in waiting.outcomes.iter_mut().flatten() {
            outcome.get_or_insert(Err(missing));
        }
        self.first += 1;
        self.count_waiting();
        if !waiting.delivery.alerts.is_empty() {
            let waited = waiting.delivery.raised.elapsed().as_millis();
            self.counts.waited_ms_max.fetch_max(u64::try_from(waited).unwrap_or(u64::MAX), Relaxed);
        }
        Some(waiting)
    }

    fn alerts_waiting(&self) -> usize {
        self.waiting.iter().map(|waiting| waiting.delivery.alerts.len()).sum()
    }

    fn count_waiting(&self) {
        self.counts.waiting.store(self.alerts_waiting() as u64, Relaxed);
    }

    fn commit(&self, Waiting { delivery, taken, outcomes }: Waiting, wait: Duration) -> Result<()> {
        let (mut alerts, mut bytes, mut outcome) = (Vec::new(), 0, Ok(()));
        for (item, outcomes) in delivery.alerts.into_iter().zip(outcomes) {
            let document = match item {
                PendingAlert::Document(document) => document,
                PendingAlert::Raised(raised) => self.document(*raised, outcomes),
            };
            bytes += document.json.len();
            alerts.push(document);
            if bytes >= COMMIT_BYTES_MAX {
                // The checkpoint is committed with the last part: without it an alert may be raised again, and is deduplicated by id.
                let commit = Commit { alerts: std::mem::take(&mut alerts), ..Commit::default() };
                outcome = outcome.and(self.hand_over(commit, wait));
                bytes = 0;
            }
        }
        let last = self.hand_over(Commit { alerts, checkpoint: delivery.checkpoint }, wait);
        drop(taken);
        outcome.and(last)
    }

    fn hand_over(&self, commit: Commit, wait: Duration) -> Result<()> {
        let mut commit = Some(commit);
        while let Some(offered) = commit.take() {
            commit = self.ledger.offer(offered, wait)?;
        }
        Ok(())
    }

    fn document(&self, raised: Raised, outcomes: Vec<Option<Result<Hash, Missing>>>) -> AlertDocument {
        let Raised { alert, mut context, lost_records } = raised;
        let outcomes: Vec<_> = outcomes.into_iter().flatten().collect();
        for missing in outcomes.iter().filter_map(|outcome| outcome.err()) {
            self.counts.missing[missing as usize].fetch_add(1, Relaxed);
        }
        complete(&mut context, &outcomes);
        let evidence = alert::Evidence { context, lost_records, created: Some(clock::now()) };
        alert::document(&alert, &self.schema, &evidence)
    }
}

impl Waiting {
    fn is_complete(&self) -> bool {
        self.outcomes.iter().flatten().all(Option::is_some)
    }

    fn deadline(&self) -> Instant {
        self.delivery.raised + WAIT_MAX
    }
}

/// Adds hashes or reasons to the process and its ancestors; the last one is that of its script.
pub(super) fn complete(context: &mut Context, outcomes: &[Result<Hash, Missing>]) {
    let process = std::iter::once(&mut context.fields).chain(&mut context.ancestors);
    for (fields, outcome) in process.zip(outcomes) {
        match outcome {
            Ok(hash) => fields.set(field!("process.hash.sha256"), hex(hash)),
            Err(missing) => fields.set(field!("lapwing.process.hash_skipped"), missing.text()),
        };
    }
    match outcomes.get(1 + context.ancestors.len()) {
        Some(Ok(hash)) => context.fields.set(field!("lapwing.process.script.hash.sha256"), hex(hash)),
        Some(Err(missing)) => {
            context.fields.set(field!("lapwing.process.script.hash_skipped"), missing.text())
        }
        None => &mut context.fields,
    };
    if outcomes.iter().any(Result::is_err) {
        context.fields.set(field!("lapwing.process.context"), "partial");
    }
}
