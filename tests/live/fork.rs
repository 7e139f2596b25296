//! Row `fork`: the parent of each process.

use std::process::Command;

use serde_json::json;

use crate::act;
use crate::agent::{all, assert_fields, field, of, ready};

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_fork_carries_its_parents_image() {
    ready();
    let (pid, _) = act::forked(|| 0);
    let event = of("fork", pid);
    let own = std::env::current_exe().unwrap();
    assert_fields(
        &event,
        json!({
            "event.category": ["process"],
            "event.type": ["start"],
            "process.pid": pid,
            "process.executable": own,
            "process.name": own.file_name().unwrap().to_str(),
            "process.parent.pid": std::process::id(),
            "process.parent.executable": own,
            "process.parent.args": field(&event, "process.args"),
        }),
    );
    assert_ne!(field(&event, "process.entity_id"), field(&event, "process.parent.entity_id"));
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_child_by_clone_parent_has_the_right_parent() {
    ready();
    let (pipe_out, pipe_in) = std::io::pipe().unwrap();
    let descriptor = std::os::fd::AsRawFd::as_raw_fd(&pipe_in);
    // The middle process makes a child that is not its own, but this one's.
    let (middle, _) = act::forked(|| {
        let flags = libc::CLONE_PARENT | libc::SIGCHLD;
        // SAFETY: without a new stack this is a fork; the child only leaves, and the number written is ours.
        unsafe {
            let child = libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0);
            if child != 0 {
                let number = child as u32;
                libc::write(descriptor, (&raw const number).cast(), 4);
            }
            0
        }
    });
    let mut number = [0; 4];
    std::io::Read::read_exact(&mut { pipe_out }, &mut number).unwrap();
    let child = u32::from_ne_bytes(number);
    act::wait(i32::try_from(child).unwrap());
    let event = of("fork", child);
    assert_fields(&event, json!({"process.parent.pid": std::process::id()}));
    assert_ne!(middle, child);
    assert_eq!(
        field(&event, "process.parent.entity_id"),
        field(&of("fork", middle), "process.parent.entity_id")
    );
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_vfork_is_a_fork() {
    ready();
    // The library starts programs by `posix_spawn`, which is a `vfork`.
    let mut child = Command::new("/bin/true").spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    assert_fields(&of("fork", pid), json!({"process.parent.pid": std::process::id()}));
    assert_fields(&of("exec", pid), json!({"process.name": "true"}));
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_thread_is_no_fork() {
    ready();
    // SAFETY: it has no preconditions.
    let thread = std::thread::spawn(|| unsafe { libc::gettid() }).join().unwrap();
    let (pid, _) = act::forked(|| 0);
    of("end", pid);
    let found = all(|event| event["process"]["pid"] == thread && event["event"]["action"] == "fork");
    assert!(
        found.is_empty(),
        "a process was created later, and no event of the thread came before: {found:?}"
    );
}
