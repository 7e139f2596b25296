//! Reads the log forward from a position, through rotated and compressed files to its end, to find what the store is
//! missing.

use std::io::{self, BufRead, Read as _};
use std::path::{Path, PathBuf};

use super::files::{self, LogFile};
use super::{LINE_BYTES_MAX, Position};

/// Lines of the log in the order in which they were written.
pub(crate) struct Forward {
    log: PathBuf,
    position: Position,
    reader: Option<Box<dyn BufRead + Send>>,
    passed_over: u64,
}

impl Forward {
    /// Starts after `position`. Without a position, or if its file is gone, starts with the oldest line. The second value is
    /// whether the position was found.
    ///
    /// # Errors
    /// The log cannot be read.
    pub(crate) fn new(log: PathBuf, position: Option<Position>) -> io::Result<(Self, bool)> {
        let mut reader = Self { log, position: position.unwrap_or_default(), reader: None, passed_over: 0 };
        let found = reader.open()?;
        Ok((reader, found))
    }

    /// The position after the last line that was read.
    pub(crate) fn position(&self) -> &Position {
        &self.position
    }

    /// Number of lines that were too long.
    pub(crate) fn passed_over(&self) -> u64 {
        self.passed_over
    }

    /// Reads the next line, without its end, into `line`; `false` at the end of the log, where reading can be retried later.
    /// A last line without an end is still being written, unless its file is not the last.
    ///
    /// # Errors
    /// The log cannot be read.
    pub(crate) fn next_line(&mut self, line: &mut Vec<u8>) -> io::Result<bool> {
        let mut next = None;
        loop {
            if self.reader.is_none() {
                self.open()?;
            }
            let Some(reader) = self.reader.as_mut() else { return Ok(false) };
            let Read { bytes, is_whole, is_too_long } = read_line(reader, line)?;
            if is_whole {
                self.position.offset += bytes;
                if is_too_long {
                    self.passed_over += 1;
                    continue;
                }
                return Ok(true);
            }
            self.reader = None;
            next = match next {
                // The file may have grown between its end and the start of the next one: read again.
                None => match self.following()? {
                    None => return Ok(false),
                    next => next,
                },
                Some(file) => {
                    self.position = Position { file, offset: 0 };
                    if bytes > 0 && !is_too_long {
                        return Ok(true);
                    }
                    self.passed_over += u64::from(is_too_long);
                    None
                }
            };
        }
    }

    /// Opens the file of the position; if it is gone, opens the oldest file and returns `false`.
    fn open(&mut self) -> io::Result<bool> {
        loop {
            let files = fingerprints(&self.log)?;
            let found = files.iter().find(|(fingerprint, _)| *fingerprint == self.position.file);
            let Some((fingerprint, file)) = found.or(files.first()) else { return Ok(false) };
            let offset = if found.is_some() { self.position.offset } else { 0 };
            match files::open_at(&file.path, offset) {
                // It was renamed or compressed since it was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => {
                    self.reader = Some(other?);
                    self.position = Position { file: fingerprint.clone(), offset };
                    return Ok(found.is_some());
                }
            }
        }
    }

    /// The file that was written after that of the position.
    fn following(&self) -> io::Result<Option<String>> {
        let files = fingerprints(&self.log)?;
        let after = files.iter().position(|(fingerprint, _)| *fingerprint == self.position.file);
        Ok(files.into_iter().nth(after.map_or(0, |index| index + 1)).map(|(fingerprint, _)| fingerprint))
    }
}

impl Position {
    /// The position after the last complete line of the log at `log`; `None` if it has no line.
    ///
    /// # Errors
    /// The log cannot be read.
    pub(crate) fn end(log: &Path) -> io::Result<Option<Self>> {
        let Some((file, LogFile { path, .. })) = fingerprints(log)?.pop() else {
            return Ok(None);
        };
        let (mut reader, mut line, mut offset) = (files::open_at(&path, 0)?, Vec::new(), 0);
        loop {
            let Read { bytes, is_whole, .. } = read_line(&mut *reader, &mut line)?;
            if !is_whole {
                return Ok(Some(Self { file, offset }));
            }
            offset += bytes;
        }
    }
}

/// The files with at least one line, with their fingerprints. Files with carried-over alerts are left out, because their
/// lines were read before.
fn fingerprints(log: &Path) -> io::Result<Vec<(String, LogFile)>> {
    let mut known = Vec::new();
    for file in files::list(log)?.into_iter().filter(|file| !files::is_kept(&file.path)) {
        match files::fingerprint(&file.path) {
            Ok(Some(fingerprint)) => known.push((fingerprint, file)),
            Ok(None) => {}
            // Deleted since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if files::is_damage(&error) => {
                tracing::warn!("{} is damaged and was skipped: {error}", file.path.display());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(known)
}

/// The result of reading a line.
pub(super) struct Read {
    /// Number of bytes read.
    pub(super) bytes: u64,
    /// Whether the line is complete.
    pub(super) is_whole: bool,
    pub(super) is_too_long: bool,
}

/// Reads up to the end of the next line. The line end and lines that are too long are not kept. The end of a damaged
/// compressed file is the end of the file.
pub(super) fn read_line(mut reader: &mut dyn BufRead, line: &mut Vec<u8>) -> io::Result<Read> {
    line.clear();
    let (mut bytes, mut is_too_long) = (0, false);
    loop {
        let read = match (&mut reader).take(LINE_BYTES_MAX as u64).read_until(b'\n', line) {
            Err(error) if files::is_damage(&error) => 0,
            other => other?,
        };
        bytes += read as u64;
        let is_whole = line.pop_if(|last| *last == b'\n').is_some();
        if is_whole || read < LINE_BYTES_MAX {
            if is_too_long {
                *line = Vec::new();
            }
            return Ok(Read { bytes, is_whole, is_too_long });
        }
        is_too_long = true;
        line.clear();
    }
}
