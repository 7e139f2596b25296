//! The table of actions, with a row for every kind of event that the sensor emits.
//!
//! A row has the event's fields in ECS, its names for people and for auditd, its hook and record, and the records that
//! must leave the kernel for it. The decoder, the filter, auditd's view, the coverage of rules, the reasons of alerts
//! and `lapwing events` read it. `docs/reference/events.md` shows it; `CONTRIBUTING.md` describes how to add a row.

use lapwing_common::Kind;

/// The hook of datagrams. It is off by default: it needs `CAP_NET_ADMIN`, with which the agent could change the host's
/// network.
pub(crate) const UDP: &str = "udp";

/// A kind of event.
pub(crate) struct Action {
    /// `event.action`.
    pub(crate) name: &'static str,
    /// `event.category`.
    pub(crate) category: &'static str,
    /// `event.type`.
    pub(crate) ty: &'static str,
    /// `event.dataset`, and the data stream that rules name.
    pub(crate) stream: &'static Stream,
    /// `message`.
    pub(crate) message: &'static str,
    /// `network.transport`, if all such events have the same.
    pub(crate) transport: Option<&'static str>,
    /// `network.direction`, if all such events have the same.
    pub(crate) direction: Option<Direction>,
    /// The verb in lines for people. It follows the process's name and precedes [`Action::shows`].
    pub(crate) verb: &'static str,
    /// The verb for an incoming connection; `None` for the same verb.
    pub(crate) verb_ingress: Option<&'static str>,
    /// The part after the verb in lines for people.
    pub(crate) shows: Shows,
    /// auditd's name of the action, if it has one.
    pub(crate) auditd: Option<&'static str>,
    /// The names of the action in other sensors. A rule that lists several of these means the same event.
    pub(crate) synonyms: &'static [&'static str],
    /// The hook of the event; empty if it has none.
    pub(crate) hook: &'static str,
    /// The record of the event, if it is always the same kind.
    pub(crate) record: Option<Kind>,
    /// The connection records that the event needs. The filter drops such a record if no rule can match any event that
    /// needs it. An event without needs is never filtered.
    pub(crate) needs: &'static [Kind],
    /// The last byte of the event ids, for events without a record; otherwise it is the record's kind. It is never
    /// reused.
    number: u8,
}

/// The data stream of events.
pub(crate) struct Stream {
    /// `event.dataset`.
    pub(crate) dataset: &'static str,
    /// Elastic's data stream, which rules name; `None` if no rule matches these events.
    pub(crate) name: Option<&'static str>,
}

/// The direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// This host connected.
    Egress,
    /// Another host connected.
    Ingress,
}

impl Direction {
    /// The value of `network.direction`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Egress => "egress",
            Self::Ingress => "ingress",
        }
    }
}

/// The part after the verb in a line for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shows {
    /// The process's command line.
    Command,
    /// The exit code or the signal.
    Exit,
    /// The two ends of a connection.
    Connection,
    /// The number of lost records.
    Records,
    /// The start and the end.
    Times,
    /// The reason.
    Reason,
}

impl Shows {
    /// Whether the event is about the sensor and not about a process.
    pub(crate) fn is_of_sensor(self) -> bool {
        matches!(self, Self::Records | Self::Times | Self::Reason)
    }
}

const PROCESSES: Stream =
    Stream { dataset: "endpoint.events.process", name: Some("logs-endpoint.events.process-default") };
const CONNECTIONS: Stream =
    Stream { dataset: "endpoint.events.network", name: Some("logs-endpoint.events.network-default") };
/// Events about the sensor itself. Rules about processes or connections never match them.
const SENSOR: Stream = Stream { dataset: "lapwing.sensor", name: None };

const PROCESS: Action = Action {
    name: "fork",
    category: "process",
    ty: "start",
    stream: &PROCESSES,
    message: "Endpoint process event",
    transport: None,
    direction: None,
    verb: "was started",
    verb_ingress: None,
    shows: Shows::Command,
    auditd: None,
    synonyms: &["fork_event", "start", "process_started"],
    hook: "fork",
    record: Some(Kind::FORK),
    needs: &[],
    number: 0,
};
/// A change of a process's ids or session. Other records of the process may show it too, so it has no record of its
/// own.
const CHANGE: Action = Action { ty: "change", synonyms: &[], hook: "ids", record: None, ..PROCESS };
const NETWORK: Action = Action {
    name: "connection_attempted",
    category: "network",
    stream: &CONNECTIONS,
    message: "Endpoint network event",
    transport: Some("tcp"),
    direction: Some(Direction::Egress),
    verb: "connected to",
    shows: Shows::Connection,
    auditd: Some("connected-to"),
    synonyms: &["connected-to", "ipv4_connection_attempt_event", "network_flow"],
    hook: "connect",
    record: Some(Kind::CONNECT),
    needs: &[Kind::CONNECT, Kind::CONNECTED],
    ..PROCESS
};
const LOSS: Action = Action {
    name: "records_lost",
    category: "host",
    ty: "info",
    stream: &SENSOR,
    message: "Records were lost: the kernel's ring buffer was full",
    verb: "lost records",
    shows: Shows::Records,
    synonyms: &[],
    hook: "",
    record: None,
    number: 206,
    ..PROCESS
};

