//! `max_signals`: how many alerts a rule may raise in a time span, with shares by actor.
//!
//! A span begins with the first alert after the end of the previous span, and not at a round time. So its start cannot
//! be predicted. One executable may have `max_signals` alerts, and all users together eight times as many. Of these a
//! user takes at most half of what is left, a control group half of the user's share, and an executable half of that.
//! The first alert of each user in a span is raised beyond the share, so that no number of other alerts hides it. A
//! ceiling over all rules limits these too. Alerts that are held back are counted by actor and action, and reported at
//! the end of the span.

use std::time::Duration;

use crate::detect::{Actor, HeldBack, Limits, Quota, Rows, Suppressed};
use crate::event::{Event, Timestamp};

/// The span of the ceiling over all rules.
const CEILING_SPAN: Duration = Duration::from_secs(300);
/// How often the summary of held back alerts is stored, in case that the agent is killed.
const WRITTEN_AFTER: Duration = Duration::from_secs(30);

/// Counts a rule's alerts by time span.
#[derive(Debug)]
pub(super) struct Flood {
    raised_max: usize,
    limits: Limits,
    raised: Spanned,
    suppressed: u64,
    latest: Timestamp,
    rows: Rows,
    /// The number of suppressed alerts in the stored summary, and the time at which it was stored.
    written: Option<(u64, Timestamp)>,
}

/// The ceiling over the alerts of all rules.
#[derive(Debug)]
pub(super) struct Ceiling {
    raised_max: usize,
    raised: Spanned,
}

/// The alerts that were raised in the open span.
#[derive(Debug)]
struct Spanned {
    span: Duration,
    start: Option<Timestamp>,
    quota: Quota,
}

impl Spanned {
    fn new(span: Duration, raised_max: usize) -> Self {
        Self { span, start: None, quota: Quota::new(raised_max) }
    }

    fn end(&self) -> Option<Timestamp> {
        self.start.map(|start| start + self.span)
    }

    fn is_over(&self, now: Timestamp) -> bool {
        self.end().is_none_or(|end| end <= now)
    }

    fn open(&mut self, start: Timestamp, raised_max: usize) {
        (self.start, self.quota) = (Some(start), Quota::new(raised_max));
    }
}

impl Ceiling {
    pub(super) fn new(limits: Limits) -> Self {
        let raised_max = limits.alerts_max;
        Self { raised_max, raised: Spanned::new(CEILING_SPAN, raised_max) }
    }

    fn admit(&mut self, time: Timestamp, actor: &Actor) -> bool {
        if self.raised.is_over(time) {
            self.raised.open(time, self.raised_max);
        }
        self.raised.quota.take(actor)
    }
}

impl Flood {
    pub(super) fn new(span: Duration, raised_max: u32, limits: Limits) -> Self {
        let raised_max = usize::try_from(raised_max).unwrap_or(usize::MAX);
        Self {
            raised_max,
            limits,
            raised: Spanned::new(span, raised_max),
            suppressed: 0,
            latest: Timestamp::MIN,
            rows: Rows::new(limits),
            written: None,
        }
    }

    /// Whether an alert of this time about this event may be raised. If it opens a new span, also the summary of the
    /// previous span. A late alert counts for the open span.
    pub(super) fn admit(
        &mut self,
        time: Timestamp,
        event: Option<&Event>,
        ceiling: &mut Ceiling,
    ) -> (bool, Option<Suppressed>) {
        let mut summary = None;
        if self.raised.is_over(time) {
            summary = self.close();
            self.raised.open(time, self.raised_max);
        }
        let actor = event.map(Actor::of).unwrap_or_default();
        let whole = actor.whole();
        let raise = self.takes(&whole) && ceiling.admit(time, &whole);
        if !raise {
            self.suppressed += 1;
            self.latest = self.latest.max(time);
            self.rows.add(time, event, &actor);
        }
        (raise, summary)
    }

    fn takes(&mut self, actor: &Actor) -> bool {
        let quota = &mut self.raised.quota;
        if quota.take(actor) {
            return true;
        }
        let is_new = quota.is_of_new_user(actor);
        if is_new {
            quota.take_anyhow(actor);
        }
        is_new
    }

    /// The summary of the open span, once it is over.
    pub(super) fn advance(&mut self, now: Timestamp) -> Option<Suppressed> {
        if self.raised.is_over(now) { self.close() } else { None }
    }

    /// The summary of the open span up to now; `None` if nothing was suppressed.
    pub(super) fn pending(&self) -> Option<Suppressed> {
        let (held_back, others) = self.rows.shown();
        let (start, end) = (self.raised.start?, self.latest + Duration::from_nanos(1));
        let count = self.suppressed;
        (count > 0).then_some(Suppressed { count, start, end, group: None, held_back, others })
    }

