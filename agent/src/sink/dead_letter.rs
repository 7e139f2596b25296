//! Where alerts go that upstream will never take: a file of one JSON object a line, each with the alert and
//! the reason, for whoever repairs the cause and sends them by hand. The alert log has them as well.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::value::RawValue;

use crate::clock;
use crate::store::Spooled;

/// Size at which the file is renamed to end in `.1`, in place of an earlier one.
const FILE_BYTES_MAX: u64 = 32 << 20;

/// Access to the directory, which is made with the first file in it.
const DIRECTORY_MODE: u32 = 0o750;

/// The file of one sink.
pub(super) struct DeadLetters {
    sink: String,
    path: PathBuf,
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(rename = "@timestamp")]
    time: String,
    sink: &'a str,
    reason: &'a str,
    alert: &'a RawValue,
}

impl DeadLetters {
    pub(super) fn new(directory: &Path, sink: &str) -> Self {
        Self { sink: sink.to_owned(), path: directory.join(format!("{sink}.ndjson")) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Sets an alert aside, and waits until it is on disk.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn write(&self, alert: &Spooled, reason: &str) -> io::Result<()> {
        // An alert that is no JSON is no reason not to keep it.
        let text = String::from_utf8_lossy(&alert.json);
        let quoted;
        let raw = match serde_json::from_str::<&RawValue>(&text) {
            Ok(raw) => raw,
            Err(_) => {
                quoted = serde_json::value::to_raw_value(&text)?;
                &*quoted
            }
        };
        let mut line = serde_json::to_vec(&Line {
            time: clock::now().to_string(),
            sink: &self.sink,
            reason,
            alert: raw,
        })?;
        line.push(b'\n');
        if fs::metadata(&self.path).is_ok_and(|file| file.len() >= FILE_BYTES_MAX) {
            fs::rename(&self.path, self.path.with_extension("ndjson.1"))?;
        }
        if let Some(directory) = self.path.parent() {
            DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory)?;
        }
        let mut file = OpenOptions::new().append(true).create(true).mode(0o640).open(&self.path)?;
        file.write_all(&line)?;
        file.sync_all()
    }
}
