//! What names a file: its device, its inode and when that was changed last. A path names nothing, for who may write to its
//! folder puts another file there, and an inode's number is used again as soon as it is free.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;

use serde::{Deserialize, Serialize};

use crate::clock::changed;

/// Magic numbers of file systems whose `stat` shows another device than that of their super block, always or now and
/// then: btrfs gives each subvolume its own, an overlay over several file systems passes on theirs.
const OTHER_DEVICES: [u32; 4] = [BTRFS, OVERLAY, BCACHEFS, NFS];
const BTRFS: u32 = 0x9123_683e;
const OVERLAY: u32 = 0x794c_7630;
const BCACHEFS: u32 = 0xca45_1a4e;
const NFS: u32 = 0x6969;
/// Of file systems that a program serves, which says of a file's times and content what it likes, and to each reader
/// something else.
const FUSE: u32 = 0x6573_5546;

/// The name of a file and of its content. The default names none.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct FileKey {
    /// As `stat` shows it, or the super block's where it is from a record; the same number but on [`OTHER_DEVICES`].
    pub(crate) device: u64,
    pub(crate) inode: u64,
    /// In nanoseconds since 1970, as [`changed`] has it; `None` where the kernel does not have it.
    pub(crate) changed: Option<i64>,
    /// Whether `stat` may show another device for the same file.
    is_device_doubtful: bool,
}

impl FileKey {
    /// The file of an open descriptor or of a path.
    pub(crate) fn of(file: &Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            changed: Some(changed(file)),
            is_device_doubtful: false,
        }
    }

    /// The file that the kernel has on this device under this inode, changed last then.
    pub(crate) fn of_attributes(device: u64, inode: u64, changed: i64) -> Self {
        Self { device, inode, changed: Some(changed), is_device_doubtful: false }
    }

    /// The file that the kernel has in a super block of this device, on a file system with this magic number.
    pub(crate) fn of_super_block(device: u64, magic: u32, inode: u64, changed: Option<i64>) -> Self {
        Self {
            device,
            inode,
            changed: changed.filter(|_| magic != FUSE),
            is_device_doubtful: OTHER_DEVICES.contains(&magic),
        }
    }

    /// Whether it names any file.
    pub(crate) fn is_known(&self) -> bool {
        self.inode != 0
    }

    /// Whether it may be the file of this inode on this device: on some file systems `stat` shows another device.
    pub(crate) fn is_at(&self, device: u64, inode: u64) -> bool {
        self.inode != 0 && self.inode == inode && (self.device == device || self.is_device_doubtful)
    }

    /// Whether it names this file as it is now; `None` where that cannot be known, so that it is never claimed of two
    /// files which only look alike.
    pub(crate) fn is(&self, file: &Metadata) -> Option<bool> {
        let other = Self::of(file);
        if self.inode == 0 || self.device != other.device && self.is_device_doubtful {
            return None;
        }
        let is_same_inode = (self.device, self.inode) == (other.device, other.inode);
        match self.changed {
            None if is_same_inode => None,
            changed => Some(is_same_inode && changed == other.changed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_what_all_of_its_name_says() {
        let metadata = std::fs::metadata(std::env::current_exe().unwrap()).unwrap();
        let known = FileKey::of(&metadata);
        let doubtful = FileKey { is_device_doubtful: true, ..known };
        let other = known.device + 1;
        for (key, expected) in [
            (known, Some(true)),
            (doubtful, Some(true)),
            (FileKey { device: other, ..known }, Some(false)),
            (FileKey { device: other, ..doubtful }, None),
            (FileKey { inode: known.inode + 1, ..known }, Some(false)),
            (FileKey { changed: Some(1), ..known }, Some(false)),
            (FileKey { changed: None, ..known }, None),
            (FileKey::default(), None),
        ] {
            assert_eq!(key.is(&metadata), expected, "{key:?}");
        }
    }

    #[test]
    fn a_file_system_may_hide_the_device_or_the_change_time() {
        let known = |magic| FileKey::of_super_block(1, magic, 7, Some(5));
        for (magic, changed, is_device_doubtful) in
            [(0xef53, Some(5), false), (BTRFS, Some(5), true), (FUSE, None, false)]
        {
            let key = known(magic);
            assert_eq!((key.changed, key.is_device_doubtful), (changed, is_device_doubtful), "{magic:#x}");
        }
    }
}
