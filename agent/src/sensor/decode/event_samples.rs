//! What the sensor's events can contain: the decoder builds each kind of event for a process with every field. Rules
//! are checked against these events before anything happens.

use std::sync::Arc;

use lapwing_common::{
    Closed, Connection, Credentials, Descriptor, Exec, Exit, Fork, Kind, ProcessContext, Reach, VERSION,
};
use lapwing_engine::coverage::EventKind;
use lapwing_engine::{Event, FieldId, Value, field};
use zerocopy::{FromZeros, IntoBytes as _};

use super::{Decoder, fixed};
use crate::action::{Action, UDP};
use crate::alert::Weight;
use crate::budget::Charge;
use crate::program::FileKey;
use crate::sensor::clock;
use crate::sensor::host::Host;
use crate::sensor::image::{DELETED, Image, args};
use crate::sensor::interpreter::STDIN;
use crate::sensor::key::Origin;
use crate::sensor::owner::Owner;
use crate::sensor::process::{Changes, Table};
use crate::sensor::record::{ExecRecord, Record};
use crate::sensor::script;
use crate::sensor::tamper::Report;

/// The service that the process's session began with, the session's leader, and the process.
const DAEMON: u32 = 10;
const LEADER: u32 = 20;
const PROCESS: u32 = 30;
/// A control group, and a path of it that names a container.
const CGROUP: u64 = 1;
const CONTAINER: &str = "/kubepods-pod0123456789abcdef0123456789abcdef.slice/\
    crio-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.scope";
/// In nanoseconds.
const SECOND: i64 = 1_000_000_000;
/// A socket, as `st_mode` has it.
const SOCKET: u32 = 0o140_000;

/// Every kind of event that the sensor emits on this host. Variables of the environment and datagrams depend on
/// settings.
pub(in crate::sensor) fn kinds(has_env_vars: bool, has_udp: bool) -> Vec<EventKind> {
    let host = Host::new();
    let os = host.fields.get(field!("host.os.type")).cloned();
    let kinds = events(host).into_iter().filter_map(|event| kind(&event, os.clone(), has_env_vars));
    kinds.filter(|(action, _)| has_udp || action.hook != UDP).map(|(_, kind)| kind).collect()
}

/// The fields that all events of this kind have, and those that they may have.
fn kind(event: &Event, os: Option<Value>, has_env_vars: bool) -> Option<(&'static Action, EventKind)> {
    const ENV: [FieldId; 2] = [field!("process.env_vars"), field!("lapwing.process.env_truncated")];
    let action = Action::of(event.text(field!("event.action"))?)?;
    let mut fixed = fixed(action);
    fixed.set_some(field!("host.os.type"), os);
    let fields = event.fields().into_iter().map(|(id, _)| id);
    let kind = EventKind::new(action.name, fixed, fields.filter(|id| has_env_vars || !ENV.contains(id)));
    Some((action, kind.also_called(action.synonyms)))
}

