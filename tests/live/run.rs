//! The account of records, and how the agent starts and stops.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::act;
use crate::agent::{DEADLINE, all, binary, events, events_by, field, is, of, ready};
use crate::filter::hooks;

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_raw(child.id().try_into().unwrap()).unwrap(), signal).unwrap();
}

/// Starts an agent of its own and waits for its first event.
fn start(mut events: Command) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = events.spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    out.read_line(&mut first).unwrap();
    assert!(first.contains("already_running"), "{first}");
    (child, out)
}

/// Every record is either read or reported as lost: here the agent is held while far more is recorded than has room.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn lost_records_are_counted_and_reported() {
    ready();
    // With the smallest rings, for the other tests' agent sees all this too: each time it is waited until it has caught
    // up.
    let config = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(config.path(), format!("sensor.ring_size = \"256 KiB\"\n{}", hooks())).unwrap();
    let (mut child, mut out) = start(events_by(config.path()));
    signal(&child, Signal::STOP);
    for _ in 0..2 {
        // Few records that fill it, for each becomes an event of the other agent.
        let argument = [b'a'; 32 * 1024];
        let mut last = 0;
        for _ in 0..8 {
            last = act::run("/bin/true", &[b"true", &argument]);
        }
        of("exec", last);
    }
    signal(&child, Signal::CONT);
    let found = std::thread::spawn(move || {
        let mut found = 0;
        let mut line = String::new();
        while out.read_line(&mut line).unwrap() > 0 {
            let event: Value = serde_json::from_str(&line).unwrap();
            if event["event"]["action"] == "records_lost" {
                found += field(&event, "lapwing.lost.records").as_u64().unwrap();
                assert_eq!(event["event"]["category"][0], "host");
            }
            line.clear();
        }
        found
    });
    // It looks for losses every second, and once more at its end.
    signal(&child, Signal::TERM);
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success());
    let line = said.lines().find(|line| line.starts_with("records: ")).expect("the account at the end");
    let numbers: Vec<u64> =
        line.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect();
    let [seen, read, lost, _late] = numbers[..] else { panic!("{line}") };
    assert!(lost > 0, "{line}");
    assert_eq!(seen, read + lost, "{line}");
    assert_eq!(found.join().unwrap(), lost);
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_closed_pipe_ends_it() {
    let (mut child, out) = start(events());
    drop(out);
    let start = Instant::now();
    loop {
        // Something happens, so that it writes and finds the pipe closed: now and then, for the other tests' agent sees
        // it too.
        let _ = Command::new("/bin/true").status();
        std::thread::sleep(Duration::from_millis(100));
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            return;
        }
        assert!(start.elapsed() < DEADLINE, "it still runs");
    }
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn without_privileges_it_says_what_is_missing() {
    let mut command = Command::new(binary());
    command.arg("events").uid(65534).gid(65534).stdin(Stdio::null());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("CAP_BPF is missing: run as root"), "{said}");
}

/// A kernel that does not describe its types is refused in one line that says what cures it.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn without_btf_it_says_which_kernels_have_it() {
    let mut command = Command::new("unshare");
    let script = "mount -t tmpfs none /sys/kernel/btf && exec \"$1\" events";
    command.args(["--mount", "sh", "-c", script, "sh", binary()]).stdin(Stdio::null());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("/sys/kernel/btf/vmlinux") && said.contains("CONFIG_DEBUG_INFO_BTF=y"), "{said}");
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn processes_that_ran_before_are_reported_first() {
    ready();
    let own = std::process::id();
    of("already_running", own);
    let found = all(|event| is(event, "already_running", own));
    assert_eq!(found.len(), 1);
    let event = &found[0];
    assert_eq!(event["event"]["type"][0], "info");
    assert_eq!(event["process"]["executable"], std::env::current_exe().unwrap().to_str().unwrap());
    // The same process by a record has the same name.
    let child = of("fork", act::forked(|| 0).0);
    assert_eq!(field(&child, "process.parent.entity_id"), field(event, "process.entity_id"));
}
