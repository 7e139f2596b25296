//! Connections: connect, accept, and their end.

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::{btf_tracepoint, fexit, kretprobe, tracepoint};
use aya_ebpf::programs::{
    BtfTracePointContext, FExitContext, RawTracePointContext, RetProbeContext, TracePointContext,
};
use lapwing_common::{Closed, Connected, Connection, Kind};

use crate::emit::{self, emit};
use crate::layout::*;
use crate::process::{current, syscall_result};
use crate::{socket, task, trace};

/// match-proto:v4.16:include/net/tcp_states.h:enum
const TCP_SYN_SENT: u32 = 2;
const TCP_SYN_RECV: u32 = 3;
const TCP_CLOSE: u32 = 7;
const TCP_LISTEN: u32 = 10;

/// A TCP socket changes its state. It changes from closed to "SYN sent" in the process that connects, by any call; its
/// port is chosen after that, so that the next change has it. It changes to closed in the context that handles its last
/// packet.
///
/// match-proto:v4.16:include/trace/events/sock.h:TP_PROTO(const struct sock *sk, const int oldstate, const int newstate)
#[btf_tracepoint]
pub(crate) fn connect(ctx: BtfTracePointContext) -> i32 {
    state_changed(&ctx, Typed::parameter(&ctx, 0), ctx.arg(1), ctx.arg(2));
    0
}

/// A TCP socket changes from one state to another.
#[inline(always)]
pub(crate) fn state_changed<B: Base>(_ctx: &impl EbpfContext, sock: B, old: u32, new: u32) {
    if old == TCP_CLOSE && new == TCP_SYN_SENT {
        connection(Kind::CONNECT, sock);
        trace!(_ctx, "connect");
    } else if new == TCP_CLOSE {
        // A socket that listened, or whose handshake was not finished, was no connection.
        if old != TCP_CLOSE && old != TCP_LISTEN && old != TCP_SYN_RECV {
            closed(sock, old);
        }
    } else if old == TCP_SYN_SENT && socket::is_tcp(sock) {
        connected(sock, new);
    }
}

/// The local port of a socket that waits for an answer, or whose answer was not recorded. User space runs it with the
/// socket, its inode and its remote port from the record. Another socket may be at the same address by now, so these
/// are compared; zero if they differ.
///
/// Written without the library's macro, whose programs all return zero: this one returns the port.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/port")]
fn port(ctx: *mut core::ffi::c_void) -> i32 {
    let ctx = RawTracePointContext::new(ctx);
    let (sock, inode, remote_port): (Address, u64, u64) = (ctx.arg(0), ctx.arg(1), ctx.arg(2));
    let is_same =
        u64::from(socket::remote_port(sock)) == remote_port && inode != 0 && socket::inode(sock) == inode;
    if is_same { i32::from(socket::local_port(sock)) } else { 0 }
}

/// A process takes a connection. The return value follows the function's four parameters.
///
/// match-proto:v4.11:net/ipv4/inet_connection_sock.c:struct sock *inet_csk_accept(struct sock *sk, int flags, int *err, bool kern)
#[fexit]
pub(crate) fn accept_fexit_4(ctx: FExitContext) -> i32 {
    accepted(ctx.arg(4));
    0
}

/// The same with two parameters.
///
/// match-proto:v6.10:net/ipv4/inet_connection_sock.c:struct sock *inet_csk_accept(struct sock *sk, struct proto_accept_arg *arg)
#[fexit]
pub(crate) fn accept_fexit_2(ctx: FExitContext) -> i32 {
    accepted(ctx.arg(2));
    0
}

/// The same without trampolines.
#[kretprobe]
pub(crate) fn accept_kretprobe(ctx: RetProbeContext) -> u32 {
    accepted(ctx.ret());
    0
}

/// The same without either: at the end of the system call, by way of the descriptor that it returns.
///
/// match-proto:v2.6.28:net/socket.c:SYSCALL_DEFINE4(accept4, int, fd, struct sockaddr __user *, upeer_sockaddr, int __user *, upeer_addrlen, int, flags)
#[tracepoint]
pub(crate) fn accept4_syscall(ctx: TracePointContext) -> u32 {
    descriptor_accepted(&ctx);
    0
}

/// match-proto:v2.6.28:net/socket.c:SYSCALL_DEFINE3(accept, int, fd, struct sockaddr __user *, upeer_sockaddr, int __user *, upeer_addrlen)
#[tracepoint]
pub(crate) fn accept_syscall(ctx: TracePointContext) -> u32 {
    descriptor_accepted(&ctx);
    0
}

#[inline(always)]
fn connected(sock: impl Base, state: u32) {
    let kind = Kind::CONNECTED;
    if emit::is_filtered(kind, || socket::address_classes(sock)[1]) {
        return;
    }
    let (local_port, remote_port) = (socket::local_port(sock), socket::remote_port(sock));
    let (header, socket) = (emit::header(kind), sock.address() as u64);
    emit(kind, &mut Connected { header, socket, local_port, remote_port, state, local: [0; 4] });
}

/// Whether this end connected or accepted is not known here: either address may be the destination.
#[inline(always)]
fn closed(sock: impl Base, state: u32) {
    if !socket::is_tcp(sock) {
        return;
    }
    let both = |[local, remote]: [u32; 2]| local | remote;
    if emit::is_filtered(Kind::CLOSED, || both(socket::address_classes(sock))) {
        // The connection's port is known now. No later record has it.
        if state == TCP_SYN_SENT {
            connected(sock, TCP_CLOSE);
        }
        return;
    }
    let [sent, received] = socket::bytes(sock);
    let (header, socket) = (emit::header(Kind::CLOSED), socket::ends(sock));
    emit(Kind::CLOSED, &mut Closed { header, socket, sent, received, state, reserved: 0 });
}

#[inline(always)]
fn descriptor_accepted(ctx: &TracePointContext) {
    let Some(descriptor) = syscall_result(ctx) else { return };
    let file = task::file(current(), descriptor as u32);
    let inode: Address = read(file, &FILE_INODE);
    if socket::is_socket(read(inode, &INODE_MODE)) {
        accepted(socket::of_file(file));
    }
}

#[inline(always)]
fn accepted(sock: Address) {
    // Unix sockets are accepted by the same system call.
    if !sock.is_null() && socket::is_internet(sock) {
        connection(Kind::ACCEPT, socket::carrier(sock));
    }
}

#[inline(always)]
fn connection(kind: Kind, sock: impl Base) {
    if has(&TYPED_TASK) {
        connection_of(kind, sock, Typed::current());
    } else {
        connection_of(kind, sock, current());
    }
}

#[inline(always)]
fn connection_of(kind: Kind, sock: impl Base, current: impl Base) {
    if !socket::is_tcp(sock) || !task::is_watched(current) {
        return;
    }
    // For accept, the local address is the destination.
    let destination = usize::from(kind != Kind::ACCEPT);
    if emit::is_filtered(kind, || socket::address_classes(sock)[destination]) {
        return;
    }
    let (task, state, socket) = (task::identity(current), task::own_state(current), socket::ends(sock));
    emit(kind, &mut Connection { header: emit::header(kind), task, state, socket });
}
