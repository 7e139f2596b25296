//! The canary: at the start the agent forks, begins a session, becomes another group, execs, connects, accepts and sends a
//! datagram once itself, and every hook must show it.
//! A tracepoint that exists and never fires is told so, instead of a silence that looks like peace.

use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use caps::{CapSet, Capability};

use super::clock;
use super::hook::{HOOKS, HookReport, HookState};
use super::record::Record;

/// What the agent did, by which its records are told from all others.
pub(super) struct Canary {
    own: u32,
    /// Of each flight, for records of one may come when the next is made.
    children: Vec<u32>,
    ports: Vec<u16>,
    /// Where datagrams went.
    udp_ports: Vec<u16>,
    /// When the last flight began.
    start: u64,
    /// What was seen of the last flight.
    seen: [bool; HOOKS.len()],
    /// Why a part could not be done: no hook is silent for that.
    undone: Vec<(&'static str, String)>,
}

impl Canary {
    /// Does it all.
    pub(super) fn fly() -> Self {
        let mut canary = Self {
            own: std::process::id(),
            children: Vec::new(),
            ports: Vec::new(),
            udp_ports: Vec::new(),
            start: 0,
            seen: [false; HOOKS.len()],
            undone: Vec::new(),
        };
        canary.fly_again();
        canary
    }

    /// Does it all once more, as though nothing had been seen yet.
    pub(super) fn fly_again(&mut self) {
        (self.start, self.seen) = (clock::now(), [false; HOOKS.len()]);
        self.undone.clear();
        match connect() {
            Ok(port) => self.ports.push(port),
            Err(error) => {
                self.undone.push(("connect", error.to_string()));
                self.undone.push(("accept", error.to_string()));
            }
        }
        match send() {
            Ok(port) => self.udp_ports.push(port),
            Err(error) => self.undone.push(("udp", error.to_string())),
        }
        match spawn() {
            Ok(child) => self.children.push(child),
            Err(error) => {
                for name in ["fork", "exec", "exit", "ids", "session"] {
                    self.undone.push((name, error.to_string()));
                }
            }
        }
        if !caps::has_cap(None, CapSet::Effective, Capability::CAP_SETGID).unwrap_or(false) {
            let reason = "without CAP_SETGID the agent cannot become another group";
            self.undone.push(("ids", reason.to_owned()));
        }
    }

    /// Whether a record comes from the canary. It is then noted, and no event is made of it.
    pub(super) fn takes(&mut self, record: &Record<'_>) -> bool {
        let is_own = |pid: u32, port: u16| pid == self.own && self.ports.contains(&port);
        let is_own_datagram = |pid: u32, port: u16| pid == self.own && self.udp_ports.contains(&port);
        let is_child = |pid: u32| self.children.contains(&pid);
        let is_it = match record {
            Record::Fork(fork) => is_child(fork.child.pid),
            Record::Exec(exec) => is_child(exec.fixed.task.pid),
            Record::Exit(exit) => is_child(exit.task.pid),
            Record::Connect(connect) => is_own(connect.task.pid, connect.socket.remote_port),
            Record::Accept(accept) => is_own(accept.task.pid, accept.socket.local_port),
            Record::Changed(changed) => is_child(changed.task.pid),
            Record::Datagram(sent) => is_own_datagram(sent.task.pid, sent.socket.remote_port),
            Record::Connected(_) | Record::Closed(_) => false,
        };
        if is_it && record.header().time >= self.start {
            let kind = lapwing_common::Kind(record.header().kind);
            for (hook, seen) in HOOKS.iter().zip(&mut self.seen) {
                *seen |= hook.yields.contains(&kind);
            }
        }
        is_it
    }

    /// Whether every attached hook has shown it.
    pub(super) fn is_seen(&self, hooks: &[HookReport]) -> bool {
        self.unseen(hooks).next().is_none()
    }

    /// Marks the hooks that did not show it.
    pub(super) fn judge(&self, hooks: &mut [HookReport]) {
        let unseen: Vec<_> = self.unseen(hooks).collect();
        for report in hooks.iter_mut().filter(|report| unseen.contains(&report.name)) {
            report.state = HookState::Silent;
            report.reason = Some("the agent's own test did not come through it".to_owned());
        }
        for report in hooks.iter_mut().filter(|report| report.state == HookState::Attached) {
            if let Some((_, error)) = self.undone.iter().find(|(name, _)| *name == report.name) {
                report.reason = Some(format!("attached and not tested: {error}"));
            }
        }
    }

    fn unseen(&self, hooks: &[HookReport]) -> impl Iterator<Item = &'static str> {
        let attached =
            |name| hooks.iter().any(|report| report.name == name && report.state == HookState::Attached);
        let undone = |name| self.undone.iter().any(|(undone, _)| *undone == name);
        HOOKS
            .iter()
            .zip(&self.seen)
            .filter(move |(hook, seen)| !**seen && attached(hook.name) && !undone(hook.name))
            .map(|(hook, _)| hook.name)
    }
}

/// Connects to itself over loopback.
fn connect() -> std::io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let _stream = TcpStream::connect(address)?;
    listener.accept()?;
    Ok(address.port())
}

/// Sends a datagram to itself over loopback, and returns to which port.
fn send() -> std::io::Result<u16> {
    let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = receiver.local_addr()?;
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.send_to(b"", address)?;
    Ok(address.port())
}

/// What the child makes of itself before it runs the program. The group that it could go back to is nothing by which
/// anything is decided, and the program's start resets it. That this is forbidden is found out elsewhere.
fn change() -> std::io::Result<()> {
    const NOBODY: libc::gid_t = 65_534;
    // SAFETY: neither has preconditions.
    unsafe {
        libc::setsid();
        libc::setresgid(libc::gid_t::MAX, libc::gid_t::MAX, NOBODY);
    }
    Ok(())
}

/// Runs this very program in a session of its own, which prints its version and ends.
fn spawn() -> std::io::Result<u32> {
    let mut command = Command::new("/proc/self/exe");
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: only system calls are made between fork and exec.
    unsafe { command.pre_exec(change) };
    let mut child = command.spawn()?;
    let pid = child.id();
    child.wait()?;
    Ok(pid)
}
