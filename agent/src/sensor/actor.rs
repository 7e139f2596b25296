//! The user who answers for a process that ran before the agent: the one that records of others have (`actor` of
//! [`State`](lapwing_common::State)).

use std::fs::File;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;

use lapwing_common::ABSENT;

/// The inode of the user namespace in which the host's users are: `PROC_USER_INIT_INO`.
pub(super) const INITIAL_USER_NAMESPACE: u32 = 0xEFFF_FFFD;
/// Maximum depth of nested user namespaces, one more than the kernel allows.
const USER_NAMESPACES_MAX: usize = 34;

mod ioctl {
    use nix::{ioctl_none, ioctl_read_bad, request_code_none};

    /// match-proto:v4.9:include/uapi/linux/nsfs.h:NS_GET_PARENT
    const NSIO: u8 = 0xb7;
    ioctl_none!(parent, NSIO, 2);
    // match-proto:v4.11:include/uapi/linux/nsfs.h:NS_GET_OWNER_UID
    ioctl_read_bad!(owner, request_code_none!(NSIO, 4), nix::libc::uid_t);
}

/// The user who answers for a process whose real user id is `uid`; [`ABSENT`] if it is not known.
pub(super) fn of(pid: i32, uid: u32) -> u32 {
    let Ok(namespace) = File::open(format!("/proc/{pid}/ns/user")) else { return ABSENT };
    outermost_owner(namespace).map_or(ABSENT, |owner| owner.unwrap_or(uid))
}

/// The owner of the outermost namespace below the initial one; nothing where it is the initial one itself.
#[expect(unsafe_code, reason = "the ioctl returns a descriptor as a number")]
fn outermost_owner(mut namespace: File) -> Option<Option<u32>> {
    let mut found = None;
    for _ in 0..USER_NAMESPACES_MAX {
        if namespace.metadata().ok()?.ino() == u64::from(INITIAL_USER_NAMESPACE) {
            return Some(found);
        }
        let mut owner = ABSENT;
        // SAFETY: the descriptor is a namespace's, `owner` is room for the number that the kernel writes, and the
        // descriptor that it returns is new and has no other owner.
        namespace = unsafe {
            ioctl::owner(namespace.as_raw_fd(), &raw mut owner).ok()?;
            OwnedFd::from_raw_fd(ioctl::parent(namespace.as_raw_fd()).ok()?).into()
        };
        found = Some(owner);
    }
    None
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    #[cfg_attr(not(root), ignore = "needs root")]
    fn the_owner_of_the_outermost_namespace_answers() {
        assert_eq!(of(i32::try_from(std::process::id()).unwrap(), 4711), 4711, "in the initial one the user");
        let script =
            "setpriv --reuid=65534 --clear-groups unshare -U unshare -U sh -c 'echo ready; read line'";
        let mut child = Command::new("sh")
            .args(["-c", &format!("exec {script}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line)
            .unwrap();
        let found = of(i32::try_from(child.id()).unwrap(), 0);
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(found, 65534);
    }
}
