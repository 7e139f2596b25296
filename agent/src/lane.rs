//! A lane: one thread that owns a source and the engines that evaluate its events.
//!
//! From record to alert a lane waits only for the ledger, takes no lock and reads no file. Other threads send requests
//! to its inbox. It serves them between two batches, and while it waits for the ledger.

mod client;
mod status;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use crossbeam_channel::{Receiver, Sender, unbounded};
use lapwing_engine::{Alert, Engine, Event, Output, Schema, StateChange, Timestamp};

use self::client::LaneRequest;
pub(crate) use self::client::{LaneClient, Subscriber, WaitingEvent};
use crate::alert::{self, lost, tampered};
use crate::evidence::{Delivery, PendingAlert, Raised, Stage};
use crate::ledger::LedgerSender;
use crate::source::{Batch, Source};
use crate::store::{Change, Checkpoint};

/// How long a lane waits for events before it serves its inbox.
const WAIT: Duration = Duration::from_millis(100);

/// About how many bytes of alerts, or of the rules' state, are handed over at once.
const DELIVERY_BYTES_MAX: usize = 512 << 10;
/// The parts of a lane.
pub(crate) struct Lane {
    /// Its name and that of its thread.
    pub(crate) name: &'static str,
    /// Where its events come from.
    pub(crate) source: Box<dyn Source>,
    /// The engines that evaluate its events. Rules that expect other field values for the same event have a view of
    /// their own.
    pub(crate) rule_views: Vec<RuleView>,
    /// The schema of events.
    pub(crate) schema: Arc<Schema>,
    /// Where its alerts go.
    pub(crate) ledger: LedgerSender,
    /// How long without events before the clock, and not the last event, sets the time of the stream.
    pub(crate) quiet: Duration,
}

/// Sends a message when it is dropped, to a thread that waits for the first of many threads to end.
pub(crate) struct Bell(pub(crate) Sender<()>);

impl Drop for Bell {
    fn drop(&mut self) {
        // Without a receiver the agent is ending already.
        let _ = self.0.send(());
    }
}

/// An engine and its view of the events.
pub(crate) struct RuleView {
    /// Converts an event to what the engine's rules expect; `None` if they have no such event.
    pub(crate) view: EventView,
    /// The engine that evaluates it.
    pub(crate) engine: Engine,
}

/// How an event is shown to an engine.
pub(crate) type EventView = fn(&Arc<Event>) -> Option<Arc<Event>>;

/// A running lane.
pub(crate) struct LaneHandle {
    /// The thread. It ends with the source.
    pub(crate) thread: JoinHandle<Result<()>>,
    /// For requests to the lane.
    pub(crate) client: LaneClient,
}

impl Lane {
    /// Starts the thread. The bell rings when the thread ends, also by a panic.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn start(self, bell: Bell) -> Result<LaneHandle> {
        let (inbox, requests) = unbounded();
        let client = LaneClient { name: self.name, inbox, beats: Arc::default() };
        let name = self.name;
        let evidence = Stage::start(self.schema.clone(), self.ledger.clone())?;
        let work = Work {
            lane: self,
            requests,
            subscribers: Vec::new(),
            output: Output::default(),
            clock: Clock::new(),
            events: 0,
            alerts: 0,
            beats: client.beats.clone(),
            lost: lost::LossTracker::default(),
            evidence,
        };
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let _rings_last = bell;
                work.run_to_end().with_context(|| format!("lane {name}"))
            })
            .with_context(|| format!("cannot start the thread `{name}`"))?;
        Ok(LaneHandle { thread, client })
    }
}

/// A lane at work.
struct Work {
    lane: Lane,
    requests: Receiver<LaneRequest>,
    subscribers: Vec<Subscriber>,
    output: Output,
    clock: Clock,
    events: u64,
    alerts: u64,
    beats: Arc<AtomicU64>,
    lost: lost::LossTracker,
    evidence: Stage,
}

impl Work {
    fn run_to_end(mut self) -> Result<()> {
        let ended = self.run();
        // The error of the evidence stage comes first, because it explains why no more is accepted.
        self.evidence.finish().and(ended)
    }

    fn run(&mut self) -> Result<()> {
        while let Some(batch) = self.lane.source.next(WAIT)? {
            self.beats.fetch_add(1, Relaxed);
            self.serve();
            self.evaluate(batch)?;
        }
        self.suspend()?;
        let checkpoint = Checkpoint { changes: self.changes(), done: None };
        let alerts: Vec<_> =
            self.lost.end(&self.lane.schema).into_iter().map(PendingAlert::Document).collect();
        if alerts.is_empty() && checkpoint.changes.is_empty() {
            return Ok(());
        }
        self.hand_over(alerts, checkpoint)
    }

    /// Hands over the unfinished state of the rules, one rule at a time.
    fn suspend(&mut self) -> Result<()> {
        for view in 0..self.lane.rule_views.len() {
            for rule in 0..self.lane.rule_views[view].engine.rules().count() {
                self.output.changes.extend(self.lane.rule_views[view].engine.suspend_rule(rule));
                let changes = self.output.changes.iter().map(|changed| changed.change.value.as_ref());
                if changes.flatten().map(Vec::len).sum::<usize>() >= DELIVERY_BYTES_MAX {
                    let checkpoint = Checkpoint { changes: self.changes(), done: None };
                    self.hand_over(Vec::new(), checkpoint)?;
                }
            }
        }
        Ok(())
    }

