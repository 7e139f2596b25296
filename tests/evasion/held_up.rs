//! The agent itself: stopped, frozen, limited, flooded.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lapwing_stage::{Agent, Alert, skipped};
use nix::sys::resource::Resource;
use nix::unistd::Pid;
use serde_json::Value;

use crate::act::{self, Strings, c};
use crate::agent::{of, ready};
use crate::alerts::{
    agent as agent_with, agent_with_small_rings as agent, attack_once, attack_once_as, attack_once_by, is_of,
    value,
};

/// An unprivileged user without any other process on this host.
const OTHER: libc::uid_t = 1_042;
/// The user `nobody`.
const NOBODY: libc::uid_t = 65_534;
/// How long an alert may take once the agent runs again.
const PATIENCE: Duration = Duration::from_secs(20);

/// Floods run one after the other, because every agent on the host sees all of them.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An attacker makes the agent read a gibibyte of arguments from `/proc`, by an attack that raises an alert. Another
/// attacker runs a hundred sleeping programs with 49,000 empty arguments each, which once took 1.2 MB each. Detected:
/// the attacks, by an agent that takes little more memory than before, also if it starts while the programs sleep.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn fed_with_arguments() {
    const GROWTH_KIB_MAX: u64 = 96 << 10;
    let _turn = turn();
    let mut agent = agent_with("");
    let before = memory_kib(&agent);
    let port = attack_once_by("endless arguments");
    agent
        .wait_for_within("the attack with endless arguments", 0, PATIENCE, |alert| is_of(alert, port))
        .unwrap();
    let mut sleepers: Vec<Child> = (0..100).map(|_| sleeper()).collect();
    let port = attack_once();
    agent.wait_for_within("the attack beside sleepers", 0, PATIENCE, |alert| is_of(alert, port)).unwrap();
    let grown = memory_kib(&agent).saturating_sub(before);
    assert!(grown < GROWTH_KIB_MAX, "it grew by {grown} KiB");
    agent.stop().unwrap();
    agent.start_again().unwrap();
    let taken = memory_kib(&agent);
    assert!(
        taken < before + GROWTH_KIB_MAX,
        "it takes {taken} KiB at the start, and took {before} KiB before"
    );
    for sleeper in &mut sleepers {
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
    }
}

/// A program with 49,000 empty arguments that waits for its input.
fn sleeper() -> Child {
    let mut command = Command::new("cat");
    command.arg("-").args(std::iter::repeat_n("", 49_000));
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// The peak memory of the agent.
fn memory_kib(agent: &Agent) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// An attacker with root stops the agent, attacks, floods the rings, and lets the agent continue, so that its silence
/// is not noticed. Detected: the attack, with its own time, and the loss, with its count and times, as a separate
/// alert.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn stopped_by_a_signal() {
    let _turn = turn();
    let mut agent = agent();
    agent.signal("STOP").unwrap();
    let port = attack_once();
    flood_with_programs();
    agent.signal("CONT").unwrap();
    agent.wait_for_within("the attack", 0, PATIENCE, |alert| is_of(alert, port)).unwrap();
    let found = reported_lost(&agent);
    // Losses that the agent still collects are reported at its end.
    agent.stop().unwrap();
    let alerts: Vec<_> = agent.alerts().unwrap().into_iter().filter(is_lost).collect();
    assert_eq!(alerts.len(), 1, "one alert for one episode");
    let count = |name: &str| value(&alerts[0], name).as_u64().unwrap();
    assert!(count("lapwing.lost.records") >= found && found > 0);
    assert!(count("lapwing.lost.by_kind.exec") > 0, "programs among them");
    let [start, end] =
        ["event.start", "event.end"].map(|name| value(&alerts[0], name).as_str().unwrap().to_owned());
    let attack = agent.alerts().unwrap().into_iter().find(|alert| is_of(alert, port)).unwrap();
    let time = attack.text("/@timestamp");
    assert!(
        *start < *time && *time < *end,
        "{start} {time} {end}: it was attacked while the agent was stopped"
    );
    assert_eq!(value(&attack, "lapwing.alert.complete"), false, "something may be missing beside it");
}

