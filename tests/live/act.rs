//! Doing what is watched. The library's own ways to start processes and to connect are few and hide which system call
//! they use; here each is called by its name.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder of a test's own, gone when the test ends.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("lapwing-live-{}-{number}", std::process::id()));
        fs::create_dir(&path).expect("a folder");
        // So that a link in its path does not differ from what the kernel resolves.
        Self(path.canonicalize().expect("its path"))
    }

    /// An executable file with this content.
    pub(crate) fn executable(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What a test left mounted in it stays; the folder's own file system does not.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The resolved path of `/bin/true`.
pub(crate) fn true_path() -> String {
    Path::new("/bin/true").canonicalize().expect("/bin/true").to_str().expect("UTF-8").to_owned()
}

/// A C string.
pub(crate) fn c(text: impl Into<Vec<u8>>) -> CString {
    CString::new(text).expect("no zero in it")
}

/// A listener at a port that no other test of this run has used: tests find events by their port.
pub(crate) fn listener(ip: &str) -> TcpListener {
    let bind = || TcpListener::bind((ip.parse::<IpAddr>().unwrap(), 0)).unwrap();
    std::iter::repeat_with(bind).find(|listener| is_first_use(listener.local_addr().unwrap())).unwrap()
}

/// Whether no test of this run has used the address's port before.
pub(crate) fn is_first_use(address: SocketAddr) -> bool {
    static PORTS: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    PORTS.lock().unwrap().insert(address.port())
}

/// Makes a process, lets it do something, and waits for its end. Returns its number and its status as `wait` returns it.
///
/// What it does must be safe after a fork of many threads: system calls, and no memory from the heap.
pub(crate) fn forked(child: impl FnOnce() -> i32) -> (u32, i32) {
    // SAFETY: the child only does what this function's callers promise, and leaves without running destructors.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let code = child();
        // SAFETY: it does not return.
        unsafe { libc::_exit(code) };
    }
    (pid.try_into().expect("fork"), wait(pid))
}

/// The same in a session of the child's own. The leader of the session that the tests run in may be gone, as under CI,
/// and then events rightly do not have it.
pub(crate) fn forked_as_leader(child: impl FnOnce() -> i32) -> (u32, i32) {
    forked(|| {
        // SAFETY: it takes nothing and touches no memory.
        if unsafe { libc::setsid() } < 0 { 127 } else { child() }
    })
}

/// Waits for the end of a child. Its status as `wait` returns it.
pub(crate) fn wait(pid: i32) -> i32 {
    let mut status = 0;
    // SAFETY: the status is a number of ours.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    status
}

/// An array of C strings as the kernel wants it.
pub(crate) struct Strings(Vec<*const libc::c_char>);

impl Strings {
    pub(crate) fn new(texts: &[CString]) -> Self {
        Self(texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect())
    }
}

/// Runs a program in place of this one, and returns only where that fails.
pub(crate) fn exec(path: &CStr, arguments: &Strings) -> i32 {
    let environment = [std::ptr::null()];
    // SAFETY: both arrays end in null, and what they point to lives on.
    unsafe { libc::execve(path.as_ptr(), arguments.0.as_ptr(), environment.as_ptr()) };
    126
}

/// The same for a path below a folder, or with `AT_EMPTY_PATH` for the open file itself.
pub(crate) fn execveat(folder: RawFd, path: &CStr, arguments: &Strings, flags: i32) -> i32 {
    let environment: [*const libc::c_char; 1] = [std::ptr::null()];
    // SAFETY: as for `exec`.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            folder,
            path.as_ptr(),
            arguments.0.as_ptr(),
            environment.as_ptr(),
            flags,
        )
    };
    126
}

/// Runs a program in a new process and waits. Returns the process's number.
pub(crate) fn run(path: impl Into<Vec<u8>>, arguments: &[&[u8]]) -> u32 {
    let path = c(path);
    let texts: Vec<_> = arguments.iter().map(|text| c(*text)).collect();
    let strings = Strings::new(&texts);
    let (pid, status) = forked(|| exec(&path, &strings));
    assert_eq!(status, 0, "{path:?} ends well");
    pid
}

/// A file that is in no folder.
pub(crate) fn memfd(name: &str, content: &[u8]) -> OwnedFd {
    let name = c(name);
    // SAFETY: the name ends in a zero; the descriptor is new and owned by nothing else.
    let file = unsafe { OwnedFd::from_raw_fd(libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC)) };
    fs::write(format!("/proc/self/fd/{}", file.as_raw_fd()), content).expect("a memfd takes what is written");
    file
}
