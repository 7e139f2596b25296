//! The agent: its threads, their channels, and the order in which they stop.
//!
//! ```text
//! sensor ────▶ lane ─┐                     ┌─▶ sinks ─▶ upstream
//!                    ├─▶ ledger ─▶ store ──┤
//! cloudtrail ▶ lane ─┘      └─▶ alert log  └─▶ lapwing status
//! ```
//!
//! A lane is a thread with a source and its engines. The ledger is a thread that owns the alert log and the store. What
//! waits on the outside world runs on an async runtime. On SIGTERM the sources end; each lane hands over what it has
//! and ends; after the last lane the ledger has no more senders and makes everything durable; then the sinks deliver
//! it. Each step has a time limit, and a thread that hangs is left behind, so that the process ends after [`END_MAX`]
//! whatever the disk and upstream do.

mod restored;
mod status;

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use lapwing_engine::detect::{Indicators, Limits, Weights};
use lapwing_engine::{Engine, Exception, Exceptions, Loaded, Options, Rule, Schema, field};

use self::restored::Settled;
use self::status::About;
use crate::config::Config;
use crate::integrity::{self, Plan, Rows, Written};
use crate::lane::{self, Bell, EventView, Lane, LaneClient, LaneHandle, RuleView};
use crate::ledger::{self, LedgerClient, LedgerSender, Settings};
use crate::runtime::{self, AsyncRuntime, RuntimeThread, join_by};
use crate::sensor::{self, LAST_SEEN_SCOPE, Sensor, StoredFds, Wanted, as_auditd};
use crate::source::Source;
use crate::source::cloudtrail::{CloudTrail, Control};
use crate::store::Change;
use crate::trace::Trace;
use crate::{clock, coverage, indicators, privileges, report, rules, sink, store, streams, trim_rss};

/// The scope of the store's rows about the files that the agent loaded.
const FILES_SCOPE: &str = "files";
/// Why an agent without a source does not run.
pub(crate) const NO_SOURCE: &str =
    "no source is configured: enable the sensor, or add CloudTrail folders or queues";
/// How late CloudTrail's events may come: AWS delivers them within about five minutes, and rarely in more than fifteen.
const CLOUDTRAIL_LATENESS: Duration = Duration::from_secs(900);
/// How the engines share the limits of all rules ([`Limits`]). The parts are fixed, so that one source takes no room
/// from the rules of another. Most rules are about the host, and most jobs about CloudTrail.
const HOST: Weights = Weights { state: 4, terms: 4, jobs: 1 };
const AUDITD: Weights = Weights { state: 1, terms: 1, jobs: 1 };
const CLOUDTRAIL: Weights = Weights { state: 2, terms: 1, jobs: 6 };
/// How long CloudTrail must be quiet before the clock sets the time of its stream.
const CLOUDTRAIL_QUIET: Duration = Duration::from_secs(300);
/// How long the sensor must be quiet before the clock sets the time of its stream. Its events arrive in a fraction of
/// that.
const SENSOR_QUIET: Duration = Duration::from_secs(1);

/// How long after a stop lanes, then the runtime, and then the ledger may still run.
const LANES_END_MAX: Duration = Duration::from_secs(6);
const RUNTIME_END_MAX: Duration = Duration::from_millis(8500);
const LEDGER_END_MAX: Duration = Duration::from_secs(9);
/// How long after the start the threads have finished the code that only their start needs.
const THREADS_START: Duration = Duration::from_secs(1);
/// How long after a stop the process ends in any case, even if its own log blocks.
const END_MAX: Duration = Duration::from_millis(9500);

