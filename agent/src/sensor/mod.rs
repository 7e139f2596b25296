//! The live source: what happens on this host, as events.
//!
//! ```text
//! start ─▶ hook          the programs run in the kernel, each hook tested by a canary
//! ring ─▶ record ─▶ process ─▶ decode ─▶ events
//! ```
//!
//! It knows no rule, no alert and no other source. Between the ring and the event nothing waits and nothing is locked.
//!
//! # Privileges
//! At the start: CAP_BPF and CAP_PERFMON for the programs; CAP_SYS_ADMIN where `accept`, `ids` or `session` is hooked by
//! system calls (a perf event, and tracefs); CAP_NET_ADMIN where datagrams are reported; CAP_SYS_RESOURCE on kernels before 5.11, for locked last_seen.
//! For the snapshot, and for as long as it runs: CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, to read `/proc/PID/exe`,
//! `cwd`, `fd` and `ns` of others. After the start, CAP_BPF alone is needed of the first two, and only to read the
//! port of a connection that has no answer yet; CAP_KILL is not needed, a probe by signal 0 may be refused.

mod attach;
mod bpf;
mod btf;
mod canary;
mod hook;
mod layout;
#[cfg(test)]
mod stack;
mod start;

mod guard;
mod kernel_filter;
mod loss;
mod record;
mod ring;
mod script;
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
mod process;
mod snapshot;
mod thread;

mod auditd;
mod config;
mod container;
mod context;
mod decode;
mod environment;
mod host;
mod names;
mod own;
mod owner;
mod pipe;

use std::collections::HashMap;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use aya::programs::{RawTracePoint, RawTracePointRunOptions};
use aya::{Btf, Ebpf, TestRun};
use aya_log::EbpfLogger;
use lapwing_common::{AF_INET6, Connected, Connection, Filter, Kind, Reach, Socket, State};
use lapwing_engine::coverage::EventKind;
use lapwing_engine::interest::Interest;
use lapwing_engine::{Event, Rule, Timestamp};
use serde_json::json;

pub(crate) use self::auditd::of as as_auditd;
pub(crate) use self::canary::CanaryCounts;
pub(crate) use self::config::Config;
pub(crate) use self::environment::Wanted;
pub(crate) use self::handover::StoredFds;
pub(crate) use self::hook::{Choices, HookReport, HookState, methods};
pub(crate) use self::last_seen::SCOPE as LAST_SEEN_SCOPE;
pub(crate) use self::loss::KindCounts;
pub(crate) use self::owner::OwnerCounts;
pub(crate) use self::process::TableCounts;
pub(crate) use self::start::StartError;

use self::canary::Canary;
use self::decode::{Audience, Decoder};
use self::guard::Guard;
use self::handover::{HandoverState, Inherited, Maps};
use self::hook::{HOOKS, PTRACE, Retry};
use self::host::Host;
use self::image::Image;
use self::kernel_filter::KernelFilter;
use self::last_seen::{LastSeen, PreviousRun};
use self::loss::Losses;
use self::owner::{Owner, Owners};
use self::process::{Changes, Key, TICK_NANOS, Table};
use self::record::{ExecRecord, Record};
use self::ring::Ring;
use self::snapshot::{Running, SnapshotCutoff};
use self::tamper::{Report, Subject, Tamper};
use self::touched::StopSignal;
use crate::action::{UDP, record_name as name};
use crate::bounded::{self, HOST_FILE_BYTES_MAX};
use crate::budget::Meter;
use crate::integrity::{FileChange, Integrity, Outcome};
use crate::source::{Batch, Context, Down, Lost, Source, Tampered, Weight};

/// How long an event may wait for the port of a connection: the process that connects can be held up between the two
/// moments at which the connection and its port are recorded.
const PORT_WAIT_NANOS: u64 = 20_000_000;
/// How long a wait for records must take to be reported: it is meant to take hundredths of a second.
const STALL_NANOS: u64 = 10_000_000_000;
/// How long the start waits for the canary.
const CANARY_WAIT: Duration = Duration::from_secs(2);
/// How long a stopping agent waits for kernel programs that still run after their links have ended.
const REST_WAIT: Duration = Duration::from_secs(1);
/// How runs of programs that the kernel left out are named among the kinds of what was lost.
const PROBE_RUNS: &str = "probe_run";
/// Most events of the snapshot in one batch.
const SNAPSHOT_BATCH: usize = 256;

