//! From records to ECS events: the only module that has both.
//!
//! Events have the fields of Elastic Defend's events, because rules are written against these: a network event has no
//! arguments and no parent's name. An event is a stack of shared layers. The block of a process in each of its roles is
//! built once and cached.

mod audience;
mod block;
mod capabilities;
mod event_samples;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use lapwing_common::{AF_INET, Closed, Connection, Exit, IPPROTO_UDPLITE, Socket};
use lapwing_engine::{Event, FieldId, Fields, Value, field};
use smol_str::{ToSmolStr, format_smolstr};

pub(super) use self::audience::{Audience, Unmatchable, filter_for, needs_connections, unmatchable};
pub(super) use self::event_samples::kinds;

use self::block::{ENTRY_LEADER, GROUP_LEADER, PARENT, SESSION_LEADER};
use self::capabilities::Capabilities;
use super::clock::Clock;
use super::host::Host;
use super::image::Image;
use super::key::Key;
use super::names::Names;
use super::owner::Owner;
use super::pipe;
use super::process::{Changes, Process, STDIO, Table, is_same};
use super::tamper::Report;
use crate::action::{ACTIONS, Action, Direction, Row};
use crate::alert::{Down, Tampered, Weight};

/// Builds events from records.
pub(super) struct Decoder {
    pub(super) clock: Clock,
    pub(super) names: Names,
    capabilities: Capabilities,
    host: Arc<Fields>,
    /// A part of the boot's id, in every event's.
    boot: [u8; 4],
    sequence: i64,
    actions: [Arc<Fields>; ACTIONS.len()],
    unmatchable: Unmatchable,
}

impl Decoder {
    pub(super) fn new(host: Host) -> Self {
        let mut boot = [0; 4];
        let digits: String = host.boot_id.chars().filter(char::is_ascii_hexdigit).take(8).collect();
        boot.copy_from_slice(&u32::from_str_radix(&digits, 16).unwrap_or(0).to_be_bytes());
        Self {
            clock: Clock::new(),
            names: Names::new(),
            capabilities: Capabilities::default(),
            host: Arc::new(host.fields),
            boot,
            sequence: 0,
            actions: std::array::from_fn(|index| Arc::new(fixed(&ACTIONS[index]))),
            unmatchable: [false; ACTIONS.len()],
        }
    }

    /// From now on builds no events of these rows.
    pub(super) fn set_unmatchable(&mut self, unmatchable: Unmatchable) {
        self.unmatchable = unmatchable;
    }

    fn is_emitted(&self, row: Row) -> bool {
        !self.unmatchable[row as usize]
    }

    /// A process was created.
    pub(super) fn fork(&mut self, table: &Table, key: Key, time: u64) -> Option<Event> {
        self.process_event(Row::Fork, table, key, time, environment(table, key))
    }

    /// A process runs another program.
    pub(super) fn exec(&mut self, table: &Table, key: Key, time: u64) -> Option<Event> {
        let mut own = environment(table, key);
        // As in the kernel's audit: the command line that the process showed when it called `execve`.
        let shown =
            table.get(key).and_then(|process| process.previous.as_ref()).map(|image| &image.command_line);
        own.set_some(field!("process.title"), shown.filter(|line| !line.is_empty()).cloned());
        if let Some(process) = table.get(key) {
            describe_stdin(table, process, time, &mut own);
            describe_socket(process, &mut own);
        }
        self.process_event(Row::Exec, table, key, time, own)
    }

    /// A process that ran before the agent. Its time is now; `process.start` has its start.
    pub(super) fn already_running(&mut self, table: &Table, key: Key, time: u64) -> Option<Event> {
        self.process_event(Row::AlreadyRunning, table, key, time, Fields::new())
    }

    /// A process changed its ids or session without executing a program.
    pub(super) fn changed(&mut self, table: &Table, key: Key, changes: Changes, time: u64) -> Vec<Event> {
        let Changes { session, user, group } = changes;
        let changed = [(session, Row::SessionIdChange), (user, Row::UidChange), (group, Row::GidChange)];
        let changed = changed.into_iter().filter(|(has_changed, _)| *has_changed);
        let event = |(_, row)| self.process_event(row, table, key, time, Fields::new());
        changed.filter_map(event).collect()
    }

