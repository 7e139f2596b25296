//! The sensors that are compared, each run as its own documentation says, configured to record programs that start and
//! connections that are made.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use tempfile::TempDir;

use super::super::agent::{self, Agent};
use crate::shell;

/// How long a sensor is left alone after its start, as the agent is.
const SETTLE: Duration = Duration::from_secs(2);
/// How long a sensor may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many records the kernel keeps for auditd: what its documentation recommends for a busy host.
const BACKLOG: &str = "8192";

/// auditd's configuration but for the place of its log: as Debian ships it, without what would stop it on a full disk.
const AUDITD: &str = "local_events = yes\nwrite_logs = yes\nlog_format = ENRICHED\nflush = INCREMENTAL_ASYNC\n\
    freq = 50\nmax_log_file = 512\nnum_logs = 2\nmax_log_file_action = ROTATE\nspace_left = 75\n\
    space_left_action = IGNORE\nadmin_space_left = 50\nadmin_space_left_action = IGNORE\n\
    disk_full_action = IGNORE\ndisk_error_action = IGNORE\n";
/// The same two things as a program of bpftrace, which says by its first line that it is attached.
const BPFTRACE: &str = r#"BEGIN { printf("ready\n"); }
tracepoint:syscalls:sys_enter_execve { printf("exec %d %s ", pid, comm); join(args->argv); }
tracepoint:syscalls:sys_enter_connect { printf("connect %d %s %d\n", pid, comm, args->fd); }"#;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    /// Nothing: the floor below which a difference means nothing
    None,
    /// This project's agent with its packaged rules
    Lapwing,
    /// The kernel's audit, with rules for execve and connect
    Auditd,
    /// A program of bpftrace for execve and connect
    Bpftrace,
}

impl Kind {
    pub(super) const ALL: [Self; 4] = [Self::None, Self::Lapwing, Self::Auditd, Self::Bpftrace];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lapwing => "lapwing",
            Self::Auditd => "auditd",
            Self::Bpftrace => "bpftrace",
        }
    }

    /// How to get what is not on this machine.
    pub(super) fn missing(self) -> Option<String> {
        let program = self.name();
        let is_foreign = matches!(self, Self::Auditd | Self::Bpftrace);
        (is_foreign && !shell::exists(program))
            .then(|| format!("{program} is not here and not compared: install the package `{program}`"))
    }
}

/// A sensor at work, until this is dropped.
pub(super) enum Sensor {
    None,
    Lapwing(Agent),
    Auditd(Other),
    Bpftrace(Other),
}

impl Sensor {
    /// Starts it, and waits until it records and has settled.
    ///
    /// # Errors
    /// It does not start.
    pub(super) fn start(kind: Kind, agent: &Path) -> Result<Self> {
        let sensor = match kind {
            Kind::None => Self::None,
            Kind::Lapwing => return Ok(Self::Lapwing(Agent::start(agent)?)),
            Kind::Auditd => Self::Auditd(auditd()?),
            Kind::Bpftrace => Self::Bpftrace(bpftrace()?),
        };
        std::thread::sleep(SETTLE);
        Ok(sensor)
    }

    /// Seconds of processor time that it used so far, with the kernel's thread that works for it.
    pub(super) fn cpu_seconds(&self) -> Result<f64> {
        match self {
            Self::None => Ok(0.0),
            Self::Lapwing(agent) => agent.cpu_seconds(),
            Self::Bpftrace(other) => agent::cpu_seconds(other.child.id()),
            Self::Auditd(other) => {
                let kernel = agent::cpu_seconds(thread_of_kernel("kauditd")?)?;
                Ok(agent::cpu_seconds(other.child.id())? + kernel)
            }
        }
    }

    /// Its resident memory.
    pub(super) fn rss_mib(&self) -> Result<f64> {
        match self {
            Self::None => Ok(0.0),
            Self::Lapwing(agent) => agent.rss_mib(),
            Self::Auditd(other) | Self::Bpftrace(other) => agent::rss_mib(other.child.id()),
        }
    }

