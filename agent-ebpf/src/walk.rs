//! Walks of unknown length: up a path, up the control groups, along an environment.
//!
//! A verifier follows every round of a loop, and a path of 4 KiB may have 2,048 names. Here one step is a function with
//! external linkage, which the verifier checks once and separately: a round of the loop is then only a call. What the
//! steps share is in the place of [`Scratch`] whose number they are given, for such a function takes numbers only.
//!
//! A path is walked from its last name up, and its names are written in that order: user space turns it around. It ends
//! at the root of the process's mount namespace, not at its `chroot`: in a container this gives the path as seen there,
//! and no process can pass for `/usr/bin/curl` by a `chroot` into a folder it prepared. Where it ends elsewhere, at a
//! mount that is attached nowhere or in another namespace, it is marked. Names for which there is no room are dropped,
//! except the topmost, and the path is marked.

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel_str, bpf_probe_read_user_str};
use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use lapwing_common::layout::Pointer;
use lapwing_common::{
    Header, PATHS_BYTES_MAX, Span, TEXT_BYTES_MAX, UPPER_NAMES_BYTES_MAX, UPPER_NAMES_MAX,
    VARIABLE_BYTES_MAX, WANTED_MAX,
};

use crate::layout::*;
use crate::scratch::{self, Scratch};

/// Steps between two checks for the end of a walk, and the number of checks: their product is the longest walk.
const ROUND: usize = 128;
const ROUNDS: usize = 128;
const _: () = assert!(ROUND * ROUNDS == lapwing_common::STEPS_MAX);
/// The return values of steps: whether there is more.
const MORE: u64 = 0;
const OVER: u64 = 1;
/// Addresses from here on are the kernel's errors. match-proto:v2.6.12:include/linux/err.h:MAX_ERRNO
const ERRORS: u64 = u64::MAX - 4094;
/// The numbers of a mount namespace that belongs to no process: zero, and since 6.18 `MNT_NS_ANON_INO`.
const ANONYMOUS_NAMESPACES: [u32; 2] = [0, 0xEFFF_FFF7];

/// The first four bytes of the variables that are wanted, up to their equals sign: few others begin so, and user space
/// drops these.
#[map]
static BEGINNINGS: HashMap<u32, u8> = HashMap::with_max_entries(WANTED_MAX, 0);

/// How far a walk has come.
#[repr(C)]
pub(crate) struct Walk {
    /// Where it is: a directory entry, a node of the control groups, an address of the process.
    pub(crate) at: Address,
    /// Where an environment ends.
    pub(crate) to: Address,
    /// The mount that `at` is on, and the entry that is the root of it; none where the walk goes on to the file
    /// system's.
    pub(crate) mount: Address,
    pub(crate) root: Address,
    /// The process's mount namespace; none where it is not to be compared.
    pub(crate) namespace: Address,
    /// The entries or nodes that were passed last without room for their names, around and around.
    upper: [Address; UPPER_NAMES_MAX],
    /// Marks of the [`Span`].
    pub(crate) mark: u32,
    /// The names of this piece end here at the latest, from the record's beginning.
    pub(crate) limit: u32,
    /// How many names there was no room for.
    skipped: u32,
    /// Whether it came to its end.
    is_over: u32,
    /// Whether what is read next is the rest of a variable.
    is_rest: u32,
}

impl Walk {
    /// Begins a piece of the tail at `at` that ends at `limit`.
    #[inline(always)]
    pub(crate) fn begin(&mut self, at: Address, limit: usize, mark: u32) {
        self.at = at;
        self.limit = limit as u32;
        // Cleared where it ends as it should.
        self.mark = mark | Span::CUT;
        (self.skipped, self.is_over, self.is_rest) = (0, 0, 0);
    }

    /// The walk is over, and has come to its end: only what there was no room for is missing.
    #[inline(always)]
    fn end(&mut self, mark: u32) -> u64 {
        self.is_over = 1;
        if self.skipped == 0 {
            self.mark &= !Span::CUT;
        }
        self.mark |= mark;
        OVER
    }
}

