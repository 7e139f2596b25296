//! Interference with the files of the sensor, by root: each is an alert, and `lapwing status` ends with 1 until it is
//! resolved. What an administrator does is an event of low severity.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use lapwing_stage::{Agent, Alert, Settings};

use crate::alerts::value;
use crate::deed::{self, TAMPERED, append};

/// How soon an alert must be there, and how soon the status must be well again.
const SOON: Duration = Duration::from_secs(10);
const CHANGED: &str = "Sensor files changed";

/// Held by each test, and alone by that of the package manager: what happens while one is at work may be taken for its
/// work.
static TURN: RwLock<()> = RwLock::new(());

/// An agent whose program and rules are copies, so that they can be changed.
struct Stage {
    agent: Agent,
    folder: tempfile::TempDir,
    _turn: Option<RwLockReadGuard<'static, ()>>,
}

fn stage() -> Stage {
    let turn = TURN.read().unwrap_or_else(PoisonError::into_inner);
    stage_in(Some(turn))
}

fn stage_in(turn: Option<RwLockReadGuard<'static, ()>>) -> Stage {
    let folder = tempfile::tempdir().unwrap();
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let rules = folder.path().join("rules");
    fs::create_dir(&rules).unwrap();
    for name in ["reverse_shell.toml", "imds_request.toml"] {
        fs::copy(project.join("packaging/rules").join(name), rules.join(name)).unwrap();
    }
    let program = folder.path().join("lapwing");
    fs::copy(crate::agent::binary(), &program).unwrap();
    let settings = Settings { program, rules, ..Settings::default() };
    let stage = Stage { agent: Agent::start(settings).expect("an agent"), folder, _turn: turn };
    // The first look at everything comes after all was read.
    stage.until("the first scan", || stage.files("scans") > 0);
    stage
}

impl Stage {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `lapwing status`, by a program that is no one's to change.
    fn status(&self) -> std::process::Output {
        let mut status = Command::new(crate::agent::binary());
        status.args(["status", "--json", "--config"]).arg(self.agent.folder().join("lapwing.toml"));
        status.output().unwrap()
    }

    fn source(&self) -> serde_json::Value {
        let status: serde_json::Value = serde_json::from_slice(&self.status().stdout).unwrap();
        status["lanes"][0]["source"].clone()
    }

    fn files(&self, name: &str) -> u64 {
        self.source()["files"][name].as_u64().unwrap_or(0)
    }

    fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let start = Instant::now();
        while !is_so() {
            assert!(
                start.elapsed() < 2 * SOON,
                "{what}: {}\n{}",
                self.source()["tampered"],
                self.agent.log()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits for the alert whose reason contains this text.
    fn alert(&self, rule: &str, words: &str) -> Alert {
        let is_it = |alert: &Alert| alert.rule() == rule && alert.text("/event/reason").contains(words);
        self.agent.wait_for_within(words, 0, SOON, is_it).unwrap()
    }

    /// Whether `lapwing status` ends with 0.
    fn is_well(&self) -> bool {
        self.status().status.success()
    }

    /// There is an alert of high severity, and the status ends with 1.
    fn is_tampered(&self, words: &str) -> Alert {
        let alert = self.alert(TAMPERED, words);
        assert_eq!(value(&alert, "lapwing.alert.severity"), "high");
        assert!(!self.is_well(), "{}", self.source()["tampered"]);
        alert
    }
}

/// Another program is put into the place of the agent's. Resolved when the agent's own is there again.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn the_binary_is_replaced() {
    let stage = stage();
    let (program, kept) = (stage.path("lapwing"), stage.path("kept"));
    fs::copy(&program, &kept).unwrap();
    let words = deed::replace_the_binary(&program).unwrap();
    let alert = stage.is_tampered(words);
    let reason = alert.text("/event/reason");
    assert_eq!(reason.matches("SHA-256 ").count(), 2, "{reason}");
    fs::rename(&kept, &program).unwrap();
    stage.until("it is well again", || stage.is_well());
}

/// The agent's program is deleted.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn the_binary_is_deleted() {
    let stage = stage();
    let program = stage.path("lapwing");
    fs::rename(&program, stage.path("kept")).unwrap();
    stage.is_tampered("was removed");
    fs::rename(stage.path("kept"), &program).unwrap();
    stage.until("it is well again", || stage.is_well());
}

/// A rule, the configuration: edited, removed, added, and set right.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn rules_and_configuration_are_edited() {
    type Deed = fn(&Path);
    let stage = stage();
    let rule = stage.path("rules/reverse_shell.toml");
    for (path, deed, words) in [
        (rule.clone(), (|path| _ = deed::edit_a_rule(path.parent().unwrap())) as Deed, "rule file"),
        (rule, |path| fs::remove_file(path).unwrap(), "was removed"),
        (stage.agent.folder().join("lapwing.toml"), |path| append(path, "# x\n"), "the configuration file "),
    ] {
        let before = fs::read(&path).unwrap();
        deed(&path);
        stage.is_tampered(words);
        fs::write(&path, before).unwrap();
        stage.until(words, || stage.is_well());
    }
    let added = stage.path("rules/added.toml");
    fs::write(&added, "x").unwrap();
    stage.is_tampered("was added");
    fs::remove_file(&added).unwrap();
    stage.until("added", || stage.is_well());
}

