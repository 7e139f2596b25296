//! The live source: what happens on this host, as events.
//!
//! ```text
//! start ─▶ hook          the programs run in the kernel, each hook tested by a canary
//! ring ─▶ record ─▶ process ─▶ decode ─▶ events
//! ```
//!
//! It imports no rule, no alert and no other source. Between the ring and the event nothing waits and nothing is
//! locked. The life of the sensor is here; its parts are `build` (the hot loop), `ports`, `filtering`, `previous_run`,
//! `self_test`, `interference` and `status`.
//!
//! # Privileges
//! At the start: CAP_BPF and CAP_PERFMON for the programs; CAP_SYS_ADMIN where `accept`, `ids` or `session` is hooked by
//! system calls (a perf event, and tracefs); CAP_NET_ADMIN where datagrams are reported; CAP_SYS_RESOURCE on kernels before
//! 5.11, for locked memory. For the snapshot, and as long as it runs: CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, to read
//! `/proc/PID/exe`, `cwd`, `fd` and `ns` of other processes. After the start, of the first two only CAP_BPF is needed, to
//! read the port of a connection that has no answer yet. CAP_KILL is not needed: a probe by signal 0 may be refused.

mod attach;
mod bpf;
mod btf;
mod canary;
mod hook;
mod key;
mod layout;
mod self_test;
#[cfg(test)]
mod stack;
mod start;

mod event_filter;
mod guard;
mod interference;
mod loss;
mod ports;
mod record;
mod ring;
mod script;
mod script_lookup;
mod shares;
mod tamper;
mod touched;
mod who;

mod actor;
mod clock;
mod file;
#[cfg(test)]
pub(crate) mod full;
mod groups;
mod handover;
mod hierarchy;
mod image;
mod inspect;
mod interpreter;
mod last_seen;
mod previous_run;
mod process;
mod snapshot;
mod thread;

mod auditd;
mod build;
mod config;
mod container;
mod context;
mod decode;
mod environment;
mod filtering;
mod host;
mod names;
mod own;
mod owner;
mod pipe;
mod status;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use aya::Ebpf;
use aya_log::EbpfLogger;
use lapwing_engine::{Event, Timestamp};

pub(crate) use self::auditd::of as as_auditd;
pub(crate) use self::config::Config;
pub(crate) use self::environment::Wanted;
pub(crate) use self::filtering::{auditd_kinds, event_kinds, filter_for, filtered_kinds};
pub(crate) use self::handover::StoredFds;
pub(crate) use self::hook::{Choices, HookReport, HookState, methods};
pub(crate) use self::last_seen::SCOPE as LAST_SEEN_SCOPE;
pub(crate) use self::loss::KindCounts;
pub(crate) use self::start::StartError;
pub(crate) use self::status::SensorStatus;

use self::canary::Canary;
use self::decode::Decoder;
use self::event_filter::EventFilter;
use self::guard::Guard;
use self::handover::{Inherited, Maps};
use self::host::Host;
use self::key::{Key, TICK_NANOS};
use self::last_seen::LastSeen;
use self::loss::Losses;
use self::owner::Owners;
use self::process::Table;
use self::ring::Ring;
use self::snapshot::{Running, SnapshotCutoff};
use self::status::{HandoverCounts, recursion_misses};
use self::tamper::Tamper;
use self::touched::StopSignal;
use crate::alert::{Context, Down, Lost};
use crate::integrity::Integrity;
use crate::source::{Batch, Source};

/// How long a stopping agent waits for kernel programs that still run after their links have ended.
const REST_WAIT: Duration = Duration::from_secs(1);
/// The name of skipped program runs among the kinds of lost records.
const PROBE_RUNS: &str = "probe_run";

