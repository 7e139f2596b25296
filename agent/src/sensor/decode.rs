//! From records to ECS events: the one file that knows both.
//!
//! What an event says is what Elastic Defend's events say, field by field, because rules are written against these:
//! a network event has no arguments and no parent's name. An event is a stack of shared layers; what a process looks
//! like, in each of the roles it has in other processes' events, is made once and kept with it.

use std::cell::OnceCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use lapwing_common::{ABSENT, Connection, Descriptor, Exit, Kind, Namespace, Socket};
use lapwing_engine::{Event, FieldId, Fields, Value, field};
use smol_str::{SmolStr, ToSmolStr};

use super::clock::Clock;
use super::container;
use super::host::Host;
use super::image::Image;
use super::names::Names;
use super::process::{Key, Process, Table};

/// What a process looks like in events, made when it is needed first.
#[derive(Default)]
pub(super) struct Blocks {
    process: OnceCell<Arc<Fields>>,
    network: OnceCell<Arc<Fields>>,
    roles: [OnceCell<Arc<Fields>>; ROLES.len()],
}

/// Makes events of records.
pub(super) struct Decoder {
    pub(super) clock: Clock,
    pub(super) names: Names,
    host: Arc<Fields>,
    /// A part of the boot's id, in every event's.
    boot: [u8; 4],
    sequence: i64,
    actions: [Arc<Fields>; ACTIONS.len()],
}

/// What happened, as every event of its kind says it.
struct Action {
    name: &'static str,
    category: &'static str,
    ty: &'static str,
    dataset: &'static str,
    message: &'static str,
    network: Option<&'static str>,
}

const FORK: usize = 0;
const EXEC: usize = 1;
const END: usize = 2;
const ALREADY_RUNNING: usize = 3;
const ATTEMPTED: usize = 4;
const ACCEPTED: usize = 5;
const LOST: usize = 6;

const PROCESS: Action = Action {
    name: "fork",
    category: "process",
    ty: "start",
    dataset: "endpoint.events.process",
    message: "Endpoint process event",
    network: None,
};
const NETWORK: Action = Action {
    name: "connection_attempted",
    category: "network",
    ty: "start",
    dataset: "endpoint.events.network",
    message: "Endpoint network event",
    network: Some("egress"),
};
const ACTIONS: [Action; 7] = [
    PROCESS,
    Action { name: "exec", ..PROCESS },
    Action { name: "end", ty: "end", ..PROCESS },
    Action { name: "already_running", ty: "info", ..PROCESS },
    NETWORK,
    Action { name: "connection_accepted", network: Some("ingress"), ..NETWORK },
    // A statement about this host's own monitoring; a rule about processes or connections never sees it.
    Action {
        name: "records_lost",
        category: "host",
        ty: "info",
        dataset: "lapwing.sensor",
        message: "Records were lost: the kernel's ring buffer was full",
        network: None,
    },
];

/// The fields by which one process is described in a role.
struct Role {
    args: FieldId,
    args_count: FieldId,
    command_line: FieldId,
    entity_id: FieldId,
    executable: FieldId,
    group_id: FieldId,
    group_name: FieldId,
    interactive: FieldId,
    name: FieldId,
    pid: FieldId,
    real_group_id: FieldId,
    real_group_name: FieldId,
    real_user_id: FieldId,
    real_user_name: FieldId,
    saved_group_id: FieldId,
    saved_user_id: FieldId,
    start: FieldId,
    tty_major: FieldId,
    tty_minor: FieldId,
    effective: FieldId,
    permitted: FieldId,
    user_id: FieldId,
    user_name: FieldId,
    vpid: FieldId,
    working_directory: FieldId,
}

