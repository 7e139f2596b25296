//! Row `udp`: the destinations of datagrams.

use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};

use rustix::net::{AddressFamily, SendFlags, SocketType, connect, sendto, socket};
use serde_json::{Value, json};

use crate::act;
use crate::agent::{all, assert_fields, event, events, field, ready};

fn is_to(event: &Value, port: u16) -> bool {
    event["event"]["action"] == "datagram_attempted" && event["destination"]["port"] == port
}

/// The event of a datagram from this very process to a port.
fn attempted(port: u16) -> Value {
    event(&format!("a datagram to {port}"), |event| {
        is_to(event, port) && event["process"]["pid"] == std::process::id()
    })
}

/// How many events this port has by now, of everything that was sent before this call.
fn count(port: u16) -> usize {
    let (_receiver, last) = receiver("127.0.0.1");
    sender("127.0.0.1").send_to(b"last", last).unwrap();
    attempted(last.port());
    all(|event| is_to(event, port)).len()
}

/// A socket that receives datagrams, and its address.
fn receiver(ip: &str) -> (UdpSocket, SocketAddr) {
    ready();
    let bind = || UdpSocket::bind((ip.parse::<IpAddr>().unwrap(), 0)).unwrap();
    let mut receivers = std::iter::repeat_with(bind);
    let receiver = receivers.find(|receiver| act::is_first_use(receiver.local_addr().unwrap())).unwrap();
    let address = receiver.local_addr().unwrap();
    (receiver, address)
}

fn sender(ip: &str) -> UdpSocket {
    UdpSocket::bind((ip.parse::<IpAddr>().unwrap(), 0)).unwrap()
}

fn udp(family: AddressFamily) -> OwnedFd {
    socket(family, SocketType::DGRAM, None).unwrap()
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_destination_is_reported_once() {
    let (_receiver, address) = receiver("127.0.0.1");
    let sender = sender("127.0.0.1");
    for _ in 0..50 {
        sender.send_to(b"datagram", address).unwrap();
    }
    let event = attempted(address.port());
    let inode = std::fs::read_link(format!("/proc/self/fd/{}", sender.as_raw_fd())).unwrap();
    assert_eq!(inode.to_str().unwrap(), format!("socket:[{}]", field(&event, "lapwing.socket.inode")));
    assert_fields(
        &event,
        json!({
            "event.category": ["network"],
            "event.type": ["start"],
            "event.dataset": "endpoint.events.network",
            "destination.ip": "127.0.0.1",
            "destination.address": "127.0.0.1",
            "source.ip": "127.0.0.1",
            "source.port": sender.local_addr().unwrap().port(),
            "network.direction": "egress",
            "network.transport": "udp",
            "network.type": "ipv4",
            "process.executable": std::env::current_exe().unwrap(),
            "user.id": "0",
        }),
    );
    assert_eq!(count(address.port()), 1);
}

/// A socket gets its address and port when it is connected. Both are known where the end of `connect` can be observed;
/// the last method of the hook cannot.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_connected_socket_has_its_source() {
    for ip in ["127.0.0.1", "::1"] {
        let (_receiver, address) = receiver(ip);
        let sender = UdpSocket::bind((if ip == "::1" { "::" } else { "0.0.0.0" }, 0)).unwrap();
        sender.connect(address).unwrap();
        sender.send(b"datagram").unwrap();
        let port = sender.local_addr().unwrap().port();
        let event = attempted(address.port());
        assert_fields(&event, json!({"source.port": port}));
        if is_end_observed() {
            assert_fields(&event, json!({"source.ip": ip}));
        }
    }
    let sender = udp(AddressFamily::INET);
    let (_receiver, address) = receiver("127.0.0.1");
    connect(&sender, &address).unwrap();
    let local = UdpSocket::from(sender).local_addr().unwrap();
    let source = if is_end_observed() {
        json!({"source.ip": "127.0.0.1", "source.port": local.port()})
    } else {
        json!({"source.port": null})
    };
    assert_fields(&attempted(address.port()), source);
}

