//! A flight of the canary: what it does, and what its records must contain: pids, parents, names, users, addresses, ports
//! and the control group. A wrong offset in the layout, and a hook whose records another program writes, are found here.
//!
//! It runs on any thread.

use std::fmt::Display;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use caps::{CapSet, Capability};
use lapwing_common::{AF_INET, Credentials, Kind, Socket, State, Task};
use nix::unistd::{getegid, geteuid, getgid, getuid};

use crate::action::UDP;
use crate::sensor::hierarchy;
use crate::sensor::key::Key;
use crate::sensor::record::Record;

/// The hooks that a flight tests.
pub(super) const TESTED: [&str; 8] = ["fork", "exec", "exit", "connect", "accept", "ids", "session", UDP];
/// The program that the child runs, and its arguments.
const PROGRAM: &str = "/proc/self/exe";
const ARGUMENT: &str = "--version";
/// The group that the child could go back to.
const GROUP: libc::gid_t = 65_534;
/// How long a connection over loopback may take.
const CONNECT_WAIT: Duration = Duration::from_secs(2);

/// 127.0.0.1 as the wire has it, and the protocols.
const LOOPBACK: [u32; 4] = [u32::from_be_bytes(Ipv4Addr::LOCALHOST.octets()).to_be(), 0, 0, 0];
const TCP_PROTOCOL: u16 = 6;
const UDP_PROTOCOL: u16 = 17;

/// What was done.
#[derive(Default)]
pub(super) struct Flight {
    /// The number of the child.
    pub(super) child: Option<u32>,
    /// The destination and source ports of the connection.
    pub(super) ports: Option<(u16, u16)>,
    /// The datagram's destination port.
    pub(super) udp_port: Option<u16>,
    /// The agent's control group, where it can be found out.
    pub(super) cgroup: Option<u64>,
    /// Hooks that could not be tested, and why.
    pub(super) undone: Vec<(&'static str, String)>,
}

impl Flight {
    /// One that could not be made.
    pub(super) fn impossible(why: &str) -> Self {
        Self { undone: TESTED.map(|name| (name, why.to_owned())).to_vec(), ..Self::default() }
    }

    /// Why a hook could not be tested.
    pub(super) fn undone(&self, hook: &str) -> Option<&str> {
        self.undone.iter().find(|(name, _)| *name == hook).map(|(_, why)| why.as_str())
    }

