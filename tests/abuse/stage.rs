//! The agent under the unit's limits, the act beside it, and the shell of another user.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lapwing_stage::{Agent, Alert, Hosts, Settings, is_root, skipped};
use serde_json::Value;

use crate::acts::{ORDER, PROGRAM};

/// Set by `cargo xtask test --abuse`: the acts run whole.
const WHOLE: &str = "LAPWING_TEST_ABUSE";
/// Names another agent than the one that was built with these tests.
const AGENT: &str = "LAPWING_TEST_AGENT";
/// As the packaged unit has it.
const MEMORY_MAX_BYTES: u64 = 256 << 20;
/// How soon the other user's shell must be alerted.
const ALERT_WITHIN: Duration = Duration::from_secs(30);
/// How soon the status must come.
const STATUS_WITHIN: Duration = Duration::from_secs(1);
/// How long an act may take.
const ACT_WITHIN: Duration = Duration::from_secs(300);
/// The user who attacks, and the one whose shell must be seen.
pub(crate) const ATTACKER: u32 = 65_534;
const OTHER: u32 = 1_042;
/// The rule that the shell sets off.
const REVERSE_SHELL: &str = "Potential Reverse Shell via Suspicious Child Process";

/// What the agent has beside the packaged rules.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Nothing.
    Plain,
    /// A rule that learns command lines.
    Terms,
    /// Its folder, with log and store, on a file system that is full during the act.
    FullDisk,
}

/// A row of the table.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) act: &'static str,
    pub(crate) short: u32,
    pub(crate) whole: u32,
    pub(crate) form: Form,
}

/// A rule of our own: each distinct command line is a new term.
const TERMS: &str = r#"
[rule]
author = ["Lapwing"]
description = "Command lines that were not seen before."
index = ["logs-endpoint.events.*"]
language = "kuery"
name = "New command line"
risk_score = 1
rule_id = "lapwing-test-terms"
severity = "low"
type = "new_terms"
query = 'event.category:process and event.type:start and process.name:term'

[rule.new_terms]
field = "new_terms_fields"
value = ["process.command_line"]

[[rule.new_terms.history_window_start]]
field = "history_window_start"
value = "now-7d"
"#;

/// Does what a row says, and checks what must hold.
pub(crate) fn run(row: &Row) {
    static TURN: Mutex<()> = Mutex::new(());
    // Floods take turns, for every agent sees them all.
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    if !is_root() {
        return skipped("it needs root: an agent, control groups, network namespaces");
    }
    let count = if std::env::var_os(WHOLE).is_some() { row.whole } else { row.short };
    let stage = Stage::new(row);
    let pid = stage.agent.pid();
    let mut act = stage.act(row.act, count);
    std::thread::sleep(Duration::from_millis(500));
    if row.form == Form::FullDisk {
        stage.fill();
    }
    let needle = stage.other_shell(4_000);
    if row.form == Form::FullDisk {
        std::thread::sleep(Duration::from_secs(3));
        stage.answers();
        stage.free();
    }
    stage.found(row, needle);
    end(&mut act);
    // What was begun during the act is over by now; one more, to see that nothing stays blind.
    stage.found(row, stage.other_shell(4_001));
    assert!(
        Path::new(&format!("/proc/{pid}")).exists(),
        "{}: the agent lives:\n{}",
        row.name,
        stage.agent.log()
    );
    stage.answers();
    stage.is_small(row);
}

struct Stage {
    agent: Agent,
    hosts: Hosts,
    program: PathBuf,
    full: Option<Mount>,
    _group: Group,
    _folders: [tempfile::TempDir; 2],
}

impl Stage {
    fn new(row: &Row) -> Self {
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the project's folder");
        let rules = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(project.join("packaging/rules")).unwrap().flatten() {
            if entry.path().is_file() && !entry.path().to_string_lossy().ends_with(".test.toml") {
                fs::copy(entry.path(), rules.path().join(entry.file_name())).unwrap();
            }
        }
        let jobs = rules.path().join("jobs");
        fs::create_dir(&jobs).unwrap();
        for entry in fs::read_dir(project.join("packaging/rules/jobs")).unwrap().flatten() {
            fs::copy(entry.path(), jobs.join(entry.file_name())).unwrap();
        }
        if row.form == Form::Terms {
            fs::write(rules.path().join("terms.toml"), TERMS).unwrap();
        }
        let full = (row.form == Form::FullDisk).then(|| Mount::new("32m"));
        let group = Group::new(row.name);
        let binary = std::env::var(AGENT).unwrap_or_else(|_| env!("CARGO_BIN_EXE_lapwing").to_owned());
        let settings = Settings {
            program: binary.into(),
            rules: rules.path().to_owned(),
            launcher: group.launcher(),
            ..Settings::default()
        };
        let parent = full.as_ref().map_or_else(std::env::temp_dir, |mount| mount.path().to_owned());
        let agent = Agent::start_in(&parent, settings).expect("an agent");
        let programs = tempfile::tempdir().unwrap();
        open_to_all(programs.path());
        let program = programs.path().join("nc");
        fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        Self {
            agent,
            hosts: Hosts::new().expect("hosts in network namespaces"),
            program,
            full,
            _group: group,
            _folders: [rules, programs],
        }
    }

