//! Acts on the agent: signals, tracing, and commands of `bpf(2)` on its maps and links.
//!
//! Each program first checks whether it concerns the agent, by its pid on the host ([`AGENT`](crate::layout::AGENT)) or
//! by the ids of its maps and links, so that other processes cost one comparison and no record. The agent's acts on
//! itself are not recorded.

use aya_ebpf::helpers::generated::bpf_probe_read_user;
use aya_ebpf::macros::{btf_tracepoint, fentry, kprobe, map, raw_tracepoint, tracepoint};
use aya_ebpf::maps::HashMap;
use aya_ebpf::programs::{
    BtfTracePointContext, FEntryContext, ProbeContext, RawTracePointContext, TracePointContext,
};
use lapwing_common::{Kind, OBJECTS_MAX, Object, Touched};

use crate::emit::{self, emit};
use crate::layout::*;
use crate::process::{current, syscall_result};
use crate::task;

/// The ids of the agent's maps and links ([`Object`]). It writes them once, and freezes the map.
#[map]
static OBJECTS: HashMap<u64, u8> = HashMap::with_max_entries(OBJECTS_MAX, 0);

/// Signals that any process gets normally: for children, terminals and sockets, and SIGCONT.
/// match-proto:v2.6.30:include/uapi/asm-generic/signal.h
const QUIET: u64 = 1 << 17 | 1 << 18 | 1 << 23 | 1 << 28;
/// `SEND_SIG_PRIV`: the kernel sends it. match-proto:v4.20:include/linux/sched/signal.h
const SEND_SIG_PRIV: u64 = 1;
/// `SI_KERNEL`.
const SI_KERNEL: u32 = 0x80;
/// The offset of `si_code`. match-proto:v4.20:include/linux/signal_types.h:struct kernel_siginfo
const SIGINFO_CODE: usize = 8;
/// `PTRACE_MODE_ATTACH`: it allows writing the memory. match-proto:v2.6.38:include/linux/ptrace.h
const MODE_ATTACH: u32 = 2;
/// The offset of the arguments in the record of a system call's entry.
/// match-proto:v2.6.30:include/trace/syscall.h:struct syscall_trace_enter
const SYSCALL_ARGUMENTS: usize = 16;
/// The offset of the map's descriptor in the attributes of batch commands.
/// match-proto:v5.6:include/uapi/linux/bpf.h:union bpf_attr
const BATCH_FD: usize = 36;
/// The names of the files of maps and links.
const MAP: u64 = u64::from_le_bytes(*b"bpf-map\0");
const LINK: u64 = u64::from_le_bytes(*b"bpf_link");

/// A signal is sent; this runs in the process that sends it, or where the kernel does.
///
/// match-proto:v4.20:include/trace/events/signal.h:TP_PROTO(int sig, struct kernel_siginfo *info, struct task_struct *task, int group, int result)
#[btf_tracepoint]
pub(crate) fn signal(ctx: BtfTracePointContext) -> i32 {
    signaled(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

/// The same as a raw tracepoint.
#[raw_tracepoint(tracepoint = "signal_generate")]
pub(crate) fn signal_raw(ctx: RawTracePointContext) -> i32 {
    signaled(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

#[inline(always)]
fn signaled(signal: u32, info: Address, target: Address) {
    if !is_agent(target) || QUIET >> (signal & 63) & 1 == 1 {
        return;
    }
    let code = match info as u64 {
        0 => 0,
        SEND_SIG_PRIV => SI_KERNEL,
        _ => info.read_at(SIGINFO_CODE),
    };
    touched(Kind::SIGNAL, signal, code, target);
}

/// A process may inspect or change the agent: a debugger, a writer of its memory, one that takes its descriptors.
///
/// match-proto:v2.6.38:security/security.c:int security_ptrace_access_check(struct task_struct *child, unsigned int mode)
#[fentry(function = "security_ptrace_access_check")]
pub(crate) fn ptrace_fentry(ctx: FEntryContext) -> i32 {
    accessed(ctx.arg(0), ctx.arg(1));
    0
}

/// The same without trampolines.
#[kprobe(function = "security_ptrace_access_check")]
pub(crate) fn ptrace_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(target), Some(mode)) = (ctx.arg(0), ctx.arg(1)) {
        accessed(target, mode);
    }
    0
}

#[inline(always)]
fn accessed(target: Address, mode: u32) {
    if mode & MODE_ATTACH != 0 && is_agent(target) {
        touched(Kind::PTRACE, mode, 0, target);
    }
}

/// The same without either: at the end of the call, by the task that the caller began to trace last.
///
/// match-proto:v2.6.28:kernel/ptrace.c:SYSCALL_DEFINE4(ptrace, long, request, long, pid, unsigned long, addr, unsigned long, data)
#[tracepoint]
pub(crate) fn ptrace_syscall(ctx: TracePointContext) -> u32 {
    if syscall_result(&ctx).is_some() && has(&TASK_PTRACED) && has(&TASK_PTRACE_ENTRY) {
        let traced = at(current(), &TASK_PTRACED);
        let first: Address = traced.read_at(0);
        let target = around(first, &TASK_PTRACE_ENTRY);
        if first != traced && is_agent(target) {
            touched(Kind::PTRACE, 0, 0, target);
        }
    }
    0
}

/// A command of `bpf(2)`, with the attributes as the kernel copied them.
///
/// match-proto:v4.15:security/security.c:int security_bpf(int cmd, union bpf_attr *attr, unsigned int size)
#[fentry(function = "security_bpf")]
pub(crate) fn bpf_fentry(ctx: FEntryContext) -> i32 {
    let (command, attributes): (u32, Address) = (ctx.arg(0), ctx.arg(1));
    if let Some(place) = descriptor_place(command) {
        called(command, attributes.read_at(place));
    }
    0
}

/// The same without trampolines.
#[kprobe(function = "security_bpf")]
pub(crate) fn bpf_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(command), Some(attributes)) = (ctx.arg::<u32>(0), ctx.arg::<Address>(1))
        && let Some(place) = descriptor_place(command)
    {
        called(command, attributes.read_at(place));
    }
    0
}

