//! The attacker's program: a copy of this very binary. Its environment selects the technique. It acts before
//! the harness of the tests begins, with one thread and with whatever arguments it was given.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write as _};
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use io_uring::{IoUring, opcode, squeue, types};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, connect, sendto, socket, socket_with};

use crate::act::{self, Strings, c};

/// The variable that holds the technique's name and the address to connect to.
pub(crate) const ORDER: &str = "LAPWING_TEST_ATTACK";
/// Where a socket is inherited.
const INHERITED: RawFd = 9;

type Technique = fn(SocketAddrV4) -> io::Result<()>;

const TECHNIQUES: &[(&str, Technique)] = &[
    ("another argv", after_renaming),
    ("chroot", after_chroot),
    ("connect then exec", connect_then_exec),
    ("double fork", double_fork),
    ("endless arguments", with_endless_arguments),
    ("dup2", after_dup2),
    ("fast open", fast_open),
    ("first thread ended", after_the_first_thread),
    ("io_uring", |to| io_uring(IoUring::new(2)?, squeue::Flags::empty(), to)),
    ("io_uring worker", |to| io_uring(IoUring::new(2)?, squeue::Flags::ASYNC, to)),
    ("io_uring poller", |to| {
        io_uring(IoUring::builder().setup_sqpoll(100).build(2)?, squeue::Flags::empty(), to)
    }),
    ("mapped", mapped),
    ("mptcp", mptcp),
    ("namespaces", in_namespaces),
    ("non-blocking", |to| without_waiting(to).map(drop)),
    ("orphan", as_orphan),
    ("passed", over_a_unix_socket),
    ("rest", rest),
    ("setsid", after_setsid),
    ("swap", swap),
    ("thread", in_a_thread),
    ("thread of another user", in_a_thread_of_another_user),
    ("vfork", in_a_vfork),
];

/// Run by the loader before `main`, as every constructor is.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = attack_if_ordered;

extern "C" fn attack_if_ordered() {
    let Ok(order) = env::var(ORDER) else { return };
    let code = match attack(&order) {
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

fn attack(order: &str) -> io::Result<()> {
    let wrong = || io::Error::from(io::ErrorKind::InvalidInput);
    let (name, address) = order.rsplit_once(' ').ok_or_else(wrong)?;
    let technique = TECHNIQUES.iter().find(|(known, _)| *known == name).ok_or_else(wrong)?.1;
    match technique(address.parse().map_err(|_| wrong())?) {
        // Nothing listens there: the attempt was made.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        other => other,
    }
}

fn tcp() -> io::Result<OwnedFd> {
    Ok(socket(AddressFamily::INET, SocketType::STREAM, None)?)
}

fn plainly(to: SocketAddrV4) -> io::Result<()> {
    Ok(connect(tcp()?, &to)?)
}

fn io_uring(mut ring: IoUring, flags: squeue::Flags, to: SocketAddrV4) -> io::Result<()> {
    let socket = tcp()?;
    let target = sockaddr(to);
    let entry = opcode::Connect::new(
        types::Fd(socket.as_raw_fd()),
        (&raw const target).cast(),
        size_of_val(&target) as u32,
    );
    // SAFETY: socket and address live until the ring has the result.
    unsafe { ring.submission().push(&entry.build().flags(flags)) }.map_err(io::Error::other)?;
    ring.submit_and_wait(1)?;
    let result = ring.completion().next().map_or(0, |done| done.result());
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(()) }
}

/// What `PR_SET_MM_MAP` takes: where in its memory a process has what.
#[repr(C)]
#[derive(Default)]
struct MemoryMap {
    code: [u64; 2],
    data: [u64; 2],
    heap: [u64; 2],
    stack: u64,
    arguments: [u64; 2],
    environment: [u64; 2],
    vector: u64,
    vector_bytes: u32,
    executable: i32,
}

/// With its arguments around a gibibyte of memory that it never touches, which takes no privilege, so that its
/// `/proc/PID/cmdline` is as long. It stays for a while after it has connected, so that it can be read.
fn with_endless_arguments(to: SocketAddrV4) -> io::Result<()> {
    const BYTES: usize = 1 << 30;
    let stat = fs::read_to_string("/proc/self/stat")?;
    let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let fields: Vec<u64> = rest.split(' ').skip(1).map(|field| field.trim().parse().unwrap_or(0)).collect();
    // Numbered as in proc_pid_stat(5); the first of these is the fourth.
    let field = |number: usize| fields.get(number - 4).copied().unwrap_or(0);
    // SAFETY: it maps memory that nothing else has, and asks where the heap ends.
    let (memory, heap_end) = unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        (libc::mmap(std::ptr::null_mut(), BYTES, access, flags, -1, 0), libc::sbrk(0))
    };
    let start = memory as u64;
    let map = MemoryMap {
        code: [field(26), field(27)],
        data: [field(45), field(46)],
        heap: [field(47), heap_end as u64],
        stack: field(28),
        arguments: [start, start + BYTES as u64],
        environment: [field(50), field(51)],
        executable: -1,
        ..MemoryMap::default()
    };
    // SAFETY: the kernel reads the map, and keeps what is in it for `/proc`.
    let outcome = unsafe {
        libc::prctl(libc::PR_SET_MM, libc::PR_SET_MM_MAP, &raw const map, size_of::<MemoryMap>(), 0)
    };
    if outcome != 0 {
        return Err(io::Error::last_os_error());
    }
    let connected = plainly(to);
    std::thread::sleep(Duration::from_secs(2));
    connected
}

