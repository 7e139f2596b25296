//! The sensor's owners of memory, filled beyond their limits: what `budget::overhead` measures.

use std::sync::Arc;

use lapwing_common::Reach;
use smol_str::format_smolstr;

use super::groups::Groups;
use super::image::{self, Image};
use super::key::{Key, Origin};
use super::key::{NO_CONTEXT, NO_CREDENTIALS};
use super::owner::{Owner, Owners};
use super::process::Table;
use crate::budget::overhead::{Full, Probe};

/// Nanoseconds from the start of one process to that of the next.
const STEP: u64 = 20_000_000;

pub(crate) fn processes(probe: &mut Probe) -> Full {
    table(probe, 60_000, &["--number"])
}

pub(crate) fn fat_processes(probe: &mut Probe) -> Full {
    table(probe, 20_000, &["--some-argument=of-some-length"; 100])
}

/// A table of processes that each run a program of their own, as many users' as there are hundreds.
fn table(probe: &mut Probe, count: u32, args: &[&str]) -> Full {
    probe.begin();
    let mut table = Table::new("boot");
    for pid in 1..count {
        let own = pid.to_string();
        let args = image::args(
            [b"application", own.as_bytes()].into_iter().chain(args.iter().map(|arg| arg.as_bytes())),
        );
        let executable = format!("/usr/local/lib/application/bin/{pid}");
        let image = Image::of_procfs(&executable, args, "/var/lib/application/data", "application");
        let mut credentials = NO_CREDENTIALS;
        credentials.actor = pid % 100;
        let start = u64::from(pid) * STEP;
        let parent = Some(Key::new(1, STEP));
        let (image, context) = (Arc::new(image), NO_CONTEXT);
        table.add(Origin { pid, start, parent, parent_pid: 1, image, credentials, context });
        table.relieve();
    }
    let charged = table.meters()[0].held();
    (Box::new(table), charged)
}

pub(crate) fn groups(probe: &mut Probe) -> Full {
    probe.begin();
    let mut groups = Groups::default();
    for id in 0..50_000 {
        groups.insert(id, format_smolstr!("/kubepods/besteffort/pod-of-some-application/container-{id:060}"));
        groups.flush();
    }
    let charged = groups.bytes();
    (Box::new(groups), charged)
}

pub(crate) fn connections(probe: &mut Probe) -> Full {
    probe.begin();
    let mut owners = Owners::default();
    for socket in 0..200_000 {
        let owner = Owner {
            key: Key::new(7, socket),
            is_acceptor: false,
            reach: Reach::Public,
            user: (socket % 100) as u32,
        };
        owners.set(socket << 6, owner);
    }
    let charged = owners.bytes();
    (Box::new(owners), charged)
}
