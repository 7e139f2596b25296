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

/// Floods take turns, for every agent sees them all.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An attacker has the agent read a gibibyte of arguments from `/proc`, by an attack that it alerts on; and another
/// lets a hundred programs sleep with 49,000 empty arguments each, which took 1.2 MB each. Seen: the attacks, by an
/// agent that takes little more memory than before, also where it is started while the programs sleep.
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

/// The most memory that the agent has taken.
fn memory_kib(agent: &Agent) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// An attacker who is root stops the agent, attacks, does more than there is room for, and lets the agent go on, so
/// that its silence raises no question. Seen: the attack, at the time at which it was; and that records were lost, how
/// many and when, as an alert of its own.
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

/// An attacker makes process after process, so many that the agent cannot read of them in time, to push his own program
/// and its connection out of what is read. Here the agent is stopped, so that it reads of none. Seen: the attack, for
/// the last room is kept for programs and connections; and how many of the others were lost.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn flooded_with_processes() {
    let _turn = turn();
    let mut agent = agent();
    agent.signal("STOP").unwrap();
    ready();
    for _ in 0..4 {
        // The agent that prints events is to keep up.
        of("end", processes(200));
    }
    let port = attack_once_as(OTHER);
    agent.signal("CONT").unwrap();
    agent.wait_for_within("the attack", 0, PATIENCE, |alert| is_of(alert, port)).unwrap();
    let lost = lost_by_kind(&mut agent);
    assert!(lost["fork"].as_u64() > Some(0) && lost["exit"].as_u64() > Some(0), "{lost}");
    assert!(lost["connect"].is_null() && lost["accept"].is_null(), "{lost}");
}

/// An attacker runs programs with long arguments, until there is no room for any program, and connects then. Seen: the
/// connection, for which there is room apart; and how many programs were lost.
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

/// A user without privileges runs twelve programs with long arguments, each from a file of its own, until there is no
/// room for another. Seen: what another user does then, its program too; and whose records were dropped.
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

/// What the agent's own alert says to be lost, once it has ended.
fn lost_by_kind(agent: &mut Agent) -> Value {
    reported_lost(agent);
    agent.stop().unwrap();
    let alerts = agent.alerts().unwrap();
    let found: Vec<_> = alerts.iter().filter(|alert| is_lost(alert)).collect();
    assert_eq!(found.len(), 1, "one alert for one episode");
    value(found[0], "lapwing.lost.by_kind").clone()
}

/// An attacker who is root freezes the agent's control group, attacks, and thaws it. Seen: the attack.
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

/// An attacker who is root leaves the running agent no file to open and no byte to write. Seen: the attack, whose alert
/// is written as soon as there is room again; the agent stays.
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

/// The status as if it were an alert, to be read by names.
fn serde_alert(agent: &Agent) -> Alert {
    Alert { document: agent.status().unwrap(), seen: std::time::SystemTime::now() }
}

/// Sets the soft limit of another process. Returns the one before.
fn limited(pid: Pid, limit: Resource, soft: u64) -> u64 {
    let mut limits = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both point to limits of ours, or nowhere.
    unsafe {
        assert_eq!(libc::prlimit(pid.as_raw(), limit as _, std::ptr::null(), &raw mut limits), 0);
        let before = limits.rlim_cur;
        limits.rlim_cur = soft;
        assert_eq!(libc::prlimit(pid.as_raw(), limit as _, &raw const limits, std::ptr::null_mut()), 0);
        before
    }
}

/// Makes processes that end at once, as the user who attacks: what root does beside the test takes none of its share.
/// Returns the number of the one that made them.
fn processes(count: usize) -> u32 {
    let (pid, _) = act::forked(|| {
        // SAFETY: it has no preconditions; the children do nothing but leave.
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

/// Runs programs whose arguments are as long as a record holds, more of them than the ring has room for. Few as they
/// are, agents that are not held up read them in time.
fn flood_with_programs() {
    ready();
    for _ in 0..12 {
        run_with_long_arguments(Path::new("/bin/true"), None);
    }
}

/// Runs a program once with arguments that are nearly as long as a record holds, as this user where one is given.
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

/// How many records the agent says to have lost, once it has looked.
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

/// A control group that freezes, gone when this is dropped.
struct Group {
    place: PathBuf,
    /// The file that freezes, and what is written to it to freeze and to thaw.
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
