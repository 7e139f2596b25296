//! The wire: what the kernel programs hand to user space, and what user space hands to them when it loads them.
//!
//! A record is a [`Header`], the fixed part of its kind, and for some kinds a tail of variable length whose pieces the
//! fixed part names by [`Span`]s. Every field has an explicit width and a place that no compiler chooses: no `bool`,
//! no enum, no hidden padding. Numbers of kinds are never reused. It knows neither ECS nor how a record comes about.
#![no_std]

pub mod layout;
mod reach;

pub use reach::Reach;

/// The version of this format, in every record. A reader refuses any other.
pub const VERSION: u16 = 4;

/// The kind of a record. The numbers leave room for later kinds of the same subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Kind(pub u16);

impl Kind {
    /// A new process: [`Fork`].
    pub const FORK: Self = Self(10);
    /// A process runs another program: [`Exec`].
    pub const EXEC: Self = Self(20);
    /// The last thread of a process ended: [`Exit`].
    pub const EXIT: Self = Self(30);
    /// A TCP socket sends its first SYN: [`Connection`]. The source port is not known yet.
    pub const CONNECT: Self = Self(40);
    /// That socket got an answer: [`Connected`]. Its source port is known.
    pub const CONNECTED: Self = Self(50);
    /// A process took a connection from a listening socket: [`Connection`].
    pub const ACCEPT: Self = Self(60);
    /// A process became another user or group, or is about to: [`Changed`].
    pub const IDS: Self = Self(70);
    /// A process began a session: [`Changed`].
    pub const SESSION: Self = Self(80);
    /// A TCP connection, or an attempt at one, is over: [`Closed`].
    pub const CLOSED: Self = Self(90);

    /// A process is about to send datagrams to a destination: [`Connection`]. Repetitions for the same destination are
    /// deduplicated.
    pub const DATAGRAM: Self = Self(100);

    /// A command of `bpf(2)` changes what the agent put into the kernel: [`Touched`].
    pub const BPF: Self = Self(110);
    /// A process may look into the agent and change it: [`Touched`].
    pub const PTRACE: Self = Self(120);
    /// A signal is sent to the agent: [`Touched`].
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

    /// Whether it is about a connection. These have a ring of their own, so that neither they nor what is about processes
    /// can take the other's room.
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

    /// The kind's place in [`Counts`].
    #[must_use]
    pub const fn slot(self) -> usize {
        (self.0 / 10) as usize % SLOTS
    }
}

/// Places in [`Counts`].
pub const SLOTS: usize = 16;

/// What one processor counted of each kind. What there was to record is the sum of the three: one place is added to each time,
/// for that costs as much as a small read.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Counts {
    /// Records that were written to the ring, by [`Kind::slot`].
    pub written: [u64; SLOTS],
    /// Records for which there was no room, by [`Kind::slot`].
    pub lost: [u64; SLOTS],
    /// Records that were not made, because of the [`Filter`] or because the same was recorded just before, by [`Kind::slot`].
    pub filtered: [u64; SLOTS],
}

/// What an actor holds of a ring, as far as that is known: beyond the fill mark it is charged for its records.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Share {
    /// Bytes of its records that were unread when it was last charged.
    pub unread: u64,
    /// Bytes that were unread in the whole ring then.
    pub ring_unread: u64,
    /// The reader's position then.
    pub ring_read: u64,
    /// Records that were dropped because it held too much; of users only.
    pub dropped: u64,
}

/// Most shares of one level that are known. The one that was not charged for longest is forgotten first.
pub const SHARES_MAX: u32 = 2048;

/// The bits that the keys of shares have above the actor's id: an actor has a share of each ring, and in each one for
/// the kinds that give way and one for the others, so that its forks do not displace its programs.
pub struct ShareOf;

impl ShareOf {
    /// A share of the ring for connections; without it, of the ring for processes.
    pub const CONNECTIONS: u64 = 1 << 62;
    /// A share for the kinds that give way.
    pub const GIVING_WAY: u64 = 1 << 61;

    /// The bits for records of a kind.
    #[must_use]
    pub const fn kind(kind: Kind) -> u64 {
        let ring = if kind.is_connection() { Self::CONNECTIONS } else { 0 };
        ring | if kind.gives_way() { Self::GIVING_WAY } else { 0 }
    }

    /// The actor's id in a key.
    #[must_use]
    pub const fn actor(key: u64) -> u64 {
        key & !(Self::CONNECTIONS | Self::GIVING_WAY)
    }
}

/// Most bytes of arguments that a record holds; longer ones are cut and marked.
pub const ARGS_BYTES_MAX: usize = 48 * 1024;
/// Most bytes of a text, such as the file name given to `execve`: `PATH_MAX`.
pub const TEXT_BYTES_MAX: usize = 4096;
/// Most bytes of the names of a path, from the last one up. Where there are more, some in the middle are missing.
pub const NAMES_BYTES_MAX: usize = 4096;
/// Of such a path, how many of the upmost names follow.
pub const UPPER_NAMES_MAX: usize = 8;
/// Most bytes of these.
pub const UPPER_NAMES_BYTES_MAX: usize = 1024;
/// Most bytes of the wanted variables of an environment.
pub const ENVIRONMENT_BYTES_MAX: usize = 8 * 1024;
/// Most bytes that a record holds before its arguments: the fixed part, two texts, three paths, the environment, and room
/// to look at what does not fit.
pub const PATHS_BYTES_MAX: usize = 512
    + 2 * TEXT_BYTES_MAX
    + 3 * (NAMES_BYTES_MAX + UPPER_NAMES_BYTES_MAX)
    + ENVIRONMENT_BYTES_MAX
    + TEXT_BYTES_MAX;
