//! CloudTrail's records from a file or object in any of their forms: a trail's files (gzip or not), one record a line,
//! answers of `LookupEvents`, EventBridge's and CloudWatch Logs' wrappers. Other content is separated here, so that the
//! mapping to ECS gets records only.

use std::io::{self, Read};

use serde_json::{Map, Value as Json};
use thiserror::Error;

use crate::frames::{FrameError, Frames, RECORD_BYTES_MAX};
use crate::inflate::Inflated;

/// Most that compressed data may inflate to, in bytes: trails deliver files of up to about 50 MB, and larger content is
/// made to exhaust the reader.
pub(crate) const INFLATED_BYTES_MAX: u64 = 2 << 30;

/// A CloudTrail record as AWS writes it.
pub(crate) type CloudTrailRecord = Map<String, Json>;

/// What was found in the place of a record.
#[derive(Debug)]
pub(crate) enum ParsedRecord {
    /// A record.
    Record(CloudTrailRecord),
    /// A digest: CloudTrail's signature over other files, which is no activity.
    Digest,
    /// An object that is no record of CloudTrail's.
    Other(Json),
    /// Content that cannot be a record, and why.
    Refused(String),
}

/// What is wrong with an object that is not CloudTrail's.
pub(crate) const NO_RECORD: &str =
    "an object is not a CloudTrail record, which has eventTime and eventVersion";

/// Why a stream cannot be read further.
#[derive(Debug, Error)]
pub(crate) enum ReadError {
    /// It ends too early: it is still being written, or it was truncated.
    #[error("{0}")]
    Truncated(String),
    /// It is corrupt, and more data will not repair it.
    #[error("{0}")]
    Broken(String),
    /// The device or network failed.
    #[error(transparent)]
    Io(io::Error),
}

/// The records of one stream.
pub(crate) struct Records {
    frames: Frames<Box<dyn Read + Send>>,
    count: u64,
    /// How many records are skipped before the first is returned.
    skip: u64,
    compressed: bool,
    /// Where the last record was.
    last: RecordSpan,
}

/// A place in the inflated stream.
#[derive(Clone, Copy, Default)]
struct RecordSpan {
    at: u64,
    line: u64,
    length: usize,
}

impl Records {
    /// The records of `reader`, inflated if it is compressed, but for the first `skip`.
    ///
    /// # Errors
    /// Those of the reader.
    pub(crate) fn new(reader: impl Read + Send + 'static, skip: u64) -> io::Result<Self> {
        let Inflated { reader, compressed } = Inflated::new(reader, INFLATED_BYTES_MAX)?;
        Ok(Self { frames: Frames::new(reader, 0), count: 0, skip, compressed, last: RecordSpan::default() })
    }

    /// The records of a user's own recording: it may inflate to any length, and a broken line loses only that line.
    ///
    /// # Errors
    /// Those of the reader.
    pub(crate) fn recorded(reader: impl Read + Send + 'static) -> io::Result<Self> {
        let Inflated { reader, compressed } = Inflated::new(reader, u64::MAX)?;
        let frames = Frames::line_by_line(reader);
        Ok(Self { frames, count: 0, skip: 0, compressed, last: RecordSpan::default() })
    }

    /// The records of plain text, where a broken line loses only that line.
    pub(crate) fn of_lines(reader: impl Read + Send + 'static) -> Self {
        let frames = Frames::line_by_line(Box::new(reader) as Box<dyn Read + Send>);
        Self { frames, count: 0, skip: 0, compressed: false, last: RecordSpan::default() }
    }

    /// The records of plain text that begins with byte `at` of its stream, behind `count` records.
    pub(crate) fn resumed(reader: impl Read + Send + 'static, at: u64, count: u64) -> Self {
        Self {
            frames: Frames::new(Box::new(reader), at),
            count,
            skip: 0,
            compressed: false,
            last: RecordSpan { at, ..RecordSpan::default() },
        }
    }

    /// How many places of records were passed, with or without a record.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Where the last record began in the inflated stream, in bytes.
    pub(crate) fn at(&self) -> u64 {
        self.last.at
    }

    /// In which line of the inflated stream the last record began, the first being 1.
    pub(crate) fn line(&self) -> u64 {
        self.last.line
    }

