//! Who the agent is: by number and start, for a number alone is another process's a moment later.

use procfs::process::{Process, Stat};

use super::process::{Key, TICK_NANOS};
use super::record::Record;
use super::snapshot;

/// The agent's own process; `None` where `/proc` does not say.
pub(super) fn key() -> Option<Key> {
    Some(Key::new(std::process::id(), start()?))
}

/// When it was made, in nanoseconds since boot, to a tick.
pub(super) fn start() -> Option<u64> {
    let stat: Stat = snapshot::about(&Process::myself().ok()?, "stat")?;
    Some(stat.starttime.saturating_mul(TICK_NANOS))
}

/// Whether the agent, which is or was this process, connected itself. It requests credentials of the instance's metadata and
/// talks to its sinks: as events, these would pass for what its parent's other children do, and every alert would make
/// an event of its own.
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
