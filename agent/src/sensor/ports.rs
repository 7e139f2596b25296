//! The local ports of connections: known from a later record, or read from the socket; and the source of datagrams.

use std::collections::HashMap;

use aya::programs::{RawTracePoint, RawTracePointRunOptions};
use aya::{Ebpf, TestRun};
use lapwing_common::{Connected, Connection};

use super::Sensor;
use super::clock;
use super::record::Record;
use super::ring::Ring;

/// How long an event may wait for the port of a connection. The connection and its port are recorded one after the
/// other, and the connecting process may be delayed between them.
const PORT_WAIT_NANOS: u64 = 20_000_000;

impl Sensor {
    /// The local ports of the ready connections, the last one first; zero if a port cannot be known. If a port may
    /// still come, its record and the following ones are held back for a moment.
    pub(super) fn find_ports(&mut self) -> Vec<u16> {
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

/// The ready and the waiting records, newest first, each with whether it is ready. Sockets are reused, so that the
/// state of a socket must be searched from the newest record back.
fn newest_first(ring: &Ring) -> impl Iterator<Item = (Record<'_>, bool)> {
    let later = ring.later().rev().map(|bytes| (bytes, false));
    let ready = ring.ready().rev().map(|bytes| (bytes, true));
    later.chain(ready).filter_map(|(bytes, is_ready)| Some((Record::parse(bytes).ok()?, is_ready)))
}

/// The ports of the ready connections, the last one first; zero if no record has the port yet.
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

/// For each ready datagram, the last one first, the record of its socket's connect, if any.
pub(super) fn known_sources(ring: &Ring) -> Vec<Option<Connected>> {
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

/// A datagram's record with the address and port that its socket got by its connect.
pub(super) fn sent_from(sent: &Connection, source: Option<Connected>) -> Connection {
    let mut sent = *sent;
    if let Some(source) = source.filter(|source| source.remote_port == sent.socket.remote_port) {
        (sent.socket.local, sent.socket.local_port) = (source.local, source.local_port);
    }
    sent
}

/// Reads the port of an unanswered socket from the kernel; zero if the socket is gone.
pub(super) fn read_port(ebpf: Option<&Ebpf>, record: &Connection) -> u16 {
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