/// Defines a function that takes as many steps as are needed, and one with external linkage that takes some.
macro_rules! walk {
    ($(#[$doc:meta])* $walk:ident, $round:ident, $step:ident: $take:ident) => {
        $(#[$doc])*
        #[inline(always)]
        pub(crate) fn $walk(place: u64) {
            for _ in 0..ROUNDS {
                if $round(place) != MORE {
                    break;
                }
            }
        }

        /// Takes some steps.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(crate) extern "C" fn $round(place: u64) -> u64 {
            for _ in 0..ROUND {
                if $step(place) != MORE {
                    return OVER;
                }
            }
            MORE
        }

        /// Takes a step.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(crate) extern "C" fn $step(place: u64) -> u64 {
            let Some(scratch) = scratch::at(place) else { return OVER };
            // SAFETY: the place is that of the program which called, and no other uses it meanwhile.
            unsafe { $take(&mut *scratch) }
        }
    };
}
walk!(
    /// Walks up a path.
    path, path_round, path_step: up_path
);
walk!(
    /// Walks up the control groups.
    cgroup, cgroup_round, cgroup_step: up_cgroups
);
walk!(
    /// Walks along an environment.
    environment, environment_round, environment_step: along_environment
);

/// Writes the upmost of the names that found no room, which a walk to the end passed last: from the root down, behind an
/// empty name, so that what is missing lies between these and the others.
#[inline(always)]
pub(crate) fn upper(scratch: &mut Scratch, name: &Member<Pointer>) {
    let skipped = scratch.walk.skipped;
    if skipped == 0 || scratch.walk.is_over == 0 {
        return;
    }
    scratch.put_gap();
    scratch.walk.limit += UPPER_NAMES_BYTES_MAX as u32;
    for index in 0..UPPER_NAMES_MAX as u32 {
        if index == skipped {
            scratch.walk.mark &= !Span::CUT;
            break;
        }
        let entry = scratch.walk.upper[(skipped - 1 - index) as usize & (UPPER_NAMES_MAX - 1)];
        if !scratch.put(read_or(entry, name, core::ptr::null())) {
            break;
        }
    }
}

/// From an entry to its folder, or from the root of a mount to where that is mounted.
#[inline(always)]
fn up_path(scratch: &mut Scratch) -> u64 {
    let entry = scratch.walk.at;
    if entry == scratch.walk.root {
        return up_mount(&mut scratch.walk);
    }
    let above: Address = read(entry, &DENTRY_PARENT);
    let is_top = above == entry || above.is_null();
    if is_top && scratch.walk.mark & Span::DETACHED != 0 {
        return scratch.walk.end(0);
    }
    scratch.put_or_skip(entry, read(entry, &DENTRY_NAME));
    scratch.walk.at = above;
    if is_top { scratch.walk.end(Span::ANONYMOUS) } else { MORE }
}

/// From the root of a mount on.
#[inline(always)]
fn up_mount(walk: &mut Walk) -> u64 {
    let above: Address = read(walk.mount, &MOUNT_PARENT);
    if above != walk.mount && !above.is_null() {
        walk.at = read(walk.mount, &MOUNT_MOUNTPOINT);
        walk.mount = above;
        walk.root = read(at(above, &MOUNT_MNT), &VFSMOUNT_ROOT);
        return MORE;
    }
    if walk.namespace.is_null() || !has(&MOUNT_NAMESPACE) {
        return walk.end(0);
    }
    let namespace: Address = read(walk.mount, &MOUNT_NAMESPACE);
    if namespace == walk.namespace {
        return walk.end(0);
    }
    let number: u32 = read_or(namespace, &NS_MNT_INUM, 0);
    if namespace as u64 >= ERRORS || ANONYMOUS_NAMESPACES.contains(&number) {
        walk.mark |= Span::DETACHED;
        walk.root = core::ptr::null();
        return MORE;
    }
    walk.end(Span::FOREIGN)
}

