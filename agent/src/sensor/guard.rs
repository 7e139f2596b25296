//! Checks that everything is still attached: each link, by its id and its program's, and each perf event. What was
//! detached is attached again, if possible.

use std::fs;
use std::os::fd::{AsRawFd as _, FromRawFd as _, IntoRawFd as _, OwnedFd, RawFd};
use std::path::PathBuf;

use aya::Ebpf;
use aya::programs::Program;
use nix::fcntl::{FcntlArg, fcntl};

use super::attach::{self, Attach};
use super::bpf::{self, LinkInfo};
use super::hook;

/// How often this is checked.
const EVERY_NANOS: u64 = 5_000_000_000;

const NULL: &str = "/dev/null";

/// What is attached.
#[derive(Default)]
pub(super) struct Guard {
    attached: Vec<Attached>,
    looked: u64,
}

/// One place where a program is attached.
struct Attached {
    fd: RawFd,
    /// What the descriptor is, below `/proc/self/fd`.
    place: PathBuf,
    /// A link's id; kernels before 5.8 do not report it, and no kernel does for perf events.
    info: Option<LinkInfo>,
}

impl Guard {
    /// For everything that this process has attached now.
    pub(super) fn new() -> Self {
        let links = super::handover::links().unwrap_or_default();
        let attached = links.into_iter().filter_map(|fd| {
            let info = bpf::link_info(fd).ok().map(LinkInfo::identity);
            Some(Attached { fd, place: place(fd)?, info })
        });
        Self { attached: attached.collect(), looked: 0 }
    }

    /// These were attached again; their new links are watched from now on.
    pub(super) fn mended(&mut self, faults: &[&Fault]) {
        self.attached.retain(|old| !faults.iter().any(|fault| fault.fd == old.fd));
        for new in Self::new().attached {
            if !self.attached.iter().any(|old| old.fd == new.fd) {
                self.attached.push(new);
            }
        }
    }

    /// The ids of the links.
    pub(super) fn ids(&self) -> impl Iterator<Item = u32> {
        self.attached.iter().filter_map(|attached| Some(attached.info?.id))
    }

    /// Checks every [`EVERY_NANOS`]. Returns what is not attached any more: an empty list if all is, `None` if it is not
    /// time yet.
    pub(super) fn look(&mut self, now: u64) -> Option<Vec<Fault>> {
        if now < self.looked + EVERY_NANOS {
            return None;
        }
        self.looked = now;
        Some(self.attached.iter().filter_map(Attached::fault).collect())
    }
}

impl Attached {
    fn fault(&self) -> Option<Fault> {
        let fault = |words: String, is_detached| {
            Some(Fault { words, fd: self.fd, program: self.info.map(|info| info.program), is_detached })
        };
        match self.info {
            Some(known) => match bpf::link_info(self.fd).map(LinkInfo::identity) {
                Ok(now) if now == known => None,
                Ok(now) => {
                    let words =
                        format!("link {} of program {} is another, or detached", known.id, known.program);
                    fault(words, now.id == known.id)
                }
                Err(error) => {
                    let words = format!(
                        "link {} of program {}, whose descriptor {} was closed ({error})",
                        known.id, known.program, self.fd
                    );
                    fault(words, false)
                }
            },
            None if place(self.fd).as_ref() == Some(&self.place) => None,
            None => fault(format!("descriptor {} is no {} any more", self.fd, self.place.display()), false),
        }
    }
}

/// What is not attached any more.
pub(super) struct Fault {
    pub(super) words: String,
    fd: RawFd,
    program: Option<u32>,
    /// Whether the kernel reports it as detached. Otherwise its descriptor was closed, and other processes may still
    /// hold the link.
    pub(super) is_detached: bool,
}

impl Fault {
    /// The program that was attached, and its hook; `None` for perf events, for which the kernel does not report it.
    pub(super) fn program(&self, ebpf: &Ebpf) -> Option<(String, &'static str, &'static Attach)> {
        let is_it = |program: &Program| program.info().ok().map(|info| info.id()) == self.program;
        let (name, _) = ebpf.programs().find(|(_, program)| is_it(program))?;
        let (hook, place) = hook::of_program(name)?;
        Some((name.to_owned(), hook, place))
    }

    /// Occupies the number of a descriptor that others closed with a harmless file, because the library will close that
    /// number again, and a new link must not get it. Returns false if another file has the number already.
    #[expect(unsafe_code, reason = "fcntl returns a descriptor as a number")]
    pub(super) fn occupy(&self) -> bool {
        if self.is_detached || place(self.fd).is_some_and(|place| place.as_os_str() == NULL) {
            return true;
        }
        let Ok(null) = fs::File::open(NULL).map(OwnedFd::from) else { return false };
        // It is often the lowest free number, which the new file has already then.
        if null.as_raw_fd() == self.fd {
            return null.into_raw_fd() == self.fd;
        }
        let Ok(taken) = fcntl(&null, FcntlArg::F_DUPFD_CLOEXEC(self.fd)) else { return false };
        // SAFETY: the kernel has just opened it, for this owner alone.
        let taken = unsafe { OwnedFd::from_raw_fd(taken) };
        taken.as_raw_fd() == self.fd && taken.into_raw_fd() == self.fd
    }

    /// Attaches the program again.
    ///
    /// # Errors
    /// Why that cannot be.
    pub(super) fn mend(&self, ebpf: &mut Ebpf) -> Result<&'static str, String> {
        let unknown = || "the kernel does not say which program it was".to_owned();
        let (name, hook, place) = self.program(ebpf).ok_or_else(unknown)?;
        let program = ebpf.program_mut(&name).ok_or_else(unknown)?;
        attach::attach_again(program, place).map(|()| hook)
    }
}

fn place(fd: RawFd) -> Option<PathBuf> {
    fs::read_link(format!("/proc/self/fd/{fd}")).ok()
}
