//! Writes a recording, frame by frame.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use lapwing_engine::{Event, Schema};
use serde::Serialize;
use zstd::bulk::Compressor;
use zstd::zstd_safe::CParameter;

use super::{Head, MAGIC, Note, Written};

/// How many bytes of lines are gathered for one frame; a longer line is a frame by itself.
pub(super) const FRAME_BYTES: usize = 1 << 20;
/// How long lines are gathered at most: a kill loses no more.
const FRAME_AGE_MAX: Duration = Duration::from_secs(1);
/// How hard it is compressed: as hard as is still faster than events can be made.
const LEVEL: i32 = 3;

/// Writes a recording.
pub(crate) struct Recorder<W> {
    pub(super) out: W,
    compressor: Compressor<'static>,
    lines: Vec<u8>,
    /// When the first of them came.
    since: Instant,
    written: Written,
}

impl<W: Write> Recorder<W> {
    /// Begins a recording.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn new(out: W, head: &Head) -> io::Result<Self> {
        let mut compressor = Compressor::new(LEVEL)?;
        compressor.set_parameter(CParameter::ChecksumFlag(true))?;
        let (lines, since) = (Vec::with_capacity(FRAME_BYTES), Instant::now());
        let mut recorder = Self { out, compressor, lines, since, written: Written::default() };
        recorder.note(head)?;
        Ok(recorder)
    }

    /// Records an event: one line with its end.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn event(&mut self, line: &[u8]) -> io::Result<()> {
        if self.lines.is_empty() {
            self.since = Instant::now();
        }
        self.lines.extend_from_slice(line);
        self.written.events += 1;
        if self.lines.len() >= FRAME_BYTES { self.flush() } else { Ok(()) }
    }

    /// Records that events were missed here.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn missed(&mut self, events: u64) -> io::Result<()> {
        self.flush()?;
        self.written.missed += events;
        self.note(&Note::Missed(events))
    }

    /// Writes what has waited long enough.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn tick(&mut self) -> io::Result<()> {
        if self.since.elapsed() >= FRAME_AGE_MAX { self.flush() } else { Ok(()) }
    }

    /// What was written so far.
    pub(crate) fn written(&self) -> Written {
        self.written
    }

    /// Ends the recording, and returns where it was written to.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn end(mut self) -> io::Result<(W, Written)> {
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
