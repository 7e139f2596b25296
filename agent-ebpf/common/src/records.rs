//! The kinds of records, and the layout of each and of its parts, byte for byte.

use crate::SLOTS;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $number:literal, $name:literal;)*) => {
        impl Kind {
            $($(#[$doc])* pub const $kind: Self = Self($number);)*

            /// Every kind.
            pub const ALL: [Self; [$($number),*].len()] = [$(Self::$kind),*];

            /// The name in `lapwing status` and the log.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                    _ => "unknown",
                }
            }
        }
    };
}

/// The kind of a record. The numbers leave room for later kinds of the same subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Kind(pub u16);

kinds! {
    /// A new process: [`Fork`].
    FORK = 10, "fork";
    /// A process runs another program: [`Exec`].
    EXEC = 20, "exec";
    /// The last thread of a process ended: [`Exit`].
    EXIT = 30, "exit";
    /// A TCP socket sends its first SYN: [`Connection`]. The source port is not known yet.
    CONNECT = 40, "connect";
    /// That socket got an answer: [`Connected`]. Its source port is known.
    CONNECTED = 50, "connected";
    /// A process took a connection from a listening socket: [`Connection`].
    ACCEPT = 60, "accept";
    /// A process became another user or group, or is about to: [`Changed`].
    IDS = 70, "ids";
    /// A process began a session: [`Changed`].
    SESSION = 80, "session";
    /// A TCP connection, or an attempt at one, is over: [`Closed`].
    CLOSED = 90, "closed";
    /// A process is about to send datagrams to a destination: [`Connection`]. Repetitions for the
    /// same destination are deduplicated.
    DATAGRAM = 100, "datagram";
    /// A command of `bpf(2)` changes what the agent put into the kernel: [`Touched`].
    BPF = 110, "bpf";
    /// A process may look into the agent and change it: [`Touched`].
    PTRACE = 120, "ptrace";
    /// A signal is sent to the agent: [`Touched`].
    SIGNAL = 130, "signal";
}

impl Kind {
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

    /// Whether the reader is woken for it. Rules want these that pass the filter, and sequences end with them.
    #[must_use]
    pub const fn is_urgent(self) -> bool {
        matches!(self, Self::CONNECT | Self::ACCEPT | Self::DATAGRAM)
    }

    /// The kind's place in [`Counts`](crate::Counts).
    #[must_use]
    pub const fn slot(self) -> usize {
        (self.0 / 10) as usize % SLOTS
    }
}

macro_rules! wire {
    ($($(#[$doc:meta])* $name:ident: $size:literal { $($(#[$field_doc:meta])* $field:ident: $ty:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        #[cfg_attr(
            feature = "user",
            derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
        )]
        #[repr(C)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $ty,)*
        }
        const _: () = assert!(size_of::<$name>() == $size, "the wire is law");
        const _: () = assert!(align_of::<$name>() <= 8, "records lie at multiples of eight bytes");
    )*};
}

