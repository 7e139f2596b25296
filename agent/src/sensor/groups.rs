//! Control groups by their ids: their only owner.
//!
//! The kernel side sends a group's path with each program that starts in it, until the group's id is in a map that is
//! written here: known groups are in it, and evicted ones are removed, so that they are sent again. An unknown group is
//! looked up by its id, which is its file handle, when a process in it forks or connects.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use aya::maps::{HashMap as KernelMap, MapData};
use lapwing_common::CGROUPS_MAX;
use nix::libc;
use smol_str::SmolStr;

use super::hierarchy;
use crate::bounded::{self, HOST_FILE_BYTES_MAX};

/// Most bytes of the paths of groups; a user who may create groups chooses paths of up to 5 KiB.
const GROUPS_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of a group besides its path.
const GROUP_BYTES: usize = 176;
/// `FILEID_KERNFS`: the handle is the id. match-proto:v5.5:include/linux/exportfs.h
const FILEID_KERNFS: i32 = 0xfe;

/// The known control groups.
#[derive(Default)]
pub(super) struct Groups {
    groups: HashMap<u64, Group>,
    /// Their ids in the order of eviction, unless used since.
    turn: VecDeque<u64>,
    bytes: usize,
    evicted: u64,
    /// Changes that are not written to the kernel's map yet: ids, and whether they are known now.
    changes: Vec<(u64, bool)>,
    kernel: Option<KernelMap<MapData, u64, u8>>,
    hierarchy: Option<Hierarchy>,
}

struct Group {
    path: SmolStr,
    is_used: bool,
}

/// Where the groups are mounted whose ids are in records.
struct Hierarchy {
    place: String,
    root: File,
}

impl Groups {
    /// From now on writes known groups to the kernel's map, and looks up unknown ones.
    pub(super) fn connect(&mut self, kernel: KernelMap<MapData, u64, u8>) {
        self.kernel = Some(kernel);
        self.hierarchy = Hierarchy::open();
    }

    /// A group's path, where it is known.
    pub(super) fn get(&self, id: u64) -> Option<&SmolStr> {
        self.groups.get(&id).map(|group| &group.path)
    }

    /// Marks a group as used, so that others are evicted first, and looks it up where it is not known.
    pub(super) fn touch(&mut self, id: u64) {
        if let Some(group) = self.groups.get_mut(&id) {
            group.is_used = true;
        } else if let Some(path) = self.hierarchy.as_ref().and_then(|hierarchy| hierarchy.path(id)) {
            self.insert(id, path);
        }
    }

    /// Remembers a group's path.
    pub(super) fn insert(&mut self, id: u64, path: SmolStr) {
        self.bytes += GROUP_BYTES + path.len();
        match self.groups.insert(id, Group { path, is_used: false }) {
            Some(old) => self.bytes -= GROUP_BYTES + old.path.len(),
            None => {
                self.turn.push_back(id);
                self.changes.push((id, true));
            }
        }
        while self.groups.len() > CGROUPS_MAX as usize || self.bytes > GROUPS_BYTES_MAX {
            self.evict();
        }
    }

    /// Every known group, with its path.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &SmolStr)> {
        self.groups.iter().map(|(id, group)| (*id, &group.path))
    }

    /// The bytes of the paths.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many groups were evicted.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Writes what changed to the kernel's map. What is not in it is sent again.
    pub(super) fn flush(&mut self) {
        let Some(kernel) = &mut self.kernel else { return self.changes.clear() };
        for (id, is_known) in self.changes.drain(..) {
            let written = if is_known { kernel.insert(id, 1, 0) } else { kernel.remove(&id) };
            if let Err(error) = written {
                tracing::debug!("control group {id}: {error}");
            }
        }
    }

    /// Evicts about the least recently used group.
    fn evict(&mut self) {
        while let Some(id) = self.turn.pop_front() {
            match self.groups.get_mut(&id) {
                Some(group) if group.is_used => {
                    group.is_used = false;
                    self.turn.push_back(id);
                }
                _ => {
                    let path = self.groups.remove(&id).map(|group| group.path);
                    self.bytes -= path.map_or(0, |path| GROUP_BYTES + path.len());
                    self.changes.push((id, false));
                    self.evicted += 1;
                    return;
                }
            }
        }
    }
}

