//! The hooks: a table of what is watched and by which programs, the attaching of them, and what became of it.
//!
//! Each row has alternatives in the order in which they are tried. Tracepoints that BTF describes come first: every
//! supported kernel has them, with kprobes off, trampolines off and under lockdown, and they need no perf event. The
//! same tracepoints by their names alone need no description of theirs; trampolines need no tracepoint, but a kernel that
//! was built for them; kprobes come after these, for they are the slowest and need a perf event.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;

use aya::programs::{
    BtfTracePoint, CgroupAttachMode, CgroupSockAddr, FEntry, FExit, KProbe, Program, ProgramError,
    RawTracePoint, TracePoint,
};
use aya::{Btf, Ebpf};
use lapwing_common::Kind;
use serde::{Deserialize, Serialize};

/// One thing that is watched.
pub(crate) struct Hook {
    /// Its name in `lapwing status` and the log.
    pub(crate) name: &'static str,
    /// The records that it yields; one of the first kind shows that it works.
    pub(super) yields: &'static [Kind],
    /// Whether the agent refuses to start without it.
    is_required: bool,
    /// How it can be attached, best first.
    alternatives: &'static [Alternative],
    /// What there is without it.
    without: &'static str,
}

/// One way to watch it: all of these programs.
struct Alternative {
    method: &'static str,
    programs: &'static [(&'static str, Attach)],
}

