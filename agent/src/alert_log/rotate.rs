//! Renames the log when it is large or old, compresses what was renamed and drops what is beyond the budget. Renaming
//! is the writer's; the rest takes its time, so it is done on a thread that comes and goes.

use std::ffi::OsString;
use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{self, BufReader};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::retain::{self, Retention};
use super::{Config, LOG_MODE, files};

/// The work of rotation besides the renaming.
pub(super) struct Rotation {
    config: Config,
    pub(super) retention: Arc<Retention>,
    pub(super) running: Option<JoinHandle<()>>,
}

impl Rotation {
    /// Takes up what an earlier run left undone.
    pub(super) fn start(config: &Config) -> Self {
        let mut rotation = Self { config: config.clone(), retention: Arc::default(), running: None };
        rotation.tidy();
        rotation
    }

    /// Whether a file of this size, begun at this time, is to be rotated before it is written to.
    pub(super) fn is_due(&self, bytes: u64, begun: SystemTime) -> bool {
        let old = begun.elapsed().is_ok_and(|age| age >= self.config.rotate_age);
        bytes > 0 && (bytes >= self.config.rotate_size.as_u64() || old)
    }

    /// Renames the log to one that carries the time.
    pub(super) fn rename(&self) -> io::Result<()> {
        let mut time = jiff::Timestamp::now();
        loop {
            let to = with_suffix(&self.config.path, &format!(".{}", time.strftime("%Y%m%dT%H%M%S.%3fZ")));
            if !to.exists() && !with_suffix(&to, ".gz").exists() {
                return fs::rename(&self.config.path, to);
            }
            time += Duration::from_millis(1);
        }
    }

    /// Compresses and deletes rotated files on a thread of its own. While one still runs the next rotation
    /// will do.
    pub(super) fn tidy(&mut self) {
        if self.running.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return;
        }
        let (config, retention) = (self.config.clone(), self.retention.clone());
        let work = move || {
            if let Err(error) = tidy(&config, &retention) {
                tracing::warn!("rotated files of {} cannot be tidied: {error}", config.path.display());
            }
        };
        self.running = std::thread::Builder::new().name("log-tidy".to_owned()).spawn(work).ok();
    }
}

/// Only what the agent itself rotated is touched: files of logrotate are logrotate's.
fn tidy(config: &Config, retention: &Retention) -> io::Result<()> {
    for end in [".gz.tmp", ".kept.tmp", ".kept.gz.tmp"] {
        own_files(&config.path, end)?.into_iter().try_for_each(fs::remove_file)?;
    }
    for path in [own_files(&config.path, "")?, own_files(&config.path, ".gz")?].concat() {
        // What was to be carried over lies there whole: it was renamed last.
        if retain::kept_path(&path, config.gzip).exists() {
            fs::remove_file(path)?;
        } else if config.gzip && !files::is_gzip(&path) {
            compress(&path)?;
        }
    }
    retain::retain(config, retention)
}

/// The rotated files that end so after the time, oldest first.
pub(super) fn own_files(log: &Path, end: &str) -> io::Result<Vec<PathBuf>> {
    let (Some(directory), Some(name)) = (log.parent(), log.file_name().and_then(|name| name.to_str())) else {
        return Ok(Vec::new());
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let file = entry.file_name();
        let time =
            file.to_str().and_then(|file| file.strip_prefix(name)?.strip_prefix('.')?.strip_suffix(end));
        if time.is_some_and(is_own_time) {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

/// Whether a text has the form `20261122T035601.123Z`.
fn is_own_time(text: &str) -> bool {
    let form = "00000000T000000.000Z";
    text.len() == form.len()
        && text.bytes().zip(form.bytes()).all(|(byte, form)| match form {
            b'0' => byte.is_ascii_digit(),
            other => byte == other,
        })
}

/// Puts a compressed file in the place of a plain one. At every moment one of the two is whole.
fn compress(path: &Path) -> io::Result<()> {
    let (packed, unfinished) = (with_suffix(path, ".gz"), with_suffix(path, ".gz.tmp"));
    let plain = File::open(path)?;
    let modified = plain.metadata()?.modified()?;
    let to = OpenOptions::new().write(true).create_new(true).mode(LOG_MODE).open(&unfinished)?;
    let mut encoder = GzEncoder::new(to, Compression::default());
    io::copy(&mut BufReader::new(plain), &mut encoder)?;
    let to = encoder.finish()?;
    to.set_times(FileTimes::new().set_modified(modified))?;
    to.sync_all()?;
    fs::rename(&unfinished, &packed)?;
    fs::remove_file(path)
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}
