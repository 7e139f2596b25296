//! The table of hooks with their methods, the choice of a method, and the result.
//!
//! Each row has alternatives in the order in which they are tried. Tracepoints with BTF come first: every supported
//! kernel has them, also without kprobes, without trampolines and under lockdown, and they need no perf event. The same
//! tracepoints by name need no BTF. Trampolines need no tracepoint, but kernel support. Kprobes come after these,
//! because they are the slowest and need a perf event.

use crate::action::UDP;
use std::collections::BTreeMap;
use std::fmt;

use aya::{Btf, Ebpf};
use lapwing_common::Kind;
use serde::{Deserialize, Serialize};

use super::attach::{self, Attach, with_tracefs};

/// A hook: a place in the kernel that is watched.
pub(crate) struct Hook {
    /// Its name in `lapwing status` and the log.
    pub(crate) name: &'static str,
    /// The kinds of its records. The self-test needs one of the first kind.
    pub(super) yields: &'static [Kind],
    /// Whether the agent refuses to start without it.
    is_required: bool,
    /// The methods to attach it, best first.
    alternatives: &'static [Alternative],
    /// The effect of its absence.
    without: &'static str,
}

/// A method to attach a hook, with all of its programs.
struct Alternative {
    method: &'static str,
    programs: &'static [(&'static str, Attach)],
}

/// The system calls that change a process's user or group.
const SET_IDS: [&str; 6] = [
    "sys_exit_setuid",
    "sys_exit_setgid",
    "sys_exit_setreuid",
    "sys_exit_setregid",
    "sys_exit_setresuid",
    "sys_exit_setresgid",
];
/// The activity that a method misses, by its name. The kernel's tracing skips system calls of 32-bit programs.
const UNSEEN: [(&str, &str); 7] = [
    ("tracepoint/sys_exit_accept4", "not seen: accept by 32-bit programs and by io_uring"),
    ("tracepoint/sys_exit_setuid", "not seen at once: changes of 32-bit programs"),
    ("tracepoint/sys_exit_setsid", "not seen at once: sessions of 32-bit programs"),
    ("cgroup/sendmsg4", "not seen: source addresses of sockets connected by 32-bit programs or io_uring"),
    ("cgroup/connect4", "not seen: source addresses of connected sockets"),
    ("tracepoint/sys_enter_bpf", "not seen: commands of 32-bit programs"),
    ("tracepoint/sys_exit_ptrace", "not seen: 32-bit debuggers, and other ways into memory than ptrace"),
];
/// The effect if a change is not recorded when it happens.
const LATE: &str =
    "changes are reported with the next event of their process; a change that is undone before is not";