/// The running sensor.
pub(crate) struct Sensor {
    /// Keeps the programs attached, and reads ports by one of them; nothing once the sensor stops.
    ebpf: Option<Ebpf>,
    logger: Option<EbpfLogger<&'static dyn log::Log>>,
    hooks: Vec<HookReport>,
    ring: Ring,
    losses: Losses,
    filter: EventFilter,
    canary: Canary,
    /// Whether this runs in a PID namespace.
    is_inner: bool,
    /// When tampering was last checked for, in nanoseconds since boot.
    looked: u64,
    /// The agent's own process.
    agent: Option<Key>,
    guard: Guard,
    tamper: Tamper,
    /// Whether a descriptor of a link was closed, and its number is another file's by now.
    is_number_lost: bool,
    stop_signal: StopSignal,
    /// Hooks that failed the self-test since the links were checked.
    silent: Vec<&'static str>,
    /// The watch on the agent's files, if they are watched.
    integrity: Option<Integrity>,
    table: Table,
    decoder: Decoder,
    /// What the previous run has stored, until its events are emitted.
    inherited: Option<Inherited>,
    /// The counts of that.
    handover: Option<HandoverCounts>,
    /// What is to be stored with the service manager, until it is.
    maps: Option<Maps>,
    /// Whether the links and rings are stored for the next run.
    fds_stored: bool,
    /// Processes of the snapshot that are not in the table yet.
    snapshot: Vec<Running>,
    /// Processes of the snapshot that were not emitted yet.
    running: Vec<Key>,
    cutoff: SnapshotCutoff,
    last_seen: LastSeen,
    /// The downtime before this run, until it is reported.
    down: Option<Down>,
    /// Its beginning and end.
    downtime: Option<(Timestamp, Timestamp)>,
    stop: Arc<AtomicBool>,
    /// When the kernel programs were ended.
    stopped: Option<Instant>,
    malformed: u64,
    /// Records of the agent's own connections.
    self_connections: u64,
    /// Records that were reported already.
    already_delivered: u64,
    owners: Owners,
    wanted: Wanted,
    /// Ports of sockets, used within one batch.
    ports: HashMap<u64, u16>,
}

impl Sensor {
    /// Attaches the hooks, tests them, and takes the snapshot. Events contain the wanted variables of the environment.
    /// Once `stop` is set, the source ends. Of what the service manager `kept`, it goes on where the run before ended.
    ///
    /// # Errors
    /// See [`StartError`].
    pub(crate) fn start(
        config: &Config,
        stop: Arc<AtomicBool>,
        stored: StoredFds,
    ) -> Result<Self, StartError> {
        let loaded = start::start(config)?;
        let cutoff = SnapshotCutoff::new(clock::now());
        let ring = Ring::new(loaded.rings).map_err(|error| StartError::Io("epoll", error))?;
        let host = Host::new();
        let last_seen = LastSeen::new(host.boot_id.clone());
        let mut sensor = Self {
            ebpf: Some(loaded.ebpf),
            logger: loaded.logger,
            hooks: loaded.hooks,
            ring,
            losses: Losses::new(loaded.counts, loaded.shares),
            filter: EventFilter::new(loaded.filter),
            canary: Canary::fly(),
            is_inner: loaded.is_inner,
            looked: cutoff.attached,
            agent: own::key(),
            guard: Guard::default(),
            tamper: Tamper::default(),
            is_number_lost: false,
            stop_signal: StopSignal::default(),
            silent: Vec::new(),
            integrity: None,
            table: Table::new(&host.boot_id),
            decoder: Decoder::new(host),
            maps: stored.has_manager().then_some(loaded.maps),
            fds_stored: false,
            inherited: stored.open(),
            handover: None,
            snapshot: Vec::new(),
            running: Vec::new(),
            cutoff,
            last_seen,
            down: None,
            downtime: None,
            stop,
            stopped: None,
            malformed: 0,
            self_connections: 0,
            already_delivered: 0,
            owners: Owners::default(),
            wanted: config.env_vars.clone(),
            ports: HashMap::new(),
        };
        sensor.table.groups.connect(loaded.groups);
        sensor.test(&loaded.btf, &config.hooks);
        drop(loaded.btf);
        // Later processes have records; within one tick of the clock the order is not known.
        sensor.snapshot = snapshot::all(sensor.cutoff.attached + TICK_NANOS);
        sensor.inherit();
        // The previous run's links are closed by now.
        sensor.guard = Guard::new();
        loaded.objects.know(sensor.guard.ids());
        Ok(sensor)
    }

    /// The report of each hook.
    pub(crate) fn hooks(&self) -> &[HookReport] {
        &self.hooks
    }