    /// How many records it lost, by its own account.
    pub(super) fn lost(&self) -> Result<u64> {
        match self {
            Self::None => Ok(0),
            Self::Lapwing(agent) => agent.lost(),
            Self::Auditd(_) => {
                let status = shell::output(Command::new("auditctl").arg("-s"))?;
                agent::number(&status, "lost").context("auditctl reports no lost records")
            }
            Self::Bpftrace(other) => {
                let said = fs::read_to_string(other.folder.path().join("err")).unwrap_or_default();
                let lost = said.lines().filter_map(|line| agent::number(line, "Lost"));
                Ok(lost.sum())
            }
        }
    }
}

/// Another project's sensor, with a folder for what it writes.
pub(super) struct Other {
    child: Child,
    folder: TempDir,
    /// By which arguments of auditctl's it is undone what was set for it.
    undo: Vec<Vec<String>>,
}

impl Drop for Other {
    fn drop(&mut self) {
        for arguments in &self.undo {
            let _ = Command::new("auditctl").args(arguments).output();
        }
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let start = Instant::now();
        while !matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder on the disk, as a log of a sensor's would be.
fn folder() -> Result<TempDir> {
    let parent = shell::root().join("target/bench");
    fs::create_dir_all(&parent).with_context(|| parent.display().to_string())?;
    Ok(TempDir::new_in(parent)?)
}

fn auditd() -> Result<Other> {
    let status = shell::output(Command::new("auditctl").arg("-s"))?;
    let rules = shell::output(Command::new("auditctl").arg("-l"))?;
    let is_idle = agent::number(&status, "pid") == Some(0) && rules.trim() == "No rules";
    ensure!(is_idle, "this machine's own auditd or audit rules are in use: leave it out with `--only`");
    let backlog = agent::number(&status, "backlog_limit").context("auditctl reports no backlog_limit")?;
    let folder = folder()?;
    let log = folder.path().join("audit.log");
    let config = folder.path().join("auditd.conf");
    fs::write(&config, format!("{AUDITD}log_file = {}\n", log.display()))?;
    fs::set_permissions(&config, fs::Permissions::from_mode(0o640))?;
    let mut command = Command::new("auditd");
    command.args(["-n", "-s", "enable", "-c"]).arg(folder.path());
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().context("auditd")?;
    let undo = ["-D".to_owned(), "-e 0".to_owned(), format!("-b {backlog}")];
    let undo = undo.map(|arguments| arguments.split(' ').map(str::to_owned).collect()).into();
    let other = Other { child, folder, undo };
    let start = Instant::now();
    while !log.exists() {
        ensure!(start.elapsed() < PATIENCE, "auditd does not start: is the kernel's audit taken by another?");
        std::thread::sleep(Duration::from_millis(50));
    }
    for arguments in [
        &["-b", BACKLOG][..],
        &["--reset-lost"],
        &["-a", "always,exit", "-F", "arch=b64", "-S", "execve,execveat", "-k", "exec"],
        &["-a", "always,exit", "-F", "arch=b64", "-S", "connect", "-k", "connect"],
    ] {
        shell::output(Command::new("auditctl").args(arguments))?;
    }
    Ok(other)
}

fn bpftrace() -> Result<Other> {
    let folder = folder()?;
    let (program, out) = (folder.path().join("sensor.bt"), folder.path().join("out"));
    fs::write(&program, BPFTRACE)?;
    // It looks for tracefs at its usual place, where not every host has it.
    let script = "test -e /sys/kernel/tracing/events || mount -t tracefs none /sys/kernel/tracing; exec bpftrace \"$1\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(&program).stdin(Stdio::null());
    command.stdout(fs::File::create(&out)?).stderr(fs::File::create(folder.path().join("err"))?);
    let child = command.spawn().context("unshare")?;
    let other = Other { child, folder, undo: Vec::new() };
    let start = Instant::now();
    let is_ready = || -> Result<bool> {
        Ok(BufReader::new(fs::File::open(&out)?).lines().map_while(Result::ok).any(|line| line == "ready"))
    };
    while !is_ready()? {
        ensure!(start.elapsed() < PATIENCE, "bpftrace does not start");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(other)
}

/// The number of a thread of the kernel's.
fn thread_of_kernel(name: &str) -> Result<u32> {
    let numbers =
        fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_it = |pid: &u32| {
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let cmdline = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        comm.trim() == name && cmdline.is_empty()
    };
    numbers.into_iter().find(is_it).with_context(|| format!("the kernel has no thread {name}"))
}
