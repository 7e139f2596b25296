//! CloudTrail: AWS's log of API calls, read from folders and from S3, as ECS events.
//!
//! A record passes `frames` (where it begins and ends) → `records` (what it is) → `seen` (whether it is new) → `ecs`
//! (its event). Files come from `folder`, objects from `queue`. All of it runs on the lane's thread but for what waits
//! on AWS: that runs on the runtime, and hands objects over through one bounded inbox.

mod actions;
mod aws;
mod aws_host;
pub(crate) mod config;
mod credentials;
mod ecs;
mod entities;
mod folder;
mod geo;
mod identity;
mod inbox;
mod kinds;
mod notification;
mod progress;
mod queue;
mod queues;
mod records;
mod s3;
mod seen;
mod sqs_message;
pub(crate) mod status;
#[cfg(test)]
mod tests;
mod text;
mod tree;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::time::{Duration, Instant};

use anyhow::Result;
use lapwing_engine::{Event, Fields, Schema, Timestamp};

use self::config::Config;
pub(super) use self::ecs::Mapper;
use self::folder::{LogFolder, Reading};
pub(crate) use self::geo::Geo;
pub(crate) use self::inbox::Control;
use self::inbox::{FetchedObject, Message, Receipt};
pub(crate) use self::kinds::event_kinds;
use self::queues::Queues;
pub(super) use self::records::{CloudTrailRecord, ParsedRecord, Records};
use self::records::{NO_RECORD, ReadError};
use self::seen::SeenIds;

use self::status::SourceStatus;
use super::{Batch, Source};
use crate::clock;
use crate::store::{Change, Checkpoint};

/// Most events of a batch.
const BATCH_EVENTS_MAX: usize = 256;
/// About how many bytes of records a batch holds before it is handed over.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// The source.
pub(crate) struct CloudTrail {
    mapper: Mapper,
    seen: SeenIds,
    folder: Option<LogFolder>,
    queues: Queues,
    inbox: Receiver<Message>,
    control: Control,
    deliveries: VecDeque<Box<FetchedObject>>,
    reading: Option<Document>,
    folders_turn: bool,
    stopping: bool,
    status: Arc<SourceStatus>,
}

/// What is being read.
struct Document {
    opened: Opened,
    /// How many of its records were rejected, and the reason of the first.
    refused: u64,
    refusal: Option<String>,
}

enum Opened {
    File(Reading),
    Object { records: Records, origin: Arc<Fields>, name: String, receipt: Receipt },
}

/// A batch that is being built.
#[derive(Default)]
struct Draft {
    events: Vec<Event>,
    changes: Vec<Change>,
    receipts: Vec<Receipt>,
    bytes: usize,
}

impl Draft {
    fn is_full(&self) -> bool {
        self.events.len() >= BATCH_EVENTS_MAX || self.bytes >= BATCH_BYTES_MAX
    }

    fn is_empty(&self) -> bool {
        self.events.is_empty() && self.changes.is_empty() && self.receipts.is_empty()
    }
}

impl CloudTrail {
    /// Opens the source. `rows` gives the store's rows of a scope, as key and value; `directory` is the agent's own, for copies of databases and long objects. Queues run on `runtime`.
    ///
    /// # Errors
    /// The configuration is not valid.
    pub(crate) fn open(
        config: &Config,
        schema: Arc<Schema>,
        mut rows: impl FnMut(&str) -> Result<Vec<(String, Vec<u8>)>>,
        directory: &Path,
        runtime: &tokio::runtime::Handle,
    ) -> Result<Self> {
        anyhow::ensure!(config.problems().is_empty(), "{}", config.problems().join("; "));
        let status = Arc::new(SourceStatus::default());
        let geo = Geo::open(config.geoip.as_deref(), config.asn.as_deref(), directory);
        let files = rows(progress::SCOPE)?;
        let folder = (!config.folders.is_empty()).then(|| LogFolder::new(config, files, Arc::clone(&status)));
        let (sender, inbox) = channel();
        let control = Control(sender);
        let queues = Queues::start(&config.queue, &control, directory, &status, runtime);
        Ok(Self {
            mapper: Mapper::new(schema, geo, config.preserve_original_event),
            seen: SeenIds::load(rows(seen::SCOPE)?),
            folder,
            queues,
            inbox,
            control,
            deliveries: VecDeque::new(),
            reading: None,
            folders_turn: true,
            stopping: false,
            status,
        })
    }

