//! Streams of events as the sensor emits them on busy hosts, generated without a host: the same seed gives the same
//! stream.
//!
//! A stream consists of activities that hosts have all day, such as web servers, compilers, cron and kubelet, and of a
//! few suspicious ones; [`Workload`] sets the proportion. The fields of a process are built once and shared by its
//! events, as in the sensor, and each event has the same fields of its own as the sensor's.
//!
//! ```
//! use lapwing_stream::{Workload, Stream};
//! let events: Vec<_> = Stream::new(Workload::Mixed, 7).take(100).collect();
//! assert_eq!(events, Stream::new(Workload::Mixed, 7).take(100).collect::<Vec<_>>());
//! ```
#![forbid(unsafe_code)]

mod activity;
mod process;

use std::cell::OnceCell;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use lapwing_engine::{Event, Fields, Timestamp, Value, field};
use smol_str::{SmolStr, ToSmolStr, format_smolstr};

use self::activity::{Activity, Deed, Program, activities, folder, inner, outer};
use self::process::Process;

/// What most of a stream's events are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Processes: builds, scripts, cron.
    Exec,
    /// Connections: web servers, databases.
    Connect,
    /// Both.
    Mixed,
}

/// An endless stream of events, in order of time.
pub struct Stream {
    kind: Workload,
    rng: Rng,
    activities: Vec<Activity>,
    /// The program of each activity that is there all the time.
    residents: Vec<Option<Rc<Process>>>,
    init: Rc<Process>,
    host: Arc<Fields>,
    actions: [Arc<Fields>; 5],
    time: Timestamp,
    sequence: i64,
    pid: u32,
    ready: VecDeque<Event>,
}

/// The longest time between two events, which is random: a thousand events a second.
const APART_MICROS_MAX: u64 = 2000;
/// An activity's resident program is replaced, like a worker, once in so many times.
const REPLACED_ONE_IN: u32 = 50;

const FORK: usize = 0;
const EXEC: usize = 1;
const END: usize = 2;
const ATTEMPTED: usize = 3;
const ACCEPTED: usize = 4;

impl Stream {
    /// The stream of this seed.
    #[must_use]
    pub fn new(kind: Workload, seed: u64) -> Self {
        let activities = activities();
        let time = Timestamp::from_millis(1_795_000_000_000);
        let program = Program::new("/usr/lib/systemd/systemd".into(), None, vec!["/sbin/init".into()]);
        let init = Process {
            pid: 1,
            start: time,
            entity_id: "MDAwMDAwMDAtMQ".into(),
            parent: None,
            leader: None,
            entry: "init",
            user: "root",
            uid: 0,
            tty: false,
            directory: "/".into(),
            program: program.into(),
            previous: None,
            process: OnceCell::new(),
            network: OnceCell::new(),
            roles: Default::default(),
        };
        Self {
            kind,
            rng: Rng::with_seed(seed),
            residents: activities.iter().map(|_| None).collect(),
            activities,
            init: init.into(),
            host: host().into(),
            actions: ["fork", "exec", "end", "connection_attempted", "connection_accepted"]
                .map(|name| action(name).into()),
            time,
            sequence: 0,
            pid: 2000,
            ready: VecDeque::new(),
        }
    }

    /// An activity from beginning to end.
    fn act(&mut self) {
        let weight = |activity: &Activity| activity.weight(self.kind);
        let together: u32 = self.activities.iter().map(weight).sum();
        let mut at = self.rng.u32(..together);
        let chosen = self.activities.iter().position(|activity| {
            let found = at < weight(activity);
            at = at.saturating_sub(weight(activity));
            found
        });
        let Some(chosen) = chosen else { return };
        let resident = self.resident(chosen);
        let activities = std::mem::take(&mut self.activities);
        let steps = &activities[chosen].steps;
        // A step's processes end when a step comes that is no deeper.
        let mut running = vec![resident];
        for step in steps {
            self.end_below(&mut running, step.depth);
            let Some(above) = running.last().cloned() else { break };
            match &step.deed {
                Deed::Run(template) => {
                    let program = template.fill(&mut self.rng);
                    running.push(self.run(&above, program));
                }
                Deed::Connect { port, times } => {
                    (0..*times).for_each(|_| self.connect(&above, *port));
                }
                Deed::Accept { port, times } => (0..*times).for_each(|_| self.accept(&above, *port)),
            }
        }
        self.end_below(&mut running, 1);
        self.activities = activities;
    }

    fn end_below(&mut self, running: &mut Vec<Rc<Process>>, depth: usize) {
        while running.len() > depth {
            if let Some(process) = running.pop() {
                let mut own = self.own();
                own.set(field!("process.end"), self.time);
                own.set(field!("process.exit_code"), i64::from(self.rng.u8(..20) == 0));
                self.process_event(END, &process, own);
            }
        }
    }

