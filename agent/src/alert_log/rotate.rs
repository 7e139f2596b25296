//! Renames the log when it is large or old, compresses renamed files and deletes those beyond the budget. The writer renames;
//! the rest is slow and runs on a temporary thread.

use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{self, BufReader};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::files::{own_files, with_suffix};
use super::retain::{self, Retention};
use super::{Config, LOG_MODE, files};

/// The work of rotation besides the renaming.
pub(super) struct Rotation {
    config: Config,
    pub(super) retention: Arc<Retention>,
    pub(super) running: Option<JoinHandle<()>>,
}

impl Rotation {
    /// Resumes the work of an earlier run.
    pub(super) fn start(config: &Config) -> Self {
        let mut rotation = Self { config: config.clone(), retention: Arc::default(), running: None };
        rotation.tidy();
        rotation
    }

    /// Whether a file of this size and age must be rotated before the next write.
    pub(super) fn is_due(&self, bytes: u64, begun: SystemTime) -> bool {
        let old = begun.elapsed().is_ok_and(|age| age >= self.config.rotate_age);
        bytes > 0 && (bytes >= self.config.rotate_size.as_u64() || old)
    }

    /// Renames the log to a name with a timestamp.
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

    /// Compresses and deletes rotated files on a temporary thread. If one is still running, the next rotation does the work.
    pub(super) fn tidy(&mut self) {
        if self.running.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return;
        }
        let (config, retention) = (self.config.clone(), self.retention.clone());
        let work = move || {
            if let Err(error) = tidy(&config, &retention) {
                tracing::warn!(
                    "rotated files of {} cannot be compressed or deleted: {error}",
                    config.path.display()
                );
            }
        };
        self.running = std::thread::Builder::new().name("log-tidy".to_owned()).spawn(work).ok();
    }
}

/// Only files that the agent rotated are changed: those of logrotate belong to logrotate.
fn tidy(config: &Config, retention: &Retention) -> io::Result<()> {
    for end in [".gz.tmp", ".kept.tmp", ".kept.gz.tmp"] {
        own_files(&config.path, end)?.into_iter().try_for_each(fs::remove_file)?;
    }
    for path in [own_files(&config.path, "")?, own_files(&config.path, ".gz")?].concat() {
        // The carried-over alerts are complete there: the file was renamed last.
        if retain::kept_path(&path, config.gzip).exists() {
            fs::remove_file(path)?;
        } else if config.gzip && !files::is_gzip(&path) {
            compress(&path)?;
        }
    }
    retain::retain(config, retention)
}

/// Replaces a plain file with its compressed form. At every moment one of the two is complete.
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
