//! One case: the engine and the naive one, in turns over the same events.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lapwing_engine::{Engine, Event, Options, Output, Schema};
use lapwing_stream::Stream;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value as Json, json};

use super::Arguments;
use super::rules::Case;

/// Events that are made before they are shown: few enough to lie in the processor's caches, as those do that a sensor has
/// just made, and enough that looking at the clock does not count.
const CHUNK: usize = 128;
/// After how many events the engine's time advances, as the sensor's lane does after each read of its rings.
const BATCH: usize = 32;
/// Events that are shown before anything is measured.
const WARM_UP: usize = 50_000;
/// Events of which both engines must find the same.
const COMPARED: usize = 5_000;
/// How long the naive engine may take in a round.
const NAIVE_TIME: Duration = Duration::from_millis(200);

/// Measures a case.
pub(super) fn measure(case: &Case, arguments: &Arguments) -> Result<Json> {
    let mut schema = Schema::new();
    let loaded = case.set.load(arguments, &mut schema)?;
    let schema = Arc::new(schema);
    let mut engine = Engine::new(schema.clone(), &loaded.rules, Options::default());
    let mut stream = Stream::new(case.kind, arguments.seed);
    let mut found = 0;
    for _ in 0..WARM_UP / CHUNK {
        found += show(&mut engine, &chunk(&mut stream, CHUNK)).1;
    }
    let rss_mib = rss_mib()?;
    let mut naive = None;
    if !arguments.without_naive {
        compare(case, arguments, &schema, &loaded.rules)?;
        naive = Some(Engine::naive(schema, &loaded.rules, Options::default()));
    }
    let (mut rates, mut naive_rates) = (Vec::new(), Vec::new());
    for _ in 0..arguments.rounds.max(1) {
        let (mut time, mut naive_time, mut naive_events) = (Duration::ZERO, Duration::ZERO, 0);
        let chunks = arguments.events.div_ceil(CHUNK);
        for _ in 0..chunks {
            let events = chunk(&mut stream, CHUNK);
            let (spent, alerts) = show(&mut engine, &events);
            time += spent;
            found += alerts;
            if let Some(naive) = naive.as_mut().filter(|_| naive_time < NAIVE_TIME) {
                let few = &events[..BATCH];
                naive_time += show(naive, few).0;
                naive_events += few.len();
            }
        }
        rates.push((chunks * CHUNK) as f64 / time.as_secs_f64());
        naive_rates.push(naive_events as f64 / naive_time.as_secs_f64());
    }
    let rate = median(rates);
    let mut result = json!({"case": case.name(), "rules": engine.rules().count(),
        "events_per_second": rate.round(), "rss_mib": (rss_mib * 10.0).round() / 10.0, "alerts": found});
    if naive.is_some() {
        let naive_rate = median(naive_rates);
        result["naive_events_per_second"] = naive_rate.round().into();
        result["ratio"] = ((rate / naive_rate * 10.0).round() / 10.0).into();
    }
    Ok(result)
}

/// The next events of the stream.
fn chunk(stream: &mut Stream, count: usize) -> Vec<Arc<Event>> {
    stream.take(count).map(Arc::new).collect()
}

/// Shows events to an engine. Returns the processor time it took, and how many alerts there were.
fn show(engine: &mut Engine, events: &[Arc<Event>]) -> (Duration, usize) {
    let mut output = Output::default();
    let start = processor_time();
    for batch in events.chunks(BATCH) {
        for event in batch {
            engine.push(event.clone(), &mut output);
        }
        if let Some(last) = batch.last() {
            engine.advance(last.time(), &mut output);
        }
    }
    (processor_time() - start, output.alerts.len())
}

/// Both engines must find the same.
fn compare(
    case: &Case,
    arguments: &Arguments,
    schema: &Arc<Schema>,
    rules: &[Arc<lapwing_engine::Rule>],
) -> Result<()> {
    let events = chunk(&mut Stream::new(case.kind, arguments.seed), COMPARED);
    let found = |mut engine: Engine| {
        let mut output = Output::default();
        for event in &events {
            engine.push(event.clone(), &mut output);
            engine.advance(event.time(), &mut output);
        }
        engine.finish(&mut output);
        output.alerts.into_iter().map(|alert| alert.id).collect::<Vec<_>>()
    };
    let both = [
        found(Engine::new(schema.clone(), rules, Options::default())),
        found(Engine::naive(schema.clone(), rules, Options::default())),
    ];
    ensure!(both[0] == both[1], "{}: the engine and the naive one do not find the same", case.name());
    Ok(())
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn rss_mib() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.split_whitespace().next().context("no number after VmRSS")?.parse()?;
    Ok(kib / 1024.0)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
