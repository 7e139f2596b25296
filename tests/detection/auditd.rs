//! Rules for auditd's events: the sensor's events in auditd's form.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::{fs, net};

use lapwing_stage::{Agent, Settings};
use tempfile::TempDir;

use crate::{PATIENCE, TURN};

/// The uid of `nobody`.
const NOBODY: u32 = 65_534;

const ROOT_SHELL: &str = "a root shell of another's";
const SHELL_CONNECTS: &str = "a root shell connects";
const OTHER_RULE: &str = "in the sensor's words";

/// Rules: name, language, type, query.
const RULES: [[&str; 4]; 3] = [
    [
        ROOT_SHELL,
        "kuery",
        "query",
        "data_stream.dataset:auditd_manager.auditd and event.category:process and event.action:(exec or executed) and \
         user.id:(* and not 0) and user.effective.id:0 and process.args:-p",
    ],
    [
        SHELL_CONNECTS,
        "eql",
        "eql",
        "sequence by process.pid \
         [process where event.action == \"executed\" and user.id != \"0\" and user.effective.id == \"0\"] \
         [network where event.action == \"connected-to\" and network.direction == \"egress\" and \
         destination.ip == \"127.0.0.1\" and process.name == \"lapwing-rootsh\"]",
    ],
    [
        OTHER_RULE,
        "eql",
        "eql",
        "process where event.action in (\"exec\", \"fork\", \"end\") and process.args == \"-p\"",
    ],
];

/// A folder with these rules, which read auditd's events only.
fn rules() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (number, [name, language, ty, query]) in RULES.iter().enumerate() {
        let text = format!(
            "[rule]\nrule_id = \"{number}\"\nname = \"{name}\"\ndescription = \"A test.\"\nseverity = \"low\"\n\
             risk_score = 21\ntype = \"{ty}\"\nlanguage = \"{language}\"\n\
             index = [\"auditbeat-*\", \"logs-auditd_manager.auditd-*\"]\nquery = '''{query}'''\n"
        );
        fs::write(folder.path().join(format!("{number}.toml")), text).expect("a rule");
    }
    folder
}

/// A set-user-id copy of the shell.
fn root_shell(folder: &Path) -> std::path::PathBuf {
    let shell = folder.join("lapwing-rootsh");
    fs::copy("/bin/bash", &shell).expect("a copy");
    chown(&shell, Some(0), None).expect("an owner");
    fs::set_permissions(&shell, fs::Permissions::from_mode(0o4755)).expect("the set-user-id bit");
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("a folder for all");
    shell
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn rules_for_auditd_match_events_in_auditd_form() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (rules, folder) = (rules(), tempfile::tempdir().expect("a folder"));
    let program = env!("CARGO_BIN_EXE_lapwing").into();
    let rules = rules.path().to_owned();
    let agent = Agent::start(Settings { program, rules, ..Settings::default() }).expect("an agent");
    let listener = net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    let port = listener.local_addr().expect("an address").port();
    let shell = root_shell(folder.path());
    // A file that was changed in the clock tick in which it ran is not hashed: its change time does not identify it.
    std::thread::sleep(std::time::Duration::from_millis(50));
    let mut command = Command::new(shell);
    command.args(["-p", "-c", &format!("exec 3<>/dev/tcp/127.0.0.1/{port}; exit $?")]);
    assert!(command.uid(NOBODY).gid(NOBODY).status().expect("bash").success());
    for rule in [ROOT_SHELL, SHELL_CONNECTS] {
        let alert = agent.wait_for_within(rule, 0, PATIENCE, |alert| alert.rule() == rule).expect("an alert");
        assert_eq!(alert.text("/user/id"), "65534", "{rule}");
        assert_eq!(alert.text("/user/effective/id"), "0", "{rule}");
        assert_eq!(alert.text("/process/name"), "lapwing-rootsh", "{rule}");
        // Ancestors, such as this test, may be too large to be hashed; the process itself is complete.
        assert_ne!(alert.text("/lapwing/process/context"), "unknown", "{rule}");
        assert_eq!(
            alert.text("/process/hash/sha256").len(),
            64,
            "{rule}: {}",
            alert.document["lapwing"]["process"]
        );
    }
    let printed = agent.alerts().expect("the log");
    assert!(printed.iter().all(|alert| alert.rule() != OTHER_RULE), "auditd has no such words");
}
