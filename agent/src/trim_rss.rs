//! How much memory the process keeps from the system: heaps, and what only the start needed.

use procfs::process::{MMPermissions, MMapPath, Process};

/// How many heaps the threads share. One for each thread keeps 0.6 MiB more; most of what they allocate is small, and comes from a
/// cache of each thread's own.
#[cfg(target_env = "gnu")]
const HEAPS: libc::c_int = 2;

/// Bounds the heaps. It is called before there are threads.
#[expect(unsafe_code, reason = "these are calls of libc")]
pub(crate) fn share_heaps() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: it has no preconditions.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, HEAPS) };
    }
}

/// Gives the memory of the start back: the kernel's types and the rules were parsed there, tens of megabytes, by code that
/// does not run again. What of programs and libraries is needed after all, the kernel maps again from its cache.
#[cfg_attr(
    not(test),
    expect(clippy::disallowed_methods, reason = "this process's own mappings are as many as it makes")
)]
#[expect(unsafe_code, reason = "these are calls of libc")]
pub(crate) fn release() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: it has no preconditions.
        unsafe { libc::malloc_trim(0) };
    }
    let Ok(maps) = Process::myself().and_then(|own| own.smaps()) else { return };
    for map in maps {
        let is_file = matches!(map.pathname, MMapPath::Path(_));
        let is_written = map.perms.contains(MMPermissions::WRITE)
            || map.extension.map.get("Anonymous").is_none_or(|bytes| *bytes != 0);
        if is_file && map.perms.contains(MMPermissions::PRIVATE) && !is_written {
            let (start, end) = map.address;
            // SAFETY: the pages are as they are in the file, which nothing here may write to, and can be read from it
            // again at any time; a library that is unloaded meanwhile has no pages there.
            unsafe { libc::madvise(start as *mut libc::c_void, (end - start) as usize, libc::MADV_DONTNEED) };
        }
    }
}
