//! Which processes hold a file open at this moment. The kernel's notifications do not say who changed a file, and who still has
//! it open has most likely done it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Most processes of root that are looked at, and most descriptors of each.
const PROCESSES_MAX: usize = 2_048;
const DESCRIPTORS_MAX: usize = 256;
/// Most holders that are named.
const HOLDERS_MAX: usize = 4;

/// The numbers of the processes of root, but for this one, that hold a file open.
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
