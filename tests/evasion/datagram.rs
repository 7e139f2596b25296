//! Datagrams, sent in ways that hide the sender. The agent that prints events reports them: no packaged rule matches
//! them.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd as _;

use io_uring::{IoUring, opcode, squeue, types};
use serde_json::Value;

use crate::agent::{event, ready};

/// A receiver and its address.
fn receiver() -> (UdpSocket, SocketAddrV4) {
    ready();
    let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = receiver.local_addr().unwrap().port();
    (receiver, SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
}

/// The event of a datagram from this very process to a port.
fn attempted(port: u16) -> Value {
    event(&format!("a datagram to {port}"), |event| {
        event["event"]["action"] == "datagram_attempted"
            && event["process"]["pid"] == std::process::id()
            && event["destination"]["port"] == port
    })
}

/// An attacker sends by io_uring, so that no system call to send is made: his own process does it, one of the kernel's
/// worker threads, or one that polls. Seen: the datagram, of his process.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn by_io_uring() {
    let rings: [(io::Result<IoUring>, squeue::Flags); 3] = [
        (IoUring::new(2), squeue::Flags::empty()),
        (IoUring::new(2), squeue::Flags::ASYNC),
        (IoUring::builder().setup_sqpoll(100).build(2), squeue::Flags::empty()),
    ];
    for (ring, flags) in rings {
        let (_receiver, address) = receiver();
        let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut target = libc::sockaddr_in {
            sin_family: libc::AF_INET as u16,
            sin_port: address.port().to_be(),
            sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
            sin_zero: [0; 8],
        };
        let mut data = *b"datagram";
        let mut piece = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: data.len() };
        // SAFETY: zeros are a valid message without content and destination.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_name = (&raw mut target).cast();
        message.msg_namelen = size_of_val(&target) as u32;
        (message.msg_iov, message.msg_iovlen) = (&raw mut piece, 1);
        let entry = opcode::SendMsg::new(types::Fd(sender.as_raw_fd()), &raw const message).build();
        let mut ring = ring.unwrap();
        // SAFETY: socket and message live until the ring has the result.
        unsafe { ring.submission().push(&entry.flags(flags)).unwrap() };
        ring.submit_and_wait(1).unwrap();
        assert_eq!(ring.completion().next().map(|done| done.result()), Some(8));
        attempted(address.port());
    }
}

/// An attacker sends in a thread that is not the first. Seen: the datagram, of his process.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn in_a_thread() {
    let (_receiver, address) = receiver();
    std::thread::spawn(move || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.send_to(b"datagram", address))
        .join()
        .unwrap()
        .unwrap();
    attempted(address.port());
}
