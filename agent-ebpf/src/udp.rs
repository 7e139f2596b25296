//! Datagrams: the destinations of UDP. Off by default.
//!
//! These programs run in the process that sends, before the kernel sends, and could refuse it: each returns 1, with
//! which the kernel goes on. Datagrams on a connected socket pass none of them; the connect reported the destination. A
//! resolver sends a datagram for each query, so the destinations of a process are deduplicated.

use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::{cgroup_sock_addr, map, tracepoint};
use aya_ebpf::maps::LruHashMap;
use aya_ebpf::programs::{SockAddrContext, TracePointContext};
use lapwing_common::{AF_INET, AF_INET6, Connected, Connection, IPPROTO_UDPLITE, Kind, Reach, Socket};

use crate::emit::{self, emit};
use crate::layout::*;
use crate::process::current;
use crate::socket;
use crate::{task, trace};

/// `IPPROTO_UDP` and `IPPROTO_UDPLITE`.
const UDP: u32 = 17;
const UDP_LITE: u32 = IPPROTO_UDPLITE as u32;
/// The programs' only return value: the kernel continues.
const GO_ON: i32 = 1;
/// How long a process's destination is not reported again.
const SILENCE_NANOS: u64 = 10_000_000_000;

/// A process and a destination.
#[derive(Clone, Copy)]
#[repr(C)]
struct Flow {
    start: u64,
    remote: [u32; 4],
    pid: u32,
    remote_port: u16,
    protocol: u16,
}

/// When a flow was last reported. Its size is set when it is loaded; the least recently used is evicted, and is then
/// reported again.
#[map]
static FLOWS: LruHashMap<Flow, u64> = LruHashMap::with_max_entries(1, 0);

/// Sockets that are being connected, by thread: their address and port are chosen once the programs here have run. Its
/// size is set as that of the other.
#[map]
static CONNECTING: LruHashMap<u64, u64> = LruHashMap::with_max_entries(1, 0);

/// A socket of IPv4 is connected.
///
/// match-proto:v4.17:include/uapi/linux/bpf.h:struct bpf_sock_addr
#[cgroup_sock_addr(connect4)]
pub(crate) fn udp_connect4(ctx: SockAddrContext) -> i32 {
    if sends_ipv4(&ctx) {
        connecting(&ctx);
    }
    GO_ON
}

/// A socket of IPv6 is connected, to an address of IPv4 too.
#[cgroup_sock_addr(connect6)]
pub(crate) fn udp_connect6(ctx: SockAddrContext) -> i32 {
    if sends_ipv6(&ctx) {
        connecting(&ctx);
    }
    GO_ON
}

/// A datagram is sent to an address of IPv4, by sockets of either.
///
/// match-proto:v4.18:net/ipv4/udp.c:int udp_sendmsg(struct sock *sk, struct msghdr *msg, size_t len)
#[cgroup_sock_addr(sendmsg4)]
pub(crate) fn udp_sendmsg4(ctx: SockAddrContext) -> i32 {
    sends_ipv4(&ctx);
    GO_ON
}

/// A datagram is sent to an address of IPv6.
///
/// match-proto:v4.18:net/ipv6/udp.c:int udpv6_sendmsg(struct sock *sk, struct msghdr *msg, size_t len)
#[cgroup_sock_addr(sendmsg6)]
pub(crate) fn udp_sendmsg6(ctx: SockAddrContext) -> i32 {
    sends_ipv6(&ctx);
    GO_ON
}

/// A datagram socket was connected: its source address is known. Calls of 32-bit programs and of io_uring end
/// elsewhere.
///
/// match-proto:v2.6.28:net/socket.c:SYSCALL_DEFINE3(connect, int, fd, struct sockaddr __user *, uservaddr, int, addrlen)
#[tracepoint]
pub(crate) fn udp_connected(_ctx: TracePointContext) -> u32 {
    let thread = bpf_get_current_pid_tgid();
    // SAFETY: a place in the map stays one; at worst another thread's socket is read from it.
    let Some(sock) = CONNECTING.get_ptr(thread).map(|sock| unsafe { *sock } as Address) else { return 0 };
    let _ = CONNECTING.remove(thread);
    let Socket { id, local, local_port, remote_port, .. } = socket::ends(sock);
    let header = emit::header(Kind::CONNECTED);
    emit(Kind::CONNECTED, &mut Connected { header, socket: id, local_port, remote_port, state: 0, local });
    0
}