    /// A process ended.
    pub(super) fn end(&mut self, table: &Table, key: Key, record: &Exit) -> Option<Event> {
        let mut own = environment(table, key);
        let signal = record.status & 0x7f;
        // As a shell shows it: a process that a signal ended has 128 and the signal's number.
        let code = if signal == 0 { record.status >> 8 & 0xff } else { 128 + signal };
        own.set(field!("process.end"), self.clock.wall(record.header.time));
        own.set(field!("process.exit_code"), code);
        if signal != 0 {
            own.set(field!("lapwing.process.exit_signal"), signal);
        }
        self.process_event(Row::End, table, key, record.header.time, own)
    }

    /// A process connects. `port` is the local port, if it is known.
    pub(super) fn connect(
        &mut self,
        table: &Table,
        key: Key,
        record: &Connection,
        port: u16,
    ) -> Option<Event> {
        let own = ends(&record.socket, port, false);
        let about = About { row: Row::Attempted, number: record.task.thread, time: record.header.time };
        self.network_event(about, table, key, &record.socket, own)
    }

    /// A process is about to send datagrams.
    pub(super) fn datagram(&mut self, table: &Table, key: Key, record: &Connection) -> Option<Event> {
        let socket = &record.socket;
        let mut own = ends(socket, socket.local_port, false);
        own.set_some(field!("network.transport"), transport(socket.protocol));
        let about = About { row: Row::Datagram, number: record.task.thread, time: record.header.time };
        self.network_event(about, table, key, socket, own)
    }

    /// A process accepted. The peer is the source.
    pub(super) fn accept(&mut self, table: &Table, key: Key, record: &Connection) -> Option<Event> {
        let own = ends(&record.socket, record.socket.local_port, true);
        let about = About { row: Row::Accepted, number: record.task.thread, time: record.header.time };
        self.network_event(about, table, key, &record.socket, own)
    }

    /// A connection that a process made or accepted has ended.
    pub(super) fn disconnect(&mut self, table: &Table, owner: Owner, record: &Closed) -> Option<Event> {
        let socket = &record.socket;
        let mut own = ends(socket, socket.local_port, owner.is_acceptor);
        let [out, back] = [record.sent, record.received].map(count);
        let (source, destination) = if owner.is_acceptor { (back, out) } else { (out, back) };
        own.set(field!("destination.bytes"), destination);
        own.set(field!("source.bytes"), source);
        let direction = if owner.is_acceptor { Direction::Ingress } else { Direction::Egress };
        own.set(field!("network.direction"), direction.name());
        // Many connections may end at one moment: the socket distinguishes them.
        let about = About { row: Row::Disconnected, number: socket.id as u32, time: record.header.time };
        self.network_event(about, table, owner.key, socket, own)
    }

    /// Records were lost since the last such event, and in all.
    pub(super) fn lost(&mut self, records: u64, total: u64, time: u64) -> Event {
        let mut own = self.own(Row::Lost, 0, time);
        own.set(field!("lapwing.lost.records"), i64::try_from(records).unwrap_or(i64::MAX));
        own.set(field!("lapwing.lost.total"), i64::try_from(total).unwrap_or(i64::MAX));
        self.event(time, own, vec![self.fixed(Row::Lost), self.host.clone()])
    }

    /// The sensor did not run between these times since boot.
    pub(super) fn down(&mut self, from: u64, to: u64) -> Down {
        let mut own = self.own(Row::Down, 0, to);
        let [start, end] = [from, to].map(|time| self.clock.wall(time));
        own.set(field!("event.start"), start);
        own.set(field!("event.end"), end);
        let event = self.event(to, own, vec![self.fixed(Row::Down), self.host.clone()]);
        Down { event, from: start, to: end, is_killed: false }
    }

