//! Reads a socket.

use lapwing_common::layout::SOCK_COMMON_BYTES;
use lapwing_common::{AF_INET, AF_INET6, Reach, Socket};

use crate::layout::*;
use crate::task;

/// `IPPROTO_TCP`. The state tracepoint fires for SCTP and for the outer sockets of MPTCP as well.
const TCP: u16 = 6;
/// `IPPROTO_MPTCP`. match-proto:v5.6:include/uapi/linux/in.h:IPPROTO_MPTCP
const MPTCP: u16 = 262;
/// The bits of `st_mode` for the type, and a socket's.
pub(crate) const S_IFMT: u16 = 0o170_000;
const S_IFSOCK: u16 = 0o140_000;
/// No socket.
const NONE: Socket = Socket {
    id: 0,
    inode: 0,
    local: [0; 4],
    remote: [0; 4],
    local_port: 0,
    remote_port: 0,
    family: 0,
    protocol: 0,
    namespace: 0,
    reserved: 0,
};

/// Whether a file of this `st_mode` is a socket.
#[inline(always)]
pub(crate) fn is_socket(mode: u16) -> bool {
    mode & S_IFMT == S_IFSOCK
}

/// The socket of an open file that is one.
#[inline(always)]
pub(crate) fn of_file(file: Address) -> Address {
    let socket: Address = read(file, &FILE_PRIVATE);
    read(socket, &SOCKET_SK)
}

/// Whether its family is IPv4 or IPv6.
#[inline(always)]
pub(crate) fn is_internet(sock: Address) -> bool {
    matches!(read(sock, &SOCK_FAMILY), AF_INET | AF_INET6)
}

/// The socket of TCP that carries it: of one of Multipath TCP the first below it, whose descriptor is the outer one's.
#[inline(always)]
pub(crate) fn carrier(sock: Address) -> Address {
    let is_outer = read(sock, &SOCK_PROTOCOL) == MPTCP;
    if is_outer { read_or(sock, &MPTCP_FIRST, sock) } else { sock }
}

/// Of a task's standard descriptors, the files of which have these modes, the first that is a socket of IPv4 or IPv6.
#[inline(always)]
pub(crate) fn of_descriptors(task: Address, modes: [u16; 3]) -> Socket {
    for (descriptor, mode) in modes.into_iter().enumerate() {
        if is_socket(mode) {
            let sock = of_file(task::file(task, descriptor as u32));
            if is_internet(sock) {
                return Socket { protocol: read(sock, &SOCK_PROTOCOL), ..ends(sock) };
            }
        }
    }
    NONE
}

/// Whether it is a TCP socket.
#[inline(always)]
pub(crate) fn is_tcp(sock: impl Base) -> bool {
    read(sock, &SOCK_PROTOCOL) == TCP
}

/// The classes of the local and of the remote address, each as a bit.
#[inline(always)]
pub(crate) fn address_classes(sock: impl Base) -> [u32; 2] {
    let both = packed_reaches(sock);
    [(both >> 32) as u32, both as u32]
}

/// The same in one register. A function of its own that reads field by field, for a kernel such as 5.10 gives a program
/// and what it calls 512 bytes of stack together, and the records take most of them.
#[inline(never)]
fn packed_reaches<B: Base>(sock: B) -> u64 {
    let remote: [u32; 4] = read_or(sock, &SOCK_V6_DADDR, [0; 4]);
    let is_ipv6 = read(sock, &SOCK_FAMILY) == AF_INET6 && !is_mapped(remote);
    let [local, remote] = if is_ipv6 {
        [read_or(sock, &SOCK_V6_SADDR, [0; 4]), remote]
    } else {
        [[read(sock, &SOCK_SADDR), 0, 0, 0], [read(sock, &SOCK_DADDR), 0, 0, 0]]
    };
    let bit = |address| u64::from(Reach::of(is_ipv6, address).bit());
    bit(local) << 32 | bit(remote)
}

