//! Reads the log backwards, newest line first, through rotated and compressed files. One window of one file is in memory,
//! because the log may be far larger than the memory.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::LINE_BYTES_MAX;
use super::files::{self, LogFile};

/// Window size for a plain file; larger only for a longer line.
const WINDOW_BYTES: u64 = 256 << 10;
/// Window size for a compressed file: each window decompresses the file from its start.
const WINDOW_GZIP_BYTES: u64 = 8 << 20;

/// Maximum window size: the longest line with its end, and the end of the line before.
const WINDOW_BYTES_WIDEST: u64 = LINE_BYTES_MAX as u64 + 2;

/// Lines of the log, last written first.
pub(crate) struct Backward {
    files: Vec<LogFile>,
    current: Option<Windows>,
    lines: VecDeque<Vec<u8>>,
}

impl Backward {
    /// The lines of the log at `log`. Files that were last written before `since` are skipped.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(crate) fn new(log: &Path, since: Option<SystemTime>) -> io::Result<Self> {
        let mut files = files::list(log)?;
        files.retain(|file| since.is_none_or(|since| file.modified >= since));
        Ok(Self { files, current: None, lines: VecDeque::new() })
    }
}

impl Iterator for Backward {
    type Item = io::Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(line) = self.lines.pop_back() {
                return Some(Ok(line));
            }
            let step = match self.current.as_mut() {
                Some(windows) => windows.previous(&mut self.lines),
                None => Windows::open(self.files.pop()?.path).map(|windows| {
                    self.current = windows;
                    true
                }),
            };
            match step {
                Ok(true) => {}
                Ok(false) => self.current = None,
                Err(error) => {
                    self.current = None;
                    return Some(Err(error));
                }
            }
        }
    }
}

/// One file, read window by window from its end.
struct Windows {
    body: Body,
    /// Everything from this offset on was read.
    end: u64,
    /// Size of the next window.
    size: u64,
    /// Whether `end` is inside a line that is too long.
    in_long_line: bool,
}

/// A plain file is kept open, so that rotation does not remove it.
enum Body {
    Plain(File),
    Gzip(PathBuf),
}

impl Body {
    fn window_bytes(&self) -> u64 {
        match self {
            Self::Plain(_) => WINDOW_BYTES,
            Self::Gzip(_) => WINDOW_GZIP_BYTES,
        }
    }

    fn length(&self) -> io::Result<u64> {
        match self {
            Self::Plain(file) => Ok(file.metadata()?.len()),
            Self::Gzip(path) => inflated_bytes(path),
        }
    }

    fn read(&self, window: &mut [u8], start: u64) -> io::Result<()> {
        match self {
            Self::Plain(file) => file.read_exact_at(window, start),
            Self::Gzip(path) => files::open_at(path, start)?.read_exact(window),
        }
    }
}

impl Windows {
    /// `None` if the file was deleted since it was listed, and not only compressed.
    fn open(mut path: PathBuf) -> io::Result<Option<Self>> {
        let plain = if files::is_gzip(&path) { None } else { Some(File::open(&path)) };
        let body = match plain {
            Some(Ok(file)) => Body::Plain(file),
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io::Error::new(error.kind(), format!("{}: {error}", path.display())));
            }
            Some(Err(_)) => {
                path.as_mut_os_string().push(".gz");
                Body::Gzip(path)
            }
            None => Body::Gzip(path),
        };
        match body.length() {
            Ok(end) => Ok(Some(Self { end, size: body.window_bytes(), in_long_line: false, body })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads the lines of the window before the last; `false` at the start of the file.
    fn previous(&mut self, lines: &mut VecDeque<Vec<u8>>) -> io::Result<bool> {
        if self.end == 0 {
            return Ok(false);
        }
        let start = self.end.saturating_sub(self.size);
        let mut window = vec![0; usize::try_from(self.end - start).unwrap_or(usize::MAX)];
        self.body.read(&mut window, start)?;
        if self.in_long_line {
            let end = window.iter().rposition(|byte| *byte == b'\n').map_or(0, |index| index + 1);
            (self.end, self.in_long_line) = (start + end as u64, end == 0);
            return Ok(true);
        }
        // A line that begins before the window is read with the next window.
        let first = match (start, window.iter().position(|byte| *byte == b'\n')) {
            (0, _) => 0,
            (_, Some(end)) if end + 1 < window.len() => end + 1,
            _ if self.size >= WINDOW_BYTES_WIDEST => {
                tracing::warn!("a line of more than {LINE_BYTES_MAX} bytes in the alert log is passed over");
                (self.end, self.size, self.in_long_line) = (start, self.body.window_bytes(), true);
                return Ok(true);
            }
            _ => {
                self.size = self.size.saturating_mul(2).min(WINDOW_BYTES_WIDEST);
                return Ok(true);
            }
        };
        let whole = window[first..].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.extend(whole.map(<[u8]>::to_vec));
        self.end = start + first as u64;
        self.size = self.body.window_bytes();
        Ok(true)
    }
}

/// Length of the text in a compressed file, up to the place where it is damaged.
fn inflated_bytes(path: &Path) -> io::Result<u64> {
    let mut reader = files::open_at(path, 0)?;
    let mut bytes = 0;
    loop {
        match reader.fill_buf() {
            Ok([]) => return Ok(bytes),
            Ok(read) => {
                let read = read.len();
                bytes += read as u64;
                reader.consume(read);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Ok(bytes),
        }
    }
}