    /// The sensor was tampered with. What is known of the actor is in the event.
    pub(super) fn tampered(&mut self, table: &Table, report: &Report) -> Tampered {
        let Report { from, to, by, weight, .. } = report;
        let reason = report.text();
        let row = if *weight == Weight::Meant { Row::FilesChanged } else { Row::Tampered };
        let mut own = self.own(row, by.map_or(0, |key| key.pid), *to);
        own.set(field!("event.reason"), reason.as_str());
        let mut layers = vec![self.fixed(row)];
        layers.extend(by.and_then(|key| table.get(key)).map(|process| self.process_block(table, process)));
        layers.push(self.host.clone());
        let event = self.event(*to, own, layers);
        let [from, to] = [*from, *to].map(|time| self.clock.wall(time));
        Tampered { event, from, to, reason, weight: *weight }
    }

    /// Everything that process events contain about a process that runs this program, for the context of an alert.
    /// Without a program, no field about what it runs.
    pub(super) fn describe(&self, table: &Table, process: &Process, image: Option<&Arc<Image>>) -> Fields {
        let mut fields = self.process_fields(table, process, image);
        for layer in self.others(table, process) {
            for (id, value) in layer.iter() {
                fields.set(id, value.clone());
            }
        }
        fields
    }

    /// What process events contain about a process itself, without the other processes.
    pub(super) fn describe_alone(&self, table: &Table, process: &Process) -> Fields {
        (*self.process_block(table, process)).clone()
    }

    fn process_event(&mut self, row: Row, table: &Table, key: Key, time: u64, with: Fields) -> Option<Event> {
        let process = table.get(key).filter(|_| self.is_emitted(row))?;
        let mut own = self.own(row, key.pid, time);
        for (id, value) in with.iter() {
            own.set(id, value.clone());
        }
        let mut layers = Vec::with_capacity(7);
        layers.push(self.fixed(row));
        layers.push(self.process_block(table, process));
        layers.extend(self.others(table, process));
        layers.push(self.host.clone());
        Some(self.event(time, own, layers))
    }

    fn network_event(
        &mut self,
        about: About,
        table: &Table,
        key: Key,
        socket: &Socket,
        with: Fields,
    ) -> Option<Event> {
        let process = table.get(key).filter(|_| self.is_emitted(about.row))?;
        let mut own = self.own(about.row, about.number, about.time);
        for (id, value) in with.iter() {
            own.set(id, value.clone());
        }
        own.set(field!("network.type"), if socket.family == AF_INET { "ipv4" } else { "ipv6" });
        own.set(field!("process.uptime"), seconds(about.time.saturating_sub(process.start)));
        own.set_some(field!("lapwing.socket.inode"), (socket.inode != 0).then(|| count(socket.inode)));
        let layers = vec![self.fixed(about.row), self.network_block(table, process), self.host.clone()];
        Some(self.event(about.time, own, layers))
    }

    /// An event of a time since boot.
    fn event(&self, time: u64, own: Fields, layers: Vec<Arc<Fields>>) -> Event {
        Event::new(self.clock.wall(time), own, layers).with_correlation_time(self.clock.monotonic(time))
    }

    /// The fields that every event has. The id is derived from the kernel's record, so that it stays the same when the
    /// event is decoded again.
    fn own(&mut self, row: Row, pid: u32, time: u64) -> Fields {
        self.sequence += 1;
        let mut id = [0; 17];
        id[..4].copy_from_slice(&self.boot);
        id[4..12].copy_from_slice(&time.to_be_bytes());
        id[12..16].copy_from_slice(&pid.to_be_bytes());
        id[16] = ACTIONS[row as usize].number();
        let mut own = Fields::with_capacity(16);
        own.set(field!("event.created"), self.clock.wall(super::clock::now()));
        own.set(field!("event.id"), STANDARD_NO_PAD.encode(id));
        own.set(field!("event.sequence"), self.sequence);
        own
    }

    /// The fields that all events of a row have.
    fn fixed(&self, row: Row) -> Arc<Fields> {
        self.actions[row as usize].clone()
    }

