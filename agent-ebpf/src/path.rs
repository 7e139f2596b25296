//! The tail of a record: texts, paths, arguments, appended one after the other.
//!
//! A path is walked from its last name up, and its names are written in that order: user space turns it around. The
//! walk ends at the root of the process's mount namespace, not at its `chroot`: in a container this gives the path
//! that people there know, and no process can pass for `/usr/bin/curl` by a `chroot` into a folder it prepared.
//!
//! How far the tail has come stands in the record's own `header.len`, in memory: to the verifier it is unknown each
//! time it is read, so that one look at the body of a loop serves for all its rounds.

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel_str, bpf_probe_read_user, bpf_probe_read_user_str};
use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use lapwing_common::{
    ARGS_BYTES_MAX, Exec, NAME_BYTES_MAX, NAMES_MAX, PATHS_BYTES_MAX, RECORD_BYTES_MAX, Span,
    VARIABLE_BYTES_MAX, VARIABLES_MAX, WANTED_MAX,
};

use crate::layout::*;

/// Bytes of arguments that are read at once; a chunk that is not in memory ends the reading.
const CHUNK_BYTES: usize = 4096;
const CHUNK_MASK: usize = 2 * CHUNK_BYTES - 1;

/// The first four bytes of the variables that are wanted, up to their equals sign: few others begin so, and those are
/// user space's to leave out.
#[map]
static BEGINNINGS: HashMap<u32, u8> = HashMap::with_max_entries(WANTED_MAX, 0);

/// A record of an exec that is being written, with its tail.
pub(crate) struct Tail(*mut u8);

impl Tail {
    /// Begins the tail behind the fixed part.
    ///
    /// # Safety
    /// `scratch` points to `RECORD_BYTES_MAX` bytes that nobody else uses, beginning with an [`Exec`].
    #[inline(always)]
    pub(crate) unsafe fn begin(scratch: *mut u8) -> Self {
        let tail = Self(scratch);
        tail.set(size_of::<Exec>());
        tail
    }

    /// Bytes of the record so far.
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        // SAFETY: the record is ours, by the promise to `begin`.
        unsafe { core::ptr::read_volatile(&raw const (*self.0.cast::<Exec>()).header.len) as usize }
    }

    /// Appends a text of the kernel's, of at most [`NAME_BYTES_MAX`] bytes a piece and 16 pieces.
    #[inline(always)]
    pub(crate) fn text(&self, text: Address) -> Span {
        let start = self.len();
        let mut from = text;
        for _ in 0..16 {
            let end = self.name(from);
            // A piece that fills its room goes on in the next, in place of its end mark.
            if end != NAME_BYTES_MAX {
                return self.span(start, 0);
            }
            self.set(self.len() - 1);
            from = from.wrapping_add(NAME_BYTES_MAX - 1);
        }
        self.span(start, Span::CUT)
    }

    /// Appends the path of a directory entry on a mount.
    #[inline(never)]
    pub(crate) fn path(&self, dentry: Address, vfsmount: Address) -> u64 {
        let start = self.len();
        let mut mark = Span::CUT;
        let mut dentry = dentry;
        let mut mount = vfsmount.wrapping_sub(MOUNT_MNT.load() as usize);
        if is_deleted(dentry) {
            mark |= Span::DELETED;
        }
        for _ in 0..NAMES_MAX {
            let root: Address = read(at(mount, &MOUNT_MNT), &VFSMOUNT_ROOT);
            if dentry == root {
                let above: Address = read(mount, &MOUNT_PARENT);
                if above == mount || above.is_null() {
                    mark &= !Span::CUT;
                    break;
                }
                dentry = read(mount, &MOUNT_MOUNTPOINT);
                mount = above;
                continue;
            }
            let above: Address = read(dentry, &DENTRY_PARENT);
            self.name(read(dentry, &DENTRY_NAME));
            if above == dentry || above.is_null() {
                mark = (mark & !Span::CUT) | Span::ANONYMOUS;
                break;
            }
            dentry = above;
        }
        pack(self.span(start, mark))
    }

    /// Appends the path of a control group.
    #[inline(never)]
    pub(crate) fn cgroup(&self, node: Address) -> u64 {
        let start = self.len();
        let mut mark = Span::CUT;
        let mut node = node;
        for _ in 0..NAMES_MAX {
            let above: Address = read_or(node, &KERNFS_PARENT, core::ptr::null());
            if above.is_null() {
                mark = 0;
                break;
            }
            self.name(read_or(node, &KERNFS_NAME, core::ptr::null()));
            node = above;
        }
        pack(self.span(start, mark))
    }

    /// Appends the wanted variables of the process's environment, which lies between two addresses of its own.
    ///
    /// Each variable is read behind the tail, and becomes a part of it where it begins as a wanted one does.
    #[inline(never)]
    pub(crate) fn environment(&self, from: Address, to: Address) -> u64 {
        let start = self.len();
        let mut from = from;
        let mut is_rest = false;
        for _ in 0..VARIABLES_MAX {
            if from >= to {
                return pack(self.span(start, 0));
            }
            let end = self.len();
            if end > PATHS_BYTES_MAX - VARIABLE_BYTES_MAX {
                break;
            }
            // SAFETY: `VARIABLE_BYTES_MAX` bytes from `end` on are inside the record's room, as was just looked at.
            let (took, beginning) = unsafe {
                let room = self.0.add(end);
                let took = bpf_probe_read_user_str(room.cast(), VARIABLE_BYTES_MAX as u32, from.cast());
                (took, room.cast::<u32>().read_unaligned())
            };
            if took <= 0 {
                return pack(self.span(start, Span::UNREADABLE));
            }
            if !is_rest && BEGINNINGS.get_ptr(beginning).is_some() {
                self.set(end + took as usize);
            }
            // What did not fit goes on in place of its end mark.
            is_rest = took as usize == VARIABLE_BYTES_MAX;
            from = from.wrapping_add(took as usize - usize::from(is_rest));
        }
        pack(self.span(start, Span::CUT))
    }

    /// Appends the process's own arguments, `bytes` in all from `from` on. They come last: nothing may follow.
    #[inline(never)]
    pub(crate) fn args(&self, from: Address, bytes: usize) -> u64 {
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
            // SAFETY: `CHUNK_MASK` bytes from `end` on are inside the record's room, as was just looked at.
            let failed = unsafe {
                bpf_probe_read_user(self.0.add(end).cast(), size as u32, from.wrapping_add(done).cast())
            };
            if failed != 0 {
                mark |= Span::UNREADABLE;
                break;
            }
            self.set(end + size);
        }
        pack(self.span(start, mark))
    }

    /// Appends one name with its end mark, and returns how many bytes it took.
    #[inline(always)]
    fn name(&self, name: Address) -> usize {
        let end = self.len();
        if end > PATHS_BYTES_MAX - NAME_BYTES_MAX {
            return 0;
        }
        // SAFETY: `NAME_BYTES_MAX` bytes from `end` on are inside the record's room, as was just looked at.
        let took =
            unsafe { bpf_probe_read_kernel_str(self.0.add(end).cast(), NAME_BYTES_MAX as u32, name.cast()) };
        if took <= 0 {
            return 0;
        }
        self.set(end + took as usize);
        took as usize
    }

    #[inline(always)]
    fn set(&self, len: usize) {
        // SAFETY: the record is ours, by the promise to `begin`.
        unsafe { core::ptr::write_volatile(&raw mut (*self.0.cast::<Exec>()).header.len, len as u32) }
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
