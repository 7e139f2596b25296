//! Recorded events, for `lapwing replay` and `lapwing search`: what `lapwing record` wrote, CloudTrail's records in any
//! of their forms, and ECS documents, one per line or in an array, compressed or not.

use std::fmt::Display;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Error, Result, anyhow};
use lapwing_engine::{Event, FieldId, Schema, field};
use serde_json::Value as Json;

use super::cloudtrail::{CloudTrailRecord, Geo, Mapper, ParsedRecord, Records};
use crate::recording::{self, Begun, RecordingHeader, RecordingNotes};

/// The documents of one stream, unchanged.
pub(crate) struct Documents {
    records: Records,
    name: String,
    over: bool,
    /// The head and notes of `lapwing record`, if it wrote the stream.
    recorded: Option<(Box<RecordingHeader>, Arc<Mutex<RecordingNotes>>)>,
}

/// Converts streams of documents to events, one stream after the other.
pub(crate) struct Replay {
    /// Maps CloudTrail's records to ECS; `None` if they are taken as documents.
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
    /// Its document, unless it was mapped from a CloudTrail record.
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

    /// The head of the recording; `None` if `lapwing record` did not write the stream.
    pub(crate) fn head(&self) -> Option<&RecordingHeader> {
        self.recorded.as_ref().map(|(head, _)| &**head)
    }

    /// How many events the recorder missed, as far as the stream was read.
    pub(crate) fn missed(&self) -> u64 {
        let notes =
            self.recorded.as_ref().map(|(_, notes)| notes.lock().unwrap_or_else(PoisonError::into_inner));
        notes.map_or(0, |notes| notes.missed)
    }

    /// Its name in errors.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The error of the last document, with its position.
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
                Ok(Some(ParsedRecord::Record(record))) => Some(Ok(Form::CloudTrailRecord(record))),
                Ok(Some(ParsedRecord::Other(json))) => Some(Ok(Form::Document(json))),
                Ok(Some(ParsedRecord::Digest)) => continue,
                Ok(Some(ParsedRecord::Refused(reason))) => Some(Err(self.fault(reason))),
                Ok(None) => None,
                Err(error) => {
                    self.over = true;
                    Some(Err(anyhow!("{}: {error}", self.name)))
                }
            };
        }
    }
}

/// What an event is built from.
enum Form {
    CloudTrailRecord(CloudTrailRecord),
    Document(Json),
}

/// An error is about one document that is not valid, or about a broken stream; after the latter there are no more.
impl Iterator for Documents {
    type Item = Result<Json>;

    fn next(&mut self) -> Option<Self::Item> {
        let form = self.next_record()?;
        Some(form.map(|form| match form {
            Form::CloudTrailRecord(record) => Json::Object(record),
            Form::Document(json) => json,
        }))
    }
}

impl Replay {
    /// `geo` enriches CloudTrail's events; ECS documents are taken unchanged.
    pub(crate) fn new(schema: Arc<Schema>, geo: Geo) -> Self {
        let mapper = Mapper::new(Arc::clone(&schema), geo, false);
        Self { mapper: Some(mapper), schema, timestamp: field!("@timestamp") }
    }

    /// All documents are taken unchanged, CloudTrail's too; `timestamp` is the field of their time.
    pub(crate) fn plain(schema: Arc<Schema>, timestamp: FieldId) -> Self {
        Self { mapper: None, schema, timestamp }
    }

    /// `timestamp` is the time field of documents that are not CloudTrail's.
    pub(crate) fn timed_by(self, timestamp: FieldId) -> Self {
        Self { timestamp, ..self }
    }

    /// The events of these documents.
    pub(crate) fn events(&mut self, documents: Documents) -> ReplayEvents<'_> {
        ReplayEvents { documents, replay: self }
    }

    fn event(&mut self, form: Form) -> Result<Recorded, String> {
        let document = match (form, &mut self.mapper) {
            (Form::CloudTrailRecord(record), Some(mapper)) => {
                let event = mapper.event(record, None, None)?;
                return Ok(Recorded { event, document: None });
            }
            (Form::CloudTrailRecord(record), None) => Json::Object(record),
            (Form::Document(json), _) => json,
        };
        let event = Event::from_json_timed(&self.schema, &document, self.timestamp);
        let event = event.map_err(|error| error.to_string())?;
        Ok(Recorded { event, document: Some(document) })
    }
}

impl ReplayEvents<'_> {
    /// Its documents, as far as they were read.
    pub(crate) fn documents(&self) -> &Documents {
        &self.documents
    }
}

/// An error is about one document that is not an event, or about a broken stream; after the latter there are no more
/// events.
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
    fn one_stream_may_have_both_kinds_of_events() {
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