/// The sensor, running.
pub(crate) struct Sensor {
    /// Keeps the programs attached, and reads ports by one of them; nothing once the sensor stops.
    ebpf: Option<Ebpf>,
    logger: Option<EbpfLogger<&'static dyn log::Log>>,
    hooks: Vec<HookReport>,
    ring: Ring,
    losses: Losses,
    kernel_filter: KernelFilter,
    /// Whether a subscriber gets the events.
    is_watched: bool,
    canary: Canary,
    /// Whether this runs in a process namespace of its own.
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
    /// Hooks that the canary found silent since it was looked at links.
    silent: Vec<&'static str>,
    /// What is known of the agent's files, where these are watched.
    integrity: Option<Integrity>,
    table: Table,
    decoder: Decoder,
    /// What the previous run has left, until it is reported.
    inherited: Option<Inherited>,
    /// What was taken over of it.
    handover: Option<HandoverCounts>,
    /// What the service manager is to be given for the next run, until it is.
    maps: Option<Maps>,
    /// Whether this run leaves something to the next.
    fds_stored: bool,
    /// Processes of the snapshot that the table does not know yet.
    snapshot: Vec<Running>,
    /// Processes of the snapshot that were not emitted yet.
    running: Vec<Key>,
    cutoff: SnapshotCutoff,
    last_seen: LastSeen,
    /// The downtime before this run, until it is reported.
    down: Option<Down>,
    /// From when to when that was.
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

/// What was taken over from the run before.
#[derive(Clone, Copy, Debug)]
struct HandoverCounts {
    /// The number of its process.
    pid: u32,
    /// Records of the time in which no agent ran.
    records: u64,
    /// Those that were lost then.
    lost: u64,
}

/// How the sensor does, for `lapwing status`.
#[derive(Clone, Debug)]
pub(crate) struct SensorStatus {
    /// Every hook.
    pub(crate) hooks: Vec<HookReport>,
    /// Records by kind, with the classes of destinations for which they are left out now.
    pub(crate) records: Vec<(&'static str, KindCounts, Vec<&'static str>)>,
    /// How often a program could not run because it was running on that processor already. Not each would have
    /// made a record.
    pub(crate) probe_recursion_misses: u64,
    /// Records that could not be read.
    pub(crate) malformed: u64,
    /// Records that came too late to be put in the order of their times.
    pub(crate) out_of_order: u64,
    /// Records of the agent's own connections, of which no events are made.
    pub(crate) self_connections: u64,
    /// Records that the snapshot, or the previous run, has reported already.
    pub(crate) already_delivered: u64,
    /// What was counted of the canary's flights.
    pub(crate) canary: CanaryCounts,
    /// What was counted of connections whose end is waited for.
    pub(crate) owners: OwnerCounts,
    /// Processes that are kept, living and ended.
    pub(crate) processes: usize,
    /// Those of them that live, as far as is known.
    pub(crate) alive: usize,
    /// Those of them that ended a short while ago. The others are kept for their children.
    pub(crate) ended: usize,
    /// What the process table counted.
    pub(crate) table: TableCounts,
}

/// What can be left in the kernel where these rules are shown the events, the second ones in auditd's words, with hooks
/// attached like these.
pub(crate) fn filter_for(rules: &[Vec<Arc<Rule>>; 2], hooks: &[HookReport]) -> Filter {
    decode::filter_for(&audiences(rules), hooks)
}

fn audiences(rules: &[Vec<Arc<Rule>>; 2]) -> Vec<Audience<'_>> {
    let views: [fn(&EventKind) -> Option<EventKind>; 2] = [|kind| Some(kind.clone()), auditd::kind];
    let audiences = rules.iter().zip(views).map(|(rules, view)| {
        let interest = Interest::of(rules.iter().map(|rule| &**rule));
        let needs_connections = rules.iter().any(|rule| decode::needs_connections(rule));
        Audience { interest, view, needs_connections }
    });
    audiences.collect()
}

/// What a filter leaves out of what these hooks show: kinds of records, each with the classes of destinations.
pub(crate) fn filtered_kinds(
    filter: &Filter,
    hooks: &[HookReport],
) -> Vec<(&'static str, Vec<&'static str>)> {
    let is_off = |kind| {
        kind == Kind::DATAGRAM
            && hooks.iter().any(|hook| hook.name == UDP && hook.state == HookState::Disabled)
    };
    let kinds = Kind::ALL.into_iter().filter(|kind| !is_off(*kind));
    let named = kinds.map(|kind| (name(kind), kernel_filter::names(filter, kind)));
    named.filter(|(_, classes)| !classes.is_empty()).collect()
}

/// Every kind of event that the sensor emits on this host, with the fields that such an event may have where these
/// variables of the environment are reported, and the events of datagrams where these are.
pub(crate) fn event_kinds(wanted: &Wanted, has_udp: bool) -> Vec<EventKind> {
    decode::kinds(!wanted.is_empty(), has_udp)
}

/// The same of those events in auditd's words.
pub(crate) fn auditd_kinds(kinds: &[EventKind]) -> Vec<EventKind> {
    kinds.iter().filter_map(auditd::kind).collect()
}

