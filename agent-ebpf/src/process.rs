//! Processes: fork, exec, exit, and changes of ids and session in between.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::BPF_F_RDONLY_PROG;
use aya_ebpf::helpers::generated::bpf_get_current_task;
use aya_ebpf::macros::{btf_tracepoint, fentry, fexit, kprobe, kretprobe, map, tracepoint};
use aya_ebpf::maps::HashMap;
use aya_ebpf::programs::{
    BtfTracePointContext, FEntryContext, FExitContext, ProbeContext, RetProbeContext, TracePointContext,
};
use lapwing_common::{CGROUPS_MAX, Changed, Exec, Exit, Fork, Kind, RECORD_BYTES_MAX, Span};

use crate::emit::{self, emit};
use crate::layout::*;
use crate::path::{self, Tail};
use crate::scratch::{self, Builder};
use crate::{file, socket, task, trace};

/// Control groups whose paths user space has; only user space writes here.
#[map]
static CGROUPS: HashMap<u64, u8> = HashMap::with_max_entries(CGROUPS_MAX, BPF_F_RDONLY_PROG);

/// `SIGNAL_GROUP_EXIT`: all threads end with one status. match-proto:v2.6.27:include/linux/sched/signal.h
const SIGNAL_GROUP_EXIT: u32 = 4;
/// The offset of the return value in the record of a system call's exit.
/// match-proto:v2.6.30:include/trace/syscall.h:struct syscall_trace_exit
const SYSCALL_RETURN: usize = 16;

/// A thread or process was created; this runs in its creator, before the new one runs.
///
/// match-proto:v2.6.37:include/trace/events/sched.h:TP_PROTO(struct task_struct *parent, struct task_struct *child)
#[btf_tracepoint]
pub(crate) fn fork(ctx: BtfTracePointContext) -> i32 {
    forked(&ctx, Typed::parameter(&ctx, 0), Typed::parameter(&ctx, 1));
    0
}

/// A task created another.
#[inline(always)]
pub(crate) fn forked<B: Base>(_ctx: &impl EbpfContext, forker: B, child: B) {
    let identity = task::identity(child);
    if identity.thread != identity.pid || identity.pid == 0 {
        return;
    }
    trace!(_ctx, "fork {}", identity.pid);
    let leader: B = read(forker, &TASK_LEADER);
    emit(
        Kind::FORK,
        &mut Fork {
            header: emit::header(Kind::FORK),
            child: identity,
            credentials: task::credentials(child),
            context: task::context(child),
            forker: task::process_number(forker, leader),
            reserved: 0,
            forker_start: read(leader, &TASK_START),
        },
    );
}

/// A process executes a program; this runs in it, after the last step that can fail and before the program starts.
///
/// match-proto:v3.4:include/trace/events/sched.h:TP_PROTO(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)
#[btf_tracepoint]
pub(crate) fn exec(ctx: BtfTracePointContext) -> i32 {
    executed(&ctx, Typed::parameter(&ctx, 0), Typed::parameter(&ctx, 2));
    0
}