/// Runs the agent until it has to stop. `path` is the file that the configuration was read from.
///
/// # Errors
/// What prevents it from running, found before anything is started where that is possible.
pub(crate) fn run(config: &Config, path: &Path) -> Result<()> {
    let started = Instant::now();
    trim_rss::share_heaps();
    runtime::ignore_rlimit_signals()?;
    let plan = config.sensor.enabled.then(|| Plan::new(path, &config.rules, &config.indicators));
    let Rules { loaded, exceptions, indicators, schema } = Rules::load(config)?;
    let sinks = sink::sinks(&config.sink, &config.dead_letters())?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut sensor =
        config.sensor.enabled.then(|| start_sensor(config, &loaded, &exceptions, &stop)).transpose()?;
    privileges::drop_capabilities()?;

    let names: Vec<_> = config.sink.iter().map(|sink| sink.name().to_owned()).collect();
    let ledger = ledger::start(&Settings {
        alerts: &config.alerts,
        spool: &config.spool,
        state_dir: &config.state_dir,
        sinks: &names,
    })?;
    let client = Arc::new(ledger.client.clone());
    let written = written(config, &ledger.traces, &client)?;
    watch_files(sensor.as_mut(), plan, written, &stop)?;
    let (runtime, upstream) = (AsyncRuntime::new()?, AsyncRuntime::new()?);
    let (bell, rung) = crossbeam_channel::unbounded();
    let lanes = Lanes {
        config,
        schema: &schema,
        rules: &loaded.rules,
        exceptions: &exceptions.list,
        indicators: &indicators,
        sender: &ledger.sender,
        client: &ledger.client,
        bell: &bell,
    };
    let Sources { running, cloudtrail } = lanes.start_all(sensor, &runtime)?;
    let clients: Vec<LaneClient> = running.iter().map(|lane| lane.client.clone()).collect();
    let (control, queues_ended) = cloudtrail.unzip();
    let stop = Stop { sensor: stop, cloudtrail: control.clone(), ledger: ledger.client.clone(), bell };
    let stopped = stop.clone();
    runtime::on_signals(&runtime.handle(), move || stopped.all(), on_reload(&ledger, control))?;
    let about = About {
        config,
        loaded: &loaded,
        exceptions_refused: exceptions.refused,
        schema: &schema,
        sinks: &sinks,
        started,
    };
    about.serve(&runtime, &clients, &ledger.client)?;
    let delivered = upstream.handle().spawn(sink::run(sinks, ledger.client.clone()));
    let upstream = upstream.start("sinks", async move {
        // A task that panicked has logged it.
        let _ = delivered.await;
    })?;
    runtime::notify_service_manager(&runtime.handle(), clients);
    let runtime = runtime.start("async-io", async move {
        if let Some(queues_ended) = queues_ended {
            queues_ended.await;
        }
    })?;
    tracing::info!("{} rules run on {} lanes", loaded.rules.len(), running.len());
    if !loaded.rules.iter().any(|rule| rule.enabled) {
        tracing::error!("NO RULE IS RUNNING: no alert will be raised; put rules where `rules.paths` points");
    }
    wait_for_the_end(&rung);
    stop.all();
    drop((stop, client));
    end(running, ledger, [upstream, runtime])
}

/// Waits for SIGTERM, or for the end of a lane: the agent does not continue with half of its sources; the service
/// manager restarts it. Memory that only the start needed is released now, and again once the threads have started.
fn wait_for_the_end(rung: &Receiver<()>) {
    trim_rss::release();
    if rung.recv_timeout(THREADS_START) == Err(RecvTimeoutError::Timeout) {
        trim_rss::release();
        let _ = rung.recv();
    }
}

/// Waits for the end of each thread, in order and with a time limit.
fn end(lanes: Vec<LaneHandle>, ledger: ledger::Started, runtime: [RuntimeThread; 2]) -> Result<()> {
    let stopped = Instant::now();
    let last = move || {
        std::thread::sleep(END_MAX);
        signal_hook::low_level::exit(1);
    };
    // Without it the other time limits still hold.
    let _ = std::thread::Builder::new().name("end".to_owned()).spawn(last);
    let mut outcome = Ok(());
    for LaneHandle { client, thread } in lanes {
        let late = || Err(anyhow!("lane {} did not end in time, or panicked", client.name()));
        outcome = outcome.and(join_by(thread, stopped + LANES_END_MAX).unwrap_or_else(late));
    }
    let ledger::Started { sender, client, thread, remains, .. } = ledger;
    drop(sender);
    for (name, runtime) in ["the sinks", "the control socket and queues"].into_iter().zip(runtime) {
        if !runtime.finish(stopped + RUNTIME_END_MAX) {
            tracing::error!("{name} did not end in time; the next run completes the rest");
        }
    }
    drop(client);
    let written = join_by(thread, stopped + LEDGER_END_MAX).unwrap_or_else(|| {
        let alerts = remains.report();
        Err(anyhow!("the ledger did not end in time, or panicked: {alerts} alerts could not be kept"))
    });
    outcome.and(written)
}

/// Starts the sensor, which goes on where the run before ended.
fn start_sensor(
    config: &Config,
    loaded: &Loaded,
    exceptions: &Exceptions,
    stop: &Arc<AtomicBool>,
) -> Result<Sensor> {
    let env_vars = env_vars(&config.sensor.env_vars, &loaded.rules, &exceptions.list);
    let sensor = sensor::Config { env_vars, ..config.sensor.clone() };
    Ok(Sensor::start(&sensor, stop.clone(), StoredFds::of_manager())?)
}