/// Where a program is attached.
enum Attach {
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

/// The system calls by which a process becomes another user or group.
const SET_IDS: [&str; 6] = [
    "sys_exit_setuid",
    "sys_exit_setgid",
    "sys_exit_setreuid",
    "sys_exit_setregid",
    "sys_exit_setresuid",
    "sys_exit_setresgid",
];
/// What is told where a change is not seen when it happens.
const LATE: &str = "changes are told with the next event of their process, those undone until then never";

#[rustfmt::skip]
pub(super) const HOOKS: &[Hook] = &[
    Hook { name: "fork", yields: &[Kind::FORK], is_required: true, without: "nothing", alternatives: &[
        Alternative { method: "tp_btf/sched_process_fork", programs: &[("fork", Attach::Tracepoint("sched_process_fork"))] },
        Alternative { method: "raw_tp/sched_process_fork", programs: &[("fork_raw", Attach::RawTracepoint("sched_process_fork"))] },
        Alternative { method: "fentry/wake_up_new_task", programs: &[("fork_fentry", Attach::Fentry("wake_up_new_task"))] },
        Alternative { method: "kprobe/wake_up_new_task", programs: &[("fork_kprobe", Attach::Kprobe("wake_up_new_task"))] },
    ]},
    Hook { name: "exec", yields: &[Kind::EXEC], is_required: true, without: "nothing", alternatives: &[
        Alternative { method: "tp_btf/sched_process_exec", programs: &[("exec", Attach::Tracepoint("sched_process_exec"))] },
        Alternative { method: "raw_tp/sched_process_exec", programs: &[("exec_raw", Attach::RawTracepoint("sched_process_exec"))] },
        Alternative { method: "fentry/finalize_exec", programs: &[("exec_fentry", Attach::Fentry("finalize_exec"))] },
        Alternative { method: "kprobe/finalize_exec", programs: &[("exec_kprobe", Attach::Kprobe("finalize_exec"))] },
    ]},
    Hook { name: "exit", yields: &[Kind::EXIT], is_required: true, without: "nothing", alternatives: &[
        Alternative { method: "tp_btf/sched_process_exit", programs: &[("exit", Attach::Tracepoint("sched_process_exit"))] },
        Alternative { method: "raw_tp/sched_process_exit", programs: &[("exit_raw", Attach::RawTracepoint("sched_process_exit"))] },
        Alternative { method: "fentry/taskstats_exit", programs: &[("exit_fentry", Attach::Fentry("taskstats_exit"))] },
        Alternative { method: "kprobe/taskstats_exit", programs: &[("exit_kprobe", Attach::Kprobe("taskstats_exit"))] },
    ]},
    Hook { name: "connect", yields: &[Kind::CONNECT, Kind::CONNECTED, Kind::CLOSED], is_required: true, without: "nothing", alternatives: &[
        Alternative { method: "tp_btf/inet_sock_set_state", programs: &[("connect", Attach::Tracepoint("inet_sock_set_state"))] },
        Alternative { method: "raw_tp/inet_sock_set_state", programs: &[("connect_raw", Attach::RawTracepoint("inet_sock_set_state"))] },
        Alternative { method: "fentry/inet_sk_state_store", programs: &[("connect_fentry", Attach::Fentry("inet_sk_state_store"))] },
        Alternative { method: "kprobe/inet_sk_state_store", programs: &[("connect_kprobe", Attach::Kprobe("inet_sk_state_store"))] },
    ]},
    // The system call comes last: it misses what io_uring accepts, and makes every system call of the host a little slower.
    Hook { name: "accept", yields: &[Kind::ACCEPT], is_required: false, without: "no accepted connection is told", alternatives: &[
        // Where the result lies follows from the prototype. The verifier takes the first for the old one only, so the
        // order matters: the second would be taken for both.
        Alternative { method: "fexit/inet_csk_accept", programs: &[("accept_fexit_4", Attach::Fexit("inet_csk_accept"))] },
        Alternative { method: "fexit/inet_csk_accept", programs: &[("accept_fexit_2", Attach::Fexit("inet_csk_accept"))] },
        Alternative { method: "kretprobe/inet_csk_accept", programs: &[("accept_kretprobe", Attach::Kretprobe("inet_csk_accept"))] },
        Alternative { method: "tracepoint/sys_exit_accept4", programs: &[
            ("accept4_syscall", Attach::Syscalls(&["sys_exit_accept4"])),
            ("accept_syscall", Attach::Syscalls(&["sys_exit_accept"])),
        ]},
    ]},
    // Whichever way it goes, and with none: what a record shows its process to have become is told with it.
    Hook { name: "ids", yields: &[Kind::IDS], is_required: false, without: LATE, alternatives: &[
        Alternative { method: "fentry/commit_creds", programs: &[("ids_fentry", Attach::Fentry("commit_creds"))] },
        Alternative { method: "kprobe/commit_creds", programs: &[("ids_kprobe", Attach::Kprobe("commit_creds"))] },
        Alternative { method: "tracepoint/sys_exit_setuid", programs: &[("ids_syscall", Attach::Syscalls(&SET_IDS))] },
    ]},
    Hook { name: "session", yields: &[Kind::SESSION], is_required: false, without: LATE, alternatives: &[
        Alternative { method: "fexit/ksys_setsid", programs: &[("session_fexit", Attach::Fexit("ksys_setsid"))] },
        Alternative { method: "kretprobe/ksys_setsid", programs: &[("session_kretprobe", Attach::Kretprobe("ksys_setsid"))] },
        Alternative { method: "tracepoint/sys_exit_setsid", programs: &[("session_syscall", Attach::Syscalls(&["sys_exit_setsid"]))] },
    ]},
    Hook { name: UDP, yields: &[Kind::DATAGRAM], is_required: false, without: "no datagram is told, which takes CAP_NET_ADMIN", alternatives: &[
        Alternative { method: "cgroup/sendmsg4", programs: &[
            ("udp_sendmsg4", Attach::Cgroup),
            ("udp_sendmsg6", Attach::Cgroup),
            ("udp_connect4", Attach::Cgroup),
            ("udp_connect6", Attach::Cgroup),
        ]},
    ]},
];
/// The hook that is off unless it is asked for: by what it needs the agent could change the host's network.
const UDP: &str = "udp";

/// `[sensor.hooks]`: hooks with the one method by which each is attached. Default: none, and each is attached by the first
/// that works.
#[derive(Clone, Default, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>")]
pub(crate) struct Choices(BTreeMap<String, String>);

impl TryFrom<BTreeMap<String, String>> for Choices {
    type Error = String;

    fn try_from(choices: BTreeMap<String, String>) -> Result<Self, String> {
        for (name, method) in &choices {
            let Some((_, methods)) = methods().find(|(hook, _)| hook == name) else {
                let names: Vec<_> = methods().map(|(hook, _)| hook).collect();
                return Err(format!("there is no hook `{name}`, but {}", names.join(", ")));
            };
            if !methods.contains(&method.as_str()) {
                return Err(format!("`{name}` has no method `{method}`, but {}", methods.join(", ")));
            }
        }
        Ok(Self(choices))
    }
}

impl fmt::Debug for Choices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Every hook with every method by which it can be attached, best first.
pub(crate) fn methods() -> impl Iterator<Item = (&'static str, Vec<&'static str>)> {
    HOOKS.iter().map(|hook| {
        let mut methods: Vec<_> = hook.alternatives.iter().map(|alternative| alternative.method).collect();
        // Programs for two prototypes of one function follow one another.
        methods.dedup();
        (hook.name, methods)
    })
}

/// What became of a hook.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct HookReport {
    /// The hook's name.
    pub(crate) name: &'static str,
    /// Whether it works.
    pub(crate) state: HookState,
    /// The alternative that is attached.
    pub(crate) method: Option<&'static str>,
    /// Why it does not work, or why not by a better alternative; what each said.
    pub(crate) reason: Option<String>,
}