/// Most bytes of a record.
pub const RECORD_BYTES_MAX: usize = PATHS_BYTES_MAX + ARGS_BYTES_MAX;
/// Most bytes of one variable of the environment, with its end mark; longer ones are cut.
pub const VARIABLE_BYTES_MAX: usize = 1024;
/// Most steps along a path, its mounts included, or along an environment, of which each variable and each
/// [`VARIABLE_BYTES_MAX`] of a longer one is a step. Where there are more, [`Span::CUT`] is set.
pub const STEPS_MAX: usize = 128 * 128;
/// Most names of variables that are wanted.
pub const WANTED_MAX: u32 = 256;
/// Most control groups whose paths user space keeps.
pub const CGROUPS_MAX: u32 = 4096;
/// Programs that build large records: each has a place for that on each processor.
pub const BUILDERS: u32 = 1;

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
        /// [`VERSION`].
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

    /// Who did it.
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

    /// What it may do.
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
        /// The user who logged in; [`ABSENT`] where none did or the kernel keeps no audit.
        login_uid: u32,
        /// The audit session; [`ABSENT`] likewise.
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

    /// Where it runs.
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

    /// What a process can make of itself without running another program. It is in every record about a process, so
    /// that a change which no hook showed is known with the next thing that the process does.
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

    /// A piece of the tail: a text ended by a zero, or a path as its names, each ended by a zero, the last first. Behind an
    /// empty name those that follow begin at the root.
    Span: 8 {
        /// Where it begins, from the record's beginning.
        offset: u32,
        /// Its bytes in the lower 24 bits, and [`Span::CUT`] and its like above.
        len: u32,
    }

    /// What a file descriptor stands for; all zero where it is closed.
    Descriptor: 16 {
        /// The inode's number.
        inode: u64,
        /// `st_mode`, of which the upper bits are the type.
        mode: u32,
        /// The kernel's device number, for devices. Of standard input, where that is a pipe, how many may write to it; where it is a
        /// socket, whether its other end may: 1 or 0.
        device: u32,
    }

    /// What names a file, and what changes when it is written to.
    File: 40 {
        /// The inode's number; zero where there is no file.
        inode: u64,
        /// Its size in bytes.
        size: u64,
        /// When its content or its inode was changed last: seconds since 1970.
        changed: i64,
        /// Nanoseconds of that second; [`ABSENT`] where the kernel does not have it, and for an overlay that a user has
        /// mounted: what lies below it may show any time.
        changed_nanos: u32,
        /// The device of the file system: major above 20 bits of minor.
        device: u32,
        /// The inode's generation: another one where the number is used again, on file systems that keep it.
        generation: u32,
        /// The magic number of the file system.
        magic: u32,
    }

    /// A process was made.
    Fork: 200 {
        /// [`Kind::FORK`].
        header: Header,
        /// The new process.
        child: Task,
        /// The new process's.
        credentials: Credentials,
        /// The new process's.
        place: ProcessContext,
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
        place: ProcessContext,
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

    /// What stays in the kernel because no rule that is loaded can match it. All zero lets everything through.
    Filter: 64 {
        /// By [`Kind::slot`], the classes of destinations whose records are not made, a bit each ([`Reach::bit`]). Used
        /// only for records about connections.
        dropped: [u32; SLOTS],
    }

    /// What became of a socket that connects.
    Connected: 56 {
        /// [`Kind::CONNECTED`].
        header: Header,
        /// [`Socket::id`] of the record before.
        socket: u64,
        /// The local port.
        local_port: u16,
        /// The remote port.
        remote_port: u16,
        /// The state it went to: 1 established; zero for a socket of datagrams.
        state: u32,
        /// Of a socket of datagrams, its address, as in [`Socket::local`]; else zero.
        local: [u32; 4],
    }
}

impl Filter {
    /// Lets everything through.
    pub const NONE: Self = Self { dropped: [0; SLOTS] };

    /// Whether records of this kind stay in the kernel where the destination is of one of these classes, a bit each.
    #[inline(always)]
    #[must_use]
    pub fn drops(&self, kind: Kind, address_classes: u32) -> bool {
        address_classes & !self.dropped[kind.slot()] == 0
    }
}

/// Most maps and links of the agent that its programs know.
pub const OBJECTS_MAX: u32 = 256;

/// What the agent puts into the kernel.
#[derive(Clone, Copy)]
pub enum Object {
    /// A map.
    Map,
    /// What attaches a program.
    Link,
}

impl Object {
    /// What stands for the one with this id.
    #[inline(always)]
    #[must_use]
    pub const fn key(self, id: u32) -> u64 {
        (self as u64) << 32 | id as u64
    }
}

/// What a number is that the kernel does not have.
pub const ABSENT: u32 = u32::MAX;

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
    /// The file lies in the upper layer of an overlay: it was written after what lies below was put together, in a
    /// container since it runs.
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
