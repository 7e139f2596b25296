//! Row `accept`: connections from the other side.

use std::net::{TcpListener, TcpStream};
use std::os::fd::{FromRawFd as _, OwnedFd};

use serde_json::json;

use crate::act;
use crate::agent::{assert_fields, event, ready};

/// The peer is the source, and this side the destination.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn an_accepted_connection_is_reported() {
    for (ip, ty) in [("127.0.0.1", "ipv4"), ("::1", "ipv6")] {
        ready();
        let listener = act::listener(ip);
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        let (_stream, _) = listener.accept().unwrap();
        let event = event(&format!("accept at {address}"), |event| {
            event["event"]["action"] == "connection_accepted"
                && event["destination"]["port"] == address.port()
        });
        assert_fields(
            &event,
            json!({
                "event.category": ["network"],
                "event.type": ["start"],
                "event.dataset": "endpoint.events.network",
                "network.direction": "ingress",
                "network.transport": "tcp",
                "network.type": ty,
                "source.ip": ip,
                "source.port": client.local_addr().unwrap().port(),
                "destination.ip": ip,
                "destination.port": address.port(),
                "process.pid": std::process::id(),
                "process.executable": std::env::current_exe().unwrap(),
            }),
        );
    }
}

/// Multipath TCP at both ends: the descriptor's socket is an outer one.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_connection_of_multipath_tcp_is_reported() {
    const IPPROTO_MPTCP: i32 = 262;
    ready();
    let make = || {
        // SAFETY: the call has no preconditions, and the descriptor is new.
        unsafe {
            let socket = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, IPPROTO_MPTCP);
            (socket >= 0).then(|| OwnedFd::from_raw_fd(socket))
        }
    };
    let (Some(listener), Some(client)) = (make(), make()) else {
        println!("skipped: this kernel has no Multipath TCP");
        return;
    };
    let any = rustix::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 0);
    rustix::net::bind(&listener, &any).unwrap();
    rustix::net::listen(&listener, 1).unwrap();
    let listener = TcpListener::from(listener);
    let address = listener.local_addr().unwrap();
    rustix::net::connect(&client, &address).unwrap();
    let (_stream, from) = listener.accept().unwrap();
    let event = event(&format!("accept at {address}"), |event| {
        event["event"]["action"] == "connection_accepted" && event["destination"]["port"] == address.port()
    });
    assert_fields(
        &event,
        json!({
            "source.ip": "127.0.0.1",
            "source.port": from.port(),
            "destination.ip": "127.0.0.1",
            "process.pid": std::process::id(),
        }),
    );
}
