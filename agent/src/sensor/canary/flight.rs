//! What the canary does: a flight. It runs on any thread, and uses no record.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use caps::{CapSet, Capability};

use crate::action::UDP;
use crate::sensor::hierarchy;

/// The hooks that a flight tests.
pub(super) const TESTED: [&str; 8] = ["fork", "exec", "exit", "connect", "accept", "ids", "session", UDP];
/// The program that the child runs, and its arguments.
pub(super) const PROGRAM: &str = "/proc/self/exe";
pub(super) const ARGUMENT: &str = "--version";
/// The group that the child could go back to.
pub(super) const GROUP: libc::gid_t = 65_534;
/// How long a connection over loopback may take.
const CONNECT_WAIT: Duration = Duration::from_secs(2);

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
