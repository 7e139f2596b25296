//! Acts on the agent, in words: distinguishes interference from how an administrator and the service manager end and
//! reload a service.

use lapwing_common::{Kind, Touched};
use nix::sys::signal::Signal;

use super::handover;
use super::key::Key;
use super::record::Record;
use super::tamper::{Report, Subject};
use crate::alert::Weight;

/// Signals that end or reload the agent in order, or that the kernel sends normally.
const ORDERLY: [Signal; 11] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGCONT,
    Signal::SIGCHLD,
    Signal::SIGPIPE,
    Signal::SIGURG,
    Signal::SIGWINCH,
    Signal::SIGXCPU,
    Signal::SIGXFSZ,
    Signal::SIGTSTP,
];
/// How long a stop may take until all threads are stopped.
const STOP_NANOS: u64 = 200_000_000;
/// `SI_KERNEL`: the kernel sent it by itself.
const SI_KERNEL: u32 = 0x80;
/// The service manager.
const INIT: u32 = 1;
/// The commands of `bpf(2)` that are watched. match-proto:v5.9:include/uapi/linux/bpf.h:enum bpf_cmd
const COMMANDS: [(u32, &str); 9] = [
    (2, "BPF_MAP_UPDATE_ELEM"),
    (3, "BPF_MAP_DELETE_ELEM"),
    (21, "BPF_MAP_LOOKUP_AND_DELETE_ELEM"),
    (22, "BPF_MAP_FREEZE"),
    (25, "BPF_MAP_LOOKUP_AND_DELETE_BATCH"),
    (26, "BPF_MAP_UPDATE_BATCH"),
    (27, "BPF_MAP_DELETE_BATCH"),
    (29, "BPF_LINK_UPDATE"),
    (34, "BPF_LINK_DETACH"),
];

/// A signal that stops the agent. The kernel stops one thread after the other, so that the sensor may still read the
/// record, and may be stopped before it reports it. The duration of the stop is known once the agent runs again.
#[derive(Default)]
pub(super) struct StopSignal {
    /// Read, and not reported yet.
    waiting: Option<Touched>,
    /// Left to the next run.
    is_stored: bool,
}

impl StopSignal {
    /// Leaves the record to the next run, for this one may not go on. It is called while the record is still in the
    /// ring: there is no moment in which neither has it.
    pub(super) fn store(&mut self, record: &[u8], agent: Option<Key>) {
        if let Ok(Record::Touched(touched)) = Record::parse(record)
            && is_stop(touched)
            && is_of(touched, agent)
            && !self.is_stored
        {
            handover::store_stop(touched);
            self.is_stored = true;
        }
    }

    /// Whether a record is of such a signal and the agent may not have stood still yet. [`StopSignal::over`] returns it
    /// later.
    pub(super) fn takes(&mut self, touched: &Touched, now: u64) -> bool {
        let is_stopping = is_stop(touched) && now < touched.header.time.saturating_add(STOP_NANOS);
        if is_stopping {
            self.waiting = Some(*touched);
        }
        is_stopping
    }

    /// The signal, once the agent has gone on.
    pub(super) fn over(&mut self, now: u64) -> Option<Touched> {
        self.waiting.take_if(|touched| now >= touched.header.time.saturating_add(STOP_NANOS))
    }

    /// A record was reported: the next run need not.
    pub(super) fn reported(&mut self, touched: &Touched) {
        if self.is_stored && is_stop(touched) {
            handover::remove_stop();
            self.is_stored = false;
        }
    }
}

fn is_stop(touched: &Touched) -> bool {
    touched.header.kind == Kind::SIGNAL.0 && touched.what == Signal::SIGSTOP as u32
}

/// Whether it was done to this process, and not to another that has its number.
fn is_of(touched: &Touched, agent: Option<Key>) -> bool {
    agent == Some(Key::new(touched.target, touched.target_start))
}

