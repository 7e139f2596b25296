//! Descriptors that are held for alerts: each names a file that may lose its name at any moment. They are counted, for
//! alerts come as fast as somebody makes them, and the agent has only so many.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

/// Most descriptors that are held for all alerts together.
const DESCRIPTORS_MAX: u64 = 256;

static HELD: AtomicU64 = AtomicU64::new(0);

/// A file that is open for nothing but to be found again. Opening it so asks neither its file system nor a driver.
#[derive(Debug)]
pub(crate) struct Descriptor(OwnedFd);

impl Descriptor {
    /// Opens a file, following links. `None` while too many are held.
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

    /// The file, as often as it is needed.
    ///
    /// # Errors
    /// The agent has no descriptor left.
    pub(super) fn file(&self) -> io::Result<File> {
        self.0.try_clone().map(File::from)
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        HELD.fetch_sub(1, Relaxed);
    }
}

/// Counts one more, if there may be one more.
fn has_room(held: &AtomicU64) -> bool {
    held.fetch_update(Relaxed, Relaxed, |held| (held < DESCRIPTORS_MAX).then_some(held + 1)).is_ok()
}

/// How many are held now.
pub(crate) fn held() -> u64 {
    HELD.load(Relaxed)
}

/// Opens the very file of a descriptor for reading.
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
