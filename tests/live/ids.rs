//! Row `ids`: processes that become another user or group.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use serde_json::json;

use crate::act::{self, Folder, Strings, c};
use crate::agent::{all, assert_fields, event, field, is, of, ready};

/// The uid of `nobody`, as every system has it.
const NOBODY: libc::uid_t = 65_534;
/// A number that stays as it is.
const SAME: libc::uid_t = libc::uid_t::MAX;

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn another_user_and_another_group_are_reported() {
    ready();
    let (pid, status) = act::forked(|| {
        // SAFETY: these change this process alone and touch no memory. The library's would ask its threads.
        unsafe {
            libc::syscall(libc::SYS_setresgid, NOBODY, NOBODY, NOBODY);
            libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) as i32
        }
    });
    assert_eq!(status, 0);
    let own = std::env::current_exe().unwrap();
    let kind = json!({
        "event.category": ["process"],
        "event.type": ["change"],
        "event.dataset": "endpoint.events.process",
        "process.executable": own,
        "process.parent.pid": std::process::id(),
        "process.entity_id": field(&of("fork", pid), "process.entity_id"),
        "group.id": "65534",
        "process.group.id": "65534",
        "process.real_group.id": "65534",
    });
    let group = of("gid_change", pid);
    assert_fields(&group, kind.clone());
    assert_fields(&group, json!({"user.id": "0"}));
    let user = of("uid_change", pid);
    assert_fields(&user, kind);
    assert_fields(
        &user,
        json!({
            "user.id": "65534",
            "process.user.id": "65534",
            "process.real_user.id": "65534",
            "process.thread.capabilities.effective": null,
            "process.parent.user.id": "0",
        }),
    );
    assert_fields(&of("end", pid), json!({"user.id": "65534"}));
    assert_eq!(all(|event| is(event, "uid_change", pid)).len(), 1, "the end reports no change");
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_change_to_the_same_value_is_not_reported() {
    ready();
    let (pid, _) = act::forked(|| {
        // SAFETY: as above.
        unsafe { libc::syscall(libc::SYS_setresuid, SAME, 0, SAME) as i32 }
    });
    of("end", pid);
    let found = all(|event| event["process"]["pid"] == pid && event["event"]["type"][0] == "change");
    assert!(found.is_empty(), "{found:?}");
}

/// An executable with the set-user-id bit makes another of its process at exec, while it still runs what it ran.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_set_id_program_changes_the_ids() {
    ready();
    let folder = Folder::new();
    fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.executable("elevate", &fs::read("/bin/true").unwrap());
    chown(&program, Some(0), None).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
    assert_eq!(fs::metadata(&program).unwrap().uid(), 0);
    let path = c(program.to_str().unwrap());
    let texts = [c("elevate")];
    let strings = Strings::new(&texts);
    let (pid, status) = act::forked(|| {
        // SAFETY: as above.
        if unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) } != 0 {
            return 1;
        }
        act::exec(&path, &strings)
    });
    assert_eq!(status, 0);
    let run = of("exec", pid);
    assert_fields(&run, json!({"process.name": "elevate", "user.id": "0", "process.real_user.id": "65534"}));
    let raised =
        event("the change back to root", |event| is(event, "uid_change", pid) && event["user"]["id"] == "0");
    assert_fields(
        &raised,
        json!({
            "process.executable": std::env::current_exe().unwrap(),
            "process.real_user.id": "65534",
            "process.saved_user.id": "0",
        }),
    );
    assert!(raised["event"]["sequence"].as_i64() < run["event"]["sequence"].as_i64());
    assert_eq!(all(|event| is(event, "uid_change", pid)).len(), 2, "to nobody and back");
}
