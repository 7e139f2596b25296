//! Rule tests: events and the expected alerts, in TOML beside the rule.
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
//! An event is its template, overridden by its own fields. `after` is its distance from the event before, by default a
//! millisecond; `repeat` and `every` create many events from one. Instead of `events`, `events_file` names a recording,
//! relative to the folder of the test file: NDJSON, a JSON array or CloudTrail files, compressed or not.

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

/// Maximum size of a test file, in bytes.
const TESTS_BYTES_MAX: u64 = 64 << 20;

/// Time of the first event, in milliseconds since 1970: 2026-01-01T00:00:00Z.
const START_MILLIS: i64 = 1_767_225_600_000;
/// Default of `after`.
const STEP: Duration = Duration::from_millis(1);
/// Maximum depth of a chain of templates.
const TEMPLATES_DEEP_MAX: usize = 8;
/// Maximum number of events of a test, inline or recorded.
const EVENTS_MAX: usize = 1_000_000;
/// Maximum bytes of the documents of a test's alerts.
const ALERTS_BYTES_MAX: usize = 64 << 20;
/// Maximum value of `repeat`.
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
    /// Its name.
    pub(crate) name: String,
    /// The events.
    #[serde(default)]
    events: Vec<Json>,
    /// A recording, instead of `events`.
    events_file: Option<PathBuf>,
    /// Indicators: ECS documents.
    #[serde(default)]
    indicators: Vec<Map<String, Json>>,
    /// The expected alerts.
    alerts: Expected,
}

/// The result of a test.
#[derive(Default)]
pub(crate) struct TestResult {
    /// The difference from the expected alerts; `None` if the test passed.
    pub(crate) failure: Option<String>,
    /// The explanation of a failure.
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
    /// The rest of the file: the rule, if the tests are in its file.
    #[serde(flatten)]
    others: BTreeMap<String, IgnoredAny>,
}

impl Fixture {
    /// The tests of a rule file: those in it, and those in the file beside it whose name ends in `.test.toml`.
    ///
    /// # Errors
    /// A file cannot be read or is invalid.
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
                bail!("{}: unknown key `{key}` in a test file", file.display());
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
    /// The test is invalid.
    pub(crate) fn run(&self, test: &Test, rule: &Arc<Rule>, schema: &Arc<Schema>) -> Result<TestResult> {
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
        Ok(TestResult { failure, explanation })
    }

    /// Reads the events of a test one by one, so that they are not all in memory at once.
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
            ensure!(number < EVENTS_MAX, "{} contains more than {EVENTS_MAX} events", file.display());
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
            ensure!(count <= EVENTS_MAX, "a test may have at most {EVENTS_MAX} events");
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

    /// An event merged with its template.
    fn merged(&self, written: &Map<String, Json>, depth: usize) -> Result<Map<String, Json>> {
        let mut event = match written.get("from") {
            None => Map::new(),
            Some(_) if depth == 0 => bail!("templates are nested more than {TEMPLATES_DEEP_MAX} deep"),
            Some(from) => {
                let name = from.as_str().context("`from` must be the name of a template")?;
                let template = self.events.get(name).and_then(Json::as_object);
                self.merged(template.ok_or_else(|| anyhow!("unknown template [event.{name}]"))?, depth - 1)?
            }
        };
        for (key, value) in written.iter().filter(|(key, _)| *key != "from") {
            merge(event.entry(key).or_insert(Json::Null), value);
        }
        Ok(event)
    }
}

/// Documents of alerts, with their total size.
#[derive(Default)]
struct Documented {
    list: Vec<Json>,
    bytes: usize,
}

/// Converts the alerts so far to documents.
fn documents_of(output: &mut Output, schema: &Schema, documents: &mut Documented) -> Result<()> {
    output.changes.clear();
    for alert in output.alerts.drain(..) {
        let document = alert::document(&alert, schema, &Evidence::default());
        documents.bytes += document.json.len();
        ensure!(documents.bytes <= ALERTS_BYTES_MAX, "its alerts exceed {ALERTS_BYTES_MAX} bytes");
        let read = serde_json::from_slice(&document.json).context("the document of an alert is not JSON")?;
        documents.list.push(read);
    }
    Ok(())
}

fn text(file: File) -> std::io::Result<String> {
    String::from_utf8(bounded::whole(file, TESTS_BYTES_MAX)?)
        .map_err(|_| std::io::Error::new(std::io::ErrorKind::InvalidData, "the file is not text in UTF-8"))
}

/// The path of the test file beside a rule file.
fn beside(rule_file: &Path) -> PathBuf {
    let stem = rule_file.file_stem().unwrap_or_default().to_string_lossy();
    rule_file.with_file_name(format!("{stem}{TESTS}"))
}

/// Overrides a value; tables are merged key by key. An empty string removes a field.
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
    /// The difference between the alerts and the expected ones.
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

/// The first part of `expected` that `found` does not contain.
fn missing(expected: &Json, found: &Json, path: &mut String) -> Option<String> {
    let Json::Object(keys) = expected else {
        return (expected != found).then(|| format!("{path} must be {expected}, found {found}"));
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