/// Whether a hook works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum HookState {
    /// It is attached and the agent saw its own canary by it.
    Attached,
    /// It could not be attached.
    Skipped,
    /// It is attached, and the canary did not come through it.
    Silent,
    /// Nobody asked for it.
    Off,
}

impl fmt::Display for HookState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Attached => "attached",
            Self::Skipped => "skipped",
            Self::Silent => "silent",
            Self::Off => "off",
        })
    }
}

/// Attaches every hook by its first alternative that works, or by the one that was chosen for it. That of datagrams only
/// where it `has_udp`.
///
/// # Errors
/// The reports of all, where no alternative attaches one that is required.
pub(super) fn attach_all(
    ebpf: &mut Ebpf,
    btf: &Btf,
    choices: &Choices,
    has_udp: bool,
) -> Result<Vec<HookReport>, Unattached> {
    let tracefs = Tracefs::mount_where_missing();
    let report = |hook: &Hook| match choices.0.get(hook.name).map(String::as_str) {
        _ if hook.name == UDP && !has_udp => off(hook, "`udp = true` in `[sensor]` turns it on"),
        chosen => attach(hook, chosen, ebpf, btf),
    };
    let reports: Vec<_> = HOOKS.iter().map(report).collect();
    drop(tracefs);
    let is_missing =
        |(hook, report): &(&Hook, &HookReport)| hook.is_required && report.state == HookState::Skipped;
    let missing = HOOKS.iter().zip(&reports).position(|pair| is_missing(&pair));
    missing.map_or(Ok(reports.clone()), |missing| Err(Unattached { reports, missing }))
}

fn off(hook: &Hook, reason: &str) -> HookReport {
    HookReport { name: hook.name, state: HookState::Off, method: None, reason: Some(reason.to_owned()) }
}

/// Reports of all hooks, of which one that is required is not attached.
#[derive(Debug)]
pub(crate) struct Unattached {
    pub(crate) reports: Vec<HookReport>,
    missing: usize,
}

impl fmt::Display for Unattached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HookReport { name, reason, .. } = &self.reports[self.missing];
        let reason = reason.as_deref().unwrap_or_default();
        write!(f, "the hook `{name}` cannot be attached: {reason}; `lapwing check` tells of all of them")
    }
}

fn attach(hook: &Hook, chosen: Option<&str>, ebpf: &mut Ebpf, btf: &Btf) -> HookReport {
    let mut reasons = Vec::new();
    let may_be = |alternative: &&Alternative| chosen.is_none_or(|method| alternative.method == method);
    for alternative in hook.alternatives.iter().filter(may_be) {
        let attached = alternative.programs.iter().try_for_each(|(name, place)| {
            let program = ebpf.program_mut(name).ok_or_else(|| "it is not in the object".to_owned())?;
            attach_program(program, place, btf).map_err(|error| brief(&error))
        });
        match attached {
            Ok(()) => {
                // That it is not attached by another prototype of the same function is no news.
                reasons.retain(|(method, _)| *method != alternative.method);
                return HookReport {
                    name: hook.name,
                    state: HookState::Attached,
                    method: Some(alternative.method),
                    reason: joined(&reasons),
                };
            }
            Err(error) => {
                reasons.push((alternative.method, error));
                for (name, _) in alternative.programs {
                    unload(name, ebpf);
                }
            }
        }
    }
    let reason = joined(&reasons).map(|reason| format!("{}, for {reason}", hook.without));
    HookReport { name: hook.name, state: HookState::Skipped, method: None, reason }
}

