//! Recorded events: ECS documents and CloudTrail files, with their own times.

use std::io::{BufRead, BufReader, Read};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use lapwing_engine::{Event, Schema};
use serde_json::Value as Json;
use std::sync::Arc;

use super::{Batch, Source};

/// Events that are handed over together.
const BATCH_EVENTS: usize = 1024;
/// Longest line that is read, in bytes.
const LINE_BYTES_MAX: u64 = 16 << 20;

/// The events of one recording, line by line or as one JSON array.
pub(crate) struct Replay {
    name: String,
    schema: Arc<Schema>,
    lines: Box<dyn BufRead + Send>,
    line: u64,
    /// Events read ahead: of an array, or of the line that told the form.
    ahead: std::collections::VecDeque<Json>,
    done: bool,
}

impl Replay {
    /// A recording that is read from `reader`; `name` is what messages call it.
    ///
    /// # Errors
    /// The recording cannot be read, or is neither of the forms.
    pub(crate) fn new(name: &str, reader: impl Read + Send + 'static, schema: Arc<Schema>) -> Result<Self> {
        let mut lines = BufReader::new(reader);
        let mut replay = Self {
            name: name.to_owned(),
            schema,
            line: 0,
            ahead: std::collections::VecDeque::new(),
            done: false,
            lines: Box::new(std::io::empty()),
        };
        let start = lines.fill_buf().with_context(|| format!("{name} cannot be read"))?;
        if start.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
            let array: Vec<Json> = serde_json::from_reader(lines)
                .with_context(|| format!("{name} is no JSON array of events"))?;
            replay.ahead = array.into();
            replay.done = true;
        } else {
            replay.lines = Box::new(lines);
        }
        Ok(replay)
    }

    fn next_document(&mut self) -> Result<Option<Json>> {
        if let Some(document) = self.ahead.pop_front() {
            self.line += 1;
            return Ok(Some(document));
        }
        let mut text = String::new();
        while !self.done {
            text.clear();
            self.line += 1;
            let read = (&mut self.lines).take(LINE_BYTES_MAX).read_line(&mut text);
            let read =
                read.with_context(|| format!("{}:{}: the line cannot be read", self.name, self.line))?;
            if read as u64 == LINE_BYTES_MAX {
                bail!("{}:{}: the line is longer than {LINE_BYTES_MAX} bytes", self.name, self.line);
            }
            self.done = read == 0;
            if !text.trim().is_empty() {
                let document = serde_json::from_str(&text);
                return document.map(Some).with_context(|| format!("{}:{}: no JSON", self.name, self.line));
            }
        }
        Ok(None)
    }
}

impl Source for Replay {
    fn next(&mut self, _wait: Duration) -> Result<Option<Batch>> {
        let mut batch = Batch::default();
        while batch.events.len() < BATCH_EVENTS {
            let Some(document) = self.next_document()? else { break };
            let event = Event::from_json(&self.schema, &document)
                .with_context(|| format!("{}:{}: no event", self.name, self.line))?;
            batch.events.push(event);
        }
        Ok(if batch.events.is_empty() { None } else { Some(batch) })
    }
}