    fn undo(&mut self, hooks: &[&'static str], why: &impl ToString) {
        self.undone.extend(hooks.iter().map(|name| (*name, why.to_string())));
    }
}

/// Runs the flight.
pub(super) fn fly() -> Flight {
    let mut flight = Flight { cgroup: hierarchy::own(), ..Flight::default() };
    match connect() {
        Ok(ports) => flight.ports = Some(ports),
        Err(error) => flight.undo(&["connect", "accept"], &error),
    }
    match send() {
        Ok(port) => flight.udp_port = Some(port),
        Err(error) => flight.undo(&[UDP], &error),
    }
    match spawn() {
        Ok(child) => flight.child = Some(child),
        Err(error) => flight.undo(&["fork", "exec", "exit", "ids", "session"], &error),
    }
    if !caps::has_cap(None, CapSet::Effective, Capability::CAP_SETGID).unwrap_or(false) {
        flight.undo(&["ids"], &"without CAP_SETGID the agent cannot become another group");
    }
    flight
}

/// Connects to itself over loopback. Returns the two ports.
fn connect() -> io::Result<(u16, u16)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let stream = TcpStream::connect_timeout(&address, CONNECT_WAIT)?;
    // The connection is there, so that this does not wait.
    listener.set_nonblocking(true)?;
    listener.accept()?;
    Ok((address.port(), stream.local_addr()?.port()))
}

/// Sends a datagram to itself over loopback, and returns to which port.
fn send() -> io::Result<u16> {
    let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address: SocketAddr = receiver.local_addr()?;
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.send_to(b"", address)?;
    Ok(address.port())
}

/// What the child changes before it executes the program. The saved group decides nothing, and the exec resets it. A
/// failure is detected elsewhere.
#[expect(unsafe_code, reason = "the child sets itself up between fork and exec")]
fn change() -> io::Result<()> {
    // SAFETY: neither has preconditions.
    unsafe {
        libc::setsid();
        libc::setresgid(libc::gid_t::MAX, libc::gid_t::MAX, GROUP);
    }
    Ok(())
}

/// Runs this very program in a session of its own, which prints its version and ends.
#[expect(unsafe_code, reason = "the child sets itself up between fork and exec")]
fn spawn() -> io::Result<u32> {
    let mut command = Command::new(PROGRAM);
    command.arg(ARGUMENT).env_clear();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: only system calls are made between fork and exec.
    unsafe { command.pre_exec(change) };
    let mut child = command.spawn()?;
    let pid = child.id();
    child.wait()?;
    Ok(pid)
}

/// Whether a socket is one of a flight.
pub(super) fn is_loopback(socket: &Socket) -> bool {
    socket.remote == LOOPBACK && socket.family == AF_INET
}

/// What is wrong with the records of a hook that yields these kinds; the first kind must be there.
pub(super) fn fault<'a>(
    yields: &[Kind],
    records: impl Iterator<Item = Record<'a>> + Clone,
    flight: &Flight,
    own: Key,
) -> Option<String> {
    yields.iter().enumerate().find_map(|(index, kind)| {
        let of_kind = records.clone().filter(|record| record.header().kind == kind.0);
        // The last of several is compared: a child changes more than once.
        match of_kind.map(|record| Expected { flight, own }.check(&record)).reduce(better) {
            None if index == 0 => Some("the agent's own test did not come through it".to_owned()),
            None | Some(Ok(())) => None,
            Some(Err(wrong)) => Some(format!("it shows the agent's own test otherwise than it was: {wrong}")),
        }
    })
}

fn better(one: Result<(), String>, other: Result<(), String>) -> Result<(), String> {
    one.or(other)
}

/// What was done, and by whom.
struct Expected<'a> {
    flight: &'a Flight,
    own: Key,
}

impl Expected<'_> {
    fn check(&self, record: &Record<'_>) -> Result<(), String> {
        let child = self.flight.child.unwrap_or_default();
        let (port, from) = self.flight.ports.unwrap_or_default();
        match record {
            Record::Fork(fork) => {
                self.child(&fork.child)?;
                same("forker", fork.forker, self.own.pid)?;
                ids(&fork.credentials)?;
                self.cgroup(fork.context.cgroup)
            }
            Record::Exec(exec) => {
                self.child(&exec.fixed.task)?;
                ids(&exec.fixed.credentials)?;
                same("session", exec.fixed.context.sid, child)?;
                same("group", exec.fixed.context.pgid, child)?;
                let args = exec.args().map(String::from_utf8_lossy).collect::<Vec<_>>().join(" ");
                same("arguments", args, format!("{PROGRAM} {ARGUMENT}"))?;
                same("number of arguments", exec.fixed.args_count, 2)?;
                let opened = String::from_utf8_lossy(exec.text(exec.fixed.filename)).into_owned();
                same("file name", opened, PROGRAM.to_owned())?;
                self.cgroup(exec.fixed.context.cgroup)
            }
            Record::Exit(exit) => {
                self.child(&exit.task)?;
                same("status", exit.status, 0)
            }
            Record::Changed(changed) => {
                self.child(&changed.task)?;
                same("session", changed.state.sid, child)?;
                if changed.header.kind == Kind::IDS.0 {
                    same("saved group", changed.state.sgid, GROUP)?;
                }
                Ok(())
            }
            Record::Connect(one) => {
                state(&one.state)?;
                ends(&one.socket, TCP_PROTOCOL, None, port)
            }
            Record::Accept(one) => {
                state(&one.state)?;
                ends(&one.socket, TCP_PROTOCOL, Some(port), from)
            }
            Record::Datagram(one) => {
                state(&one.state)?;
                ends(&one.socket, UDP_PROTOCOL, None, self.flight.udp_port.unwrap_or_default())
            }
            // The agent may connect elsewhere at the same time.
            Record::Connected(one) if one.remote_port == port => same("source port", one.local_port, from),
            _ => Ok(()),
        }
    }

    fn child(&self, task: &Task) -> Result<(), String> {
        same("process", task.pid, self.flight.child.unwrap_or_default())?;
        same("thread", task.thread, task.pid)?;
        same("parent", task.parent, self.own.pid)?;
        match Key::parent_of(task) == Some(self.own) {
            true => Ok(()),
            false => Err("the parent's start is another".to_owned()),
        }
    }

    fn cgroup(&self, found: u64) -> Result<(), String> {
        // Zero: this kernel does not report it.
        self.flight.cgroup.filter(|_| found != 0).map_or(Ok(()), |own| same("control group", found, own))
    }
}

