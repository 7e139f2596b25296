//! Returns memory to the system: spare heaps, and what only the start needed.

use procfs::process::{MMPermissions, MMapPath, Process};

/// How many heaps the threads share. One per thread would hold 0.6 MiB more; most allocations are small and come from a
/// cache per thread.
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

/// Releases the memory of the start, which parsed the kernel's types and the rules: tens of megabytes, and code that
/// does not run again. Pages of programs and libraries that are needed after all are mapped again from the page cache.
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
