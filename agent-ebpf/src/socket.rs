//! What a TCP socket tells of itself.

use lapwing_common::Socket;

use crate::layout::*;

/// `AF_INET` and `AF_INET6`.
const IPV4: u16 = 2;
const IPV6: u16 = 10;
/// `IPPROTO_TCP`. The state tracepoint fires for SCTP and for the outer sockets of MPTCP as well.
const TCP: u16 = 6;
/// The first twelve bytes of an IPv4 address in IPv6.
const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// Whether it is a TCP socket.
#[inline(always)]
pub(crate) fn is_tcp(sock: Address) -> bool {
    read::<u16>(sock, &SOCK_PROTOCOL) == TCP
}

/// Both ends of the socket; where it speaks IPv4 over an IPv6 socket, the ends of IPv4.
#[inline(always)]
pub(crate) fn ends(sock: Address) -> Socket {
    let family: u16 = read(sock, &SOCK_FAMILY);
    let remote: [u8; 16] = read_or(sock, &SOCK_V6_DADDR, [0; 16]);
    let is_ipv6 = family == IPV6 && !is_mapped(&remote);
    let short = |address: [u8; 4]| {
        let mut room = [0; 16];
        room[..4].copy_from_slice(&address);
        room
    };
    Socket {
        id: sock as u64,
        inode: inode(sock),
        local: if is_ipv6 { read_or(sock, &SOCK_V6_SADDR, [0; 16]) } else { short(read(sock, &SOCK_SADDR)) },
        remote: if is_ipv6 { remote } else { short(read(sock, &SOCK_DADDR)) },
        local_port: local_port(sock),
        remote_port: remote_port(sock),
        family: if is_ipv6 { IPV6 } else { IPV4 },
        reserved: 0,
        namespace: if has(&SOCK_NET) { read_or(read(sock, &SOCK_NET), &NET_INUM, 0) } else { 0 },
        reserved_too: 0,
    }
}

/// The local port; zero where none was chosen yet.
#[inline(always)]
pub(crate) fn local_port(sock: Address) -> u16 {
    u16::from_be(read(sock, &INET_SPORT))
}

/// The remote port.
#[inline(always)]
pub(crate) fn remote_port(sock: Address) -> u16 {
    u16::from_be(read(sock, &SOCK_DPORT))
}

/// The number by which file descriptors name the socket; zero where it has none.
#[inline(always)]
pub(crate) fn inode(sock: Address) -> u64 {
    let socket: Address = read(sock, &SOCK_SOCKET);
    if socket.is_null() {
        return 0;
    }
    // The socket is the first member of what it was allocated in, the inode the second.
    read(at(socket, &SOCKET_ALLOC_INODE), &INODE_INO)
}

#[inline(always)]
fn is_mapped(address: &[u8; 16]) -> bool {
    let mut differs = 0;
    for index in 0..MAPPED.len() {
        differs |= address[index] ^ MAPPED[index];
    }
    differs == 0
}
