//! The threads that read and hash files. A disk may be slow and a file system may answer late, so the other threads wait for
//! these with a timeout only.

use std::fs::File;
use std::io;
use std::time::Instant;

use anyhow::{Context as _, Result};
use crossbeam_channel::{Receiver, Sender, bounded};

use super::FILE_BYTES_MAX;
use crate::clock::{self, changed};
use crate::digest::{self, CHUNK_BYTES, Hash};
use crate::program::{self, FileKey, Missing, Program, is_fresh};

/// The files to read for an alert.
pub(super) struct Job {
    /// The user whose share is used.
    pub(super) user: u32,
    /// The programs by importance, each with its place in the alert.
    pub(super) programs: Vec<(Place, Program)>,
    /// Maximum bytes to read.
    pub(super) bytes_max: u64,
    /// Deadline.
    pub(super) until: Instant,
}

/// The place of a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The number of the delivery.
    pub(super) delivery: u64,
    /// The alert in the delivery.
    pub(super) alert: usize,
    /// The program in the alert.
    pub(super) program: usize,
}

/// A message of a reader.
pub(super) enum ReaderMessage {
    /// The result for a program.
    Program {
        place: Place,
        file: FileKey,
        outcome: Result<Hash, Missing>,
        /// Whether the change time identifies this content.
        is_lasting: bool,
    },
    /// The job is done, and this many bytes were not read.
    Done { reader: usize, bytes_left: u64 },
}

/// A reader, and the user for whom it is reading.
pub(super) struct HashReader {
    pub(super) jobs: Sender<Job>,
    pub(super) user: Option<u32>,
}

impl HashReader {
    /// Starts a thread. It ends when the reader is dropped, after its current read.
    pub(super) fn start(reader: usize, reports: Sender<ReaderMessage>) -> Result<Self> {
        let (jobs, inbox) = bounded(1);
        std::thread::Builder::new()
            .name("hash".to_owned())
            .spawn(move || run(reader, &inbox, &reports))
            .context("cannot start the thread `hash`")?;
        Ok(Self { jobs, user: None })
    }
}

fn run(reader: usize, jobs: &Receiver<Job>, reports: &Sender<ReaderMessage>) {
    let mut chunk = vec![0; CHUNK_BYTES];
    for job in jobs {
        let mut bytes_left = job.bytes_max;
        let mut found: Vec<(FileKey, Hash)> = Vec::new();
        for (place, program) in &job.programs {
            // The parent of a shell is often a shell.
            let known = found.iter().find(|(file, _)| *file == program.file && !program.is_fresh);
            let (outcome, is_lasting) = match known {
                Some((_, hash)) => (Ok(*hash), false),
                None => read(program, &mut bytes_left, job.until, &mut chunk),
            };
            found.extend(outcome.ok().filter(|_| known.is_none()).map(|hash| (program.file, hash)));
            let report = ReaderMessage::Program { place: *place, file: program.file, outcome, is_lasting };
            if reports.send(report).is_err() {
                return;
            }
        }
        if reports.send(ReaderMessage::Done { reader, bytes_left }).is_err() {
            return;
        }
    }
}

/// The hash of a program's file, and whether it may be cached.
fn read(
    program: &Program,
    bytes_left: &mut u64,
    until: Instant,
    chunk: &mut [u8],
) -> (Result<Hash, Missing>, bool) {
    if Instant::now() >= until {
        return (Err(Missing::Time), false);
    }
    let begun = clock::now().as_nanos();
    let file = match program.find() {
        Ok(file) => file,
        Err(missing) => return (Err(missing), false),
    };
    let is_lasting = file.metadata().is_ok_and(|metadata| !is_fresh(changed(&metadata), begun));
    let hash = hash(&file, bytes_left, until, chunk);
    // A file that was changed while it was read has no valid hash.
    (hash.and_then(|hash| program.check(file).map(|_| hash)), is_lasting)
}

fn hash(file: &File, bytes_left: &mut u64, until: Instant, chunk: &mut [u8]) -> Result<Hash, Missing> {
    let size = file.metadata()?.len();
    if size > FILE_BYTES_MAX {
        return Err(Missing::Large);
    }
    if size > *bytes_left {
        return Err(Missing::Budget);
    }
    let (hash, read) = digest::of(&program::readable(file)?, chunk, |count, read| {
        *bytes_left = bytes_left.saturating_sub(count);
        if read > size {
            return Err(Missing::Other);
        }
        if Instant::now() >= until { Err(Missing::Time) } else { Ok(()) }
    })?;
    if read == size { Ok(hash) } else { Err(Missing::Other) }
}

impl From<io::Error> for Missing {
    fn from(_: io::Error) -> Self {
        Self::Unreadable
    }
}

/// Reads a program on this thread.
#[cfg(test)]
pub(super) fn read_now(program: &Program, until: Instant) -> Result<Hash, Missing> {
    read(program, &mut FILE_BYTES_MAX.clone(), until, &mut vec![0; CHUNK_BYTES]).0
}