/// Why alternatives were not taken, each with its name.
fn joined(reasons: &[(&'static str, String)]) -> Option<String> {
    let mut each: Vec<_> = reasons.iter().map(|(method, error)| format!("{method}: {error}")).collect();
    // Two prototypes of one function fail alike where it cannot be hooked at all.
    each.dedup();
    (!each.is_empty()).then(|| each.join("; "))
}

/// Lets go of a program that was loaded and could not be attached, or not all of whose fellows could.
fn unload(name: &str, ebpf: &mut Ebpf) {
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

fn attach_program(program: &mut Program, place: &Attach, btf: &Btf) -> Result<(), ProgramError> {
    match place {
        Attach::Tracepoint(name) => {
            let program: &mut BtfTracePoint = program.try_into()?;
            program.load(name, btf)?;
            program.attach()?;
        }
        Attach::RawTracepoint(name) => {
            let program: &mut RawTracePoint = program.try_into()?;
            program.load()?;
            program.attach(name)?;
        }
        Attach::Fentry(function) => {
            let program: &mut FEntry = program.try_into()?;
            program.load(function, btf)?;
            program.attach()?;
        }
        Attach::Fexit(function) => {
            let program: &mut FExit = program.try_into()?;
            program.load(function, btf)?;
            program.attach()?;
        }
        Attach::Kprobe(function) | Attach::Kretprobe(function) => {
            let program: &mut KProbe = program.try_into()?;
            program.load()?;
            program.attach(*function, 0)?;
        }
        Attach::Syscalls(names) => {
            let program: &mut TracePoint = program.try_into()?;
            program.load()?;
            for name in *names {
                program.attach("syscalls", name)?;
            }
        }
        Attach::Cgroup => {
            let program: &mut CgroupSockAddr = program.try_into()?;
            program.load()?;
            let root = root_cgroup().map_err(ProgramError::IOError)?;
            // By a link, as which it is attached from 5.7 on, others' programs run beside it whatever is said here; and
            // kernels before 6.16 refuse that it is said.
            program.attach(root, CgroupAttachMode::Single)?;
        }
    }
    Ok(())
}

/// The control group of version 2 that holds all others, wherever that hierarchy is mounted.
fn root_cgroup() -> io::Result<File> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    let place = cgroup_mount(&mounts);
    let missing = || io::Error::new(io::ErrorKind::NotFound, "control groups of version 2 are not mounted");
    File::open(place.ok_or_else(missing)?)
}

/// Where the whole hierarchy is mounted, by a table such as `/proc/self/mountinfo`, whose lines tell of what is below which
/// root of a file system, of where it is, and behind a dash of which type.
fn cgroup_mount(mounts: &str) -> Option<&str> {
    mounts.lines().find_map(|line| {
        let (place, ty) = line.split_once(" - ")?;
        let mut fields = place.split(' ').skip(3);
        let (root, place) = (fields.next()?, fields.next()?);
        (root == "/" && ty.starts_with("cgroup2 ")).then_some(place)
    })
}

/// The innermost cause of an error; of the verifier's log, which goes to the log of the agent, what it says last.
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
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// tracefs, which tells the numbers of tracepoints; mounted for as long as this lives where the host does not have it.
struct Tracefs {
    is_ours: bool,
}

impl Tracefs {
    const PLACE: &str = "/sys/kernel/tracing";

    fn mount_where_missing() -> Self {
        use nix::mount::{MsFlags, mount};
        let is_there = Path::new(Self::PLACE).join("events").exists();
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
        let mounted = || mount(Some("lapwing"), Self::PLACE, Some("tracefs"), flags, None::<&str>).is_ok();
        Self { is_ours: !is_there && mounted() }
    }
}

impl Drop for Tracefs {
    fn drop(&mut self) {
        if self.is_ours {
            // Left mounted it does no harm.
            let _ = nix::mount::umount2(Self::PLACE, nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_comes_from_one_hook() {
        for kind in Kind::ALL {
            let hooks = HOOKS.iter().filter(|hook| hook.yields.contains(&kind)).count();
            assert_eq!(hooks, 1, "{kind:?}");
        }
    }

    #[test]
    fn the_whole_hierarchy_is_found() {
        let v1 = "30 23 0:26 / /sys/fs/cgroup/pids rw,nosuid - cgroup cgroup rw,pids";
        let part = "31 23 0:27 /system.slice /mnt rw - cgroup2 cgroup2 rw";
        let whole = "32 23 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate";
        assert_eq!(cgroup_mount(&[v1, part, whole].join("\n")), Some("/sys/fs/cgroup/unified"));
        assert_eq!(cgroup_mount(&[v1, part, "odd", ""].join("\n")), None);
    }

    #[test]
    fn a_choice_is_one_of_the_table() {
        let of = |name: &str, method: &str| {
            Choices::try_from(BTreeMap::from([(name.to_owned(), method.to_owned())])).err()
        };
        for (name, methods) in methods() {
            assert!(methods.iter().all(|method| of(name, method).is_none()), "{name}");
        }
        let unknown = of("accept", "kprobe/inet_csk_accept").unwrap();
        assert!(
            unknown.starts_with("`accept` has no method `kprobe/inet_csk_accept`, but fexit/"),
            "{unknown}"
        );
        assert!(of("spawn", "x").unwrap().starts_with("there is no hook `spawn`, but fork, exec, "));
    }
}