impl Sensor {
    /// Attaches the hooks, tests them, and takes the snapshot. Events contain the wanted variables of the environment. Once
    /// `stop` is set, the source ends. Of what the service manager `kept`, it goes on where the run before ended.
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
            kernel_filter: KernelFilter::new(loaded.filter),
            is_watched: false,
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
        // What was made since comes by its records, though within one tick of the clock it is not known which was first.
        sensor.snapshot = snapshot::all(sensor.cutoff.attached + TICK_NANOS);
        sensor.inherit();
        // What the run before had attached is let go of by now.
        sensor.guard = Guard::new();
        loaded.objects.know(sensor.guard.ids());
        Ok(sensor)
    }

    /// Takes over from the run before, now that what happens is recorded for this one.
    fn inherit(&mut self) {
        let Some(inherited) = &mut self.inherited else { return self.settle() };
        inherited.close();
        if let Some(stop) = inherited.stop.take() {
            let found = touched::report(&stop, Some(inherited.by), clock::now());
            found.into_iter().for_each(|(subject, report)| self.tamper.done(subject, report));
        }
        // Without its process table, the snapshot gives the outcome, which is better than nothing.
        let Some(state) = &mut inherited.state else { return self.settle() };
        self.owners.restore(std::mem::take(&mut state.owners));
        if let Err(error) = self.table.restore(std::mem::take(&mut state.table)) {
            tracing::warn!("cannot restore the process table of the previous run: {error:#}");
        }
    }

    /// Computes the downtime from what the previous run has stored, the rows of [`LAST_SEEN_SCOPE`].
    pub(crate) fn recall(&mut self, rows: &[(String, Vec<u8>)]) {
        match self.last_seen.recall(rows) {
            PreviousRun::Unknown => {}
            PreviousRun::OtherBoot(until) => {
                tracing::info!("first run since the host booted; the previous run ended at {until}");
            }
            PreviousRun::SameBoot(_)
                if self.inherited.as_ref().is_some_and(|inherited| inherited.state.is_some()) =>
            {
                tracing::info!("continuing where the previous run ended");
            }
            PreviousRun::SameBoot(until) => {
                let first = self.inherited.as_mut().and_then(Inherited::first_time);
                let to = first.map_or(self.cutoff.attached, |first| first.clamp(until, self.cutoff.attached));
                let is_killed = self.inherited.is_some();
                let down = Down { is_killed, ..self.decoder.down(until, to) };
                let (from, to) = (down.from, down.to);
                tracing::warn!(
                    "the sensor was down between {from} and {to}: processes that started and ended in that time were not seen"
                );
                self.downtime = Some((from, to));
                self.down = Some(down);
            }
        }
    }

    /// What became of each hook.
    pub(crate) fn hooks(&self) -> &[HookReport] {
        &self.hooks
    }

    /// From now on leaves in the kernel what none of these rules can match, of which the second are shown the events in
    /// auditd's words; and of what must come all the same makes no events that none can match.
    pub(crate) fn set_rules(&mut self, rules: &[Vec<Arc<Rule>>; 2]) {
        let filter = filter_for(rules, &self.hooks);
        self.decoder.set_audiences(&audiences(rules));
        for (kind, classes) in filtered_kinds(&filter, &self.hooks) {
            tracing::info!(
                "filtered in kernel: {kind}, destination {} (no rule matches)",
                classes.join(", ")
            );
        }
        self.kernel_filter.set(filter, self.is_watched);
        self.keep_owners();
    }

    /// Whether the kernel programs have ended and every record that they wrote has been read. A program may run for a moment after its
    /// link has ended, so the counts must be the same at two readings. Programs that a next run needs go on; its rings
    /// are its own, so nothing is waited for.
    fn is_at_rest(&mut self) -> bool {
        let Some(stopped) = self.stopped else { return false };
        if self.fds_stored || self.is_number_lost {
            return true;
        }
        let (written, is_still) = self.losses.written();
        let is_read = written == self.ring.delivered().iter().sum::<u64>();
        is_still && is_read || stopped.elapsed() > REST_WAIT
    }

    /// Logs at the end what became of everything that was seen.
    fn close_account(&self) {
        let records = self.losses.by_kind(self.ring.delivered());
        let each = records.into_iter().map(|(kind, counts)| {
            let KindCounts { seen, filtered, lost, delivered } = counts;
            format!("{} {seen} ({delivered} delivered, {filtered} filtered, {lost} lost)", name(kind))
        });
        tracing::info!("records seen: {}", each.collect::<Vec<_>>().join(", "));
    }

    /// Forgets the connections whose ends are not reported any more.
    fn keep_owners(&mut self) {
        let filter = *self.kernel_filter.now();
        self.owners.keep(|reach| !filter.drops(Kind::CLOSED, reach.bit()));
    }

    /// How the sensor does.
    pub(crate) fn status(&self) -> SensorStatus {
        let records = self.losses.by_kind(self.ring.delivered());
        SensorStatus {
            hooks: self.hooks.clone(),
            records: records
                .into_iter()
                .map(|(kind, counts)| (name(kind), counts, self.kernel_filter.dropped(kind)))
                .collect(),
            probe_recursion_misses: self.ebpf.as_ref().map_or(0, recursion_misses),
            malformed: self.malformed,
            out_of_order: self.ring.out_of_order(),
            self_connections: self.self_connections,
            already_delivered: self.already_delivered,
            canary: self.canary.counts(),
            owners: self.owners.counts(),
            processes: self.table.len(),
            alive: self.table.alive(),
            ended: self.table.ended(),
            table: self.table.counts(),
        }
    }

    /// Tests the hooks by the canary. Those that are silent twice, for a busy host may be slow, are attached by their next
    /// method, and tested again.
    fn test(&mut self, btf: &Btf, choices: &Choices) {
        self.await_canary();
        if !self.canary.is_seen(&self.hooks) {
            self.canary.fly_again();
            self.await_canary();
        }
        self.canary.mark_silent(&mut self.hooks);
        if let Some(mut ebpf) = self.ebpf.take() {
            let mut retry = Retry::new(&mut ebpf, btf, choices);
            while retry.attach_next(&mut self.hooks) {
                self.canary.fly_again();
                self.await_canary();
                self.canary.mark_silent(&mut self.hooks);
            }
            self.ebpf = Some(ebpf);
        }
        // The same records come again, to be passed over.
        self.canary.rewind();
        for report in &self.hooks {
            let reason = report.reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
            let method = report.method.map(|method| format!(" by {method}")).unwrap_or_default();
            tracing::info!("hook {}: {}{method}{reason}", report.name, report.state);
        }
    }

    /// Waits until every hook has shown the canary. What else is read meanwhile stays in the ring's buffer.
    fn await_canary(&mut self) {
        let start = Instant::now();
        while !self.canary.is_seen(&self.hooks) && start.elapsed() < CANARY_WAIT {
            self.ring.wait(Duration::from_millis(1));
            // There is no next run yet.
            self.ring.take(|_| {});
            self.canary.rewind();
            for bytes in self.ring.later() {
                if let Ok(record) = Record::parse(bytes) {
                    self.canary.takes(bytes, &record);
                }
            }
        }
    }

    /// Takes in what ran before the hooks were attached, except what the previous run has reported better.
    fn settle(&mut self) {
        for running in std::mem::take(&mut self.snapshot) {
            if let Some(path) = running.cgroup {
                self.table.groups.insert(running.origin.place.cgroup, path);
            }
            let start = running.origin.start;
            let known = Key::new(running.origin.pid, start);
            let key = if self.table.get(known).is_some() { known } else { self.table.add(running.origin) };
            if self.cutoff.covers(key, start) {
                self.running.push(key);
            }
        }
        self.running.reverse();
    }

    /// The snapshot's events, some at a time. Their time is the moment from which records report everything else.
    fn emit_running(&mut self) -> Vec<Event> {
        let rest = self.running.len().saturating_sub(SNAPSHOT_BATCH);
        let keys = self.running.split_off(rest);
        let running = |key| self.decoder.already_running(&self.table, key, self.cutoff.attached);
        keys.into_iter().rev().filter_map(running).collect()
    }

    /// What happened between the previous run and this one, some at a time; `None` once all of it is emitted.
    fn emit_inherited(&mut self) -> Option<Batch> {
        let mut inherited = self.inherited.take()?;
        if inherited.ring.is_over() {
            return Some(self.take_over(inherited));
        }
        std::mem::swap(&mut self.ring, &mut inherited.ring);
        self.ring.drain(|_| {});
        let events = self.decode(Some(inherited.by));
        std::mem::swap(&mut self.ring, &mut inherited.ring);
        self.inherited = Some(inherited);
        Some(Batch { events, ..Batch::default() })
    }

    /// Continues where the previous run ended. What it left has been emitted and its results are on disk, for a batch is
    /// requested only once the one before is durable.
    fn take_over(&mut self, inherited: Inherited) -> Batch {
        self.settle();
        let (pid, records) = (inherited.by.pid, inherited.ring.delivered().iter().sum());
        let lost = inherited.lost.iter().sum();
        tracing::info!("handover from process {pid}: {records} records since its end, {lost} lost");
        self.handover = Some(HandoverCounts { pid, records, lost });
        let from = inherited.state.as_ref().map_or(self.cutoff.attached, |state| state.until);
        let lost = self.losses.add(from, self.cutoff.attached, &inherited.lost, 0, lost);
        inherited.release();
        let lost = lost.map(|lost| self.report_lost(&lost));
        Batch { events: lost.iter().map(|lost| lost.event.clone()).collect(), lost, ..Batch::default() }
    }

    /// Leaves to the next run what this one knows.
    fn store_state(&self) {
        let state =
            HandoverState::new(clock::now(), self.losses.lost(), self.table.save(), self.owners.save());
        if let Err(error) = handover::store_state(&state) {
            tracing::warn!("cannot save state for the next run: {error:#}");
        }
    }

    /// Takes what is in the rings. The signal that stops the agent is left to the next run before its record is taken.
    fn drain(&mut self) {
        let (agent, fds_stored, stop_signal) = (self.agent, self.fds_stored, &mut self.stop_signal);
        self.ring.drain(|signal| {
            if fds_stored {
                stop_signal.store(signal, agent);
            }
        });
    }

    /// Turns the records that are ready into events; those of the rings of the process `before`, where one is given.
    fn decode(&mut self, before: Option<Key>) -> Vec<Event> {
        let mut ports = self.find_ports();
        let is_udp = |hook: &HookReport| hook.name == UDP && hook.state != HookState::Disabled;
        let mut sources = if self.hooks.iter().any(is_udp) { known_sources(&self.ring) } else { Vec::new() };
        let mut events = Vec::with_capacity(ports.len());
        for bytes in self.ring.ready() {
            let record = match Record::parse(bytes) {
                Ok(record) => record,
                Err(error) => {
                    self.malformed += 1;
                    tracing::warn!("{error}");
                    continue;
                }
            };
            let port = if matches!(record, Record::Connect(_)) { ports.pop() } else { None };
            let completed;
            let record = match record {
                Record::Datagram(sent) => {
                    completed = sent_from(sent, sources.pop().flatten());
                    Record::Datagram(&completed)
                }
                record => record,
            };
            if self.canary.takes(bytes, &record) {
                self.canary.count();
                continue;
            }
            if let Record::Touched(touched) = record {
                if before.is_none() && self.stop_signal.takes(touched, clock::now()) {
                    continue;
                }
                let found = touched::report(touched, before.or(self.agent), clock::now());
                found.into_iter().for_each(|(subject, report)| self.tamper.done(subject, report));
                if before.is_none() {
                    self.stop_signal.reported(touched);
                }
                continue;
            }
            if own::is_connection_of(before.or(self.agent), &record) {
                self.self_connections += 1;
                continue;
            }
            let is_delivered = match before {
                Some(_) => self.cutoff.is_in_this_run(&record),
                None => self.cutoff.is_covered(&record),
            };
            if is_delivered {
                self.already_delivered += 1;
                if let Record::Exec(exec) = &record {
                    // It may be of a group that others are in.
                    name_cgroup(&mut self.table, exec);
                }
                continue;
            }
            let (table, decoder, ebpf) = (&mut self.table, &mut self.decoder, self.ebpf.as_ref());
            let (owners, wanted, filter) = (&mut self.owners, &self.wanted, self.kernel_filter.now());
            EventBuilder { table, decoder, owners, wanted, filter, ebpf, events: &mut events }
                .build(&record, port);
        }
        events
    }

    /// A wait that took far longer than it may: the agent was stopped, frozen, or got no processor. Where a signal is known to have
    /// stopped it, that is reported already.
    fn look_for_stall(&mut self, (from, to): (u64, u64)) {
        let is_known = self
            .tamper
            .has(|subject| matches!(subject, Subject::Act { kind, .. } if *kind == Kind::SIGNAL.0));
        if to.saturating_sub(from) < STALL_NANOS || is_known {
            return;
        }
        let seconds = (to - from) / 1_000_000_000;
        let reason =
            format!("the sensor stood still for {seconds} s: it was stopped, frozen, or got no processor");
        self.tamper.done(Subject::Stalled, Report::new(reason, from, to, Weight::Managed));
    }

    /// Checks that what the sensor put into the kernel is untouched, and that it reports what happens. Returns what was
    /// not reported before.
    fn watch_over(&mut self, now: u64) -> Vec<Tampered> {
        if self.stopped.is_some() {
            return Vec::new();
        }
        if let Some(touched) = self.stop_signal.over(now) {
            let found = touched::report(&touched, self.agent, now);
            found.into_iter().for_each(|(subject, report)| self.tamper.done(subject, report));
            self.stop_signal.reported(&touched);
        }
        let report = |reason, from| Report::new(reason, from, now, Weight::Interference);
        if let Some(found) = self.kernel_filter.verify() {
            let reason = format!(
                "the map FILTER, the kernel's connection filter, was changed to {found}: connections since the \
                 last check may have been missed"
            );
            self.tamper.done(Subject::Map("FILTER"), report(reason, self.looked));
        }
        self.look_at_links(now);
        let untestable = self.untestable();
        let has_lost = |from| self.losses.between(from, now) > 0;
        for (hook, fault) in self.canary.turn(now, &self.hooks, &untestable, has_lost) {
            match fault {
                None => self.tamper.resolve(&Subject::Hook(hook)),
                Some(fault) => {
                    let reason = format!("hook {hook} failed the self-test: {fault}");
                    self.tamper.raise(Subject::Hook(hook), report(reason, self.canary.good(hook)));
                    self.silent.push(hook);
                }
            }
        }
        self.looked = now;
        self.look_at_files(now);
        self.tamper.expire(now);
        let reports = self.tamper.take();
        reports.iter().map(|report| self.decoder.tampered(&self.table, report)).collect()
    }

    /// Where no hook shows who traces the agent, the kernel says whether anyone does now.
    fn look_for_tracer(&mut self, now: u64) {
        let is_shown = |hook: &HookReport| hook.name == PTRACE && hook.state == HookState::Attached;
        let Some(pid) = (!self.hooks.iter().any(is_shown)).then(own::tracer).flatten() else { return };
        let by = self.table.by_pid(pid).map(|process| process.key);
        let reason = format!("process {pid} traces the sensor, as a debugger does");
        let subject = Subject::Act { kind: Kind::PTRACE.0, what: 0, by: pid };
        let report = Report::new(reason, self.looked, now, Weight::Interference);
        self.tamper.done(subject, Report { by, ..report });
    }

    /// Looks whether all is attached, and attaches again what is not.
    fn look_at_links(&mut self, now: u64) {
        let Some(faults) = self.guard.look(now) else { return };
        self.look_for_tracer(now);
        let words: Vec<_> = faults.iter().map(|fault| fault.words.as_str()).collect();
        self.tamper.keep_links(&words);
        let silent = std::mem::take(&mut self.silent);
        let mut mended = Vec::new();
        for fault in &faults {
            self.is_number_lost |= !fault.occupy();
            let report = |reason| Report::new(reason, self.looked, now, Weight::Interference);
            let what = format!("a kernel program of the sensor is not attached any more: {}", fault.words);
            let Some(ebpf) = &mut self.ebpf else { continue };
            let is_silent = fault.program(ebpf).is_some_and(|(_, hook, _)| silent.contains(&hook));
            if self.fds_stored && !fault.is_detached && !is_silent {
                // Attached twice it would show all twice, and the service manager has a descriptor of its own.
                let reason = format!("{what}; the service manager may keep it attached; restart the service");
                let subject = Subject::Link(fault.words.clone());
                if !self.tamper.has(|known| *known == subject) {
                    self.canary.hurry();
                }
                self.tamper.raise(subject, report(reason));
                continue;
            }
            match fault.mend(ebpf) {
                Ok(hook) => {
                    mended.push(fault);
                    let reason = format!(
                        "{what}; the hook {hook} is attached again, and missed what happened meanwhile"
                    );
                    self.tamper.done(Subject::Link(hook.to_owned()), report(reason));
                }
                Err(error) => {
                    let reason =
                        format!("{what}; it cannot be attached again ({error}); restart the service");
                    self.tamper.raise(Subject::Link(fault.words.clone()), report(reason));
                }
            }
        }
        if !mended.is_empty() {
            self.guard.mended(&mended);
            self.canary.hurry();
            if self.fds_stored {
                handover::give_links();
            }
        }
    }

    /// Takes in what became of the agent's files, and finds out by whom.
    fn look_at_files(&mut self, now: u64) {
        for change in self.integrity.iter().flat_map(Integrity::changes) {
            let subject = Subject::File(change.path.display().to_string());
            match change.outcome {
                Outcome::Restored => self.tamper.resolve(&subject),
                Outcome::Loaded => {
                    self.tamper.note(Report::new(change.reason, self.looked, now, Weight::Meant));
                }
                Outcome::Changed => self.tamper.changed(subject, self.change(change, now)),
                Outcome::Done => self.tamper.done(subject, self.change(change, now)),
            }
        }
    }

    /// What to report of a change of a file, and by whom it was made.
    fn change(&self, change: FileChange, now: u64) -> Report {
        let ago = |at: Instant| now.saturating_sub(u64::try_from(at.elapsed().as_nanos()).unwrap_or(0));
        let (from, to) = (ago(change.from), ago(change.to));
        let ran = self.table.between(from, to);
        let found = who::changed(&self.table, &ran, &change.path, &change.holders, self.agent);
        let is_meant = found.is_meant && !change.is_own;
        let weight = if is_meant { Weight::Meant } else { Weight::Interference };
        Report { reason: change.reason, from, to, by: found.key, who: found.words, weight }
    }

    /// Watches over the agent's files from now on.
    pub(crate) fn watch_files(&mut self, integrity: Integrity) {
        self.integrity = Some(integrity);
    }

    /// Hooks of which the kernel leaves out what the canary does: what the agent does passes the filter only where it is known by
    /// its number.
    fn untestable(&self) -> Vec<&'static str> {
        let is_filtered =
            |kind: &Kind| self.is_inner && self.kernel_filter.now().drops(*kind, Reach::Loopback.bit());
        let hooks = HOOKS.iter().filter(|hook| hook.yields.first().is_some_and(is_filtered));
        hooks.map(|hook| hook.name).collect()
    }

    fn report_lost(&mut self, lost: &loss::LossPeriod) -> Lost {
        let by_kind = lost.by_kind.iter().map(|(kind, count)| (name(*kind), *count));
        let by_kind = by_kind.chain([(PROBE_RUNS, lost.missed)]).filter(|(_, count)| *count > 0);
        Lost {
            event: self.decoder.lost(lost.records, lost.total, lost.to),
            from: self.decoder.clock.wall(lost.from),
            to: self.decoder.clock.wall(lost.to),
            by_kind: by_kind.collect(),
            by_user: lost.by_user.clone(),
        }
    }

    /// The local ports of the connections that are ready, the last one first; zero where it cannot be known. One that
    /// may still come holds back what follows it, for a moment.
    fn find_ports(&mut self) -> Vec<u16> {
        let mut ports = known_ports(&self.ring, &mut self.ports);
        let hold_before = clock::now().saturating_sub(PORT_WAIT_NANOS);
        let mut left = ports.len();
        let mut hold = None;
        for (index, bytes) in self.ring.ready().enumerate() {
            let Ok(Record::Connect(connect)) = Record::parse(bytes) else { continue };
            left -= 1;
            if ports[left] == 0 {
                ports[left] = read_port(self.ebpf.as_ref(), connect);
            }
            if ports[left] == 0 && connect.header.time > hold_before {
                hold = Some(index);
                break;
            }
        }
        if let Some(index) = hold {
            self.ring.hold_from(index);
            ports.drain(..=left);
        }
        ports
    }
}

