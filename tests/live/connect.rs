//! Row `connect`: every way in which a process can open a TCP connection.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Command;

use io_uring::{IoUring, opcode, squeue, types};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, getsockname, recv, sendto, socket,
    socket_with, sockopt,
};
use serde_json::{Value, json};

use crate::act;
use crate::agent::{all, assert_fields, event, names, ready};

/// The event of a connection from this very process to a port.
fn attempted(port: u16) -> Value {
    event(&format!("connection to {port}"), |event| is_attempt(event, port))
}

fn is_attempt(event: &Value, port: u16) -> bool {
    event["event"]["action"] == "connection_attempted"
        && event["process"]["pid"] == std::process::id()
        && event["destination"]["port"] == port
}

fn listener(ip: &str) -> (TcpListener, SocketAddr) {
    ready();
    let listener = act::listener(ip);
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn tcp(family: AddressFamily) -> OwnedFd {
    socket(family, SocketType::STREAM, None).unwrap()
}

fn local_port(socket: impl AsFd) -> u16 {
    SocketAddr::try_from(getsockname(socket).unwrap()).unwrap().port()
}

#[track_caller]
fn assert_ends(event: &Value, from: &str, from_port: u16, to: &str, to_port: u16) {
    assert_fields(
        event,
        json!({
            "source.ip": from,
            "source.address": from,
            "source.port": from_port,
            "destination.ip": to,
            "destination.address": to,
            "destination.port": to_port,
        }),
    );
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_connection_has_all_its_fields_and_no_others() {
    let (_listener, address) = listener("127.0.0.1");
    let socket = tcp(AddressFamily::INET);
    let child = || act::forked(|| i32::from(connect(&socket, &address).is_err())).1;
    assert_eq!(act::forked_as_leader(child).1, 0);
    let event = event("a connection of the leader's child", |event| {
        event["event"]["action"] == "connection_attempted" && event["destination"]["port"] == address.port()
    });
    assert_ends(&event, "127.0.0.1", local_port(&socket), "127.0.0.1", address.port());
    assert_fields(
        &event,
        json!({
            "event.category": ["network"],
            "event.type": ["start"],
            "event.dataset": "endpoint.events.network",
            "event.kind": "event",
            "event.module": "endpoint",
            "message": "Endpoint network event",
            "network.direction": "egress",
            "network.transport": "tcp",
            "network.type": "ipv4",
            "process.executable": std::env::current_exe().unwrap(),
            "process.group_leader.same_as_process": false,
            "process.session_leader.same_as_process": false,
            "user.id": "0",
            "host.os.type": "linux",
        }),
    );
    // Rules with a negation must have the same meaning as upstream, where these are the only values.
    let mut found = Vec::new();
    names(&event["process"], "", &mut found);
    found.sort();
    let expected = [
        "Ext.ancestry",
        "command_line",
        "entity_id",
        "entry_leader.entity_id",
        "entry_leader.same_as_process",
        "executable",
        "group_leader.entity_id",
        "group_leader.same_as_process",
        "name",
        "parent.entity_id",
        "pid",
        "session_leader.entity_id",
        "session_leader.parent.entity_id",
        "session_leader.same_as_process",
        "thread.capabilities.effective",
        "thread.capabilities.permitted",
        "uptime",
        "working_directory",
    ];
    // The first process of a host has no parent.
    found.retain(|name| name != "entry_leader.parent.entity_id");
    assert_eq!(found, expected);
    let inode = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
    assert_eq!(inode.to_str().unwrap(), format!("socket:[{}]", event["lapwing"]["socket"]["inode"]));
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn ipv6_is_seen() {
    let (_listener, address) = listener("::1");
    let stream = TcpStream::connect(address).unwrap();
    let event = attempted(address.port());
    assert_ends(&event, "::1", local_port(&stream), "::1", address.port());
    assert_fields(&event, json!({"network.type": "ipv6"}));
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn ipv4_by_an_ipv6_socket_is_ipv4() {
    let (_listener, address) = listener("127.0.0.1");
    let IpAddr::V4(ip) = address.ip() else { panic!("an IPv4 listener") };
    let socket = tcp(AddressFamily::INET6);
    connect(&socket, &SocketAddr::from((ip.to_ipv6_mapped(), address.port()))).unwrap();
    let event = attempted(address.port());
    assert_ends(&event, "127.0.0.1", local_port(&socket), "127.0.0.1", address.port());
    assert_fields(&event, json!({"network.type": "ipv4"}));
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_refused_connection_is_seen() {
    let (closed, address) = listener("127.0.0.1");
    drop(closed);
    let socket = tcp(AddressFamily::INET);
    assert_eq!(connect(&socket, &address).unwrap_err(), Errno::CONNREFUSED);
    let event = attempted(address.port());
    assert!(event["source"]["port"].as_u64().is_some_and(|port| port > 0), "{event:#}");
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_connection_that_does_not_wait_is_seen() {
    let (_listener, address) = listener("127.0.0.1");
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::NONBLOCK, None).unwrap();
    assert_eq!(connect(&socket, &address).unwrap_err(), Errno::INPROGRESS);
    let event = attempted(address.port());
    assert_ends(&event, "127.0.0.1", local_port(&socket), "127.0.0.1", address.port());
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn fast_open_by_sendto_is_seen() {
    let (_listener, address) = listener("127.0.0.1");
    let socket = tcp(AddressFamily::INET);
    const MSG_FASTOPEN: SendFlags = SendFlags::from_bits_retain(0x2000_0000);
    sendto(&socket, b"early", MSG_FASTOPEN, &address).unwrap();
    let event = attempted(address.port());
    assert_ends(&event, "127.0.0.1", local_port(&socket), "127.0.0.1", address.port());
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn fast_open_by_option_is_seen() {
    let (server, address) = listener("127.0.0.1");
    let socket = tcp(AddressFamily::INET);
    let on: libc::c_int = 1;
    // SAFETY: the option is a number, and this is one.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_FASTOPEN_CONNECT,
            (&raw const on).cast(),
            size_of_val(&on) as u32,
        )
    };
    assert_eq!(set, 0);
    connect(&socket, &address).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.write_all(b"early").unwrap();
    let event = attempted(address.port());
    assert_ends(&event, "127.0.0.1", local_port(&stream), "127.0.0.1", address.port());
    let (accepted, _) = server.accept().unwrap();
    let mut read = [0; 5];
    assert_eq!(recv(&accepted, &mut read, RecvFlags::empty()).unwrap().0, 5);
}

/// By io_uring, in the process itself and by one of the kernel's threads for it.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn io_uring_is_seen() {
    for flags in [squeue::Flags::empty(), squeue::Flags::ASYNC] {
        let (_listener, address) = listener("127.0.0.1");
        let socket = tcp(AddressFamily::INET);
        let target = libc::sockaddr_in {
            sin_family: libc::AF_INET as u16,
            sin_port: address.port().to_be(),
            sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(Ipv4Addr::LOCALHOST.octets()) },
            sin_zero: [0; 8],
        };
        let mut ring = IoUring::new(2).unwrap();
        let descriptor = types::Fd(socket.as_raw_fd());
        let entry = opcode::Connect::new(descriptor, (&raw const target).cast(), size_of_val(&target) as u32);
        // SAFETY: socket and address live until the ring has the result.
        unsafe { ring.submission().push(&entry.build().flags(flags)).unwrap() };
        ring.submit_and_wait(1).unwrap();
        assert_eq!(ring.completion().next().map(|done| done.result()), Some(0));
        let event = attempted(address.port());
        assert_ends(&event, "127.0.0.1", local_port(&socket), "127.0.0.1", address.port());
    }
}

/// To a host that does not answer. Its packets go to loopback, whose host has another address.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_connection_without_an_answer_is_seen_with_its_port() {
    ready();
    let (port, event) = in_own_network(|| {
        let socket =
            socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::NONBLOCK, None).unwrap();
        let target = SocketAddr::from(([10, 77, 0, 9], 4444));
        assert_eq!(connect(&socket, &target).unwrap_err(), Errno::INPROGRESS);
        (local_port(&socket), attempted(4444))
    });
    assert_ends(&event, "10.77.0.1", port, "10.77.0.9", 4444);
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_connection_that_fails_at_once_is_none() {
    ready();
    in_own_network(|| {
        let unreachable = SocketAddr::from(([198, 51, 100, 1], 4445));
        assert_eq!(connect(tcp(AddressFamily::INET), &unreachable).unwrap_err(), Errno::NETUNREACH);
        let refused = SocketAddr::from(([10, 77, 0, 1], 4446));
        assert_eq!(connect(tcp(AddressFamily::INET), &refused).unwrap_err(), Errno::CONNREFUSED);
        attempted(4446);
    });
    let found = all(|event| is_attempt(event, 4445));
    assert!(
        found.is_empty(),
        "a later connection was reported, and no event came of the one before: {found:?}"
    );
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn the_user_is_who_connects_and_not_who_started() {
    let (_listener, address) = listener("127.0.0.1");
    let path = std::env::current_exe().unwrap();
    let (pid, status) = act::forked(|| {
        // SAFETY: a system call that only concerns this process, which has one thread.
        if unsafe { libc::syscall(libc::SYS_setuid, 65534) } != 0 {
            return 1;
        }
        let Ok(socket) = socket(AddressFamily::INET, SocketType::STREAM, None) else { return 2 };
        i32::from(connect(socket, &address).is_err())
    });
    assert_eq!(status, 0);
    let event = event("connection of another user", |event| {
        event["process"]["pid"] == pid && event["destination"]["port"] == address.port()
    });
    assert_fields(&event, json!({"user.id": "65534", "user.name": "nobody", "process.executable": path}));
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn every_connection_is_reported() {
    let (listener, address) = listener("127.0.0.1");
    const COUNT: usize = 500;
    // It ends with the tests: on a busy machine one that is reset before it was accepted never is.
    std::thread::spawn(move || listener.incoming().for_each(drop));
    for _ in 0..COUNT {
        let socket = tcp(AddressFamily::INET);
        sockopt::set_socket_linger(&socket, Some(std::time::Duration::ZERO)).unwrap();
        connect(&socket, &address).unwrap();
    }
    let last = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    assert!(TcpStream::connect(last).is_err());
    attempted(last.port());
    let found = all(|event| is_attempt(event, address.port()));
    assert_eq!(found.len(), COUNT);
    assert!(found.iter().all(|event| event["source"]["port"].is_u64()), "each with its port");
}

/// Does something in a network namespace of its own, in which this host is 10.77.0.1 and alone.
pub(crate) fn in_own_network<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    let run = || {
        // SAFETY: the new namespace is this thread's alone, which ends with this function.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.unwrap();
        for arguments in ["link set lo up", "addr add 10.77.0.1/24 dev lo", "route add 10.77.0.0/24 dev lo"] {
            // The last may be there already; what matters is seen when connecting.
            let _ =
                Command::new("ip").args(arguments.split(' ')).stderr(std::process::Stdio::null()).status();
        }
        // All of a network that is set on an interface answers there; only this address is to.
        let local = ["route", "del", "local", "10.77.0.0/24", "dev", "lo", "table", "local"];
        let _ = Command::new("ip").args(local).stderr(std::process::Stdio::null()).status();
        act()
    };
    std::thread::scope(|scope| scope.spawn(run).join().unwrap())
}
