//! Queries over recordings, with the semantics of Elasticsearch's EQL search.
//!
//! A recording has a first and a last event. So all of it is ordered before it is evaluated, and results can be
//! counted from either end. The evaluation is the same as for rules.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use smol_str::SmolStr;

use crate::detect::naive::compare;
use crate::detect::{
    Finding, Findings, Hit, Limits, LineageDetector, Matcher, Ordinal, SampleDetector, SequenceDetector,
};
use crate::event::{Event, FieldId, Schema, Timestamp, Value};
use crate::field;
use crate::lang::eql::{self, Pipe};
use crate::lang::query::Query;

/// Options of a search, with the names of Elasticsearch's EQL search API.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchOptions {
    /// The field that holds the event category.
    pub event_category_field: FieldId,
    /// The field that orders events of the same time, those without it last.
    pub tiebreaker_field: Option<FieldId>,
    /// Maximum number of results, also if a pipe requests more.
    pub size: usize,
    /// The end from which results are taken if there are more and no pipe sets it.
    pub result_position: ResultPosition,
    /// Maximum number of samples of one key.
    pub max_samples_per_key: usize,
    /// Maximum number of bytes of held events, which may be part of a result. Further events are ignored and counted in
    /// [`SearchResults::discarded`].
    pub events_bytes_max: usize,
}

impl Default for SearchOptions {
    fn default() -> Self {
        Self {
            event_category_field: field!("event.category"),
            tiebreaker_field: None,
            size: 10,
            result_position: ResultPosition::Tail,
            max_samples_per_key: 1,
            events_bytes_max: 2 << 30,
        }
    }
}

/// An end of a recording. Results are in ascending order in both cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultPosition {
    /// The earliest results.
    Head,
    /// The latest results.
    Tail,
}

/// A query that is run over a recording. `T` is the caller's handle of an event, such as its text or its number. It is
/// requested only if the event may be part of a result.
///
/// ```
/// use lapwing_engine::lang::eql;
/// use lapwing_engine::{Event, Schema, Search, SearchOptions};
///
/// let mut schema = Schema::new();
/// let text = r#"sequence by user.name [process where process.name == "id"] [process where process.name == "curl"]"#;
/// let (query, _warnings) = eql::parse_search(text, &mut schema).expect("a query");
/// let mut search = Search::new(query, &schema, SearchOptions::default());
/// // The search orders the events by time.
/// for (time, user, program) in [(3, "eve", "curl"), (1, "eve", "id"), (2, "bob", "curl")] {
///     let event = serde_json::json!({"@timestamp": time, "event.category": "process", "user.name": user,
///         "process.name": program});
///     search.push(Event::from_json(&schema, &event)?, || time);
/// }
/// let results = search.finish();
/// assert_eq!(results.found[0].events, [Some(1), Some(3)]);
/// assert_eq!(results.found[0].keys, [Some("eve".into())]);
/// # Ok::<(), lapwing_engine::EventError>(())
/// ```
#[derive(Debug)]
pub struct Search<T> {
    query: Query,
    pipes: Vec<Pipe>,
    options: SearchOptions,
    matcher: Matcher,
    held: Vec<Held<T>>,
    held_bytes: usize,
    pushed: u64,
    matched: u64,
    discarded: u64,
}

/// The results of a search.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchResults<T> {
    /// The results, in ascending order of their last events.
    pub found: Vec<Match<T>>,
    /// The number of results before `size` and the pipes.
    pub total: u64,
    /// Events and partial matches that were dropped because of a limit. If this is not zero, results may be missing,
    /// and sequences with missing events (`![…]`) may be wrong.
    pub discarded: u64,
}

/// One result.
#[derive(Clone, Debug, PartialEq)]
pub struct Match<T> {
    /// The join keys of a sequence or sample, as text; `None` for an optional key that is absent.
    pub keys: Vec<Option<SmolStr>>,
    /// The event, or those of a sequence or sample in the order of the query's stages; `None` for a stage that must be
    /// missing.
    pub events: Vec<Option<T>>,
}

/// An event that matched a part of the query.
#[derive(Debug)]
struct Held<T> {
    event: Arc<Event>,
    tiebreaker: Option<Value>,
    arrival: u64,
    parts: Vec<usize>,
    known_by: T,
}

impl<T: Clone> Search<T> {
    /// A search without events. `schema` is the one with which the query was parsed.
    #[must_use]
    pub fn new(search: eql::PipedQuery, schema: &Schema, options: SearchOptions) -> Self {
        let eql::PipedQuery { query, pipes } = search;
        let parts = query.events().cloned();
        let parts: Vec<_> =
            parts.map(|part| part.with_category_in(options.event_category_field, schema)).collect();
        let matcher = Matcher::new(&parts);
        Self {
            query,
            pipes,
            options,
            matcher,
            held: Vec::new(),
            held_bytes: 0,
            pushed: 0,
            matched: 0,
            discarded: 0,
        }
    }