/// The alert log is deleted, and emptied: the alert about it is in the new one.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn the_alert_log_is_deleted() {
    let stage = stage();
    deed::delete_the_log(&stage.agent);
    stage.is_tampered("was deleted, or moved away");
    fs::write(stage.agent.alert_log(), "").unwrap();
    stage.is_tampered("was truncated");
}

/// The log is renamed as logrotate does it: that is in order, and nothing is lost by it.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn the_alert_log_is_rotated_by_others() {
    let stage = stage();
    let log = stage.agent.alert_log();
    fs::rename(&log, log.with_extension("ndjson.1")).unwrap();
    stage.agent.signal("HUP").unwrap();
    stage.until("a new log", || log.exists());
    std::thread::sleep(SOON);
    let is_about_it = |alert: &Alert| alert.rule() == TAMPERED;
    assert!(
        stage.is_well() && !stage.agent.alerts().unwrap().iter().any(is_about_it),
        "{}",
        stage.agent.log()
    );
}

/// The store is deleted, which a restart mends.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn the_store_is_deleted() {
    let mut stage = stage();
    deed::delete_the_store(&stage.agent);
    let alert = stage.is_tampered("was deleted, or moved away");
    assert!(alert.text("/event/reason").contains("restart the service"), "{}", alert.text("/event/reason"));
    stage.agent.stop().unwrap();
    stage.agent.start_again().unwrap();
    assert!(stage.is_well(), "{}", stage.source()["tampered"]);
}

/// A package that holds the file is installed: no interference, but an event with who and with the hashes.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_package_manager_changes_a_rule() {
    let has = |program: &str| Path::new("/usr/bin").join(program).exists();
    if !has("dpkg") || !has("dpkg-deb") {
        return lapwing_stage::skipped("it needs dpkg");
    }
    let _alone = TURN.write().unwrap_or_else(PoisonError::into_inner);
    let stage = stage_in(None);
    let rule = stage.path("rules/reverse_shell.toml");
    let tree = stage.path("package");
    let inside = tree.join(rule.strip_prefix("/").unwrap());
    fs::create_dir_all(inside.parent().unwrap()).unwrap();
    fs::create_dir(tree.join("DEBIAN")).unwrap();
    fs::set_permissions(tree.join("DEBIAN"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::copy(&rule, &inside).unwrap();
    append(&inside, "# of the next version\n");
    let control = "Package: lapwing-test\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.invalid>\nDescription: x\n";
    fs::write(tree.join("DEBIAN/control"), control).unwrap();
    let package = stage.path("x.deb");
    let built = Command::new("dpkg-deb").arg("--build").args([&tree, &package]).output().unwrap();
    assert!(built.status.success(), "{built:?}");
    let database = stage.path("database");
    fs::create_dir_all(database.join("updates")).unwrap();
    fs::create_dir(database.join("info")).unwrap();
    fs::write(database.join("status"), "").unwrap();
    let mut install = Command::new("dpkg");
    install
        .args(["--force-all", "--no-triggers", "--admindir"])
        .arg(&database)
        .arg("--install")
        .arg(&package);
    let installed = install.output().unwrap();
    let text = fs::read_to_string(&rule).unwrap();
    assert!(text.ends_with("# of the next version\n"), "{}", String::from_utf8_lossy(&installed.stderr));
    let alert = stage.alert(CHANGED, "a package manager");
    assert_eq!(value(&alert, "lapwing.alert.severity"), "low");
    assert_eq!(value(&alert, "event.action"), "sensor_files_changed");
    assert_eq!(alert.text("/event/reason").matches("SHA-256 ").count(), 2, "{}", alert.text("/event/reason"));
    assert!(stage.is_well(), "{}", stage.source()["tampered"]);
    assert_eq!(stage.source()["files_changed"].as_array().map(Vec::len), Some(1));
}

/// A rule is edited while no agent runs: the next one says that it was another in the previous run.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_rule_is_edited_between_two_runs() {
    let mut stage = stage();
    stage.agent.stop().unwrap();
    deed::edit_a_rule(&stage.path("rules"));
    stage.agent.start_again().unwrap();
    let alert = stage.alert(CHANGED, "in the previous run");
    assert_eq!(value(&alert, "lapwing.alert.severity"), "low");
    assert_eq!(alert.text("/event/reason").matches("SHA-256 ").count(), 2, "{}", alert.text("/event/reason"));
    assert!(stage.is_well(), "{}", stage.source()["tampered"]);
}
