//! What names a process, and what is known of it at first.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lapwing_common::{ABSENT, Credentials, ProcessContext, Task};
use serde::{Deserialize, Serialize};

use crate::sensor::image::Image;

/// The clock tick, the unit of start times in `/proc`; the kernel fixes it for user space.
pub(super) const TICK_NANOS: u64 = 10_000_000;

/// What names a process on this host since it was booted: a number is used again, but not within one tick.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Hash, Serialize)]
pub(super) struct Key {
    pub(super) pid: u32,
    pub(super) ticks: u64,
}

impl Key {
    pub(super) fn new(pid: u32, start: u64) -> Self {
        Self { pid, ticks: start / TICK_NANOS }
    }

    /// The process that an entity id names, on whichever host and boot.
    pub(super) fn parse(entity_id: &str) -> Option<Self> {
        let bytes = STANDARD.decode(entity_id).ok().filter(|bytes| bytes.len() == 20)?;
        let pid = u32::from_le_bytes(bytes[8..12].try_into().ok()?);
        Some(Self { pid, ticks: u64::from_le_bytes(bytes[12..].try_into().ok()?) })
    }

    /// The process that a record names.
    pub(super) fn of(task: &Task) -> Self {
        Self::new(task.pid, task.start)
    }

    /// The parent that a record names; the first processes have none.
    pub(super) fn parent_of(task: &Task) -> Option<Self> {
        (task.parent != 0).then(|| Self::new(task.parent, task.parent_start))
    }
}

/// What is known of a process from its first record or from `/proc`.
pub(super) struct Origin {
    pub(super) pid: u32,
    /// Nanoseconds since boot, at least as fine as a tick.
    pub(super) start: u64,
    pub(super) parent: Option<Key>,
    pub(super) parent_pid: u32,
    pub(super) image: Arc<Image>,
    pub(super) credentials: Credentials,
    pub(super) context: ProcessContext,
}

/// Unknown credentials.
pub(super) const NO_CREDENTIALS: Credentials = Credentials {
    uid: ABSENT,
    gid: ABSENT,
    euid: ABSENT,
    egid: ABSENT,
    suid: ABSENT,
    sgid: ABSENT,
    login_uid: ABSENT,
    session_id: ABSENT,
    actor: ABSENT,
    reserved: 0,
    effective: 0,
    permitted: 0,
};

/// An unknown process context.
pub(super) const NO_CONTEXT: ProcessContext =
    ProcessContext { pgid: 0, sid: 0, tty: 0, vpid: 0, namespaces: [0; 8], cgroup: 0 };
