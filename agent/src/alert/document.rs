//! An alert as one line of JSON, with what the log, the store and sinks need to know of it.

use bytes::Bytes;
use lapwing_engine::Timestamp;
use serde::Deserialize;

/// The `event.kind` of an alert of a building block, which stays on this host; of the others it is `alert`.
pub(crate) const BUILDING_BLOCK_KIND: &str = "signal";

/// An alert as it is written and delivered.
#[derive(Clone, Debug)]
pub(crate) struct AlertDocument {
    /// The stable id: the same cause gives the same id, so that a repeated delivery can be deduplicated.
    pub(crate) id: String,
    /// When the last event of the match happened.
    pub(crate) time: Timestamp,
    /// One JSON object without line breaks, as in the log and as sent upstream.
    pub(crate) json: Bytes,
    /// Whether it stays on this host: the alert of a building block, for other rules and for searches.
    pub(crate) local: bool,
}

impl AlertDocument {
    /// Reads a line of the alert log as far as delivery needs it; `None` where it is not an alert.
    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Line {
            #[serde(rename = "@timestamp")]
            time: String,
            event: Event,
        }
        #[derive(Deserialize)]
        struct Event {
            id: String,
            #[serde(default)]
            kind: String,
        }
        let Line { time, event } = serde_json::from_slice(line).ok()?;
        Some(Self {
            id: event.id,
            time: Timestamp::parse(&time)?,
            json: Bytes::copy_from_slice(line),
            local: event.kind == BUILDING_BLOCK_KIND,
        })
    }

    /// What it takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + self.id.len() + self.json.len()
    }
}
