//! Namespaces and roots.

use std::os::unix::fs::MetadataExt;

use serde_json::json;

use crate::act::{self, Strings, c};
use crate::agent::{assert_fields, event, field, names, ready};
use crate::alerts::{IMDS_REQUEST, REVERSE_SHELL, alerts_by};

/// A user without rights makes a namespace in which he is root, with every capability, and runs a program there. Seen:
/// that he is who he is on the host, and that the namespace of users is not the host's.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn root_in_a_namespace_of_users() {
    ready();
    // By its argument, for another test may have a process with the same number.
    let argument = format!("root-of-{}", std::process::id());
    let (path, texts) = (c("/bin/true"), [c("true"), c(&*argument)]);
    let strings = Strings::new(&texts);
    let write = |path: &std::ffi::CStr, text: &[u8]| {
        // SAFETY: the path ends in a zero and the text where it says.
        unsafe {
            let file = libc::open(path.as_ptr(), libc::O_WRONLY);
            let wrote = libc::write(file, text.as_ptr().cast(), text.len());
            libc::close(file);
            wrote == text.len() as isize
        }
    };
    let (_, status) = act::forked(|| {
        // SAFETY: system calls that concern this process alone, which has one thread.
        let refused = unsafe {
            libc::syscall(libc::SYS_setresgid, 65534, 65534, 65534) != 0
                || libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) != 0
                || libc::prctl(libc::PR_SET_DUMPABLE, 1) != 0
                || libc::unshare(libc::CLONE_NEWUSER) != 0
        };
        if refused {
            return 42;
        }
        if !(write(c"/proc/self/setgroups", b"deny") && write(c"/proc/self/uid_map", b"0 65534 1")) {
            return 43;
        }
        act::exec(&path, &strings)
    });
    if status >> 8 == 42 {
        return lapwing_stage::skipped("this kernel gives namespaces of users to root alone");
    }
    assert_eq!(status, 0);
    let event = event("its program", |event| event["process"]["args"][1] == *argument);
    assert_fields(
        &event,
        json!({"lapwing.actor.id": "65534", "user.id": "65534", "process.user.id": "65534", "process.real_user.id": "65534",
            "lapwing.user.names_of": "host"}),
    );
    let own = std::fs::metadata("/proc/self/ns/user").unwrap().ino();
    assert_ne!(field(&event, "lapwing.process.namespace.user"), own);
    let mut found = Vec::new();
    names(&event["process"]["thread"], "", &mut found);
    assert_eq!(found, ["capabilities.effective", "capabilities.permitted"], "those that he has there");
}

/// An attacker prepares a folder that looks like a root, changes into it and runs his program by an innocent path.
/// Seen: both rules alert, with the path at which everybody else finds it.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_program_in_a_chroot() {
    let script = r#"unshare --mount sh -c '
        root=$(dirname "$1")/root; mkdir -p "$root/opt"
        for folder in lib lib64 usr; do mkdir -p "$root/$folder"; mount --rbind "/$folder" "$root/$folder"; done
        ln -f "$1" "$root/opt/nc"; shift; chroot "$root" /opt/nc "$@"; exit $?' sh PROGRAM; exit $?"#;
    for alert in alerts_by(script, "thread", &[REVERSE_SHELL, IMDS_REQUEST]) {
        let executable = alert.text("/process/executable");
        assert!(executable.starts_with("/tmp/") && executable.ends_with("/root/opt/nc"), "{executable}");
    }
}
