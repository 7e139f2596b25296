//! The loads that are measured: what a host does all day, one operation after the other, each timed.

use std::ffi::CString;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::net::{AddressFamily, SocketType, connect, socket, sockopt};

/// What is done over and over.
#[derive(Clone, Copy, Debug)]
pub(super) enum Load {
    /// fork, execve of /bin/true, wait
    Exec,
    /// connect over loopback; only the call itself is timed
    Connect,
}

impl Load {
    /// Operations of one run.
    pub(super) fn count(self) -> usize {
        match self {
            Self::Exec => 5_000,
            Self::Connect => 100_000,
        }
    }

    /// Does it `count` times and returns how long each took, shortest first.
    ///
    /// # Errors
    /// Where the system refuses one.
    pub(super) fn run(self, count: usize) -> Result<Vec<Duration>> {
        let mut times = match self {
            Self::Exec => execs(count)?,
            Self::Connect => connects(count)?,
        };
        times.sort_unstable();
        Ok(times)
    }
}

#[expect(
    unsafe_code,
    reason = "fork and execve themselves are what is measured, and no safe call is just these"
)]
fn execs(count: usize) -> Result<Vec<Duration>> {
    let program = CString::new("/bin/true")?;
    let arguments = [program.as_ptr(), std::ptr::null()];
    let environment = [std::ptr::null()];
    let timed = |_| {
        let start = Instant::now();
        // SAFETY: this process has one thread; the child calls nothing but `execve` and `_exit`, which are safe after
        // a fork, with arrays that end in null and live until then; `waitpid` writes to a number of ours.
        let status = unsafe {
            let child = libc::fork();
            if child == 0 {
                libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr());
                libc::_exit(127);
            }
            let mut status = -1;
            if child > 0 {
                libc::waitpid(child, &raw mut status, 0);
            }
            status
        };
        if status != 0 {
            bail!("/bin/true ended with {status}: {}", io::Error::last_os_error());
        }
        Ok(start.elapsed())
    };
    (0..count).map(timed).collect()
}

fn connects(count: usize) -> Result<Vec<Duration>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("loopback")?;
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, listener.local_addr()?.port());
    let timed = |_| {
        let client = socket(AddressFamily::INET, SocketType::STREAM, None)?;
        // Closed by a reset, or the ports would run out.
        sockopt::set_socket_linger(&client, Some(Duration::ZERO))?;
        let start = Instant::now();
        connect(&client, &address)?;
        let time = start.elapsed();
        // Before the next: a full queue of connections would be measured as a second of waiting.
        listener.accept()?;
        Ok(time)
    };
    (0..count).map(timed).collect()
}
