//! `new_terms`: events that bring a value which was not seen for a while.
//!
//! A term counts as seen from its last sighting for the length of the history window; every sighting prolongs that. An
//! empty history knows nothing, so that everything would be new: for the first `learn` after the first match, terms are
//! only learned. What was seen is kept by the caller, row by row, and of a term no more than its hash.

use std::time::Duration;

use super::brief::{digest, start};
use super::budget::{Holder, SharedBytes};
use super::terms::{Sighting, Terms};
use super::{Change, Finding, Findings, Hit, Limits};
use crate::event::{Event, FieldId, Timestamp, Value};

/// Most terms that one event with multi-valued fields brings.
const TERMS_OF_EVENT_MAX: usize = 256;
/// A sighting is only written down again when the last one written is this old: it moves the end of the window by less
/// than that, and a busy term does not write with every event.
const WRITE_STEP: Duration = Duration::from_secs(60);
/// Terms that are over are looked for so often in the length of the history.
const STEPS_OF_HISTORY: u32 = 64;
/// Between the values of one term in its row's key, as earlier versions wrote it.
const PARTED: char = '\u{1f}';
/// The row that says since when the rule has been learning.
const SINCE: &str = "since";
/// What the keys of terms' rows start with; their hash follows.
const SEEN: &str = "seen:";
/// The same in earlier versions, where the whole term followed.
const TERM: &str = "term:";
/// How much of a term its row shows to people.
const SHOWN_BYTES: usize = 48;

/// The memory of one new_terms rule.
#[derive(Debug)]
pub struct NewTerms {
    fields: Vec<FieldId>,
    history: Duration,
    learn: Duration,
    since: Option<Timestamp>,
    terms: Terms,
}

impl NewTerms {
    /// A detector that has seen nothing.
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

    /// Puts back a row that was given out as a [`Change`]; rows that cannot be read are passed over. A row of an earlier
    /// version is written anew.
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

    /// Takes an event that matched the rule's query.
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

    /// Keeps a sighting, and takes out the rows of those that must give way.
    fn remember(&mut self, term: u128, sighting: Sighting, changes: &mut Vec<Change>) {
        let gone = self.terms.put(term, sighting);
        changes.extend(gone.into_iter().map(|term| Change { key: key(term), value: None }));
    }

    /// Advances the time: no event before `now` will come.
    pub(crate) fn advance(&mut self, now: Timestamp, findings: &mut Findings) {
        let gone = self.terms.expire(now - self.history, self.history / STEPS_OF_HISTORY);
        findings.changes.extend(gone.into_iter().map(|term| Change { key: key(term), value: None }));
    }

    /// The terms of an event: every combination of the fields' values; none where a field is absent.
    fn terms(&self, event: &Event) -> Vec<Vec<Value>> {
        self.fields.iter().fold(vec![Vec::new()], |terms, field| {
            let longer = terms.iter().flat_map(|term: &Vec<Value>| {
                let values = event.values(*field);
                values.map(move |value| [term.as_slice(), &[value.into_owned()]].concat())
            });
            longer.take(TERMS_OF_EVENT_MAX).collect()
        })
    }

    /// Terms that were forgotten because of the limit.
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

/// The row of a term: when it was seen last, for whom it is kept, and how it begins.
fn row(term: u128, time: Timestamp, Holder([outer, inner]): Holder, texts: &[&str]) -> Change {
    let mut shown = String::new();
    for text in texts {
        shown.push(' ');
        shown.push_str(start(text, SHOWN_BYTES.saturating_sub(shown.len())));
    }
    let value = format!("{} {outer:08x} {inner:08x}{shown}", time.as_nanos());
    Change { key: key(term), value: Some(value.into_bytes()) }
}
