//! The wire: what the kernel programs send to user space, and what user space sets when it loads them.
//!
//! A record is a [`Header`], the fixed part of its kind, and for some kinds a tail of variable length whose pieces the
//! fixed part names by [`Span`]s. Every field has an explicit width and offset: no `bool`, no enum, no hidden padding.
//! Numbers of kinds are never reused. It has neither ECS nor the code that fills a record.
#![no_std]

pub mod layout;
mod reach;
mod records;

pub use reach::Reach;
pub use records::*;

/// The version of this format, in every record. A reader refuses any other.
pub const VERSION: u16 = 4;

/// Places in [`Counts`].
pub const SLOTS: usize = 16;

/// What one processor counted of each kind. What there was to record is the sum of the three: one place is added to
/// each time, for that costs as much as a small read.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Counts {
    /// Records that were written to the ring, by [`Kind::slot`].
    pub written: [u64; SLOTS],
    /// Records for which there was no room, by [`Kind::slot`].
    pub lost: [u64; SLOTS],
    /// Records that were not made, because of the [`Filter`] or because the same was recorded just before, by
    /// [`Kind::slot`].
    pub filtered: [u64; SLOTS],
}

/// The least time between two wake-ups of the reader for urgent records ([`Kind::is_urgent`]), in nanoseconds.
pub const WAKE_INTERVAL_NANOS: u64 = 5_000_000;

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
/// Most bytes that a record holds before its arguments: the fixed part, two texts, three paths, the environment, and
/// room to look at what does not fit.
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

/// Most maps and links of the agent that its programs recognise.
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
    /// The key of the object with this id.
    #[inline(always)]
    #[must_use]
    pub const fn key(self, id: u32) -> u64 {
        (self as u64) << 32 | id as u64
    }
}

/// The value of a number that the kernel does not have.
pub const ABSENT: u32 = u32::MAX;
/// `AF_INET`, as in [`Socket::family`].
pub const AF_INET: u16 = 2;
/// `AF_INET6`.
pub const AF_INET6: u16 = 10;
/// `IPPROTO_UDPLITE`, as in [`Socket::protocol`].
pub const IPPROTO_UDPLITE: u16 = 136;