    /// The sender that stops or reloads the source.
    pub(crate) fn control(&self) -> Control {
        self.control.clone()
    }

    /// Why rules that need `source.geo.*` cannot run on these events, with a hint; `None` if they can.
    pub(crate) fn geoip_missing(&self) -> Option<String> {
        self.mapper.geo.missing()
    }

    /// Ends when every message of the queues is deleted or returned. Await it after the ledger has ended.
    pub(crate) fn queues_ended(&mut self) -> impl Future<Output = ()> + Send + 'static {
        self.queues.ended()
    }

    /// Takes what the inbox has, and waits until `until` if it is empty.
    fn receive(&mut self, until: Option<Instant>) {
        let first = match until {
            None => self.inbox.try_recv(),
            Some(until) => {
                let wait = until.saturating_duration_since(Instant::now());
                self.inbox.recv_timeout(wait).map_err(|error| match error {
                    RecvTimeoutError::Timeout => TryRecvError::Empty,
                    RecvTimeoutError::Disconnected => TryRecvError::Disconnected,
                })
            }
        };
        let mut next = first;
        while let Ok(message) = next {
            match message {
                Message::FetchedObject(delivery) => self.deliveries.push_back(delivery),
                Message::Reload => self.mapper.geo.reload(),
                Message::Stop => {
                    self.stopping = true;
                    self.queues.stop();
                }
            }
            next = self.inbox.try_recv();
        }
    }

    /// Opens what is read next: files and objects alternate, so that neither waits for all of the other.
    fn open_next(&mut self, draft: &mut Draft) -> bool {
        self.folders_turn = !self.folders_turn || self.deliveries.is_empty();
        let opened = match self.folders_turn {
            true => self.open_file(draft).or_else(|| self.open_object()),
            false => self.open_object().or_else(|| self.open_file(draft)),
        };
        self.reading = opened.map(|opened| Document { opened, refused: 0, refusal: None });
        self.reading.is_some()
    }

    fn open_file(&mut self, draft: &mut Draft) -> Option<Opened> {
        self.folder.as_mut()?.open(&mut draft.changes).map(Opened::File)
    }

    fn open_object(&mut self) -> Option<Opened> {
        let FetchedObject { body, origin, name, receipt } = *self.deliveries.pop_front()?;
        match Records::new(body, 0) {
            Ok(records) => Some(Opened::Object { records, origin, name, receipt }),
            Err(error) => {
                self.status.alarm(&name, &format!("its copy on disk cannot be read: {error}"));
                None
            }
        }
    }

    /// Reads records into the draft until it is full, the time is over or the document is.
    fn read(&mut self, mut document: Document, draft: &mut Draft, until: Instant) {
        let created = clock::now();
        loop {
            match self.read_record(&mut document, draft, created) {
                Ok(true) => {}
                Ok(false) => return self.finish(document, Ok(()), draft),
                Err(error) => return self.finish(document, Err(error), draft),
            }
            if draft.is_full() || Instant::now() >= until {
                break;
            }
        }
        if let (Opened::File(reading), Some(folder)) = (&document.opened, &mut self.folder) {
            folder.pause(reading, &mut draft.changes);
        }
        self.reading = Some(document);
    }

    /// Reads one record; false at the document's end.
    fn read_record(
        &mut self,
        document: &mut Document,
        draft: &mut Draft,
        created: Timestamp,
    ) -> Result<bool, ReadError> {
        let (records, origin) = document.opened.parts();
        let record = match records.next()? {
            None => return Ok(false),
            Some(ParsedRecord::Record(record)) => Ok(record),
            Some(ParsedRecord::Digest) => {
                self.status.objects_ignored.one();
                return Ok(true);
            }
            Some(ParsedRecord::Other(_)) => Err(NO_RECORD.to_owned()),
            Some(ParsedRecord::Refused(reason)) => Err(reason),
        };
        let id = record.as_ref().ok().and_then(|record| record.get("eventID")?.as_str());
        if id.is_some_and(|id| !self.seen.insert(id)) {
            self.status.duplicates.one();
            return Ok(true);
        }
        draft.bytes += records.length();
        let at = records.at();
        match record.and_then(|record| self.mapper.event(record, Some(origin), Some(created))) {
            Ok(event) => {
                self.status.event(event.time());
                draft.events.push(event);
            }
            Err(reason) => {
                self.status.records_refused.one();
                document.refused += 1;
                document.refusal.get_or_insert_with(|| format!("{reason} at byte {at}"));
            }
        }
        Ok(true)
    }

    fn finish(&mut self, document: Document, end: Result<(), ReadError>, draft: &mut Draft) {
        let refused = document.refused_reason();
        match document.opened {
            Opened::File(reading) => {
                if let Some(folder) = &mut self.folder {
                    folder.finish(&reading, end, refused, &mut draft.changes);
                }
            }
            Opened::Object { name, receipt, .. } => match end.map_err(|error| error.to_string()) {
                Ok(()) => {
                    match refused {
                        Some(reason) => self.status.quarantined(&name, &reason),
                        None => self.status.files_read.one(),
                    }
                    draft.receipts.push(receipt);
                }
                // The receipt is dropped, so that the message stays in the queue, whose redrive policy decides.
                Err(reason) => self.status.quarantined(&name, &reason),
            },
        }
    }
}

