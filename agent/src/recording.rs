//! Recordings: the events of a host in the order in which its engine evaluated them, for evaluation elsewhere.
//!
//! ```text
//! head │ events │ events │ … │ events │ missed │ events │ … │ end
//! ```
//!
//! A recording is a Zstandard file with one ECS document per line, so that `zstd -d` and every reader of lines can read
//! it. *Events* are frames of whole lines. Each has its own checksum and is independent of the others, so that what was
//! written before a kill can be read. The rest are skippable frames with a JSON object: what is recorded and by which
//! program (*head*), how many events were missed at this point (*missed*), and the end of the recording (*end*).

mod reader;
mod writer;

use std::io;

use lapwing_engine::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub(crate) use self::reader::{Begun, RecordingNotes, begin};
pub(crate) use self::writer::{Recorder, write_line};

/// The version of this format; a reader refuses a newer one.
const VERSION: u32 = 1;
/// The magic number of our skippable frames, which other readers ignore; Zstandard reserves sixteen of them for
/// applications.
const MAGIC: [u8; 4] = 0x184d_2a5c_u32.to_le_bytes();
/// How the content of the head begins.
const HEAD: &[u8] = b"{\"lapwing_recording\":";
/// Most bytes of the content of such a frame.
const NOTE_BYTES_MAX: u32 = 64 * 1024;
/// What is recorded, and by which program.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct RecordingHeader {
    /// The version of the format.
    #[serde(rename = "lapwing_recording")]
    pub(crate) format: u32,
    /// The version of the program that recorded.
    pub(crate) version: String,
    /// The host's name.
    pub(crate) host: String,
    /// The id of the host's boot.
    pub(crate) boot: String,
    /// The release of its kernel.
    pub(crate) kernel: String,
    /// Where the events come from: the running agent, or a sensor that was started to record.
    pub(crate) by: String,
    /// When the recording began, RFC 3339.
    pub(crate) began: String,
}

/// What is noted between events and at the end.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Note {
    /// This many events were not recorded, because they came too fast.
    Missed(u64),
    /// The recording is complete.
    End {
        /// How many events it holds.
        events: u64,
    },
}

/// Counts of what was written.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WrittenCounts {
    /// Events.
    pub(crate) events: u64,
    /// Events that were not recorded, because they came too fast.
    pub(crate) missed: u64,
    /// Bytes of the file.
    pub(crate) bytes: u64,
}

/// Why a recording cannot be read.
#[derive(Debug, Error)]
pub(crate) enum RecordingError {
    /// The stream cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The format is newer than this version.
    #[error(
        "it is a recording of format {0}, and this version reads up to {VERSION}: replay it with a newer lapwing"
    )]
    Version(u32),
    /// The head is not valid.
    #[error("it is a recording with a corrupt head: {0}")]
    RecordingHeader(serde_json::Error),
}

