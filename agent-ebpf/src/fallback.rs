//! The hooks of `process` and `network`, attached by other methods than typed tracepoints, for kernels that lack these
//! or where they must not be used: raw tracepoints, and kernel functions that run next to them, by trampoline and by
//! kprobe.
//!
//! The agent's table of hooks decides which is attached: one for each row.

use aya_ebpf::macros::{fentry, kprobe, raw_tracepoint};
use aya_ebpf::programs::{FEntryContext, ProbeContext, RawTracePointContext};

use crate::layout::*;
use crate::network::state_changed;
use crate::process::{current, ended, executed, forked};

/// match-proto:v2.6.37:include/trace/events/sched.h:TP_PROTO(struct task_struct *parent, struct task_struct *child)
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub(crate) fn fork_raw(ctx: RawTracePointContext) -> i32 {
    forked::<Address>(&ctx, ctx.arg(0), ctx.arg(1));
    0
}

/// A new task is made runnable, by the task that created it.
///
/// match-proto:v2.6.25:kernel/sched/core.c:void wake_up_new_task(struct task_struct *p)
#[fentry(function = "wake_up_new_task")]
pub(crate) fn fork_fentry(ctx: FEntryContext) -> i32 {
    forked::<Address>(&ctx, current(), ctx.arg(0));
    0
}

/// The same without trampolines.
#[kprobe(function = "wake_up_new_task")]
pub(crate) fn fork_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(child) = ctx.arg(0) {
        forked(&ctx, current(), child);
    }
    0
}

/// match-proto:v3.4:include/trace/events/sched.h:TP_PROTO(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub(crate) fn exec_raw(ctx: RawTracePointContext) -> i32 {
    executed::<Address>(&ctx, ctx.arg(0), ctx.arg(2));
    0
}

/// The last thing that is done for a program before its first instruction, for scripts by their interpreter.
///
/// match-proto:v4.17:fs/exec.c:void finalize_exec(struct linux_binprm *bprm)
#[fentry(function = "finalize_exec")]
pub(crate) fn exec_fentry(ctx: FEntryContext) -> i32 {
    executed::<Address>(&ctx, current(), ctx.arg(0));
    0
}

/// The same without trampolines.
#[kprobe(function = "finalize_exec")]
pub(crate) fn exec_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(binprm) = ctx.arg(0) {
        executed(&ctx, current(), binprm);
    }
    0
}

/// match-proto:v2.6.37:include/trace/events/sched.h:TP_PROTO(struct task_struct *p)
/// match-proto:v6.16:include/trace/events/sched.h:TP_PROTO(struct task_struct *p, bool group_dead)
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub(crate) fn exit_raw(ctx: RawTracePointContext) -> i32 {
    let is_last = if EXIT_NAMES_LAST_THREAD.load() != 0 { Some(ctx.arg::<u64>(1) & 0xff != 0) } else { None };
    ended::<Address>(&ctx, ctx.arg(0), is_last);
    0
}

/// Accounting of a task at its exit; a parameter has whether it is the last of its process.
///
/// match-proto:v2.6.18:kernel/taskstats.c:void taskstats_exit(struct task_struct *tsk, int group_dead)
#[fentry(function = "taskstats_exit")]
pub(crate) fn exit_fentry(ctx: FEntryContext) -> i32 {
    ended::<Address>(&ctx, ctx.arg(0), Some(ctx.arg::<u32>(1) != 0));
    0
}

/// The same without trampolines.
#[kprobe(function = "taskstats_exit")]
pub(crate) fn exit_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(task), Some(group_dead)) = (ctx.arg::<Address>(0), ctx.arg::<u32>(1)) {
        ended(&ctx, task, Some(group_dead != 0));
    }
    0
}

/// match-proto:v4.16:include/trace/events/sock.h:TP_PROTO(const struct sock *sk, const int oldstate, const int newstate)
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub(crate) fn connect_raw(ctx: RawTracePointContext) -> i32 {
    state_changed::<Address>(&ctx, ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

/// A socket is about to change its state.
///
/// match-proto:v4.16:net/ipv4/af_inet.c:void inet_sk_state_store(struct sock *sk, int newstate)
#[fentry(function = "inet_sk_state_store")]
pub(crate) fn connect_fentry(ctx: FEntryContext) -> i32 {
    let sock = ctx.arg(0);
    state_changed(&ctx, sock, state(sock), ctx.arg(1));
    0
}

/// The same without trampolines.
#[kprobe(function = "inet_sk_state_store")]
pub(crate) fn connect_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(sock), Some(new)) = (ctx.arg(0), ctx.arg(1)) {
        state_changed(&ctx, sock, state(sock), new);
    }
    0
}

/// The state of a socket.
#[inline(always)]
fn state(sock: Address) -> u32 {
    u32::from(read(sock, &SOCK_STATE))
}
