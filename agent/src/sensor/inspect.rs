//! The program and arguments of a process that began before the agent: `/proc/PID/exe` and `/proc/PID/cmdline`.
//!
//! A process can make both wait for as long as it likes. The kernel locks its memory to read the arguments, and the
//! process holds that lock while it maps a file of a file system that it serves itself. So a separate thread reads, and
//! nothing waits for it longer than [`WAIT_MAX`]. A thread that hangs is abandoned, and nothing is read for its user
//! until it returns.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use smol_str::SmolStr;

use crate::bounded;
use crate::program::FileKey;

/// Most bytes of a process's arguments that are read, as many as a record holds. The file may be far longer: a process
/// chooses where in its memory they begin and end.
pub(super) const ARGS_BYTES_MAX: u64 = lapwing_common::ARGS_BYTES_MAX as u64;
/// How long one process is waited for.
const WAIT_MAX: Duration = Duration::from_millis(250);
/// How long all processes of one user are waited for in all. Reading takes some microseconds, unless a process delays
/// it, or the host is so busy that the agent hardly runs.
const WAITED_MAX: Duration = Duration::from_secs(5);
/// Most users for whom that is counted; of further ones nothing is read.
const USERS_MAX: usize = 256;
/// Most threads that hang. Beyond it nothing is read.
const HUNG_MAX: usize = 8;
/// After this time the account of a user is reset.
const FORGET: Duration = Duration::from_secs(60);

static READERS: Mutex<Readers> = Mutex::new(Readers { idle: None, hung: Vec::new(), waited: Vec::new() });

/// The program of a process, as procfs shows it.
#[derive(Debug, Default, PartialEq)]
pub(super) struct SeenProgram {
    /// The path and the identity of the file that runs now.
    pub(super) executable: SmolStr,
    pub(super) file_key: FileKey,
    /// The arguments, each with a zero behind it; `None` where they could not be read in time.
    pub(super) args: Option<Vec<u8>>,
}

/// Reads this folder of a process of this user. If the arguments cannot be read in time, only the path is returned. A
/// kernel thread runs no program.
pub(super) fn process(user: u32, folder: &Path) -> Option<SeenProgram> {
    let seen = READERS.lock().unwrap_or_else(PoisonError::into_inner).read(user, folder);
    seen.or_else(|| Some(SeenProgram { executable: target(&folder.join("exe"))?, ..SeenProgram::default() }))
}

/// The target of a link, as the kernel reports it.
pub(super) fn target(link: &Path) -> Option<SmolStr> {
    Some(String::from_utf8_lossy(fs::read_link(link).ok()?.as_os_str().as_bytes()).into())
}

fn see(folder: &Path) -> Option<SeenProgram> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let file = File::from(open(&folder.join("exe"), flags, Mode::empty()).ok()?);
    let executable = target(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())))?;
    let file_key = file.metadata().as_ref().map(FileKey::of).unwrap_or_default();
    let args = bounded::start(File::open(folder.join("cmdline")).ok()?, ARGS_BYTES_MAX).ok();
    Some(SeenProgram { executable, file_key, args })
}

/// The threads that read, with their users.
struct Readers {
    idle: Option<Reader>,
    hung: Vec<(u32, Reader)>,
    /// How long each user's processes were waited for, and since when.
    waited: Vec<(u32, Duration, Instant)>,
}

struct Reader {
    folders: Sender<PathBuf>,
    seen: Receiver<Option<SeenProgram>>,
}

