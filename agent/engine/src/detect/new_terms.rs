//! `new_terms`: events with a term that was not seen in the history window.
//!
//! A term counts as seen for the length of the history window after its last sighting. With an empty history every term
//! would be new. So for the time `learn` after the first match, terms are only learned. The caller stores the terms,
//! row by row, and only their hashes.

use std::time::Duration;

use super::brief::{digest, start};
use super::budget::{Holder, SharedBytes};
use super::terms::{Sighting, Terms};
use super::{Change, Finding, Findings, Hit, Limits};
use crate::event::{Event, FieldId, Timestamp, Value};

/// Maximum number of terms of one event with multi-valued fields.
const TERMS_OF_EVENT_MAX: usize = 256;
/// A sighting is stored again only when the stored one is this old. So a frequent term is not written with every event,
/// and the stored end of its window is at most this much too early.
const WRITE_STEP: Duration = Duration::from_secs(60);
/// How often expired terms are searched for within the length of the history.
const STEPS_OF_HISTORY: u32 = 64;
/// The separator of the values of a term in a row's key of earlier versions.
const PARTED: char = '\u{1f}';
/// The key of the row with the start of learning.
const SINCE: &str = "since";
/// Prefix of the keys of term rows. The hash follows.
const SEEN: &str = "seen:";
/// The prefix in earlier versions. The full term follows.
const TERM: &str = "term:";
/// Bytes of a term that its row contains for people.
const SHOWN_BYTES: usize = 48;

/// The state of one new_terms rule.
#[derive(Debug)]
pub struct NewTerms {
    fields: Vec<FieldId>,
    history: Duration,
    learn: Duration,
    since: Option<Timestamp>,
    terms: Terms,
}

impl NewTerms {
    /// A detector without state.
    #[must_use]
    pub(crate) fn new(
        fields: Vec<FieldId>,
        history: Duration,
        learn: Duration,
        limits: Limits,
        pool: &SharedBytes,
    ) -> Self {
        Self { fields, history, learn, since: None, terms: Terms::new(pool, limits.terms_bytes_max) }
    }

    /// Restores a row that was returned as a [`Change`]. Rows that cannot be read are skipped. A row of an earlier
    /// version is rewritten.
    pub(crate) fn restore(&mut self, key: &str, value: &[u8], changes: &mut Vec<Change>) {
        let Ok(value) = std::str::from_utf8(value) else { return };
        let mut parts = value.split(' ');
        let Some(time) = parts.next().and_then(|time| time.parse().ok()).map(Timestamp::from_nanos) else {
            return;
        };
        if key == SINCE {
            self.since = Some(time);
        } else if let Some(term) = key.strip_prefix(SEEN).and_then(|hash| u128::from_str_radix(hash, 16).ok())
        {
            let actor = [parts.next(), parts.next()].map(|part| u32::from_str_radix(part?, 16).ok());
            let actor = Holder(actor.map(Option::unwrap_or_default));
            self.remember(term, Sighting { seen: time, written: time, actor }, changes);
        } else if let Some(text) = key.strip_prefix(TERM) {
            let values: Vec<_> = text.split(PARTED).collect();
            let (term, actor) = (digest(&values), Holder::default());
            changes.push(Change { key: key.to_owned(), value: None });
            changes.push(row(term, time, actor, &values));
            self.remember(term, Sighting { seen: time, written: time, actor }, changes);
        }
    }

    /// Evaluates an event that matched the rule's query.
    pub(crate) fn event(&mut self, hit: &Hit, findings: &mut Findings) {
        let time = hit.ordinal.time;
        let since = match self.since {
            Some(since) => since,
            None => {
                self.since = Some(time);
                let value = Some(time.as_nanos().to_string().into_bytes());
                findings.changes.push(Change { key: SINCE.to_owned(), value });
                time
            }
        };
        for values in self.terms(&hit.event) {
            let texts: Vec<_> = values.iter().map(Value::key).collect();
            let texts: Vec<_> = texts.iter().map(|text| text.as_str()).collect();
            let term = digest(&texts);
            let before = self.terms.get(term);
            let new = before.is_none_or(|before| before.seen + self.history < time);
            let seen = before.map_or(time, |before| before.seen.max(time));
            let actor = before.map_or_else(|| Holder::of(&hit.event), |before| before.actor);
            let written = before.map(|before| before.written).filter(|written| *written + WRITE_STEP > seen);
            if written.is_none() {
                findings.changes.push(row(term, seen, actor, &texts));
            }
            let sighting = Sighting { seen, written: written.unwrap_or(seen), actor };
            self.remember(term, sighting, &mut findings.changes);
            if new && since + self.learn <= time {
                let events = vec![Some(hit.event.clone())];
                findings.found.push(Finding { events, new_terms: values, ..Finding::default() });
            }
        }
    }

    /// Stores a sighting, and deletes the rows of evicted terms.
    fn remember(&mut self, term: u128, sighting: Sighting, changes: &mut Vec<Change>) {
        let gone = self.terms.put(term, sighting);
        changes.extend(gone.into_iter().map(|term| Change { key: key(term), value: None }));
    }

    /// Advances the time: no event before `now` will come.
    pub(crate) fn advance(&mut self, now: Timestamp, findings: &mut Findings) {
        let gone = self.terms.expire(now - self.history, self.history / STEPS_OF_HISTORY);
        findings.changes.extend(gone.into_iter().map(|term| Change { key: key(term), value: None }));
    }

    /// The terms of an event: all combinations of the fields' values; none if a field is absent.
    fn terms(&self, event: &Event) -> Vec<Vec<Value>> {
        self.fields.iter().fold(vec![Vec::new()], |terms, field| {
            let longer = terms.iter().flat_map(|term: &Vec<Value>| {
                let values = event.values(*field);
                values.map(move |value| [term.as_slice(), &[value.into_owned()]].concat())
            });
            longer.take(TERMS_OF_EVENT_MAX).collect()
        })
    }

    /// Terms that were evicted because of the limit.
    pub(crate) fn discarded(&self) -> u64 {
        self.terms.discarded()
    }

    /// Bytes that it holds.
    pub(crate) fn bytes(&self) -> usize {
        self.terms.bytes()
    }
}

fn key(term: u128) -> String {
    format!("{SEEN}{term:032x}")
}

/// The row of a term: its last time, its holder, and its beginning.
fn row(term: u128, time: Timestamp, Holder([outer, inner]): Holder, texts: &[&str]) -> Change {
    let mut shown = String::new();
    for text in texts {
        shown.push(' ');
        shown.push_str(start(text, SHOWN_BYTES.saturating_sub(shown.len())));
    }
    let value = format!("{} {outer:08x} {inner:08x}{shown}", time.as_nanos());
    Change { key: key(term), value: Some(value.into_bytes()) }
}
