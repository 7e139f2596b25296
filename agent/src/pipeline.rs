//! The agent: who runs, who talks to whom, and who stops first.
//!
//! ```text
//! sensor ────▶ lane ─┐                     ┌─▶ sinks ─▶ upstream
//!                    ├─▶ ledger ─▶ store ──┤
//! cloudtrail ▶ lane ─┘      └─▶ alert log  └─▶ lapwing status
//! ```
//!
//! A lane is a thread with a source and an engine. The ledger is a thread that owns the alert log and the store. What
//! waits on the outside world runs on the edges' runtime. On SIGTERM the sources end; each lane hands over what it
//! has and ends; with the last of them the ledger has no more senders and makes everything durable; the sinks have
//! their time to deliver it; then all is over.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use lapwing_engine::{Engine, Loaded, Options, Rule, Schema};
use serde_json::json;

use crate::config::Config;
use crate::control::Server;
use crate::edges::{self, Edges};
use crate::lane::{self, Lane, LaneClient};
use crate::ledger::{self, LedgerClient, LedgerSender, Settings};
use crate::sensor::Sensor;
use crate::source::Source;
use crate::{privileges, report, rules};

/// The data streams of Elastic's that the sensor's events are.
pub(crate) const SENSOR_STREAMS: [&str; 2] =
    ["logs-endpoint.events.process-default", "logs-endpoint.events.network-default"];
/// How long the sensor must be quiet before the clock tells how far its stream has come. Its events are here in a
/// fraction of that.
const SENSOR_QUIET: Duration = Duration::from_secs(1);

/// Runs the agent until it is told to stop.
///
/// # Errors
/// What kept it from running: said before anything is started where it can be known then.
pub(crate) fn run(config: &Config) -> Result<()> {
    let started = Instant::now();
    let (loaded, schema) = load(config)?;
    let stop = Arc::new(AtomicBool::new(false));
    let sensor = if config.sensor.enabled { Some(Sensor::start(stop.clone())?) } else { None };
    privileges::drop_needless()?;

    let ledger = ledger::start(&Settings {
        alerts: &config.alerts,
        spool: &config.spool,
        state_dir: &config.state_dir,
        sinks: &[],
    })?;
    let edges = Edges::new()?;
    let lanes = Lanes {
        config,
        schema: &schema,
        rules: &loaded.rules,
        sender: &ledger.sender,
        client: &ledger.client,
    };
    let mut running = Vec::new();
    if let Some(sensor) = sensor {
        running.push(lanes.start("sensor", sensor, &SENSOR_STREAMS, Duration::ZERO, SENSOR_QUIET)?);
    }
    if running.is_empty() {
        bail!("there is nothing to watch: switch on the sensor, or name CloudTrail folders or queues");
    }
    let clients: Vec<LaneClient> = running.iter().map(|lane| lane.client.clone()).collect();
    serve(config, &edges, &clients, &schema, &loaded, &ledger.client, started)?;
    let reopen = ledger.client.clone();
    let stopped = stop.clone();
    edges::on_signals(&edges.handle(), move || stopped.store(true, Relaxed), move || reopen.reopen())?;
    edges::tell_service_manager(&edges.handle(), clients);
    let edges = edges.start(async {})?;
    tracing::info!("{} rules run on {} lanes", loaded.rules.len(), running.len());

    let mut outcome = Ok(());
    for lane in running {
        let ended = lane.thread.join().unwrap_or_else(|_| Err(anyhow!("a lane panicked")));
        // The agent does not go on with half of its sources: the service manager starts it anew.
        stop.store(true, Relaxed);
        outcome = outcome.and(ended);
    }
    drop(ledger.sender);
    edges.finish();
    drop(ledger.client);
    let written = ledger.thread.join().unwrap_or_else(|_| Err(anyhow!("the ledger panicked")));
    outcome.and(written)
}

/// Reads the rules, and tells what is wrong with any.
fn load(config: &Config) -> Result<(Loaded, Arc<Schema>)> {
    let mut schema = Schema::new();
    let loaded = rules::load(&config.rules.paths, &mut schema)?;
    for found in &loaded.reports {
        let level = if found.is_fault() { "refused" } else { "warning" };
        tracing::warn!("rule file {level}:\n{}", report::render(found, false));
    }
    Ok((loaded, Arc::new(schema)))
}

/// What lanes are made with.
struct Lanes<'a> {
    config: &'a Config,
    schema: &'a Arc<Schema>,
    rules: &'a [Arc<Rule>],
    sender: &'a LedgerSender,
    client: &'a LedgerClient,
}

impl Lanes<'_> {
    /// Starts a lane with the rules that read its data streams, and with what they knew when the agent stopped.
    fn start(
        &self,
        name: &'static str,
        source: impl Source + 'static,
        data_streams: &[&str],
        lateness: Duration,
        quiet: Duration,
    ) -> Result<lane::Running> {
        let options = Options { lateness, learn: self.config.rules.learn, ..Options::default() };
        let mut engine = Engine::new(self.schema.clone(), &rules::reading(self.rules, data_streams), options);
        let ids: Vec<_> = engine.rules().map(|rule| rule.id.clone()).collect();
        for id in ids {
            let mut restore = |key: String, value: Vec<u8>| {
                engine.restore(&id, &key, &value);
                Ok(())
            };
            self.client.rows(&lane::scope(&id), &mut restore).with_context(|| format!("rule {id}"))?;
        }
        Lane { name, source: Box::new(source), engine, ledger: self.sender.clone(), quiet }.start()
    }
}

/// Opens the control socket.
fn serve(
    config: &Config,
    edges: &Edges,
    lanes: &[LaneClient],
    schema: &Arc<Schema>,
    loaded: &Loaded,
    ledger: &LedgerClient,
    started: Instant,
) -> Result<()> {
    let refused = loaded.reports.iter().filter(|found| found.is_fault()).count();
    let enabled = loaded.rules.iter().filter(|rule| rule.enabled).count();
    let rules = json!({"loaded": loaded.rules.len(), "enabled": enabled, "refused_files": refused});
    let ledger = ledger.clone();
    let status = move || {
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "uptime_seconds": started.elapsed().as_secs(),
            "rules": rules,
            "ledger": ledger.report(),
        })
    };
    let _runtime = edges.handle();
    let _entered = _runtime.enter();
    let server = Server::bind(&config.control.socket, lanes.to_vec(), schema.clone(), status)?;
    edges.handle().spawn(server.run());
    Ok(())
}

/// Whether an agent uses this state folder now.
pub(crate) fn is_running(socket: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(socket).is_ok()
}
