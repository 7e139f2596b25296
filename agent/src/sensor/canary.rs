//! The canary: at the start and every minute the agent forks, begins a session, becomes another group, execs, connects,
//! accepts and sends a datagram once itself, and every hook must record it correctly. A hook that never fires, or
//! records something wrong, is reported, because a silent hook would look like an idle host.
//!
//! No events are built from its records. A record is the canary's only during a flight, and by what an attacker cannot
//! choose: the process is a child of the agent, by pid and start time, has not ended, and executes its one program
//! once. Anything else that such a process does is an ordinary event.

mod flight;

use std::sync::mpsc::{Receiver, TryRecvError, channel};

use lapwing_common::Task;
use zerocopy::IntoBytes as _;

use self::flight::{Flight, fly};
use super::hook::{HOOKS, HookReport, HookState};
use super::key::Key;
use super::record::Record;
use super::{clock, own};

/// How often it flies.
const EVERY_NANOS: u64 = 60_000_000_000;
/// How many flights in a row a hook must fail before it is reported, because a busy host may delay one. The second
/// flight follows at once.
const FAILED_MAX: u32 = 2;
/// How long after a flight its records may still come.
const LATE_NANOS: u64 = 5_000_000_000;
/// How long a flight may take. A longer one is a failure, and no other begins until it ends.
const FLIGHT_NANOS_MAX: u64 = 20_000_000_000;
/// Maximum number of records of one flight that are kept for the check, and the maximum size of each.
const RECORDS_MAX: usize = 32;
const RECORD_BYTES_MAX: usize = 8 * 1024;

/// The state of the canary: its flights, by which its records are recognized, and their results.
pub(super) struct Canary {
    own: Option<Key>,
    /// Children whose exit was not recorded.
    children: Vec<Child>,
    /// The start and the end of the last flight; the end is [`u64::MAX`] while it runs.
    from: u64,
    until: u64,
    /// The actions of the last flight.
    flight: Flight,
    /// Receives these actions, if the flight runs on its own thread.
    result: Option<Receiver<Flight>>,
    is_checked: bool,
    /// Whether the next flight follows at once.
    is_due: bool,
    /// The kernel's id of the socket with which it connected.
    socket: Option<u64>,
    /// Its records.
    records: Vec<Vec<u64>>,
    /// For each hook: how many flights in a row it failed, and the start of the last flight that it recorded.
    hooks: [(u32, u64); HOOKS.len()],
    /// The counters.
    counts: CanaryCounts,
}

/// A child of the agent.
struct Child {
    pid: u32,
    start: u64,
    has_run: bool,
}

/// The counters of flights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CanaryCounts {
    /// Flights.
    pub(crate) flights: u64,
    /// Flights that a hook did not record, or recorded wrongly.
    pub(crate) failed: u64,
    /// Their records, for which no events were built.
    pub(crate) records: u64,
}

