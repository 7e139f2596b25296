//! Splits a stream of any length into JSON records, in bounded memory.
//!
//! A CloudTrail file is one object around an array of any size, so a JSON parser would hold the whole file. This module
//! looks only at quotes and brackets, returns the bytes of one record at a time, and leaves their validation to the
//! parser. It has no knowledge of what a record means.

use std::io::{self, Read};

use memchr::{memchr, memchr_iter, memchr2, memchr3};
use thiserror::Error;

/// Longest record that is held, in bytes; AWS promises at most 1 MiB. A longer one is skipped and reported.
pub(crate) const RECORD_BYTES_MAX: usize = 4 << 20;

/// Deepest nesting of arrays around records, as in an array of `{"Records": […]}`.
const LEVELS_MAX: usize = 4;

/// How many broken lines of a stream may be skipped one by one.
const RETRIES_MAX: u32 = 1000;

/// Size of a read, in bytes.
const READ_BYTES: usize = 64 << 10;

/// Members whose array contains the records: in files of a trail, responses of `LookupEvents`, deliveries of CloudWatch
/// Logs.
const ENVELOPES: &[&str] = &["\"Records\"", "\"Events\"", "\"logEvents\""];

/// One record: its position and its bytes.
pub(crate) struct Frame<'a> {
    /// Its offset in the inflated stream, in bytes.
    pub(crate) at: u64,
    /// The number of its first line, from 1.
    pub(crate) line: u64,
    /// The record, or `None` if it is longer than [`RECORD_BYTES_MAX`].
    pub(crate) bytes: Option<&'a [u8]>,
}

/// Why the stream cannot be read further.
#[derive(Debug, Error)]
pub(crate) enum FrameError {
    /// The stream ends within a record or before the array around the records is closed.
    #[error("it ends in the middle of a record at byte {at}")]
    Truncated {
        /// The offset of the unfinished record.
        at: u64,
    },
    /// A byte that cannot begin a record.
    #[error("it is not JSON at byte {at}")]
    Syntax {
        /// Its position.
        at: u64,
        /// Its value.
        found: u8,
    },
    /// The stream itself failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The records of a stream, one after the other.
pub(crate) struct Frames<R> {
    reader: R,
    buffer: Vec<u8>,
    /// Start and end of the unread part of the buffer.
    next: usize,
    filled: usize,
    /// How many bytes of the stream precede the buffer.
    passed: u64,
    /// The line of the buffer's byte `counted`.
    line: u64,
    counted: usize,
    levels: Vec<Level>,
    /// The end of the last record, and whether no record so far was in an array.
    settled: u64,
    flat: bool,
    /// Whether only a broken line is skipped, so that the next line is read.
    by_line: bool,
    /// How often this may still happen for a line that proves broken only after more of the stream was read.
    retries: u32,
}

#[derive(Clone, Copy, PartialEq)]
enum Level {
    /// An array at the top level or in another array.
    Array,
    /// The array of an envelope; the rest of the envelope follows it.
    Envelope,
}

impl<R: Read> Frames<R> {
    /// The records of `reader`, whose first byte is byte `at` of the stream.
    pub(crate) fn new(reader: R, at: u64) -> Self {
        Self {
            reader,
            buffer: Vec::new(),
            next: 0,
            filled: 0,
            passed: at,
            line: 1,
            counted: 0,
            levels: Vec::new(),
            settled: at,
            flat: true,
            by_line: false,
            retries: 0,
        }
    }

    /// The records of `reader`, with recovery from broken lines. If a record does not end in its first line, and is not
    /// JSON together with the next lines, the first line alone is returned as a record, so that the parser reports it.
    /// The search for the next record continues after it. If the error shows only at the end of a long record, this is
    /// done at most [`RETRIES_MAX`] times.
    pub(crate) fn line_by_line(reader: R) -> Self {
        Self { by_line: true, retries: RETRIES_MAX, ..Self::new(reader, 0) }
    }

    /// The byte after the last record, from which a later reader can continue. `None` before the first record, and if
    /// records are in an array.
    pub(crate) fn offset(&self) -> Option<u64> {
        Some(self.settled).filter(|settled| self.flat && *settled > 0)
    }

