//! The acts: a copy of this very binary, ordered by its environment, does one of them before the harness of the tests
//! begins. It starts as root, for control groups and mapped ids; everything that attacks runs as `nobody`.

/// One rule set off again and again, by many who are one user.
mod decoys;
/// What rules keep.
mod learned;
/// Paths, mounts and control groups.
mod places;
/// Processes: many, fat, hidden, short and numbered.
mod processes;
/// Records of every kind.
mod records;
/// Files of a trail.
mod trail;

use std::env;
use std::io::{self, Write as _};
use std::net::{SocketAddrV4, TcpStream};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub(crate) use self::trail::FILES;
use crate::stage::ATTACKER;

/// The variable that holds `ACT;COUNT;ADDRESS PORT`.
pub(crate) const ORDER: &str = "LAPWING_TEST_ABUSE_ACT";
/// The variable that holds this program's path. An act whose processes stay makes a file beside it when all are there.
pub(crate) const PROGRAM: &str = "LAPWING_TEST_ABUSE_PROGRAM";
/// The name of that file.
pub(crate) const THERE: &str = "there";
/// The variable that holds the folder of a trail.
pub(crate) const TRAIL: &str = "LAPWING_TEST_ABUSE_TRAIL";

/// Bytes of a fat argument: a little less than a record holds.
const FAT_BYTES: usize = 47 * 1024;
/// How long processes stay that are there to be kept, unless they are killed.
const STAY: Duration = Duration::from_secs(600);
/// Programs that run side by side.
const WAVE: usize = 32;

/// What an act knows.
struct Order {
    count: u32,
    address: String,
    port: u16,
    program: PathBuf,
}

type Act = fn(&Order) -> io::Result<()>;

const ACTS: &[(&str, Act)] = &[
    ("connect", connect),
    ("stay", |_| stay()),
    ("sleeping fat", processes::sleeping_fat),
    ("sleeping empty", processes::sleeping_empty),
    ("chain fat", processes::chain_fat),
    ("chain empty", processes::chain_empty),
    ("chain link fat", processes::link_fat),
    ("chain link empty", processes::link_empty),
    ("hidden", processes::hidden),
    ("fat alerts", processes::fat_alerts),
    ("fat alerts link", processes::fat_alerts_link),
    ("long alerts", processes::long_alerts),
    ("execs", processes::execs),
    ("execs link", processes::execs_link),
    ("programs", processes::programs),
    ("environments", processes::environments),
    ("numbers", processes::numbers),
    ("namespaces", processes::namespaces),
    ("terms", learned::terms),
    ("half sequences", learned::half_sequences),
    ("connections", records::connections),
    ("calls", records::calls),
    ("threads", records::threads),
    ("decoys", |order| decoys::decoys(order, |_| None, |_| Ok(()))),
    ("decoys of programs", decoys::of_programs),
    ("decoys of groups", decoys::of_groups),
    ("decoys of ids", decoys::of_ids),
    ("paths", places::paths),
    ("detached", places::detached),
    ("groups", places::groups),
    ("trail", trail::hostile_files),
];

/// Run by the loader before `main`, as every constructor is.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = act_where_ordered;

extern "C" fn act_where_ordered() {
    let Ok(order) = env::var(ORDER) else { return };
    let code = match act(&order) {
        Ok(()) => 0,
        Err(error) => {
            // Nowhere is left to report to when standard error is closed.
            let _ = writeln!(io::stderr(), "{order}: {error}");
            1
        }
    };
    // SAFETY: it does not return; there is nothing yet that would have to be run at an exit.
    unsafe { libc::_exit(code) };
}

fn act(order: &str) -> io::Result<()> {
    let wrong = || io::Error::from(io::ErrorKind::InvalidInput);
    let mut parts = order.split(';');
    let name = parts.next().ok_or_else(wrong)?;
    let count = parts.next().and_then(|count| count.parse().ok()).ok_or_else(wrong)?;
    let (address, port) = parts.next().and_then(|to| to.split_once(' ')).ok_or_else(wrong)?;
    let order = Order {
        count,
        address: address.to_owned(),
        port: port.parse().map_err(|_| wrong())?,
        program: env::var_os(PROGRAM).map(PathBuf::from).unwrap_or_default(),
    };
    let (_, act) = ACTS.iter().find(|(known, _)| *known == name).ok_or_else(wrong)?;
    act(&order)
}

impl Order {
    /// This program again, as the attacker, with an order of its own.
    fn again(&self, act: &str, count: u32) -> Command {
        self.run(&self.program, act, count)
    }

