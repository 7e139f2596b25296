//! The agent under measurement: a process of its own, looked at from outside.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long the agent may take to start and to end.
const WAIT: Duration = Duration::from_secs(20);
/// How long it is left alone after its start, so that the snapshot is no part of the measurement.
const SETTLE: Duration = Duration::from_secs(2);
/// Ticks of a second in `/proc/PID/stat`.
const TICKS_PER_SECOND: f64 = 100.0;

/// A running agent.
pub(super) struct Agent {
    child: Child,
    ended: bool,
}

impl Agent {
    /// Starts it and waits until it is ready.
    pub(super) fn start(binary: &Path) -> Result<Self> {
        let mut command = Command::new(binary);
        command.args(["events", "--json"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn().with_context(|| binary.display().to_string())?;
        let agent = Self { child, ended: false };
        let start = Instant::now();
        // Its hooks are attached once it holds programs; then the snapshot follows.
        while agent.bpf_nanos()?.1 < 4 {
            if start.elapsed() > WAIT {
                bail!("the agent did not start: run `{} events` to see why", binary.display());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(SETTLE);
        Ok(agent)
    }

    /// Nanoseconds that its kernel programs ran so far, as far as the kernel counts them, and how many there are.
    pub(super) fn bpf_nanos(&self) -> Result<(u64, usize)> {
        let (mut nanos, mut programs) = (0, 0);
        let folder = format!("/proc/{}/fdinfo", self.child.id());
        for entry in fs::read_dir(&folder).with_context(|| folder.clone())? {
            let text = fs::read_to_string(entry?.path()).unwrap_or_default();
            if text.contains("prog_type:") {
                programs += 1;
                nanos += number(&text, "run_time_ns:").unwrap_or(0);
            }
        }
        Ok((nanos, programs))
    }

    /// Seconds of processor time that it used so far.
    pub(super) fn cpu_seconds(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let (_, rest) = stat.rsplit_once(')').context("/proc/PID/stat has no name")?;
        let ticks = rest.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok());
        Ok(ticks.sum::<f64>() / TICKS_PER_SECOND)
    }

    /// Its resident memory.
    pub(super) fn rss_mib(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        Ok(number(&status, "VmRSS:").context("no VmRSS")? as f64 / 1024.0)
    }

    /// Ends it and returns how many records it lost: it says so when it ends.
    pub(super) fn end(mut self) -> Result<u64> {
        self.signal(Signal::TERM);
        self.ended = true;
        let mut said = String::new();
        if let Some(mut errors) = self.child.stderr.take() {
            std::io::Read::read_to_string(&mut errors, &mut said)?;
        }
        self.child.wait()?;
        said.lines()
            .find_map(|line| line.split_once(" lost")?.0.rsplit(' ').next()?.parse().ok())
            .with_context(|| format!("the agent did not tell what it lost: {said}"))
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // Gone already is as good.
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if !self.ended {
            self.signal(Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

fn number(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
