//! The agent under the unit's limits, the act that runs at the same time, and the shell of another user.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lapwing_stage::trail::Trail;
use lapwing_stage::{Agent, Hosts, Settings, skipped};
use serde_json::Value;

use crate::act::Act;
use crate::acts::{FILES, ORDER, PROGRAM, THERE, TRAIL};
use crate::alerts::Alerts;
use crate::deed::{TAMPERED, Words};
use crate::form::{Disk, Form, refusing, sinks};
use crate::place::{Groups, MEMORY_HIGH_BYTES, Place};

/// Set by `cargo xtask test --abuse`: the acts run in full.
const WHOLE: &str = "LAPWING_TEST_ABUSE";
/// The path of an optimised agent, which replaces the one that was built with these tests.
const AGENT: &str = "LAPWING_TEST_AGENT";
/// Maximum time until the alert about the other user's shell.
const ALERT_WITHIN: Duration = Duration::from_secs(30);
/// Maximum time of a status request: of an optimised agent, and of another one on a busy machine.
const STATUS_WITHIN: Duration = Duration::from_secs(1);
const STATUS_WITHIN_UNOPTIMISED: Duration = Duration::from_secs(5);
/// Maximum time of a restart, with everything that the act left behind.
const START_WITHIN: Duration = Duration::from_secs(5);
/// Maximum time to read the files of a trail.
const READ_WITHIN: Duration = Duration::from_secs(120);
/// How long the test waits for the alert about a shell before it starts another.
const TRY: Duration = Duration::from_secs(2);
/// The pause between two shells during an act in the full form.
const PAUSE: Duration = Duration::from_secs(5);
/// How often a disk is filled, in the short and in the full form.
const FULL_ROUNDS: [u64; 2] = [2, 12];
/// Maximum time until the alert about tampering.
const TAMPERED_WITHIN: Duration = Duration::from_secs(10);
/// The size of the disk that is filled, in mount's syntax.
const DISK_SIZE: &str = "32m";
/// The attacking user, and the user whose shell must be detected.
pub(crate) const ATTACKER: u32 = 65_534;
const OTHER: u32 = 1_042;
/// The rule that matches the shell.
const REVERSE_SHELL: &str = "Potential Reverse Shell via Suspicious Child Process";

/// Floods run one after the other, because every agent on the host sees all of them.
static TURN: Mutex<()> = Mutex::new(());

/// An action of root against an agent, with the paths of its program and its rules.
type Deed = fn(&Agent, &Path, &Path) -> Words;

/// A row of the table.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) act: &'static str,
    pub(crate) short: u32,
    pub(crate) whole: u32,
    pub(crate) place: Place,
    pub(crate) form: Form,
}

/// Runs a row: in the short form in its place, or in the full form in both places.
pub(crate) fn run(row: &Row) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    if std::env::var_os(WHOLE).is_none() {
        return run_in(row, row.place, false);
    }
    // A failure in one place must not skip the other.
    let fails = |place: &Place| catch_unwind(|| run_in(row, *place, true)).is_err();
    let failed: Vec<_> = [Place::Unit, Place::Session].into_iter().filter(fails).collect();
    assert!(failed.is_empty(), "{}: it fails in {failed:?}", row.name);
}

/// Runs a row in one place, and checks the agent.
fn run_in(row: &Row, place: Place, is_whole: bool) {
    let start = Instant::now();
    let mut stage = Stage::new(row, place);
    let mut act = stage.act(row, if is_whole { row.whole } else { row.short });
    std::thread::sleep(Duration::from_millis(300));
    if row.form.has_a_full_disk() {
        stage.shells_on_a_full_disk(FULL_ROUNDS[usize::from(is_whole)]);
    }
    stage.shell_is_found();
    while is_whole && !act.is_over() {
        std::thread::sleep(PAUSE);
        stage.shell_is_found();
    }
    act.wait();
    stage.trail_is_read();
    // The shells of the act are over now. One more shows that the sensor is not blind afterwards.
    stage.shell_is_found();
    stage.lives_and_answers();
    stage.is_small();
    if is_whole {
        stage.starts_again();
    }
    drop(act);
    say(&format!("{place:?} {}: {} s, {}", row.name, start.elapsed().as_secs(), stage.seen.summary()));
}