macro_rules! role {
    ($prefix:literal) => {
        const {
            Role {
                args: FieldId::of(concat!($prefix, ".args")),
                args_count: FieldId::of(concat!($prefix, ".args_count")),
                command_line: FieldId::of(concat!($prefix, ".command_line")),
                entity_id: FieldId::of(concat!($prefix, ".entity_id")),
                executable: FieldId::of(concat!($prefix, ".executable")),
                group_id: FieldId::of(concat!($prefix, ".group.id")),
                group_name: FieldId::of(concat!($prefix, ".group.name")),
                interactive: FieldId::of(concat!($prefix, ".interactive")),
                name: FieldId::of(concat!($prefix, ".name")),
                pid: FieldId::of(concat!($prefix, ".pid")),
                real_group_id: FieldId::of(concat!($prefix, ".real_group.id")),
                real_group_name: FieldId::of(concat!($prefix, ".real_group.name")),
                real_user_id: FieldId::of(concat!($prefix, ".real_user.id")),
                real_user_name: FieldId::of(concat!($prefix, ".real_user.name")),
                saved_group_id: FieldId::of(concat!($prefix, ".saved_group.id")),
                saved_user_id: FieldId::of(concat!($prefix, ".saved_user.id")),
                start: FieldId::of(concat!($prefix, ".start")),
                tty_major: FieldId::of(concat!($prefix, ".tty.char_device.major")),
                tty_minor: FieldId::of(concat!($prefix, ".tty.char_device.minor")),
                effective: FieldId::of(concat!($prefix, ".thread.capabilities.effective")),
                permitted: FieldId::of(concat!($prefix, ".thread.capabilities.permitted")),
                user_id: FieldId::of(concat!($prefix, ".user.id")),
                user_name: FieldId::of(concat!($prefix, ".user.name")),
                vpid: FieldId::of(concat!($prefix, ".vpid")),
                working_directory: FieldId::of(concat!($prefix, ".working_directory")),
            }
        }
    };
}

const ITSELF: Role = role!("process");
const PARENT: usize = 0;
const GROUP_LEADER: usize = 1;
const SESSION_LEADER: usize = 2;
const ENTRY_LEADER: usize = 3;
const ROLES: [Role; 4] = [
    role!("process.parent"),
    role!("process.group_leader"),
    role!("process.session_leader"),
    role!("process.entry_leader"),
];

impl Decoder {
    pub(super) fn new(host: Host) -> Self {
        let mut boot = [0; 4];
        let digits: String = host.boot_id.chars().filter(char::is_ascii_hexdigit).take(8).collect();
        boot.copy_from_slice(&u32::from_str_radix(&digits, 16).unwrap_or(0).to_be_bytes());
        Self {
            clock: Clock::new(),
            names: Names::new(),
            host: Arc::new(host.fields),
            boot,
            sequence: 0,
            actions: std::array::from_fn(|index| Arc::new(action(&ACTIONS[index]))),
        }
    }

    /// A process was made.
    pub(super) fn fork(&mut self, table: &Table, key: Key, time: u64) -> Option<Event> {
        self.process_event(FORK, Kind::FORK, table, key, time, Fields::new())
    }

    /// A process runs another program.
    pub(super) fn exec(&mut self, table: &Table, key: Key, time: u64) -> Option<Event> {
        self.process_event(EXEC, Kind::EXEC, table, key, time, Fields::new())
    }

    /// A process ran before the agent did. Its time is now; `process.start` tells since when.
    pub(super) fn already_running(&mut self, table: &Table, key: Key, time: u64) -> Option<Event> {
        // No record has this number: the event comes from no kind of record.
        self.process_event(ALREADY_RUNNING, Kind(0), table, key, time, Fields::new())
    }

    /// A process ended.
    pub(super) fn end(&mut self, table: &Table, key: Key, record: &Exit) -> Option<Event> {
        let mut own = Fields::new();
        let signal = record.status & 0x7f;
        // As a shell shows it: a process that a signal ended has 128 and the signal's number.
        let code = if signal == 0 { record.status >> 8 & 0xff } else { 128 + signal };
        own.set(field!("process.end"), self.clock.wall(record.header.time));
        own.set(field!("process.exit_code"), code);
        if signal != 0 {
            own.set(field!("lapwing.process.exit_signal"), signal);
        }
        self.process_event(END, Kind::EXIT, table, key, record.header.time, own)
    }

    /// A process connects. `port` is the local port, where it is known by now.
    pub(super) fn connect(
        &mut self,
        table: &Table,
        key: Key,
        record: &Connection,
        port: u16,
    ) -> Option<Event> {
        let mut own = Fields::new();
        let socket = &record.socket;
        let [local, remote] = addresses(socket);
        own.set(field!("destination.address"), remote.to_smolstr());
        own.set(field!("destination.ip"), remote);
        own.set(field!("destination.port"), u32::from(socket.remote_port));
        own.set(field!("source.address"), local.to_smolstr());
        own.set(field!("source.ip"), local);
        own.set_some(field!("source.port"), (port != 0).then_some(u32::from(port)));
        self.network_event(ATTEMPTED, Kind::CONNECT, table, key, record, own)
    }