    /// How long the last record was, in bytes.
    pub(crate) fn length(&self) -> usize {
        self.last.length
    }

    /// From which byte of the file a later reader can go on, if from any.
    pub(crate) fn offset(&self) -> Option<u64> {
        self.frames.offset().filter(|_| !self.compressed)
    }

    /// The content in the next place of a record; `None` at a regular end.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub(crate) fn next(&mut self) -> Result<Option<ParsedRecord>, ReadError> {
        while self.count < self.skip {
            match self.frames.next() {
                Ok(Some(_)) => self.count += 1,
                Ok(None) => return Ok(None),
                Err(error) => return Err(read_error(error, self.frames.position())),
            }
        }
        let at = self.frames.position();
        let frame = match self.frames.next() {
            Ok(Some(frame)) => frame,
            Ok(None) => return Ok(None),
            Err(error) => return Err(read_error(error, at)),
        };
        self.count += 1;
        let length = frame.bytes.map_or(RECORD_BYTES_MAX, <[u8]>::len);
        self.last = RecordSpan { at: frame.at, line: frame.line, length };
        let is_json = |bytes| serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok();
        let found = match frame.bytes {
            Some(bytes) => read(bytes),
            None => Err(format!("a record is longer than {RECORD_BYTES_MAX} bytes")),
        };
        let broken = found.is_err() && frame.bytes.is_some_and(|bytes| !is_json(bytes));
        if broken {
            self.frames.is_broken(length);
        }
        Ok(Some(found.unwrap_or_else(ParsedRecord::Refused)))
    }
}

/// Converts a reader's error; `at` is its position in the inflated stream, in bytes.
fn read_error(error: FrameError, at: u64) -> ReadError {
    match error {
        FrameError::Truncated { .. } => ReadError::Truncated(error.to_string()),
        FrameError::Syntax { .. } => ReadError::Broken(error.to_string()),
        FrameError::Io(error) => match error.kind() {
            io::ErrorKind::UnexpectedEof => ReadError::Truncated(format!(
                "its compressed stream ends too early, behind byte {at} of what it holds"
            )),
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => ReadError::Broken(format!(
                "its compressed stream is broken behind byte {at} of what it holds: {error}"
            )),
            io::ErrorKind::FileTooLarge => ReadError::Broken(error.to_string()),
            _ => ReadError::Io(error),
        },
    }
}

fn read(bytes: &[u8]) -> Result<ParsedRecord, String> {
    match parse(bytes)? {
        Json::Object(object) if is_record(&object) => Ok(ParsedRecord::Record(object)),
        Json::Object(object) if object.contains_key("digestS3Object") => Ok(ParsedRecord::Digest),
        Json::Object(mut object) => match wrapped(&object).and_then(|name| object.swap_remove(name)) {
            Some(Json::Object(record)) => Ok(ParsedRecord::Record(record)),
            Some(Json::String(text)) => match parse(text.as_bytes())? {
                Json::Object(record) if is_record(&record) => Ok(ParsedRecord::Record(record)),
                _ => Err(NO_RECORD.to_owned()),
            },
            _ => Ok(ParsedRecord::Other(Json::Object(object))),
        },
        _ => Err("a record is not a JSON object".to_owned()),
    }
}

fn parse(bytes: &[u8]) -> Result<Json, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("a record is not JSON ({error})"))
}

fn is_record(object: &CloudTrailRecord) -> bool {
    object.contains_key("eventTime") && object.contains_key("eventVersion")
}

/// The member that holds the record, of a wrapper around one.
fn wrapped(object: &CloudTrailRecord) -> Option<&'static str> {
    if object.contains_key("@timestamp") {
        // An ECS document, whose message may be anything.
        return None;
    }
    // EventBridge's event, an element of LookupEvents' answer, a log event of CloudWatch Logs.
    ["detail", "CloudTrailEvent", "message"].into_iter().find(|name| match object.get(*name) {
        Some(Json::Object(record)) => is_record(record),
        Some(Json::String(text)) => text.starts_with('{') && text.contains("\"eventVersion\""),
        _ => false,
    })
}