/// An event of each kind.
fn events(host: Host) -> Vec<Event> {
    let mut table = Table::new(&host.boot_id);
    let mut decoder = Decoder::new(host);
    // The clock was set, so that these fields are present.
    let boot = decoder.clock.wall(0).as_nanos();
    decoder.clock.follow_to(boot.saturating_add(SECOND));
    table.groups.insert(CGROUP, CONTAINER.into());
    let daemon = table.add(origin(DAEMON, 1, "/usr/sbin/sshd", DAEMON));
    let leader =
        table.add(Origin { parent: Some(daemon), ..origin(LEADER, DAEMON, "/usr/bin/bash", LEADER) });
    let time = clock::now();

    let mut fork = Fork::new_zeroed();
    (fork.child.pid, fork.child.parent, fork.forker) = (PROCESS, LEADER, LEADER);
    (fork.credentials, fork.context) = (root(), context(PROCESS, LEADER));
    let key = table.fork(&fork);
    let mut found = vec![decoder.fork(&table, key, time)];

    let mut exec = Exec::new_zeroed();
    (exec.header.kind, exec.header.version) = (Kind::EXEC.0, VERSION);
    exec.header.len = u32::try_from(size_of::<Exec>()).unwrap_or(u32::MAX);
    (exec.task.pid, exec.task.parent) = (PROCESS, LEADER);
    (exec.credentials, exec.context) = (root(), context(PROCESS, LEADER));
    exec.stdio = [Descriptor { inode: 1, mode: SOCKET, device: 0 }; 3];
    (exec.socket.inode, exec.socket.local_port, exec.socket.remote_port) = (1, 1, 1);
    (exec.socket.local, exec.socket.remote) = ([1; 4], [1; 4]);
    (exec.socket.family, exec.socket.protocol) = (2, 6);
    // Its parent's program has a record too, and the maker of their standard input is connected.
    let mut shell = exec;
    (shell.task.pid, shell.task.parent, shell.context) = (LEADER, DAEMON, context(LEADER, LEADER));
    if let Some(record) = exec_record(&shell) {
        table.exec(&record, image("/usr/bin/bash"));
    }
    table.connect(daemon, &exec.socket, time);
    if let Some(record) = exec_record(&exec) {
        table.exec(&record, image("/usr/bin/python3"));
    }
    found.push(decoder.exec(&table, key, time));
    found.push(decoder.already_running(&table, leader, time));
    let changes = Changes { session: true, user: true, group: true };
    found.extend(decoder.changed(&table, key, changes, time).into_iter().map(Some));
    let mut exit = Exit::new_zeroed();
    exit.status = 9;
    found.push(decoder.end(&table, key, &exit));
    let mut connection = Connection::new_zeroed();
    connection.task = exec.task;
    (connection.socket.inode, connection.socket.local_port, connection.socket.remote_port) = (1, 1, 1);
    (connection.socket.local, connection.socket.remote) = ([1; 4], [1; 4]);
    found.push(decoder.connect(&table, key, &connection, 1));
    found.push(decoder.accept(&table, key, &connection));
    connection.socket.protocol = 17;
    found.push(decoder.datagram(&table, key, &connection));
    let mut closed = Closed::new_zeroed();
    closed.socket = connection.socket;
    found.push(decoder.disconnect(
        &table,
        Owner { key, is_acceptor: false, reach: Reach::Public, user: 0 },
        &closed,
    ));
    found.push(Some(decoder.lost(1, 1, time)));
    found.push(Some(decoder.down(1, time).event));
    for weight in [Weight::Interference, Weight::Meant] {
        let report = Report { by: Some(key), ..Report::new("a reason".to_owned(), 0, time, weight) };
        found.push(Some(decoder.tampered(&table, &report).event));
    }
    found.into_iter().flatten().collect()
}

fn exec_record(exec: &Exec) -> Option<ExecRecord<'_>> {
    match Record::parse(exec.as_bytes()) {
        Ok(Record::Exec(record)) => Some(record),
        _ => None,
    }
}

/// A process of root that ran before the agent did.
fn origin(pid: u32, parent_pid: u32, executable: &str, session: u32) -> Origin {
    let credentials = root();
    let (image, context) = (Arc::new(image(executable)), context(pid, session));
    Origin { pid, start: 0, parent: None, parent_pid, image, credentials, context }
}

/// Root's, with a capability.
fn root() -> Credentials {
    let mut credentials = Credentials::new_zeroed();
    (credentials.effective, credentials.permitted) = (1, 1);
    credentials
}

/// A context with everything: a terminal, a container, another pid in its own namespace.
fn context(pid: u32, session: u32) -> ProcessContext {
    ProcessContext {
        pgid: pid,
        sid: session,
        tty: 136 << 20,
        vpid: pid + 1,
        namespaces: [1; 8],
        cgroup: CGROUP,
    }
}

/// A program with every field, one argument cut.
fn image(executable: &str) -> Image {
    let name = executable.rsplit('/').next().unwrap_or_default();
    Image {
        executable: executable.into(),
        file_key: FileKey::default(),
        since: 0,
        name: Value::texts([name, "script"]),
        args: args([name.as_bytes()]),
        args_count: 1,
        command_line: name.into(),
        directory: "/".into(),
        comm: name.into(),
        script: Some("/script".into()),
        script_file: Some(script::of_argument("/script", "/")),
        commands_from: Some(STDIN),
        is_cut: true,
        file: Some(Value::texts([DELETED])),
        directory_file: Some(Value::texts([DELETED])),
        env_vars: Value::texts(["LD_PRELOAD=/x.so"]),
        is_env_cut: true,
        is_short: false,
        charge: Charge::default(),
    }
}

