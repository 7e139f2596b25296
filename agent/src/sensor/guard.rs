//! Whether what the sensor attached is still attached: each link, by its id and that of its program, and each perf event. What
//! was taken away is attached again, where that can be.

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
    /// Of a link; kernels before 5.8 do not report it, and none do for perf events.
    info: Option<LinkInfo>,
}

impl Guard {
    /// Of everything that this process holds now.
    pub(super) fn new() -> Self {
        let links = super::handover::links().unwrap_or_default();
        let attached = links.into_iter().filter_map(|fd| {
            let info = bpf::link_info(fd).ok().map(LinkInfo::identity);
            Some(Attached { fd, place: place(fd)?, info })
        });
        Self { attached: attached.collect(), looked: 0 }
    }

    /// These are attached again, by links that are watched from now on.
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

    /// Looks from time to time. Returns what is attached no more; the empty list means that all is, and `None` that it was not
    /// looked at.
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

/// What is attached no more.
pub(super) struct Fault {
    pub(super) words: String,
    fd: RawFd,
    program: Option<u32>,
    /// Whether the kernel says that it is detached. Else its descriptor is gone, and others may hold the link by one of their own.
    pub(super) is_detached: bool,
}

impl Fault {
    /// The program that was attached, and its hook; nothing of perf events, of which the kernel does not say it.
    pub(super) fn program(&self, ebpf: &Ebpf) -> Option<(String, &'static str, &'static Attach)> {
        let is_it = |program: &Program| program.info().ok().map(|info| info.id()) == self.program;
        let (name, _) = ebpf.programs().find(|(_, program)| is_it(program))?;
        let (hook, place) = hook::of_program(name)?;
        Some((name.to_owned(), hook, place))
    }

    /// Puts something harmless into the place of a descriptor that others closed, for the library closes that number once more, and
    /// a new link must not get it. Whether the number is ours; it is not where another file has it already.
    #[expect(unsafe_code, reason = "fcntl returns a descriptor as a number")]
    pub(super) fn occupy(&self) -> bool {
        if self.is_detached || place(self.fd).is_some_and(|place| place.as_os_str() == NULL) {
            return true;
        }
        let Ok(null) = fs::File::open(NULL).map(OwnedFd::from) else { return false };
        // It is often the lowest number that is free, and then is taken by that already.
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