/// The variables of the environment that events hold: those of the configuration, and those that rules and exceptions
/// name. None if no rule and no exception uses them, because searching an environment costs more than all other work
/// for an exec.
pub(crate) fn env_vars(configured: &Wanted, rules: &[Arc<Rule>], exceptions: &[Arc<Exception>]) -> Wanted {
    let field = field!("process.env_vars");
    let rules = rules.iter().filter(|rule| rule.enabled && rule.fields().contains(&field));
    let rules: Vec<_> = rules.map(|rule| rule.texts(field)).collect();
    let exceptions = exceptions.iter().map(|exception| &exception.condition);
    let exceptions = exceptions.filter(|condition| condition.fields().contains(&field));
    let exceptions: Vec<_> = exceptions.map(|condition| condition.texts(field)).collect();
    if rules.is_empty() && exceptions.is_empty() {
        return Wanted::none();
    }
    configured.with(rules.iter().chain(&exceptions).flatten()).0
}

/// Watches the agent's files. The sensor gets the changes, because it can find out who made them.
fn watch_files(
    sensor: Option<&mut Sensor>,
    plan: Option<Plan>,
    written: Written,
    stop: &Arc<AtomicBool>,
) -> Result<()> {
    if let (Some(sensor), Some(plan)) = (sensor, plan) {
        sensor.watch_files(integrity::start(plan, written, stop.clone())?);
    }
    Ok(())
}

/// What SIGHUP does: the log is reopened, because it may have been renamed, and GeoIP databases are checked for
/// changes.
fn on_reload(ledger: &ledger::Started, control: Option<Control>) -> impl Fn() + Send + 'static {
    let ([log, _], client) = (ledger.traces.clone(), ledger.client.clone());
    move || {
        log.hangup();
        client.reopen();
        control.iter().for_each(Control::reload);
    }
}

/// The files that the agent writes, and what the previous run loaded. Clients are held weakly: the ledger ends with its
/// last client, and must not wait for a thread that reads files.
fn written(config: &Config, traces: &[Arc<Trace>; 2], client: &Arc<LedgerClient>) -> Result<Written> {
    let [log, store] = traces.clone();
    let mut before = BTreeMap::new();
    client.rows(FILES_SCOPE, |path, hash| {
        before.insert(path, hash);
        Ok(())
    })?;
    let (reopened, kept) = (Arc::downgrade(client), Arc::downgrade(client));
    let change = |(key, value)| Change { scope: FILES_SCOPE.to_owned(), key, value };
    let remember = move |rows: Rows| {
        let changes: Vec<_> = rows.into_iter().map(change).collect();
        if let Some(client) = kept.upgrade() {
            client.change(changes);
        }
    };
    Ok(Written {
        log: (config.alerts.path.clone(), log),
        store: (config.state_dir.join(store::FILE), store),
        reopen: Box::new(move || reopened.upgrade().iter().for_each(|client| client.reopen())),
        before,
        remember: Box::new(remember),
    })
}

/// Stops every source.
#[derive(Clone)]
struct Stop {
    sensor: Arc<AtomicBool>,
    cloudtrail: Option<Control>,
    ledger: LedgerClient,
    bell: Sender<()>,
}

impl Stop {
    fn all(&self) {
        self.sensor.store(true, Relaxed);
        self.cloudtrail.iter().for_each(Control::stop);
        self.ledger.stop();
        let _ = self.bell.send(());
    }
}

/// The rules, exceptions and indicators.
struct Rules {
    loaded: Loaded,
    exceptions: Exceptions,
    indicators: Arc<Indicators>,
    schema: Arc<Schema>,
}

impl Rules {
    /// Loads them and logs every problem.
    fn load(config: &Config) -> Result<Self> {
        let mut schema = Schema::new();
        let loaded = rules::load(&config.rules.paths, &mut schema)?;
        let mut exceptions = rules::exceptions(Some(&config.rules.exceptions), &mut schema)?;
        exceptions.check(&loaded.rules, clock::now());
        for found in &loaded.reports {
            let level = if found.is_fault() { "refused" } else { "warning" };
            tracing::warn!("rule file {level}:\n{}", report::render(found, false));
        }
        for found in &exceptions.reports {
            tracing::warn!("exceptions:\n{}", report::render(found, false));
        }
        if exceptions.refused > 0 {
            let refused = exceptions.refused;
            tracing::error!(
                "{refused} invalid exceptions ignored; the alerts they would suppress will be raised"
            );
        }
        let (indicators, problems) = indicators::load(&config.indicators)?;
        problems.iter().for_each(|problem| tracing::warn!("{problem}"));
        let indicators = Arc::new(indicators);
        Ok(Self { loaded, exceptions, indicators, schema: Arc::new(schema) })
    }
}

/// What lanes are built from.
struct Lanes<'a> {
    config: &'a Config,
    schema: &'a Arc<Schema>,
    rules: &'a [Arc<Rule>],
    exceptions: &'a [Arc<Exception>],
    indicators: &'a Arc<Indicators>,
    sender: &'a LedgerSender,
    client: &'a LedgerClient,
    bell: &'a Sender<()>,
}

/// Ends when every queue has returned the messages that it will not read.
type QueuesEnded = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The running sources, each on its own lane.
struct Sources {
    running: Vec<LaneHandle>,
    /// The control of CloudTrail's source, and the end of its queues.
    cloudtrail: Option<(Control, QueuesEnded)>,
}