fn ids(credentials: &Credentials) -> Result<(), String> {
    same("user", credentials.uid, getuid().as_raw())?;
    same("effective user", credentials.euid, geteuid().as_raw())?;
    same("group", credentials.gid, getgid().as_raw())?;
    same("effective group", credentials.egid, getegid().as_raw())
}

fn state(state: &State) -> Result<(), String> {
    same("user", state.uid, getuid().as_raw())?;
    same("effective user", state.euid, geteuid().as_raw())
}

fn ends(socket: &Socket, protocol: u16, local_port: Option<u16>, remote_port: u16) -> Result<(), String> {
    same("protocol", socket.protocol, protocol)?;
    if !is_loopback(socket) {
        return Err(format!("address {:?} instead of {:?}", socket.remote, LOOPBACK));
    }
    same("remote port", socket.remote_port, remote_port)?;
    local_port.map_or(Ok(()), |port| same("local port", socket.local_port, port))
}

fn same<T: PartialEq + Display>(what: &str, found: T, expected: T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{what} {found} instead of {expected}")) }
}

#[cfg(test)]
mod tests {
    use lapwing_common::Fork;
    use zerocopy::FromZeros as _;

    use super::*;

    type Set = fn(&mut Fork);

    /// Each wrong offset is found.
    #[test]
    fn a_record_that_is_wrong_is_found() {
        let (own, child) = (Key::new(7, 0), 9);
        let flight = Flight { child: Some(child), cgroup: Some(3), ..Flight::default() };
        let fault = |set: fn(&mut Fork)| {
            let mut fork = Fork::new_zeroed();
            (fork.header.kind, fork.child.pid, fork.child.thread) = (Kind::FORK.0, child, child);
            (fork.child.parent, fork.forker, fork.context.cgroup) = (own.pid, own.pid, 3);
            (fork.credentials.uid, fork.credentials.euid) = (getuid().as_raw(), geteuid().as_raw());
            (fork.credentials.gid, fork.credentials.egid) = (getgid().as_raw(), getegid().as_raw());
            set(&mut fork);
            super::fault(&[Kind::FORK], [Record::Fork(&fork)].into_iter(), &flight, own)
        };
        assert_eq!(fault(|_| {}), None);
        #[rustfmt::skip]
        let wrong: [(Set, &str); 7] = [
            (|fork| fork.child.pid = 8, "process 8 instead of 9"),
            (|fork| fork.child.thread = 8, "thread 8 instead of 9"),
            (|fork| fork.child.parent = 8, "parent 8 instead of 7"),
            (|fork| fork.child.parent_start = 1 << 40, "the parent's start is another"),
            (|fork| fork.forker = 8, "forker 8 instead of 7"),
            (|fork| fork.credentials.uid = 77, "user 77 instead of"),
            (|fork| fork.context.cgroup = 4, "control group 4 instead of 3"),
        ];
        for (set, text) in wrong {
            assert!(fault(set).is_some_and(|fault| fault.contains(text)), "{text}");
        }
        let none = super::fault(&[Kind::FORK], std::iter::empty(), &flight, own);
        assert_eq!(none.as_deref(), Some("the agent's own test did not come through it"));
    }
}
