//! What names a file.

use lapwing_common::{ABSENT, File};

use crate::layout::*;

/// Since 6.13 the highest bit of the nanoseconds says whether the time was queried.
/// match-proto:v6.13:include/linux/fs.h:I_CTIME_QUERIED
const CTIME_NANOS: u32 = (1 << 31) - 1;
/// match-proto:v3.18:include/uapi/linux/magic.h
const OVERLAYFS_SUPER_MAGIC: u32 = 0x794c_7630;

/// What names the file of an inode.
#[inline(always)]
pub(crate) fn of<B: Base>(inode: B) -> File {
    let super_block: B = read(inode, &INODE_SB);
    let nanos = read_or(inode, &INODE_CTIME_NANOS, ABSENT);
    let magic = read_or(super_block, &SUPER_BLOCK_MAGIC, 0) as u32;
    let has_ctime = has(&INODE_CTIME_NANOS) && !(magic == OVERLAYFS_SUPER_MAGIC && is_a_users(super_block));
    File {
        inode: read(inode, &INODE_INO),
        size: read_or(inode, &INODE_SIZE, 0),
        changed: read_or(inode, &INODE_CTIME_SECS, 0) as i64,
        changed_nanos: if has_ctime { nanos & CTIME_NANOS } else { ABSENT },
        device: read_or(super_block, &SUPER_BLOCK_DEV, 0),
        generation: read_or(inode, &INODE_GENERATION, 0),
        magic,
    }
}

/// Whether a file system was mounted in another user namespace than the initial one, as any user may.
///
/// match-proto:v4.8:include/linux/fs.h:struct super_block
#[inline(always)]
fn is_a_users<B: Base>(super_block: B) -> bool {
    if !(has(&SUPER_BLOCK_USER_NS) && has(&USER_NS_PARENT)) {
        return false;
    }
    let namespace: B = read(super_block, &SUPER_BLOCK_USER_NS);
    !read::<Address, _>(namespace, &USER_NS_PARENT).is_null()
}

/// Whether it lies in the upper layer of an overlay. An overlay's inode is followed by the entry of the file in that
/// layer, if it has one there.
///
/// match-proto:v4.19:fs/overlayfs/ovl_entry.h:struct ovl_inode
#[inline(always)]
pub(crate) fn is_upper(inode: impl Base, file: &File) -> bool {
    has(&INODE_BYTES)
        && file.magic == OVERLAYFS_SUPER_MAGIC
        && !read::<Address, _>(inode.address(), &INODE_BYTES).is_null()
}