/// Both ends of the socket; for IPv4 over an IPv6 socket, the IPv4 ends.
#[inline(always)]
pub(crate) fn ends<B: Base>(sock: B) -> Socket {
    let remote: [u32; 4] = read_or(sock, &SOCK_V6_DADDR, [0; 4]);
    let is_ipv6 = read(sock, &SOCK_FAMILY) == AF_INET6 && !is_mapped(remote);
    let namespace: B = read(sock, &SOCK_NET);
    Socket {
        id: sock.address() as u64,
        inode: inode(sock),
        local: if is_ipv6 {
            read_or(sock, &SOCK_V6_SADDR, [0; 4])
        } else {
            [read(sock, &SOCK_SADDR), 0, 0, 0]
        },
        remote: if is_ipv6 { remote } else { [read(sock, &SOCK_DADDR), 0, 0, 0] },
        local_port: local_port(sock),
        remote_port: remote_port(sock),
        family: if is_ipv6 { AF_INET6 } else { AF_INET },
        protocol: TCP,
        namespace: read_or(namespace, &NET_INUM, 0),
        reserved: 0,
    }
}

/// A socket with the destination of a datagram, which may differ from the one that it is connected to.
#[inline(always)]
pub(crate) fn toward(
    sock: Address,
    family: u16,
    protocol: u16,
    remote: &[u32; 4],
    remote_port: u16,
) -> Socket {
    let common = Window::<SOCK_COMMON_BYTES>::of(sock);
    let namespace: Address = common.get(&SOCK_NET);
    Socket {
        id: sock as u64,
        inode: inode(sock),
        local: if family == AF_INET6 {
            common.get(&SOCK_V6_SADDR)
        } else {
            [common.get(&SOCK_SADDR), 0, 0, 0]
        },
        remote: *remote,
        local_port: local_port(sock),
        remote_port,
        family,
        protocol,
        namespace: read_or(namespace, &NET_INUM, 0),
        reserved: 0,
    }
}

/// Bytes of data that were sent, each counted once, and received.
#[inline(always)]
pub(crate) fn bytes(sock: impl Base) -> [u64; 2] {
    let flags = read_or(sock, &SOCK_FLAGS, 0);
    // Beyond the members of a socket that the verifier allows.
    let sock = sock.address();
    let sent: u64 = read_or(sock, &TCP_BYTES_SENT, 0);
    let again: u64 = read_or(sock, &TCP_BYTES_RETRANS, 0);
    let received: u64 = read_or(sock, &TCP_BYTES_RECEIVED, 0);
    // The peer's FIN was counted as a byte.
    let fin = if has(&SOCK_DONE) { flags >> SOCK_DONE.load() & 1 } else { 0 };
    [sent.saturating_sub(again), received.saturating_sub(fin)]
}

/// The local port; zero where none was chosen yet.
#[inline(always)]
pub(crate) fn local_port(sock: impl Base) -> u16 {
    // Beyond the members of a socket that the verifier allows.
    u16::from_be(read(sock.address(), &INET_SPORT))
}

/// The remote port.
#[inline(always)]
pub(crate) fn remote_port(sock: impl Base) -> u16 {
    u16::from_be(read(sock, &SOCK_DPORT))
}

/// The socket's inode number; zero if it has none.
#[inline(always)]
pub(crate) fn inode<B: Base>(sock: B) -> u64 {
    let socket: B = read(sock, &SOCK_SOCKET);
    let socket = socket.address();
    if socket.is_null() {
        return 0;
    }
    // The socket is the first member of what it was allocated in, the inode the second.
    read(at(socket, &SOCKET_ALLOC_INODE), &INODE_INO)
}

/// Whether an IPv6 address is one of IPv4 in it.
#[inline(always)]
pub(crate) fn is_mapped(address: [u32; 4]) -> bool {
    address[0] == 0 && address[1] == 0 && address[2] == u32::from_be(0xffff)
}
