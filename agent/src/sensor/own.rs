//! The agent's own process: by pid and start time, because a pid alone may be reused.

use std::path::PathBuf;

use procfs::process::{Process, Stat};

use super::key::{Key, TICK_NANOS};
use super::record::Record;
use super::snapshot;
use crate::bounded::{self, HOST_FILE_BYTES_MAX};

/// The agent's own process; `None` if `/proc` cannot be read.
pub(super) fn key() -> Option<Key> {
    Some(Key::new(std::process::id(), start()?))
}

/// When it was made, in nanoseconds since boot, to a tick.
pub(super) fn start() -> Option<u64> {
    let stat: Stat = snapshot::about(&Process::myself().ok()?, "stat")?;
    Some(stat.starttime.saturating_mul(TICK_NANOS))
}

/// The process that traces a thread of the agent now, as a debugger does.
pub(super) fn tracer() -> Option<u32> {
    let number = |folder: PathBuf, name| {
        let status = bounded::read_text(folder.join("status"), HOST_FILE_BYTES_MAX).ok()?;
        let number = status.lines().find_map(|line| line.strip_prefix(name))?.trim().parse::<u32>().ok()?;
        (number != 0).then_some(number)
    };
    let mut threads = std::fs::read_dir("/proc/self/task").ok()?.flatten();
    let tracer = threads.find_map(|thread| number(thread.path(), "TracerPid:"))?;
    // The kernel names the thread.
    Some(number(format!("/proc/{tracer}").into(), "Tgid:").unwrap_or(tracer))
}

/// Whether the agent, which is or was this process, connected itself. It requests credentials of the instance's
/// metadata and talks to its sinks: as events, these would look like acts of its parent's other children, and every
/// alert would cause an event.
pub(super) fn is_connection_of(agent: Option<Key>, record: &Record<'_>) -> bool {
    let (Record::Connect(connection) | Record::Datagram(connection)) = record else { return false };
    agent == Some(Key::of(&connection.task))
}

#[cfg(test)]
mod tests {
    use lapwing_common::Connection;
    use zerocopy::FromZeros as _;

    use super::*;

    #[test]
    fn a_number_alone_is_not_the_agent() {
        let own = key().unwrap();
        let start = start().unwrap();
        let mut connection = Connection::new_zeroed();
        let mut is_own = |pid, start| {
            (connection.task.pid, connection.task.start) = (pid, start);
            is_connection_of(Some(own), &Record::Connect(&connection))
        };
        assert!(is_own(own.pid, start));
        assert!(!is_own(own.pid, start + TICK_NANOS), "another process that has its number");
        assert!(!is_own(own.pid + 1, start));
        assert!(!is_connection_of(None, &Record::Connect(&connection)));
    }
}