    /// Whether the summary must be stored again.
    pub(super) fn is_due(&mut self, now: Timestamp) -> bool {
        let (count, at) = self.written.unwrap_or((0, Timestamp::MIN));
        let is_due = self.suppressed > count && at + WRITTEN_AFTER <= now;
        if is_due {
            self.written = Some((self.suppressed, now));
        }
        is_due
    }

    /// Whether the stored summary must be deleted.
    pub(super) fn is_settled(&mut self) -> bool {
        self.suppressed == 0 && self.written.take().is_some()
    }

    /// Whether nothing is to be reported when the open span is over.
    pub(super) fn is_idle(&self) -> bool {
        self.suppressed == 0 && self.written.is_none()
    }

    /// How many are held back, and of whom.
    pub(super) fn held_back(&self) -> (u64, Vec<HeldBack>) {
        (self.suppressed, self.rows.shown().0)
    }

    /// How many are held back.
    pub(super) fn suppressed(&self) -> u64 {
        self.suppressed
    }

    /// Bytes of the summary.
    pub(super) fn bytes(&self) -> usize {
        self.rows.bytes()
    }

    /// Shortens the summary.
    pub(super) fn give_way(&mut self) {
        self.rows.give_way();
    }

    fn close(&mut self) -> Option<Suppressed> {
        let summary =
            self.pending().zip(self.raised.end()).map(|(summary, end)| Suppressed { end, ..summary });
        (self.suppressed, self.latest) = (0, Timestamp::MIN);
        if summary.is_some() {
            self.rows = Rows::new(self.limits);
        }
        summary
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Act;
    use crate::event::Schema;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    fn event(user: &str, executable: &str) -> Event {
        let event = serde_json::json!({"@timestamp": 0, "user.id": user, "process.executable": executable});
        Event::from_json(&Schema::new(), &event).unwrap()
    }

    fn flood(span: u64, raised_max: u32) -> (Flood, Ceiling) {
        let limits = Limits::default();
        (Flood::new(Duration::from_secs(span), raised_max, limits), Ceiling::new(limits))
    }

    #[test]
    fn alerts_over_the_limit_are_counted_and_reported_once() {
        let (mut flood, mut ceiling) = flood(10, 2);
        for second in [11, 12] {
            assert_eq!(flood.admit(at(second), None, &mut ceiling), (true, None));
        }
        for second in [13, 14] {
            assert_eq!(flood.admit(at(second), None, &mut ceiling), (false, None));
        }
        assert_eq!(flood.advance(at(20)), None);
        let (start, end) = (at(11), at(21));
        let summary = Suppressed { count: 2, start, end, group: None, held_back: vec![], others: 2 };
        assert_eq!(flood.advance(at(21)), Some(summary));
        assert_eq!(flood.advance(at(22)), None);
        assert_eq!(flood.admit(at(23), None, &mut ceiling), (true, None));
    }

    #[test]
    fn the_act_of_another_user_is_raised_behind_any_number_of_decoys() {
        for raised_max in [1, 2, 100] {
            let (mut flood, mut ceiling) = flood(300, raised_max);
            for number in 0..10_000 {
                let decoy = event("65534", &format!("/tmp/{number}"));
                flood.admit(at(1), Some(&decoy), &mut ceiling);
            }
            let act = event("0", "/bin/sh");
            assert!(flood.admit(at(2), Some(&act), &mut ceiling).0, "max_signals {raised_max}");
            let summary = flood.advance(at(301)).unwrap();
            let of = |row: &HeldBack| (row.act.user.clone(), row.count);
            assert!(summary.held_back.iter().all(|row| of(row) == (Some("65534".into()), 1)));
            assert!(summary.others > 9000 && summary.held_back.len() > 3, "{summary:?}");
        }
    }

    #[test]
    fn suppressed_alerts_are_reported_by_actor() {
        let (mut flood, mut ceiling) = flood(300, 2);
        for _ in 0..8 {
            flood.admit(at(1), Some(&event("1", "/tmp/a")), &mut ceiling);
        }
        for _ in 0..4 {
            flood.admit(at(1), Some(&event("2", "/tmp/b")), &mut ceiling);
        }
        let (count, rows) = flood.held_back();
        let row = |user: &str, executable: &str, count| HeldBack {
            act: Act { user: Some(user.into()), executable: Some(executable.into()), ..Act::default() },
            count,
        };
        assert_eq!((count, rows), (8, vec![row("1", "/tmp/a", 6), row("2", "/tmp/b", 2)]));
    }

    #[test]
    fn the_ceiling_holds_for_all_rules_together() {
        let limits = Limits { alerts_max: 16, ..Limits::default() };
        let mut ceiling = Ceiling::new(limits);
        let raised = |user: &str, ceiling: &mut Ceiling| {
            let one = event(user, "/bin/sh");
            let raise =
                |_| Flood::new(Duration::from_secs(300), 100, limits).admit(at(1), Some(&one), ceiling).0;
            (0..100).map(raise).filter(|raised| *raised).count()
        };
        assert_eq!((raised("1", &mut ceiling), raised("0", &mut ceiling)), (16, 14));
    }
}
