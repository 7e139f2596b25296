//! Paths, mounts and control groups.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use super::{Order, become_attacker, enter_namespaces, mapped_shell};

/// Every so many control groups, one lies this deep below names as long as a name may be.
const DEEP_EVERY: u32 = 10;
const DEEP_NAMES: usize = 12;
/// Longest name of a file.
const NAME_BYTES: usize = 255;

/// Programs below folders of long names, and of many.
pub(super) fn paths(order: &Order) -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    std::os::unix::fs::chown(folder.path(), Some(crate::stage::ATTACKER), Some(crate::stage::ATTACKER))?;
    for number in 0..order.count {
        let (name, depth) =
            if number % 2 == 0 { ("d".to_owned(), 70 + number) } else { ("x".repeat(250), 14) };
        let mut path = folder.path().join(number.to_string());
        (0..depth).for_each(|_| path.push(&name));
        fs::create_dir_all(&path)?;
        fs::hard_link(&order.program, path.join("nc"))?;
        order.shell(&path.join("nc")).status()?;
    }
    Ok(())
}

/// Programs on mounts that are attached nowhere any more: of the file itself, and of the folder it is in.
pub(super) fn detached(order: &Order) -> io::Result<()> {
    become_attacker()?;
    let folder = tempfile::tempdir()?;
    enter_namespaces(libc::CLONE_NEWNS)?;
    let parent = order.program.parent().map(Path::to_owned).unwrap_or_default();
    for number in 0..order.count {
        let place = folder.path().join(number.to_string());
        let (from, name) = if number % 2 == 0 {
            fs::write(&place, "")?;
            (order.program.as_path(), "")
        } else {
            fs::create_dir(&place)?;
            (parent.as_path(), "/nc")
        };
        let descriptor = detach(from, &place)?;
        let program = PathBuf::from(format!("/proc/self/fd/{descriptor}{name}"));
        let done = mapped_shell(order, &program).status();
        // SAFETY: a descriptor of ours.
        unsafe { libc::close(descriptor) };
        done?;
    }
    Ok(())
}

/// Mounts this there, opens it and takes the mount away. Returns the descriptor, which programs inherit.
fn detach(from: &Path, to: &Path) -> io::Result<libc::c_int> {
    let (from, to) = (CString::new(from.as_os_str().as_bytes())?, CString::new(to.as_os_str().as_bytes())?);
    let none = std::ptr::null();
    // SAFETY: all point to texts of ours, or nowhere.
    unsafe {
        if libc::mount(from.as_ptr(), to.as_ptr(), none, libc::MS_BIND, none.cast()) != 0 {
            return Err(io::Error::last_os_error());
        }
        let descriptor = libc::open(to.as_ptr(), libc::O_RDONLY);
        if descriptor < 0 || libc::umount2(to.as_ptr(), libc::MNT_DETACH) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(descriptor)
    }
}

/// Where control groups are made: the hierarchy of `pids` with version 1, else the unified one.
pub(super) fn groups_root() -> io::Result<PathBuf> {
    let mut roots = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].into_iter().map(PathBuf::from);
    let root = roots.find(|root| root.join("cgroup.procs").exists());
    root.ok_or_else(|| io::Error::other("no control groups are mounted"))
}

/// Control groups that come and go, each with a program in it.
pub(super) fn groups(order: &Order) -> io::Result<()> {
    let own = groups_root()?.join(format!("lapwing-abuse-{}", std::process::id()));
    for number in 0..order.count {
        let top = own.with_extension(number.to_string());
        let mut group = top.clone();
        if number % DEEP_EVERY == 0 {
            group.extend(std::iter::repeat_n("n".repeat(NAME_BYTES), DEEP_NAMES));
        }
        fs::create_dir_all(&group)?;
        run_in(&group)?;
        for folder in group.ancestors().take_while(|folder| folder.starts_with(&top)) {
            let _ = fs::remove_dir(folder);
        }
    }
    Ok(())
}

/// Runs a program in this control group, as the attacker.
fn run_in(group: &Path) -> io::Result<()> {
    let procs = CString::new(group.join("cgroup.procs").as_os_str().as_bytes())?;
    let mut program = std::process::Command::new("/bin/true");
    // SAFETY: only system calls are made between fork and exec.
    unsafe {
        program.pre_exec(move || {
            let file = libc::open(procs.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
            if file < 0 || libc::write(file, c"0".as_ptr().cast(), 1) != 1 {
                return Err(io::Error::last_os_error());
            }
            become_attacker()
        })
    };
    program.status().map(drop)
}
