//! The loop of a sink: read, send, apply the answer, acknowledge, and wait if upstream is unavailable.
//!
//! An error about one alert counts only while upstream accepts others: an alert that is rejected while others are
//! accepted becomes a dead letter, or waits for its own retries. If nothing is accepted, upstream has the fault, and
//! everything waits, with an alarm.

use std::convert::Infallible;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::parcel::{Failure, Round};
use super::waiting::Waiting;
use super::{Answer, Sink, Target, Trouble, Verdict, dead_letter};
use crate::backoff::Backoff;
use crate::ledger::LedgerClient;
use crate::store::Spooled;

/// Longest delay before the first retry.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(500);
/// How long a sink may continue to deliver when the agent stops.
const FLUSH_MAX: Duration = Duration::from_secs(5);
/// How many alerts are read at least, if available: an error about one is compared with the others.
const READ_MIN: usize = 8;
/// How often an alert is tried while others of its batch are accepted, until it waits for its own retries.
const TRIES_BESIDE_OTHERS: u32 = 3;
/// How often a request may fail by itself until the next one is tried.
const TRIES_OF_REQUEST: u32 = 5;
/// How often a waiting alert is retried until a rejection makes it a dead letter.
const TRIES_ALONE: u32 = 5;
/// How often requests of commands are checked.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// How long a check of the target is valid: a good one, and a bad one.
const TARGET_GOOD_FOR: Duration = Duration::from_hours(1);
const TARGET_BAD_FOR: Duration = Duration::from_secs(60);
/// How many dead letters are resent at once.
const RESENT_AT_ONCE: usize = 32;

/// Delivers until no more alerts will come and all are delivered, or until the time limit of the stop.
pub(super) async fn deliver(sink: Sink, ledger: LedgerClient) {
    let spooled = ledger.spooled();
    let end = async {
        ended(spooled.clone()).await;
        tokio::time::sleep(FLUSH_MAX).await;
    };
    let backoff = Backoff::full_jitter(RETRY_DELAY_MIN, sink.retry_delay_max);
    let waiting = Waiting::open(&sink.dead_letters_in, &sink.name, sink.retry_delay_max);
    let mut courier =
        Courier { backoff, waiting, sink, ledger, spooled: spooled.clone(), delivered: 0, target: None };
    tokio::select! {
        _ = courier.run() => {}
        () = end => {}
    }
}

/// Waits until no more alerts will come.
async fn ended(mut spooled: watch::Receiver<i64>) {
    while spooled.changed().await.is_ok() {}
}

struct Courier {
    sink: Sink,
    ledger: LedgerClient,
    spooled: watch::Receiver<i64>,
    /// The last number up to which all alerts are delivered or dead letters.
    delivered: i64,
    backoff: Backoff,
    waiting: Waiting,
    /// When the target was last checked, and whether it is good.
    target: Option<(Instant, bool)>,
}

/// The agent stops and everything is delivered; or upstream fails, and the next run delivers the rest.
struct Stopped;

/// Whether a round is complete or waits for upstream.
#[derive(PartialEq, Eq)]
enum End {
    Settled,
    Waits,
}

impl Courier {
    async fn run(&mut self) -> Result<Infallible, Stopped> {
        self.start().await?;
        loop {
            self.resend().await?;
            self.try_alone().await?;
            self.step().await?;
        }
    }

    /// Delivers a batch, or waits for one.
    async fn step(&mut self) -> Result<(), Stopped> {
        self.spooled.mark_unchanged();
        let count_max = self.sink.count_max.max(READ_MIN);
        match self.ledger.read(self.delivered, count_max, self.sink.bytes_max).await {
            Ok(batch) if batch.is_empty() => {
                let look = Instant::now() + LOOK_EVERY;
                let next = self.waiting.next().map_or(look, |next| next.min(look));
                tokio::select! {
                    changed = self.spooled.changed() => changed.map_err(|_| Stopped),
                    () = tokio::time::sleep_until(next) => Ok(()),
                }
            }
            Ok(batch) => self.settle(batch).await,
            Err(_) => self.pause(None).await,
        }
    }

