//! Downtime: the time between two runs of the sensor. What ran wholly within it was not seen, and that is reported.
//!
//! A sensor remembers now and then until when it has seen everything, and once more when it ends. The next one knows by
//! that how long there was none: on this boot of the host. What was before the host was booted ended with it.

use std::time::{Duration, Instant};

use lapwing_engine::Timestamp;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::source::{Change, Checkpoint};

/// Where the store keeps it.
pub(crate) const SCOPE: &str = "sensor";
const KEY: &str = "seen";
/// How often it is remembered: after a kill, the sensor seems to have been down for so much longer than it was.
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

/// What was before this run.
#[derive(Debug, PartialEq)]
pub(super) enum PreviousRun {
    /// No sensor that is remembered.
    Unknown,
    /// A sensor that saw until then, in nanoseconds since boot.
    SameBoot(u64),
    /// A sensor before the host was booted, which saw until then.
    OtherBoot(String),
}

/// Remembers until when everything was seen.
pub(super) struct LastSeen {
    boot: SmolStr,
    remembered: Option<Instant>,
}

impl LastSeen {
    pub(super) fn new(boot: SmolStr) -> Self {
        Self { boot, remembered: None }
    }

    /// What is to be remembered, now and then or at once.
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

    /// What the previous run has left in the store. What cannot be read, as of another version, is ignored.
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
