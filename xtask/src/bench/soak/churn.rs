//! What a host does all day at a steady rate: programs that are short or stay, trees that are deep or wide, orphans,
//! sessions, users and containers by the hundred, and connections.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::super::load::Load;

/// Acts in a second. An act makes some eight processes, so that these are about a hundred.
const ACTS_PER_SECOND: u32 = 12;
/// Connections in a second beside those that acts make.
const CONNECTIONS_PER_SECOND: usize = 60;
/// Users and containers that take turns.
const USERS: u32 = 400;
const CONTAINERS: usize = 300;
/// The longest that a process of an act lives, in seconds.
const LIFE_MAX_SECONDS: u64 = 60;

/// What is done, in turns: scripts of bash. `$0` is another text each time, and a name no program has.
const ACTS: [&str; 8] = [
    "exec true \"$0\" --number=\"$0\"",
    "exec -a \"$0\" sleep 0.3",
    "deep() { if [ \"$1\" -gt 0 ]; then (deep $(($1 - 1)); :); else sleep 0.2; fi; }; deep 30",
    "for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do sleep 1 & done; wait",
    "(sleep 7 &) ; (setsid sh -c 'sleep 5; true' &)",
    "sleep 60",
    "setsid --wait sh -c 'ls / | cat | wc -l' >/dev/null",
    "cd /tmp; i=0; while [ $i -lt 5 ]; do (exec cat /dev/null); i=$((i + 1)); done",
];
/// Begins an act in a container of its own and as a user of its own: `$0` is the folder, `$1` the user.
const ENTER: &str = "echo $$ > \"$0/cgroup.procs\"; user=$1; shift; \
    exec setpriv --reuid \"$user\" --regid \"$user\" --clear-groups \"$@\"";

/// Control groups like those of containers; removed when this is dropped.
struct Containers(Vec<PathBuf>);

/// Does this for so long, and waits until all of it has ended. Returns how many acts that were.
///
/// # Errors
/// Where something cannot be started here.
pub(super) fn run(length: Duration) -> Result<u64> {
    let containers = Containers::new()?;
    let start = Instant::now();
    let mut children: Vec<Child> = Vec::new();
    let mut acts = 0;
    while start.elapsed() < length {
        let due = Duration::from_secs(1) * u32::try_from(acts).unwrap_or(u32::MAX) / ACTS_PER_SECOND;
        std::thread::sleep(due.saturating_sub(start.elapsed()));
        children.push(begin(acts, &containers)?);
        if acts % u64::from(ACTS_PER_SECOND) == 0 {
            Load::Connect.run(CONNECTIONS_PER_SECOND)?;
        }
        children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        acts += 1;
    }
    for child in &mut children {
        child.wait()?;
    }
    // No process waits for the orphans.
    std::thread::sleep(Duration::from_secs(10));
    Ok(acts)
}

/// How long after the requested time everything may take to end.
pub(super) fn rest() -> Duration {
    Duration::from_secs(LIFE_MAX_SECONDS + 30)
}

fn begin(number: u64, containers: &Containers) -> Result<Child> {
    let index = usize::try_from(number).unwrap_or(0);
    let text = format!("name-{:x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let user = (20_000 + fastrand::u32(..USERS)).to_string();
    let mut command = Command::new("bash");
    command.args(["-c", ENTER]).arg(&containers.0[index % CONTAINERS]).arg(user);
    command.args(["bash", "-c", ACTS[index % ACTS.len()], &text]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().context("bash cannot be started")
}

impl Containers {
    fn new() -> Result<Self> {
        let roots = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].map(PathBuf::from);
        let root = roots.into_iter().find(|root| root.join("cgroup.procs").exists());
        let root = root.context("no control groups are mounted at /sys/fs/cgroup")?.join("lapwing-soak");
        let mut made = Self(Vec::with_capacity(CONTAINERS + 1));
        for number in 0..CONTAINERS {
            let folder = root.join(format!("docker-{:064x}.scope", number + 1));
            fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
            made.0.push(folder);
        }
        made.0.push(root);
        Ok(made)
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        for folder in &self.0 {
            // One that is not empty yet stays until the host is booted.
            let _ = fs::remove_dir(folder);
        }
    }
}