    /// The resident program of an activity, which is sometimes a new one.
    fn resident(&mut self, chosen: usize) -> Rc<Process> {
        if let Some(resident) = &self.residents[chosen]
            && self.rng.u32(..REPLACED_ONE_IN) > 0
        {
            return resident.clone();
        }
        let activity = &self.activities[chosen];
        let program = activity.resident.fill(&mut self.rng);
        let tty = activity.entry == "sshd";
        let (user, entry) = (activity.user, activity.entry);
        let init = self.init.clone();
        let forked = self.fork(&init);
        let resident = Process {
            user,
            uid: if user == "root" { 0 } else { 1000 + user.len() as u32 },
            tty,
            entry,
            leader: None,
            program: program.into(),
            directory: folder(&mut self.rng).into(),
            previous: Some(init.program.clone()),
            process: OnceCell::new(),
            network: OnceCell::new(),
            roles: Default::default(),
            entity_id: forked.entity_id.clone(),
            parent: Some(init),
            ..*forked
        };
        let resident = Rc::new(resident);
        let own = self.own();
        self.process_event(EXEC, &resident, own);
        self.residents[chosen] = Some(resident.clone());
        resident
    }

    /// A fork: a process that runs what its parent runs.
    fn fork(&mut self, parent: &Rc<Process>) -> Rc<Process> {
        self.pid = if self.pid > 4_000_000 { 2000 } else { self.pid + 1 };
        let forked = Rc::new(Process {
            pid: self.pid,
            start: self.time,
            entity_id: format_smolstr!("Mjk1ODQ4{:06x}LTE3OTUwMDAwMDA", self.pid),
            parent: Some(parent.clone()),
            leader: Some(parent.leader.clone().unwrap_or_else(|| parent.clone())),
            entry: parent.entry,
            user: parent.user,
            uid: parent.uid,
            tty: parent.tty,
            directory: parent.directory.clone(),
            program: parent.program.clone(),
            previous: Some(parent.program.clone()),
            process: OnceCell::new(),
            network: OnceCell::new(),
            roles: Default::default(),
        });
        let own = self.own();
        self.process_event(FORK, &forked, own);
        forked
    }

    /// A fork that runs a program.
    fn run(&mut self, parent: &Rc<Process>, program: Program) -> Rc<Process> {
        let forked = self.fork(parent);
        let process = Rc::new(Process {
            program: program.into(),
            entity_id: forked.entity_id.clone(),
            parent: forked.parent.clone(),
            leader: forked.leader.clone(),
            directory: forked.directory.clone(),
            previous: forked.previous.clone(),
            process: OnceCell::new(),
            network: OnceCell::new(),
            roles: Default::default(),
            ..*forked
        });
        let own = self.own();
        self.process_event(EXEC, &process, own);
        process
    }

    /// A connection to a host, to a near one mostly; without a port to the instance's own metadata.
    fn connect(&mut self, process: &Rc<Process>, port: Option<u16>) {
        let far = self.rng.u8(..10) == 0;
        let to = match port {
            None => Ipv4Addr::new(169, 254, 169, 254).into(),
            Some(_) if far => outer(&mut self.rng),
            Some(_) => inner(&mut self.rng),
        };
        let from = Ipv4Addr::new(10, 20, 0, 7).into();
        let local = self.rng.u16(32_768..60_999);
        self.network_event(ATTEMPTED, process, (from, local), (to, port.unwrap_or(80)));
    }

    fn accept(&mut self, process: &Rc<Process>, port: u16) {
        let far = self.rng.bool() && port == 443;
        let from = if far { outer(&mut self.rng) } else { inner(&mut self.rng) };
        let remote = self.rng.u16(32_768..60_999);
        self.network_event(ACCEPTED, process, (from, remote), (Ipv4Addr::new(10, 20, 0, 7).into(), port));
    }

    fn process_event(&mut self, action: usize, process: &Process, own: Fields) {
        let mut layers = Vec::with_capacity(7);
        layers.push(self.actions[action].clone());
        layers.push(process.process_list());
        layers.extend(process.others());
        layers.push(self.host.clone());
        self.ready.push_back(Event::new(self.time, own, layers));
    }

    fn network_event(
        &mut self,
        action: usize,
        process: &Process,
        source: (IpAddr, u16),
        destination: (IpAddr, u16),
    ) {
        let mut own = self.own();
        own.set(field!("destination.address"), destination.0.to_smolstr());
        own.set(field!("destination.ip"), destination.0);
        own.set(field!("destination.port"), u32::from(destination.1));
        own.set(field!("source.address"), source.0.to_smolstr());
        own.set(field!("source.ip"), source.0);
        own.set(field!("source.port"), u32::from(source.1));
        own.set(field!("network.type"), "ipv4");
        own.set(field!("process.uptime"), self.time.since(process.start).as_secs() as i64);
        own.set(field!("lapwing.socket.inode"), i64::from(self.rng.u32(..)));
        let layers = vec![self.actions[action].clone(), process.network_list(), self.host.clone()];
        self.ready.push_back(Event::new(self.time, own, layers));
    }

