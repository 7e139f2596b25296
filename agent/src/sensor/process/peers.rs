//! The recent connections of a process: a shell is started for one of these.

use lapwing_common::{AF_INET6, Reach, Socket};

/// How long after a connection's start a shell may start for it: a later one has another cause.
const RECENT_NANOS: u64 = 10_000_000_000;
/// Most connections of a process that are kept. If it has more at a time, one of them stays known after its end,
/// because others that are not kept may be open.
const PEERS_MAX: usize = 2;

/// A connection.
pub(super) struct Peer {
    pub(super) socket: Socket,
    /// When it began, in nanoseconds since boot.
    pub(super) since: u64,
}

/// The connections of a process.
#[derive(Default)]
pub(super) struct Peers {
    known: [Option<Peer>; PEERS_MAX],
    /// Until when there may be more of them.
    is_more_until: u64,
}

impl Peers {
    /// Adds one. It replaces the oldest one that is too old to be of interest.
    pub(super) fn add(&mut self, peer: Peer) {
        let is_free = |known: &Option<Peer>| {
            known.as_ref().is_none_or(|known| {
                known.socket.id == peer.socket.id || peer.since.saturating_sub(known.since) > RECENT_NANOS
            })
        };
        match self.known.iter_mut().find(|known| is_free(known)) {
            Some(place) => *place = Some(peer),
            None => self.is_more_until = peer.since.saturating_add(RECENT_NANOS),
        }
    }

    /// Ends one, at this time.
    pub(super) fn remove(&mut self, socket: u64, time: u64) {
        let is_last = self.known.iter().flatten().count() == 1;
        if is_last && time <= self.is_more_until {
            return;
        }
        for known in &mut self.known {
            known.take_if(|known| known.socket.id == socket);
        }
    }

    /// The one that began last before this time, if that is not too long ago.
    pub(super) fn recent(&self, time: u64) -> Option<&Socket> {
        let is_recent = |since: u64| time.saturating_sub(since) <= RECENT_NANOS;
        let mut known: Vec<_> = self.known.iter().flatten().collect();
        known.sort_unstable_by_key(|peer| peer.since);
        let last = known.pop()?;
        (is_recent(last.since) || time <= self.is_more_until).then_some(&last.socket)
    }
}

/// Whether connections of this class are remembered: those that leave the host.
pub(in crate::sensor) fn is_followed(reach: Reach) -> bool {
    matches!(reach, Reach::Private | Reach::Public)
}

/// Whether a shell may be started for this connection: not for one within the host, nor for a DNS query.
pub(super) fn is_of_interest(socket: &Socket) -> bool {
    const UDP: u16 = 17;
    const NAMES: u16 = 53;
    let is_question = socket.protocol == UDP && socket.remote_port == NAMES;
    is_followed(Reach::of(socket.family == AF_INET6, socket.remote)) && !is_question
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros as _;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn peer(id: u64, seconds: u64) -> Peer {
        Peer { socket: Socket { id, ..Socket::new_zeroed() }, since: seconds * SECOND }
    }

    fn recent(peers: &Peers, seconds: u64) -> Option<u64> {
        peers.recent(seconds * SECOND).map(|socket| socket.id)
    }

    #[test]
    fn a_connection_is_known_for_a_short_time_and_while_it_is_open() {
        let mut peers = Peers::default();
        peers.add(peer(1, 100));
        assert_eq!([105, 110, 111].map(|time| recent(&peers, time)), [Some(1), Some(1), None]);
        peers.remove(1, 105 * SECOND);
        assert_eq!(recent(&peers, 105), None);
    }

    /// An attacker opens other connections besides his own, and closes these.
    #[test]
    fn decoys_do_not_hide_a_connection() {
        for decoys in 1..8 {
            let mut peers = Peers::default();
            (1..=decoys).for_each(|id| peers.add(peer(id, 100)));
            peers.add(peer(99, 101));
            (1..=decoys).for_each(|id| peers.remove(id, 102 * SECOND));
            assert!(recent(&peers, 102).is_some(), "{decoys} before it");
            let mut peers = Peers::default();
            peers.add(peer(99, 100));
            (1..=decoys).for_each(|id| peers.add(peer(id, 101)));
            (1..=decoys).for_each(|id| peers.remove(id, 102 * SECOND));
            assert_eq!(recent(&peers, 102), Some(99), "{decoys} after it");
        }
    }
}
