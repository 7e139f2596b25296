//! The trace of a file that the agent writes: its place and minimum length, set by its owner, and the owner's own findings.
//! Other threads compare them with the file system to notice its removal.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Maximum number of losses that wait to be reported.
const LOSSES_MAX: usize = 8;

/// A file and its minimum length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KnownFile {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) length: u64,
}

impl KnownFile {
    /// The trace of an open file with at least this many bytes.
    pub(crate) fn new(file: &Metadata, length: u64) -> Self {
        Self { device: file.dev(), inode: file.ino(), length }
    }

    /// Whether this is the file, whatever its length.
    pub(crate) fn is(&self, file: &Metadata) -> bool {
        (self.device, self.inode) == (file.dev(), file.ino())
    }
}

/// How a file was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// Its path does not exist.
    Gone,
    /// Another file is at its path.
    Replaced,
    /// It is shorter than what was written.
    Shorter,
}

impl How {
    /// The difference between the file and what is at its path; `None` if there is none.
    pub(crate) fn of(place: &KnownFile, now: Option<&Metadata>) -> Option<Self> {
        match now {
            None => Some(Self::Gone),
            Some(now) if !place.is(now) => Some(Self::Replaced),
            Some(now) if now.len() < place.length => Some(Self::Shorter),
            Some(_) => None,
        }
    }
}

/// A file that was lost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loss {
    pub(crate) place: KnownFile,
    pub(crate) how: How,
    pub(crate) at: Instant,
}

/// The trace of one file. The owner writes it; the integrity thread reads it.
#[derive(Debug, Default)]
pub(crate) struct Trace(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    open: Option<KnownFile>,
    losses: Vec<Loss>,
    hangup: Option<Instant>,
}

impl Trace {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Sets the file that the owner writes to; `None` while it switches files itself.
    pub(crate) fn set(&self, place: Option<KnownFile>) {
        self.state().open = place;
    }

    /// Adds a loss that the owner noticed. Each file is reported once.
    pub(crate) fn lose(&self, how: How) {
        let mut state = self.state();
        if let Some(place) = state.open.take()
            && state.losses.len() < LOSSES_MAX
        {
            state.losses.push(Loss { place, how, at: Instant::now() });
        }
    }

    /// A reopen was requested, as after a rename.
    pub(crate) fn hangup(&self) {
        self.state().hangup = Some(Instant::now());
    }

    /// The file that the owner writes to.
    pub(crate) fn place(&self) -> Option<KnownFile> {
        self.state().open
    }

    /// The losses since the last call.
    pub(crate) fn losses(&self) -> Vec<Loss> {
        std::mem::take(&mut self.state().losses)
    }

    /// The time of the last reopen request.
    pub(crate) fn last_hangup(&self) -> Option<Instant> {
        self.state().hangup
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_lost_if_it_is_deleted_replaced_or_truncated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, "four").unwrap();
        let now = || std::fs::metadata(&path).ok();
        let place = KnownFile::new(&now().unwrap(), 4);
        assert_eq!(How::of(&place, now().as_ref()), None);
        std::fs::write(&path, "one").unwrap();
        assert_eq!(How::of(&place, now().as_ref()), Some(How::Shorter));
        std::fs::rename(&path, folder.path().join("log.1")).unwrap();
        assert_eq!(How::of(&place, now().as_ref()), Some(How::Gone));
        std::fs::write(&path, "another").unwrap();
        assert_eq!(How::of(&place, now().as_ref()), Some(How::Replaced));
        let trace = Trace::new();
        trace.lose(How::Gone);
        assert!(trace.losses().is_empty(), "no file was open");
        for _ in 0..LOSSES_MAX + 3 {
            trace.set(Some(place));
            trace.lose(How::Gone);
            trace.lose(How::Gone);
        }
        assert_eq!(trace.losses().len(), LOSSES_MAX);
    }
}