/// A hook, and the fault of its records, if any.
pub(super) type Finding = (&'static str, Option<String>);

impl Canary {
    /// Runs the flight.
    pub(super) fn fly() -> Self {
        let mut canary = Self {
            own: own::key(),
            children: Vec::new(),
            from: 0,
            until: 0,
            flight: Flight::default(),
            result: None,
            is_checked: true,
            is_due: false,
            socket: None,
            records: Vec::new(),
            hooks: [(0, clock::now()); HOOKS.len()],
            counts: CanaryCounts::default(),
        };
        canary.fly_again();
        canary
    }

    /// Runs another flight, and drops the records of the previous one.
    pub(super) fn fly_again(&mut self) {
        self.begin();
        self.flight = fly();
        self.until = clock::now();
    }

    /// Drops the records, so that they can be read and checked again.
    pub(super) fn rewind(&mut self) {
        self.children.clear();
        self.records.clear();
    }

    /// Whether a record comes from the canary. It is then counted, and no event is built.
    pub(super) fn takes(&mut self, bytes: &[u8], record: &Record<'_>) -> bool {
        let time = record.header().time;
        if time > self.until || self.own.is_none() {
            return false;
        }
        let is_it = self.is_own(record);
        if let Record::Connect(connect) = record
            && is_it
        {
            self.socket = Some(connect.socket.id);
        }
        let is_answer = matches!(record, Record::Connected(one) if Some(one.socket) == self.socket);
        if (is_it || is_answer) && time >= self.from && self.records.len() < RECORDS_MAX {
            self.note(bytes);
        }
        is_it
    }

    /// Counts a record of the canary for which no event is built.
    pub(super) fn count(&mut self) {
        self.counts.records += 1;
    }

    /// Begins a flight every minute, on its own thread, and returns the result of each hook once. Nothing here waits.
    /// Hooks that are `untestable` are not checked, because the kernel filters their records; nothing is checked if
    /// records were lost since a time (`has_lost`).
    pub(super) fn turn(
        &mut self,
        now: u64,
        hooks: &[HookReport],
        untestable: &[&str],
        has_lost: impl Fn(u64) -> bool,
    ) -> Vec<Finding> {
        match self.result.as_ref().map(Receiver::try_recv) {
            Some(Ok(flight)) => {
                (self.flight, self.result, self.until) = (flight, None, now);
            }
            Some(Err(TryRecvError::Disconnected)) => {
                (self.flight, self.result, self.until) = (Flight::impossible("its thread ended"), None, now);
            }
            Some(Err(TryRecvError::Empty)) if now < self.from + FLIGHT_NANOS_MAX || self.is_checked => {
                return Vec::new();
            }
            Some(Err(TryRecvError::Empty)) => {
                self.is_checked = true;
                self.counts.failed += 1;
                let fault = Some("the agent's own test does not end".to_owned());
                return vec![("fork", fault)].into_iter().filter(|_| self.is_sure("fork", true)).collect();
            }
            None => {}
        }
        if !self.is_checked && (now > self.until + LATE_NANOS || self.is_seen(hooks)) {
            self.is_checked = true;
            let is_lossy = has_lost(self.from);
            return if is_lossy { Vec::new() } else { self.findings(hooks, untestable) };
        }
        let is_time = self.is_due || now >= self.from + EVERY_NANOS;
        if is_time && self.is_checked && self.result.is_none() {
            self.set_off();
        }
        Vec::new()
    }

    /// Requests the next flight as soon as possible.
    pub(super) fn hurry(&mut self) {
        self.is_due = true;
    }

    /// Whether every attached hook has recorded it correctly.
    pub(super) fn is_seen(&self, hooks: &[HookReport]) -> bool {
        self.tested(hooks).all(|name| self.fault(name).is_none())
    }

    /// Marks the hooks that did not record it.
    pub(super) fn mark_silent(&mut self, hooks: &mut [HookReport]) {
        self.is_checked = true;
        let faults: Vec<_> = self.tested(hooks).filter_map(|name| Some((name, self.fault(name)?))).collect();
        for (name, fault) in faults {
            for report in hooks.iter_mut().filter(|report| report.name == name) {
                (report.state, report.reason) = (HookState::NotFiring, Some(fault.clone()));
            }
        }
        for report in hooks.iter_mut().filter(|report| report.state == HookState::Attached) {
            if let Some(error) = self.flight.undone(report.name) {
                report.reason = Some(format!("attached and not tested: {error}"));
            }
        }
    }

    /// The counters.
    pub(super) fn counts(&self) -> CanaryCounts {
        self.counts
    }

    fn begin(&mut self) {
        (self.from, self.until, self.is_checked) = (clock::now(), u64::MAX, false);
        self.is_due = false;
        self.counts.flights += 1;
        self.records.clear();
    }

    fn set_off(&mut self) {
        self.begin();
        self.children.clear();
        self.flight = Flight::default();
        let (sender, result) = channel();
        // If the sensor has stopped, the flight is not used.
        let body = move || drop(sender.send(fly()));
        match std::thread::Builder::new().name("canary".to_owned()).spawn(body) {
            Ok(_) => self.result = Some(result),
            Err(error) => {
                (self.flight, self.until) = (Flight::impossible(&error.to_string()), clock::now());
            }
        }
    }

    fn findings(&mut self, hooks: &[HookReport], untestable: &[&str]) -> Vec<Finding> {
        let tested = self.tested(hooks).filter(|name| !untestable.contains(name));
        let found: Vec<_> = tested.map(|name| (name, self.fault(name))).collect();
        self.counts.failed += u64::from(found.iter().any(|(_, fault)| fault.is_some()));
        let sure = found.into_iter().filter(|(name, fault)| self.is_sure(name, fault.is_some())).collect();
        // The next flight follows at once, to confirm a failure.
        self.is_due = self.hooks.iter().any(|(failed, _)| (1..FAILED_MAX).contains(failed));
        sure
    }

    /// Records a hook's result. Returns whether to report it.
    fn is_sure(&mut self, name: &str, has_failed: bool) -> bool {
        let from = self.from;
        let Some((failed, good)) = place(name).and_then(|place| self.hooks.get_mut(place)) else {
            return false;
        };
        if has_failed {
            *failed += 1;
            tracing::debug!("hook {name}: self-test failed {failed} times in a row");
            return *failed >= FAILED_MAX;
        }
        (*failed, *good) = (0, from);
        true
    }

    /// The start of the last flight that a hook recorded.
    pub(super) fn good(&self, name: &str) -> u64 {
        place(name).map_or(self.from, |place| self.hooks[place].1)
    }

    /// The hooks that are attached and could be tested.
    fn tested(&self, hooks: &[HookReport]) -> impl Iterator<Item = &'static str> {
        let attached = |name: &str| {
            hooks.iter().any(|report| report.name == name && report.state == HookState::Attached)
        };
        let is_tested = move |name: &&'static str| {
            flight::TESTED.contains(name) && attached(name) && self.flight.undone(name).is_none()
        };
        HOOKS.iter().map(|hook| hook.name).filter(is_tested)
    }

    /// The fault of a hook's records, if any.
    fn fault(&self, name: &str) -> Option<String> {
        let hook = HOOKS.iter().find(|hook| hook.name == name)?;
        let records = self.records.iter().filter_map(|bytes| Record::parse(bytes.as_bytes()).ok());
        flight::fault(hook.yields, records, &self.flight, self.own?)
    }

    /// Whether a record is of the canary.
    fn is_own(&mut self, record: &Record<'_>) -> bool {
        match record {
            Record::Fork(fork) => {
                let is_it = Some(Key::new(fork.forker, fork.forker_start)) == self.own
                    && Key::parent_of(&fork.child) == self.own;
                if is_it {
                    self.adopt(&fork.child);
                }
                is_it
            }
            Record::Exec(exec) => {
                let child = self.child(&exec.fixed.task);
                child.is_some_and(|child| !std::mem::replace(&mut child.has_run, true))
            }
            Record::Exit(exit) => {
                let is_it = self.child(&exit.task).is_some();
                let (pid, start) = (exit.task.pid, exit.task.start);
                self.children.retain(|child| (child.pid, child.start) != (pid, start));
                is_it
            }
            Record::Connect(one) | Record::Accept(one) | Record::Datagram(one) => {
                Some(Key::of(&one.task)) == self.own && flight::is_loopback(&one.socket)
            }
            // The child does nothing to the agent.
            Record::Touched(_) => false,
            other => other.task().is_some_and(|task| self.child(task).is_some()),
        }
    }

    /// The canary's child with this task. A child whose fork was not recorded is identified by its parent.
    fn child(&mut self, task: &Task) -> Option<&mut Child> {
        let is_it = |child: &Child| (child.pid, child.start) == (task.pid, task.start);
        if !self.children.iter().any(is_it) {
            let is_expected = self.flight.child == Some(task.pid) && self.children.is_empty();
            if !is_expected || Key::parent_of(task) != self.own {
                return None;
            }
            self.adopt(task);
        }
        self.children.iter_mut().find(|child| is_it(child))
    }

    fn adopt(&mut self, task: &Task) {
        self.children.push(Child { pid: task.pid, start: task.start, has_run: false });
    }

    fn note(&mut self, bytes: &[u8]) {
        if bytes.len() <= RECORD_BYTES_MAX {
            let mut room = vec![0; bytes.len().div_ceil(8)];
            room.as_mut_bytes()[..bytes.len()].copy_from_slice(bytes);
            self.records.push(room);
        }
    }
}

fn place(name: &str) -> Option<usize> {
    HOOKS.iter().position(|hook| hook.name == name)
}