    /// Whether the kernel programs have ended and every record that they wrote has been read. A program may run for a
    /// moment after its link has ended, so the counts must be the same at two readings. Programs that a next run needs
    /// go on; its rings are its own, so nothing is waited for.
    fn is_at_rest(&mut self) -> bool {
        let Some(stopped) = self.stopped else { return false };
        if self.fds_stored || self.is_number_lost {
            return true;
        }
        let (written, is_still) = self.losses.written();
        let is_read = written == self.ring.delivered().iter().sum::<u64>();
        is_still && is_read || stopped.elapsed() > REST_WAIT
    }

    fn report_lost(&mut self, lost: &loss::LossPeriod) -> Lost {
        let by_kind = lost.by_kind.iter().map(|(kind, count)| (kind.name(), *count));
        let by_kind = by_kind.chain([(PROBE_RUNS, lost.missed)]).filter(|(_, count)| *count > 0);
        Lost {
            event: self.decoder.lost(lost.records, lost.total, lost.to),
            from: self.decoder.clock.wall(lost.from),
            to: self.decoder.clock.wall(lost.to),
            by_kind: by_kind.collect(),
            by_user: lost.by_user.clone(),
        }
    }
}

impl Source for Sensor {
    fn next(&mut self, wait: Duration) -> Result<Option<Batch>> {
        if let Some(down) = self.down.take() {
            let events = vec![down.event.clone()];
            return Ok(Some(Batch { events, down: Some(down), ..Batch::default() }));
        }
        if let Some(batch) = self.emit_inherited() {
            return Ok(Some(batch));
        }
        if let Some(maps) = self.maps.take() {
            self.fds_stored = handover::give(&maps);
        }
        if !self.running.is_empty() {
            return Ok(Some(Batch { events: self.emit_running(), ..Batch::default() }));
        }
        if self.stopped.is_some() && self.ring.is_over() {
            self.close_account();
            if self.fds_stored {
                self.store_state();
            }
            return Ok(None);
        }
        if self.stop.load(Ordering::Relaxed) && self.stopped.is_none() {
            self.stopped = Some(Instant::now());
            if self.is_number_lost {
                // The number of a descriptor that others closed may be another file's: nothing of it is closed.
                std::mem::forget(self.ebpf.take());
            } else if !self.fds_stored {
                // Ends the kernel programs, so that what is in the rings now is the last.
                self.ebpf = None;
            }
        }
        let before = clock::now();
        self.ring.wait(wait);
        self.drain();
        if self.is_at_rest() {
            self.ring.close();
        }
        let waited = (before, clock::now());
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
        self.decoder.clock.follow();
        self.decoder.names.refresh();
        let mut events = self.decode(None);
        let now = clock::now();
        self.table.expire(now);
        self.table.groups.flush();
        let missed = || self.ebpf.as_ref().map_or(0, recursion_misses);
        let lost = self.losses.look(now, self.stopped.is_some(), missed).map(|lost| self.report_lost(&lost));
        events.extend(lost.as_ref().map(|lost| lost.event.clone()));
        let checkpoint = self.last_seen.remember(now, self.decoder.clock.wall(now), self.stopped.is_some());
        self.look_for_stall(waited);
        let tampered = self.watch_over(now);
        events.extend(tampered.iter().map(|one| one.event.clone()));
        Ok(Some(Batch { events, checkpoint, lost, down: None, tampered }))
    }

    fn running(&mut self, take: &mut dyn FnMut(Event)) {
        let now = clock::now();
        for key in self.table.in_order() {
            if let Some(event) = self.decoder.already_running(&self.table, key, now) {
                take(event);
            }
            self.table.relieve();
        }
    }

    fn context(&mut self, event: &Event) -> Context {
        context::of(event, &self.table, &self.decoder)
    }

    fn watch(&mut self, is_watched: bool) {
        self.set_watched(is_watched);
    }

    fn status(&self) -> serde_json::Value {
        self.status_json()
    }

    fn now(&self) -> Timestamp {
        self.decoder.clock.monotonic(clock::now())
    }

    fn lost(&self, from: Timestamp, to: Timestamp) -> Option<u64> {
        let clock = self.decoder.clock;
        Some(self.losses.between(clock.since_boot(from), clock.since_boot(to)))
    }
}