/// An attacker creates processes faster than the agent can read their records, to displace the records of a program and
/// its connection. In the test the agent is stopped, so that it reads none. Detected: the attack, because the last part
/// of the ring is reserved for programs and connections, and the number of lost records.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn flooded_with_processes() {
    let _turn = turn();
    let mut agent = agent();
    agent.signal("STOP").unwrap();
    ready();
    for _ in 0..4 {
        // The agent that prints events must keep up.
        of("end", processes(200));
    }
    let port = attack_once_as(OTHER);
    agent.signal("CONT").unwrap();
    agent.wait_for_within("the attack", 0, PATIENCE, |alert| is_of(alert, port)).unwrap();
    let lost = lost_by_kind(&mut agent);
    assert!(lost["fork"].as_u64() > Some(0) && lost["exit"].as_u64() > Some(0), "{lost}");
    assert!(lost["connect"].is_null() && lost["accept"].is_null(), "{lost}");
}

/// An attacker runs programs with long arguments until there is no room for any program, and then connects. Detected:
/// the connection, which has a ring of its own, and the number of lost programs.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn flooded_with_programs() {
    let _turn = turn();
    let mut agent = agent();
    agent.signal("STOP").unwrap();
    flood_with_programs();
    attack_once();
    agent.signal("CONT").unwrap();
    let found = reported_lost(&agent);
    let lost = lost_by_kind(&mut agent);
    assert!(found > 0 && lost["exec"].as_u64() > Some(0), "{lost}");
    assert!(lost["connect"].is_null() && lost["connected"].is_null(), "{lost}");
}

/// An unprivileged user runs twelve programs with long arguments, each from another file, until there is no room for
/// another. Detected: the attack of another user, with its program, and the user whose records were dropped.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn flooded_by_another_user() {
    let _turn = turn();
    let mut agent = agent();
    agent.signal("STOP").unwrap();
    ready();
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for number in 0..12 {
        let program = folder.path().join(number.to_string());
        fs::copy("/bin/true", &program).unwrap();
        run_with_long_arguments(&program, Some(NOBODY));
    }
    let port = attack_once_as(OTHER);
    agent.signal("CONT").unwrap();
    agent.wait_for_within("the attack", 0, PATIENCE, |alert| is_of(alert, port)).unwrap();
    reported_lost(&agent);
    agent.stop().unwrap();
    let alerts = agent.alerts().unwrap();
    let lost = alerts.iter().find(|alert| is_lost(alert)).unwrap();
    let users = value(lost, "lapwing.lost.by_user").as_array().cloned().unwrap_or_default();
    let by = |id: libc::uid_t| {
        let id = id.to_string();
        users.iter().find(|user| user["id"].as_str() == Some(&id))
    };
    assert!(by(NOBODY).is_some_and(|user| user["records"].as_u64() > Some(0)), "{users:?}");
    assert!(by(OTHER).is_none(), "{users:?}");
}

/// The lost records by kind in *Telemetry lost*, after the agent's end.
fn lost_by_kind(agent: &mut Agent) -> Value {
    reported_lost(agent);
    agent.stop().unwrap();
    let alerts = agent.alerts().unwrap();
    let found: Vec<_> = alerts.iter().filter(|alert| is_lost(alert)).collect();
    assert_eq!(found.len(), 1, "one alert for one episode");
    value(found[0], "lapwing.lost.by_kind").clone()
}

/// An attacker with root freezes the agent's control group, attacks, and thaws it. Detected: the attack.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn frozen_with_its_control_group() {
    let _turn = turn();
    let agent = agent_with("");
    let Some(group) = Group::new("lapwing-evasion") else {
        return skipped("this host has no control groups that freeze");
    };
    group.take(agent.pid());
    group.set(true);
    let port = attack_once();
    std::thread::sleep(Duration::from_secs(1));
    assert!(!agent.alerts().unwrap().iter().any(|alert| is_of(alert, port)), "it is frozen");
    group.set(false);
    agent.wait_for_within("the attack", 0, PATIENCE, |alert| is_of(alert, port)).unwrap();
}

/// An attacker with root sets the running agent's limits for open files and file size to zero. Detected: the attack,
/// whose alert is written as soon as the limits allow it. The agent does not end.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn without_files() {
    let _turn = turn();
    let agent = agent_with("");
    let pid = Pid::from_raw(agent.pid().try_into().unwrap());
    let limits = [Resource::RLIMIT_NOFILE, Resource::RLIMIT_FSIZE];
    let before = limits.map(|limit| limited(pid, limit, 0));
    let port = attack_once();
    std::thread::sleep(Duration::from_secs(2));
    for (limit, before) in limits.into_iter().zip(before) {
        limited(pid, limit, before);
    }
    agent.wait_for_within("the attack", 0, PATIENCE, |alert| is_of(alert, port)).unwrap();
    assert_eq!(value(&serde_alert(&agent), "pid"), agent.pid(), "it is the same agent");
}

