//! File descriptors held for alerts: each refers to a file that may lose its name at any moment. They are counted, because
//! alerts can be provoked at any rate and descriptors are limited.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

/// Maximum number of descriptors for all alerts.
const DESCRIPTORS_MAX: u64 = 256;

static HELD: AtomicU64 = AtomicU64::new(0);

/// A file opened with O_PATH, which calls neither its file system nor a driver.
#[derive(Debug)]
pub(crate) struct Descriptor(OwnedFd);

impl Descriptor {
    /// Opens a file, following links. `None` if too many are held.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub(crate) fn open(path: &Path) -> io::Result<Option<Self>> {
        if !has_room(&HELD) {
            return Ok(None);
        }
        match open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()) {
            Ok(file) => Ok(Some(Self(file))),
            Err(error) => {
                HELD.fetch_sub(1, Relaxed);
                Err(error.into())
            }
        }
    }

    /// Duplicates the descriptor.
    ///
    /// # Errors
    /// No descriptor is available.
    pub(super) fn file(&self) -> io::Result<File> {
        self.0.try_clone().map(File::from)
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        HELD.fetch_sub(1, Relaxed);
    }
}

/// Counts one more, if the maximum allows it.
fn has_room(held: &AtomicU64) -> bool {
    held.fetch_update(Relaxed, Relaxed, |held| (held < DESCRIPTORS_MAX).then_some(held + 1)).is_ok()
}

/// Number of descriptors that are held.
pub(crate) fn held() -> u64 {
    HELD.load(Relaxed)
}

/// Opens the file of the descriptor for reading.
pub(crate) fn readable(file: &File) -> io::Result<File> {
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_bounded() {
        let held = AtomicU64::new(0);
        assert_eq!((0..1000).filter(|_| has_room(&held)).count() as u64, DESCRIPTORS_MAX);
        held.fetch_sub(1, Relaxed);
        assert!(has_room(&held) && !has_room(&held));
    }
}
