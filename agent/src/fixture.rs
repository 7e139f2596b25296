//! Tests of rules: what happens and what alerts must come of it, in TOML beside the rule.
//!
//! ```toml
//! [event.exec]                       # a template
//! event = { category = ["process"], type = ["start"], action = "exec" }
//! host = { id = "h", os.type = "linux" }
//!
//! [[test]]
//! name = "netcat with -e"
//! events = [
//!     { from = "exec", process = { name = "nc", args = ["nc", "-e", "/bin/sh"] } },
//!     { from = "connect", after = "100ms", destination.ip = "10.0.0.1" },
//! ]
//! alerts = 1                         # or a list of what the alerts' documents must hold
//! ```
//!
//! A test of a rule of type `threat_match` has its `indicators`, as ECS documents:
//! `indicators = [{ threat.indicator.ip = "192.0.2.1" }]`.
//!
//! An event is its template with its own fields in place of the template's. Events follow each other by `after`, a
//! millisecond where it is not said; `repeat` and `every` make many of one. In place of `events`, `events_file` names a
//! recording, from the folder of the file that it stands in: NDJSON, a JSON array or CloudTrail's, compressed or not.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use lapwing_engine::detect::Indicators;
use lapwing_engine::explain::{Explainer, Explanation};
use lapwing_engine::{Engine, Event, Options, Output, Rule, Schema, Timestamp};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value as Json};

use crate::alert::{self, Evidence};
use crate::bounded;
use crate::rules::TESTS;
use crate::source::cloudtrail::Geo;
use crate::source::{Documents, Replay};

/// Most bytes of a file with tests.
const TESTS_BYTES_MAX: u64 = 64 << 20;

/// When the first event happens, in milliseconds since 1970: 2026-01-01T00:00:00Z.
const START_MILLIS: i64 = 1_767_225_600_000;
/// How long after the one before it an event happens, where it does not say.
const STEP: Duration = Duration::from_millis(1);
/// Deepest chain of templates.
const TEMPLATES_DEEP_MAX: usize = 8;
/// Most events of a recording that a test reads.
const RECORDED_MAX: usize = 1_000_000;
/// Most events that `repeat` makes of one.
const REPEAT_MAX: usize = 100_000;

/// The tests of one rule file.
pub(crate) struct Fixture {
    events: BTreeMap<String, Json>,
    pub(crate) tests: Vec<Test>,
}

/// One test.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Test {
    /// What it shows.
    pub(crate) name: String,
    /// What happens.
    #[serde(default)]
    events: Vec<Json>,
    /// A recording of it, in place of `events`.
    events_file: Option<PathBuf>,
    /// What is known of threats: ECS documents.
    #[serde(default)]
    indicators: Vec<Map<String, Json>>,
    /// What must come of it.
    alerts: Expected,
}

/// How a test went.
#[derive(Default)]
pub(crate) struct Outcome {
    /// What the rule does in place of what is expected; `None` where it does that.
    pub(crate) failure: Option<String>,
    /// Why, where it failed.
    pub(crate) explanation: Option<Explanation>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Expected {
    Count(usize),
    Documents(Vec<Json>),
}

#[derive(Deserialize)]
struct Tables {
    #[serde(default)]
    event: BTreeMap<String, Json>,
    #[serde(default)]
    test: Vec<Test>,
    /// What else is in the file: the rule, where the tests are in its file.
    #[serde(flatten)]
    others: BTreeMap<String, IgnoredAny>,
}

impl Fixture {
    /// The tests of a rule file: those in it, and those in the file beside it whose name ends in `.test.toml`.
    ///
    /// # Errors
    /// A file that cannot be read or holds no tests as they are written.
    pub(crate) fn read(rule_file: &Path) -> Result<Self> {
        let mut fixture = Self { events: BTreeMap::new(), tests: Vec::new() };
        for file in [rule_file.to_owned(), beside(rule_file)] {
            let text = match bounded::read_text(&file, TESTS_BYTES_MAX) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && file != rule_file => continue,
                text => text.with_context(|| format!("{} cannot be read", file.display()))?,
            };
            let tables: Tables = toml::from_str(&text)
                .with_context(|| format!("{}: the tests cannot be read", file.display()))?;
            if file != rule_file
                && let Some(key) = tables.others.keys().next()
            {
                bail!("{}: a file of tests has no key `{key}`", file.display());
            }
            fixture.events.extend(tables.event);
            let folder = file.parent().unwrap_or(Path::new(""));
            fixture.tests.extend(tables.test.into_iter().map(|mut test| {
                test.events_file = test.events_file.map(|events| folder.join(events));
                test
            }));
        }
        Ok(fixture)
    }

    /// Runs a test.
    ///
    /// # Errors
    /// A test that is wrong itself.
    pub(crate) fn run(&self, test: &Test, rule: &Arc<Rule>, schema: &Arc<Schema>) -> Result<Outcome> {
        let events = self.all_events(test, schema)?;
        let rule = Arc::new(Rule { enabled: true, ..(**rule).clone() });
        let mut indicators = Indicators::default();
        for (indicator, number) in test.indicators.iter().zip(1..) {
            indicators.push(indicator, format!("indicator {number}"));
        }
        let indicators = Arc::new(indicators);
        let mut engine = Engine::new(schema.clone(), std::slice::from_ref(&rule), Options::default())
            .with_indicators(&indicators);
        let mut output = Output::default();
        let mut latest = Timestamp::MIN;
        for event in &events {
            latest = latest.max(event.time());
            engine.push(event.clone(), &mut output);
            engine.advance(latest, &mut output);
        }
        engine.finish(&mut output);
        let documents = output.alerts.iter().map(|alert| {
            let document = alert::document(alert, schema, &Evidence::default());
            serde_json::from_slice(&document.json).context("an alert's document is no JSON")
        });
        let failure = test.alerts.differs(&documents.collect::<Result<Vec<Json>>>()?);
        let explanation = failure.is_some().then(|| {
            let mut explainer =
                Explainer::new(&rule, schema.clone(), Options::default()).with_indicators(&indicators);
            events.into_iter().for_each(|event| explainer.push(event));
            explainer.finish()
        });
        Ok(Outcome { failure, explanation })
    }

