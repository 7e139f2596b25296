//! The hash in an alert: files that are put in the program's place, changed, too large, or many.

use std::env;
use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use lapwing_stage::{Agent, Alert, Settings, skipped};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::act::{Folder, true_path};
use crate::alerts::{REVERSE_SHELL, alerts_by, value};

/// How the attacker's program is put into a folder of its own and run there.
const PUT: &str =
    "set -- PROGRAM; rm -f DIR/nc; cp \"$1\" DIR/nc; cp /bin/true DIR/good; shift; sleep 0.1; DIR/nc \"$@\"";

/// The alert about the attacker's program, run by a script in which `DIR` is a folder.
fn alert(technique: &str, folder: &Folder, script: &str) -> Alert {
    let script = script.replace("DIR", folder.0.to_str().unwrap());
    alerts_by(&script, technique, &[REVERSE_SHELL]).remove(0)
}

fn hash(path: impl AsRef<Path>) -> String {
    Sha256::digest(fs::read(path).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Asserts that the alert has the hash of the attacker's program, or says why it has none; and that of the other file in
/// no place.
#[track_caller]
fn assert_own_or_none(alert: &Alert) {
    match value(alert, "process.hash.sha256").as_str() {
        Some(found) => assert_eq!(found, hash(env::current_exe().unwrap())),
        None => {
            assert!(value(alert, "lapwing.process.hash_skipped").is_string(), "{:#}", alert.document);
            assert_eq!(value(alert, "lapwing.process.context"), "partial");
        }
    }
    assert!(value(alert, "process.executable").as_str().unwrap().ends_with("/nc"), "{:#}", alert.document);
    assert!(!alert.document.to_string().contains(&hash(true_path())), "{:#}", alert.document);
}

/// An attacker's program connects, puts a harmless file in its own place and runs it by the same path with the same
/// arguments. Seen: the hash of the program that connected, or none, and never the harmless one's.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn replaced_by_a_harmless_file() {
    let folder = Folder::new();
    let script = PUT.replace("cp /bin/true DIR/good", "cp \"$1\" DIR/good; echo >> DIR/good");
    let alert = alert("swap", &folder, &format!("{script}; exit $?"));
    assert_own_or_none(&alert);
}

/// An attacker writes a harmless program into the very file, as soon as his has ended. Seen: the same.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn overwritten_by_a_harmless_file() {
    let folder = Folder::new();
    assert_own_or_none(&alert("thread", &folder, &format!("{PUT}; cat /bin/true > DIR/nc; exit $?")));
}

/// An attacker's program has the path and the inode's number of a harmless file of the host, on a device of his own.
/// Seen: the same.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn by_the_same_inode_number_on_another_device() {
    let folder = Folder::new();
    let mount = |what: &str| Command::new("mount").args(["-t", "tmpfs", what]).arg(&folder.0).status();
    if !mount("harmless").is_ok_and(|status| status.success()) {
        return skipped("no file system can be mounted");
    }
    fs::copy("/bin/true", folder.0.join("nc")).unwrap();
    let script = "set -- PROGRAM; export FROM=\"$1\"; shift; unshare -Urm sh -c '\
        mount -t tmpfs own DIR && cp \"$FROM\" DIR/nc && sleep 0.1 && DIR/nc \"$@\"; exit $?' sh \"$@\"; exit $?";
    let alert = std::panic::catch_unwind(|| alert("thread", &folder, script));
    let _ = Command::new("umount").arg(&folder.0).status();
    assert_own_or_none(&alert.unwrap());
}