fn sockaddr(to: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: to.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(to.ip().octets()) },
        sin_zero: [0; 8],
    }
}

fn in_a_thread(to: SocketAddrV4) -> io::Result<()> {
    std::thread::spawn(move || plainly(to)).join().map_err(|_| io::Error::other("the thread panicked"))?
}

/// By the system call itself: the library's function makes another user of every thread.
fn in_a_thread_of_another_user(to: SocketAddrV4) -> io::Result<()> {
    const NOBODY: libc::uid_t = 65_534;
    let connect = move || {
        // SAFETY: it takes three numbers.
        if unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) } != 0 {
            return Err(io::Error::last_os_error());
        }
        plainly(to)
    };
    std::thread::spawn(connect).join().map_err(|_| io::Error::other("the thread panicked"))?
}

/// First makes a socket and runs this program anew with it open; then makes it the standard input and connects by that.
fn after_dup2(to: SocketAddrV4) -> io::Result<()> {
    // SAFETY: it takes a number, and says whether that is open.
    if unsafe { libc::fcntl(INHERITED, libc::F_GETFD) } < 0 {
        let socket = tcp()?;
        // SAFETY: both are numbers; the new descriptor stays open over the exec.
        unsafe { libc::dup2(socket.as_raw_fd(), INHERITED) };
        let program = env::current_exe()?;
        return Err(std::os::unix::process::CommandExt::exec(
            std::process::Command::new(program).args(env::args_os().skip(1)),
        ));
    }
    // SAFETY: both are open; from here on it is the standard input's owner.
    let input = unsafe {
        libc::dup2(INHERITED, 0);
        OwnedFd::from_raw_fd(0)
    };
    Ok(connect(&input, &to)?)
}

/// A child makes the socket and sends it; this process connects it.
fn over_a_unix_socket(to: SocketAddrV4) -> io::Result<()> {
    use rustix::net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
        recvmsg, sendmsg,
    };
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    act::forked(|| {
        let Ok(socket) = tcp() else { return 1 };
        let sockets = [std::os::fd::AsFd::as_fd(&socket)];
        let mut room = [std::mem::MaybeUninit::uninit(); 64];
        let mut control = SendAncillaryBuffer::new(&mut room);
        control.push(SendAncillaryMessage::ScmRights(&sockets));
        let data = [io::IoSlice::new(b"x")];
        i32::from(sendmsg(&theirs, &data, &mut control, SendFlags::empty()).is_err())
    });
    let mut room = [std::mem::MaybeUninit::uninit(); 64];
    let mut control = RecvAncillaryBuffer::new(&mut room);
    let mut byte = [0];
    recvmsg(&ours, &mut [io::IoSliceMut::new(&mut byte)], &mut control, RecvFlags::empty())?;
    let received = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut sockets) => sockets.next(),
        _ => None,
    });
    Ok(connect(received.ok_or_else(|| io::Error::other("no socket came"))?, &to)?)
}

fn fast_open(to: SocketAddrV4) -> io::Result<()> {
    const MSG_FASTOPEN: SendFlags = SendFlags::from_bits_retain(0x2000_0000);
    sendto(tcp()?, b"early", MSG_FASTOPEN, &to)?;
    Ok(())
}

fn mptcp(to: SocketAddrV4) -> io::Result<()> {
    const IPPROTO_MPTCP: u32 = 262;
    let protocol = std::num::NonZeroU32::new(IPPROTO_MPTCP).map(rustix::net::Protocol::from_raw);
    Ok(connect(socket(AddressFamily::INET, SocketType::STREAM, protocol)?, &to)?)
}

fn mapped(to: SocketAddrV4) -> io::Result<()> {
    let socket = socket(AddressFamily::INET6, SocketType::STREAM, None)?;
    Ok(connect(socket, &SocketAddr::from((to.ip().to_ipv6_mapped(), to.port())))?)
}

fn without_waiting(to: SocketAddrV4) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::NONBLOCK, None)?;
    match connect(&socket, &to) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

fn connect_then_exec(to: SocketAddrV4) -> io::Result<()> {
    let (path, texts) = (c("/bin/true"), [c("harmless")]);
    let strings = Strings::new(&texts);
    let _socket = without_waiting(to)?;
    act::exec(&path, &strings);
    Err(io::Error::last_os_error())
}

