//! The agent's own alert "Telemetry lost": records were lost, or the sensor did not run, so that events may be missing.
//!
//! A flood may be meant to push one record out of the ring buffer; the loss is then the only trace of it. Consecutive
//! losses are an episode, and an episode is one alert with counts and times. It is raised when the losses stop, or after
//! a maximum time, so that an endless flood is reported too.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use lapwing_engine::rule::Severity;
use lapwing_engine::{Dropped, Event, Fields, Schema, Timestamp};
use serde_json::json;

use super::document::AlertDocument;
use super::incident::{Down, Lost};
use super::statement::{OwnRule, Statement};

/// Time without losses after which an episode is over.
const CALM: Duration = Duration::from_secs(10);
/// Maximum length of an episode; later losses begin the next one.
const EPISODE_MAX: Duration = Duration::from_secs(60);
/// Maximum number of users in an episode.
const USERS_MAX: usize = 64;
static RULE: OwnRule = OwnRule {
    id: "7d0f6a0e-5f0f-4c39-9f0e-3a4d2a6c5b11",
    name: "Telemetry lost",
    description: "Records of events on this host were lost, because there were more than the sensor could read or because \
        it was delayed. Events of that time may be missing, which may have been the purpose.",
    category: "telemetry",
    action: "telemetry_lost",
};
const GUIDE: &str = "1. Find what ran between `event.start` and `event.end`, and which user created so many processes or \
    connections.\n2. If there is none, the sensor itself was delayed: stopped by a signal, frozen by its control group, or \
    without processor time. Find the cause.\n3. `lapwing status` counts lost records by kind.\n4. If partial matches were \
    dropped, one user or program caused so many events that begin a match that its share of memory was used up: check its other \
    acts.\n";
const RISK_SCORE: u32 = 47;
/// Risk score of an outage of the sensor: the usual cause is an upgrade.
const DOWN_RISK_SCORE: u32 = 21;
const DOWN_GUIDE: &str = "1. Find out why the sensor ended: an upgrade, its configuration, a stop by an operator \
    (`journalctl -u lapwing`), or a kill by the kernel or root.\n2. Check what started on this host just before `event.start`, \
    and the `already_running` events just after `event.end`: they report processes that were started in between and still \
    run.\n";

/// The kind of loss that is not about records: partial matches of sequences that were dropped.
const HALF_MATCHES: &str = "half_matches";

/// Collects losses.
#[derive(Default)]
pub(crate) struct LossTracker(Option<Episode>);

/// Losses in one episode.
struct Episode {
    /// The event about the first loss.
    event: Event,
    from: Timestamp,
    to: Timestamp,
    records: u64,
    by_kind: BTreeMap<&'static str, u64>,
    /// By user id; at most [`USERS_MAX`].
    by_user: BTreeMap<u32, u64>,
    began: Instant,
    latest: Instant,
}

impl LossTracker {
    /// Adds the losses at `now`, if any. Returns the alert of an episode that is over or too long.
    pub(crate) fn look(
        &mut self,
        lost: Option<Lost>,
        now: Instant,
        schema: &Schema,
    ) -> Option<AlertDocument> {
        if let Some(lost) = lost {
            self.add(lost, now);
        }
        let is_over = |episode: &Episode| now - episode.latest >= CALM || now - episode.began >= EPISODE_MAX;
        if self.0.as_ref().is_some_and(is_over) { self.end(schema) } else { None }
    }

    /// Adds partial matches that were dropped.
    pub(crate) fn give_up(&mut self, dropped: &Dropped, now: Instant, schema: &Schema) {
        let [first, last] = &dropped.events;
        self.add(
            Lost {
                event: who(first, schema),
                from: first.timestamp(),
                to: last.timestamp(),
                by_user: Vec::new(),
                by_kind: vec![(HALF_MATCHES, dropped.count)],
            },
            now,
        );
    }

    /// Ends the current episode at the end of input.
    pub(crate) fn end(&mut self, schema: &Schema) -> Option<AlertDocument> {
        self.0.take().map(|episode| episode.document(schema))
    }

    fn add(&mut self, lost: Lost, now: Instant) {
        let episode = self.0.get_or_insert_with(|| Episode {
            event: lost.event,
            from: lost.from,
            to: lost.to,
            records: 0,
            by_kind: BTreeMap::new(),
            by_user: BTreeMap::new(),
            began: now,
            latest: now,
        });
        (episode.to, episode.latest) = (lost.to, now);
        for (kind, count) in lost.by_kind {
            if kind != HALF_MATCHES {
                episode.records = episode.records.saturating_add(count);
            }
            let sum = episode.by_kind.entry(kind).or_default();
            *sum = sum.saturating_add(count);
        }
        for (user, count) in lost.by_user {
            if episode.by_user.len() < USERS_MAX || episode.by_user.contains_key(&user) {
                let sum = episode.by_user.entry(user).or_default();
                *sum = sum.saturating_add(count);
            }
        }
    }
}