wire! {
    /// What every record begins with.
    Header: 24 {
        /// A [`Kind`].
        kind: u16,
        /// [`VERSION`](crate::VERSION).
        version: u16,
        /// Bytes of the whole record, this header included.
        len: u32,
        /// When it was written: nanoseconds since boot, suspended time included.
        time: u64,
        /// The processor it was written on.
        cpu: u32,
        /// Zero.
        reserved: u32,
    }

    /// The task that caused it.
    Task: 48 {
        /// The process: the thread group's id in the initial namespace.
        pid: u32,
        /// The thread, in the initial namespace.
        thread: u32,
        /// When the process was made: nanoseconds since boot. With `pid` it names the process.
        start: u64,
        /// When its parent was made.
        parent_start: u64,
        /// Its parent at this moment; for a fork, the parent it was born to.
        parent: u32,
        /// Zero.
        reserved: u32,
        /// The thread's name, ended by a zero where shorter.
        comm: [u8; 16],
    }

    /// Its ids and capabilities.
    Credentials: 56 {
        /// Real user id.
        uid: u32,
        /// Real group id.
        gid: u32,
        /// Effective user id.
        euid: u32,
        /// Effective group id.
        egid: u32,
        /// Saved user id.
        suid: u32,
        /// Saved group id.
        sgid: u32,
        /// The user who logged in; [`ABSENT`](crate::ABSENT) where none did or the kernel keeps no audit.
        login_uid: u32,
        /// The audit session; [`ABSENT`](crate::ABSENT) likewise.
        session_id: u32,
        /// As in [`State`].
        actor: u32,
        /// Zero.
        reserved: u32,
        /// Effective capabilities, a bit each.
        effective: u64,
        /// Permitted capabilities, a bit each.
        permitted: u64,
    }

    /// Its process group, session, terminal, namespaces and control group.
    ProcessContext: 56 {
        /// The process group.
        pgid: u32,
        /// The session.
        sid: u32,
        /// The controlling terminal's device, major above and minor in the lower 20 bits; zero where there is none.
        tty: u32,
        /// The process's id in its own namespace.
        vpid: u32,
        /// The inode of each namespace, as [`Namespace`] numbers them; zero where it is not known.
        namespaces: [u32; 8],
        /// The control group's id.
        cgroup: u64,
    }

    /// What a process can change without executing a program. It is in every record about a process, so that a change
    /// which no hook recorded is found with the process's next record.
    State: 64 {
        /// Real user id.
        uid: u32,
        /// Real group id.
        gid: u32,
        /// Saved user id.
        suid: u32,
        /// Saved group id.
        sgid: u32,
        /// Effective user id.
        euid: u32,
        /// Effective group id.
        egid: u32,
        /// The process group.
        pgid: u32,
        /// The session.
        sid: u32,
        /// The controlling terminal, as in [`ProcessContext`].
        tty: u32,
        /// The user of the host who answers for it: its own real user id in the initial user namespace; in any other,
        /// the owner of the outermost namespace that it is in.
        actor: u32,
        /// Effective capabilities, a bit each.
        effective: u64,
        /// Permitted capabilities, a bit each.
        permitted: u64,
        /// The control group's id.
        cgroup: u64,
    }

    /// A piece of the tail: a text ended by a zero, or a path as its names, each ended by a zero, the last first.
    /// Behind an empty name those that follow begin at the root.
    Span: 8 {
        /// Where it begins, from the record's beginning.
        offset: u32,
        /// Its bytes in the lower 24 bits, and [`Span::CUT`] and its like above.
        len: u32,
    }

    /// The file of a descriptor; all zero where it is closed.
    Descriptor: 16 {
        /// The inode's number.
        inode: u64,
        /// `st_mode`, of which the upper bits are the type.
        mode: u32,
        /// The kernel's device number, for devices. Of standard input, where that is a pipe, how many may write to it;
        /// where it is a socket, whether its other end may: 1 or 0.
        device: u32,
    }

    /// A file's identity, and what changes when it is written to.
    File: 40 {
        /// The inode's number; zero where there is no file.
        inode: u64,
        /// Its size in bytes.
        size: u64,
        /// When its content or its inode was changed last: seconds since 1970.
        changed: i64,
        /// Nanoseconds of that second; [`ABSENT`](crate::ABSENT) where the kernel does not have it, and for an overlay
        /// that a user has mounted: what lies below it may show any time.
        changed_nanos: u32,
        /// The device of the file system: major above 20 bits of minor.
        device: u32,
        /// The inode's generation: another one where the number is used again, on file systems that keep it.
        generation: u32,
        /// The magic number of the file system.
        magic: u32,
    }

    /// A process was created.
    Fork: 200 {
        /// [`Kind::FORK`].
        header: Header,
        /// The new process.
        child: Task,
        /// The new process's.
        credentials: Credentials,
        /// The new process's.
        context: ProcessContext,
        /// The process that forked; the parent of the new one is another with `CLONE_PARENT`.
        forker: u32,
        /// Zero.
        reserved: u32,
        /// When the process that forked was made.
        forker_start: u64,
    }

    /// A process began to run a program.
    Exec: 400 {
        /// [`Kind::EXEC`].
        header: Header,
        /// The process.
        task: Task,
        /// With the new program.
        credentials: Credentials,
        /// With the new program.
        context: ProcessContext,
        /// Standard input, output and error.
        stdio: [Descriptor; 3],
        /// The first of these that is a socket of IPv4 or IPv6, of any protocol; all zero where none is.
        socket: Socket,
        /// The file that the kernel runs.
        file: File,
        /// How many arguments there are, also of those that did not fit.
        args_count: u32,
        /// Bytes of all arguments, also of those that did not fit.
        args_bytes: u32,
        /// The file name as the caller passed it.
        filename: Span,
        /// The file that the kernel runs: for a script its interpreter, as it was written.
        interpreter: Span,
        /// The file that the kernel runs, resolved: a path.
        executable: Span,
        /// The working directory: a path.
        directory: Span,
        /// The control group's path, where its id was not sent before.
        cgroup: Span,
        /// Those variables of the environment whose names begin as wanted ones do, each ended by a zero.
        environment: Span,
        /// The arguments, each ended by a zero.
        args: Span,
    }

    /// The last thread of a process ended.
    Exit: 144 {
        /// [`Kind::EXIT`].
        header: Header,
        /// The process.
        task: Task,
        /// What it had become.
        state: State,
        /// As `wait` returns it: the exit code above eight bits of the signal.
        status: u32,
        /// Zero.
        reserved: u32,
    }

    /// The two ends of a socket and what identifies it.
    Socket: 64 {
        /// The kernel's address of it: identifies the socket while it lives, and is never shown.
        id: u64,
        /// The inode's number, by which file descriptors name it; zero where it has none.
        inode: u64,
        /// The local address in the network's order of bytes; an IPv4 one in the first word.
        local: [u32; 4],
        /// The remote address likewise.
        remote: [u32; 4],
        /// The local port; zero where it is not chosen yet.
        local_port: u16,
        /// The remote port.
        remote_port: u16,
        /// 2 for IPv4, also where the socket is of IPv6, and 10 for IPv6.
        family: u16,
        /// The protocol's number, as IP has it: 6 for TCP, 17 for UDP; 262 for Multipath TCP.
        protocol: u16,
        /// The network namespace's inode.
        namespace: u32,
        /// Zero.
        reserved: u32,
    }

    /// A process connects, accepted, or sends.
    Connection: 200 {
        /// [`Kind::CONNECT`], [`Kind::ACCEPT`] or [`Kind::DATAGRAM`].
        header: Header,
        /// The process.
        task: Task,
        /// What it is at this moment.
        state: State,
        /// The socket.
        socket: Socket,
    }

    /// A process became another without running another program.
    Changed: 136 {
        /// [`Kind::IDS`] or [`Kind::SESSION`].
        header: Header,
        /// The process.
        task: Task,
        /// What it is now.
        state: State,
    }

    /// A connection is over. It names no process: it is written in the context in which the last packet was handled.
    Closed: 112 {
        /// [`Kind::CLOSED`].
        header: Header,
        /// The socket; without its inode's number where its descriptors are closed.
        socket: Socket,
        /// Bytes of data that were sent, each counted once.
        sent: u64,
        /// Bytes of data that were received.
        received: u64,
        /// The state that it was in: 1 established, 2 where no answer came.
        state: u32,
        /// Zero.
        reserved: u32,
    }

    /// An act on the agent.
    Touched: 96 {
        /// [`Kind::BPF`], [`Kind::PTRACE`] or [`Kind::SIGNAL`].
        header: Header,
        /// Who: of a signal that the kernel sends, the process in which it does.
        task: Task,
        /// When the process was made that it is done to; zero of a command of `bpf(2)`.
        target_start: u64,
        /// That process; zero likewise.
        target: u32,
        /// The signal's number, the command, or the mode of access where that is known.
        what: u32,
        /// Of a signal `si_code`; of a command the id of the map or link.
        detail: u32,
        /// Zero.
        reserved: u32,
    }

    /// What the kernel filters because no loaded rule can match it. All zero: nothing.
    Filter: 64 {
        /// By [`Kind::slot`], the classes of destinations whose records are not made, a bit each
        /// ([`Reach::bit`](crate::Reach::bit)). Used only for records about connections.
        dropped: [u32; SLOTS],
    }

    /// The result of a connect.
    Connected: 56 {
        /// [`Kind::CONNECTED`].
        header: Header,
        /// [`Socket::id`] of the record before.
        socket: u64,
        /// The local port.
        local_port: u16,
        /// The remote port.
        remote_port: u16,
        /// Its new state: 1 established, 7 closed without an answer; zero for a datagram socket.
        state: u32,
        /// Of a socket of datagrams, its address, as in [`Socket::local`]; else zero.
        local: [u32; 4],
    }
}