/// An attacker's program lies in an overlay that he has mounted, below which may lie what shows each reader something
/// else. Seen: that the file cannot be identified.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn in_an_overlay_of_ones_own() {
    let folder = Folder::new();
    let mount = "cd DIR && mkdir -p l u w m && mount -t overlay own -o lowerdir=l,upperdir=u,workdir=w m"
        .replace("DIR", folder.0.to_str().unwrap());
    let tried = Command::new("unshare").args(["-Urm", "sh", "-c", &mount]).status();
    if !tried.is_ok_and(|status| status.success()) {
        return skipped("users cannot mount overlays here");
    }
    let script = format!(
        "set -- PROGRAM; export FROM=\"$1\"; shift; unshare -Urm sh -c '{mount} && cp \"$FROM\" m/nc && sleep 0.1 && \
         m/nc \"$@\"; exit $?' sh \"$@\"; exit $?"
    );
    let alert = alert("thread", &folder, &script);
    assert_eq!(value(&alert, "process.hash.sha256"), &Value::Null);
    assert_eq!(value(&alert, "lapwing.process.hash_skipped"), "cannot be distinguished from other files");
}

/// An attacker ends the first thread of his program, whose number is the process's, so that `/proc` shows nothing there.
/// Seen: the program's hash.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn after_the_first_thread_has_ended() {
    let folder = Folder::new();
    let alert = alert("first thread ended", &folder, &format!("{PUT}; exit $?"));
    assert_eq!(value(&alert, "process.hash.sha256"), &hash(env::current_exe().unwrap()));
    assert_eq!(value(&alert, "lapwing.process.hash_skipped"), &Value::Null);
}

/// An attacker's program is too large to be hashed. Seen: that it is.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn too_large() {
    let folder = Folder::new();
    let script = PUT.replace("shift;", "truncate -s 65M DIR/nc; shift;");
    let alert = alert("thread", &folder, &format!("{script}; exit $?"));
    assert_eq!(value(&alert, "process.hash.sha256"), &Value::Null);
    assert_eq!(value(&alert, "lapwing.process.hash_skipped"), "larger than 64 MiB");
    assert_eq!(value(&alert, "lapwing.process.context"), "partial");
}

/// How many alerts a second are raised about large files, and for how long: in the short form, and whole, by
/// `cargo xtask test --abuse`, which names an optimised agent.
const ALERTS_PER_SECOND: u64 = 20;
const SECONDS: u64 = 1;
const WHOLE_SECONDS: u64 = 60;
const WHOLE: &str = "LAPWING_TEST_ABUSE";
const AGENT: &str = "LAPWING_TEST_AGENT";
/// In the whole form no alert waits longer for its evidence: a quarter of a second and a thread's turn.
const WAIT_MS_MAX: u64 = 400;
/// The chains of processes that take turns, and how long each is.
const CHAINS: u64 = 16;
const LINKS: usize = 20;

/// The rule of a chain. Each has its own, for a rule raises so many alerts and no more.
const RULE: &str = r#"
[rule]
author = ["Lapwing"]
description = "The last program of a chain."
index = ["logs-endpoint.events.*"]
language = "eql"
max_signals = 1000
name = "Last of chain NUMBER"
risk_score = 47
rule_id = "lapwing-test-NUMBER"
severity = "medium"
type = "eql"
query = '''process where event.action == "exec" and process.name == "lapwing-last-NUMBER"'''
"#;

