//! Records of every kind, as fast as they come.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use super::{Order, become_attacker};

/// Threads that connect.
const THREADS: u32 = 100;
/// Threads of a process that begin and end together.
const STORM: usize = 400;
/// Bytes of the stack of each.
const STACK_BYTES: usize = 64 << 10;

pub(super) fn connections(order: &Order) -> io::Result<()> {
    become_attacker()?;
    let address = order.destination()?;
    std::thread::scope(|scope| {
        for _ in 0..THREADS.min(order.count) {
            scope.spawn(|| {
                for _ in 0..order.count / THREADS {
                    let _ = TcpStream::connect_timeout(&address.into(), Duration::from_millis(200));
                }
            });
        }
    });
    Ok(())
}

/// Every other call that the sensor watches, by processes of a moment: sessions, signals, `ptrace`, `bpf`, connections that
/// are made and accepted.
pub(super) fn calls(order: &Order) -> io::Result<()> {
    become_attacker()?;
    let listener = TcpListener::bind((std::net::Ipv4Addr::UNSPECIFIED, 0))?;
    let port = listener.local_addr()?.port();
    for number in 0..order.count {
        let client = TcpStream::connect((std::net::Ipv4Addr::LOCALHOST, port))?;
        drop((client, listener.accept()?));
        // SAFETY: the child makes nothing but system calls that have no preconditions, and is waited for.
        unsafe {
            match libc::fork() {
                0 => {
                    libc::setsid();
                    libc::kill(libc::getppid(), 0);
                    libc::syscall(libc::SYS_bpf, number % 40, std::ptr::null::<u8>(), 0);
                    libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
                    libc::_exit(0);
                }
                child => libc::waitpid(child, std::ptr::null_mut(), 0),
            };
        }
    }
    Ok(())
}

/// Processes that end with hundreds of threads.
pub(super) fn threads(order: &Order) -> io::Result<()> {
    become_attacker()?;
    for _ in 0..order.count {
        // SAFETY: there is one thread here, and the child does not return.
        match unsafe { libc::fork() } {
            0 => storm(),
            // SAFETY: a child of this process.
            child => drop(unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) }),
        }
    }
    Ok(())
}

fn storm() -> ! {
    let threads = (0..STORM).map(|_| {
        std::thread::Builder::new()
            .stack_size(STACK_BYTES)
            .spawn(|| std::thread::sleep(Duration::from_secs(9)))
    });
    let _kept: Vec<_> = threads.collect();
    // SAFETY: it does not return.
    unsafe { libc::_exit(0) }
}