impl Hierarchy {
    fn open() -> Option<Self> {
        let mounts = bounded::read_text("/proc/self/mountinfo", HOST_FILE_BYTES_MAX).ok()?;
        let place = hierarchy::mount(&mounts, hierarchy::has_v1())?.to_owned();
        File::open(&place).ok().map(|root| Self { place, root })
    }

    /// The path of the group with this id, if it exists.
    #[expect(unsafe_code, reason = "libc has no function for open_by_handle_at(2)")]
    fn path(&self, id: u64) -> Option<SmolStr> {
        /// match-proto:v2.6.39:include/linux/fs.h:struct file_handle
        #[repr(C)]
        struct Handle {
            bytes: u32,
            ty: i32,
            id: u64,
        }
        let mut handle = Handle { bytes: 8, ty: FILEID_KERNFS, id };
        let flags = libc::O_PATH | libc::O_CLOEXEC;
        // SAFETY: the kernel reads a handle of as many bytes as it says, and the descriptor that it returns is new and
        // has no other owner.
        let group = unsafe {
            let root = self.root.as_raw_fd();
            let fd = libc::syscall(libc::SYS_open_by_handle_at, root, &raw mut handle, flags);
            OwnedFd::from_raw_fd(i32::try_from(fd).ok().filter(|fd| *fd >= 0)?)
        };
        let path = fs::read_link(format!("/proc/self/fd/{}", group.as_raw_fd())).ok()?;
        let path = path.to_string_lossy();
        let below = path.strip_prefix(&self.place)?;
        Some(if below.is_empty() { "/".into() } else { below.into() })
    }
}

#[cfg(test)]
mod tests {
    use smol_str::format_smolstr;

    use super::*;

    /// Used groups stay, however many others come; each evicted one is removed from the kernel's map.
    #[test]
    fn groups_in_use_outlive_any_number_of_others() {
        for (path, kept_max) in [("/short".to_owned(), CGROUPS_MAX as usize), ("x".repeat(4096), 249)] {
            let mut groups = Groups::default();
            groups.insert(1, "/docker/in-use".into());
            let mut known = std::collections::HashSet::new();
            for id in 2..30_000 {
                groups.insert(id, format_smolstr!("{path}{id}"));
                groups.touch(1);
                for (id, is_known) in groups.changes.drain(..) {
                    assert!(if is_known { known.insert(id) } else { known.remove(&id) });
                }
            }
            assert_eq!(groups.get(1).map(SmolStr::as_str), Some("/docker/in-use"));
            assert!(groups.groups.len() <= kept_max && groups.bytes <= GROUPS_BYTES_MAX);
            assert_eq!(groups.evicted() as usize, 29_999 - groups.groups.len());
            assert_eq!(groups.turn.len(), groups.groups.len());
            assert_eq!(known, groups.iter().map(|(id, _)| id).collect(), "both sides know the same");
            let bytes: usize = groups.iter().map(|(_, path)| GROUP_BYTES + path.len()).sum();
            assert_eq!(groups.bytes, bytes);
        }
    }

    #[test]
    fn a_path_that_is_reported_again_replaces_the_first() {
        let mut groups = Groups::default();
        groups.insert(1, "/a".into());
        groups.insert(1, "/longer".into());
        assert_eq!(groups.get(1).map(SmolStr::as_str), Some("/longer"));
        assert_eq!((groups.bytes, groups.turn.len()), (GROUP_BYTES + 7, 1));
    }

    /// The group of this test, and its root's.
    #[test]
    #[cfg_attr(not(root), ignore = "needs root")]
    fn a_group_is_found_by_its_id() {
        let (Some(hierarchy), Some(own)) = (Hierarchy::open(), hierarchy::own()) else { return };
        use std::os::unix::fs::MetadataExt as _;
        let root = hierarchy.root.metadata().unwrap().ino();
        // A container without the right to open handles finds nothing.
        let Some(path) = hierarchy.path(root) else { return };
        assert_eq!(path, "/");
        let path = hierarchy.path(own).unwrap();
        let folder = format!("{}{path}", hierarchy.place);
        assert_eq!(fs::metadata(folder).unwrap().ino(), own);
        assert_eq!(hierarchy.path(u64::MAX), None);
    }
}
