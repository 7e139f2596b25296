//! Row `session`: processes that begin a session.

use serde_json::json;

use crate::act;
use crate::agent::{assert_fields, event, field, of, ready};

/// Waits, so that later events have a later time.
fn pause() {
    let moment = libc::timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    // SAFETY: the first pointer is to a time of ours, the second may be null.
    unsafe { libc::nanosleep(&raw const moment, std::ptr::null_mut()) };
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_new_session_is_reported_and_stays() {
    ready();
    let (pid, status) = act::forked(|| {
        // SAFETY: it touches no memory, and the second process only leaves.
        unsafe {
            if libc::setsid() < 0 {
                return 1;
            }
            pause();
            let child = libc::fork();
            if child == 0 {
                libc::_exit(0);
            }
            libc::waitpid(child, std::ptr::null_mut(), 0);
        }
        0
    });
    assert_eq!(status, 0);
    let own = field(&of("fork", pid), "process.entity_id").clone();
    let leader = json!({
        "process.session_leader.pid": pid,
        "process.session_leader.entity_id": own,
        "process.session_leader.same_as_process": true,
        "process.group_leader.entity_id": own,
    });
    let changed = of("session_id_change", pid);
    assert_fields(&changed, json!({"event.type": ["change"], "process.entity_id": own}));
    assert_fields(&changed, leader.clone());
    assert_fields(&of("end", pid), leader);
    let child = event("its child", |event| {
        event["event"]["action"] == "fork" && event["process"]["parent"]["pid"] == pid
    });
    assert_fields(
        &child,
        json!({"process.session_leader.entity_id": own, "process.session_leader.same_as_process": false}),
    );
}
