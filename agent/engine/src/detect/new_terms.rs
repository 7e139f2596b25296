//! `new_terms`: events that bring a value which was not seen for a while.
//!
//! A term counts as seen from its last sighting for the length of the history window; every sighting prolongs that. An
//! empty history knows nothing, so that everything would be new: for the first `learn` after the first match, terms are
//! only learned. What was seen is kept by the caller, row by row.

use std::time::Duration;

use smol_str::SmolStr;

use super::actor::Charge;
use super::window::Window;
use super::{Change, Finding, Findings, Hit, Limits};
use crate::event::{Event, FieldId, Timestamp, Value};

/// Most terms that one event with multi-valued fields brings.
const TERMS_OF_EVENT_MAX: usize = 256;
/// A sighting is only written down again when the last one written is this old: it moves the end of the window by less
/// than that, and a busy term does not write with every event.
const WRITE_STEP: Duration = Duration::from_secs(60);
/// Between the values of one term in its row's key.
const PARTED: char = '\u{1f}';
/// The row that says since when the rule has been learning.
const SINCE: &str = "since";
/// What the keys of terms' rows start with.
const TERM: &str = "term:";

/// The memory of one new_terms rule.
#[derive(Debug)]
pub struct NewTerms {
    fields: Vec<FieldId>,
    history: Duration,
    learn: Duration,
    since: Option<Timestamp>,
    /// When each term was seen last, and when that was written down last.
    seen: Window<SmolStr, Timestamp>,
}

impl NewTerms {
    /// A detector that has seen nothing.
    #[must_use]
    pub fn new(fields: Vec<FieldId>, history: Duration, learn: Duration, limits: Limits) -> Self {
        Self { fields, history, learn, since: None, seen: Window::new(limits.terms_max) }
    }

    /// Puts back a row that was given out as a [`Change`]; rows that cannot be read are passed over.
    pub(crate) fn restore(&mut self, key: &str, value: &[u8]) {
        let time =
            std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).map(Timestamp::from_nanos);
        match (key, key.strip_prefix(TERM), time) {
            (SINCE, _, time) => self.since = time,
            (_, Some(term), Some(time)) => {
                self.seen.insert(term.into(), time, Charge { bytes: 1, ..Charge::default() }, time);
            }
            _ => {}
        }
    }

    /// Takes an event that matched the rule's query.
    pub(crate) fn event(&mut self, hit: &Hit, findings: &mut Findings) {
        let time = hit.ordinal.time;
        let since = match self.since {
            Some(since) => since,
            None => {
                self.since = Some(time);
                findings.changes.push(row(SINCE.to_owned(), Some(time)));
                time
            }
        };
        for values in self.terms(&hit.event) {
            let parts: Vec<_> = values.iter().map(Value::key).collect();
            let term = SmolStr::from(parts.join(&PARTED.to_string()));
            let before = self.seen.get(&term).map(|(seen, written)| (seen, *written));
            let new = before.is_none_or(|(seen, _)| seen + self.history < time);
            self.remember(term, time, before, findings);
            if new && since + self.learn <= time {
                let events = vec![Some(hit.event.clone())];
                findings.found.push(Finding { events, new_terms: values, ..Finding::default() });
            }
        }
    }

    fn remember(
        &mut self,
        term: SmolStr,
        time: Timestamp,
        before: Option<(Timestamp, Timestamp)>,
        findings: &mut Findings,
    ) {
        let seen = before.map_or(time, |(seen, _)| seen.max(time));
        let due = before.is_none_or(|(_, written)| written + WRITE_STEP <= seen);
        let written = if due { seen } else { before.map_or(seen, |(_, written)| written) };
        if due {
            findings.changes.push(row(format!("{TERM}{term}"), Some(seen)));
        }
        let gone = self.seen.insert(term, seen, Charge { bytes: 1, ..Charge::default() }, written);
        findings.changes.extend(gone.iter().map(|(term, _)| row(format!("{TERM}{term}"), None)));
    }

    /// Tells that no event before `now` will come any more.
    pub(crate) fn advance(&mut self, now: Timestamp, findings: &mut Findings) {
        let gone = self.seen.expire(now - self.history);
        findings.changes.extend(gone.iter().map(|(term, _)| row(format!("{TERM}{term}"), None)));
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
        self.seen.discarded()
    }
}

fn row(key: String, time: Option<Timestamp>) -> Change {
    Change { key, value: time.map(|time| time.as_nanos().to_string().into_bytes()) }
}