/// The text at a path.
pub(crate) fn at<'a>(record: &'a CloudTrailRecord, path: &[&str]) -> Option<&'a str> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(record.get(*first)?, |json, name| json.get(*name))?.as_str()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;
    use crate::inflate::Limited;

    const RECORD: &str = r#"{"eventVersion":"1.08","eventTime":"2026-11-22T03:00:00Z","eventName":"X"}"#;

    fn read_all(bytes: Vec<u8>) -> String {
        let mut records = Records::new(io::Cursor::new(bytes), 0).unwrap();
        let mut found = Vec::new();
        loop {
            match records.next() {
                Ok(Some(ParsedRecord::Record(record))) => {
                    found.push(record["eventName"].as_str().unwrap().to_owned())
                }
                Ok(Some(ParsedRecord::Digest)) => found.push("digest".to_owned()),
                Ok(Some(ParsedRecord::Other(_))) => found.push(format!("other at {}", records.at())),
                Ok(Some(ParsedRecord::Refused(reason))) => {
                    found.push(format!("{reason} at {}", records.at()))
                }
                Ok(None) => return found.join("; "),
                Err(error) => {
                    found.push(format!("{error:?}"));
                    return found.join("; ");
                }
            }
        }
    }

    fn gzip(text: &str) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn every_form_is_read() {
        let quoted = serde_json::to_string(RECORD).unwrap();
        for (text, found) in [
            (format!(r#"{{"Records":[{RECORD},{RECORD}]}}"#), "X; X"),
            (format!("[{RECORD}]"), "X"),
            (format!("{RECORD}\n{RECORD}\n"), "X; X"),
            (
                format!(r#"{{"version":"0","detail-type":"AWS API Call via CloudTrail","detail":{RECORD}}}"#),
                "X",
            ),
            (format!(r#"{{"Events":[{{"EventId":"1","CloudTrailEvent":{quoted}}}]}}"#), "X"),
            (
                format!(r#"{{"messageType":"DATA_MESSAGE","logEvents":[{{"id":"1","message":{quoted}}}]}}"#),
                "X",
            ),
            (
                r#"{"awsAccountId":"1","digestS3Object":"AWSLogs/1/CloudTrail-Digest/x","logFiles":[{}]}"#
                    .into(),
                "digest",
            ),
            (r#"{"Records":[]}"#.into(), ""),
            (
                format!(r#"{{"Records":[7,{{"a":1}},{RECORD}]}}"#),
                "a record is not a JSON object at 12; other at 14; X",
            ),
            (
                format!(r#"[{{"a":tru}},{RECORD}]"#),
                "a record is not JSON (expected ident at line 1 column 9) at 1; X",
            ),
        ] {
            assert_eq!(read_all(text.clone().into()), found, "{text}");
            assert_eq!(read_all(gzip(&text)), found, "gzip of {text}");
        }
    }

    #[test]
    fn truncated_input_is_distinguished_from_corrupt_input() {
        let whole = gzip(&format!(r#"{{"Records":[{RECORD}]}}"#));
        let mut broken = whole.clone();
        let trailer = broken.len() - 6;
        broken[trailer] ^= 0xff;
        let cut = "its compressed stream ends too early, behind byte";
        for (bytes, found) in [
            (
                whole[..whole.len() - 1].to_vec(),
                format!("X; Truncated(\"{cut} {} of what it holds\")", RECORD.len() + 12),
            ),
            (whole[..3].to_vec(), format!("Truncated(\"{cut} 0 of what it holds\")")),
        ] {
            assert_eq!(read_all(bytes), found);
        }
        let found = read_all(broken);
        assert!(found.starts_with("X; Broken(\"its compressed stream is broken behind byte 86"), "{found}");
        let twice = [whole.clone(), whole].concat();
        assert_eq!(read_all(twice), "X; X", "members of gzip follow one another");
    }

    #[test]
    fn deep_nesting_is_refused_and_the_rest_read() {
        let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
        let found = read_all(format!("[{deep},{RECORD}]").into());
        assert!(found.starts_with("a record is not JSON (recursion limit exceeded"), "{found}");
        assert!(found.ends_with("; X"), "{found}");
    }

    #[test]
    fn a_bomb_is_stopped_at_its_limit() {
        let bomb = Limited::new(io::repeat(b' '), 1 << 20);
        let mut records = Records::resumed(bomb, 0, 0);
        assert!(
            matches!(records.next(), Err(ReadError::Broken(reason)) if reason.contains("inflates to more"))
        );
    }
}
