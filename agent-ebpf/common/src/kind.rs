//! The kinds of records, and how the rings treat each.

use crate::SLOTS;

/// The kind of a record. The numbers leave room for later kinds of the same subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Kind(pub u16);

impl Kind {
    /// A new process: [`Fork`](crate::Fork).
    pub const FORK: Self = Self(10);
    /// A process runs another program: [`Exec`](crate::Exec).
    pub const EXEC: Self = Self(20);
    /// The last thread of a process ended: [`Exit`](crate::Exit).
    pub const EXIT: Self = Self(30);
    /// A TCP socket sends its first SYN: [`Connection`](crate::Connection). The source port is not known yet.
    pub const CONNECT: Self = Self(40);
    /// That socket got an answer: [`Connected`](crate::Connected). Its source port is known.
    pub const CONNECTED: Self = Self(50);
    /// A process took a connection from a listening socket: [`Connection`](crate::Connection).
    pub const ACCEPT: Self = Self(60);
    /// A process became another user or group, or is about to: [`Changed`](crate::Changed).
    pub const IDS: Self = Self(70);
    /// A process began a session: [`Changed`](crate::Changed).
    pub const SESSION: Self = Self(80);
    /// A TCP connection, or an attempt at one, is over: [`Closed`](crate::Closed).
    pub const CLOSED: Self = Self(90);

    /// A process is about to send datagrams to a destination: [`Connection`](crate::Connection). Repetitions for the
    /// same destination are deduplicated.
    pub const DATAGRAM: Self = Self(100);

    /// A command of `bpf(2)` changes what the agent put into the kernel: [`Touched`](crate::Touched).
    pub const BPF: Self = Self(110);
    /// A process may look into the agent and change it: [`Touched`](crate::Touched).
    pub const PTRACE: Self = Self(120);
    /// A signal is sent to the agent: [`Touched`](crate::Touched).
    pub const SIGNAL: Self = Self(130);

    /// Every kind.
    pub const ALL: [Self; 13] = [
        Self::FORK,
        Self::EXEC,
        Self::EXIT,
        Self::CONNECT,
        Self::CONNECTED,
        Self::ACCEPT,
        Self::IDS,
        Self::SESSION,
        Self::CLOSED,
        Self::DATAGRAM,
        Self::BPF,
        Self::PTRACE,
        Self::SIGNAL,
    ];

    /// Whether it is about a connection. These have a ring of their own, so that neither they nor what is about
    /// processes can take the other's room.
    #[must_use]
    pub const fn is_connection(self) -> bool {
        matches!(self, Self::CONNECT | Self::CONNECTED | Self::ACCEPT | Self::CLOSED | Self::DATAGRAM)
    }

    /// Whether it is lost first, while there is still room for others: a flood is made of these, they are cheap to make,
    /// and what rules want most, programs and connections, must not be pushed out by them.
    #[must_use]
    pub const fn gives_way(self) -> bool {
        matches!(self, Self::FORK | Self::EXIT | Self::CONNECTED | Self::CLOSED | Self::DATAGRAM)
    }

    /// Whether it is written in the task that caused it. The others are written in whatever context handled a packet.
    #[must_use]
    pub const fn has_actor(self) -> bool {
        !matches!(self, Self::CONNECTED | Self::CLOSED)
    }

    /// The kind's place in [`Counts`](crate::Counts).
    #[must_use]
    pub const fn slot(self) -> usize {
        (self.0 / 10) as usize % SLOTS
    }
}