/// What to report of it, at a time since boot; `None` where it is in order, or was done to another process, which has
/// the agent's number.
pub(super) fn report(touched: &Touched, agent: Option<Key>, now: u64) -> Option<(Subject, Report)> {
    let Touched { header, task, what, detail, .. } = *touched;
    let (kind, time) = (Kind(header.kind), header.time);
    if kind != Kind::BPF && !is_of(touched, agent) {
        return None;
    }
    let who = format!("process {} ({})", task.pid, name(&task.comm));
    let is_kernel = kind == Kind::SIGNAL && detail == SI_KERNEL;
    let (what, to) = match kind {
        Kind::SIGNAL => {
            let signal = Signal::try_from(i32::try_from(what).ok()?).ok()?;
            if ORDERLY.contains(&signal) {
                return None;
            }
            // A tracer stops what it attaches to by the kernel's hand.
            let who = if is_kernel { format!("the kernel, in {who},") } else { who };
            // Nothing is read while it is stopped, so that it was until now.
            let held = now.saturating_sub(time) / 1_000_000;
            let stood = match signal {
                Signal::SIGSTOP => format!(", and stood still for {}.{:03} s", held / 1000, held % 1000),
                _ => String::new(),
            };
            (format!("{who} sent the sensor {signal}{stood}"), now)
        }
        Kind::PTRACE => (format!("{who} got access to the sensor's memory, as a debugger does"), time),
        _ => {
            let command = COMMANDS.iter().find(|(number, _)| *number == what).map_or("bpf", |(_, name)| name);
            (format!("{who} gave the command {command} on the sensor's map or link {detail}"), time)
        }
    };
    let is_managed = task.pid == INIT || is_kernel && touched.what == Signal::SIGKILL as u32;
    let weight = if is_managed { Weight::Managed } else { Weight::Interference };
    let subject = Subject::Act { kind: kind.0, what: touched.what, by: task.pid };
    Some((subject, Report { by: Some(Key::of(&task)), ..Report::new(what, time, to, weight) }))
}

/// A thread's name, printable characters only.
fn name(comm: &[u8; 16]) -> String {
    let comm = comm.split(|byte| *byte == 0).next().unwrap_or_default();
    comm.iter().map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros as _;

    use super::*;

    fn touched(kind: Kind, what: u32, by: u32) -> Touched {
        let mut touched = Touched::new_zeroed();
        (touched.header.kind, touched.header.time) = (kind.0, 1_000_000_000);
        (touched.task.pid, touched.target, touched.what) = (by, 7, what);
        touched.task.comm[..4].copy_from_slice(b"k\x1b[m");
        touched
    }

    #[test]
    fn what_is_in_order_is_not_reported() {
        let agent = Some(Key::new(7, 0));
        let of = |kind, what: i32, by| report(&touched(kind, what as u32, by), agent, 2_500_000_000);
        for signal in [libc::SIGTERM, libc::SIGHUP, libc::SIGCONT, libc::SIGINT] {
            assert!(of(Kind::SIGNAL, signal, 1).is_none(), "{signal}");
        }
        for (kind, what, by, is_managed, text) in [
            (Kind::SIGNAL, libc::SIGKILL, 9, false, "process 9 (k?[m) sent the sensor SIGKILL"),
            (Kind::SIGNAL, libc::SIGABRT, 1, true, "process 1 (k?[m) sent the sensor SIGABRT"),
            (Kind::SIGNAL, libc::SIGSTOP, 9, false, "sent the sensor SIGSTOP, and stood still for 1.500 s"),
            (Kind::PTRACE, 0, 9, false, "got access to the sensor's memory"),
            (Kind::BPF, 2, 9, false, "gave the command BPF_MAP_UPDATE_ELEM on the sensor's map or link 0"),
        ] {
            let (_, found) = of(kind, what, by).unwrap();
            assert!(found.reason.contains(text), "{}", found.reason);
            assert_eq!(
                (found.weight == Weight::Managed, found.by),
                (is_managed, Some(Key::new(by, 0))),
                "{text}"
            );
        }
    }

    #[test]
    fn a_stop_is_reported_once_it_is_over() {
        let (kill, stopped) = (touched(Kind::SIGNAL, 9, 9), touched(Kind::SIGNAL, libc::SIGSTOP as u32, 9));
        let time = stopped.header.time;
        let mut stop = StopSignal::default();
        assert!(!stop.takes(&kill, time) && !stop.takes(&stopped, time + STOP_NANOS));
        assert!(stop.takes(&stopped, time + STOP_NANOS - 1));
        assert!(stop.over(time + STOP_NANOS - 1).is_none());
        assert!(stop.over(time + STOP_NANOS).is_some() && stop.over(time + STOP_NANOS).is_none());
    }

    #[test]
    fn another_process_with_the_number_is_not_the_agent() {
        let found = |agent| report(&touched(Kind::SIGNAL, 9, 9), agent, 0);
        assert!(found(Some(Key::new(7, 0))).is_some());
        assert!(found(Some(Key::new(7, 50_000_000))).is_none());
        assert!(found(None).is_none());
    }
}
