//! Row `accept`: connections from the other side.

use std::net::{IpAddr, TcpListener, TcpStream};

use serde_json::json;

use crate::agent::{assert_fields, event, ready};

/// The peer is the source, and this side the destination.
#[test]
fn an_accepted_connection_is_told() {
    for (ip, ty) in [("127.0.0.1", "ipv4"), ("::1", "ipv6")] {
        ready();
        let listener = TcpListener::bind((ip.parse::<IpAddr>().unwrap(), 0)).unwrap();
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
