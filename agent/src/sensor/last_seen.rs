//! Downtime: the time between two runs of the sensor. Processes that started and ended within it were not seen, which
//! is reported.
//!
//! A sensor stores every few seconds, and at its end, the time up to which it has read all records. The next run
//! computes the downtime from it, within one boot of the host.

use std::time::{Duration, Instant};

use lapwing_engine::Timestamp;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::source::{Change, Checkpoint};

/// Where the store keeps it.
pub(crate) const SCOPE: &str = "sensor";
const KEY: &str = "seen";
/// How often it is stored: after a kill, the reported downtime is longer by up to this.
const REMEMBER_EVERY: Duration = Duration::from_secs(10);

/// What is remembered.
#[derive(Debug, Deserialize, Serialize)]
struct Seen {
    /// On which boot of the host.
    boot: SmolStr,
    /// Until when, in nanoseconds since boot.
    until: u64,
    /// The same as people read it.
    time: String,
}

/// The run before this one.
#[derive(Debug, PartialEq)]
pub(super) enum PreviousRun {
    /// None is stored.
    Unknown,
    /// On this boot; it read records until then, in nanoseconds since boot.
    SameBoot(u64),
    /// On an earlier boot; it read records until then.
    OtherBoot(String),
}

/// Stores the time up to which all records were read.
pub(super) struct LastSeen {
    boot: SmolStr,
    remembered: Option<Instant>,
}

impl LastSeen {
    pub(super) fn new(boot: SmolStr) -> Self {
        Self { boot, remembered: None }
    }

    /// The checkpoint to store, every [`REMEMBER_EVERY`] or at once.
    pub(super) fn remember(&mut self, until: u64, time: Timestamp, at_once: bool) -> Checkpoint {
        let is_recent = |remembered: Instant| remembered.elapsed() < REMEMBER_EVERY;
        if self.remembered.is_some_and(is_recent) && !at_once {
            return Checkpoint::default();
        }
        self.remembered = Some(Instant::now());
        let seen = Seen { boot: self.boot.clone(), until, time: time.to_string() };
        // Three fields of text and numbers always are JSON.
        let value = serde_json::to_vec(&seen).ok();
        let change = Change { scope: SCOPE.to_owned(), key: KEY.to_owned(), value };
        Checkpoint { changes: vec![change], done: None }
    }

    /// Reads what the previous run has stored. Unreadable content, such as another version's, is ignored.
    pub(super) fn recall(&self, rows: &[(String, Vec<u8>)]) -> PreviousRun {
        let value = rows.iter().find(|(key, _)| key == KEY).map(|(_, value)| value);
        match value.and_then(|value| serde_json::from_slice::<Seen>(value).ok()) {
            None => PreviousRun::Unknown,
            Some(seen) if seen.boot == self.boot => PreviousRun::SameBoot(seen.until),
            Some(seen) => PreviousRun::OtherBoot(seen.time),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_recalled_by_boot() {
        let mut last_seen = LastSeen::new("boot".into());
        let time = Timestamp::from_nanos(0);
        let mut rows = Vec::new();
        for (until, at_once, count) in [(7, false, 1), (8, false, 0), (9, true, 1)] {
            let checkpoint = last_seen.remember(until, time, at_once);
            assert_eq!(checkpoint.changes.len(), count, "{until}");
            rows = checkpoint.changes.into_iter().map(|change| (change.key, change.value.unwrap())).collect();
        }
        assert_eq!(last_seen.recall(&rows), PreviousRun::SameBoot(9));
        assert_eq!(LastSeen::new("other".into()).recall(&rows), PreviousRun::OtherBoot(time.to_string()));
        assert_eq!(last_seen.recall(&[]), PreviousRun::Unknown);
        assert_eq!(last_seen.recall(&[(KEY.to_owned(), b"{".to_vec())]), PreviousRun::Unknown);
    }
}
