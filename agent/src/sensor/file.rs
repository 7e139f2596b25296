//! The file that a record names.

use lapwing_common::{ABSENT, File};
use nix::sys::stat::makedev;

use crate::program::FileKey;

/// The key of the file in a record.
pub(super) fn key(file: &File) -> FileKey {
    let nanos = file.changed.saturating_mul(1_000_000_000).saturating_add(file.changed_nanos.into());
    let changed = (file.changed_nanos != ABSENT).then_some(nanos);
    let device = makedev(u64::from(file.device >> 20), u64::from(file.device & 0xf_ffff));
    FileKey::of_super_block(device, file.magic, file.inode, changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros as _;

    #[test]
    fn a_record_numbers_devices_as_stat_does() {
        let mut file = File::new_zeroed();
        (file.inode, file.device, file.magic) = (7, 259 << 20 | 0x4_1234, 0xef53);
        (file.changed, file.changed_nanos) = (5, 6);
        let of_record = key(&file);
        assert_eq!((of_record.device, of_record.inode), (makedev(259, 0x4_1234), 7));
        assert_eq!(of_record.changed, Some(5_000_000_006));
        file.changed_nanos = ABSENT;
        assert_eq!(key(&file).changed, None);
    }
}