/// The same without either: at the beginning of the call, by the attributes as they are then. A caller that changes
/// them meanwhile hides the command, but not its effect.
///
/// match-proto:v3.18:kernel/bpf/syscall.c:SYSCALL_DEFINE3(bpf, int, cmd, union bpf_attr __user *, uattr, unsigned int, size)
#[tracepoint]
pub(crate) fn bpf_syscall(ctx: TracePointContext) -> u32 {
    // SAFETY: the record of a system call's beginning holds its arguments.
    let arguments = unsafe { ctx.read_at::<[u64; 2]>(SYSCALL_ARGUMENTS) };
    if let Ok([command, attributes]) = arguments
        && let Some(place) = descriptor_place(command as u32)
    {
        let mut descriptor = 0_u32;
        // SAFETY: the helper writes four bytes, and checks the address.
        unsafe {
            bpf_probe_read_user(
                (&raw mut descriptor).cast(),
                size_of::<u32>() as u32,
                (attributes as Address).wrapping_add(place).cast(),
            );
        }
        called(command as u32, descriptor);
    }
    0
}

/// The offset of the descriptor of what a command changes; `None` for commands that change no existing object.
///
/// match-proto:v5.9:include/uapi/linux/bpf.h:enum bpf_cmd
#[inline(always)]
fn descriptor_place(command: u32) -> Option<usize> {
    match command {
        // Elements: update, delete, look up and delete; freeze; a link: update, detach.
        2 | 3 | 21 | 22 | 29 | 34 => Some(0),
        // The same of many elements.
        25..=27 => Some(BATCH_FD),
        _ => None,
    }
}

/// A process calls `bpf` with a descriptor.
#[inline(always)]
fn called(command: u32, descriptor: u32) {
    let current = current();
    if is_agent(current) {
        return;
    }
    let file = task::file(current, descriptor);
    let private: Address = read(file, &FILE_PRIVATE);
    let entry: Address = read(file, &FILE_DENTRY);
    let name: Address = read(entry, &DENTRY_NAME);
    let (object, id) = match name.read_at::<u64>(0) {
        MAP => (Object::Map, read_or(private, &BPF_MAP_ID, 0)),
        LINK => (Object::Link, read_or(private, &BPF_LINK_ID, 0)),
        _ => return,
    };
    if OBJECTS.get_ptr(object.key(id)).is_some() {
        touched(Kind::BPF, command, id, core::ptr::null());
    }
}

/// Whether a task is the agent's.
#[inline(always)]
fn is_agent(task: Address) -> bool {
    AGENT.load() != 0 && read(task, &TASK_TGID) == AGENT.load()
}

#[inline(always)]
fn touched(kind: Kind, what: u32, detail: u32, target: Address) {
    let (current, leader): (_, Address) = (current(), read(target, &TASK_LEADER));
    if is_agent(current) {
        return;
    }
    let task = task::identity(current);
    let (target, target_start) = (read(target, &TASK_TGID), read(leader, &TASK_START));
    let header = emit::header(kind);
    emit(kind, &mut Touched { header, task, target_start, target, what, detail, reserved: 0 });
}
