//! Reads the log onwards from a position, through rotated and compressed files to its end: what the store missed
//! is found so.

use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};

use super::Position;
use super::files::{self, LogFile};

/// Longest line that is read; a longer one is passed over.
const LINE_BYTES_MAX: usize = 64 << 20;

/// Lines of the log in the order in which they were written.
pub(crate) struct Forward {
    log: PathBuf,
    position: Position,
    reader: Option<Box<dyn BufRead + Send>>,
}

impl Forward {
    /// Starts after `position`; where its file is gone, or there is no position, with the oldest line there is. The
    /// second value says whether the position was found.
    ///
    /// # Errors
    /// The log cannot be read.
    pub(crate) fn new(log: PathBuf, position: Option<Position>) -> io::Result<(Self, bool)> {
        let mut reader = Self { log, position: position.unwrap_or_default(), reader: None };
        let found = reader.open()?;
        Ok((reader, found))
    }

    /// The position after the last line that was read.
    pub(crate) fn position(&self) -> &Position {
        &self.position
    }

    /// Reads the next line, without its end, into `line`; `false` at the end of the log, where it can be asked again
    /// later. A last line without an end is still being written, unless its file is not the last.
    ///
    /// # Errors
    /// The log cannot be read.
    pub(crate) fn next_line(&mut self, line: &mut Vec<u8>) -> io::Result<bool> {
        loop {
            if self.reader.is_none() {
                self.open()?;
            }
            let Some(reader) = self.reader.as_mut() else { return Ok(false) };
            let length = read_line(reader, line)?;
            if line.pop_if(|last| *last == b'\n').is_some() {
                self.position.offset += length;
                return Ok(true);
            }
            self.reader = None;
            let Some(next) = self.following()? else { return Ok(false) };
            self.position = Position { file: next, offset: 0 };
            if length > 0 {
                return Ok(true);
            }
        }
    }

    /// Opens the file of the position; where it is gone, the oldest file, and says `false`.
    fn open(&mut self) -> io::Result<bool> {
        let files = fingerprints(files::list(&self.log)?)?;
        let found = files.iter().find(|(fingerprint, _)| *fingerprint == self.position.file);
        if let Some((_, file)) = found {
            self.reader = Some(files::open_at(&file.path, self.position.offset)?);
            return Ok(true);
        }
        if let Some((fingerprint, file)) = files.into_iter().next() {
            self.position = Position { file: fingerprint, offset: 0 };
            self.reader = Some(files::open_at(&file.path, 0)?);
        }
        Ok(false)
    }

    /// The file written after that of the position.
    fn following(&self) -> io::Result<Option<String>> {
        let files = fingerprints(files::list(&self.log)?)?;
        let after = files.iter().position(|(fingerprint, _)| *fingerprint == self.position.file);
        Ok(files.into_iter().nth(after.map_or(0, |index| index + 1)).map(|(fingerprint, _)| fingerprint))
    }
}

impl Position {
    /// The place after the last whole line of the log at `log`; `None` where it has no line.
    ///
    /// # Errors
    /// The log cannot be read.
    pub(crate) fn end(log: &Path) -> io::Result<Option<Self>> {
        let Some((file, LogFile { path, .. })) = fingerprints(files::list(log)?)?.pop() else {
            return Ok(None);
        };
        let (mut reader, mut line, mut offset) = (files::open_at(&path, 0)?, Vec::new(), 0);
        loop {
            let length = read_line(&mut *reader, &mut line)?;
            if line.last() != Some(&b'\n') {
                return Ok(Some(Self { file, offset }));
            }
            offset += length;
        }
    }
}

/// The files that hold at least a line, with what they are known by.
fn fingerprints(files: Vec<LogFile>) -> io::Result<Vec<(String, LogFile)>> {
    let mut known = Vec::with_capacity(files.len());
    for file in files {
        match files::fingerprint(&file.path) {
            Ok(Some(fingerprint)) => known.push((fingerprint, file)),
            Ok(None) => {}
            // Deleted since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if files::is_damage(&error) => {
                tracing::warn!("{} is damaged and is passed over: {error}", file.path.display());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(known)
}

/// Reads up to and with the next line's end; of a line that is too long only the end is kept. Says how many bytes
/// it went on. The end of a damaged compressed file is an end.
fn read_line(mut reader: &mut dyn BufRead, line: &mut Vec<u8>) -> io::Result<u64> {
    line.clear();
    let mut length = 0;
    loop {
        let read = match (&mut reader).take(LINE_BYTES_MAX as u64).read_until(b'\n', line) {
            Err(error) if files::is_damage(&error) => 0,
            other => other?,
        };
        length += read as u64;
        if read < LINE_BYTES_MAX || line.last() == Some(&b'\n') {
            return Ok(length);
        }
        line.clear();
    }
}