    /// A process accepted. The peer is the source.
    pub(super) fn accept(&mut self, table: &Table, key: Key, record: &Connection) -> Option<Event> {
        let mut own = Fields::new();
        let socket = &record.socket;
        let [local, remote] = addresses(socket);
        own.set(field!("destination.address"), local.to_smolstr());
        own.set(field!("destination.ip"), local);
        own.set(field!("destination.port"), u32::from(socket.local_port));
        own.set(field!("source.address"), remote.to_smolstr());
        own.set(field!("source.ip"), remote);
        own.set(field!("source.port"), u32::from(socket.remote_port));
        self.network_event(ACCEPTED, Kind::ACCEPT, table, key, record, own)
    }

    /// Records were lost since the last such event, and in all.
    pub(super) fn lost(&mut self, records: u64, total: u64, time: u64) -> Event {
        let mut own = self.own(LOST, Kind(0), 0, time);
        own.set(field!("lapwing.lost.records"), i64::try_from(records).unwrap_or(i64::MAX));
        own.set(field!("lapwing.lost.total"), i64::try_from(total).unwrap_or(i64::MAX));
        Event::new(self.clock.wall(time), own, vec![self.actions[LOST].clone(), self.host.clone()])
    }

    /// Everything that process events tell of a process: for the context of an alert.
    pub(super) fn describe(&self, table: &Table, process: &Process) -> Fields {
        let mut fields = (*self.process_block(table, process)).clone();
        for layer in self.others(table, process) {
            for (id, value) in layer.iter() {
                fields.set(id, value.clone());
            }
        }
        fields
    }

    /// What process events tell of a process itself, without the others it names.
    pub(super) fn describe_alone(&self, table: &Table, process: &Process) -> Fields {
        (*self.process_block(table, process)).clone()
    }

    fn process_event(
        &mut self,
        action: usize,
        kind: Kind,
        table: &Table,
        key: Key,
        time: u64,
        with: Fields,
    ) -> Option<Event> {
        let process = table.get(key)?;
        let mut own = self.own(action, kind, key.pid, time);
        for (id, value) in with.iter() {
            own.set(id, value.clone());
        }
        let mut layers = Vec::with_capacity(7);
        layers.push(self.actions[action].clone());
        layers.push(self.process_block(table, process));
        layers.extend(self.others(table, process));
        layers.push(self.host.clone());
        Some(Event::new(self.clock.wall(time), own, layers))
    }

    fn network_event(
        &mut self,
        action: usize,
        kind: Kind,
        table: &Table,
        key: Key,
        record: &Connection,
        with: Fields,
    ) -> Option<Event> {
        let process = table.get(key)?;
        let time = record.header.time;
        let mut own = self.own(action, kind, record.task.thread, time);
        for (id, value) in with.iter() {
            own.set(id, value.clone());
        }
        own.set(field!("network.type"), if record.socket.family == IPV4 { "ipv4" } else { "ipv6" });
        own.set(field!("process.uptime"), seconds(time.saturating_sub(process.start)));
        own.set(field!("lapwing.socket.inode"), inode(record.socket.inode));
        let layers =
            vec![self.actions[action].clone(), self.network_block(table, process), self.host.clone()];
        Some(Event::new(self.clock.wall(time), own, layers))
    }

    /// What every event has of its own. The id follows from what the kernel told, so that it is the same when told
    /// again.
    fn own(&mut self, action: usize, kind: Kind, pid: u32, time: u64) -> Fields {
        self.sequence += 1;
        let mut id = [0; 17];
        id[..4].copy_from_slice(&self.boot);
        id[4..12].copy_from_slice(&time.to_be_bytes());
        id[12..16].copy_from_slice(&pid.to_be_bytes());
        id[16] = if kind == Kind(0) { 200 + action as u8 } else { kind.0 as u8 };
        let mut own = Fields::with_capacity(16);
        own.set(field!("event.created"), self.clock.wall(super::clock::now()));
        own.set(field!("event.id"), STANDARD_NO_PAD.encode(id));
        own.set(field!("event.sequence"), self.sequence);
        own
    }