#[rustfmt::skip]
pub(super) const HOOKS: &[Hook] = &[
    Hook { name: "fork", yields: &[Kind::FORK], is_required: true, without: "the agent cannot run without it", alternatives: &[
        Alternative { method: "tp_btf/sched_process_fork", programs: &[("fork", Attach::Tracepoint("sched_process_fork"))] },
        Alternative { method: "raw_tp/sched_process_fork", programs: &[("fork_raw", Attach::RawTracepoint("sched_process_fork"))] },
        Alternative { method: "fentry/wake_up_new_task", programs: &[("fork_fentry", Attach::Fentry("wake_up_new_task"))] },
        Alternative { method: "kprobe/wake_up_new_task", programs: &[("fork_kprobe", Attach::Kprobe("wake_up_new_task"))] },
    ]},
    Hook { name: "exec", yields: &[Kind::EXEC], is_required: true, without: "the agent cannot run without it", alternatives: &[
        Alternative { method: "tp_btf/sched_process_exec", programs: &[("exec", Attach::Tracepoint("sched_process_exec"))] },
        Alternative { method: "raw_tp/sched_process_exec", programs: &[("exec_raw", Attach::RawTracepoint("sched_process_exec"))] },
        Alternative { method: "fentry/finalize_exec", programs: &[("exec_fentry", Attach::Fentry("finalize_exec"))] },
        Alternative { method: "kprobe/finalize_exec", programs: &[("exec_kprobe", Attach::Kprobe("finalize_exec"))] },
    ]},
    Hook { name: "exit", yields: &[Kind::EXIT], is_required: true, without: "the agent cannot run without it", alternatives: &[
        Alternative { method: "tp_btf/sched_process_exit", programs: &[("exit", Attach::Tracepoint("sched_process_exit"))] },
        Alternative { method: "raw_tp/sched_process_exit", programs: &[("exit_raw", Attach::RawTracepoint("sched_process_exit"))] },
        Alternative { method: "fentry/taskstats_exit", programs: &[("exit_fentry", Attach::Fentry("taskstats_exit"))] },
        Alternative { method: "kprobe/taskstats_exit", programs: &[("exit_kprobe", Attach::Kprobe("taskstats_exit"))] },
    ]},
    Hook { name: "connect", yields: &[Kind::CONNECT, Kind::CONNECTED, Kind::CLOSED], is_required: true, without: "the agent cannot run without it", alternatives: &[
        Alternative { method: "tp_btf/inet_sock_set_state", programs: &[("connect", Attach::Tracepoint("inet_sock_set_state"))] },
        Alternative { method: "raw_tp/inet_sock_set_state", programs: &[("connect_raw", Attach::RawTracepoint("inet_sock_set_state"))] },
        Alternative { method: "fentry/inet_sk_state_store", programs: &[("connect_fentry", Attach::Fentry("inet_sk_state_store"))] },
        Alternative { method: "kprobe/inet_sk_state_store", programs: &[("connect_kprobe", Attach::Kprobe("inet_sk_state_store"))] },
    ]},
    // The system call comes last: it misses what io_uring accepts, and makes every system call of the host a little
    // slower.
    Hook { name: "accept", yields: &[Kind::ACCEPT], is_required: false, without: "accepted connections are not reported", alternatives: &[
        // The prototype determines the position of the result. The verifier accepts the first program for the old
        // prototype only, and the second for both. So the order matters.
        Alternative { method: "fexit/inet_csk_accept", programs: &[("accept_fexit_4", Attach::Fexit("inet_csk_accept"))] },
        Alternative { method: "fexit/inet_csk_accept", programs: &[("accept_fexit_2", Attach::Fexit("inet_csk_accept"))] },
        Alternative { method: "kretprobe/inet_csk_accept", programs: &[("accept_kretprobe", Attach::Kretprobe("inet_csk_accept"))] },
        Alternative { method: "tracepoint/sys_exit_accept4", programs: &[
            ("accept4_syscall", Attach::Syscalls(&["sys_exit_accept4"])),
            ("accept_syscall", Attach::Syscalls(&["sys_exit_accept"])),
        ]},
    ]},
    // With any method, and without one, each record also reports changes of its process.
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
    Hook { name: UDP, yields: &[Kind::DATAGRAM], is_required: false, without: "UDP events unavailable: needs CAP_NET_ADMIN", alternatives: &[
        Alternative { method: "cgroup/sendmsg4", programs: &[
            ("udp_sendmsg4", Attach::Cgroup),
            ("udp_sendmsg6", Attach::Cgroup),
            ("udp_connect4", Attach::Cgroup),
            ("udp_connect6", Attach::Cgroup),
            ("udp_connected", Attach::Syscalls(&["sys_exit_connect"])),
        ]},
        Alternative { method: "cgroup/connect4", programs: &[
            ("udp_sendmsg4", Attach::Cgroup),
            ("udp_sendmsg6", Attach::Cgroup),
            ("udp_connect4", Attach::Cgroup),
            ("udp_connect6", Attach::Cgroup),
        ]},
    ]},
    Hook { name: "bpf", yields: &[Kind::BPF], is_required: false, without: "a bpf command on the sensor's maps is not reported, only what it changed", alternatives: &[
        Alternative { method: "fentry/security_bpf", programs: &[("bpf_fentry", Attach::Fentry("security_bpf"))] },
        Alternative { method: "kprobe/security_bpf", programs: &[("bpf_kprobe", Attach::Kprobe("security_bpf"))] },
        Alternative { method: "tracepoint/sys_enter_bpf", programs: &[("bpf_syscall", Attach::Syscalls(&["sys_enter_bpf"]))] },
    ]},
    Hook { name: "ptrace", yields: &[Kind::PTRACE], is_required: false, without: "tracing of the sensor is not reported", alternatives: &[
        Alternative { method: "fentry/security_ptrace_access_check", programs: &[("ptrace_fentry", Attach::Fentry("security_ptrace_access_check"))] },
        Alternative { method: "kprobe/security_ptrace_access_check", programs: &[("ptrace_kprobe", Attach::Kprobe("security_ptrace_access_check"))] },
        Alternative { method: "tracepoint/sys_exit_ptrace", programs: &[("ptrace_syscall", Attach::Syscalls(&["sys_exit_ptrace"]))] },
    ]},
    Hook { name: "signal", yields: &[Kind::SIGNAL], is_required: false, without: "signals to the sensor are not reported", alternatives: &[
        Alternative { method: "tp_btf/signal_generate", programs: &[("signal", Attach::Tracepoint("signal_generate"))] },
        Alternative { method: "raw_tp/signal_generate", programs: &[("signal_raw", Attach::RawTracepoint("signal_generate"))] },
    ]},
];
/// The hooks that watch the agent itself.
const OF_AGENT: [&str; 3] = ["bpf", "ptrace", "signal"];
/// The hook that records tracing of the agent.
pub(super) const PTRACE: &str = "ptrace";

