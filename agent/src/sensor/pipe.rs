//! Whether more can come through a pipe from which a process reads.

use std::fs::OpenOptions;
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Whether no process can write any more to the pipe with this inode, which is a process's standard input. Not where
/// the process has another one by now, or is gone.
///
/// It is opened once more, which waits for nothing: a pipe without a name lies on a file system of the kernel's own.
pub(super) fn is_over(pid: u32, inode: u64) -> bool {
    let path = format!("/proc/{pid}/fd/0");
    let is_it = std::fs::read_link(&path).is_ok_and(|link| link.as_os_str() == &*format!("pipe:[{inode}]"));
    let options = || OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path);
    let Some(pipe) = is_it.then(options).and_then(Result::ok) else { return false };
    let mut polled = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
    let is_polled = poll(&mut polled, PollTimeout::ZERO).is_ok();
    is_polled && polled[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_pipe_is_over_when_no_process_can_write_to_it() {
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::piped()).spawn().unwrap();
        let inode = std::fs::metadata(format!("/proc/{}/fd/0", child.id())).unwrap().ino();
        assert!(!is_over(child.id(), inode));
        assert!(!is_over(child.id(), inode + 1), "another pipe");
        drop(child.stdin.take());
        assert!(is_over(child.id(), inode));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!is_over(child.id(), inode), "it is gone");
    }
}