    async fn start(&mut self) -> Result<(), Stopped> {
        self.count_dead_letters();
        loop {
            let cursor = self.ledger.cursor(&self.sink.name).await;
            let undelivered = match cursor {
                Ok(cursor) => self.ledger.undelivered(cursor).await,
                Err(_) => Err(anyhow::anyhow!("there is no cursor")),
            };
            if let (Ok(cursor), Ok(undelivered)) = (cursor, undelivered) {
                self.delivered = cursor;
                self.sink.status.begin(undelivered, self.ledger.arrived());
                self.sink.status.delayed_count(self.waiting.count());
                return Ok(());
            }
            self.pause(None).await?;
        }
    }

    /// Sends alerts of the spool until each is delivered, a dead letter or waiting for its own retries, or until
    /// upstream accepts none.
    async fn settle(&mut self, alerts: Vec<Spooled>) -> Result<(), Stopped> {
        let last = alerts.last().map_or(0, |last| last.sequence);
        let mut round = Round::new(alerts, true);
        self.work_off(&mut round, Some(last)).await.map(drop)
    }

    /// Sends a round. If its alerts are from the spool, they are acknowledged up to `last`.
    async fn work_off(&mut self, round: &mut Round, last: Option<i64>) -> Result<End, Stopped> {
        self.look_at_target().await?;
        let mut tries = 0;
        loop {
            self.pass(round, last).await?;
            if round.taken > 0 {
                tries += 1;
                self.settle_failed(round, tries).await?;
            }
            self.acknowledge(round, last);
            let Some(failure) = round.failed.first().and_then(|parcel| parcel.failure.clone()) else {
                self.backoff.reset();
                self.sink.status.succeed(round.smaller > 0);
                return Ok(End::Settled);
            };
            let reason = failure.reason();
            if round.taken == 0 {
                let count = round.failed.len();
                self.wait_out(format!("upstream takes none of {count} alerts: {reason}").into()).await?;
                // Newer alerts are sent with them, which shows whether only these fail.
                return Ok(End::Waits);
            }
            self.wait_out(reason.to_owned().into()).await?;
            round.again();
        }
    }

    /// Sends each alert of a round once, in as many forms as that takes.
    async fn pass(&mut self, round: &mut Round, last: Option<i64>) -> Result<(), Stopped> {
        let (mut size, mut troubles) = (self.sink.count_max, 0);
        loop {
            let part = round.next(size);
            if part.is_empty() {
                return Ok(());
            }
            let before = (round.taken, round.known, round.smaller);
            match self.sink.upstream.send(&part).await {
                Answer::PerAlert(verdicts) => {
                    troubles = 0;
                    round.apply(part.len(), verdicts);
                }
                Answer::Refused(_) if part.len() > 1 => size = part.len() / 2,
                Answer::Refused(reason) => round.apply(1, vec![Verdict::Rejected(reason)]),
                Answer::TooMuch(trouble) => {
                    size = (part.len() / 2).max(1);
                    self.wait_out(trouble).await?;
                }
                Answer::Trouble(trouble) => {
                    troubles += u32::from(trouble.is_answer);
                    let reason = trouble.message.clone();
                    self.wait_out(trouble).await?;
                    if troubles >= TRIES_OF_REQUEST {
                        troubles = 0;
                        match part.len() {
                            1 => round.apply(1, vec![Verdict::Failed(reason)]),
                            several => size = several / 2,
                        }
                    }
                }
            }
            self.count(round, before);
            self.acknowledge(round, last);
        }
    }

    /// Alerts that were not accepted while others were: rejected ones become dead letters, and those that fail
    /// repeatedly wait for their own retries.
    async fn settle_failed(&mut self, round: &mut Round, tries: u32) -> Result<(), Stopped> {
        let mut left = Vec::new();
        for parcel in std::mem::take(&mut round.failed) {
            match &parcel.failure {
                Some(Failure::Rejected(reason)) => {
                    self.dead_lettered(&parcel.alert, reason).await?;
                    self.settled(round, 1);
                }
                Some(Failure::Failed(reason))
                    if tries >= TRIES_BESIDE_OTHERS && self.waiting.has_room(&parcel.alert) =>
                {
                    self.let_wait(&parcel.alert, reason).await?;
                    self.settled(round, 1);
                }
                _ => left.push(parcel),
            }
        }
        round.failed = left;
        Ok(())
    }