/// `[sensor.hooks]`: hooks with the one method by which each is attached. Default: none, and each is attached by the
/// first that works.
#[derive(Clone, Default, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>")]
pub(crate) struct Choices(BTreeMap<String, String>);

impl TryFrom<BTreeMap<String, String>> for Choices {
    type Error = String;

    fn try_from(choices: BTreeMap<String, String>) -> Result<Self, String> {
        for (name, method) in &choices {
            let Some((_, methods)) = methods().find(|(hook, _)| hook == name) else {
                let names: Vec<_> = methods().map(|(hook, _)| hook).collect();
                return Err(format!("unknown hook `{name}`; hooks are {}", names.join(", ")));
            };
            if !methods.contains(&method.as_str()) {
                return Err(format!(
                    "unknown method `{method}` of `{name}`; methods are {}",
                    methods.join(", ")
                ));
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

/// The report on a hook.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct HookReport {
    /// The hook's name.
    pub(crate) name: &'static str,
    /// Its state.
    pub(crate) state: HookState,
    /// The method that is attached.
    pub(crate) method: Option<&'static str>,
    /// The errors of the methods that do not work: of all, or of those better than the attached one.
    pub(crate) reason: Option<String>,
    /// The activity that the attached method misses.
    pub(crate) unseen: Option<&'static str>,
}

/// The state of a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum HookState {
    /// It is attached and passed the self-test.
    Attached,
    /// It could not be attached.
    Unavailable,
    /// It is attached and failed the self-test.
    NotFiring,
    /// It is not enabled in the configuration.
    Disabled,
}

impl fmt::Display for HookState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Attached => "attached",
            Self::Unavailable => "unavailable",
            Self::NotFiring => "not_firing",
            Self::Disabled => "disabled",
        })
    }
}