    /// Whether results are single events, and not sequences or samples.
    #[must_use]
    pub fn is_for_events(&self) -> bool {
        matches!(self.query.inner(), Query::Event(_))
    }

    /// Adds an event. It is held only if it may be part of a result.
    pub fn push(&mut self, event: impl Into<Arc<Event>>, known_by: impl FnOnce() -> T) {
        let event = event.into();
        self.pushed += 1;
        let parts: Vec<_> = self.matcher.matching(&event).iter().map(|part| *part as usize).collect();
        if parts.is_empty() {
            return;
        }
        self.matched += 1;
        if matches!(self.query, Query::Event(_)) && self.held.len() >= 2 * self.options.size.max(512) {
            // No more than `size` of the events held so far can be results.
            self.sort();
            let end = self.end();
            cut(&mut self.held, end, self.options.size);
            self.held_bytes = self.held.iter().map(|held| held.event.held_bytes()).sum();
        }
        let bytes = self.held_bytes + event.held_bytes();
        if bytes > self.options.events_bytes_max {
            self.discarded += 1;
            return;
        }
        self.held_bytes = bytes;
        let tiebreaker = self.options.tiebreaker_field.and_then(|field| event.values(field).next());
        let tiebreaker = tiebreaker.map(Cow::into_owned);
        self.held.push(Held { event, tiebreaker, arrival: self.pushed, parts, known_by: known_by() });
    }

    /// Orders the events, evaluates them, and returns the requested number of results.
    #[must_use]
    pub fn finish(mut self) -> SearchResults<T> {
        self.sort();
        self.relate();
        let (mut found, total) = match &self.query {
            Query::Event(_) => (self.single(), self.matched),
            _ => {
                let found = self.joined();
                let total = found.len() as u64;
                (found, total)
            }
        };
        cut(&mut found, self.end(), self.options.size);
        for pipe in &self.pipes {
            let (end, count) = match pipe {
                Pipe::Head(count) => (ResultPosition::Head, *count),
                Pipe::Tail(count) => (ResultPosition::Tail, *count),
            };
            cut(&mut found, end, usize::try_from(count).unwrap_or(usize::MAX));
        }
        SearchResults { found, total, discarded: self.discarded }
    }

    /// The end from which `size` counts. The first pipe sets it, as in Elasticsearch.
    fn end(&self) -> ResultPosition {
        match self.pipes.first() {
            Some(Pipe::Head(_)) => ResultPosition::Head,
            Some(Pipe::Tail(_)) => ResultPosition::Tail,
            None => self.options.result_position,
        }
    }

    fn sort(&mut self) {
        self.held.sort_by(Held::order);
    }

    /// Evaluates the conditions on the ancestry of processes, and removes them from the query.
    fn relate(&mut self) {
        let Query::Lineage(lineage) = &self.query else { return };
        let limits = Limits { lineage_bytes_max: usize::MAX, ..Limits::default() };
        let mut detector = LineageDetector::new(lineage, limits);
        self.held.retain_mut(|held| {
            let ordinal = Ordinal { time: held.event.time(), sequence: 0, arrival: held.arrival };
            let hit = Hit::new(held.event.clone(), ordinal, std::mem::take(&mut held.parts));
            held.parts = detector.event(&hit).map(|hit| hit.parts).unwrap_or_default();
            !held.parts.is_empty()
        });
        self.matched = self.held.len() as u64;
        self.query = self.query.inner().clone();
    }

    /// The results of a query for single events.
    fn single(&self) -> Vec<Match<T>> {
        let one = |held: &Held<T>| Match { keys: Vec::new(), events: vec![Some(held.known_by.clone())] };
        self.held.iter().map(one).collect()
    }

    /// The results of a sequence or sample.
    fn joined(&mut self) -> Vec<Match<T>> {
        let mut detector = Detector::new(&self.query);
        let mut findings = Findings::default();
        for (place, held) in self.held.iter().enumerate() {
            let time = held.event.time();
            // The events are sorted, so that their index is their order.
            let ordinal = Ordinal { time, sequence: 0, arrival: place as u64 };
            let hit = Hit::new(held.event.clone(), ordinal, held.parts.clone());
            detector.event(&hit, time, &mut findings);
        }
        self.discarded += detector.finish(&mut findings);
        let places: HashMap<_, _> =
            self.held.iter().enumerate().map(|(place, held)| (Arc::as_ptr(&held.event), place)).collect();
        let place = |event: &Arc<Event>| places.get(&Arc::as_ptr(event)).copied();
        let mut found = findings.found;
        if matches!(self.query, Query::Sample(_)) {
            first_of_each_key(&mut found, self.options.max_samples_per_key);
        }
        // A sequence with missing events at its end is found late.
        found.sort_by_key(|finding| finding.events.iter().flatten().filter_map(place).max());
        let known = |event: &Arc<Event>| place(event).map(|place| self.held[place].known_by.clone());
        let joined = |Finding { keys, events, .. }| Match {
            keys,
            events: events.iter().map(|event| event.as_ref().and_then(known)).collect(),
        };
        found.into_iter().map(joined).collect()
    }
}