impl Episode {
    fn reason(&self) -> String {
        let kinds = self.by_kind.iter().filter(|(kind, _)| **kind != HALF_MATCHES);
        let kinds: Vec<_> = kinds.map(|(kind, count)| format!("{count} of {kind}")).collect();
        let (records, from, to) = (self.records, self.from, self.to);
        let given_up = self.by_kind.get(HALF_MATCHES);
        let given_up =
            given_up.map(|count| format!("{count} partial matches were dropped")).unwrap_or_default();
        if kinds.is_empty() {
            return format!(
                "{given_up} between {from} and {to}: their users exceeded their share of memory; alerts may be missing"
            );
        }
        let and = if given_up.is_empty() { "" } else { " and " };
        let cause = self.by_user.iter().max_by_key(|(_, count)| **count);
        let cause =
            cause.map(|(user, count)| format!("; user {user} filled a ring and lost {count} of them"));
        format!(
            "{records} records were lost{and}{given_up} between {from} and {to}: {}{}; events of that time may be missing",
            kinds.join(", "),
            cause.unwrap_or_default()
        )
    }

    /// The users whose records were dropped because they filled a ring, by descending count.
    fn users(&self) -> Vec<serde_json::Value> {
        let mut users: Vec<_> = self.by_user.iter().collect();
        users.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        users.into_iter().map(|(user, count)| json!({"id": user.to_string(), "records": count})).collect()
    }

    fn document(&self, schema: &Schema) -> AlertDocument {
        let mut own = json!({"records": self.records, "by_kind": self.by_kind});
        if !self.by_user.is_empty() {
            own["by_user"] = self.users().into();
        }
        Statement {
            rule: &RULE,
            event: &self.event,
            from: self.from,
            to: self.to,
            reason: self.reason(),
            severity: Severity::Medium,
            risk_score: RISK_SCORE,
            guide: GUIDE,
            lost_records: Some(self.records),
            detail: ("lost", own),
        }
        .document(schema)
    }
}

/// The identifying fields of the event that displaced partial matches: host and actor, no long values.
fn who(event: &Event, schema: &Schema) -> Event {
    let known = [
        "event.id",
        "event.dataset",
        "user.id",
        "user.name",
        "process.pid",
        "process.entity_id",
        "process.executable",
        "process.name",
        "lapwing.actor.id",
        "lapwing.process.cgroup.path",
        "aws.cloudtrail.user_identity.arn",
        "cloud.account.id",
    ];
    let mut own = Fields::new();
    for (field, value) in event.fields() {
        let name = schema.name(field);
        if known.contains(&name) || name.starts_with("host.") {
            own.set(field, value.clone());
        }
    }
    Event::new(event.timestamp(), own, Vec::new())
}

/// The alert about an outage of the sensor.
pub(crate) fn down(down: &Down, schema: &Schema) -> AlertDocument {
    let Down { event, from, to, is_killed } = down;
    let seconds = to.since(*from).as_secs_f64();
    let reason = if *is_killed {
        format!(
            "the sensor was killed before it evaluated what it had read between {from} and {to}, {seconds:.1} s; later \
             records were kept by the kernel, and evaluated after the restart"
        )
    } else {
        format!(
            "the sensor was down between {from} and {to}, {seconds:.1} s: processes that started and ended in that time were not seen"
        )
    };
    let (severity, risk_score) =
        if *is_killed { (Severity::Medium, RISK_SCORE) } else { (Severity::Low, DOWN_RISK_SCORE) };
    Statement {
        rule: &RULE,
        event,
        from: *from,
        to: *to,
        reason,
        severity,
        risk_score,
        guide: DOWN_GUIDE,
        lost_records: None,
        detail: ("lost", json!({"down_seconds": seconds})),
    }
    .document(schema)
}

#[cfg(test)]
mod tests {
    use lapwing_engine::{Value, field};
    use serde_json::Value as Json;

    use super::*;