/// An attacker raises alert after alert about processes with twenty ancestors, each a file of its own that is large and
/// was just changed. Seen: every alert, soon, and of each process the hash or why it has none; and nothing is lost.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn with_large_ancestors() {
    let folder = Folder::new();
    fs::create_dir(folder.0.join("rules")).unwrap();
    for chain in 0..CHAINS {
        let rule = RULE.replace("NUMBER", &chain.to_string());
        fs::write(folder.0.join(format!("rules/{chain}.toml")), rule).unwrap();
    }
    let program = env::var_os(AGENT).unwrap_or_else(|| crate::agent::binary().into()).into();
    // All alerts are to stand in one file.
    let configuration = "alerts.rotate_size = \"1 GiB\"".to_owned();
    let agent = Agent::start(Settings {
        program,
        rules: folder.0.join("rules"),
        configuration,
        ..Settings::default()
    })
    .unwrap();
    (0..CHAINS).for_each(|chain| make_chain(&folder, chain));

    let is_whole = env::var_os(WHOLE).is_some();
    let count = ALERTS_PER_SECOND * if is_whole { WHOLE_SECONDS } else { SECONDS };
    let start = Instant::now();
    let mut running: Vec<Child> = Vec::new();
    for number in 0..count {
        let due = Duration::from_millis(number * 1000 / ALERTS_PER_SECOND);
        std::thread::sleep(due.saturating_sub(start.elapsed()));
        running.push(run_chain(&folder, number % CHAINS));
        running.retain_mut(|child| child.try_wait().unwrap().is_none());
    }
    for mut child in running {
        child.wait().unwrap();
    }
    let all = || {
        let alerts = agent.alerts()?;
        Ok((alerts.len() as u64 >= count).then_some(alerts))
    };
    let alerts = lapwing_stage::until("every alert", Duration::from_secs(120), all).unwrap();
    assert_eq!(alerts.len() as u64, count);
    let late = alerts.iter().map(check).max().unwrap();
    let status = agent.status().unwrap();
    let evidence = &status["lanes"][0]["evidence"];
    eprintln!("{count} alerts, {late:?} after their events at most: {evidence}");
    if is_whole {
        assert!(evidence["waited_ms_max"].as_u64().unwrap() < WAIT_MS_MAX, "{evidence}");
    }
    let lost = status["lanes"][0]["source"]["records"].as_array().unwrap().iter();
    assert_eq!(lost.filter_map(|kind| kind["lost"].as_u64()).sum::<u64>(), 0);
}

fn link(folder: &Folder, chain: u64, link: usize) -> (PathBuf, PathBuf) {
    let place = |kind: &str| folder.0.join(format!("{kind}-{chain}-{link}"));
    (place("program"), place("script"))
}

/// Shells, each a large file of its own, that run the next and wait for it.
fn make_chain(folder: &Folder, chain: u64) {
    let last = folder.0.join(format!("lapwing-last-{chain}"));
    fs::copy("/bin/true", &last).unwrap();
    let mut next = format!("{}; exit 0", last.display());
    for number in (0..LINKS).rev() {
        let (program, script) = link(folder, chain, number);
        fs::copy(Path::new("/bin/sh").canonicalize().unwrap(), &program).unwrap();
        File::options().write(true).open(&program).unwrap().set_len(64 << 20).unwrap();
        fs::write(&script, format!("{next}\n")).unwrap();
        next = format!("{} {}; exit 0", program.display(), script.display());
    }
}

/// Runs a chain, whose files are new to who knew them.
fn run_chain(folder: &Folder, chain: u64) -> Child {
    let (first, script) = link(folder, chain, 0);
    for number in 0..LINKS {
        let times = FileTimes::new().set_modified(SystemTime::now());
        File::open(link(folder, chain, number).0).unwrap().set_times(times).unwrap();
    }
    Command::new(first).arg(script).stdin(Stdio::null()).spawn().unwrap()
}

/// How late an alert came, of which every process has a hash or the reason why it has none.
fn check(alert: &Alert) -> Duration {
    let ancestors = value(alert, "lapwing.alert.ancestors").as_array().unwrap();
    assert!(ancestors.len() >= LINKS, "{}", ancestors.len());
    for process in ancestors.iter().chain([&alert.document]) {
        let has = |name: &str| crate::agent::field(process, name).is_string();
        assert!(
            has("process.hash.sha256") != has("lapwing.process.hash_skipped"),
            "a hash, or the reason why there is none: {process:#}"
        );
    }
    let time = |name: &str| value(alert, name).as_str().unwrap().parse::<Timestamp>().unwrap();
    time("event.created").duration_since(time("@timestamp")).try_into().unwrap_or_default()
}
