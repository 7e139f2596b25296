//! From the rings' records to events: the hot loop. Nothing in it waits, and nothing is locked.

use aya::Ebpf;
use lapwing_common::{AF_INET6, Filter, Kind, Reach, Socket, State};
use lapwing_engine::Event;

use super::Sensor;
use super::decode::Decoder;
use super::environment::Wanted;
use super::hook::{HookReport, HookState};
use super::image::Image;
use super::key::Key;
use super::owner::{Owner, Owners};
use super::ports::{known_sources, read_port, sent_from};
use super::process::{self, Changes, Table};
use super::record::{ExecRecord, Record};
use super::{clock, own, script_lookup, touched};
use crate::action::UDP;

impl Sensor {
    /// Reads the rings. A signal that stops the agent is stored for the next run before its record is taken.
    pub(super) fn drain(&mut self) {
        let (agent, fds_stored, stop_signal) = (self.agent, self.fds_stored, &mut self.stop_signal);
        self.ring.drain(|signal| {
            if fds_stored {
                stop_signal.store(signal, agent);
            }
        });
    }

    /// Turns the records that are ready into events; those of the rings of the process `before`, where one is given.
    pub(super) fn decode(&mut self, before: Option<Key>) -> Vec<Event> {
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
            let (owners, wanted, filter) = (&mut self.owners, &self.wanted, self.filter.now());
            EventBuilder { table, decoder, owners, wanted, filter, ebpf, events: &mut events }
                .build(&record, port);
        }
        events
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
                // The kernel changes the ids before the program, and the sensors that rules are written for report it
                // so.
                let state = process::state_of(&exec.fixed.credentials, &exec.fixed.context);
                self.observe(Key::of(&exec.fixed.task), &state, time);
                let image = Image::of_exec(exec, script_lookup::of(exec, self.table), self.wanted);
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

/// Takes in the path of a control group, where a record has it.
fn name_cgroup(table: &mut Table, exec: &ExecRecord<'_>) {
    if exec.fixed.cgroup.len != 0 {
        let path = String::from_utf8_lossy(&exec.path(exec.fixed.cgroup)).into();
        table.groups.insert(exec.fixed.context.cgroup, path);
    }
}
