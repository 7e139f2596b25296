//! Whether what the sensor attached is still attached: each link, by its id and that of its program, and each perf event.

use std::fs;
use std::os::fd::RawFd;
use std::path::PathBuf;

use super::bpf::{self, LinkInfo};

/// How often that is looked at.
const EVERY_NANOS: u64 = 5_000_000_000;

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
    /// Of a link; kernels before 5.8 tell nothing, nor is it known of perf events.
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

    /// The ids of the links.
    pub(super) fn ids(&self) -> impl Iterator<Item = u32> {
        self.attached.iter().filter_map(|attached| Some(attached.info?.id))
    }

    /// Looks from time to time. Returns what is attached no more; the empty list means that all is, and `None` that it was not
    /// looked at.
    pub(super) fn look(&mut self, now: u64) -> Option<Vec<String>> {
        if now < self.looked + EVERY_NANOS {
            return None;
        }
        self.looked = now;
        Some(self.attached.iter().filter_map(Attached::fault).collect())
    }
}

impl Attached {
    fn fault(&self) -> Option<String> {
        match self.info {
            Some(known) => match bpf::link_info(self.fd).map(LinkInfo::identity) {
                Ok(now) if now == known => None,
                Ok(_) => {
                    Some(format!("link {} of program {} is another, or detached", known.id, known.program))
                }
                Err(error) => Some(format!("link {} of program {}: {error}", known.id, known.program)),
            },
            None if place(self.fd).as_ref() == Some(&self.place) => None,
            None => Some(format!("descriptor {} is no {} any more", self.fd, self.place.display())),
        }
    }
}

fn place(fd: RawFd) -> Option<PathBuf> {
    fs::read_link(format!("/proc/self/fd/{fd}")).ok()
}