/// Makes events of one record: what it shows its process to have become since the record before, and then what it is
/// about.
struct EventBuilder<'a> {
    table: &'a mut Table,
    decoder: &'a mut Decoder,
    owners: &'a mut Owners,
    wanted: &'a Wanted,
    filter: &'a Filter,
    ebpf: Option<&'a Ebpf>,
    events: &'a mut Vec<Event>,
}

impl EventBuilder<'_> {
    fn build(&mut self, record: &Record<'_>, port: Option<u16>) {
        let time = record.header().time;
        let event = match record {
            Record::Fork(fork) => {
                let (forker, changes) = self.table.observe_forker(fork);
                self.emit_changes(forker, changes, time);
                let key = self.table.fork(fork);
                self.decoder.fork(self.table, key, time)
            }
            Record::Exec(exec) => {
                name_cgroup(self.table, exec);
                // The kernel changes the ids before the program, and the sensors that rules are written for report it so.
                let state = process::state_of(&exec.fixed.credentials, &exec.fixed.place);
                self.observe(Key::of(&exec.fixed.task), &state, time);
                let image = Image::of_exec(exec, script::of(exec, self.table), self.wanted);
                let key = self.table.exec(exec, image);
                self.decoder.exec(self.table, key, time)
            }
            Record::Exit(exit) => {
                let key = self.table.find(&exit.task);
                self.observe(key, &exit.state, time);
                let is_end = self.table.end(key, time);
                let event = if is_end { self.decoder.end(self.table, key, exit) } else { None };
                self.table.slim(key);
                event
            }
            Record::Connect(connect) => {
                let key = self.table.find(&connect.task);
                self.table.connect(key, &connect.socket, time);
                self.observe(key, &connect.state, time);
                let known = port.filter(|port| *port != 0);
                let port = known.unwrap_or_else(|| read_port(self.ebpf, connect));
                self.remember_owner(&connect.socket, key, false);
                self.decoder.connect(self.table, key, connect, port)
            }
            Record::Accept(accept) => {
                let key = self.table.find(&accept.task);
                self.table.connect(key, &accept.socket, time);
                self.observe(key, &accept.state, time);
                self.remember_owner(&accept.socket, key, true);
                self.decoder.accept(self.table, key, accept)
            }
            Record::Datagram(sent) => {
                let key = self.table.find(&sent.task);
                self.table.connect(key, &sent.socket, time);
                self.observe(key, &sent.state, time);
                self.decoder.datagram(self.table, key, sent)
            }
            Record::Changed(changed) => {
                let key = self.table.find(&changed.task);
                self.observe(key, &changed.state, time);
                None
            }
            Record::Closed(closed) => {
                let owner = self.owners.take(closed.socket.id);
                owner.iter().for_each(|owner| self.table.disconnect(owner.key, closed.socket.id, time));
                owner.and_then(|owner| self.decoder.disconnect(self.table, owner, closed))
            }
            Record::Connected(_) | Record::Touched(_) => None,
        };
        self.events.extend(event);
    }

    /// Remembers whose connection it is, where its end will be reported.
    fn remember_owner(&mut self, socket: &Socket, key: Key, is_acceptor: bool) {
        let reach =
            Reach::of(socket.family == AF_INET6, if is_acceptor { socket.local } else { socket.remote });
        if !self.filter.drops(Kind::CLOSED, reach.bit()) {
            let user = self.table.owner(key);
            self.owners.set(socket.id, Owner { key, is_acceptor, reach, user });
        }
    }

    /// Takes in what a process is now, and emits what has changed.
    fn observe(&mut self, key: Key, state: &State, time: u64) {
        let changes = self.table.observe(key, state);
        self.emit_changes(key, changes, time);
    }

    fn emit_changes(&mut self, key: Key, changes: Changes, time: u64) {
        if changes != Changes::default() {
            self.events.extend(self.decoder.changed(self.table, key, changes, time));
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
        if is_watched != self.is_watched {
            self.is_watched = is_watched;
            self.decoder.set_unfiltered(is_watched);
            if self.kernel_filter.watch(is_watched) {
                self.keep_owners();
            }
        }
    }

    fn status(&self) -> serde_json::Value {
        let status = Sensor::status(self);
        let records = status.records.iter().map(|(kind, counts, dropped)| {
            let KindCounts { seen, filtered, lost, delivered } = counts;
            let dropped = Some(dropped).filter(|dropped| !dropped.is_empty());
            json!({
                "name": kind,
                "seen": seen,
                "delivered": delivered,
                "filtered": filtered,
                "lost": lost,
                "filtered_to": dropped,
            })
        });
        json!({
            "hooks": status.hooks,
            "records": records.collect::<Vec<_>>(),
            "probe_recursion_misses": status.probe_recursion_misses,
            "downtime": self.downtime.map(|(from, to)| json!({"from": from.to_string(), "to": to.to_string()})),
            "handover": self.handover.map(|HandoverCounts { pid, records, lost }| {
                json!({"pid": pid, "records": records, "lost": lost})
            }),
            "malformed": status.malformed,
            "out_of_order": status.out_of_order,
            "self_connections_filtered": status.self_connections,
            "already_delivered": status.already_delivered,
            "tampered": self.tamper.reasons(),
            "files_changed": self.tamper.meant(),
            "files": self.integrity.as_ref().map(Integrity::status),
            "alarms": self.integrity.as_ref().map(Integrity::alarms).unwrap_or_default(),
            "tamperings": self.tamper.counts().0,
            "tamperings_unlisted": self.tamper.counts().1,
            "canary": {
                "flights": status.canary.flights,
                "failed": status.canary.failed,
                "records": status.canary.records,
            },
            "connections": status.owners.open,
            "owner_table_full": status.owners.table_full,
            "closes_without_owner": status.owners.closes_without_owner,
            "processes": status.processes,
            "processes_alive": status.alive,
            "processes_ended": status.ended,
            "cgroups_evicted": self.table.groups.evicted(),
            "processes_evicted": status.table.evicted,
            "processes_shortened": status.table.shortened,
            "processes_previous_dropped": status.table.previous_dropped,
            "processes_recovered_from_procfs": status.table.recovered,
            "processes_expired_without_exit": status.table.expired_without_exit,
            "budgets": self.table.meters().map(Meter::status),
        })
    }

    fn now(&self) -> Timestamp {
        self.decoder.clock.monotonic(clock::now())
    }

    fn lost(&self, from: Timestamp, to: Timestamp) -> Option<u64> {
        let clock = self.decoder.clock;
        Some(self.losses.between(clock.since_boot(from), clock.since_boot(to)))
    }
}

