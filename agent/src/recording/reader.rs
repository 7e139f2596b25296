//! Reads a recording, up to where it is truncated or corrupt.

use std::io::{self, BufReader, Cursor, Read};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;

use super::{HEAD, MAGIC, NOTE_BYTES_MAX, Note, RecordingError, RecordingHeader, VERSION};
use crate::inflate::Zstd;

/// Largest frame that is read, with room for a long line.
const FRAME_BYTES_MAX: usize = 16 << 20;

/// Reads a recording's events, as lines.
pub(crate) struct RecordingReader<R: Read> {
    zstd: Zstd<BufReader<R>>,
    notes_read: Arc<Mutex<RecordingNotes>>,
    /// The current frame, complete and verified.
    frame: Cursor<Vec<u8>>,
    is_over: bool,
}

/// The notes of a recording, as far as it was read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RecordingNotes {
    /// How many events the recorder missed.
    pub(crate) missed: u64,
    /// Whether the end was read.
    is_ended: bool,
}

/// A stream after its first bytes were read.
pub(crate) enum Begun<R: Read> {
    /// A recording: its head, its lines, and its notes.
    Recording(Box<RecordingHeader>, Box<RecordingReader<R>>, Arc<Mutex<RecordingNotes>>),
    /// Another stream, from its beginning.
    Other(io::Chain<Cursor<Vec<u8>>, R>),
}

/// Reads the beginning of a stream.
///
/// # Errors
/// The stream, or the head of the recording, cannot be read.
pub(crate) fn begin<R: Read>(mut reader: R) -> Result<Begun<R>, RecordingError> {
    let mut first = Vec::new();
    (&mut reader).take((MAGIC.len() + 4 + HEAD.len()) as u64).read_to_end(&mut first)?;
    let length = match first.strip_prefix(&MAGIC).and_then(<[u8]>::split_first_chunk) {
        Some((length, content)) if content == HEAD => u32::from_le_bytes(*length).min(NOTE_BYTES_MAX),
        _ => return Ok(Begun::Other(Cursor::new(first).chain(reader))),
    };
    let mut content = HEAD.to_vec();
    (&mut reader).take(u64::from(length).saturating_sub(HEAD.len() as u64)).read_to_end(&mut content)?;
    // The head of another version may have other members.
    let format = serde_json::from_slice(&content).map_err(RecordingError::RecordingHeader)?;
    let Format { lapwing_recording: format } = format;
    if format > VERSION {
        return Err(RecordingError::Version(format));
    }
    let head = serde_json::from_slice(&content).map_err(RecordingError::RecordingHeader)?;
    let notes_read = Arc::<Mutex<RecordingNotes>>::default();
    let notes = notes_read.clone();
    let zstd = Zstd::with_notes(
        BufReader::new(reader),
        MAGIC,
        NOTE_BYTES_MAX,
        FRAME_BYTES_MAX as u64,
        move |content| {
            let mut notes_read = notes.lock().unwrap_or_else(PoisonError::into_inner);
            match serde_json::from_slice(content)? {
                Note::Missed(events) => notes_read.missed = notes_read.missed.saturating_add(events),
                Note::End { .. } => notes_read.is_ended = true,
            }
            Ok(())
        },
    );
    let recording =
        RecordingReader { zstd, notes_read: notes_read.clone(), frame: Cursor::default(), is_over: false };
    Ok(Begun::Recording(Box::new(head), Box::new(recording), notes_read))
}

/// The only member that the heads of all versions have.
#[derive(Deserialize)]
struct Format {
    lapwing_recording: u32,
}

impl<R: Read> RecordingReader<R> {
    /// Reads the next frame. Returns false at the end.
    fn advance(&mut self) -> io::Result<bool> {
        self.frame.set_position(0);
        let is_there = self.zstd.frame(self.frame.get_mut(), FRAME_BYTES_MAX)?;
        let is_ended = self.notes_read.lock().unwrap_or_else(PoisonError::into_inner).is_ended;
        if is_there || is_ended { Ok(is_there) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

impl<R: Read> Read for RecordingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let length = self.frame.read(buffer)?;
            if length > 0 || buffer.is_empty() || self.is_over {
                return Ok(length);
            }
            let advanced = self.advance();
            self.is_over = !matches!(advanced, Ok(true));
            if let Err(error) = advanced {
                self.frame.get_mut().clear();
                // A kind that readers of other streams do not rephrase.
                return Err(io::Error::other(match error.kind() {
                    io::ErrorKind::UnexpectedEof => {
                        "the recording is truncated: its end is missing, and possibly its last events"
                            .to_owned()
                    }
                    _ => format!("the recording is corrupt from here on: {error}"),
                }));
            }
        }
    }
}