/// Whether the agent's configuration allows the method that observes the end of `connect`.
fn is_end_observed() -> bool {
    !crate::filter::hooks().contains("udp = 'cgroup/connect4'")
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn the_datagrams_of_each_process_are_reported() {
    let (_receiver, address) = receiver("127.0.0.1");
    let sender = sender("127.0.0.1");
    let send = || act::forked(|| i32::from(sender.send_to(b"datagram", address).is_err()));
    let children = [send(), send()];
    for (pid, status) in children {
        assert_eq!(status, 0);
        event("a child's datagram", |event| is_to(event, address.port()) && event["process"]["pid"] == pid);
    }
    assert_eq!(count(address.port()), 2);
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_connect_reports_the_destination_of_later_datagrams() {
    let (receiver, address) = receiver("127.0.0.1");
    let socket = udp(AddressFamily::INET);
    connect(&socket, &address).unwrap();
    let event = attempted(address.port());
    assert_fields(&event, json!({"destination.ip": "127.0.0.1", "network.transport": "udp"}));
    UdpSocket::from(socket).send(b"datagram").unwrap();
    assert_eq!(receiver.recv(&mut [0; 8]).unwrap(), 8);
    assert_eq!(count(address.port()), 1);
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_connected_socket_may_send_to_another() {
    let (_first, first) = receiver("127.0.0.1");
    let (_second, second) = receiver("127.0.0.1");
    let sender = sender("127.0.0.1");
    sender.connect(first).unwrap();
    attempted(first.port());
    sendto(&sender, b"datagram", SendFlags::empty(), &second).unwrap();
    assert_fields(&attempted(second.port()), json!({"source.ip": "127.0.0.1"}));
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn ipv6_is_reported() {
    let (_receiver, address) = receiver("::1");
    sender("::1").send_to(b"datagram", address).unwrap();
    let sent = attempted(address.port());
    assert_fields(&sent, json!({"destination.ip": "::1", "source.ip": "::1", "network.type": "ipv6"}));
    let (_other, other) = receiver("::1");
    connect(udp(AddressFamily::INET6), &other).unwrap();
    assert_fields(&attempted(other.port()), json!({"destination.ip": "::1", "network.type": "ipv6"}));
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn ipv4_by_an_ipv6_socket_is_ipv4() {
    let ipv4 = json!({"destination.ip": "127.0.0.1", "network.type": "ipv4"});
    let mapped = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), port));
    let (_receiver, address) = receiver("127.0.0.1");
    sender("::").send_to(b"datagram", mapped(address.port())).unwrap();
    assert_fields(&attempted(address.port()), ipv4.clone());
    let (_other, other) = receiver("127.0.0.1");
    connect(udp(AddressFamily::INET6), &mapped(other.port())).unwrap();
    assert_fields(&attempted(other.port()), ipv4);
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn udp_lite_is_reported() {
    ready();
    const IPPROTO_UDPLITE: u32 = 136;
    let protocol = std::num::NonZeroU32::new(IPPROTO_UDPLITE).map(rustix::net::Protocol::from_raw);
    let Ok(socket) = socket(AddressFamily::INET, SocketType::DGRAM, protocol) else {
        return lapwing_stage::skipped("this kernel has no UDP-Lite");
    };
    // UDP-Lite has ports of its own: no receiver is needed.
    let (_receiver, to) = receiver("127.0.0.1");
    sendto(&socket, b"datagram", SendFlags::empty(), &to).unwrap();
    assert_fields(&attempted(to.port()), json!({"network.transport": "udplite"}));
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn tcp_is_not_reported_a_second_time() {
    let (_receiver, address) = receiver("127.0.0.1");
    let _listener = TcpListener::bind(address).unwrap();
    let _stream = TcpStream::connect(address).unwrap();
    assert_eq!(count(address.port()), 0);
    let is_the_connection = |event: &Value| {
        event["event"]["action"] == "connection_attempted" && event["destination"]["port"] == address.port()
    };
    event("the connection", is_the_connection);
    assert_eq!(all(is_the_connection).len(), 1);
}

/// Programs of others stay attached: here those of a second agent.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn another_one_does_not_take_its_place() {
    let (_receiver, address) = receiver("127.0.0.1");
    let mut other = events().stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(other.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.next().is_some(), "it has attached its hooks");
    sender("127.0.0.1").send_to(b"datagram", address).unwrap();
    attempted(address.port());
    let found = lines.any(|line| is_to(&serde_json::from_str(&line).unwrap(), address.port()));
    assert!(found, "the other agent saw it too");
    other.kill().unwrap();
    other.wait().unwrap();
}

/// What people send datagrams with.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn datagrams_of_tools_are_reported() {
    for (name, script) in [
        ("nc", "echo x | nc -u -w 1 127.0.0.1 PORT"),
        ("dig", "dig @127.0.0.1 -p PORT +tries=1 +time=1 lapwing.example"),
        ("python3", "python3 -c 'import socket as s; s.socket(2, 2).sendto(b\"x\", (\"127.0.0.1\", PORT))'"),
        ("bash", "bash -c 'echo x >/dev/udp/127.0.0.1/PORT'"),
    ] {
        let (_receiver, address) = receiver("127.0.0.1");
        let port = address.port();
        let mut shell = Command::new("sh");
        shell.args([
            "-c",
            &format!("command -v {name} || exit 42; {script}").replace("PORT", &port.to_string()),
        ]);
        let status = shell.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        if status.code() == Some(42) {
            lapwing_stage::skipped(&format!("there is no `{name}` here"));
            continue;
        }
        let event = event(name, |event| is_to(event, port));
        let found = field(&event, "process.name").to_string();
        assert!(found.contains(name), "{found}");
    }
}
