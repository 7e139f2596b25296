//! Interference with the sensor's programs and maps, and with its process, by root: each is an alert, and `lapwing
//! status` ends with 1 until it is resolved.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use lapwing_stage::{Agent, Alert, skipped};

use crate::alerts::{agent, attack_once, is_of, value};
use crate::deed::{self, Filter, TAMPERED, Words};
use crate::inject;

/// How soon an alert must be there.
const SOON: Duration = Duration::from_secs(10);
const NONE: &str = "this kernel or machine has nothing to do it to";

/// Does it, and waits for its alert. Whether it could be done.
fn is_seen(agent: &Agent, deed: fn(&Agent) -> Words) -> bool {
    let Some(words) = deed(agent) else {
        skipped(NONE);
        return false;
    };
    is_tampered(agent, words);
    true
}

/// There is an alert of high severity, and the status ends with 1.
fn is_tampered(agent: &Agent, words: &str) {
    let is_it = |alert: &Alert| alert.rule() == TAMPERED && alert.text("/event/reason").contains(words);
    let alert = agent.wait_for_within(words, 0, SOON, is_it).unwrap();
    assert_eq!(value(&alert, "lapwing.alert.severity"), "high");
    assert!(!agent.command("status").output().unwrap().status.success());
}

/// An attack from now on is seen.
fn sees_again(agent: &Agent) {
    let port = attack_once();
    agent.wait_for_within("the attack", 0, SOON, |alert| is_of(alert, port)).unwrap();
}

/// Root writes to the map with the kernel's filter, so that no connection is reported. Seen: the change, and each
/// attack after it.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn the_filter_is_written() {
    let agent = agent("");
    let filter = deed::filter(&agent);
    let before: Filter = filter.get(&0, 0).unwrap();
    assert!(is_seen(&agent, deed::write_the_filter));
    assert_eq!(filter.get(&0, 0).unwrap(), before, "it is set right");
    sees_again(&agent);
}

/// Root writes to a map that programs alone write, to forge what was counted. Seen: the attempt, which the kernel
/// refuses.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_frozen_map_is_written() {
    is_seen(&agent(""), deed::write_a_frozen_map);
}

/// Root traces the agent. Seen: that it was done.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn the_agent_is_traced() {
    is_seen(&agent(""), deed::trace);
}

/// Root traces the agent for a while, where no hook may show it. Seen: that it is done.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn the_agent_is_traced_where_no_hook_shows_it() {
    let agent = agent("[sensor.hooks]\nptrace = \"fentry/security_ptrace_access_check\"");
    let pid = i32::try_from(agent.pid()).unwrap();
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: seizing takes two empty arguments, and changes nothing of this process. It ends with this thread.
    let result = unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, none, none) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    is_tampered(&agent, "as a debugger does");
}

/// Root stops the agent and lets it go on. Seen: that it was done, and for how long.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn the_agent_is_stopped() {
    is_seen(&agent(""), deed::stop);
}

/// Root detaches a link by its id. Seen: that it was done, and it is attached again.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_link_is_detached() {
    let agent = agent("sensor.udp = true");
    let count = || deed::links(&agent, |ty| ty.starts_with("cgroup")).len();
    let before = count();
    if is_seen(&agent, deed::detach_a_link) {
        assert_eq!(count(), before + 1, "the old one, and its successor");
        sees_again(&agent);
    }
}

/// Root has the agent close its descriptor of a link, the last reference to it: from then on no program's start is
/// seen. Seen: that it was done, and programs from then on.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn the_last_descriptor_of_a_link_is_closed() {
    let agent = agent("");
    if is_seen(&agent, deed::close_the_last_descriptor) {
        sees_again(&agent);
        assert_eq!(deed::links(&agent, |ty| ty.contains("sched_process_exec")).len(), 1);
    }
}

/// The same of a perf event, which is not attached again without privileges that the agent has given up. Seen: that it
/// was done, until a restart.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn the_descriptor_of_a_perf_event_is_closed() {
    let mut agent = agent("");
    let folder = fs::read_dir(format!("/proc/{}/fd", agent.pid())).unwrap().flatten();
    let is_event =
        |path: &PathBuf| fs::read_link(path).is_ok_and(|to| to.as_os_str() == "anon_inode:[perf_event]");
    let Some(event) = folder.map(|entry| entry.path()).find(is_event) else { return skipped(NONE) };
    let fd = event.file_name().and_then(|name| name.to_str()?.parse().ok()).unwrap();
    if !inject::close(agent.pid(), fd) {
        return skipped(NONE);
    }
    is_tampered(&agent, "restart the service");
    agent.stop().unwrap();
    agent.start_again().unwrap();
    assert!(agent.command("status").output().unwrap().status.success());
}