impl Source for CloudTrail {
    fn next(&mut self, wait: Duration) -> Result<Option<Batch>> {
        let until = Instant::now() + wait;
        let mut draft = Draft::default();
        loop {
            self.receive(None);
            if self.stopping {
                break;
            }
            if let Some(folder) = &mut self.folder {
                folder.look();
            }
            match self.reading.take() {
                Some(document) => self.read(document, &mut draft, until),
                None if self.open_next(&mut draft) => {}
                None if Instant::now() >= until => break,
                None if self.folder.as_ref().is_some_and(LogFolder::busy) => {}
                None if !draft.is_empty() => break,
                None => {
                    self.receive(Some(self.folder.as_ref().map_or(until, |folder| folder.due()).min(until)))
                }
            }
            if draft.is_full() || (!draft.is_empty() && Instant::now() >= until) {
                break;
            }
        }
        if self.stopping && draft.is_empty() {
            return Ok(None);
        }
        Ok(Some(draft.into_batch(&mut self.seen)))
    }

    fn status(&self) -> serde_json::Value {
        serde_json::json!(self.status.report(clock::now()))
    }
}

impl Draft {
    fn into_batch(mut self, seen: &mut SeenIds) -> Batch {
        self.changes.extend(seen.changes());
        // Files overlap in time, and records in a file have no order.
        self.events.sort_by_key(Event::time);
        let receipts = self.receipts;
        let done: Option<Box<dyn FnOnce() + Send>> = match receipts.is_empty() {
            true => None,
            false => Some(Box::new(move || receipts.into_iter().for_each(Receipt::done))),
        };
        let checkpoint = Checkpoint { changes: self.changes, done };
        Batch { events: self.events, checkpoint, ..Batch::default() }
    }
}

impl Opened {
    fn parts(&mut self) -> (&mut Records, &Arc<Fields>) {
        match self {
            Self::File(reading) => (&mut reading.records, &reading.origin),
            Self::Object { records, origin, .. } => (records, origin),
        }
    }
}

impl Document {
    fn refused_reason(&self) -> Option<String> {
        let refusal = self.refusal.as_ref()?;
        Some(match self.refused {
            1 => format!("one of its records is refused: {refusal}"),
            many => format!("{many} of its records are refused, the first: {refusal}"),
        })
    }
}