    /// The same by another path of it.
    fn run(&self, program: &Path, act: &str, count: u32) -> Command {
        let mut command = Command::new(program);
        command
            .env(ORDER, format!("{act};{count};{} {}", self.address, self.port))
            .env(PROGRAM, &self.program);
        command.uid(ATTACKER).gid(ATTACKER).stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// A shell of the attacker's below which this program connects, which a packaged rule alerts on.
    fn shell(&self, program: &Path) -> Command {
        let mut shell = mapped_shell(self, program);
        shell.uid(ATTACKER).gid(ATTACKER);
        shell
    }

    /// A hard link to this program beside it.
    fn beside(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.program.with_file_name(name);
        std::fs::hard_link(&self.program, &path)?;
        Ok(path)
    }

    /// Everything is there that the act makes, and stays until it is killed.
    fn all_there(&self) -> io::Result<()> {
        std::fs::write(self.program.with_file_name(THERE), "")?;
        stay()
    }

    fn destination(&self) -> io::Result<SocketAddrV4> {
        format!("{}:{}", self.address, self.port).parse().map_err(io::Error::other)
    }
}

/// No server is there: that the attempt was made is all.
fn connect(order: &Order) -> io::Result<()> {
    match TcpStream::connect_timeout(&order.destination()?.into(), Duration::from_secs(2)) {
        Err(error) if error.kind() != io::ErrorKind::ConnectionRefused => Err(error),
        _ => Ok(()),
    }
}

fn stay() -> io::Result<()> {
    std::thread::sleep(STAY);
    Ok(())
}

fn with(command: &mut Command, arguments: &[Vec<u8>]) {
    command.args(arguments.iter().map(|argument| std::ffi::OsStr::from_bytes(argument)));
}

/// A wave of programs is waited for before the next one.
fn in_waves(commands: impl Iterator<Item = io::Result<Command>>) -> io::Result<()> {
    let mut children = Vec::new();
    for command in commands {
        children.push(command?.spawn()?);
        if children.len() == WAVE {
            wait(std::mem::take(&mut children))?;
        }
    }
    wait(children)
}

/// Waits for all of them.
fn wait(children: Vec<Child>) -> io::Result<()> {
    for mut child in children {
        child.wait()?;
    }
    Ok(())
}

fn become_attacker() -> io::Result<()> {
    // SAFETY: none has preconditions. Its files in `/proc` are its own again by the last one.
    let failed = unsafe {
        libc::setgid(ATTACKER) != 0
            || libc::setuid(ATTACKER) != 0
            || libc::prctl(libc::PR_SET_DUMPABLE, 1) != 0
    };
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A namespace of users, in which this user alone is mapped, and other namespaces that it owns.
fn enter_namespaces(others: libc::c_int) -> io::Result<()> {
    // SAFETY: they have no preconditions, and there is one thread here.
    let (user, group, failed) =
        unsafe { (libc::getuid(), libc::getgid(), libc::unshare(libc::CLONE_NEWUSER | others)) };
    if failed != 0 {
        return Err(io::Error::last_os_error());
    }
    std::fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/gid_map", format!("{group} {group} 1"))
}

/// As [`Order::shell`], by the user of this process.
fn mapped_shell(order: &Order, program: &Path) -> Command {
    let script = format!("{} -e /bin/true {} {}; exit $?", program.display(), order.address, order.port);
    let mut shell = Command::new("/bin/sh");
    shell.env(ORDER, format!("connect;1;{} {}", order.address, order.port)).env(PROGRAM, &order.program);
    shell.args(["-c", &script]).stdin(Stdio::null()).stdout(Stdio::null());
    shell
}

/// Does this in a child, and waits for it.
fn in_child(what: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    // SAFETY: there is one thread here, and the child does not return.
    match unsafe { libc::fork() } {
        0 => {
            let done = what();
            let code = i32::from(done.is_err());
            // Nowhere is left to report to when standard error is closed.
            let _ = done.map_err(|error| writeln!(io::stderr(), "{error}"));
            // SAFETY: it does not return.
            unsafe { libc::_exit(code) }
        }
        -1 => Err(io::Error::last_os_error()),
        child => {
            let mut status = 0;
            // SAFETY: a child of this process, and a number of ours.
            unsafe { libc::waitpid(child, &raw mut status, 0) };
            if status == 0 { Ok(()) } else { Err(io::Error::other(format!("a child ended with {status}"))) }
        }
    }
}
