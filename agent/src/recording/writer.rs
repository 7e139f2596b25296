//! Writes a recording, frame by frame.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use lapwing_engine::{Event, Schema};
use serde::Serialize;
use zstd::bulk::Compressor;
use zstd::zstd_safe::CParameter;

use super::{MAGIC, Note, RecordingHeader, WrittenCounts};

/// How many bytes of lines are buffered for one frame. A longer line is its own frame.
pub(super) const FRAME_BYTES: usize = 1 << 20;
/// How long lines are buffered at most: a kill loses no more.
const FRAME_AGE_MAX: Duration = Duration::from_secs(1);
/// The compression level: the highest at which compression is faster than the production of events.
const LEVEL: i32 = 3;

/// Writes a recording.
pub(crate) struct Recorder<W> {
    pub(super) out: W,
    compressor: Compressor<'static>,
    lines: Vec<u8>,
    /// When the first line arrived.
    since: Instant,
    written: WrittenCounts,
}

impl<W: Write> Recorder<W> {
    /// Begins a recording.
    ///
    /// # Errors
    /// The output cannot be written.
    pub(crate) fn new(out: W, head: &RecordingHeader) -> io::Result<Self> {
        let mut compressor = Compressor::new(LEVEL)?;
        compressor.set_parameter(CParameter::ChecksumFlag(true))?;
        let (lines, since) = (Vec::with_capacity(FRAME_BYTES), Instant::now());
        let mut recorder = Self { out, compressor, lines, since, written: WrittenCounts::default() };
        recorder.note(head)?;
        Ok(recorder)
    }

    /// Records an event: one line with its line end.
    ///
    /// # Errors
    /// The output cannot be written.
    pub(crate) fn event(&mut self, line: &[u8]) -> io::Result<()> {
        if self.lines.is_empty() {
            self.since = Instant::now();
        }
        self.lines.extend_from_slice(line);
        self.written.events += 1;
        if self.lines.len() >= FRAME_BYTES { self.flush() } else { Ok(()) }
    }

    /// Records that events were missed at this point.
    ///
    /// # Errors
    /// The output cannot be written.
    pub(crate) fn missed(&mut self, events: u64) -> io::Result<()> {
        self.flush()?;
        self.written.missed += events;
        self.note(&Note::Missed(events))
    }

    /// Writes buffered lines that are old enough.
    ///
    /// # Errors
    /// The output cannot be written.
    pub(crate) fn tick(&mut self) -> io::Result<()> {
        if self.since.elapsed() >= FRAME_AGE_MAX { self.flush() } else { Ok(()) }
    }

    /// The counts so far.
    pub(crate) fn written(&self) -> WrittenCounts {
        self.written
    }

    /// Ends the recording and returns the output.
    ///
    /// # Errors
    /// The output cannot be written.
    pub(crate) fn end(mut self) -> io::Result<(W, WrittenCounts)> {
        self.flush()?;
        self.note(&Note::End { events: self.written.events })?;
        self.out.flush()?;
        Ok((self.out, self.written))
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let frame = self.compressor.compress(&self.lines)?;
        self.lines.clear();
        self.write(&frame)
    }

    fn note(&mut self, note: &impl Serialize) -> io::Result<()> {
        let content = serde_json::to_vec(note)?;
        let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
        self.write(&[&MAGIC[..], &length.to_le_bytes(), &content].concat())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written.bytes += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

/// Writes an event as a line.
pub(crate) fn write_line(event: &Event, schema: &Schema, line: &mut Vec<u8>) {
    event.write_json(schema, line);
    line.push(b'\n');
}
