//! Recorded events, for `lapwing replay` and `lapwing search`: what `lapwing record` wrote, CloudTrail's records in any of
//! their forms, and ECS documents, one a line or in an array, compressed or not.

use std::fmt::Display;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Error, Result, anyhow};
use lapwing_engine::{Event, FieldId, Schema, field};
use serde_json::Value as Json;

use super::cloudtrail::{Found, Geo, Mapper, Record, Records};
use crate::recording::{self, Begun, Head, RecordingNotes};

/// The documents of one stream, as they stand there.
pub(crate) struct Documents {
    records: Records,
    name: String,
    over: bool,
    /// What `lapwing record` stores beside the events, where it wrote them.
    recorded: Option<(Box<Head>, Arc<Mutex<RecordingNotes>>)>,
}

/// What makes events of recordings, one stream after the other.
pub(crate) struct Replay {
    /// What makes ECS of CloudTrail's records; `None` where they are documents as any other.
    mapper: Option<Mapper>,
    schema: Arc<Schema>,
    timestamp: FieldId,
}

/// The events of one stream.
pub(crate) struct ReplayEvents<'a> {
    documents: Documents,
    replay: &'a mut Replay,
}

/// An event that was read.
pub(crate) struct Recorded {
    /// The event.
    pub(crate) event: Event,
    /// The document that it was, unless ECS was made of a record of CloudTrail's.
    pub(crate) document: Option<Json>,
}

impl Documents {
    /// The documents of a file, or of standard input where the file is `-`.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn open(file: &Path) -> Result<Self> {
        if file == Path::new("-") {
            return Self::new(std::io::stdin(), "standard input");
        }
        let name = file.display().to_string();
        let opened = File::open(file).with_context(|| format!("{name} cannot be read"))?;
        Self::new(opened, &name)
    }

    /// The documents of `reader`, which is called `name` in errors.
    ///
    /// # Errors
    /// Those of the reader.
    pub(crate) fn new(reader: impl Read + Send + 'static, name: &str) -> Result<Self> {
        let (records, recorded) = match recording::begin(reader).with_context(|| name.to_owned())? {
            Begun::Recording(head, recording, notes_read) => {
                (Records::of_lines(recording), Some((head, notes_read)))
            }
            Begun::Other(stream) => (Records::recorded(stream).with_context(|| name.to_owned())?, None),
        };
        Ok(Self { records, name: name.to_owned(), over: false, recorded })
    }

    /// The header that `lapwing record` wrote; `None` where another program wrote the file.
    pub(crate) fn head(&self) -> Option<&Head> {
        self.recorded.as_ref().map(|(head, _)| &**head)
    }

    /// How many events were missed when what was read so far was recorded.
    pub(crate) fn missed(&self) -> u64 {
        let notes =
            self.recorded.as_ref().map(|(_, notes)| notes.lock().unwrap_or_else(PoisonError::into_inner));
        notes.map_or(0, |notes| notes.missed)
    }

    /// What it is called in errors.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What is wrong with the last document, and where it stands.
    pub(crate) fn fault(&self, reason: impl Display) -> Error {
        let (line, at) = (self.records.line(), self.records.at());
        anyhow!("{}:{line}: {reason} (byte {at})", self.name)
    }

    fn next_record(&mut self) -> Option<Result<Form>> {
        loop {
            if self.over {
                return None;
            }
            return match self.records.next() {
                Ok(Some(Found::Record(record))) => Some(Ok(Form::Record(record))),
                Ok(Some(Found::Other(json))) => Some(Ok(Form::Document(json))),
                Ok(Some(Found::Digest)) => continue,
                Ok(Some(Found::Refused(reason))) => Some(Err(self.fault(reason))),
                Ok(None) => None,
                Err(error) => {
                    self.over = true;
                    Some(Err(anyhow!("{}: {error}", self.name)))
                }
            };
        }
    }
}

/// What an event is made of.
enum Form {
    Record(Record),
    Document(Json),
}

/// An error is about one invalid document, or about the stream; after the latter there are no more documents.
impl Iterator for Documents {
    type Item = Result<Json>;

    fn next(&mut self) -> Option<Self::Item> {
        let form = self.next_record()?;
        Some(form.map(|form| match form {
            Form::Record(record) => Json::Object(record),
            Form::Document(json) => json,
        }))
    }
}

impl Replay {
    /// `geo` places what is CloudTrail's; ECS documents are taken as they are.
    pub(crate) fn new(schema: Arc<Schema>, geo: Geo) -> Self {
        let mapper = Mapper::new(Arc::clone(&schema), geo, false);
        Self { mapper: Some(mapper), schema, timestamp: field!("@timestamp") }
    }

    /// All documents are taken as they are, CloudTrail's too; they happened when `timestamp` says.
    pub(crate) fn plain(schema: Arc<Schema>, timestamp: FieldId) -> Self {
        Self { mapper: None, schema, timestamp }
    }

    /// Documents that are not CloudTrail's happened when `timestamp` says.
    pub(crate) fn timed_by(self, timestamp: FieldId) -> Self {
        Self { timestamp, ..self }
    }

    /// The events of these documents.
    pub(crate) fn events(&mut self, documents: Documents) -> ReplayEvents<'_> {
        ReplayEvents { documents, replay: self }
    }

    fn event(&mut self, form: Form) -> Result<Recorded, String> {
        let document = match (form, &mut self.mapper) {
            (Form::Record(record), Some(mapper)) => {
                let event = mapper.event(record, None, None)?;
                return Ok(Recorded { event, document: None });
            }
            (Form::Record(record), None) => Json::Object(record),
            (Form::Document(json), _) => json,
        };
        let event = Event::from_json_timed(&self.schema, &document, self.timestamp);
        let event = event.map_err(|error| error.to_string())?;
        Ok(Recorded { event, document: Some(document) })
    }
}

impl ReplayEvents<'_> {
    /// What it is made of, as far as that was read.
    pub(crate) fn documents(&self) -> &Documents {
        &self.documents
    }
}

/// An error is about one invalid event, or about the stream; after the latter there are no more events.
impl Iterator for ReplayEvents<'_> {
    type Item = Result<Recorded>;

    fn next(&mut self) -> Option<Self::Item> {
        let form = match self.documents.next_record()? {
            Ok(form) => form,
            Err(error) => return Some(Err(error)),
        };
        Some(self.replay.event(form).map_err(|reason| self.documents.fault(reason)))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn both_kinds_of_events_come_out_of_one_stream() {
        let text = r#"{"@timestamp":"2026-01-01T00:00:00Z","event":{"action":"exec"},"message":"{\"eventVersion\":1}"}
            {"Records":[{"eventVersion":"1.08","eventTime":"2026-01-01T00:00:01Z","eventName":"RunInstances"}]}
            {"no":"time"}
            [{"@timestamp":"2026-01-01T00:00:02Z","event.action":"exit"}] {"#;
        let schema = Arc::new(Schema::new());
        let mut replay = Replay::new(schema, Geo::default());
        let read: Vec<_> = replay
            .events(Documents::new(Cursor::new(text), "a.json").unwrap())
            .map(|event| match event {
                Ok(recorded) => recorded.event.text(field!("event.action")).unwrap().to_owned(),
                Err(error) => error.to_string(),
            })
            .collect();
        assert_eq!(read[..2], ["exec", "RunInstances"]);
        assert!(read[2].starts_with("a.json:3: `@timestamp` is missing"), "{}", read[2]);
        assert_eq!(read[3], "exit");
        assert!(read[4].starts_with("a.json: it ends in the middle of a record"), "{}", read[4]);
        assert_eq!(read.len(), 5);
    }
}