/// A task is about to run the program that `binprm` was made for.
#[inline(always)]
pub(crate) fn executed<B: Base>(_ctx: &impl EbpfContext, task: B, binprm: B) {
    let identity = task::identity(task);
    if identity.pid == 0 {
        return;
    }
    let Some((place, scratch)) = scratch::of(Builder::Exec, Kind::EXEC) else { return };
    // SAFETY: the place is this processor's for execs, no other program uses it, and its record is longer than an
    // `Exec`; everything of the fixed part is written here before it is handed on.
    unsafe {
        let record = (&raw mut (*scratch).record).cast::<Exec>();
        (*record).header = emit::header(Kind::EXEC);
        (*record).task = identity;
        (*record).credentials = task::credentials(task);
        (*record).context = task::context(task);
        (*record).stdio = task::stdio(task);
        let modes = (*record).stdio.map(|descriptor| descriptor.mode as u16);
        (*record).socket = socket::of_descriptors(task.address(), modes);
        (*record).args_count = read(binprm, &BINPRM_ARGC);
        let tail = Tail::begin(place, scratch, size_of::<Exec>());
        (*record).filename = tail.text(read(binprm, &BINPRM_FILENAME));
        (*record).interpreter = interpreter(&tail, binprm);
        let opened: B = read(binprm, &BINPRM_FILE);
        let inode: B = read(opened, &FILE_INODE);
        let named = file::of(inode);
        (*record).file = named;
        let mounts = task::mount_namespace(task);
        let executable = tail.path(read(opened, &FILE_DENTRY), read(opened, &FILE_MNT), mounts);
        (*record).executable = path::span(executable);
        if file::is_upper(inode, &named) {
            (*record).executable.len |= Span::UPPER;
        }
        let fs: B = read(task, &TASK_FS);
        let directory = tail.path(read(fs, &FS_PWD_DENTRY), read(fs, &FS_PWD_MNT), mounts);
        (*record).directory = path::span(directory);
        let cgroup = (*record).context.cgroup;
        let is_known = CGROUPS.get_ptr(cgroup).is_some();
        (*record).cgroup = if is_known { Span::EMPTY } else { path::span(tail.cgroup(task::cgroup(task))) };
        let mm: B = read(task, &TASK_MM);
        (*record).environment = if WANTED.load() == 0 {
            Span::EMPTY
        } else {
            let (start, end) = (read(mm, &MM_ENV_START), read(mm, &MM_ENV_END));
            path::span(tail.environment(start as Address, end as Address))
        };
        let (start, end): (u64, u64) = (read(mm, &MM_ARG_START), read(mm, &MM_ARG_END));
        let bytes = end.saturating_sub(start);
        (*record).args_bytes = bytes as u32;
        (*record).args = path::span(tail.args(start as Address, bytes as usize));
        trace!(_ctx, "exec {}", (*record).task.pid);
        let len = tail.len() as u64;
        if len > RECORD_BYTES_MAX as u64 {
            emit::lost(Kind::EXEC);
        } else {
            // A shell on a connection is what rules look for. Waking the reader for every program would cost too much.
            let is_urgent = (*record).socket.family != 0;
            emit::write(Kind::EXEC, record.cast(), len, is_urgent);
        }
    }
}

/// A thread ends, by itself or by a signal; with the last one, so does the process.
///
/// match-proto:v2.6.37:include/trace/events/sched.h:TP_PROTO(struct task_struct *p)
/// match-proto:v6.16:include/trace/events/sched.h:TP_PROTO(struct task_struct *p, bool group_dead)
#[btf_tracepoint]
pub(crate) fn exit(ctx: BtfTracePointContext) -> i32 {
    let is_last = if EXIT_NAMES_LAST_THREAD.load() != 0 { Some(ctx.arg::<u64>(1) & 0xff != 0) } else { None };
    ended(&ctx, Typed::parameter(&ctx, 0), is_last);
    0
}

/// A task ends; whether it is the last of its process, where the kernel says so.
#[inline(always)]
pub(crate) fn ended<B: Base>(_ctx: &impl EbpfContext, task: B, is_last: Option<bool>) {
    let signal: B = read(task, &TASK_SIGNAL);
    // Of two threads that end at once both may see zero; user space drops the second record.
    if !is_last.unwrap_or_else(|| read(signal, &SIGNAL_LIVE) == 0) {
        return;
    }
    let leader: B = read(task, &TASK_LEADER);
    let flags: u32 = read(signal, &SIGNAL_FLAGS);
    // Both are read before one is chosen. Otherwise the compiler emits one read with a chosen address and a chosen
    // offset, and the verifiers of 5.10 and 6.1 consider the wrong pair possible.
    let (group_status, own_status) = (read(signal, &SIGNAL_GROUP_EXIT_CODE), read(leader, &TASK_EXIT_CODE));
    let status = if flags & SIGNAL_GROUP_EXIT != 0 { group_status } else { own_status };
    let identity = task::identity(task);
    if identity.pid == 0 {
        return;
    }
    trace!(_ctx, "exit {}", identity.pid);
    let (header, state) = (emit::header(Kind::EXIT), task::own_state(task));
    emit(Kind::EXIT, &mut Exit { header, task: identity, state, status, reserved: 0 });
}