/// Attaches every hook by its first method that works, or by its configured method. The hook `udp` is attached only
/// with `has_udp`. The hooks that watch the agent are not attached in a PID namespace (`is_inner`).
///
/// # Errors
/// The reports of all hooks, if no method attaches a required one.
pub(super) fn attach_all(
    ebpf: &mut Ebpf,
    btf: &Btf,
    choices: &Choices,
    has_udp: bool,
    is_inner: bool,
) -> Result<Vec<HookReport>, Unattached> {
    let report = |hook: &'static Hook| {
        if hook.name == UDP && !has_udp {
            return disabled(hook, "set `udp = true` in `[sensor]` to enable it");
        }
        if is_inner && OF_AGENT.contains(&hook.name) {
            return disabled(hook, "the agent runs in a PID namespace and its host pid is unknown");
        }
        let chosen = choices.0.get(hook.name);
        let is_chosen = |one: &&Alternative| chosen.is_none_or(|method| one.method == method);
        attach(hook, hook.alternatives.iter().filter(is_chosen), Vec::new(), ebpf, btf)
    };
    let reports: Vec<_> = with_tracefs(|| HOOKS.iter().map(report).collect());
    let is_missing =
        |(hook, report): &(&Hook, &HookReport)| hook.is_required && report.state == HookState::Unavailable;
    let missing = HOOKS.iter().zip(&reports).position(|pair| is_missing(&pair));
    missing.map_or(Ok(reports.clone()), |missing| Err(Unattached { reports, missing }))
}

fn disabled(hook: &Hook, reason: &str) -> HookReport {
    let reason = Some(reason.to_owned());
    HookReport { name: hook.name, state: HookState::Disabled, method: None, reason, unseen: None }
}

/// The retries of a hook that fails the self-test: its other methods, in order.
pub(super) struct Retry<'a> {
    pub(super) ebpf: &'a mut Ebpf,
    pub(super) btf: &'a Btf,
    pub(super) choices: &'a Choices,
    /// Methods that failed the self-test, each with its hook.
    silent: Vec<(&'static str, &'static str)>,
    /// Hooks that have no method left.
    settled: Vec<&'static str>,
}

impl<'a> Retry<'a> {
    pub(super) fn new(ebpf: &'a mut Ebpf, btf: &'a Btf, choices: &'a Choices) -> Self {
        Self { ebpf, btf, choices, silent: Vec::new(), settled: Vec::new() }
    }

    /// Attaches each silent hook by its next method that works. Returns whether there was one for any hook. A hook that
    /// is silent with all methods returns to its best one. A hook with a configured method keeps it.
    pub(super) fn attach_next(&mut self, reports: &mut [HookReport]) -> bool {
        with_tracefs(|| {
            let mut is_any = false;
            for (hook, report) in HOOKS.iter().zip(reports) {
                let is_chosen = self.choices.0.contains_key(hook.name);
                if report.state == HookState::NotFiring && !is_chosen && !self.settled.contains(&hook.name) {
                    is_any |= self.attach_hook(hook, report);
                }
            }
            is_any
        })
    }

    fn attach_hook(&mut self, hook: &'static Hook, report: &mut HookReport) -> bool {
        let is_it = |alternative: &Alternative| Some(alternative.method) == report.method;
        let (Some(last), Some(method)) = (hook.alternatives.iter().rposition(is_it), report.method) else {
            return false;
        };
        hook.alternatives.iter().for_each(|alternative| alternative.unload(self.ebpf));
        self.silent.push((hook.name, method));
        let of_hook = self.silent.iter().filter(|(name, _)| *name == hook.name);
        let reasons = of_hook
            .map(|(_, method)| (*method, "attached but produced no event in the self-test".to_owned()));
        let rest = hook.alternatives[last + 1..].iter();
        let next = attach(hook, rest, reasons.collect(), self.ebpf, self.btf);
        let is_found = next.state == HookState::Attached;
        if is_found {
            *report = next;
        } else {
            self.settled.push(hook.name);
            let best = attach(hook, hook.alternatives.iter(), Vec::new(), self.ebpf, self.btf);
            *report = HookReport { state: HookState::NotFiring, reason: report.reason.take(), ..best };
        }
        is_found
    }
}

impl Alternative {
    fn unload(&self, ebpf: &mut Ebpf) {
        self.programs.iter().for_each(|(name, _)| attach::unload(name, ebpf));
    }
}