    /// The parent and the leaders.
    fn others(&self, table: &Table, process: &Process) -> impl Iterator<Item = Arc<Fields>> {
        let parent = process.parent.and_then(|key| table.get(key));
        let group = table.by_pid(process.context.pgid);
        let session = table.by_pid(process.context.sid);
        let entry = process.entry.and_then(|(key, _)| table.get(key));
        [(PARENT, parent), (GROUP_LEADER, group), (SESSION_LEADER, session), (ENTRY_LEADER, entry)]
            .into_iter()
            .filter_map(|(role, process)| Some(self.role_block(role, process?)))
    }
}

/// The reported part of the environment that a process's program was started with. Events about changes of ids do not
/// have it.
fn environment(table: &Table, key: Key) -> Fields {
    let mut fields = Fields::new();
    let Some(process) = table.get(key) else { return fields };
    let variables = Some(&process.image.env_vars).filter(|variables| !variables.elements().is_empty());
    fields.set_some(field!("process.env_vars"), variables.cloned());
    fields.set_some(field!("lapwing.process.env_truncated"), process.image.is_env_cut.then_some(true));
    fields
}

/// The standard input of a shell or interpreter, and of what it runs: the maker of that pipe, socket or terminal, the
/// maker's connection, whether more input can come, and whether its output is its parent's.
fn describe_stdin(table: &Table, process: &Process, time: u64, fields: &mut Fields) {
    let parent = process.parent.and_then(|parent| table.get(parent));
    let of_parent = parent.and_then(|parent| parent.image.commands_from);
    fields.set_some(field!("lapwing.process.parent.commands_from"), of_parent);
    if process.image.commands_from.is_none() && of_parent.is_none() {
        return;
    }
    let Some([stdin, stdout, _]) = process.stdio else { return };
    let above = parent.and_then(|parent| table.starter(parent)?.stdio);
    let is_inherited = above.map(|[_, above, _]| is_same(&above, &stdout));
    fields.set_some(field!("lapwing.process.stdout.inherited"), is_inherited);
    let ty = block::descriptor_type(stdin);
    // The writer of a script may be held up between the last command and the end.
    let is_over = || ty == "pipe" && parent.is_some_and(|parent| pipe::is_over(parent.key.pid, stdin.inode));
    let is_open = matches!(ty, "pipe" | "socket").then(|| stdin.device != 0 && !is_over());
    fields.set_some(field!("lapwing.process.stdin.open"), is_open);
    let Some(maker) = table.stdin_maker(process) else { return };
    fields.set(field!("lapwing.process.stdin.maker.entity_id"), maker.entity_id.clone());
    let executable = Some(&maker.image.executable).filter(|path| !path.is_empty());
    // A user with a user namespace has a mount namespace, and may put any file at any path.
    let is_own_path = maker.is_of_other_users();
    let path = executable.map(|path| if is_own_path { format_smolstr!("...{path}") } else { path.clone() });
    fields.set_some(field!("lapwing.process.stdin.maker.executable"), path);
    let reads = || table.starter(maker)?.connection().filter(|(_, held)| held.contains(&STDIO[0]));
    if let Some(socket) = maker.recent_peer(time).or_else(|| Some(reads()?.0)) {
        describe_ends(&OF_MAKER, socket, fields);
    }
}

/// The connection that is one of the standard descriptors with which the process's program started.
fn describe_socket(process: &Process, fields: &mut Fields) {
    let Some((socket, held)) = process.connection() else { return };
    fields.set(field!("lapwing.socket.stdio"), Value::texts(held));
    describe_ends(&OWN, socket, fields);
}

/// The fields by which a socket is described: its inode, its local and its other end, and its protocol. Which end
/// connected and which accepted is not known there.
type SocketFields = [FieldId; 6];

macro_rules! socket_fields {
    ($prefix:literal) => {
        [
            FieldId::of(concat!($prefix, ".inode")),
            FieldId::of(concat!($prefix, ".local.ip")),
            FieldId::of(concat!($prefix, ".local.port")),
            FieldId::of(concat!($prefix, ".peer.ip")),
            FieldId::of(concat!($prefix, ".peer.port")),
            FieldId::of(concat!($prefix, ".transport")),
        ]
    };
}

