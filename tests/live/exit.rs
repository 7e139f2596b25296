//! Row `exit`: how processes end.

use serde_json::json;

use crate::act;
use crate::agent::{all, assert_fields, field, is, of, ready};

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn an_exit_code_is_reported() {
    ready();
    let (pid, _) = act::forked(|| 7);
    let event = of("end", pid);
    assert_fields(
        &event,
        json!({
            "event.category": ["process"],
            "event.type": ["end"],
            "process.exit_code": 7,
            "process.end": event["@timestamp"],
            "lapwing.process.exit_signal": null,
            "process.parent.pid": std::process::id(),
            "process.entity_id": field(&of("fork", pid), "process.entity_id"),
        }),
    );
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_death_by_signal_is_reported() {
    ready();
    let (pid, _) = act::forked(|| {
        // SAFETY: it has no preconditions.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) }
    });
    assert_fields(&of("end", pid), json!({"process.exit_code": 137, "lapwing.process.exit_signal": 9}));
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_process_ends_with_its_last_thread() {
    ready();
    extern "C" fn linger(_: *mut libc::c_void) -> *mut libc::c_void {
        let pause = libc::timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        // SAFETY: both pointers may be what they are; the second call ends this thread alone.
        unsafe {
            libc::nanosleep(&raw const pause, std::ptr::null_mut());
            libc::syscall(libc::SYS_exit, 5);
        }
        std::ptr::null_mut()
    }
    let (pid, status) = act::forked(|| {
        let mut thread = 0;
        // SAFETY: the thread needs no argument, and the last call ends the first thread alone.
        unsafe {
            libc::pthread_create(&raw mut thread, std::ptr::null(), linger, std::ptr::null_mut());
            libc::syscall(libc::SYS_exit, 3);
        }
        0
    });
    // Kernels before 6.0 take the first thread's code, later ones the last thread's: what `wait` returns is right.
    assert_fields(&of("end", pid), json!({"process.exit_code": status >> 8}));
    let (later, _) = act::forked(|| 0);
    of("end", later);
    assert_eq!(all(|event| is(event, "end", pid)).len(), 1, "one end, not one for each thread");
}
