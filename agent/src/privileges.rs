//! Drops the privileges that are not needed after the start.

use anyhow::{Context as _, Result};
use caps::{CapSet, Capability, CapsHashSet};

/// The capabilities that a running agent needs, with their use.
const NEEDED: [Capability; 4] = [
    // Reading the programs' maps, and running the program that reads a socket's port.
    Capability::CAP_BPF,
    Capability::CAP_PERFMON,
    // `/proc/PID/exe` and `/proc/PID/fd` of other users' processes, for alerts.
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_DAC_READ_SEARCH,
];

/// Drops every capability that is no longer needed, and the ability to gain one by execve. This applies to this thread and
/// those that it starts later.
///
/// # Errors
/// The kernel refuses, which it never does for a thread that only drops capabilities.
pub(crate) fn drop_capabilities() -> Result<()> {
    nix::sys::prctl::set_no_new_privs().context("cannot set no_new_privs")?;
    let held = caps::read(None, CapSet::Permitted).context("cannot read the capabilities")?;
    let kept: CapsHashSet = NEEDED.into_iter().filter(|capability| held.contains(capability)).collect();
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).unwrap_or(false) {
        for capability in caps::all().into_iter().filter(|capability| !kept.contains(capability)) {
            // A capability that this kernel does not have cannot be dropped and is not held.
            let _ = caps::drop(None, CapSet::Bounding, capability);
        }
    }
    for set in [CapSet::Ambient, CapSet::Inheritable] {
        caps::clear(None, set).with_context(|| format!("cannot clear the {set:?} capabilities"))?;
    }
    for set in [CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, &kept).with_context(|| format!("cannot set the {set:?} capabilities"))?;
    }
    Ok(())
}