impl Readers {
    fn read(&mut self, user: u32, folder: &Path) -> Option<SeenProgram> {
        let start = Instant::now();
        self.hung.retain(|(_, reader)| reader.seen.try_recv() == Err(TryRecvError::Empty));
        self.waited.retain(|(_, _, since)| start.duration_since(*since) < FORGET);
        if !self.may_read(user) {
            return None;
        }
        let reader = match self.idle.take() {
            Some(reader) => reader,
            None => Reader::start().ok()?,
        };
        reader.folders.send(folder.to_owned()).ok()?;
        let outcome = reader.seen.recv_timeout(WAIT_MAX);
        self.add(user, start);
        match outcome {
            Ok(seen) => {
                self.idle = Some(reader);
                seen
            }
            Err(RecvTimeoutError::Timeout) => {
                tracing::warn!("cannot read the executable of a process of user {user}");
                self.hung.push((user, reader));
                None
            }
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    fn may_read(&self, user: u32) -> bool {
        let is_hung = self.hung.len() >= HUNG_MAX || self.hung.iter().any(|(hung, _)| *hung == user);
        let waited = self.waited.iter().find(|(known, ..)| *known == user);
        let has_waited =
            waited.map_or(self.waited.len() >= USERS_MAX, |(_, waited, _)| *waited >= WAITED_MAX);
        !is_hung && !has_waited
    }

    fn add(&mut self, user: u32, start: Instant) {
        let time = start.elapsed();
        match self.waited.iter_mut().find(|(known, ..)| *known == user) {
            Some((_, waited, _)) => *waited += time,
            None => self.waited.push((user, time, start)),
        }
    }
}

impl Reader {
    /// Starts a thread, which ends when this is dropped and its read has returned.
    fn start() -> io::Result<Self> {
        let (folders, inbox) = bounded::<PathBuf>(1);
        let (outbox, seen) = bounded(1);
        let read = move || {
            // If this was dropped, the result is not used.
            inbox.iter().map(|folder| see(&folder)).all(|seen| outbox.send(seen).is_ok());
        };
        std::thread::Builder::new().name("inspect".to_owned()).spawn(read)?;
        Ok(Self { folders, seen })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::symlink;

    use nix::unistd::mkfifo;

    use super::*;

    const OWN: &str = "/proc/self";

    fn readers() -> Readers {
        Readers { idle: None, hung: Vec::new(), waited: Vec::new() }
    }

    /// The folder of a process whose arguments cannot be read, until something is written.
    fn silent() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        symlink("/bin/true", folder.path().join("exe")).unwrap();
        mkfifo(&folder.path().join("cmdline"), Mode::S_IRWXU).unwrap();
        folder
    }

    #[test]
    fn what_is_seen_is_the_program_and_its_arguments() {
        let seen = readers().read(1, Path::new(OWN)).unwrap();
        let executable = std::env::current_exe().unwrap();
        assert_eq!(seen.executable, executable.to_str().unwrap());
        assert_eq!(seen.file_key, FileKey::of(&fs::metadata(executable).unwrap()));
        assert_eq!(seen.args, fs::read("/proc/self/cmdline").ok());
    }

    #[test]
    fn a_process_that_cannot_be_read_holds_up_its_own_user_alone() {
        let mut readers = readers();
        let folder = silent();
        let start = Instant::now();
        assert_eq!(readers.read(1, folder.path()), None);
        assert!(readers.read(2, Path::new(OWN)).is_some(), "another user's are read");
        assert_eq!(readers.read(1, Path::new(OWN)), None, "of the same user nothing is read meanwhile");
        assert!(start.elapsed() < 4 * WAIT_MAX, "{:?}", start.elapsed());

        let mut fifo = File::options().write(true).open(folder.path().join("cmdline")).unwrap();
        fifo.write_all(b"x").unwrap();
        drop(fifo);
        let until = Instant::now() + Duration::from_secs(60);
        while readers.read(1, Path::new(OWN)).is_none() {
            assert!(Instant::now() < until, "what has returned hangs no more");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn threads_and_time_have_a_bound() {
        let mut readers = readers();
        let silent: Vec<_> = (0..HUNG_MAX).map(|_| silent()).collect();
        for (user, folder) in (0..).zip(&silent) {
            assert_eq!(readers.read(user, folder.path()), None);
        }
        assert_eq!(readers.read(100, Path::new(OWN)), None, "too many hang");

        let mut readers = Readers { waited: vec![(1, WAITED_MAX, Instant::now())], ..self::readers() };
        assert_eq!(readers.read(1, Path::new(OWN)), None, "its time is used up");
        assert!(readers.read(2, Path::new(OWN)).is_some());
    }
}
