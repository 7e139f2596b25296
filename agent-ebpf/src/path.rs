//! The tail of a record: texts, paths, arguments, appended one after the other.
//!
//! Each piece has its own room: an attacker who chooses a long one cannot displace another.

use aya_ebpf::helpers::generated::bpf_probe_read_user;
use lapwing_common::{
    ARGS_BYTES_MAX, ENVIRONMENT_BYTES_MAX, NAMES_BYTES_MAX, RECORD_BYTES_MAX, Span, TEXT_BYTES_MAX,
};

use crate::layout::*;
use crate::scratch::Scratch;
use crate::walk;

/// Bytes of arguments per read; a chunk that is not in memory ends the reading.
const CHUNK_BYTES: usize = 4096;
const CHUNK_MASK: usize = 2 * CHUNK_BYTES - 1;

/// A record that is being written, with its tail.
#[derive(Clone, Copy)]
pub(crate) struct Tail {
    place: u64,
    scratch: *mut Scratch,
}

impl Tail {
    /// Begins the tail behind a fixed part of this size, in the place that has this number.
    ///
    /// # Safety
    /// The place is that of the program that runs, and its record begins with a header.
    #[inline(always)]
    pub(crate) unsafe fn begin(place: u64, scratch: *mut Scratch, fixed_bytes: usize) -> Self {
        let tail = Self { place, scratch };
        tail.scratch().set(fixed_bytes);
        tail
    }

    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "one at a time, as all of this is done by one program")]
    fn scratch(&self) -> &mut Scratch {
        // SAFETY: by the promise to `begin` nothing else uses it.
        unsafe { &mut *self.scratch }
    }

    /// Bytes of the record so far.
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.scratch().len()
    }

    /// Appends a text of the kernel's.
    #[inline(always)]
    pub(crate) fn text(&self, text: Address) -> Span {
        let start = self.len();
        self.scratch().walk.limit = (start + TEXT_BYTES_MAX) as u32;
        let mark = if self.scratch().put(text) { 0 } else { Span::CUT };
        self.span(start, mark)
    }

    /// Appends the path of a directory entry on a mount, as a process of this mount namespace sees it.
    #[inline(never)]
    pub(crate) fn path(self, dentry: Address, vfsmount: Address, namespace: Address) -> u64 {
        let start = self.len();
        let walk = &mut self.scratch().walk;
        walk.begin(dentry, start + NAMES_BYTES_MAX, if is_deleted(dentry) { Span::DELETED } else { 0 });
        walk.mount = around(vfsmount, &MOUNT_MNT);
        walk.root = read(vfsmount, &VFSMOUNT_ROOT);
        walk.namespace = namespace;
        walk::path(self.place);
        walk::upper(self.scratch(), &DENTRY_NAME);
        pack(self.span(start, self.scratch().walk.mark))
    }

    /// Appends the path of a control group.
    #[inline(never)]
    pub(crate) fn cgroup(self, node: Address) -> u64 {
        let start = self.len();
        self.scratch().walk.begin(node, start + NAMES_BYTES_MAX, 0);
        walk::cgroup(self.place);
        walk::upper(self.scratch(), &KERNFS_NAME);
        pack(self.span(start, self.scratch().walk.mark))
    }

    /// Appends the wanted variables of the process's environment, which is between two addresses of its memory.
    #[inline(never)]
    pub(crate) fn environment(self, from: Address, to: Address) -> u64 {
        let start = self.len();
        let walk = &mut self.scratch().walk;
        walk.begin(from, start + ENVIRONMENT_BYTES_MAX, 0);
        walk.to = to;
        walk::environment(self.place);
        pack(self.span(start, self.scratch().walk.mark))
    }

    /// Appends the process's own arguments, `bytes` in all from `from` on. They come last: nothing may follow.
    #[inline(never)]
    pub(crate) fn args(self, from: Address, bytes: usize) -> u64 {
        let start = self.len();
        let mut mark = if bytes > ARGS_BYTES_MAX { Span::CUT } else { 0 };
        for chunk in 0..ARGS_BYTES_MAX / CHUNK_BYTES {
            let done = chunk * CHUNK_BYTES;
            if done >= bytes {
                break;
            }
            // Verifiers before 6.8 do not follow the comparison that makes this small; the mask, which the compiler
            // must not see through, is what they understand.
            let size = core::hint::black_box((bytes - done).min(CHUNK_BYTES)) & CHUNK_MASK;
            let end = self.len();
            if end > RECORD_BYTES_MAX - CHUNK_MASK {
                mark |= Span::CUT;
                break;
            }
            // SAFETY: `CHUNK_MASK` bytes from `end` on are inside the record's room, as was just checked.
            let failed = unsafe {
                bpf_probe_read_user(
                    self.scratch().bytes().add(end).cast(),
                    size as u32,
                    from.wrapping_add(done).cast(),
                )
            };
            if failed != 0 {
                mark |= Span::UNREADABLE;
                break;
            }
            self.scratch().set(end + size);
        }
        pack(self.span(start, mark))
    }

    #[inline(always)]
    fn span(&self, start: usize, mark: u32) -> Span {
        Span { offset: start as u32, len: (self.len() - start) as u32 & Span::LEN | mark }
    }
}

/// What a function of the kernel's instruction set can return: one register.
#[inline(always)]
fn pack(span: Span) -> u64 {
    u64::from(span.offset) << 32 | u64::from(span.len)
}

/// The span that a function packed.
#[inline(always)]
pub(crate) fn span(packed: u64) -> Span {
    Span { offset: (packed >> 32) as u32, len: packed as u32 }
}

/// Whether the entry has no name any more. Roots have none to begin with.
#[inline(always)]
fn is_deleted(dentry: Address) -> bool {
    let above: Address = read(dentry, &DENTRY_PARENT);
    let hashed: Address = read(dentry, &DENTRY_HASHED);
    above != dentry && hashed.is_null()
}