    /// The fields of every event itself, a little later than the last.
    fn own(&mut self) -> Fields {
        self.time = self.time + Duration::from_micros(self.rng.u64(..APART_MICROS_MAX));
        self.sequence += 1;
        let mut own = Fields::with_capacity(16);
        own.set(field!("event.created"), self.time);
        own.set(field!("event.id"), format_smolstr!("{:016x}{:07x}", self.rng.u64(..), self.sequence));
        own.set(field!("event.sequence"), self.sequence);
        own
    }
}

impl Iterator for Stream {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        while self.ready.is_empty() {
            self.act();
        }
        self.ready.pop_front()
    }
}

fn action(name: &'static str) -> Fields {
    let network = name.starts_with("connection");
    let category = if network { "network" } else { "process" };
    let mut fields = Fields::new();
    fields.set(field!("event.action"), name);
    fields.set(field!("event.category"), Value::texts([category]));
    fields.set(field!("event.dataset"), format_smolstr!("endpoint.events.{category}"));
    fields.set(field!("event.kind"), "event");
    fields.set(field!("event.module"), "endpoint");
    fields.set(field!("event.outcome"), "unknown");
    fields.set(field!("event.type"), Value::texts([if name == "end" { "end" } else { "start" }]));
    fields.set(field!("message"), format_smolstr!("Endpoint {category} event"));
    if network {
        let direction = if name == "connection_accepted" { "ingress" } else { "egress" };
        fields.set(field!("network.direction"), direction);
        fields.set(field!("network.transport"), "tcp");
    }
    fields
}

fn host() -> Fields {
    let id: SmolStr = "4c1d8f0e9b7a4e35a1d27f6c0b9e8d13".into();
    let mut fields = Fields::new();
    fields.set(field!("agent.id"), id.clone());
    fields.set(field!("agent.name"), "web-1");
    fields.set(field!("agent.type"), "lapwing");
    fields.set(field!("agent.version"), "0.1.0");
    fields.set(field!("host.architecture"), "x86_64");
    fields.set(field!("host.hostname"), "web-1");
    fields.set(field!("host.id"), id);
    fields.set(field!("host.ip"), Value::List([Value::Ip(Ipv4Addr::new(10, 20, 0, 7).into())].into()));
    fields.set(field!("host.name"), "web-1");
    fields.set(field!("host.os.family"), "debian");
    fields.set(field!("host.os.full"), "Debian GNU/Linux 12 (bookworm)");
    fields.set(field!("host.os.kernel"), "6.1.0-18-amd64");
    fields.set(field!("host.os.name"), "Debian GNU/Linux");
    fields.set(field!("host.os.platform"), "debian");
    fields.set(field!("host.os.type"), "linux");
    fields.set(field!("host.os.version"), "12");
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(kind: Workload, category: &str) -> usize {
        let of = |event: &Event| event.text(field!("event.category")) == Some(category);
        Stream::new(kind, 1).take(20_000).filter(of).count() / 200
    }

    #[test]
    fn streams_have_their_workload() {
        assert!(share(Workload::Exec, "process") > 80, "{}", share(Workload::Exec, "process"));
        assert!(share(Workload::Connect, "network") > 80, "{}", share(Workload::Connect, "network"));
        assert!(
            (30..70).contains(&share(Workload::Mixed, "process")),
            "{}",
            share(Workload::Mixed, "process")
        );
    }

    #[test]
    fn the_whole_table_is_read() {
        let activities = activities();
        for activity in &activities {
            assert!(
                activity.weight(Workload::Mixed) > 0
                    && !activity.user.is_empty()
                    && !activity.steps.is_empty()
            );
            let depths = activity.steps.iter().map(|step| step.depth);
            assert!(depths.clone().all(|depth| depth > 0));
        }
        let mut rng = Rng::with_seed(1);
        let program = activities[0].resident.fill(&mut rng);
        assert_eq!((program.name, program.command_line.as_str()), ("cron".into(), "cron -f"));
    }

    #[test]
    fn lists_are_shared() {
        let events: Vec<_> = Stream::new(Workload::Mixed, 3).take(1000).collect();
        assert!(events.is_sorted_by_key(Event::time));
        let bytes: usize = events.iter().map(Event::own_bytes).sum();
        assert!(bytes < 1_500_000, "{bytes}");
    }
}