    /// The parent and the leaders.
    fn others(&self, table: &Table, process: &Process) -> impl Iterator<Item = Arc<Fields>> {
        let parent = process.parent.and_then(|key| table.get(key));
        let group = table.by_pid(process.place.pgid);
        let session = table.by_pid(process.place.sid);
        let entry = process.entry.and_then(|(key, _)| table.get(key));
        [(PARENT, parent), (GROUP_LEADER, group), (SESSION_LEADER, session), (ENTRY_LEADER, entry)]
            .into_iter()
            .filter_map(|(role, process)| Some(self.role_block(role, process?)))
    }

    fn role_block(&self, role: usize, process: &Process) -> Arc<Fields> {
        let make = || {
            let mut fields = Fields::with_capacity(24);
            self.describe_as(&ROLES[role], process, &mut fields);
            if role == ENTRY_LEADER {
                let kind = process.entry.map(|(_, kind)| kind);
                fields.set_some(field!("process.entry_leader.entry_meta.type"), kind);
            }
            Arc::new(fields)
        };
        process.blocks.roles[role].get_or_init(make).clone()
    }

    fn process_block(&self, table: &Table, process: &Process) -> Arc<Fields> {
        let make = || {
            let mut fields = Fields::with_capacity(72);
            self.describe_as(&ITSELF, process, &mut fields);
            self.describe_relations(table, process, &mut fields);
            self.describe_user(process, &mut fields);
            describe_image(process, &mut fields);
            describe_place(table, process, &mut fields);
            Arc::new(fields)
        };
        process.blocks.process.get_or_init(make).clone()
    }

    /// What a network event says of its process: exactly what Defend's say.
    fn network_block(&self, table: &Table, process: &Process) -> Arc<Fields> {
        let make = || {
            let image = &process.image;
            let mut fields = Fields::with_capacity(24);
            fields.set(field!("process.name"), image.name.clone());
            fields.set_some(field!("process.executable"), known(&image.executable));
            fields.set_some(field!("process.command_line"), known(&image.command_line));
            fields.set(field!("process.pid"), process.key.pid);
            let (effective, permitted) = (process.credentials.effective, process.credentials.permitted);
            fields.set(field!("process.thread.capabilities.effective"), capabilities(effective));
            fields.set(field!("process.thread.capabilities.permitted"), capabilities(permitted));
            self.describe_relations(table, process, &mut fields);
            self.describe_user(process, &mut fields);
            container(table, process, &mut fields);
            Arc::new(fields)
        };
        process.blocks.network.get_or_init(make).clone()
    }

    fn describe_as(&self, role: &Role, process: &Process, fields: &mut Fields) {
        let (image, credentials, place) = (&process.image, &process.credentials, &process.place);
        fields.set(role.args, image.args.clone());
        fields.set(role.args_count, image.args_count);
        fields.set_some(role.command_line, known(&image.command_line));
        fields.set(role.entity_id, process.entity_id.clone());
        fields.set_some(role.executable, known(&image.executable));
        fields.set(role.name, image.name.clone());
        fields.set(role.pid, process.key.pid);
        fields.set(role.start, self.clock.wall(process.start));
        fields.set_some(role.working_directory, known(&image.directory));
        fields.set(role.interactive, place.tty != 0);
        if place.tty != 0 {
            fields.set(role.tty_major, place.tty >> 20);
            fields.set(role.tty_minor, place.tty & 0xf_ffff);
        }
        if place.vpid != 0 && place.vpid != process.key.pid {
            fields.set(role.vpid, place.vpid);
        }
        if credentials.euid != ABSENT {
            fields.set(role.user_id, credentials.euid.to_smolstr());
            fields.set_some(role.user_name, self.names.user(credentials.euid));
            fields.set(role.group_id, credentials.egid.to_smolstr());
            fields.set_some(role.group_name, self.names.group(credentials.egid));
            fields.set(role.real_user_id, credentials.uid.to_smolstr());
            fields.set_some(role.real_user_name, self.names.user(credentials.uid));
            fields.set(role.real_group_id, credentials.gid.to_smolstr());
            fields.set_some(role.real_group_name, self.names.group(credentials.gid));
            fields.set(role.saved_user_id, credentials.suid.to_smolstr());
            fields.set(role.saved_group_id, credentials.sgid.to_smolstr());
            fields.set(role.effective, capabilities(credentials.effective));
            fields.set(role.permitted, capabilities(credentials.permitted));
        }
    }