    /// Starts the act, on the host that is attacked.
    fn act(&self, act: &str, count: u32) -> Child {
        let far = format!("{} 4444", self.hosts.far.address());
        let mut command = self.hosts.near.command(&self.program.display().to_string());
        command.env(ORDER, format!("{act};{count};{far}")).env(PROGRAM, &self.program);
        command.stderr(Stdio::inherit()).spawn().expect("the act")
    }

    /// A shell of another user connects out. Returns its port.
    fn other_shell(&self, port: u16) -> u16 {
        let connect = format!("{} -e /bin/true {} {port}", self.program.display(), self.hosts.far.address());
        let mut command = self.hosts.near.command("nice");
        let user = OTHER.to_string();
        // The highest priority: what is tested is what the sensor sees, not whether this shell gets a processor.
        command.args(["-n", "-20", "setpriv", "--reuid", &user, "--regid", &user, "--clear-groups"]);
        command.args(["sh", "-c", &format!("{connect}; exit $?")]);
        command.env(ORDER, format!("connect;1;{} {port}", self.hosts.far.address()));
        let _ = command.status().expect("ip");
        port
    }

    /// Waits for the alert about the other user's shell. A busy host may keep shell and connection further apart than the
    /// rule looks back; then it is tried again.
    fn found(&self, row: &Row, port: u16) {
        let is_it =
            |alert: &Alert| alert.rule() == REVERSE_SHELL && alert.document["destination"]["port"] == port;
        let start = Instant::now();
        loop {
            if self.alerts().iter().any(is_it) {
                return;
            }
            assert!(
                start.elapsed() < ALERT_WITHIN,
                "{}: no alert about the other user's shell in {ALERT_WITHIN:?}; the agent's log:\n{}",
                row.name,
                self.agent.log()
            );
            std::thread::sleep(Duration::from_secs(2));
            self.other_shell(port);
        }
    }

    fn alerts(&self) -> Vec<Alert> {
        let text = fs::read_to_string(self.agent.alert_log()).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str(line).ok());
        lines.map(|document: Value| Alert { document, seen: std::time::SystemTime::now() }).collect()
    }

    /// The status answers, soon.
    fn answers(&self) {
        let start = Instant::now();
        let status = self.agent.status().expect("a status");
        let took = start.elapsed();
        assert!(took < STATUS_WITHIN, "the status took {took:?}");
        assert!(status["pid"].as_u64() == Some(self.agent.pid().into()), "{status}");
    }

    /// The agent's memory is below what the unit gives it.
    fn is_small(&self, row: &Row) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.agent.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(kib * 1024 < MEMORY_MAX_BYTES, "{}: the agent held {kib} KiB", row.name);
        let _ = std::io::Write::write_fmt(
            &mut std::io::stdout(),
            format_args!("{}: at most {} MiB\n", row.name, kib / 1024),
        );
    }

    fn fill(&self) {
        self.full.iter().for_each(Mount::fill);
    }

    fn free(&self) {
        self.full.iter().for_each(Mount::free);
    }
}

/// Waits until the act is over, or ends it.
fn end(act: &mut Child) {
    let start = Instant::now();
    while start.elapsed() < ACT_WITHIN {
        if act.try_wait().unwrap().is_some() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let _ = act.kill();
    let _ = act.wait();
}

fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A control group with the unit's limit of memory.
struct Group(PathBuf);

impl Group {
    fn new(name: &str) -> Self {
        let name = format!("lapwing-abuse-{}-{name}", std::process::id());
        let v1 = Path::new("/sys/fs/cgroup/memory");
        let (group, file) = if v1.is_dir() {
            (v1.join(&name), "memory.limit_in_bytes")
        } else {
            let root = Path::new("/sys/fs/cgroup");
            // It may be on already.
            let _ = fs::write(root.join("cgroup.subtree_control"), "+memory");
            (root.join(&name), "memory.max")
        };
        fs::create_dir(&group).unwrap();
        fs::write(group.join(file), MEMORY_MAX_BYTES.to_string()).unwrap();
        Self(group)
    }

    /// What starts a program in it.
    fn launcher(&self) -> Vec<String> {
        let script = format!("echo $$ > '{}/cgroup.procs'; exec \"$0\" \"$@\"", self.0.display());
        vec!["sh".to_owned(), "-c".to_owned(), script]
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The agent in it may still be ending.
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A small file system in memory.
struct Mount(tempfile::TempDir);

impl Mount {
    fn new(size: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={size},mode=0755");
        let status =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path()).status();
        assert!(status.unwrap().success(), "mount");
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn fill(&self) {
        // It ends with the disk.
        let _ = fs::write(self.path().join("filler"), vec![0_u8; 64 << 20]);
    }

    fn free(&self) {
        let _ = fs::remove_file(self.path().join("filler"));
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