    /// The events of a test, written down or recorded.
    fn all_events(&self, test: &Test, schema: &Arc<Schema>) -> Result<Vec<Arc<Event>>> {
        let Some(file) = &test.events_file else {
            let events = self.events(test)?.into_iter();
            return events.map(|event| Ok(Arc::new(Event::from_json(schema, &event)?))).collect();
        };
        ensure!(test.events.is_empty(), "a test has either `events` or `events_file`");
        let mut replay = Replay::new(schema.clone(), Geo::default());
        let recorded = replay.events(Documents::open(file)?).take(RECORDED_MAX + 1);
        let events: Vec<_> = recorded.map(|recorded| Ok(Arc::new(recorded?.event))).collect::<Result<_>>()?;
        ensure!(events.len() <= RECORDED_MAX, "{} holds more than {RECORDED_MAX} events", file.display());
        Ok(events)
    }

    fn events(&self, test: &Test) -> Result<Vec<Json>> {
        let mut millis = START_MILLIS;
        let mut events = Vec::new();
        for written in &test.events {
            let written = written.as_object().context("an event must be a table")?;
            let mut event = self.merged(written, TEMPLATES_DEEP_MAX)?;
            let after = take_span(&mut event, "after")?.unwrap_or(STEP);
            let every = take_span(&mut event, "every")?.unwrap_or(STEP);
            let repeat = match event.remove("repeat") {
                None => 1,
                Some(times) => {
                    times.as_u64().and_then(|times| usize::try_from(times).ok()).unwrap_or(usize::MAX)
                }
            };
            if repeat > REPEAT_MAX {
                bail!("`repeat` must be a number up to {REPEAT_MAX}");
            }
            millis += i64::try_from(after.as_millis())?;
            for time in 0..repeat {
                millis += if time == 0 { 0 } else { i64::try_from(every.as_millis())? };
                let mut event = event.clone();
                event
                    .entry("@timestamp")
                    .or_insert_with(|| Timestamp::from_millis(millis).to_string().into());
                events.push(Json::Object(event));
            }
        }
        Ok(events)
    }

    /// An event on top of its template.
    fn merged(&self, written: &Map<String, Json>, depth: usize) -> Result<Map<String, Json>> {
        let mut event = match written.get("from") {
            None => Map::new(),
            Some(_) if depth == 0 => bail!("templates lie more than {TEMPLATES_DEEP_MAX} deep"),
            Some(from) => {
                let name = from.as_str().context("`from` must be the name of a template")?;
                let template = self.events.get(name).and_then(Json::as_object);
                self.merged(
                    template.ok_or_else(|| anyhow!("there is no template [event.{name}]"))?,
                    depth - 1,
                )?
            }
        };
        for (key, value) in written.iter().filter(|(key, _)| *key != "from") {
            merge(event.entry(key).or_insert(Json::Null), value);
        }
        Ok(event)
    }
}

/// Where the tests of a rule file lie that are not in it.
fn beside(rule_file: &Path) -> PathBuf {
    let stem = rule_file.file_stem().unwrap_or_default().to_string_lossy();
    rule_file.with_file_name(format!("{stem}{TESTS}"))
}

/// Puts a value in the place of another; tables are merged key by key. An empty string takes a field away.
fn merge(base: &mut Json, value: &Json) {
    match (base, value) {
        (Json::Object(base), Json::Object(value)) => {
            for (key, value) in value {
                merge(base.entry(key).or_insert(Json::Null), value);
            }
        }
        (base, Json::String(text)) if text.is_empty() => *base = Json::Null,
        (base, value) => *base = value.clone(),
    }
}

fn take_span(event: &mut Map<String, Json>, key: &str) -> Result<Option<Duration>> {
    let Some(span) = event.remove(key) else { return Ok(None) };
    let span = span.as_str().and_then(|text| text.parse::<jiff::SignedDuration>().ok());
    let span = span.and_then(|span| Duration::try_from(span).ok());
    span.map(Some).with_context(|| format!("`{key}` must be a time span such as \"100ms\""))
}

impl Expected {
    /// How the alerts differ from what is expected.
    fn differs(&self, documents: &[Json]) -> Option<String> {
        let count = match self {
            Self::Count(count) => *count,
            Self::Documents(expected) => expected.len(),
        };
        if documents.len() != count {
            let reasons: Vec<_> =
                documents.iter().filter_map(|document| document["event"]["reason"].as_str()).collect();
            return Some(format!("expected {count} alerts, found {}: {reasons:?}", documents.len()));
        }
        let Self::Documents(expected) = self else { return None };
        expected.iter().zip(documents).enumerate().find_map(|(index, (expected, found))| {
            missing(expected, found, &mut String::new()).map(|text| format!("alert {}: {text}", index + 1))
        })
    }
}

/// The first thing of `expected` that `found` does not hold.
fn missing(expected: &Json, found: &Json, path: &mut String) -> Option<String> {
    let Json::Object(keys) = expected else {
        return (expected != found).then(|| format!("{path} must be {expected} and is {found}"));
    };
    keys.iter().find_map(|(key, expected)| {
        let end = path.len();
        path.push_str(if end == 0 { "" } else { "." });
        path.push_str(key);
        let result = missing(expected, &found[key], path);
        path.truncate(end);
        result
    })
}