    /// The names of the processes that this one belongs to.
    fn describe_relations(&self, table: &Table, process: &Process, fields: &mut Fields) {
        fields.set(field!("process.entity_id"), process.entity_id.clone());
        if let Some(parent) = process.parent {
            let parent_id = table.entity_id(parent);
            fields.set(field!("process.parent.entity_id"), parent_id.clone());
            let known = table.ancestors(process.key).map(|ancestor| ancestor.entity_id.clone());
            let mut ancestry: Vec<_> = known.collect();
            if ancestry.is_empty() {
                ancestry.push(parent_id);
            }
            fields.set(field!("process.Ext.ancestry"), Value::texts(ancestry));
        }
        let own = &process.entity_id;
        if let Some(leader) = table.by_pid(process.place.pgid) {
            fields.set(field!("process.group_leader.entity_id"), leader.entity_id.clone());
            fields.set(field!("process.group_leader.same_as_process"), leader.entity_id == *own);
        }
        if let Some(leader) = table.by_pid(process.place.sid) {
            fields.set(field!("process.session_leader.entity_id"), leader.entity_id.clone());
            fields.set(field!("process.session_leader.same_as_process"), leader.entity_id == *own);
            let parent = leader.parent.map(|parent| table.entity_id(parent));
            fields.set_some(field!("process.session_leader.parent.entity_id"), parent);
        }
        if let Some((entry, _)) = process.entry {
            let id = table.entity_id(entry);
            fields.set(field!("process.entry_leader.same_as_process"), id == *own);
            fields.set(field!("process.entry_leader.entity_id"), id);
            let parent =
                table.get(entry).and_then(|entry| entry.parent).map(|parent| table.entity_id(parent));
            fields.set_some(field!("process.entry_leader.parent.entity_id"), parent);
        }
    }

    fn describe_user(&self, process: &Process, fields: &mut Fields) {
        let credentials = &process.credentials;
        if credentials.euid == ABSENT {
            return;
        }
        fields.set(field!("group.Ext.real.id"), credentials.gid.to_smolstr());
        fields.set_some(field!("group.Ext.real.name"), self.names.group(credentials.gid));
        fields.set(field!("group.id"), credentials.egid.to_smolstr());
        fields.set_some(field!("group.name"), self.names.group(credentials.egid));
        fields.set(field!("user.Ext.real.id"), credentials.uid.to_smolstr());
        fields.set_some(field!("user.Ext.real.name"), self.names.user(credentials.uid));
        fields.set(field!("user.id"), credentials.euid.to_smolstr());
        fields.set_some(field!("user.name"), self.names.user(credentials.euid));
    }
}

fn action(action: &Action) -> Fields {
    let mut fields = Fields::new();
    fields.set(field!("event.action"), action.name);
    fields.set(field!("event.category"), Value::texts([action.category]));
    fields.set(field!("event.dataset"), action.dataset);
    fields.set(field!("event.kind"), "event");
    fields.set(field!("event.module"), action.dataset.split('.').next().unwrap_or_default());
    fields.set(field!("event.outcome"), "unknown");
    fields.set(field!("event.type"), Value::texts([action.ty]));
    fields.set(field!("message"), action.message);
    if let Some(direction) = action.network {
        fields.set(field!("network.direction"), direction);
        fields.set(field!("network.transport"), "tcp");
    }
    fields
}

fn describe_image(process: &Process, fields: &mut Fields) {
    let image = &process.image;
    if image.is_cut && !image.is_unknown() {
        fields.set(field!("lapwing.process.args_truncated"), true);
        fields.set(field!("process.Ext.command_line_truncated"), true);
    }
    fields.set(field!("lapwing.process.comm"), image.comm.clone());
    fields.set_some(field!("lapwing.process.script"), image.script.clone());
    if let Some(previous) = process.previous.as_deref().filter(|previous| !Image::is_unknown(previous)) {
        fields.set(field!("process.previous.args"), previous.args.clone());
        fields.set(field!("process.previous.args_count"), previous.args_count);
        fields.set(field!("process.previous.executable"), previous.executable.clone());
    }
    let stdio = process.stdio.as_ref();
    for (index, [ty, inode_field]) in STDIO.into_iter().enumerate() {
        let descriptor = stdio.map(|stdio| stdio[index]).filter(|descriptor| descriptor.mode != 0);
        fields.set_some(ty, descriptor.map(descriptor_type));
        fields.set_some(inode_field, descriptor.map(|descriptor| inode(descriptor.inode)));
    }
}

