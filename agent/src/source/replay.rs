//! Recorded events, for `lapwing replay`: CloudTrail's records in any of their forms, and ECS documents, one a line
//! or in an array, compressed or not.

use std::io::Read;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use lapwing_engine::{Event, Schema};

use super::cloudtrail::{Found, Geo, Mapper, Records};

/// What makes events of recordings, one stream after the other.
pub(crate) struct Replay {
    mapper: Mapper,
    schema: Arc<Schema>,
}

/// The events of one stream.
pub(crate) struct Recording<'a> {
    records: Records,
    replay: &'a mut Replay,
    name: String,
    over: bool,
}

impl Replay {
    /// `geo` places what is CloudTrail's; ECS documents are taken as they are.
    pub(crate) fn new(schema: Arc<Schema>, geo: Geo) -> Self {
        Self { mapper: Mapper::new(Arc::clone(&schema), geo, false), schema }
    }

    /// The events of `reader`, which is called `name` in errors.
    ///
    /// # Errors
    /// Those of the reader.
    pub(crate) fn events(&mut self, reader: impl Read + Send + 'static, name: &str) -> Result<Recording<'_>> {
        let records = Records::new(reader, 0).with_context(|| name.to_owned())?;
        Ok(Recording { records, replay: self, name: name.to_owned(), over: false })
    }
}

/// An error tells of one event that is none, or that the stream is broken; after the latter there are no more events.
impl Iterator for Recording<'_> {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.over {
                return None;
            }
            let event = match self.records.next() {
                Ok(Some(Found::Record(record))) => self.replay.mapper.event(record, None, None),
                Ok(Some(Found::Other(json))) => {
                    Event::from_json(&self.replay.schema, &json).map_err(|error| error.to_string())
                }
                Ok(Some(Found::Digest)) => continue,
                Ok(Some(Found::Refused(reason))) => Err(reason),
                Ok(None) => return None,
                Err(error) => {
                    self.over = true;
                    return Some(Err(anyhow!("{}: {error}", self.name)));
                }
            };
            let at = self.records.at();
            return Some(event.map_err(|reason| anyhow!("{}: {reason} at byte {at}", self.name)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use lapwing_engine::field;

    use super::*;

    #[test]
    fn both_kinds_of_events_come_out_of_one_stream() {
        let text = r#"{"@timestamp":"2026-01-01T00:00:00Z","event":{"action":"exec"},"message":"{\"eventVersion\":1}"}
            {"Records":[{"eventVersion":"1.08","eventTime":"2026-01-01T00:00:01Z","eventName":"RunInstances"}]}
            {"no":"time"}
            [{"@timestamp":"2026-01-01T00:00:02Z","event.action":"exit"}] {"#;
        let schema = Arc::new(Schema::new());
        let mut replay = Replay::new(schema, Geo::default());
        let told: Vec<_> = replay
            .events(Cursor::new(text), "a.json")
            .unwrap()
            .map(|event| match event {
                Ok(event) => event.text(field!("event.action")).unwrap().to_owned(),
                Err(error) => error.to_string(),
            })
            .collect();
        assert_eq!(told[..2], ["exec", "RunInstances"]);
        assert!(told[2].starts_with("a.json: `@timestamp` is missing"), "{}", told[2]);
        assert_eq!(told[3], "exit");
        assert!(told[4].starts_with("a.json: it ends in the middle of a record"), "{}", told[4]);
        assert_eq!(told.len(), 5);
    }
}
