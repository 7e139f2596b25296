//! The alert log while it grows and is rotated.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use serde_json::Value;

/// Reads what has come since it was looked at last, from the file that is the log now and from the one that was it.
pub(crate) struct Alerts {
    path: PathBuf,
    file: Option<File>,
    /// A line that is not whole yet.
    rest: Vec<u8>,
}

impl Alerts {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, file: None, rest: Vec::new() }
    }

    /// The alerts that have come and whose line holds this.
    pub(crate) fn with(&mut self, text: &str) -> Vec<Value> {
        let mut bytes = std::mem::take(&mut self.rest);
        if let Some(file) = &mut self.file {
            let _ = file.read_to_end(&mut bytes);
        }
        if self.is_another() {
            self.file = File::open(&self.path).ok();
            if let Some(file) = &mut self.file {
                let _ = file.read_to_end(&mut bytes);
            }
        }
        let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |place| place + 1);
        self.rest = bytes.split_off(end);
        let text_of = String::from_utf8_lossy(&bytes);
        let lines = text_of.lines().filter(|line| line.contains(text));
        lines.filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Whether the path leads to another file than the one that is open.
    fn is_another(&self) -> bool {
        let Ok(there) = std::fs::metadata(&self.path) else { return false };
        let open = self.file.as_ref().and_then(|file| file.metadata().ok());
        open.is_none_or(|open| (open.dev(), open.ino()) != (there.dev(), there.ino()))
    }
}