/// Defines the table and the names of its rows.
macro_rules! actions {
    ($($name:ident: $row:expr,)*) => {
        /// A row of [`ACTIONS`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Row { $($name,)* }

        /// Every kind of event.
        pub(crate) const ACTIONS: &[Action] = &[$($row,)*];
    };
}

actions! {
    Fork: PROCESS,
    Exec: Action {
        name: "exec",
        verb: "ran",
        auditd: Some("executed"),
        synonyms: &["exec_event", "executed", "process_started", "ProcessRollup2", "start", "started"],
        hook: "exec",
        record: Some(Kind::EXEC),
        ..PROCESS
    },
    End: Action {
        name: "end",
        ty: "end",
        verb: "ended",
        shows: Shows::Exit,
        synonyms: &["process_stopped", "end_event", "exit"],
        hook: "exit",
        record: Some(Kind::EXIT),
        ..PROCESS
    },
    AlreadyRunning: Action {
        name: "already_running",
        ty: "info",
        verb: "was running already",
        synonyms: &[],
        hook: "",
        record: None,
        number: 203,
        ..PROCESS
    },
    Attempted: NETWORK,
    Accepted: Action {
        name: "connection_accepted",
        direction: Some(Direction::Ingress),
        verb: "accepted a connection from",
        auditd: Some("accepted-connection-from"),
        synonyms: &["accepted-connection-from", "ipv4_connection_accept_event"],
        hook: "accept",
        record: Some(Kind::ACCEPT),
        needs: &[Kind::ACCEPT],
        ..NETWORK
    },
    SessionIdChange: Action {
        name: "session_id_change",
        verb: "began a session",
        hook: "session",
        number: 207,
        ..CHANGE
    },
    UidChange: Action { name: "uid_change", verb: "became another user", number: 208, ..CHANGE },
    GidChange: Action { name: "gid_change", verb: "became another group", number: 209, ..CHANGE },
    Disconnected: Action {
        name: "disconnect_received",
        ty: "end",
        // The event has the direction of its connection.
        direction: None,
        verb: "ended a connection to",
        verb_ingress: Some("ended a connection from"),
        auditd: None,
        synonyms: &[],
        record: Some(Kind::CLOSED),
        needs: &[Kind::CONNECT, Kind::CONNECTED, Kind::ACCEPT, Kind::CLOSED],
        ..NETWORK
    },
    // It is not `connection_attempted`: on Linux, Defend reports only TCP under that name, and rules rely on it.
    Datagram: Action {
        name: "datagram_attempted",
        transport: None,
        verb: "sent a datagram to",
        auditd: None,
        synonyms: &[],
        hook: UDP,
        record: Some(Kind::DATAGRAM),
        needs: &[Kind::DATAGRAM],
        ..NETWORK
    },
    Lost: LOSS,
    Down: Action {
        name: "sensor_down",
        message: "The sensor did not run: what ran meanwhile was not seen",
        verb: "did not run",
        shows: Shows::Times,
        number: 212,
        ..LOSS
    },
    Tampered: Action {
        name: "sensor_tampered",
        message: "The sensor was tampered with, or a hook does not report correctly",
        verb: "was tampered with",
        shows: Shows::Reason,
        number: 213,
        ..LOSS
    },
    FilesChanged: Action {
        name: "sensor_files_changed",
        message: "Files of the sensor were changed, apparently by an administrator",
        verb: "had files of it changed",
        shows: Shows::Reason,
        number: 214,
        ..LOSS
    },
}

impl Action {
    /// The row of an action by its name, or by auditd's.
    pub(crate) fn of(name: &str) -> Option<&'static Self> {
        ACTIONS.iter().find(|action| action.name == name || action.auditd == Some(name))
    }

    /// The verb for a connection of this direction.
    pub(crate) fn verb(&self, direction: Direction) -> &'static str {
        self.verb_ingress.filter(|_| direction == Direction::Ingress).unwrap_or(self.verb)
    }

    /// The last byte of its events' ids.
    pub(crate) fn number(&self) -> u8 {
        self.record.map_or(self.number, |kind| kind.0 as u8)
    }

    /// The name of the record that it is made of.
    #[cfg(test)]
    pub(crate) fn record_name(&self) -> Option<&'static str> {
        self.record.map(Kind::name)
    }

    /// Whether it is a change of a process's ids or session, which any record of the process may show.
    pub(crate) fn is_change(&self) -> bool {
        self.ty == CHANGE.ty
    }
}

/// Elastic's data streams of the sensor's events.
pub(crate) fn streams() -> Vec<&'static str> {
    let mut streams = Vec::new();
    for name in ACTIONS.iter().filter_map(|action| action.stream.name) {
        if !streams.contains(&name) {
            streams.push(name);
        }
    }
    streams
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_of_one_row() {
        for (action, row) in ACTIONS.iter().enumerate() {
            let others = || ACTIONS.iter().enumerate().filter(|(other, _)| *other != action);
            assert!(others().all(|(_, other)| other.name != row.name && other.number() != row.number()));
            assert!(row.record.is_none_or(|kind| u16::from(row.number()) == kind.0), "{}", row.name);
        }
    }

    #[test]
    fn every_record_of_connections_is_needed_for_something() {
        for kind in Kind::ALL.into_iter().filter(|kind| kind.is_connection()) {
            assert!(ACTIONS.iter().any(|action| action.needs.contains(&kind)), "{kind:?}");
        }
    }
}