/// A task is about to get other credentials: by a system call, or by the set-id bits of a file that it executes.
///
/// match-proto:v2.6.29:kernel/cred.c:int commit_creds(struct cred *new)
#[fentry]
pub(crate) fn ids_fentry(ctx: FEntryContext) -> i32 {
    committed(ctx.arg(0));
    0
}

/// The same without trampolines.
#[kprobe]
pub(crate) fn ids_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(cred) = ctx.arg(0) {
        committed(cred);
    }
    0
}

/// The same without either: at the end of the system calls that change them.
///
/// match-proto:v2.6.28:kernel/sys.c:SYSCALL_DEFINE3(setresuid, uid_t, ruid, uid_t, euid, uid_t, suid)
#[tracepoint]
pub(crate) fn ids_syscall(ctx: TracePointContext) -> u32 {
    if syscall_result(&ctx).is_some() {
        changed(Kind::IDS, core::ptr::null());
    }
    0
}

/// A process begins a session. The return value is first, because the function has no parameters.
///
/// match-proto:v4.17:kernel/sys.c:int ksys_setsid(void)
#[fexit]
pub(crate) fn session_fexit(ctx: FExitContext) -> i32 {
    if ctx.arg::<i32>(0) > 0 {
        changed(Kind::SESSION, core::ptr::null());
    }
    0
}

/// The same without trampolines.
#[kretprobe]
pub(crate) fn session_kretprobe(ctx: RetProbeContext) -> u32 {
    if ctx.ret::<i32>() > 0 {
        changed(Kind::SESSION, core::ptr::null());
    }
    0
}

/// The same without either.
///
/// match-proto:v2.6.28:kernel/sys.c:SYSCALL_DEFINE0(setsid)
#[tracepoint]
pub(crate) fn session_syscall(ctx: TracePointContext) -> u32 {
    if syscall_result(&ctx).is_some() {
        changed(Kind::SESSION, core::ptr::null());
    }
    0
}

/// The return value of a system call that has just ended; `None` if it failed.
#[inline(always)]
pub(crate) fn syscall_result(ctx: &TracePointContext) -> Option<i64> {
    // SAFETY: the record of a system call's exit is longer than this.
    let result = unsafe { ctx.read_at::<i64>(SYSCALL_RETURN) }.ok()?;
    (result >= 0).then_some(result)
}

/// Credentials replace the task's own. Most of them keep the ids and change capabilities, keyrings or limits.
#[inline(always)]
fn committed(new: Address) {
    let own: Address = read(current(), &TASK_REAL_CRED);
    if task::ids(new) != task::ids(own) {
        changed(Kind::IDS, new);
    }
}

/// Emits the process's state with these credentials, or with its own where there are none.
#[inline(never)]
fn changed(kind: Kind, cred: Address) -> u64 {
    let current = current();
    let task = task::identity(current);
    if task.pid != 0 {
        let own: Address = read(current, &TASK_REAL_CRED);
        let state = task::state(current, if cred.is_null() { own } else { cred });
        emit(kind, &mut Changed { header: emit::header(kind), task, state });
    }
    0
}

/// The interpreter as it was written, where the kernel went through one.
#[inline(always)]
fn interpreter(tail: &Tail, binprm: impl Base) -> Span {
    let (requested, taken): (Address, Address) =
        (read(binprm, &BINPRM_FILENAME), read(binprm, &BINPRM_INTERP));
    if requested == taken { Span::EMPTY } else { tail.text(taken) }
}

/// The task that a program runs in.
#[inline(always)]
pub(crate) fn current() -> Address {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_get_current_task() as Address }
}