impl Lanes<'_> {
    /// Starts a lane for each configured source.
    fn start_all(&self, sensor: Option<Sensor>, runtime: &AsyncRuntime) -> Result<Sources> {
        let mut running = Vec::new();
        let for_host =
            sensor.is_some().then(|| coverage::of_lane(self.rules, self.schema, &self.config.sensor));
        let has_auditd = for_host.as_ref().is_some_and(|[_, for_auditd]| !for_auditd.is_empty());
        let engines =
            [(HOST, sensor.is_some()), (AUDITD, has_auditd), (CLOUDTRAIL, self.config.cloudtrail.enabled())];
        let engines: Vec<_> =
            engines.into_iter().filter(|(_, runs)| *runs).map(|(weights, _)| weights).collect();
        let limits = |weights| Limits::default().part(weights, &engines);
        if let (Some(mut sensor), Some(rules)) = (sensor, for_host) {
            sensor.recall(&self.rows(LAST_SEEN_SCOPE)?);
            if self.config.sensor.kernel_filter {
                sensor.set_rules(&rules);
            }
            let [rules, for_auditd] = rules;
            let mut rule_views =
                vec![self.rule_view(&rules, Duration::ZERO, limits(HOST), |event| Some(event.clone()))?];
            if has_auditd {
                rule_views.push(self.rule_view(&for_auditd, Duration::ZERO, limits(AUDITD), as_auditd)?);
            }
            running.push(self.start(streams::SENSOR.lane, sensor, rule_views, SENSOR_QUIET)?);
        }
        let mut cloudtrail = None;
        if self.config.cloudtrail.enabled() {
            let mut source = self.cloudtrail(runtime)?;
            cloudtrail = Some((source.control(), Box::pin(source.queues_ended()) as QueuesEnded));
            let rules = streams::CLOUDTRAIL.readers(self.rules);
            let limits = limits(CLOUDTRAIL);
            let rule_view =
                self.rule_view(&rules, CLOUDTRAIL_LATENESS, limits, |event| Some(event.clone()))?;
            running.push(self.start(streams::CLOUDTRAIL.lane, source, vec![rule_view], CLOUDTRAIL_QUIET)?);
        }
        if running.is_empty() {
            bail!(NO_SOURCE);
        }
        Ok(Sources { running, cloudtrail })
    }

    /// A source's rows in the store.
    fn rows(&self, scope: &str) -> Result<Vec<(String, Vec<u8>)>> {
        let mut rows = Vec::new();
        self.client.rows(scope, |key, value| {
            rows.push((key, value));
            Ok(())
        })?;
        Ok(rows)
    }

    /// Opens the CloudTrail source, and logs which rules cannot run on it.
    fn cloudtrail(&self, runtime: &AsyncRuntime) -> Result<CloudTrail> {
        let rows = |scope: &str| self.rows(scope);
        let config = &self.config.cloudtrail;
        let source =
            CloudTrail::open(config, self.schema.clone(), rows, &self.config.state_dir, &runtime.handle())?;
        if let Some(missing) = source.geoip_missing() {
            for rule in rules::needing_places(&streams::CLOUDTRAIL.readers(self.rules), self.schema) {
                tracing::warn!("rule \"{}\" cannot run: {missing}", rule.name);
            }
        }
        Ok(source)
    }

    /// Builds the engine of these rules and restores the state that they had when the agent stopped.
    fn rule_view(
        &self,
        rules: &[Arc<Rule>],
        lateness: Duration,
        limits: Limits,
        view: EventView,
    ) -> Result<RuleView> {
        let options = Options { lateness, limits, learn: self.config.rules.learning_period };
        let mut engine = Engine::new(self.schema.clone(), rules, options)
            .with_exceptions(self.exceptions)
            .with_indicators(self.indicators);
        let ids: Vec<_> = engine.rules().map(|rule| rule.id.clone()).collect();
        let mut settled = Settled::new(self.client);
        for id in ids {
            let mut restore = |key: String, value: Vec<u8>| {
                settled.take(engine.restore(&id, &key, &value));
                Ok(())
            };
            self.client.rows(&lane::scope(&id), &mut restore).with_context(|| format!("rule {id}"))?;
        }
        settled.finish();
        Ok(RuleView { view, engine })
    }

    fn start(
        &self,
        name: &'static str,
        source: impl Source + 'static,
        rule_views: Vec<RuleView>,
        quiet: Duration,
    ) -> Result<LaneHandle> {
        let (source, schema, ledger) = (Box::new(source), self.schema.clone(), self.sender.clone());
        let bell = Bell(self.bell.clone());
        Lane { name, source, schema, rule_views, ledger, quiet }.start(bell)
    }
}