/// Remembers the socket that the current thread connects.
#[inline(always)]
fn connecting(ctx: &SockAddrContext) {
    let _ = CONNECTING.insert(bpf_get_current_pid_tgid(), sock(ctx) as u64, 0);
}

/// Whether it was recorded.
#[inline(always)]
fn sends_ipv4(ctx: &SockAddrContext) -> bool {
    // SAFETY: the kernel hands a context over that lives as long as the program runs.
    let address = unsafe { word(&raw const (*ctx.sock_addr).user_ip4) };
    sends(ctx, AF_INET, [address, 0, 0, 0])
}

#[inline(always)]
fn sends_ipv6(ctx: &SockAddrContext) -> bool {
    let part = |index: usize| {
        // SAFETY: as above, and there are four of them.
        unsafe { word((&raw const (*ctx.sock_addr).user_ip6).cast::<u32>().add(index)) }
    };
    let address = [part(0), part(1), part(2), part(3)];
    let is_mapped = socket::is_mapped(address);
    let (family, remote) = if is_mapped { (AF_INET, [address[3], 0, 0, 0]) } else { (AF_INET6, address) };
    sends(ctx, family, remote)
}

#[inline(always)]
fn sends(ctx: &SockAddrContext, family: u16, remote: [u32; 4]) -> bool {
    // SAFETY: as above.
    let (protocol, port) =
        unsafe { (word(&raw const (*ctx.sock_addr).protocol), word(&raw const (*ctx.sock_addr).user_port)) };
    (protocol == UDP || protocol == UDP_LITE) && {
        let remote_port = u16::from_be(port as u16);
        trace!(ctx, "datagram to port {}", remote_port);
        let flow = Flow { start: 0, remote, pid: 0, remote_port, protocol: protocol as u16 };
        report(sock(ctx), family, flow)
    }
}

/// Reports the destination of the current process, unless it was reported a short time ago.
#[inline(always)]
fn report(sock: Address, family: u16, mut flow: Flow) -> bool {
    let current = current();
    let reach = Reach::of(family == AF_INET6, flow.remote);
    if !task::is_watched(current) || emit::is_filtered(Kind::DATAGRAM, || reach.bit()) {
        return false;
    }
    let task = task::identity(current);
    if task.pid == 0 {
        return false;
    }
    (flow.start, flow.pid) = (task.start, task.pid);
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    // SAFETY: a place in the map stays one; at worst another flow's time is read from it.
    let reported = FLOWS.get_ptr(flow).map(|reported| unsafe { *reported });
    if reported.is_some_and(|reported| now.wrapping_sub(reported) < SILENCE_NANOS) {
        emit::count_filtered(Kind::DATAGRAM);
        return false;
    }
    let header = emit::header(Kind::DATAGRAM);
    let socket = socket::toward(sock, family, flow.protocol, &flow.remote, flow.remote_port);
    let state = task::own_state(current);
    let is_written = emit(Kind::DATAGRAM, &mut Connection { header, task, state, socket });
    if is_written {
        // Set after the record was written: a lost one must be reported the next time.
        let _ = FLOWS.insert(flow, now, 0);
    }
    is_written
}

/// The socket's address as a number. The verifier has the type of the socket in the context, and refuses arithmetic
/// with it; a copy has no type.
#[inline(always)]
fn sock(ctx: &SockAddrContext) -> Address {
    // SAFETY: the context has a socket in all four programs.
    let sock = unsafe { core::ptr::read_volatile(&raw const (*ctx.sock_addr).__bindgen_anon_1.sk) };
    Address::read_at((&raw const sock).cast(), 0)
}

/// A number of the context, read by itself: the verifier refuses two that are read at once.
///
/// # Safety
/// It is one of a [`bpf_sock_addr`] that the kernel handed over.
#[inline(always)]
unsafe fn word(place: *const u32) -> u32 {
    const _: () = assert!(size_of::<bpf_sock_addr>() == 72, "as the kernel has it");
    // SAFETY: as promised by the caller.
    unsafe { core::ptr::read_volatile(place) }
}
