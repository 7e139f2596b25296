//! Where `/proc` still shows a process whose first thread has ended: the files of its number are empty then, and those
//! of another thread show what the process is.

use std::fs;
use std::path::PathBuf;

/// How many threads are tried. A thread that has ended is gone, except the first.
const THREADS_MAX: usize = 8;

/// The folder of a process, or of a thread of it that lives. A kernel thread has none.
pub(super) fn folder(pid: u32) -> Option<PathBuf> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let shows_program = |folder: &PathBuf| fs::read_link(folder.join("exe")).is_ok();
    if shows_program(&process) {
        return Some(process);
    }
    let threads = fs::read_dir(process.join("task")).ok()?.take(THREADS_MAX);
    threads.filter_map(|thread| Some(thread.ok()?.path())).find(shows_program)
}
