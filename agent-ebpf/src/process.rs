//! Processes: fork, exec, exit.

use aya_ebpf::helpers::generated::bpf_get_current_task;
use aya_ebpf::macros::{btf_tracepoint, map};
use aya_ebpf::maps::LruHashMap;
use aya_ebpf::programs::BtfTracePointContext;
use lapwing_common::{Exec, Exit, Fork, Kind, RECORD_BYTES_MAX, Span};

use crate::emit::{self, emit};
use crate::layout::*;
use crate::path::{self, Tail};
use crate::{task, trace};

/// Control groups whose path was sent.
#[map]
static CGROUPS: LruHashMap<u64, u32> = LruHashMap::with_max_entries(4096, 0);

/// `SIGNAL_GROUP_EXIT`: all threads end with one status. match-proto:v2.6.27:include/linux/sched/signal.h
const SIGNAL_GROUP_EXIT: u32 = 4;

/// A thread or process was made; this runs in the one that made it, before the new one runs.
///
/// match-proto:v2.6.37:include/trace/events/sched.h:TP_PROTO(struct task_struct *parent, struct task_struct *child)
#[btf_tracepoint]
pub(crate) fn fork(ctx: BtfTracePointContext) -> i32 {
    let (forker, child): (Address, Address) = (ctx.arg(0), ctx.arg(1));
    let identity = task::identity(child);
    if identity.thread != identity.pid || identity.pid == 0 {
        return 0;
    }
    trace!(&ctx, "fork {}", identity.pid);
    emit(
        Kind::FORK,
        &mut Fork {
            header: emit::header(Kind::FORK),
            child: identity,
            credentials: task::credentials(child),
            place: task::place(child),
            forker: task::process_number(forker, read(forker, &TASK_LEADER)),
            reserved: 0,
            forker_start: read(read(forker, &TASK_LEADER), &TASK_START),
        },
    );
    0
}

/// A process runs another program; this runs in it, when nothing can fail any more and before the program starts.
///
/// match-proto:v3.4:include/trace/events/sched.h:TP_PROTO(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)
#[btf_tracepoint]
pub(crate) fn exec(ctx: BtfTracePointContext) -> i32 {
    let Some(scratch) = emit::scratch() else { return 0 };
    let (task, binprm): (Address, Address) = (ctx.arg(0), ctx.arg(2));
    let identity = task::identity(task);
    if identity.pid == 0 {
        return 0;
    }
    let record = scratch.cast::<Exec>();
    // SAFETY: the room is this processor's, no other program uses it, and it is longer than an `Exec`; everything of
    // the fixed part is written here before it is handed on.
    unsafe {
        (*record).header = emit::header(Kind::EXEC);
        (*record).task = identity;
        (*record).credentials = task::credentials(task);
        (*record).place = task::place(task);
        (*record).stdio = task::stdio(task);
        (*record).args_count = read(binprm, &BINPRM_ARGC);
        let tail = Tail::begin(scratch);
        (*record).filename = tail.text(read(binprm, &BINPRM_FILENAME));
        (*record).interpreter = interpreter(&tail, binprm);
        let file: Address = read(binprm, &BINPRM_FILE);
        (*record).executable_inode = read(read(file, &FILE_INODE), &INODE_INO);
        (*record).executable = path::span(tail.path(read(file, &FILE_DENTRY), read(file, &FILE_MNT)));
        let fs: Address = read(task, &TASK_FS);
        (*record).directory = path::span(tail.path(read(fs, &FS_PWD_DENTRY), read(fs, &FS_PWD_MNT)));
        let cgroup = (*record).place.cgroup;
        let is_known = CGROUPS.get_ptr(cgroup).is_some();
        (*record).cgroup = if is_known { Span::EMPTY } else { path::span(tail.cgroup(task::cgroup(task))) };
        let mm: Address = read(task, &TASK_MM);
        let (start, end): (u64, u64) = (read(mm, &MM_ARG_START), read(mm, &MM_ARG_END));
        let bytes = end.saturating_sub(start);
        (*record).args_bytes = bytes as u32;
        (*record).args = path::span(tail.args(start as Address, bytes as usize));
        trace!(&ctx, "exec {}", (*record).task.pid);
        let len = tail.len() as u64;
        if len <= RECORD_BYTES_MAX as u64 && emit::write(Kind::EXEC, record.cast(), len) && !is_known {
            // Only now: a path that found no room must be sent again.
            let _ = CGROUPS.insert(cgroup, 1, 0);
        }
    }
    0
}

/// A thread ends, by itself or by a signal; with the last one, so does the process.
///
/// match-proto:v2.6.37:include/trace/events/sched.h:TP_PROTO(struct task_struct *p)
/// match-proto:v6.16:include/trace/events/sched.h:TP_PROTO(struct task_struct *p, bool group_dead)
#[btf_tracepoint]
pub(crate) fn exit(ctx: BtfTracePointContext) -> i32 {
    let task: Address = ctx.arg(0);
    let signal: Address = read(task, &TASK_SIGNAL);
    let is_last = if EXIT_TELLS_LAST.load() != 0 {
        ctx.arg::<u64>(1) & 0xff != 0
    } else {
        // Of two threads that end at once both may see zero; user space drops the second record.
        read::<u32>(signal, &SIGNAL_LIVE) == 0
    };
    if !is_last {
        return 0;
    }
    let leader: Address = read(task, &TASK_LEADER);
    let flags: u32 = read(signal, &SIGNAL_FLAGS);
    let status = if flags & SIGNAL_GROUP_EXIT != 0 {
        read(signal, &SIGNAL_GROUP_EXIT_CODE)
    } else {
        read(leader, &TASK_EXIT_CODE)
    };
    let identity = task::identity(task);
    if identity.pid == 0 {
        return 0;
    }
    trace!(&ctx, "exit {}", identity.pid);
    emit(Kind::EXIT, &mut Exit { header: emit::header(Kind::EXIT), task: identity, status, reserved: 0 });
    0
}

/// The interpreter as it was written, where the kernel went through one.
#[inline(always)]
fn interpreter(tail: &Tail, binprm: Address) -> Span {
    let (asked, taken): (Address, Address) = (read(binprm, &BINPRM_FILENAME), read(binprm, &BINPRM_INTERP));
    if asked == taken { Span::EMPTY } else { tail.text(taken) }
}

/// The task that a program runs in.
#[inline(always)]
pub(crate) fn current() -> Address {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_get_current_task() as Address }
}