const OWN: SocketFields = socket_fields!("lapwing.socket");
const OF_MAKER: SocketFields = socket_fields!("lapwing.process.stdin.maker.socket");

fn describe_ends(of: &SocketFields, socket: &Socket, fields: &mut Fields) {
    let [inode, local_ip, local_port, peer_ip, peer_port, protocol] = *of;
    let [local, peer] = addresses(socket);
    fields.set_some(inode, (socket.inode != 0).then(|| count(socket.inode)));
    fields.set_some(local_ip, specified(local));
    fields.set_some(local_port, port(socket.local_port));
    fields.set_some(peer_ip, specified(peer));
    fields.set_some(peer_port, port(socket.remote_port));
    fields.set_some(protocol, transport(socket.protocol));
}

/// An address, where it is one.
fn specified(address: IpAddr) -> Option<IpAddr> {
    (!address.is_unspecified()).then_some(address)
}

/// A port, where one was chosen.
fn port(number: u16) -> Option<u32> {
    (number != 0).then_some(u32::from(number))
}

/// A protocol's name, by its number in IP.
fn transport(protocol: u16) -> Option<&'static str> {
    /// match-proto:v5.6:include/uapi/linux/in.h:IPPROTO_MPTCP
    const MPTCP: u16 = 262;
    match protocol {
        6 => Some("tcp"),
        17 => Some("udp"),
        132 => Some("sctp"),
        IPPROTO_UDPLITE => Some("udplite"),
        MPTCP => Some("mptcp"),
        _ => None,
    }
}

/// The fields that all events of an action have.
fn fixed(action: &Action) -> Fields {
    let dataset = action.stream.dataset;
    let mut fields = Fields::new();
    fields.set(field!("event.action"), action.name);
    fields.set(field!("event.category"), Value::texts([action.category]));
    fields.set(field!("event.dataset"), dataset);
    fields.set(field!("event.kind"), "event");
    fields.set(field!("event.module"), dataset.split('.').next().unwrap_or_default());
    fields.set(field!("event.outcome"), "unknown");
    fields.set(field!("event.type"), Value::texts([action.ty]));
    fields.set(field!("message"), action.message);
    fields.set_some(field!("network.direction"), action.direction.map(Direction::name));
    fields.set_some(field!("network.transport"), action.transport);
    fields
}

/// The parts of an event's id besides the boot: its row, a number that differs between events of one moment, and the
/// time.
struct About {
    row: Row,
    number: u32,
    time: u64,
}

/// Both ends of a socket: this side is the source where it connected, the peer where it accepted.
fn ends(socket: &Socket, local_port: u16, is_acceptor: bool) -> Fields {
    let [local, remote] = addresses(socket);
    let (local, remote) = ((local, local_port), (remote, socket.remote_port));
    let (source, destination) = if is_acceptor { (remote, local) } else { (local, remote) };
    let mut fields = Fields::new();
    fields.set(field!("destination.address"), destination.0.to_smolstr());
    fields.set(field!("destination.ip"), destination.0);
    fields.set_some(field!("destination.port"), port(destination.1));
    // A socket that sends before it is bound has its address only after routing.
    let address = specified(source.0);
    fields.set_some(field!("source.address"), address.map(|address| address.to_smolstr()));
    fields.set_some(field!("source.ip"), address);
    fields.set_some(field!("source.port"), port(source.1));
    fields
}

/// A number of the kernel's, as a number in events.
fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The local and the remote address of a socket.
fn addresses(socket: &Socket) -> [IpAddr; 2] {
    [socket.local, socket.remote].map(|words| match (socket.family, words) {
        (AF_INET, [first, ..]) => Ipv4Addr::from(u32::from_be(first)).into(),
        (_, words) => {
            let mut octets = [0; 16];
            for (room, word) in octets.chunks_exact_mut(4).zip(words) {
                room.copy_from_slice(&word.to_ne_bytes());
            }
            Ipv6Addr::from(octets).into()
        }
    })
}

fn seconds(nanos: u64) -> i64 {
    i64::try_from(nanos / 1_000_000_000).unwrap_or(i64::MAX)
}