/// Connects, puts the file `good` beside its own in that one's place, and runs it as it was run itself.
fn swap(to: SocketAddrV4) -> io::Result<()> {
    let own = env::current_exe()?;
    let arguments = fs::read("/proc/self/cmdline")?;
    let mut texts = arguments.strip_suffix(&[0]).unwrap_or_default().split(|byte| *byte == 0);
    let name = OsStr::from_bytes(texts.next().unwrap_or_default());
    let mut command = Command::new(&own);
    command.arg0(name).args(texts.map(OsStr::from_bytes)).env(ORDER, format!("rest {to}"));
    let _socket = without_waiting(to)?;
    fs::rename(own.with_file_name("good"), &own)?;
    Err(command.exec())
}

/// Does nothing for a while.
fn rest(_: SocketAddrV4) -> io::Result<()> {
    std::thread::sleep(Duration::from_secs(1));
    Ok(())
}

/// Ends the first thread, and connects in a second one.
fn after_the_first_thread(to: SocketAddrV4) -> io::Result<()> {
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        let _socket = without_waiting(to);
        std::thread::sleep(Duration::from_secs(1));
        // SAFETY: it does not return; nothing has to be run at the end.
        unsafe { libc::_exit(0) }
    });
    // SAFETY: it ends this thread alone, and nothing is left to be done by it.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    Err(io::Error::last_os_error())
}

/// Writes another command line over its own, takes another name, and connects.
fn after_renaming(to: SocketAddrV4) -> io::Result<()> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let (_, rest) = stat.rsplit_once(')').unwrap_or_default();
    // Fields 48 and 49 are where the arguments begin and end; the second is the first of `rest`, the third.
    let numbers: Vec<usize> = rest.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    let [start, end] = [numbers[44], numbers[45]];
    let innocent: Vec<u8> =
        b"[kworker/0:1-events]".iter().copied().chain([0].into_iter().cycle()).take(end - start).collect();
    // SAFETY: these are the process's own arguments, which it may write; they are not read at this time.
    unsafe { std::ptr::copy_nonoverlapping(innocent.as_ptr(), start as *mut u8, innocent.len()) };
    // SAFETY: the name ends in a zero.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"kworker/0:1".as_ptr()) };
    plainly(to)
}

fn after_chroot(to: SocketAddrV4) -> io::Result<()> {
    let program = env::current_exe()?;
    std::os::unix::fs::chroot(program.parent().unwrap_or(&program))?;
    env::set_current_dir("/")?;
    plainly(to)
}

fn in_namespaces(to: SocketAddrV4) -> io::Result<()> {
    use rustix::thread::UnshareFlags as New;
    let new = New::NEWUSER | New::NEWNS | New::NEWUTS | New::NEWIPC | New::NEWPID | New::NEWCGROUP;
    // The socket belongs to the network that it was made in: a new one would reach no host.
    // SAFETY: this process has one thread.
    unsafe { rustix::thread::unshare_unsafe(new) }?;
    plainly(to)
}

fn after_setsid(to: SocketAddrV4) -> io::Result<()> {
    // A leader of a group cannot do it; a shell that waits for its child is the leader here.
    // SAFETY: both take nothing and touch no memory.
    unsafe {
        if libc::setsid() < 0 {
            libc::setpgid(0, 0);
        }
    }
    plainly(to)
}

/// Waits until the parent is gone, and connects then.
fn as_orphan(to: SocketAddrV4) -> io::Result<()> {
    let parent = std::os::unix::process::parent_id();
    let start = Instant::now();
    while std::os::unix::process::parent_id() == parent {
        if start.elapsed() > Duration::from_secs(1) {
            return Err(io::Error::other("the parent stays"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    plainly(to)
}

fn double_fork(to: SocketAddrV4) -> io::Result<()> {
    let forked = || {
        // SAFETY: this process has one thread.
        unsafe { libc::fork() }
    };
    for _ in 0..2 {
        if forked() > 0 {
            // SAFETY: it does not return.
            unsafe { libc::_exit(0) };
        }
    }
    plainly(to)
}

/// In a child that shares this process's memory while this process waits.
fn in_a_vfork(to: SocketAddrV4) -> io::Result<()> {
    extern "C" fn child(to: *mut libc::c_void) -> libc::c_int {
        // SAFETY: the parent waits, and what it points to lives on there.
        let to = unsafe { *to.cast::<SocketAddrV4>() };
        i32::from(plainly(to).is_err_and(|error| error.kind() != io::ErrorKind::ConnectionRefused))
    }
    let mut stack = vec![0_u128; 4096];
    let mut to = to;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the stack is the child's own and grows down from its end; the parent waits until the child is gone.
    let pid = unsafe { libc::clone(child, stack.as_mut_ptr_range().end.cast(), flags, (&raw mut to).cast()) };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    match act::wait(pid) {
        0 => Ok(()),
        status => Err(io::Error::other(format!("the child ended with {status}"))),
    }
}
