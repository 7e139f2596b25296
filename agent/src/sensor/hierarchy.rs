//! Where control groups are mounted, and which one the agent is in.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use crate::bounded::{self, HOST_FILE_BYTES_MAX};

/// The hierarchy of version 1 that identifies containers.
pub(super) const CONTROLLER_V1: &str = "pids";

/// The id of the group that the agent is in, of the hierarchy that records name; `None` if it is not known.
pub(super) fn own() -> Option<u64> {
    let read = |path| bounded::read_text(path, HOST_FILE_BYTES_MAX).ok();
    let (groups, mounts) = (read("/proc/self/cgroup")?, read("/proc/self/mountinfo")?);
    let v1 = has_v1();
    let place = mount(&mounts, v1)?;
    let path = path(&groups, v1)?;
    fs::metadata(format!("{place}{path}")).ok().map(|folder| folder.ino())
}

/// Whether control groups of version 1 identify containers: the controller then has a hierarchy.
pub(super) fn has_v1() -> bool {
    let table = bounded::read_text("/proc/cgroups", HOST_FILE_BYTES_MAX).unwrap_or_default();
    let row = table.lines().find_map(|line| line.strip_prefix(CONTROLLER_V1)?.strip_prefix('\t'));
    row.and_then(|rest| rest.split('\t').next()).is_some_and(|hierarchy| hierarchy != "0")
}

/// Where the whole hierarchy of version 2, or that of the controller, is mounted, by a table such as
/// `/proc/self/mountinfo`. Its lines have the root within a file system, the mount point, and behind a dash the type.
pub(super) fn mount(mounts: &str, v1: bool) -> Option<&str> {
    mounts.lines().find_map(|line| {
        let (place, ty) = line.split_once(" - ")?;
        let mut fields = place.split(' ').skip(3);
        let (root, place) = (fields.next()?, fields.next()?);
        let options = ty.rsplit(' ').next()?;
        let is_it = if v1 {
            ty.starts_with("cgroup ") && options.split(',').any(|option| option == CONTROLLER_V1)
        } else {
            ty.starts_with("cgroup2 ")
        };
        (root == "/" && is_it).then_some(place)
    })
}

/// The path of a process's group, by a table such as `/proc/self/cgroup`.
fn path(groups: &str, v1: bool) -> Option<&str> {
    groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let is_it = if v1 {
            controllers.split(',').any(|name| name == CONTROLLER_V1)
        } else {
            controllers.is_empty()
        };
        is_it.then_some(path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_hierarchy_is_found() {
        let v1 = "30 23 0:26 / /sys/fs/cgroup/pids rw,nosuid - cgroup cgroup rw,pids";
        let part = "31 23 0:27 /system.slice /mnt rw - cgroup2 cgroup2 rw";
        let whole = "32 23 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate";
        let all = [v1, part, whole].join("\n");
        assert_eq!(mount(&all, false), Some("/sys/fs/cgroup/unified"));
        assert_eq!(mount(&all, true), Some("/sys/fs/cgroup/pids"));
        assert_eq!(mount(&[v1, part, "odd", ""].join("\n"), false), None);
    }

    #[test]
    fn a_group_has_a_path_in_each_hierarchy() {
        let groups = "7:pids:/a\n1:name=systemd:/b\n0::/c:d\n";
        assert_eq!((path(groups, true), path(groups, false)), (Some("/a"), Some("/c:d")));
        assert_eq!(path("odd", false), None);
    }
}
