//! Row `connect`: how connections end.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};

use serde_json::{Value, json};

use crate::act;
use crate::agent::{all, assert_fields, event, field, ready};

fn listen() -> (TcpListener, SocketAddr) {
    let listener = act::listener("127.0.0.1");
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// The end of the connection to this port, as the side of this direction reports it.
fn end(direction: &str, to: SocketAddr) -> Value {
    event(&format!("the {direction} end of {to}"), |event| is_end(event, direction, to))
}

/// Whether it is the end of a connection to this address: another family may have the same port at the same time.
fn is_end(event: &Value, direction: &str, to: SocketAddr) -> bool {
    event["event"]["action"] == "disconnect_received"
        && event["destination"]["port"] == to.port()
        && event["destination"]["ip"] == to.ip().to_string()
        && event["network"]["direction"] == direction
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn both_ends_report_the_bytes_of_each_direction() {
    ready();
    let (listener, address) = listen();
    let mut client = TcpStream::connect(address).unwrap();
    let from = client.local_addr().unwrap().port();
    let (mut server, _) = listener.accept().unwrap();
    client.write_all(&[b'a'; 100_000]).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut sent = Vec::new();
    server.read_to_end(&mut sent).unwrap();
    server.write_all(b"answer").unwrap();
    drop(server);
    client.read_to_end(&mut sent).unwrap();
    drop(client);
    for direction in ["egress", "ingress"] {
        let found = end(direction, address);
        assert_fields(
            &found,
            json!({
                "event.category": ["network"],
                "event.type": ["end"],
                "event.dataset": "endpoint.events.network",
                "network.transport": "tcp",
                "network.type": "ipv4",
                "source.ip": "127.0.0.1",
                "source.port": from,
                "source.bytes": 100_000,
                "destination.ip": "127.0.0.1",
                "destination.bytes": 6,
                "process.pid": std::process::id(),
                "process.executable": std::env::current_exe().unwrap(),
            }),
        );
        let begin = if direction == "egress" { "connection_attempted" } else { "connection_accepted" };
        let begin = event(begin, |event| {
            event["event"]["action"] == begin && event["destination"]["port"] == address.port()
        });
        assert_eq!(field(&found, "process.entity_id"), field(&begin, "process.entity_id"));
        assert_eq!(all(|event| is_end(event, direction, address)).len(), 1, "it ends once");
    }
}

/// A socket that is closed with data unread is reset, and one that is never closed ends with its process.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_process_that_ends_leaves_its_connections_ends() {
    ready();
    let (listener, address) = listen();
    let (pid, _) = act::forked(|| {
        // SAFETY: system calls alone, on an address that lives in this function.
        unsafe {
            let socket = libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0);
            let mut to: libc::sockaddr_in = std::mem::zeroed();
            to.sin_family = libc::AF_INET as u16;
            to.sin_port = address.port().to_be();
            to.sin_addr.s_addr = u32::from(Ipv4Addr::LOCALHOST).to_be();
            let len = size_of::<libc::sockaddr_in>() as u32;
            if libc::connect(socket, (&raw const to).cast(), len) != 0 {
                return 1;
            }
            libc::write(socket, c"abc".as_ptr().cast(), 3);
        }
        0
    });
    let (server, _) = listener.accept().unwrap();
    // With what came unread.
    drop(server);
    let found = end("egress", address);
    assert_fields(&found, json!({"process.pid": pid, "source.bytes": 3, "destination.bytes": 0}));
    assert_fields(&end("ingress", address), json!({"process.pid": std::process::id()}));
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_refused_connection_ends_with_nothing_said() {
    ready();
    let (listener, address) = listen();
    drop(listener);
    TcpStream::connect(address).unwrap_err();
    assert_fields(
        &end("egress", address),
        json!({"source.bytes": 0, "destination.bytes": 0, "process.pid": std::process::id()}),
    );
    let attempt = event("the attempt", |event| {
        event["event"]["action"] == "connection_attempted" && event["destination"]["port"] == address.port()
    });
    assert_ne!(field(&attempt, "source.port"), &Value::Null, "its end has the port");
}

/// A listener without a connection causes no event.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_listener_ends_unseen() {
    ready();
    let (listener, address) = listen();
    drop(listener);
    let (other, _) = act::forked(|| 0);
    crate::agent::of("end", other);
    let found = all(|event| {
        event["event"]["action"] == "disconnect_received"
            && [&event["source"]["port"], &event["destination"]["port"]].contains(&&json!(address.port()))
    });
    assert!(found.is_empty(), "{found:?}");
}
