//! Attaches one program at one place of the kernel; a failure has a short reason.

use std::error::Error;
use std::fs::File;
use std::io;
use std::path::Path;

use aya::programs::{
    BtfTracePoint, CgroupAttachMode, CgroupSockAddr, FEntry, FExit, KProbe, Program, ProgramError,
    RawTracePoint, TracePoint,
};
use aya::{Btf, Ebpf};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::hierarchy;
use crate::bounded::{self, HOST_FILE_BYTES_MAX};

/// The kernel's error where its processor-specific part lacks a feature; the C library does not define it.
/// match-proto:v2.6.12:include/linux/errno.h:#define ENOTSUPP
const ENOTSUPP: i32 = 524;
/// A symbol of kernels that can probe their functions.
const KPROBES: &str = "/sys/bus/event_source/devices/kprobe/type";

/// Where a program is attached.
pub(super) enum Attach {
    /// A tracepoint, by BTF.
    Tracepoint(&'static str),
    /// The same by its name.
    RawTracepoint(&'static str),
    /// A kernel function, by trampoline.
    Fentry(&'static str),
    /// Its return.
    Fexit(&'static str),
    /// A kernel function, by kprobe.
    Kprobe(&'static str),
    /// Its return.
    Kretprobe(&'static str),
    /// The end of system calls, by a perf event each.
    Syscalls(&'static [&'static str]),
    /// What sockets do, by the control group that all of them are in.
    Cgroup,
}

/// Loads a program of the object and attaches it.
///
/// # Errors
/// Why that cannot be.
pub(super) fn attach(name: &str, place: &Attach, ebpf: &mut Ebpf, btf: &Btf) -> Result<(), String> {
    let program = ebpf.program_mut(name).ok_or_else(|| "it is not in the object".to_owned())?;
    attach_program(program, place, btf).map_err(|error| why(&error, place))
}

/// Detaches and unloads a program.
pub(super) fn unload(name: &str, ebpf: &mut Ebpf) {
    let Some(program) = ebpf.program_mut(name) else { return };
    let unloaded = match program {
        Program::FEntry(program) => program.unload(),
        Program::FExit(program) => program.unload(),
        Program::KProbe(program) => program.unload(),
        Program::TracePoint(program) => program.unload(),
        Program::BtfTracePoint(program) => program.unload(),
        Program::RawTracePoint(program) => program.unload(),
        Program::CgroupSockAddr(program) => program.unload(),
        _ => Ok(()),
    };
    if let Err(error) = unloaded {
        // It was not even loaded.
        tracing::debug!("{name}: {error}");
    }
}

/// Attaches a program that is loaded once more.
///
/// # Errors
/// Why that cannot be.
pub(super) fn attach_again(program: &mut Program, place: &Attach) -> Result<(), String> {
    with_tracefs(|| attach_loaded(program, place)).map_err(|error| why(&error, place))
}

fn attach_program(program: &mut Program, place: &Attach, btf: &Btf) -> Result<(), ProgramError> {
    load(program, place, btf)?;
    attach_loaded(program, place)
}

fn load(program: &mut Program, place: &Attach, btf: &Btf) -> Result<(), ProgramError> {
    match place {
        Attach::Tracepoint(name) => <&mut BtfTracePoint>::try_from(program)?.load(name, btf),
        Attach::RawTracepoint(_) => <&mut RawTracePoint>::try_from(program)?.load(),
        Attach::Fentry(function) => <&mut FEntry>::try_from(program)?.load(function, btf),
        Attach::Fexit(function) => <&mut FExit>::try_from(program)?.load(function, btf),
        Attach::Kprobe(_) | Attach::Kretprobe(_) => <&mut KProbe>::try_from(program)?.load(),
        Attach::Syscalls(_) => <&mut TracePoint>::try_from(program)?.load(),
        Attach::Cgroup => <&mut CgroupSockAddr>::try_from(program)?.load(),
    }
}

fn attach_loaded(program: &mut Program, place: &Attach) -> Result<(), ProgramError> {
    match place {
        Attach::Tracepoint(_) => {
            <&mut BtfTracePoint>::try_from(program)?.attach()?;
        }
        Attach::RawTracepoint(name) => {
            <&mut RawTracePoint>::try_from(program)?.attach(name)?;
        }
        Attach::Fentry(_) => {
            <&mut FEntry>::try_from(program)?.attach()?;
        }
        Attach::Fexit(_) => {
            <&mut FExit>::try_from(program)?.attach()?;
        }
        Attach::Kprobe(function) | Attach::Kretprobe(function) => {
            <&mut KProbe>::try_from(program)?.attach(*function, 0)?;
        }
        Attach::Syscalls(names) => {
            let program: &mut TracePoint = program.try_into()?;
            for name in *names {
                program.attach("syscalls", name)?;
            }
        }
        Attach::Cgroup => {
            let program: &mut CgroupSockAddr = program.try_into()?;
            let root = root_cgroup().map_err(ProgramError::IOError)?;
            // From 5.7 on it is attached by a link, and other programs run beside it without this flag; kernels before
            // 6.16 refuse the flag.
            program.attach(root, CgroupAttachMode::Single)?;
        }
    }
    Ok(())
}

/// The control group of version 2 that holds all others, wherever that hierarchy is mounted.
fn root_cgroup() -> io::Result<File> {
    let mounts = bounded::read_text("/proc/self/mountinfo", HOST_FILE_BYTES_MAX)?;
    let place = hierarchy::mount(&mounts, false);
    let missing = || io::Error::new(io::ErrorKind::NotFound, "control groups of version 2 are not mounted");
    File::open(place.ok_or_else(missing)?)
}

/// Why a program cannot be attached at its place.
fn why(error: &ProgramError, place: &Attach) -> String {
    let cause = innermost(error).downcast_ref::<io::Error>();
    let is_missing = cause.is_some_and(|error| error.kind() == io::ErrorKind::NotFound);
    match place {
        Attach::Fentry(_) | Attach::Fexit(_)
            if cause.is_some_and(|error| error.raw_os_error() == Some(ENOTSUPP)) =>
        {
            "this kernel has no trampolines".to_owned()
        }
        Attach::Kprobe(_) | Attach::Kretprobe(_) if !Path::new(KPROBES).exists() => {
            "this kernel has no kprobes".to_owned()
        }
        Attach::Kprobe(function) | Attach::Kretprobe(function) if is_missing => {
            format!("this kernel has no function `{function}` to probe")
        }
        Attach::Syscalls(_) if is_missing => "this kernel does not trace system calls".to_owned(),
        _ => brief(error),
    }
}

/// The innermost cause of an error; of the verifier's log, which is written to the agent's log, the last line.
fn brief(error: &ProgramError) -> String {
    if let ProgramError::LoadError { io_error, verifier_log } = error {
        let text = verifier_log.to_string();
        tracing::debug!("{text}");
        let statistics = ["processed ", "verification time ", "stack depth "];
        let is_verdict =
            |line: &&str| !line.is_empty() && !statistics.iter().any(|start| line.starts_with(start));
        let verdict = text.lines().rfind(is_verdict);
        let verdict = verdict.map(|line| format!(": {line}")).unwrap_or_default();
        return format!("the kernel refuses the program: {io_error}{verdict}");
    }
    innermost(error).to_string()
}

/// The innermost cause.
fn innermost(error: &ProgramError) -> &(dyn Error + 'static) {
    let mut cause: &(dyn Error + 'static) = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause
}

/// Where tracefs is mounted, which has the numbers of tracepoints.
const TRACEFS: &str = "/sys/kernel/tracing";

/// Runs what needs tracefs. If the host has not mounted it, that runs on a thread with its own mount namespace: the
/// host's mounts do not change, and agents that start at the same time do not unmount it for each other.
pub(super) fn with_tracefs<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    if Path::new(TRACEFS).join("events").exists() {
        return work();
    }
    let on_thread = || {
        // Without it, some hooks cannot be attached, and their reports say so.
        let _ = mount_tracefs();
        work()
    };
    let done = std::thread::scope(|scope| scope.spawn(on_thread).join());
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Gives this thread its own mount namespace, with tracefs.
fn mount_tracefs() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
    mount(Some("lapwing"), TRACEFS, Some("tracefs"), flags, none)
}