/// Takes in the path of a control group, where a record has it.
fn name_cgroup(table: &mut Table, exec: &ExecRecord<'_>) {
    if exec.fixed.cgroup.len != 0 {
        let path = String::from_utf8_lossy(&exec.path(exec.fixed.cgroup)).into();
        table.groups.insert(exec.fixed.place.cgroup, path);
    }
}

/// The records that are ready and those that wait, each with whether it is ready. A socket is used again and again, so that what
/// became of it is found from the newest back.
fn newest_first(ring: &Ring) -> impl Iterator<Item = (Record<'_>, bool)> {
    let later = ring.later().rev().map(|bytes| (bytes, false));
    let ready = ring.ready().rev().map(|bytes| (bytes, true));
    later.chain(ready).filter_map(|(bytes, is_ready)| Some((Record::parse(bytes).ok()?, is_ready)))
}

/// The ports of the connections that are ready, the last one first; zero where no answer has it yet.
fn known_ports(ring: &Ring, ports: &mut HashMap<u64, u16>) -> Vec<u16> {
    ports.clear();
    let mut found = Vec::new();
    for (record, is_ready) in newest_first(ring) {
        match record {
            Record::Connected(connected) => {
                ports.insert(connected.socket, connected.local_port);
            }
            Record::Closed(closed) => {
                ports.insert(closed.socket.id, closed.socket.local_port);
            }
            Record::Connect(connect) => {
                let port = ports.remove(&connect.socket.id).unwrap_or(connect.socket.local_port);
                if is_ready {
                    found.push(port);
                }
            }
            _ => {}
        }
    }
    found
}