impl RecordingHeader {
    /// The head of a recording that begins now.
    pub(crate) fn new(host: String, boot: String, kernel: String, by: &str, began: Timestamp) -> Self {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Self { format: VERSION, version, host, boot, kernel, by: by.to_owned(), began: began.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use lapwing_engine::{Event, Fields, Schema};

    use super::writer::FRAME_BYTES;
    use super::*;

    fn head() -> RecordingHeader {
        RecordingHeader::new("host".into(), "boot".into(), "6.1".into(), "agent", Timestamp::from_nanos(0))
    }

    /// A recording of frames of these lines, and its length without the end.
    fn recording(frames: &[&[&str]]) -> (Vec<u8>, usize) {
        let mut recorder = Recorder::new(Vec::new(), &head()).unwrap();
        for frame in frames {
            frame.iter().for_each(|line| recorder.event(format!("{line}\n").as_bytes()).unwrap());
            recorder.flush().unwrap();
        }
        let length = recorder.out.len();
        (recorder.end().unwrap().0, length)
    }

    /// What is read of it, and the error at its end.
    fn read(bytes: &[u8]) -> (String, Option<io::Error>) {
        let Ok(Begun::Recording(_, mut recording, _)) = begin(bytes) else { panic!("no recording") };
        let mut text = Vec::new();
        let error = recording.read_to_end(&mut text).err();
        (String::from_utf8(text).unwrap(), error)
    }

    #[test]
    fn a_recording_returns_what_was_written() {
        let (bytes, _) = recording(&[&["a", "b"], &["c"], &[]]);
        let (text, error) = read(&bytes);
        assert_eq!((text.as_str(), error.is_none()), ("a\nb\nc\n", true));
        let long = "x".repeat(3 * FRAME_BYTES);
        let (text, error) = read(&recording(&[&[&long, "y"]]).0);
        assert_eq!((text, error.is_none()), (format!("{long}\ny\n"), true));
        let Ok(Begun::Recording(head, ..)) = begin(&bytes[..]) else { panic!("no recording") };
        assert_eq!((head.host.as_str(), head.by.as_str()), ("host", "agent"));
    }

    #[test]
    fn a_replayed_event_keeps_both_of_its_times() {
        let (schema, time) = (Schema::new(), Timestamp::from_nanos);
        for (wall, monotonic) in [(5, 5), (5_000_000_007, 3)] {
            let event =
                Event::new(time(wall), Fields::new(), Vec::new()).with_correlation_time(time(monotonic));
            let mut line = Vec::new();
            write_line(&event, &schema, &mut line);
            let again = Event::from_json(&schema, &serde_json::from_slice(&line).unwrap()).unwrap();
            assert_eq!((again.time(), again.timestamp()), (time(monotonic), time(wall)));
        }
    }

    #[test]
    fn missed_events_are_counted_in_the_recording() {
        let mut recorder = Recorder::new(Vec::new(), &head()).unwrap();
        recorder.event(b"a\n").unwrap();
        recorder.missed(3).unwrap();
        recorder.missed(4).unwrap();
        let (bytes, written) = recorder.end().unwrap();
        assert_eq!((written.events, written.missed, written.bytes), (1, 7, bytes.len() as u64));
        let Ok(Begun::Recording(_, mut recording, notes_read)) = begin(&bytes[..]) else {
            panic!("no recording")
        };
        io::copy(&mut recording, &mut io::sink()).unwrap();
        assert_eq!(notes_read.lock().unwrap().missed, 7);
    }

    /// Wherever it is cut, the whole frames before are read, and the missing end is reported.
    #[test]
    fn a_truncated_recording_is_reported_and_read_up_to_the_cut() {
        let (bytes, end) = recording(&[&["first"], &["second"]]);
        let start = recording(&[]).1;
        for length in start..bytes.len() {
            let (text, error) = read(&bytes[..length]);
            assert!("first\nsecond\n".starts_with(&text), "{text}");
            let error = error.expect("it is cut").to_string();
            assert!(error.starts_with("the recording is truncated"), "{length}: {error}");
            assert!(length < end || text == "first\nsecond\n", "{text}");
        }
        for length in 0..start {
            let begun = begin(&bytes[..length]);
            assert!(!matches!(begun, Ok(Begun::Recording(..))), "{length}");
        }
    }

    #[test]
    fn corrupt_bytes_are_reported_and_never_read_as_events() {
        let (bytes, _) = recording(&[&["first event"], &["second event"]]);
        let (start, wanted) = (recording(&[]).1, b"first event\nsecond event\n");
        for place in start..bytes.len() {
            for bit in 0..8 {
                let mut broken = bytes.clone();
                broken[place] ^= 1 << bit;
                let Ok(Begun::Recording(_, mut recording, _)) = begin(&broken[..]) else { panic!("a head") };
                let mut text = Vec::new();
                // A changed count in the end note may go unnoticed; an event that was not recorded may not.
                let read = (&mut recording).take(1 << 20).read_to_end(&mut text);
                assert!(read.is_err() || text == wanted, "{place} {bit}: {text:?}");
                assert!(wanted.starts_with(&text), "{place} {bit}: {text:?}");
            }
        }
    }

    #[test]
    fn other_versions_and_other_files_are_distinguished() {
        let note = |content: &str| {
            let length = u32::try_from(content.len()).unwrap();
            [&MAGIC[..], &length.to_le_bytes(), content.as_bytes()].concat()
        };
        for (bytes, wanted) in [
            (
                note(r#"{"lapwing_recording":2,"other":"things"}"#),
                "a recording of format 2, and this version reads up to 1",
            ),
            (note(r#"{"lapwing_recording":1}"#), "a corrupt head: missing field"),
            (note(r#"{"lapwing_recording":x}"#), "a corrupt head"),
            (note(r#"{"lapwing_recording":1"#), "a corrupt head: EOF"),
        ] {
            let error = begin(&bytes[..]).err().expect(wanted).to_string();
            assert!(error.contains(wanted), "{error}");
        }
        let huge = [&MAGIC[..], &u32::MAX.to_le_bytes(), HEAD, &b"1".repeat(1 << 20)].concat();
        assert!(begin(&huge[..]).is_err());
        for other in [&b""[..], b"{}", b"[1]", &MAGIC, &note("{}")] {
            let Ok(Begun::Other(mut stream)) = begin(other) else { panic!("{other:?}") };
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes, other);
        }
    }

    /// A frame with a large window is rejected before memory is allocated for it.
    #[test]
    fn memory_is_bounded() {
        let (start, _) = recording(&[]);
        let start = &start[..recording(&[]).1];
        // A frame header: magic, no content size, a window of 2^(10 + 20) bytes, and an empty last block.
        let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 20 << 3, 0x01, 0x00, 0x00];
        let (_, error) = read(&[start, &frame].concat());
        assert!(error.unwrap().to_string().contains("corrupt from here on"));
        // A note with a length above the limit.
        let (_, error) = read(&[start, &MAGIC, &u32::MAX.to_le_bytes(), b"{}"].concat());
        assert!(error.is_some());
    }
}