/// From a control group to the one that it is in. The upmost has no name.
#[inline(always)]
fn up_cgroups(scratch: &mut Scratch) -> u64 {
    let node = scratch.walk.at;
    let above: Address = read_or(node, &KERNFS_PARENT, core::ptr::null());
    if above.is_null() {
        return scratch.walk.end(0);
    }
    scratch.put_or_skip(node, read_or(node, &KERNFS_NAME, core::ptr::null()));
    scratch.walk.at = above;
    MORE
}

/// Over a variable, which becomes a part of the record where it begins as a wanted one does.
#[inline(always)]
fn along_environment(scratch: &mut Scratch) -> u64 {
    let from = scratch.walk.at;
    if from >= scratch.walk.to {
        return scratch.walk.end(0);
    }
    let end = scratch.len();
    if end > PATHS_BYTES_MAX - VARIABLE_BYTES_MAX {
        return OVER;
    }
    // SAFETY: `VARIABLE_BYTES_MAX` bytes from `end` on are inside the record's room, as was just checked.
    let (took, beginning) = unsafe {
        let room = scratch.bytes().add(end);
        let took = bpf_probe_read_user_str(room.cast(), VARIABLE_BYTES_MAX as u32, from.cast());
        (took, room.cast::<u32>().read_unaligned())
    };
    if took <= 0 {
        scratch.walk.mark |= Span::UNREADABLE;
        return OVER;
    }
    let took = took as usize;
    if scratch.walk.is_rest == 0 && BEGINNINGS.get_ptr(beginning).is_some() {
        if end + took > scratch.walk.limit as usize {
            return OVER;
        }
        scratch.set(end + took);
    }
    // What did not fit goes on in place of its end mark.
    let is_rest = took == VARIABLE_BYTES_MAX;
    scratch.walk.is_rest = u32::from(is_rest);
    scratch.walk.at = from.wrapping_add(took - usize::from(is_rest));
    MORE
}

impl Scratch {
    /// Appends a name, or remembers whose it is where there is no room for it. After one that found none none does.
    #[inline(always)]
    fn put_or_skip(&mut self, entry: Address, name: Address) {
        if self.walk.skipped != 0 || !self.put(name) {
            self.walk.upper[self.walk.skipped as usize & (UPPER_NAMES_MAX - 1)] = entry;
            self.walk.skipped += 1;
        }
    }

    /// Appends a text of the kernel's with its end mark. Whether there was room up to the walk's limit.
    #[inline(always)]
    pub(crate) fn put(&mut self, text: Address) -> bool {
        let end = self.len();
        if end > PATHS_BYTES_MAX - TEXT_BYTES_MAX {
            return false;
        }
        // SAFETY: `TEXT_BYTES_MAX` bytes from `end` on are inside the record's room, as was just checked.
        let took = unsafe {
            bpf_probe_read_kernel_str(self.bytes().add(end).cast(), TEXT_BYTES_MAX as u32, text.cast())
        };
        if took <= 0 || end + took as usize > self.walk.limit as usize {
            return false;
        }
        self.set(end + took as usize);
        true
    }

    /// Appends the empty name that marks missing ones.
    #[inline(always)]
    fn put_gap(&mut self) {
        let end = self.len();
        if end < PATHS_BYTES_MAX {
            // SAFETY: a byte at `end` is inside the record's room, as was just checked.
            unsafe { self.bytes().add(end).write(0) };
            self.set(end + 1);
        }
    }

    /// The record as bytes.
    #[inline(always)]
    pub(crate) fn bytes(&mut self) -> *mut u8 {
        self.record.as_mut_ptr().cast()
    }

    /// Bytes of the record so far. It stands in its own header, in memory: to the verifier it is unknown each time it is
    /// read, so that one look at the body of a loop serves for all its rounds.
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        let header = self.record.as_ptr().cast::<Header>();
        // SAFETY: every record begins with its header.
        unsafe { core::ptr::read_volatile(&raw const (*header).len) as usize }
    }

    /// Says how long the record is.
    #[inline(always)]
    pub(crate) fn set(&mut self, len: usize) {
        let header = self.record.as_mut_ptr().cast::<Header>();
        // SAFETY: as above.
        unsafe { core::ptr::write_volatile(&raw mut (*header).len, len as u32) }
    }
}