const STDIO: [[FieldId; 2]; 3] = [
    [field!("lapwing.process.stdin.type"), field!("lapwing.process.stdin.inode")],
    [field!("lapwing.process.stdout.type"), field!("lapwing.process.stdout.inode")],
    [field!("lapwing.process.stderr.type"), field!("lapwing.process.stderr.inode")],
];

fn describe_place(table: &Table, process: &Process, fields: &mut Fields) {
    let (place, credentials) = (&process.place, &process.credentials);
    let known = |number: u32| (number != ABSENT).then_some(number);
    fields.set_some(field!("lapwing.process.loginuid"), known(credentials.login_uid));
    fields.set_some(field!("lapwing.process.session_id"), known(credentials.session_id));
    for (id, namespace) in [
        (field!("lapwing.process.namespace.cgroup"), Namespace::Cgroup),
        (field!("lapwing.process.namespace.ipc"), Namespace::Ipc),
        (field!("lapwing.process.namespace.mnt"), Namespace::Mount),
        (field!("lapwing.process.namespace.net"), Namespace::Network),
        (field!("lapwing.process.namespace.pid"), Namespace::Pid),
        (field!("lapwing.process.namespace.user"), Namespace::User),
        (field!("lapwing.process.namespace.uts"), Namespace::Uts),
    ] {
        let inode = place.namespaces[namespace as usize];
        fields.set_some(id, (inode != 0).then_some(inode));
    }
    if place.cgroup != 0 {
        fields.set(field!("lapwing.process.cgroup.id"), inode(place.cgroup));
        fields.set_some(field!("lapwing.process.cgroup.path"), table.cgroup(place.cgroup).cloned());
    }
    fields.set(field!("process.pgid"), place.pgid);
    fields.set_some(field!("process.parent.pid"), process.parent.map(|parent| parent.pid));
    container(table, process, fields);
}

fn container(table: &Table, process: &Process, fields: &mut Fields) {
    let id = table.cgroup(process.place.cgroup).and_then(|path| container::id(path));
    fields.set_some(field!("container.id"), id);
}

/// `AF_INET`, as records have it.
const IPV4: u16 = 2;

/// The local and the remote address of a socket.
fn addresses(socket: &Socket) -> [IpAddr; 2] {
    [socket.local, socket.remote].map(|words| match (socket.family, words) {
        (IPV4, [first, ..]) => Ipv4Addr::from(u32::from_be(first)).into(),
        (_, words) => {
            let mut octets = [0; 16];
            for (room, word) in octets.chunks_exact_mut(4).zip(words) {
                room.copy_from_slice(&word.to_ne_bytes());
            }
            Ipv6Addr::from(octets).into()
        }
    })
}

/// What kind of file a descriptor stands for.
fn descriptor_type(descriptor: Descriptor) -> &'static str {
    /// `/dev/null`'s number.
    const NULL: u32 = 1 << 20 | 3;
    match descriptor.mode & 0o170_000 {
        0o010_000 => "pipe",
        0o020_000 if descriptor.device == NULL => "null",
        0o020_000 => "char_device",
        0o040_000 => "directory",
        0o060_000 => "block_device",
        0o100_000 => "file",
        0o140_000 => "socket",
        _ => "other",
    }
}

fn inode(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn seconds(nanos: u64) -> i64 {
    i64::try_from(nanos / 1_000_000_000).unwrap_or(i64::MAX)
}

fn known(text: &SmolStr) -> Option<SmolStr> {
    (!text.is_empty()).then(|| text.clone())
}

/// The names of capabilities. Most processes have none or all that there are.
fn capabilities(bits: u64) -> Value {
    Value::texts(
        CAPABILITIES.iter().enumerate().filter(|(bit, _)| bits >> bit & 1 == 1).map(|(_, name)| *name),
    )
}

/// By their bits; `include/uapi/linux/capability.h`.
#[rustfmt::skip]
const CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
    "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
];