/// Runs an action of root against the sensor. Checks that it is detected, that the sensor recovers or reports the
/// fault, and the agent as after an act.
pub(crate) fn tamper(name: &'static str, deed: Deed, is_short: bool) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    if !is_short && std::env::var_os(WHOLE).is_none() {
        return;
    }
    let (place, form) = (Place::Unit, Form::Tampered);
    let mut stage = Stage::new(&Row { name, act: "", short: 0, whole: 0, place, form }, place);
    stage.files_are_read();
    stage.shell_is_found();
    let [rules, programs] = &stage.folders;
    let Some(words) = deed(&stage.agent, &programs.path().join("lapwing"), rules.path()) else {
        return skipped("this kernel or machine has nothing to do it to");
    };
    let took = stage.tampering_is_found(words);
    stage.shell_is_found();
    stage.lives_and_answers();
    stage.is_small();
    say(&format!("{name}: alerted within {took:.1?}, {}", stage.seen.summary()));
}

/// The measurements.
#[derive(Default)]
struct Seen {
    shells: u32,
    tries_max: u32,
    alert_max: Duration,
    status_max: Duration,
    held_kib: u64,
    lost: u64,
    start: Option<Duration>,
}

impl Seen {
    fn summary(&self) -> String {
        let start = self.start.map_or(String::new(), |start| format!(", started again in {start:.1?}"));
        format!(
            "{} shells alerted within {:.1?} and {} tries, status within {:.0?}, at most {} MiB, {} records lost{start}",
            self.shells,
            self.alert_max,
            self.tries_max,
            self.status_max,
            self.held_kib / 1024,
            self.lost
        )
    }
}

struct Stage {
    agent: Agent,
    alerts: Alerts,
    hosts: Hosts,
    program: PathBuf,
    name: String,
    trail: Option<Trail>,
    disk: Option<Disk>,
    seen: Seen,
    groups: [Groups; 2],
    /// The folder of rules and the folder of programs.
    folders: [tempfile::TempDir; 2],
}

impl Stage {
    fn new(row: &Row, place: Place) -> Self {
        let rules = row.form.rules();
        let disk = row.form.has_a_full_disk().then(|| Disk::new(DISK_SIZE));
        let trail = (row.form == Form::Trail).then(|| Trail::new().expect("a trail"));
        let optimised = std::env::var(AGENT).ok();
        let name = format!("lapwing-abuse-{}-{}", std::process::id(), row.name);
        let groups =
            [Groups::of_the_agent(place, &name, optimised.is_some()), Groups::of_the_act(place, &name)];
        let mut configuration = trail.as_ref().map(Trail::configuration).unwrap_or_default();
        if disk.is_some() {
            configuration += &sinks(refusing());
        }
        let programs = tempfile::tempdir().unwrap();
        fs::set_permissions(programs.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut agent: PathBuf = optimised.unwrap_or_else(|| env!("CARGO_BIN_EXE_lapwing").to_owned()).into();
        if row.form == Form::Tampered {
            configuration += "sensor.udp = true\n";
            let copy = programs.path().join("lapwing");
            fs::copy(std::mem::replace(&mut agent, copy.clone()), copy).unwrap();
        }
        let settings = Settings {
            program: agent,
            rules: rules.path().to_owned(),
            launcher: groups[0].launcher(),
            configuration,
            ..Settings::default()
        };
        let parent = disk.as_ref().map_or_else(std::env::temp_dir, |disk| disk.path().to_owned());
        let agent = Agent::start_in(&parent, settings).expect("an agent");
        let program = programs.path().join("nc");
        fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        let mut stage = Self {
            alerts: Alerts::new(agent.alert_log()),
            agent,
            hosts: Hosts::new().expect("hosts in network namespaces"),
            program,
            name: format!("{place:?} {}", row.name),
            trail,
            disk,
            seen: Seen::default(),
            groups,
            folders: [rules, programs],
        };
        if row.form == Form::FullBefore {
            stage.starts_on_a_full_disk();
        }
        stage
    }

    /// Starts the act on the attacked host.
    fn act(&self, row: &Row, count: u32) -> Act {
        // Not `ip netns exec`: it hides the control groups.
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.hosts.near.network().display())).args(self.groups[1].launcher());
        command.arg(&self.program);
        command.env(ORDER, format!("{};{count};{} 4444", row.act, self.hosts.far.address()));
        command.env(PROGRAM, &self.program);
        command.envs(self.trail.iter().map(|trail| (TRAIL, trail.folder())));
        if self.groups[1].is_session() {
            command.process_group(0);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("the act");
        Act::new(child, self.program.with_file_name(THERE))
    }

