//! One rule set off again and again, by many who are one user.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;

use super::places::groups_root;
use super::{Order, become_attacker, in_waves};
use crate::stage::ATTACKER;

/// By the program that `of` names, in what `place` puts it.
pub(super) fn decoys(
    order: &Order,
    of: impl Fn(u32) -> Option<PathBuf>,
    place: impl Fn(u32) -> io::Result<()>,
) -> io::Result<()> {
    in_waves((0..order.count).map(|number| {
        place(number)?;
        Ok(order.shell(&of(number).unwrap_or_else(|| order.program.clone())))
    }))
}

/// Each by a program file of its own.
pub(super) fn of_programs(order: &Order) -> io::Result<()> {
    let folder = order.program.parent().map(std::path::Path::to_owned).unwrap_or_default();
    let path = |number: u32| {
        let folder = folder.join(number.to_string());
        fs::create_dir(&folder).ok()?;
        let path = folder.join("nc");
        fs::hard_link(&order.program, &path).ok()?;
        Some(path)
    };
    decoys(order, path, |_| Ok(()))
}

/// Each in a control group of its own.
pub(super) fn of_groups(order: &Order) -> io::Result<()> {
    let root = groups_root()?;
    let name = |number: u32| root.join(format!("lapwing-abuse-{}-{number}", std::process::id()));
    let place = |number: u32| {
        fs::create_dir(name(number))?;
        fs::write(name(number).join("cgroup.procs"), std::process::id().to_string())
    };
    let done = decoys(order, |_| None, place);
    fs::write(root.join("cgroup.procs"), std::process::id().to_string())?;
    for number in 0..order.count {
        // One whose last program is still ending stays, empty.
        let _ = fs::remove_dir(name(number));
    }
    done
}

/// Each by a user of its own of a user namespace.
pub(super) fn of_ids(order: &Order) -> io::Result<()> {
    let (made, mut make) = io::pipe()?;
    let (mapped, mut map) = io::pipe()?;
    // SAFETY: there is one thread here, and the child does not return.
    match unsafe { libc::fork() } {
        0 => {
            let done = become_attacker().and_then(|()| in_user_namespace(order, &mut make, mapped));
            // SAFETY: it does not return.
            unsafe { libc::_exit(i32::from(done.is_err())) }
        }
        child => {
            drop(make);
            // The namespace must be there before its ids can be mapped.
            let mut made = made;
            made.read_exact(&mut [0])?;
            let ids = format!("0 {ATTACKER} 1\n1 200000 {}\n", order.count.max(1));
            fs::write(format!("/proc/{child}/uid_map"), &ids)?;
            fs::write(format!("/proc/{child}/gid_map"), &ids)?;
            map.write_all(b"x")?;
            let mut status = 0;
            // SAFETY: a child of this process, and a number of ours.
            unsafe { libc::waitpid(child, &raw mut status, 0) };
            if status == 0 { Ok(()) } else { Err(io::Error::other("not in a namespace of users")) }
        }
    }
}

fn in_user_namespace(order: &Order, made: &mut io::PipeWriter, mut mapped: io::PipeReader) -> io::Result<()> {
    // SAFETY: it has no preconditions, and there is one thread here.
    if unsafe { libc::unshare(libc::CLONE_NEWUSER) } != 0 {
        return Err(io::Error::last_os_error());
    }
    made.write_all(b"x")?;
    mapped.read_exact(&mut [0])?;
    in_waves((1..=order.count).map(|id| {
        let mut shell = order.shell(&order.program);
        shell.uid(id).gid(id);
        Ok(shell)
    }))
}