/// For each datagram that is ready, the last one first, what is known of its socket since that was connected.
fn known_sources(ring: &Ring) -> Vec<Option<Connected>> {
    let mut found = Vec::new();
    let mut known = HashMap::new();
    for (record, is_ready) in newest_first(ring) {
        match record {
            Record::Connected(connected) if connected.state == 0 => {
                known.insert(connected.socket, *connected);
            }
            Record::Datagram(sent) => {
                let source = known.remove(&sent.socket.id);
                if is_ready {
                    found.push(source);
                }
            }
            _ => {}
        }
    }
    found
}

/// A datagram's record with the address and port that its socket got once it was connected.
fn sent_from(sent: &Connection, source: Option<Connected>) -> Connection {
    let mut sent = *sent;
    if let Some(source) = source.filter(|source| source.remote_port == sent.socket.remote_port) {
        (sent.socket.local, sent.socket.local_port) = (source.local, source.local_port);
    }
    sent
}

/// Asks the kernel for the port of a socket that has no answer yet; zero where it is gone.
fn read_port(ebpf: Option<&Ebpf>, record: &Connection) -> u16 {
    let Some(Ok(program)) = ebpf.and_then(|ebpf| ebpf.program("port")).map(<&RawTracePoint>::try_from) else {
        return 0;
    };
    let mut options = RawTracePointRunOptions::new();
    options.args[0] = record.socket.id;
    options.args[1] = record.socket.inode;
    options.args[2] = record.socket.remote_port.into();
    let run = program.test_run(options);
    run.map_or(0, |result| u16::try_from(result.return_value).unwrap_or(0))
}

/// How often the kernel skipped a program because it was running already, by the programs' descriptors.
fn recursion_misses(ebpf: &Ebpf) -> u64 {
    let fds = ebpf.programs().filter_map(|(_, program)| Some(program.fd().ok()?.as_fd().as_raw_fd()));
    let misses = fds.filter_map(|fd| {
        let text = bounded::read_text(format!("/proc/self/fdinfo/{fd}"), HOST_FILE_BYTES_MAX).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("recursion_misses:"))?;
        line.trim().parse::<u64>().ok()
    });
    misses.sum()
}
