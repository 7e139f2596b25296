//! What the owner of a file that the agent writes says of it, so that others can see whether somebody took it away: its place
//! and its length as they must be, and what the owner found otherwise when it came to write.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Most losses that wait until they are reported.
const LOSSES_MAX: usize = 8;

/// A file, and how long it is at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KnownFile {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) length: u64,
}

impl KnownFile {
    /// Of an open file of which so many bytes are known to be there.
    pub(crate) fn new(file: &Metadata, length: u64) -> Self {
        Self { device: file.dev(), inode: file.ino(), length }
    }

    /// Whether this is the file, however long it is.
    pub(crate) fn is(&self, file: &Metadata) -> bool {
        (self.device, self.inode) == (file.dev(), file.ino())
    }
}

/// How a file was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// Nothing is at its path any more.
    Gone,
    /// Another file is there.
    Replaced,
    /// It is shorter than what was written.
    Shorter,
}

impl How {
    /// How a file differs from what is at its path now; `None` where it does not.
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

/// What is known of one file. Its owner writes it, and the watch over the agent's files reads it.
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

    /// The owner writes to this file from now on; to none, while it changes from one to another itself.
    pub(crate) fn set(&self, place: Option<KnownFile>) {
        self.state().open = place;
    }

    /// The owner found its file lost. It is said once for each file.
    pub(crate) fn lose(&self, how: How) {
        let mut state = self.state();
        if let Some(place) = state.open.take()
            && state.losses.len() < LOSSES_MAX
        {
            state.losses.push(Loss { place, how, at: Instant::now() });
        }
    }

    /// Somebody ordered that files are opened anew, as after a rename.
    pub(crate) fn hangup(&self) {
        self.state().hangup = Some(Instant::now());
    }

    /// The file that the owner writes to.
    pub(crate) fn place(&self) -> Option<KnownFile> {
        self.state().open
    }

    /// What was lost and not taken before.
    pub(crate) fn losses(&self) -> Vec<Loss> {
        std::mem::take(&mut self.state().losses)
    }

    /// When it was last ordered that files are opened anew.
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
    fn a_file_is_lost_where_it_is_gone_replaced_or_shorter() {
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
