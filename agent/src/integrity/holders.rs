//! The processes that have a file open. The kernel's notifications do not report who changed a file; a process that still has it
//! open most likely did.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Maximum number of root's processes that are checked, and of descriptors of each.
const PROCESSES_MAX: usize = 2_048;
const DESCRIPTORS_MAX: usize = 256;
/// Maximum number of holders that are reported.
const HOLDERS_MAX: usize = 4;

/// The pids of root's processes, except this one, that have a file open.
pub(super) fn of(path: &Path) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let own = std::process::id();
    let numbers = entries.flatten().filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        (pid != own && entry.metadata().ok()?.uid() == 0).then_some(pid)
    });
    numbers.take(PROCESSES_MAX).filter(|pid| holds(*pid, path)).take(HOLDERS_MAX).collect()
}

fn holds(pid: u32, path: &Path) -> bool {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    entries
        .flatten()
        .take(DESCRIPTORS_MAX)
        .any(|entry| fs::read_link(entry.path()).is_ok_and(|target| target == path))
}