/// The status in the form of an alert, so that its values can be read by name.
fn serde_alert(agent: &Agent) -> Alert {
    Alert { document: agent.status().unwrap(), seen: std::time::SystemTime::now() }
}

/// Sets the soft limit of another process. Returns the previous one.
fn limited(pid: Pid, limit: Resource, soft: u64) -> u64 {
    let mut limits = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both pointers are to limits on this stack, or null.
    unsafe {
        assert_eq!(libc::prlimit(pid.as_raw(), limit as _, std::ptr::null(), &raw mut limits), 0);
        let before = limits.rlim_cur;
        limits.rlim_cur = soft;
        assert_eq!(libc::prlimit(pid.as_raw(), limit as _, &raw const limits, std::ptr::null_mut()), 0);
        before
    }
}

/// Creates processes that end at once, as the attacking user, so that root's other activity takes nothing of the share.
/// Returns the pid of the process that created them.
fn processes(count: usize) -> u32 {
    let (pid, _) = act::forked(|| {
        // SAFETY: it has no preconditions; the children only exit.
        unsafe {
            if libc::setuid(OTHER) != 0 {
                return 1;
            }
            for _ in 0..count {
                if libc::fork() == 0 {
                    libc::_exit(0);
                }
            }
            while libc::wait(std::ptr::null_mut()) > 0 {}
        }
        0
    });
    pid
}

/// Runs programs with arguments as long as a record can hold, more than fit into the ring. They are so few that an
/// agent that runs normally reads them in time.
fn flood_with_programs() {
    ready();
    for _ in 0..12 {
        run_with_long_arguments(Path::new("/bin/true"), None);
    }
}

/// Runs a program once with arguments nearly as long as a record can hold, as the given user, if any.
fn run_with_long_arguments(program: &Path, user: Option<libc::uid_t>) {
    let (path, texts) = (c(program.as_os_str().as_bytes()), [c("true"), c(vec![b'x'; 47 * 1024])]);
    let strings = Strings::new(&texts);
    let (pid, _) = act::forked(|| {
        // SAFETY: it has no preconditions.
        match user.map(|user| unsafe { libc::setuid(user) }) {
            None | Some(0) => act::exec(&path, &strings),
            Some(_) => 1,
        }
    });
    of("end", pid);
}

/// The number of lost records that the agent reports after its next reading of the counters.
fn reported_lost(agent: &Agent) -> u64 {
    lapwing_stage::until("the account of losses", PATIENCE, || {
        let status = agent.status()?;
        let records = status["lanes"][0]["source"]["records"].as_array().cloned().unwrap_or_default();
        let lost: u64 = records.iter().filter_map(|kind| kind["lost"].as_u64()).sum();
        Ok((lost > 0).then_some(lost))
    })
    .unwrap()
}

fn is_lost(alert: &Alert) -> bool {
    *value(alert, "event.action") == "telemetry_lost"
}

/// A control group that can be frozen; removed on drop.
struct Group {
    place: PathBuf,
    /// The file that freezes it, and its values to freeze and to thaw.
    switch: (&'static str, [&'static str; 2]),
    root: PathBuf,
}

impl Group {
    fn new(name: &str) -> Option<Self> {
        let kinds = [
            ("/sys/fs/cgroup/freezer", ("freezer.state", ["FROZEN", "THAWED"])),
            ("/sys/fs/cgroup", ("cgroup.freeze", ["1", "0"])),
        ];
        kinds.into_iter().find_map(|(root, switch)| {
            let place = Path::new(root).join(format!("{name}-{}", std::process::id()));
            fs::create_dir(&place).ok()?;
            let group = Self { place, switch, root: root.into() };
            group.place.join(switch.0).exists().then_some(group)
        })
    }

    fn take(&self, pid: u32) {
        fs::write(self.place.join("cgroup.procs"), pid.to_string()).unwrap();
    }

    fn set(&self, is_frozen: bool) {
        let (file, [freeze, thaw]) = self.switch;
        fs::write(self.place.join(file), if is_frozen { freeze } else { thaw }).unwrap();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.set(false);
        // Only an empty group can be removed.
        for pid in fs::read_to_string(self.place.join("cgroup.procs")).unwrap_or_default().lines() {
            let _ = fs::write(self.root.join("cgroup.procs"), pid);
        }
        let _ = fs::remove_dir(&self.place);
    }
}