impl Filter {
    /// Lets everything through.
    pub const NONE: Self = Self { dropped: [0; SLOTS] };

    /// Whether records of this kind are filtered if the destination is of one of these classes, a bit each.
    #[inline(always)]
    #[must_use]
    pub fn drops(&self, kind: Kind, address_classes: u32) -> bool {
        address_classes & !self.dropped[kind.slot()] == 0
    }
}

impl Span {
    /// Nothing.
    pub const EMPTY: Self = Self { offset: 0, len: 0 };
    /// More belongs here than there was room for. In a path names are missing above those that are there, or below the
    /// upmost, which follow an empty name.
    pub const CUT: u32 = 1 << 31;
    /// A path's last name has no folder any more: the file was deleted.
    pub const DELETED: u32 = 1 << 30;
    /// The path belongs to no mounted file system: an anonymous file such as a memfd.
    pub const ANONYMOUS: u32 = 1 << 29;
    /// A part could not be read from memory.
    pub const UNREADABLE: u32 = 1 << 28;
    /// The file lies in the upper layer of an overlay: it was written after the lower layers were built, in a container
    /// since its start.
    pub const UPPER: u32 = 1 << 27;
    /// The path ends at a mount that is attached nowhere: what it says holds from the root of its file system.
    pub const DETACHED: u32 = 1 << 26;
    /// The path ends at the root of a mount namespace that is not the process's.
    pub const FOREIGN: u32 = 1 << 25;
    /// The bits of `len` that count bytes.
    pub const LEN: u32 = (1 << 24) - 1;

    /// Whether one of the marks above is set.
    #[must_use]
    pub const fn has(self, mark: u32) -> bool {
        self.len & mark != 0
    }
}

/// The places in [`ProcessContext::namespaces`].
#[derive(Clone, Copy)]
#[repr(usize)]
pub enum Namespace {
    /// Control groups.
    Cgroup = 0,
    /// System V and POSIX messages.
    Ipc = 1,
    /// Mounts.
    Mount = 2,
    /// Network.
    Network = 3,
    /// Processes.
    Pid = 4,
    /// Users.
    User = 5,
    /// Host name.
    Uts = 6,
}