    /// The changes of the rules' state, as rows of the store.
    fn changes(&mut self) -> Vec<Change> {
        let changes = std::mem::take(&mut self.output.changes).into_iter();
        let rows = changes.map(|StateChange { rule_id, change }| Change {
            scope: scope(&rule_id),
            key: change.key,
            value: change.value,
        });
        rows.collect()
    }

    fn evaluate(&mut self, batch: Batch) -> Result<()> {
        for event in batch.events {
            let event = Arc::new(event);
            self.events += 1;
            self.clock.see(event.time());
            self.show(&event);
            for RuleView { view, engine } in &mut self.lane.rule_views {
                if let Some(event) = view(&event) {
                    engine.push(event, &mut self.output);
                }
            }
        }
        if let Some(now) = self.clock.now(self.lane.quiet, self.lane.source.now()) {
            for rule_view in &mut self.lane.rule_views {
                rule_view.engine.advance(now, &mut self.output);
            }
        }
        let alerts = std::mem::take(&mut self.output.alerts);
        let mut checkpoint = batch.checkpoint;
        checkpoint.changes.splice(0..0, self.changes());
        if let Some(dropped) = self.output.dropped.take() {
            self.lost.give_up(&dropped, Instant::now(), &self.lane.schema);
        }
        let lost = self.lost.look(batch.lost, Instant::now(), &self.lane.schema);
        let down = batch.down.map(|down| lost::down(&down, &self.lane.schema));
        let tampered = batch.tampered.iter().map(|one| tampered::document(one, &self.lane.schema));
        let tampered: Vec<_> = tampered.collect();
        let mut alerts = self.hand_over_most(alerts)?;
        alerts.extend(lost.into_iter().chain(down).chain(tampered).map(PendingAlert::Document));
        if alerts.is_empty() && checkpoint.changes.is_empty() && checkpoint.done.is_none() {
            return Ok(());
        }
        self.hand_over(alerts, checkpoint)
    }

    /// Prepares alerts, and hands over all but the last part of a delivery that is too large. The checkpoint comes with
    /// the last part: without it an alert may be raised again, which is deduplicated by its id.
    fn hand_over_most(&mut self, alerts: Vec<Alert>) -> Result<Vec<PendingAlert>> {
        let (mut items, mut bytes) = (Vec::new(), 0);
        for alert in alerts {
            let item = self.raised(alert);
            bytes += item.bytes();
            items.push(item);
            if bytes >= DELIVERY_BYTES_MAX {
                bytes = 0;
                self.hand_over(std::mem::take(&mut items), Checkpoint::default())?;
            }
        }
        Ok(items)
    }

    fn raised(&mut self, alert: Alert) -> PendingAlert {
        let source = &mut self.lane.source;
        let times = || alert.events().map(|event| event.time());
        let (first, last) = (times().min().unwrap_or(alert.time), times().max().unwrap_or(alert.time));
        let context = alert::last_event(&alert).map(|event| source.context(event)).unwrap_or_default();
        let lost_records = source.lost(first, last);
        PendingAlert::Raised(Box::new(Raised { alert, context, lost_records }))
    }

    /// Hands over what is to become durable. A lane that waits for the disk is alive and keeps beating.
    fn hand_over(&mut self, alerts: Vec<PendingAlert>, checkpoint: Checkpoint) -> Result<()> {
        self.alerts += alerts.len() as u64;
        let mut waiting = self.evidence.offer(Delivery::new(alerts, checkpoint), WAIT)?;
        while let Some(delivery) = waiting {
            self.beats.fetch_add(1, Relaxed);
            self.serve();
            waiting = self.evidence.offer(delivery, WAIT)?;
        }
        Ok(())
    }

    /// Sends an event to the subscribers, and removes those that have gone.
    fn show(&mut self, event: &Arc<Event>) {
        self.subscribers.retain(|subscriber| !subscriber.events.is_closed());
        self.subscribers.iter().for_each(|subscriber| subscriber.show(event));
    }

    /// Serves the requests since the last batch.
    fn serve(&mut self) {
        self.subscribers.retain(|subscriber| !subscriber.events.is_closed());
        while let Ok(request) = self.requests.try_recv() {
            match request {
                LaneRequest::Subscribe(subscriber) => {
                    if subscriber.wants_running {
                        self.lane.source.watch(true);
                        self.lane.source.running(&mut |event| subscriber.show(&Arc::new(event)));
                    }
                    self.subscribers.push(subscriber);
                }
                // The requester may have gone.
                LaneRequest::Status(reply) => drop(reply.send(self.status())),
            }
        }
        self.lane.source.watch(!self.subscribers.is_empty());
    }
}

/// The scope of a rule's rows in the store.
pub(crate) fn scope(rule_id: &str) -> String {
    format!("rule/{rule_id}")
}

/// How far the stream has come: as far as its latest event, or, where none came for a while, as the source's clock less
/// that while. An event of the future does not carry it beyond the clock.
struct Clock {
    latest: Timestamp,
    seen: Instant,
}

impl Clock {
    fn new() -> Self {
        Self { latest: Timestamp::MIN, seen: Instant::now() }
    }

    fn see(&mut self, time: Timestamp) {
        self.latest = self.latest.max(time);
        self.seen = Instant::now();
    }

    fn now(&mut self, quiet: Duration, clock: Timestamp) -> Option<Timestamp> {
        if self.seen.elapsed() >= quiet {
            self.latest = self.latest.max(clock - quiet);
        }
        (self.latest > Timestamp::MIN).then(|| self.latest.min(clock))
    }
}