    /// Retries a waiting alert, if one is due.
    async fn try_alone(&mut self) -> Result<(), Stopped> {
        while let Some((alert, tries)) = self.waiting.due() {
            let mut round = Round::new(vec![alert.clone()], false);
            let mut trouble = None;
            while trouble.is_none() && !round.next(1).is_empty() {
                match self.sink.upstream.send(&round.next(1)).await {
                    Answer::PerAlert(verdicts) => round.apply(1, verdicts),
                    Answer::Refused(reason) => round.apply(1, vec![Verdict::Rejected(reason)]),
                    Answer::TooMuch(found) | Answer::Trouble(found) => {
                        tracing::debug!("sink {}: {}", self.sink.name, found.message);
                        trouble = Some(());
                    }
                }
            }
            self.count(&round, (0, 0, 0));
            let failure = round.failed.first().and_then(|parcel| parcel.failure.clone());
            match (failure, trouble) {
                (None, None) => self.forget_alone(&alert),
                (Some(Failure::Rejected(reason)), _) if tries >= TRIES_ALONE => {
                    self.dead_lettered(&alert, &reason).await?;
                    self.forget_alone(&alert);
                }
                (Some(_), _) => self.waiting.later(&alert.id),
                (None, Some(())) => {
                    // The others would fail too, and new alerts would wait.
                    self.waiting.later(&alert.id);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn forget_alone(&mut self, alert: &Spooled) {
        if let Err(error) = self.waiting.remove(&alert.id) {
            tracing::warn!("sink {}: alerts queued for a retry may be sent twice: {error}", self.sink.name);
        }
        self.sink.status.delayed_count(self.waiting.count());
    }

    /// An alert that cannot be written to the dead letters now, for example because the disk is full, is not dropped.
    async fn let_wait(&mut self, alert: &Spooled, reason: &str) -> Result<(), Stopped> {
        while let Err(error) = self.waiting.add(alert.clone(), reason) {
            self.wait_out(format!("an alert that fails cannot be kept apart: {error}").into()).await?;
        }
        let count = self.waiting.count();
        self.sink.status.delayed_count(count);
        let id = &alert.id;
        self.sink.status.delayed.raise(format!(
            "{count} alerts fail while others are taken, and are tried again; the last is {id}: {reason}"
        ));
        Ok(())
    }

    /// The same of one that upstream will never take.
    async fn dead_lettered(&mut self, alert: &Spooled, reason: &str) -> Result<(), Stopped> {
        let path = self.sink.dead_letters.path().display().to_string();
        while let Err(error) = self.sink.dead_letters.write(alert, reason) {
            self.wait_out(format!("cannot write {path}: {error}").into()).await?;
        }
        self.count_dead_letters();
        let (count, id, name) = (self.sink.dead_letters.count, &alert.id, &self.sink.name);
        self.sink.status.rejected.raise(format!(
            "upstream refused {count} alerts, which are in {path}; `lapwing sink retry {name}` sends them again; the \
             last is {id}: {reason}"
        ));
        Ok(())
    }

    /// Counts the dead letters, including those of earlier runs.
    fn count_dead_letters(&self) {
        let (status, letters) = (&self.sink.status, &self.sink.dead_letters);
        status.dead_lettered.store(letters.count, Relaxed);
        status.dropped.store(letters.dropped, Relaxed);
        match letters.count {
            0 => status.rejected.clear(),
            count if status.rejected.message().is_none() => status.rejected.raise(format!(
                "{count} alerts that upstream refused are in {}; `lapwing sink retry {}` sends them again",
                letters.path().display(),
                self.sink.name
            )),
            _ => {}
        }
    }

    /// Resends dead letters when a command requests it.
    async fn resend(&mut self) -> Result<(), Stopped> {
        let files = match self.sink.dead_letters.take_to_resend() {
            Ok(files) => files,
            Err(error) => {
                tracing::error!("sink {}: dead letters cannot be resent: {error}", self.sink.name);
                return Ok(());
            }
        };
        for path in files {
            self.count_dead_letters();
            if self.resend_file(&path).await? == End::Waits {
                return Ok(());
            }
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::error!("{} was sent and cannot be removed: {error}", path.display());
            }
        }
        Ok(())
    }

    async fn resend_file(&mut self, path: &Path) -> Result<End, Stopped> {
        let mut letters = match dead_letter::Reader::open(path) {
            Ok(letters) => letters,
            Err(error) => {
                tracing::error!("{} cannot be read: {error}", path.display());
                return Ok(End::Waits);
            }
        };
        loop {
            let mut alerts = Vec::new();
            while alerts.len() < RESENT_AT_ONCE
                && let Some((alert, _)) = letters.next()
            {
                alerts.push(alert);
            }
            if alerts.is_empty() {
                return Ok(End::Settled);
            }
            if self.work_off(&mut Round::new(alerts, false), None).await? == End::Waits {
                return Ok(End::Waits);
            }
        }
    }

    /// Checks the target from time to time. The sink waits if writing to it would create a wrong index for good.
    async fn look_at_target(&mut self) -> Result<(), Stopped> {
        loop {
            let is_known = self.target.is_some_and(|(at, is_good)| {
                at.elapsed() < if is_good { TARGET_GOOD_FOR } else { TARGET_BAD_FOR }
            });
            if is_known {
                return Ok(());
            }
            let target = self.sink.upstream.target().await;
            self.target = Some((Instant::now(), target.is_good()));
            match target {
                Target::Good | Target::Unknown => self.sink.status.target.clear(),
                Target::Wrong(why) => self.sink.status.target.raise(why),
                Target::Missing(why) => {
                    self.target = None;
                    self.sink.status.target.raise(why.clone());
                    self.wait_out(why.into()).await?;
                }
            }
        }
    }

    /// Everything before the first one left is delivered or a dead letter.
    fn acknowledge(&mut self, round: &Round, last: Option<i64>) {
        let Some(last) = last else { return };
        let delivered = round.first().map_or(last, |first| first - 1);
        if delivered > self.delivered {
            self.delivered = delivered;
            self.ledger.acknowledge(&self.sink.name, delivered);
        }
    }

    /// Counts the outcomes since the round had taken so many alerts.
    fn count(&self, round: &Round, (taken, known, smaller): (u64, u64, u64)) {
        let status = &self.sink.status;
        status.already_delivered.fetch_add(round.known - known, Relaxed);
        status.delivered.fetch_add((round.taken - taken) - (round.known - known), Relaxed);
        self.settled(round, round.taken - taken);
        if round.smaller > smaller {
            let count = status.smaller.fetch_add(round.smaller - smaller, Relaxed) + round.smaller - smaller;
            let why = round.smaller_for.as_deref().unwrap_or_default();
            status.reduced.raise(format!(
                "{count} alerts were delivered in a smaller form, the last because of: {why}"
            ));
        }
    }

    /// So many alerts of the spool are done.
    fn settled(&self, round: &Round, count: u64) {
        if round.is_spooled {
            self.sink.status.settled.fetch_add(i64::try_from(count).unwrap_or(i64::MAX), Relaxed);
        }
    }

    async fn wait_out(&mut self, trouble: Trouble) -> Result<(), Stopped> {
        self.sink.status.retries.fetch_add(1, Relaxed);
        self.sink.status.trouble.raise(trouble.message);
        self.pause(trouble.after).await
    }

    async fn pause(&mut self, wanted: Option<Duration>) -> Result<(), Stopped> {
        let delay = self.backoff.next(wanted);
        tokio::select! {
            () = tokio::time::sleep(delay) => Ok(()),
            () = ended(self.spooled.clone()) => Err(Stopped),
        }
    }
}