/// The hook of a program, and the program's attach point.
pub(super) fn of_program(name: &str) -> Option<(&'static str, &'static Attach)> {
    let programs = HOOKS.iter().flat_map(|hook| {
        let programs = hook.alternatives.iter().flat_map(|alternative| alternative.programs);
        programs.map(|(program, place)| (hook.name, *program, place))
    });
    let mut found = programs.filter(|(_, program, _)| *program == name);
    found.next().map(|(hook, _, place)| (hook, place))
}

/// The reports of all hooks, when a required hook is not attached.
#[derive(Debug)]
pub(crate) struct Unattached {
    pub(crate) reports: Vec<HookReport>,
    missing: usize,
}

impl fmt::Display for Unattached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HookReport { name, reason, .. } = &self.reports[self.missing];
        let reason = reason.as_deref().unwrap_or_default();
        write!(f, "cannot attach the required hook `{name}`: {reason}; `lapwing check` reports all hooks")
    }
}

/// Attaches a hook by the first of these methods that works.
fn attach(
    hook: &Hook,
    alternatives: impl Iterator<Item = &'static Alternative>,
    mut reasons: Vec<(&'static str, String)>,
    ebpf: &mut Ebpf,
    btf: &Btf,
) -> HookReport {
    for alternative in alternatives {
        let attached =
            alternative.programs.iter().try_for_each(|(name, place)| attach::attach(name, place, ebpf, btf));
        match attached {
            Ok(()) => {
                // A failure of another prototype of the same function is not reported.
                reasons.retain(|(method, _)| *method != alternative.method);
                return HookReport {
                    name: hook.name,
                    state: HookState::Attached,
                    method: Some(alternative.method),
                    reason: joined(&reasons),
                    unseen: unseen(alternative.method),
                };
            }
            Err(error) => {
                reasons.push((alternative.method, error));
                alternative.unload(ebpf);
            }
        }
    }
    let reason = joined(&reasons).map(|reason| format!("{}: {reason}", hook.without));
    HookReport { name: hook.name, state: HookState::Unavailable, method: None, reason, unseen: None }
}

fn unseen(method: &str) -> Option<&'static str> {
    UNSEEN.iter().find(|(of, _)| *of == method).map(|(_, what)| *what)
}

/// Why methods were not taken, each with its name.
fn joined(reasons: &[(&'static str, String)]) -> Option<String> {
    let mut each: Vec<_> = reasons.iter().map(|(method, error)| format!("{method}: {error}")).collect();
    // Two prototypes of one function fail alike where it cannot be hooked at all.
    each.dedup();
    (!each.is_empty()).then(|| each.join("; "))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::action::ACTIONS;

    #[test]
    fn hooks_and_records_are_those_that_there_are() {
        for action in ACTIONS {
            let hook = HOOKS.iter().find(|hook| hook.name == action.hook);
            assert_eq!(hook.is_none(), action.hook.is_empty(), "{}", action.name);
            let yields = |kind| hook.is_some_and(|hook| hook.yields.contains(&kind));
            assert!(action.record.is_none_or(yields), "{}", action.name);
            assert!(action.needs.iter().all(|kind| kind.is_connection()), "{}", action.name);
        }
        let named: BTreeSet<_> = Kind::ALL.into_iter().map(Kind::name).collect();
        assert!(named.len() == Kind::ALL.len() && !named.contains("unknown"), "{named:?}");
    }

    #[test]
    fn what_is_not_seen_is_said_of_methods_that_there_are() {
        for (method, _) in UNSEEN {
            assert!(methods().any(|(_, methods)| methods.contains(&method)), "{method}");
        }
    }

    #[test]
    fn every_kind_comes_from_one_hook() {
        for kind in Kind::ALL {
            let hooks = HOOKS.iter().filter(|hook| hook.yields.contains(&kind)).count();
            assert_eq!(hooks, 1, "{kind:?}");
        }
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
            unknown.starts_with("unknown method `kprobe/inet_csk_accept` of `accept`; methods are fexit/"),
            "{unknown}"
        );
        assert!(of("spawn", "x").unwrap().starts_with("unknown hook `spawn`; hooks are fork, exec, "));
    }
}
