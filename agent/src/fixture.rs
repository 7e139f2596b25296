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
use std::fs::File;
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
use crate::rules::TESTS;
use crate::source::cloudtrail::Geo;
use crate::source::{Documents, Replay};
use crate::{bounded, folder};

/// Most bytes of a file with tests.
const TESTS_BYTES_MAX: u64 = 64 << 20;

/// When the first event happens, in milliseconds since 1970: 2026-01-01T00:00:00Z.
const START_MILLIS: i64 = 1_767_225_600_000;
/// How long after the one before it an event happens, where it does not say.
const STEP: Duration = Duration::from_millis(1);
/// Deepest chain of templates.
const TEMPLATES_DEEP_MAX: usize = 8;
/// Most events of a test, written down or recorded.
const EVENTS_MAX: usize = 1_000_000;
/// Most bytes of the documents of a test's alerts.
const ALERTS_BYTES_MAX: usize = 64 << 20;
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
            let text = match folder::named(&file).and_then(text) {
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
        let rule = Arc::new(Rule { enabled: true, ..(**rule).clone() });
        let mut indicators = Indicators::default();
        for (indicator, number) in test.indicators.iter().zip(1..) {
            indicators.push(indicator, format!("indicator {number}"));
        }
        let indicators = Arc::new(indicators);
        let mut engine = Engine::new(schema.clone(), std::slice::from_ref(&rule), Options::default())
            .with_indicators(&indicators);
        let mut output = Output::default();
        let mut documents = Documented::default();
        let mut latest = Timestamp::MIN;
        self.each_event(test, schema, |event| {
            latest = latest.max(event.time());
            engine.push(event, &mut output);
            engine.advance(latest, &mut output);
            documents_of(&mut output, schema, &mut documents)
        })?;
        engine.finish(&mut output);
        documents_of(&mut output, schema, &mut documents)?;
        let failure = test.alerts.differs(&documents.list);
        let mut explanation = None;
        if failure.is_some() {
            let mut explainer =
                Explainer::new(&rule, schema.clone(), Options::default()).with_indicators(&indicators);
            self.each_event(test, schema, |event| {
                explainer.push(event);
                Ok(())
            })?;
            explanation = Some(explainer.finish());
        }
        Ok(Outcome { failure, explanation })
    }

    /// Gives the events of a test, written down or recorded, one after the other: not all of them are in memory at once.
    fn each_event(
        &self,
        test: &Test,
        schema: &Arc<Schema>,
        mut each: impl FnMut(Arc<Event>) -> Result<()>,
    ) -> Result<()> {
        let Some(file) = &test.events_file else {
            return self.each_written(test, |event| each(Arc::new(Event::from_json(schema, event)?)));
        };
        ensure!(test.events.is_empty(), "a test has either `events` or `events_file`");
        let unreadable = || format!("{} cannot be read", file.display());
        let opened = folder::named(file).with_context(unreadable)?;
        let mut replay = Replay::new(schema.clone(), Geo::default());
        let recorded = replay.events(Documents::new(opened, &file.display().to_string())?);
        for (number, recorded) in recorded.enumerate() {
            ensure!(number < EVENTS_MAX, "{} holds more than {EVENTS_MAX} events", file.display());
            each(Arc::new(recorded?.event))?;
        }
        Ok(())
    }

    fn each_written(&self, test: &Test, mut each: impl FnMut(&Json) -> Result<()>) -> Result<()> {
        let (mut millis, mut count) = (START_MILLIS, 0);
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
            ensure!(repeat <= REPEAT_MAX, "`repeat` must be a number up to {REPEAT_MAX}");
            count += repeat;
            ensure!(count <= EVENTS_MAX, "a test may have {EVENTS_MAX} events");
            millis += i64::try_from(after.as_millis())?;
            let has_time = event.contains_key("@timestamp");
            let mut event = Json::Object(event);
            for time in 0..repeat {
                millis += if time == 0 { 0 } else { i64::try_from(every.as_millis())? };
                if !has_time {
                    event["@timestamp"] = Timestamp::from_millis(millis).to_string().into();
                }
                each(&event)?;
            }
        }
        Ok(())
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

/// The documents of alerts, and how long they are together.
#[derive(Default)]
struct Documented {
    list: Vec<Json>,
    bytes: usize,
}

/// Makes documents of the alerts so far.
fn documents_of(output: &mut Output, schema: &Schema, documents: &mut Documented) -> Result<()> {
    output.changes.clear();
    for alert in output.alerts.drain(..) {
        let document = alert::document(&alert, schema, &Evidence::default());
        documents.bytes += document.json.len();
        ensure!(documents.bytes <= ALERTS_BYTES_MAX, "its alerts take more than {ALERTS_BYTES_MAX} bytes");
        let read = serde_json::from_slice(&document.json).context("an alert's document is no JSON")?;
        documents.list.push(read);
    }
    Ok(())
}

fn text(file: File) -> std::io::Result<String> {
    String::from_utf8(bounded::whole(file, TESTS_BYTES_MAX)?)
        .map_err(|_| std::io::Error::new(std::io::ErrorKind::InvalidData, "the file is not text in UTF-8"))
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