    /// The next record; `None` at a regular end.
    ///
    /// # Errors
    /// See [`FrameError`]. After an error other than of the reader there are no more records.
    pub(crate) fn next(&mut self) -> Result<Option<Frame<'_>>, FrameError> {
        loop {
            let Some(byte) = self.first_byte()? else {
                let at = self.position();
                return if self.levels.is_empty() { Ok(None) } else { Err(FrameError::Truncated { at }) };
            };
            let at = self.position();
            self.count_lines(self.next);
            let line = self.line;
            match byte {
                b'[' if self.levels.len() < LEVELS_MAX => {
                    self.next += 1;
                    self.flat = false;
                    self.levels.push(Level::Array);
                }
                b']' => match self.levels.pop() {
                    Some(Level::Array) => self.next += 1,
                    // The rest of the envelope is skipped like the rest of a record.
                    Some(Level::Envelope) => {
                        self.next += 1;
                        self.pass(at, Scan { depth: 1, ..Scan::default() })?;
                    }
                    None => return Err(FrameError::Syntax { at, found: byte }),
                },
                b'{' => match self.pass(at, Scan { strict: self.by_line, ..Scan::default() })? {
                    Passed::Entered => self.flat = false,
                    Passed::Record(length) => return Ok(Some(self.frame(at, line, length))),
                },
                _ if self.by_line && self.levels.is_empty() => {
                    let length = self.line(at)?;
                    return Ok(Some(self.frame(at, line, Some(length))));
                }
                b'"' | b'-' | b'0'..=b'9' | b'a'..=b'z' => {
                    let length = self.scalar(at)?;
                    return Ok(Some(self.frame(at, line, Some(length))));
                }
                _ => return Err(FrameError::Syntax { at, found: byte }),
            }
        }
    }

    /// The offset at which the search for the next record begins, in bytes.
    pub(crate) fn position(&self) -> u64 {
        self.passed + self.next as u64
    }

