//! Fair shares of a ring: beyond the fill mark, an actor that holds more of what is unread than is still free gives way.
//!
//! The rule is the dynamic threshold of shared-buffer switches: one actor alone may fill some of the ring, several share
//! it, and there is always room for one that comes new. Actors nest: a user, a control group of that user, a program
//! file in that group. Each level may use what its parent has left, so that ten thousand programs or control groups
//! of one user are still one user. Below the mark nothing is counted and nothing is limited.
//!
//! What an actor has unread is estimated: each record adds its length, and the estimate shrinks in the proportion in
//! which the reader has read what was unread at that time.

#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "a key or value that is passed by itself is copied to the stack, of which a program has little left"
)]

use aya_ebpf::macros::map;
use aya_ebpf::maps::{LruHashMap, PerCpuArray};
use lapwing_common::{SHARES_MAX, Share};

use crate::layout::*;
use crate::process::current;
use crate::task;

/// Users, by [`ShareOf`](lapwing_common::ShareOf) and the id of the user who answers for the process. User space reads
/// what each lost.
#[map]
static USERS: LruHashMap<u64, Share> = LruHashMap::with_max_entries(SHARES_MAX, 0);

/// Control groups, by the same and their id. A map of its own, so that many of them do not push out a user.
#[map]
static GROUPS: LruHashMap<u64, Share> = LruHashMap::with_max_entries(SHARES_MAX, 0);

/// Program files, by the same and the address of their inodes. A map of its own likewise.
#[map]
static PROGRAMS: LruHashMap<u64, Share> = LruHashMap::with_max_entries(SHARES_MAX, 0);

/// Room to charge a record for each processor. Another program may use it meanwhile, which makes an estimate less exact.
#[map]
static CHARGES: PerCpuArray<Charge> = PerCpuArray::with_max_entries(1, 0);

/// A record for which actors are charged.
#[derive(Clone, Copy)]
#[repr(C)]
struct Charge {
    /// The key of the actor that is charged.
    key: u64,
    /// The key of the user.
    user: u64,
    /// The actor's share where this is its first: the record's bytes, and the state of the ring.
    first: Share,
    /// Bytes that the actor may hold.
    free: u64,
}

/// Whether the record of `len` bytes that the current task causes has to give way. `of` are the bits of its shares'
/// keys; in its ring so much is `unread` and `free`, and it was read up to `read`. Where it has not, its actors are
/// charged.
///
/// The steps are separate functions, called one after the other, because a program that emits has little stack left.
#[inline(always)]
pub(crate) fn gives_way(of: u64, len: u64, unread: u64, free: u64, read: u64) -> bool {
    begin(len, unread, free, read);
    let is_over = over_user(u64::from(task::current_actor()) | of) != 0
        || over_group(group(of)) != 0
        || over_program(program(of)) != 0;
    if is_over {
        count_dropped();
    }
    is_over
}

#[inline(never)]
fn begin(len: u64, unread: u64, free: u64, read: u64) -> u64 {
    if let Some(charge) = CHARGES.get_ptr_mut(0) {
        // SAFETY: the room is this processor's. One field after the other, for a copy would be one call deeper.
        unsafe {
            (*charge).first.unread = len;
            (*charge).first.ring_unread = unread;
            (*charge).first.ring_read = read;
            (*charge).free = free;
        }
    }
    0
}

/// The control group of the current task.
#[inline(never)]
fn group(of: u64) -> u64 {
    task::cgroup_id(current()) | of
}

/// The program file of the current task.
#[inline(never)]
fn program(of: u64) -> u64 {
    let mm: Address = read(current(), &TASK_MM);
    let file: Address = read_or(mm, &MM_EXE_FILE, core::ptr::null());
    read::<Address, _>(file, &FILE_INODE) as u64 ^ of
}

#[inline(never)]
fn over_user(key: u64) -> u64 {
    if let Some(charge) = CHARGES.get_ptr_mut(0) {
        // SAFETY: the room is this processor's.
        unsafe { (*charge).user = key };
    }
    over(&USERS, key)
}

#[inline(never)]
fn over_group(key: u64) -> u64 {
    over(&GROUPS, key)
}

#[inline(never)]
fn over_program(key: u64) -> u64 {
    over(&PROGRAMS, key)
}

/// Charges an actor, and takes what it holds then from what is free, which leaves what its children may hold. Returns
/// one, and does not charge it, if it would hold more than is free; else zero.
#[inline(always)]
fn over(shares: &LruHashMap<u64, Share>, key: u64) -> u64 {
    let Some(charge) = CHARGES.get_ptr_mut(0) else { return 0 };
    // SAFETY: the room is this processor's, and the entry lies in its map. Another processor may change the entry
    // meanwhile, which makes the estimate less exact.
    unsafe {
        (*charge).key = key;
        let (len, free) = ((*charge).first.unread, (*charge).free);
        let Some(share) = shares.get_ptr_mut(&(*charge).key) else {
            // Where the map takes no entry, the actor stays uncharged until it does.
            let _ = shares.insert(&(*charge).key, &(*charge).first, 0);
            (*charge).free = free.saturating_sub(len);
            return u64::from(len > free);
        };
        let read = (*charge).first.ring_read.wrapping_sub((*share).ring_read);
        let (held, of) = ((*share).unread, (*share).ring_unread);
        let left = if read >= of { 0 } else { held - held * read / of };
        let is_over = left + len > free;
        let holds = if is_over { left } else { left + len };
        (*share).unread = holds;
        (*share).ring_unread = (*charge).first.ring_unread;
        (*share).ring_read = (*charge).first.ring_read;
        (*charge).free = free.saturating_sub(holds);
        u64::from(is_over)
    }
}

/// Counts a record that is dropped for its user.
#[inline(never)]
fn count_dropped() -> u64 {
    if let Some(charge) = CHARGES.get_ptr_mut(0) {
        // SAFETY: the room is this processor's, and the entry lies in its map.
        unsafe {
            if let Some(share) = USERS.get_ptr_mut(&(*charge).user) {
                (*share).dropped += 1;
            }
        }
    }
    0
}