impl<T> Held<T> {
    /// By time, then by tiebreaker, then by arrival.
    fn order(&self, other: &Self) -> Ordering {
        let tie = || match (&self.tiebreaker, &other.tiebreaker) {
            (Some(left), Some(right)) => compare(left, right).unwrap_or(Ordering::Equal),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => Ordering::Equal,
        };
        let time = self.event.time().cmp(&other.event.time());
        time.then_with(tie).then(self.arrival.cmp(&other.arrival))
    }
}

/// The detector that joins events. A query for single events needs none.
enum Detector {
    None,
    Sequence(Box<SequenceDetector>),
    Sample(Box<SampleDetector>),
}

impl Detector {
    fn new(query: &Query) -> Self {
        // The search itself bounds the memory, and evaluates the whole recording.
        let limits = Limits { sequence_bytes_max: usize::MAX, ..Limits::default() };
        match query {
            Query::Event(_) | Query::Lineage(_) => Self::None,
            Query::Sequence(sequence) => {
                Self::Sequence(SequenceDetector::new(sequence, Duration::MAX, limits).into())
            }
            Query::Sample(sample) => Self::Sample(SampleDetector::new(sample, Duration::MAX, limits).into()),
        }
    }

    fn event(&mut self, hit: &Hit, now: Timestamp, findings: &mut Findings) {
        match self {
            Self::None => {}
            Self::Sequence(sequence) => {
                sequence.event(hit, findings);
                sequence.advance(now, findings);
            }
            Self::Sample(sample) => sample.event(hit, findings),
        }
    }

    /// Ends all time spans. Returns how much was evicted because of a limit.
    fn finish(&mut self, findings: &mut Findings) -> u64 {
        match self {
            Self::None => 0,
            Self::Sequence(sequence) => {
                sequence.advance(Timestamp::MAX, findings);
                sequence.discarded()
            }
            Self::Sample(sample) => sample.discarded(),
        }
    }
}

/// Keeps `count` values at this end, and drops the others.
fn cut<V>(values: &mut Vec<V>, end: ResultPosition, count: usize) {
    match end {
        ResultPosition::Head => values.truncate(count),
        ResultPosition::Tail => drop(values.drain(..values.len().saturating_sub(count))),
    }
}

fn first_of_each_key(found: &mut Vec<Finding>, count: usize) {
    let mut seen: HashMap<Vec<Option<SmolStr>>, usize> = HashMap::new();
    found.retain(|finding| {
        let seen = seen.entry(finding.keys.clone()).or_default();
        *seen += 1;
        *seen <= count
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(query: &str, options: SearchOptions, schema: &mut Schema) -> Search<i64> {
        let (query, _) = eql::parse_search(query, schema).unwrap();
        Search::new(query, schema, options)
    }

    fn numbers(results: &SearchResults<i64>) -> Vec<i64> {
        results.found.iter().flat_map(|found| found.events.iter().flatten().copied()).collect()
    }

    #[test]
    fn only_what_may_be_a_result_is_held() {
        for (end, expected) in [(ResultPosition::Head, [0, 1, 2]), (ResultPosition::Tail, [9997, 9998, 9999])]
        {
            let mut schema = Schema::new();
            let options = SearchOptions { size: 3, result_position: end, ..SearchOptions::default() };
            let mut search = search("any where true", options, &mut schema);
            for number in 0..10_000 {
                // Every number once, in no order.
                let time = number * 7919 % 10_000;
                let event = serde_json::json!({"@timestamp": time});
                search.push(Event::from_json(&schema, &event).unwrap(), || time);
                assert!(search.held.len() <= 1024);
            }
            let results = search.finish();
            assert_eq!((numbers(&results).as_slice(), results.total), (&expected[..], 10_000));
        }
    }

    #[test]
    fn what_cannot_be_held_is_counted() {
        let mut schema = Schema::new();
        let event = serde_json::json!({"@timestamp": 1, "event.category": "a"});
        let bytes = Event::from_json(&schema, &event).unwrap().held_bytes();
        let options = SearchOptions { events_bytes_max: 2 * bytes, ..SearchOptions::default() };
        let mut search = search("sequence [a where true] [b where true]", options, &mut schema);
        for (time, category) in [(1, "a"), (2, "c"), (3, "b"), (4, "a"), (5, "b")] {
            let event = serde_json::json!({"@timestamp": time, "event.category": category});
            search.push(Event::from_json(&schema, &event).unwrap(), || time);
        }
        let results = search.finish();
        assert_eq!((numbers(&results), results.discarded), (vec![1, 3], 2));
    }
}