#[cfg(test)]
mod tests {
    use lapwing_engine::{Engine, Loaded, Options, Output, Schema};

    use super::*;
    use crate::action::ACTIONS;
    use crate::sensor::snapshot;

    #[test]
    fn there_is_a_kind_for_every_action() {
        let kinds = kinds(true, true);
        let mut names: Vec<_> = kinds.iter().map(|kind| kind.name.as_str()).collect();
        let mut actions: Vec<_> = ACTIONS.iter().map(|action| action.name).collect();
        names.sort_unstable();
        actions.sort_unstable();
        assert_eq!(names, actions);
    }

    /// The events of the processes that run now have no field that the samples lack.
    #[test]
    fn no_event_has_a_field_that_the_samples_lack() {
        let host = Host::new();
        let mut table = Table::new(&host.boot_id);
        let mut decoder = Decoder::new(host);
        let keys: Vec<_> =
            snapshot::all(u64::MAX).into_iter().map(|running| table.add(running.origin)).collect();
        let schema = Schema::new();
        let kinds = kinds(true, true);
        let of = |name: &str| kinds.iter().find(|kind| kind.name == name).unwrap();
        let mut connection = Connection::new_zeroed();
        connection.socket.family = 10;
        for key in keys {
            let time = clock::now();
            let events = [
                decoder.already_running(&table, key, time),
                decoder.exec(&table, key, time),
                decoder.connect(&table, key, &connection, 0),
            ];
            for event in events.into_iter().flatten() {
                let kind = of(event.text(field!("event.action")).unwrap());
                for (id, _) in event.fields() {
                    assert!(kind.has(id, &schema), "{} of {}", schema.name(id), kind.name);
                }
            }
        }
    }

    /// Setting the clock between two steps neither separates nor reorders them.
    #[test]
    fn a_clock_that_is_set_tears_no_sequence() {
        const SECOND: u64 = 1_000_000_000;
        const DAY: i64 = 86_400 * SECOND as i64;
        let rule = r#"
            [rule]
            rule_id = "id"
            name = "name"
            description = "text"
            severity = "low"
            type = "eql"
            language = "eql"
            index = ["logs-endpoint.events.*"]
            query = """
            sequence by process.entity_id with maxspan=5s
              [process where event.action == "already_running"]
              [network where event.action == "connection_attempted"]
            """
        "#;
        for (step, wait, is_found) in
            [(0, 1, true), (DAY, 1, true), (-DAY, 1, true), (-7 * SECOND as i64, 9, false)]
        {
            let mut schema = Schema::new();
            let loaded = Loaded::read([("rule.toml", rule.as_bytes())], &mut schema);
            let mut engine = Engine::new(Arc::new(schema), &loaded.rules, Options::default());
            let host = Host::new();
            let mut table = Table::new(&host.boot_id);
            let mut decoder = Decoder::new(host);
            let key = table.add(origin(PROCESS, 1, "/usr/bin/nc", PROCESS));
            let mut output = Output::default();
            let start = clock::now();
            engine.push(decoder.already_running(&table, key, start).unwrap(), &mut output);
            let boot = decoder.clock.wall(0).as_nanos();
            decoder.clock.follow_to(boot + step);
            let mut connection = Connection::new_zeroed();
            connection.header.time = start + wait * SECOND;
            let event = decoder.connect(&table, key, &connection, 1).unwrap();
            engine.advance(event.time(), &mut output);
            engine.push(event, &mut output);
            let times: Vec<_> = output.alerts.iter().map(|alert| alert.time).collect();
            let expected = is_found.then(|| decoder.clock.wall(connection.header.time));
            assert_eq!(times, expected.into_iter().collect::<Vec<_>>(), "{step}");
        }
    }
}