    fn frame(&mut self, at: u64, line: u64, length: Option<usize>) -> Frame<'_> {
        self.settled = self.position();
        Frame { at, line, bytes: length.map(|length| &self.buffer[self.next - length..self.next]) }
    }

    /// The first byte that is not a separator; it is not consumed.
    fn first_byte(&mut self) -> Result<Option<u8>, FrameError> {
        loop {
            while self.next < self.filled {
                match self.buffer[self.next] {
                    // White space, the comma of an array, the record separator of RFC 7464, a byte order mark.
                    b' ' | b'\t' | b'\r' | b'\n' | b',' | 0x1e | 0xef | 0xbb | 0xbf => self.next += 1,
                    byte => return Ok(Some(byte)),
                }
            }
            if !self.fill(self.next)? {
                return Ok(None);
            }
        }
    }

    /// Advances to the end of the object that `scan` is in, or into its array of records.
    fn pass(&mut self, at: u64, mut scan: Scan) -> Result<Passed, FrameError> {
        let mut start = self.next;
        let mut held = true;
        loop {
            let (length, stop) = scan.run(&self.buffer[self.next..self.filled]);
            self.next += length;
            match stop {
                Stop::Closed => return Ok(Passed::Record(held.then(|| self.next - start))),
                Stop::Array => {
                    let entered = held
                        && self.levels.len() < LEVELS_MAX
                        && ends_in_envelope(&self.buffer[start..self.next]);
                    self.next += 1;
                    if entered {
                        self.levels.push(Level::Envelope);
                        return Ok(Passed::Entered);
                    }
                    scan.depth += 1;
                    scan.before = b'[';
                }
                Stop::Broken => match self.first_line(start).filter(|_| held && self.levels.is_empty()) {
                    Some(length) => {
                        self.next = start + length;
                        return Ok(Passed::Record(Some(length)));
                    }
                    None => scan.strict = false,
                },
                Stop::More => {
                    if held && self.next - start > RECORD_BYTES_MAX {
                        if let Some(length) = self.give_up(start) {
                            return Ok(Passed::Record(Some(length)));
                        }
                        held = false;
                    }
                    let kept = if held { start } else { self.next };
                    if !self.fill(kept)? {
                        return match self.give_up(0).filter(|_| held) {
                            Some(length) => Ok(Passed::Record(Some(length))),
                            None => Err(FrameError::Truncated { at }),
                        };
                    }
                    start = 0;
                }
            }
        }
    }

    /// Reports that the last returned record, of this length, is not JSON. Returns true if the next record is then
    /// searched after its first line and not after all of it.
    pub(crate) fn is_broken(&mut self, length: usize) -> bool {
        self.levels.is_empty()
            && self.next.checked_sub(length).is_some_and(|start| self.give_up(start).is_some())
    }

    /// Goes back to the end of the line that begins at `start`, if more than that line was read. Returns the line's
    /// length.
    fn give_up(&mut self, start: usize) -> Option<usize> {
        let length = self.first_line(start).filter(|length| start + length < self.next)?;
        self.retries = self.retries.checked_sub(1)?;
        self.next = start + length;
        Some(length)
    }

    /// The length of the first line of the record that begins at `start` and has more lines.
    fn first_line(&self, start: usize) -> Option<usize> {
        let end = self.buffer.len().min(self.next + 1);
        memchr(b'\n', self.buffer.get(start..end)?)
    }

    /// Advances to the end of the line and returns its length.
    fn line(&mut self, at: u64) -> Result<usize, FrameError> {
        let mut start = self.next;
        loop {
            if let Some(length) = memchr(b'\n', &self.buffer[self.next..self.filled]) {
                self.next += length;
                return Ok(self.next - start);
            }
            self.next = self.filled;
            if self.next - start > RECORD_BYTES_MAX {
                return Err(FrameError::Syntax { at, found: self.buffer[start] });
            }
            if !self.fill(start)? {
                return Ok(self.next);
            }
            start = 0;
        }
    }

    /// Advances past a string, a number or a word and returns its length.
    fn scalar(&mut self, at: u64) -> Result<usize, FrameError> {
        let mut start = self.next;
        let quoted = self.buffer[start] == b'"';
        let mut escaped = false;
        self.next += 1;
        loop {
            while self.next < self.filled {
                let byte = self.buffer[self.next];
                match byte {
                    b'"' if quoted && !escaped => {
                        self.next += 1;
                        return Ok(self.next - start);
                    }
                    b' ' | b'\t' | b'\r' | b'\n' | b',' | b']' | b'}' if !quoted => {
                        return Ok(self.next - start);
                    }
                    _ => escaped = quoted && byte == b'\\' && !escaped,
                }
                self.next += 1;
            }
            if self.next - start > RECORD_BYTES_MAX {
                return Err(FrameError::Syntax { at, found: self.buffer[start] });
            }
            if !self.fill(start)? {
                return if quoted { Err(FrameError::Truncated { at }) } else { Ok(self.next) };
            }
            start = 0;
        }
    }

    /// Counts line ends before this position in the buffer.
    fn count_lines(&mut self, place: usize) {
        if let Some(bytes) = self.buffer.get(self.counted..place) {
            self.line += memchr_iter(b'\n', bytes).count() as u64;
            self.counted = place;
        }
    }

    /// Reads more and keeps the bytes from `kept`, which becomes the start of the buffer. Returns false at the end of
    /// the stream.
    fn fill(&mut self, kept: usize) -> Result<bool, FrameError> {
        self.count_lines(kept);
        self.counted -= kept;
        if kept > 0 {
            self.buffer.copy_within(kept..self.filled, 0);
        }
        self.filled -= kept;
        self.next -= kept;
        self.passed += kept as u64;
        if self.buffer.len() < self.filled + READ_BYTES {
            self.buffer.resize(self.filled + READ_BYTES, 0);
        } else if self.filled == 0 {
            // One long record must not hold its memory for good.
            self.buffer.truncate(READ_BYTES);
            self.buffer.shrink_to(READ_BYTES);
        }
        loop {
            match self.reader.read(&mut self.buffer[self.filled..]) {
                Ok(length) => {
                    self.filled += length;
                    return Ok(length > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

enum Passed {
    /// The object is an envelope, and its array of records was entered.
    Entered,
    /// The object's length, unless it is too long to hold.
    Record(Option<usize>),
}

/// The state within an object.
#[derive(Default)]
struct Scan {
    depth: usize,
    string: bool,
    escape: bool,
    /// Whether to stop at text that cannot be JSON: at a line that ends within a string, at an object that is not
    /// allowed there, and beyond the parser's depth.
    strict: bool,
    /// The last byte that is neither white space nor in a string.
    before: u8,
}

/// The parser's maximum depth.
const DEPTH_MAX: usize = 128;

enum Stop {
    /// All bytes were scanned.
    More,
    /// At the `[` of an array that is a member of the object.
    Array,
    /// After the object's `}`.
    Closed,
    /// At text that cannot be JSON.
    Broken,
}

impl Scan {
    /// Scans bytes up to the next decision and returns how many it scanned.
    fn run(&mut self, bytes: &[u8]) -> (usize, Stop) {
        let mut at = 0;
        while at < bytes.len() {
            if self.escape {
                self.escape = false;
            } else if self.string {
                let found = match self.strict {
                    true => memchr3(b'"', b'\\', b'\n', &bytes[at..]),
                    false => memchr2(b'"', b'\\', &bytes[at..]),
                };
                let Some(length) = found else {
                    return (bytes.len(), Stop::More);
                };
                at += length;
                if bytes[at] == b'\n' {
                    return (at, Stop::Broken);
                }
                self.string = bytes[at] != b'"';
                self.escape = self.string;
            } else {
                match bytes[at] {
                    b'{' if self.strict && !self.may_open() => return (at, Stop::Broken),
                    b'"' => self.string = true,
                    b'[' if self.depth == 1 => return (at, Stop::Array),
                    b'{' | b'[' => self.depth += 1,
                    b'}' | b']' if self.depth == 1 => return (at + 1, Stop::Closed),
                    b'}' | b']' => self.depth -= 1,
                    _ => {}
                }
                if !bytes[at].is_ascii_whitespace() {
                    self.before = bytes[at];
                }
            }
            at += 1;
        }
        (at, Stop::More)
    }
}

impl Scan {
    /// Whether an object may begin here.
    fn may_open(&self) -> bool {
        match (self.depth, self.before) {
            (0 | DEPTH_MAX.., _) => self.depth == 0,
            (1, before) => before == b':',
            (_, before) => matches!(before, b':' | b',' | b'['),
        }
    }
}

/// Whether an object's bytes up to a `[` end in the name of an envelope's member.
fn ends_in_envelope(bytes: &[u8]) -> bool {
    let Some(name) = bytes.trim_ascii_end().strip_suffix(b":").map(<[u8]>::trim_ascii_end) else {
        return false;
    };
    ENVELOPES
        .iter()
        .any(|envelope| name.strip_suffix(envelope.as_bytes()).is_some_and(|before| !before.ends_with(b"\\")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads `text` in pieces of `step` bytes; a frame that is too long is shown as `…`. A reader that gives so many
    /// bytes at a time.
    struct Steps<'a>(&'a [u8], usize);
    impl Read for Steps<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let length = self.1.min(out.len()).min(self.0.len());
            out[..length].copy_from_slice(&self.0[..length]);
            self.0 = &self.0[length..];
            Ok(length)
        }
    }

    fn frames(text: &str, step: usize) -> (Vec<String>, String) {
        let mut frames = Frames::new(Steps(text.as_bytes(), step), 0);
        let mut found = Vec::new();
        loop {
            match frames.next() {
                Ok(Some(Frame { bytes: Some(bytes), at, line })) => {
                    assert_eq!(&text.as_bytes()[at as usize..][..bytes.len()], bytes);
                    assert_eq!(text[..at as usize].matches('\n').count() as u64 + 1, line, "{text}");
                    found.push(String::from_utf8(bytes.to_vec()).unwrap());
                }
                Ok(Some(_)) => found.push("…".to_owned()),
                Ok(None) => return (found, String::new()),
                Err(error) => return (found, error.to_string()),
            }
        }
    }

    #[test]
    fn broken_lines_are_skipped_one_by_one() {
        let text = "{\"a\":1}\n{\"b\":[\n{\"c\":3}\n no {json} [\n{\n\"d\": 4}\n{\"e\":\"x\n{\"f\":6}\n[{\"g\":7}]\n{\"h\":";
        for step in [1, 3, 1000] {
            let mut frames = Frames::line_by_line(Steps(text.as_bytes(), step));
            let mut found = Vec::new();
            loop {
                let (length, line) = match frames.next() {
                    Ok(Some(Frame { bytes: Some(bytes), line, .. })) => {
                        let json = serde_json::from_slice::<serde_json::Value>(bytes).is_ok();
                        found.push(format!("{line} {json} {}", bytes.escape_ascii()));
                        (bytes.len(), json)
                    }
                    Ok(Some(_)) => panic!("nothing is long"),
                    Ok(None) => break,
                    Err(error) => {
                        found.push(error.to_string());
                        break;
                    }
                };
                if !line {
                    frames.is_broken(length);
                }
            }
            let expected = [
                r#"1 true {\"a\":1}"#,
                r#"2 false {\"b\":["#,
                r#"3 true {\"c\":3}"#,
                r#"4 false no {json} ["#,
                r#"5 true {\n\"d\": 4}"#,
            ];
            assert_eq!(found[..5], expected, "{step}");
            assert!(found.contains(&r#"8 true {\"f\":6}"#.to_owned()), "{found:?}");
            assert!(found.contains(&r#"9 true {\"g\":7}"#.to_owned()), "{found:?}");
            let end = format!("it ends in the middle of a record at byte {}", text.len() - 5);
            assert_eq!(found.last().unwrap(), &end);
        }
    }

    #[test]
    fn every_form_is_split_into_its_records() {
        let cases: &[(&str, &[&str], &str)] = &[
            ("", &[], ""),
            (r#"{"Records":[{"a":1},{"b":[2,{"c":"]}"}]}]}"#, &[r#"{"a":1}"#, r#"{"b":[2,{"c":"]}"}]}"#], ""),
            (
                r#"{"NextToken":"x[","Events" : [ {"a":1} ],"more":[1,{"Records":[{}]}]} {"z":0}"#,
                &[r#"{"a":1}"#, r#"{"z":0}"#],
                "",
            ),
            ("\u{feff}[{\"a\":1},\n{\"b\":2}]", &[r#"{"a":1}"#, r#"{"b":2}"#], ""),
            ("{\"a\":1}\n{\"b\":2}\n", &[r#"{"a":1}"#, r#"{"b":2}"#], ""),
            (
                "{\"a\":1}\r\n{\"Records\":[{\"b\":2}]}\r\n{\"c\":3}",
                &[r#"{"a":1}"#, r#"{"b":2}"#, r#"{"c":3}"#],
                "",
            ),
            (
                r#"{"a\"Records":[1],"b":{"Records":[{}]}}"#,
                &[r#"{"a\"Records":[1],"b":{"Records":[{}]}}"#],
                "",
            ),
            (r#"{"a\\":"\\\"}"}"#, &[r#"{"a\\":"\\\"}"}"#], ""),
            (r#"{"Records":[null, 12, "x,]\"", {}]}"#, &["null", "12", r#""x,]\"""#, "{}"], ""),
            ("{\"a\":1}\n{\"b\":", &[r#"{"a":1}"#], "it ends in the middle of a record at byte 8"),
            (r#"{"Records":[{"a":1},"#, &[r#"{"a":1}"#], "it ends in the middle of a record at byte 20"),
            (r#"{"Records":[{"a":1}]"#, &[r#"{"a":1}"#], "it ends in the middle of a record at byte 19"),
            ("{\"a\":1}\n<xml>", &[r#"{"a":1}"#], "it is not JSON at byte 8"),
            ("]", &[], "it is not JSON at byte 0"),
            ("[[[[[", &[], "it is not JSON at byte 4"),
            ("\0", &[], "it is not JSON at byte 0"),
        ];
        for (text, records, error) in cases {
            for step in [1, 7, 4096] {
                let (found, failure) = frames(text, step);
                assert_eq!(found, *records, "{text}");
                assert_eq!(failure, *error, "{text}");
            }
        }
    }

    #[test]
    fn a_record_that_is_too_long_is_skipped_and_its_memory_released() {
        let long = "x".repeat(RECORD_BYTES_MAX + READ_BYTES);
        let text = format!(r#"{{"Records":[{{"a":1}},{{"b":"{long}"}},{{"c":3}}]}}"#);
        assert_eq!(frames(&text, usize::MAX).0, [r#"{"a":1}"#, "…", r#"{"c":3}"#]);
        let mut stream = Frames::new(text.as_bytes(), 0);
        while stream.next().unwrap().is_some() {}
        assert!(stream.buffer.capacity() <= RECORD_BYTES_MAX + 3 * READ_BYTES);
    }

    #[test]
    fn a_reader_may_begin_where_another_stopped() {
        let text = "{\"a\":1}\n{\"b\":2}\n";
        let mut first = Frames::new(text.as_bytes(), 0);
        first.next().unwrap();
        let at = first.offset().unwrap();
        let mut second = Frames::new(&text.as_bytes()[at as usize..], at);
        let frame = second.next().unwrap().unwrap();
        assert_eq!((frame.at, frame.bytes), (8, Some(&b"{\"b\":2}"[..])));
        let mut cut = Frames::new(&text.as_bytes()[..12], 0);
        while let Ok(Some(_)) = cut.next() {}
        assert_eq!(cut.offset(), Some(7), "an unfinished record is read again");
        let mut array = Frames::new(&b"[{},"[..], 0);
        array.next().unwrap();
        assert_eq!(array.offset(), None);
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Into::into),
            any::<i32>().prop_map(Into::into),
            "[\\PC\\[\\]{}\"\\\\]{0,12}".prop_map(Into::into)
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::hash_map("[a-z\"\\\\]{0,8}", inner, 0..4)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn records_are_returned_unchanged(records in prop::collection::vec(json(), 0..6), step in 1_usize..40) {
            let objects: Vec<_> = records.into_iter().filter(serde_json::Value::is_object).collect();
            let text = serde_json::json!({"x": 1, "Records": objects, "y": [1]}).to_string();
            let (found, failure) = frames(&text, step);
            prop_assert_eq!(failure, "");
            let read: Vec<serde_json::Value> = found.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
            prop_assert_eq!(read, objects);
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut stream = Frames::new(&bytes[..], 0);
            while let Ok(Some(_)) = stream.next() {}
        }
    }
}
