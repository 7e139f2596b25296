//! Connections: opened in ways that hide the process.

use serde_json::json;

use crate::alerts::{IMDS_REQUEST, REVERSE_SHELL, alerts, alerts_by, value};

const BOTH: &[&str] = &[REVERSE_SHELL, IMDS_REQUEST];

/// An attacker connects by io_uring, so that no system call `connect` is made. Seen: both rules alert.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn by_io_uring() {
    alerts("io_uring", BOTH);
}

/// An attacker has one of the kernel's worker threads connect for him. Seen: both rules alert, on his process.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn by_a_worker_of_io_uring() {
    for alert in alerts("io_uring worker", BOTH) {
        assert_eq!(value(&alert, "process.name"), "nc");
    }
}

/// An attacker puts the connect into a ring that a thread of the kernel polls, and makes no system call at all for it.
/// Seen: both rules alert, on his process.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn by_a_poller_of_io_uring() {
    for alert in alerts("io_uring poller", BOTH) {
        assert_eq!(value(&alert, "process.name"), "nc");
    }
}

/// An attacker connects in a thread that is not the first. Seen: both rules alert, and the process is named by its
/// number and not by the thread's.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn in_a_thread() {
    for alert in alerts("thread", BOTH) {
        let exec = &value(&alert, "lapwing.alert.events")[0];
        assert_eq!(value(&alert, "process.pid"), &exec["process"]["pid"]);
    }
}

/// An attacker changes the user of one thread, by the system call itself, which leaves his process's other threads as
/// they are, and connects in it. Seen: both rules alert, and the user is the thread's.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn in_a_thread_of_another_user() {
    for alert in alerts("thread of another user", BOTH) {
        assert_eq!(value(&alert, "user.id"), "65534");
        let exec = &value(&alert, "lapwing.alert.events")[0];
        assert_eq!(exec["user"]["id"], "0");
    }
}

/// An attacker inherits a socket over an exec, makes it his standard input and connects by that. Seen: both rules
/// alert, and the alert says that the connection is the standard input.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn after_dup2_of_an_inherited_socket() {
    for alert in alerts("dup2", BOTH) {
        // Where the process has ended already nothing is known of what it held.
        let stdio = value(&alert, "lapwing.socket.stdio");
        assert!(stdio.is_null() || *stdio == json!("stdin") || *stdio == json!(["stdin"]), "{stdio}");
    }
}

/// One process of an attacker's makes a socket and passes it over a unix socket to another, which connects. Seen: both
/// rules alert, on the one that connects.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn by_a_socket_of_another_process() {
    alerts("passed", BOTH);
}

/// An attacker sends data with the first packet, without `connect`. Seen: both rules alert.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn by_tcp_fast_open() {
    alerts("fast open", BOTH);
}

/// An attacker uses a socket of Multipath TCP, which is none of TCP's. Seen: both rules alert, on the path of TCP below
/// it.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn by_multipath_tcp() {
    if std::fs::read_to_string("/proc/sys/net/mptcp/enabled").is_ok_and(|text| text.trim() == "1") {
        alerts("mptcp", BOTH);
    } else {
        lapwing_stage::skipped("this kernel has no Multipath TCP");
    }
}

/// An attacker reaches an IPv4 address by an IPv6 socket. Seen: both rules, which name IPv4 addresses, alert.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn by_ipv4_mapped_to_ipv6() {
    for alert in alerts("mapped", BOTH) {
        assert_eq!(value(&alert, "network.type"), "ipv4");
    }
}

/// An attacker does not wait for his connection and ends at once. Seen: both rules alert.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn without_waiting() {
    alerts("non-blocking", BOTH);
}

/// An attacker runs something harmless in his place as soon as the connection is on its way. Seen: both rules alert
/// about the program that connected; the one that followed is named, if at all, as such.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn then_another_program() {
    for alert in alerts("connect then exec", BOTH) {
        assert_eq!(value(&alert, "process.name"), "nc");
        assert!(alert.text("/process/command_line").contains("-e /bin/true"));
        let next = value(&alert, "lapwing.process.next.command_line");
        assert!(next.is_null() || next == "harmless", "{next}");
    }
}

/// An attacker's shell ends before his program connects, which init has adopted by then. Seen: both rules alert, one of
/// which asks for the parent: a process's parent is the one that made it.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn as_an_orphan() {
    for alert in alerts_by("PROGRAM & sleep 0.1; exit 0", "orphan", BOTH) {
        assert_eq!(value(&alert, "process.parent.name"), &json!(["dash", "sh"]));
    }
}

/// An attacker's program forks twice and lets both parents end before it connects. Seen: the rule for reverse shells
/// alerts, on the last process, with the arguments that it began with. The other rule ties a program to what its
/// siblings do, so that it does not see a grandchild as one.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn after_a_double_fork() {
    for alert in alerts("double fork", &[REVERSE_SHELL]) {
        assert!(alert.text("/process/command_line").contains("-e /bin/true"));
    }
}

/// An attacker connects in a child that shares his memory, while he is held by `vfork`. Seen: the rule for reverse
/// shells alerts, on the child.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn in_a_vfork() {
    alerts("vfork", &[REVERSE_SHELL]);
}

/// An attacker overwrites his arguments and takes the name of a kernel thread before he connects. Seen: both rules
/// alert, with the arguments and the name that he began with.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn under_another_name() {
    for alert in alerts("another argv", BOTH) {
        assert_eq!(value(&alert, "process.name"), "nc");
        assert!(alert.text("/process/command_line").contains("-e /bin/true"));
    }
}

/// An attacker becomes the leader of a session of his own before he connects. Seen: both rules alert.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn as_a_leader() {
    alerts("setsid", BOTH);
}

/// An attacker enters new namespaces of users, mounts, processes, messages, control groups and names before he connects,
/// from a network namespace as all of these tests do. Seen: both rules alert, and the user is the host's.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn in_new_namespaces() {
    for alert in alerts("namespaces", BOTH) {
        assert_eq!(value(&alert, "user.id"), "0");
    }
}

/// An attacker changes his root before he connects. Seen: both rules alert.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn in_a_chroot() {
    alerts("chroot", BOTH);
}