    /// A shell of another user connects out to this port.
    fn other_shell(&self, port: u16) {
        let connect = format!("{} -e /bin/true {} {port}", self.program.display(), self.hosts.far.address());
        let mut command = self.hosts.near.command("nice");
        let user = OTHER.to_string();
        // The highest priority: the test is about the sensor, not about the scheduling of this shell.
        command.args(["-n", "-20", "setpriv", "--reuid", &user, "--regid", &user, "--clear-groups"]);
        command.args(["sh", "-c", &format!("{connect}; exit $?")]);
        command.env(ORDER, format!("connect;1;{} {port}", self.hosts.far.address()));
        let _ = command.status().expect("ip");
    }

    /// Checks that the next shell of the other user raises an alert in time. On a busy host the time between shell and
    /// connection may exceed the rule's `maxspan`; then the test tries again.
    fn shell_is_found(&mut self) {
        let port = 4_000 + u16::try_from(self.seen.shells).expect("few shells");
        self.seen.shells += 1;
        let (start, mut tried, mut tries) = (Instant::now(), None, 0);
        while !self.has_come(port) {
            assert!(
                start.elapsed() < ALERT_WITHIN,
                "{}: no alert about the other user's shell in {ALERT_WITHIN:?}, {tries} tries; the agent's log:\n{}",
                self.name,
                self.agent.log()
            );
            if tried.is_none_or(|tried: Instant| tried.elapsed() > TRY) {
                self.other_shell(port);
                (tried, tries) = (Some(Instant::now()), tries + 1);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.seen.alert_max = self.seen.alert_max.max(start.elapsed());
        self.seen.tries_max = self.seen.tries_max.max(tries);
    }

    fn has_come(&mut self, port: u16) -> bool {
        let other = OTHER.to_string();
        let is_it = |alert: &Value| {
            alert["destination"]["port"] == port && alert["user"]["id"].as_str() == Some(&other)
        };
        self.alerts.with(REVERSE_SHELL).iter().any(is_it)
    }

    /// Runs shells while the disk has no room, or so little that each time another write fails. Checks that the agent
    /// answers, and that the alerts come when there is room again.
    fn shells_on_a_full_disk(&mut self, rounds: u64) {
        for round in 0..rounds {
            self.disk.iter().for_each(|disk| disk.fill_but(round * round));
            self.other_shell(3_000);
            std::thread::sleep(Duration::from_secs(1));
            self.lives_and_answers();
            self.disk.iter().for_each(Disk::free);
            self.shell_is_found();
        }
    }

    /// Checks that the agent starts on a full disk, with and without the state of an earlier run.
    fn starts_on_a_full_disk(&mut self) {
        for has_state in [true, false] {
            self.agent.stop().expect("an end");
            if !has_state {
                fs::remove_dir_all(self.agent.folder().join("state")).unwrap();
            }
            self.disk.iter().for_each(|disk| disk.fill_but(0));
            self.agent.start_again().expect("an agent on a full disk");
            self.lives_and_answers();
            self.disk.iter().for_each(Disk::free);
            self.shell_is_found();
        }
    }

    /// Waits until the agent has hashed its files, so that it can detect a change by the hash.
    fn files_are_read(&self) {
        let read = lapwing_stage::until("the first look at files", ALERT_WITHIN, || {
            let looks = self.agent.status()?["lanes"][0]["source"]["files"]["scans"].as_u64();
            Ok(looks.filter(|looks| *looks > 0))
        });
        read.unwrap_or_else(|error| panic!("{}: {error}:\n{}", self.name, self.agent.log()));
    }

    /// Checks that tampering raises an alert in time, and is in the status.
    fn tampering_is_found(&mut self, words: &str) -> Duration {
        let start = Instant::now();
        let is_it =
            |alert: &Value| alert["event"]["reason"].as_str().is_some_and(|reason| reason.contains(words));
        while !self.alerts.with(TAMPERED).iter().any(is_it) {
            let log = || self.agent.log();
            assert!(start.elapsed() < TAMPERED_WITHIN, "{}: no alert with `{words}`:\n{}", self.name, log());
            std::thread::sleep(Duration::from_millis(20));
        }
        let took = start.elapsed();
        let status = self.agent.command("status").output().expect("a status");
        assert_eq!(status.status.code(), Some(1), "{}", self.name);
        took
    }

    /// Checks that the files of the trail were read or quarantined.
    fn trail_is_read(&self) {
        if self.trail.is_none() {
            return;
        }
        let read = lapwing_stage::until("that the trail is read", READ_WITHIN, || {
            let status = self.agent.status()?;
            let lanes = status["lanes"].as_array().cloned().unwrap_or_default();
            let counts = ["files_read", "files_quarantined"];
            let count = |lane: &Value| {
                counts.map(|name| lane["source"][name].as_u64().unwrap_or(0)).iter().sum::<u64>()
            };
            Ok((lanes.iter().map(count).sum::<u64>() >= FILES as u64).then_some(()))
        });
        read.unwrap_or_else(|error| panic!("{}: {error}:\n{}", self.name, self.agent.log()));
    }

    /// Checks that the agent has not been restarted, and that its status comes in time.
    fn lives_and_answers(&mut self) {
        let pid = self.agent.pid();
        let lives = Path::new(&format!("/proc/{pid}/exe")).exists();
        assert!(lives, "{}: the agent lives:\n{}", self.name, self.agent.log());
        let start = Instant::now();
        let status = self.agent.status().expect("a status");
        let took = start.elapsed();
        let within =
            if std::env::var_os(AGENT).is_some() { STATUS_WITHIN } else { STATUS_WITHIN_UNOPTIMISED };
        assert!(took < within, "{}: the status took {took:?}", self.name);
        assert!(status["pid"].as_u64() == Some(pid.into()), "{status}");
        self.seen.status_max = self.seen.status_max.max(took);
        let records = status["lanes"][0]["source"]["records"].as_array().cloned().unwrap_or_default();
        self.seen.lost = records.iter().filter_map(|kind| kind["lost"].as_u64()).sum();
    }

    /// Checks that the agent's memory is below the unit's limit from which the kernel reclaims pages.
    fn is_small(&mut self) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.agent.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(kib * 1024 < MEMORY_HIGH_BYTES, "{}: the agent held {kib} KiB", self.name);
        self.seen.held_kib = self.seen.held_kib.max(kib);
    }

    /// Checks that the agent ends, and starts again with everything that the act left, on disk and as processes.
    fn starts_again(&mut self) {
        self.agent.stop().expect("an end");
        let start = Instant::now();
        self.agent.start_again().expect("an agent again");
        let took = start.elapsed();
        assert!(took < START_WITHIN, "{}: the start took {took:?}", self.name);
        self.seen.start = Some(took);
        self.shell_is_found();
        self.lives_and_answers();
        self.is_small();
    }
}

fn say(line: &str) {
    // Shown by the harness beside the test's name.
    let _ = std::io::Write::write_fmt(&mut std::io::stdout(), format_args!("{line}\n"));
}