    fn lost(second: i64, by_kind: &[(&'static str, u64)]) -> Lost {
        let time = |second| Timestamp::from_nanos(second * 1_000_000_000);
        let mut own = Fields::new();
        own.set(field!("event.id"), format!("event-{second}"));
        own.set(field!("host.name"), "host");
        Lost {
            event: Event::new(time(second), own, Vec::new()),
            from: time(second - 1),
            to: time(second),
            by_kind: by_kind.to_vec(),
            by_user: Vec::new(),
        }
    }

    /// The alerts for losses at these seconds.
    fn alerts(seconds: &[u64], until: u64) -> Vec<Json> {
        let (schema, start) = (Schema::new(), Instant::now());
        let mut watch = LossTracker::default();
        let at = |second: u64| {
            let is_lost = seconds.contains(&second);
            let found = is_lost.then(|| lost(second as i64, &[("exec", 2), ("fork", 5)]));
            watch.look(found, start + Duration::from_secs(second), &schema)
        };
        let mut documents: Vec<_> = (1..=until).filter_map(at).collect();
        documents.extend(watch.end(&schema));
        documents.iter().map(|document| serde_json::from_slice(&document.json).unwrap()).collect()
    }

    #[test]
    fn an_episode_is_one_alert_with_counts_and_times() {
        let alerts = alerts(&[5, 6, 9], 30);
        assert_eq!(alerts.len(), 1);
        let alert = &alerts[0];
        assert_eq!(alert["lapwing"]["lost"], json!({"records": 21, "by_kind": {"exec": 6, "fork": 15}}));
        assert_eq!(alert["event"]["start"], "1970-01-01T00:00:04.000Z");
        assert_eq!(alert["event"]["end"], "1970-01-01T00:00:09.000Z");
        assert_eq!((&alert["event"]["kind"], &alert["host"]["name"]), (&json!("alert"), &json!("host")));
        let reason = alert["event"]["reason"].as_str().unwrap();
        assert!(reason.starts_with("21 records were lost between"), "{reason}");
        assert!(reason.contains("6 of exec, 15 of fork"), "{reason}");
    }

    #[test]
    fn dropped_partial_matches_are_an_alert_about_the_user_that_displaced_them() {
        let (schema, now) = (Schema::new(), Instant::now());
        let mut watch = LossTracker::default();
        let mut event = lost(7, &[]).event;
        event.set(field!("user.id"), "65534");
        event.set(field!("process.args"), Value::texts(vec!["long"; 10_000]));
        let event = std::sync::Arc::new(event);
        watch.give_up(&Dropped { count: 3, events: [event.clone(), event] }, now, &schema);
        let document = watch.look(None, now + CALM, &schema).unwrap();
        assert!(document.json.len() < 4096);
        let alert: Json = serde_json::from_slice(&document.json).unwrap();
        assert_eq!(alert["lapwing"]["lost"], json!({"records": 0, "by_kind": {"half_matches": 3}}));
        assert_eq!(alert["user"]["id"], "65534");
        let reason = alert["event"]["reason"].as_str().unwrap();
        assert!(reason.starts_with("3 partial matches were dropped between"), "{reason}");
    }

    #[test]
    fn a_sensor_that_was_down_is_an_alert_with_times() {
        let alert = |is_killed| -> Json {
            let Lost { event, from, to, .. } = lost(5, &[]);
            let document = super::down(&Down { event, from, to, is_killed }, &Schema::new());
            serde_json::from_slice(&document.json).unwrap()
        };
        let killed = alert(true);
        assert_eq!(killed["lapwing"]["alert"]["severity"], "medium");
        assert!(killed["event"]["reason"].as_str().unwrap().starts_with("the sensor was killed"), "{killed}");
        let alert = alert(false);
        assert_eq!(alert["event"]["start"], "1970-01-01T00:00:04.000Z");
        assert_eq!(alert["lapwing"]["lost"], json!({"down_seconds": 1.0}));
        assert_eq!(
            (&alert["rule"]["name"], &alert["lapwing"]["alert"]["severity"]),
            (&json!(RULE.name), &json!("low"))
        );
        let reason = alert["event"]["reason"].as_str().unwrap();
        assert!(reason.starts_with("the sensor was down between 1970-01-01T00:00:04.000Z and "), "{reason}");
    }

    #[test]
    fn separate_episodes_are_separate_alerts_and_an_endless_one_is_reported() {
        assert_eq!(alerts(&[5, 20], 60).len(), 2);
        assert_eq!(alerts(&[5], 6).len(), 1, "it ends with the agent");
        let all: Vec<_> = (1..=130).collect();
        let alerts = alerts(&all, 130);
        let counts: Vec<_> = alerts.iter().map(|alert| &alert["lapwing"]["lost"]["records"]).collect();
        assert_eq!(alerts.len(), 3, "{counts:?}");
        let sum: u64 = counts.iter().filter_map(|count| count.as_u64()).sum();
        assert_eq!(sum, 130 * 7);
        assert_ne!(alerts[0]["event"]["id"], alerts[1]["event"]["id"]);
        assert!(crate::alert::lost::LossTracker::default().end(&Schema::new()).is_none());
    }
}
