//! The hook `ptrace`: access to the sensor's memory.

use crate::agent::field;
use crate::touch::Own;

/// Seized by a tracer, which need not stop it.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_sensor_that_is_traced_says_by_whom() {
    let agent = Own::start();
    let pid = i32::try_from(agent.pid()).unwrap();
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: seizing takes two empty arguments, and changes nothing of this process.
    let result = unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, none, none) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    let event = agent.tampered("as a debugger does");
    assert_eq!(field(&event, "process.pid"), std::process::id(), "{event:#}");
}
