//! Liveness: whatever the disk, upstream and clients do, the watchdog is pinged, `lapwing status` answers, and the agent ends
//! in time.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use jiff::{Timestamp, ToSpan as _};
use lapwing_stage::trail::{Trail, key_upload};
use lapwing_stage::until;
use serde_json::Value as Json;

use crate::alerts::Small;
use crate::{LAPWING, PATIENCE, UPLOAD, project};

/// Watchdog timeout in microseconds.
const WATCHDOG_MICROS: &str = "2000000";
/// Maximum time until the agent has ended, with a margin for a busy machine.
const END: Duration = Duration::from_secs(12);

/// An agent in a folder, run as by a service manager.
struct Service {
    child: Child,
    manager: UnixDatagram,
    folder: std::path::PathBuf,
}

impl Service {
    fn start(folder: &Path, trail: &Trail, alerts: &Path, lines: &str) -> Self {
        let own = folder.display();
        let config = format!(
            "state_dir = \"{own}/state\"\nrules.paths = [\"{}\"]\nalerts.path = \"{}\"\n\
             control.socket = \"{own}/control.sock\"\nsensor.enabled = false\n{}{lines}\n",
            project().join("packaging/rules").display(),
            alerts.display(),
            trail.configuration(),
        );
        std::fs::write(folder.join("lapwing.toml"), config).expect("the configuration");
        let socket = folder.join("notify.sock");
        let manager = UnixDatagram::bind(&socket).expect("a socket");
        manager.set_read_timeout(Some(Duration::from_secs(30))).expect("a time limit");
        let log = std::fs::File::create(folder.join("agent.log")).expect("a log");
        let mut command = Command::new(LAPWING);
        command.arg("run").arg("--config").arg(folder.join("lapwing.toml"));
        command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", WATCHDOG_MICROS);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("an agent");
        let service = Self { child, manager, folder: folder.to_owned() };
        assert!(service.hears("READY=1"), "{}", service.log());
        service
    }

    /// Whether the service manager receives this before its timeout.
    fn hears(&self, words: &str) -> bool {
        let mut message = [0; 1024];
        std::iter::from_fn(|| self.manager.recv(&mut message).ok().map(|length| message[..length].to_vec()))
            .any(|message| String::from_utf8_lossy(&message).contains(words))
    }

    /// From now on the watchdog is pinged within its timeout.
    fn is_pinged(&self) {
        let micros = Duration::from_micros(WATCHDOG_MICROS.parse().expect("a number"));
        for _ in 0..6 {
            let start = Instant::now();
            assert!(self.hears("WATCHDOG=1"), "no ping; {}", self.log());
            // Earlier pings are read at once; none may be late. Other builds may use the machine meanwhile.
            assert!(start.elapsed() < micros * 2, "a ping after {:?}", start.elapsed());
        }
    }

    fn status(&self, arguments: &[&str]) -> (Option<i32>, Json) {
        let mut command = Command::new(LAPWING);
        command
            .arg("status")
            .args(arguments)
            .arg("--json")
            .arg("--config")
            .arg(self.folder.join("lapwing.toml"));
        let output = command.output().expect("lapwing status");
        (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("agent.log")).unwrap_or_default()
    }

    /// Sends SIGTERM, and returns the exit status.
    fn end(&mut self) -> Option<i32> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).expect("a number"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("a signal");
        until("the end", END, || Ok(self.child.try_wait()?))
            .unwrap_or_else(|error| panic!("{error}: {}", self.log()))
            .code()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// This many key uploads, each of which is an alert.
fn uploads(count: i64) -> Vec<Json> {
    let now = Timestamp::now();
    (0..count)
        .map(|number| {
            let mut record = key_upload(now - ((count - number) * 6).minutes());
            record["eventID"] = format!("upload-{number}").into();
            record
        })
        .collect()
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_full_disk_stops_neither_watchdog_nor_status_nor_shutdown() {
    let trail = Trail::new().expect("a trail");
    let folder = tempfile::tempdir().expect("a folder");
    let small = Small::mount(&folder.path().join("small"));
    let mut service = Service::start(folder.path(), &trail, &small.0.join("alerts.ndjson"), "");
    assert_eq!(service.status(&["--health"]).0, Some(0), "{:?}", service.status(&["--health"]));
    // Far more than is buffered in memory, so that the lane waits.
    for part in 0..6 {
        let mut records = uploads(400);
        records.iter_mut().for_each(|record| {
            record["eventID"] = format!("{part}-{}", record["eventID"].as_str().unwrap_or_default()).into();
        });
        trail.deliver(&format!("keys{part}"), &records).expect("a file");
    }
    until("memory is full", PATIENCE * 2, || {
        let status = service.status(&[]).1;
        Ok((status["ledger"]["alerts_buffered"].as_u64() > Some(50)).then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error}: {}", service.log()));
    service.is_pinged();
    let start = Instant::now();
    let code = service.status(&[]).0;
    assert!(code == Some(0) && start.elapsed() < PATIENCE / 10, "{code:?} after {:?}", start.elapsed());
    // A busy lane may miss one status request; a lane that waits for the disk answers the next.
    until("the lane's answer", PATIENCE, || {
        let lanes = service.status(&[]).1["lanes"].as_array().map(Vec::len);
        Ok((lanes == Some(1)).then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error}: {}", service.log()));
    let (code, health) = service.status(&["--health"]);
    assert!(matches!(code, Some(1 | 2)), "{health}");
    assert!(health["why"].to_string().contains("No space left on device"), "{health}");
    assert_eq!(service.end(), Some(1));
    let log = service.log();
    assert!(log.contains("could not be kept: cannot be written: No space left"), "{log}");
    assert!(log.contains("an alert could not be written") && log.contains(UPLOAD), "{log}");
}

/// A pipe without a reader in the place of the log, and clients that send nothing.
#[test]
fn a_log_that_is_no_file_and_silent_clients_block_nothing() {
    let trail = Trail::new().expect("a trail");
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("alerts.ndjson");
    nix::unistd::mkfifo(&log, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let mut service = Service::start(folder.path(), &trail, &log, "");
    let socket = folder.path().join("control.sock");
    let _silent: Vec<_> =
        (0..20).map(|_| std::os::unix::net::UnixStream::connect(&socket).expect("a client")).collect();
    trail.deliver("keys", &uploads(20)).expect("a file");
    until("an alarm", PATIENCE, || {
        Ok((service.status(&[]).1["ledger"]["alarms"].to_string().contains("cannot be written"))
            .then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error}: {}", service.log()));
    service.is_pinged();
    assert_eq!(service.status(&["--health"]).0, Some(1));
    assert_eq!(service.end(), Some(1));
}

#[test]
fn an_agent_without_rules_and_a_stopped_agent_are_blind() {
    let trail = Trail::new().expect("a trail");
    let folder = tempfile::tempdir().expect("a folder");
    let rules = folder.path().join("rules");
    std::fs::create_dir(&rules).expect("a folder");
    let mut service = Service::start(folder.path(), &trail, &folder.path().join("alerts.ndjson"), "");
    let config = folder.path().join("lapwing.toml");
    let text = std::fs::read_to_string(&config).expect("the configuration");
    assert_eq!(service.end(), Some(0));
    let (code, health) = service.status(&["--health"]);
    assert_eq!((code, &health["health"]), (Some(2), &"blind".into()), "{health}");
    assert_eq!(service.status(&[]).0, Some(1));
    drop(service);
    let _ = std::fs::remove_file(folder.path().join("notify.sock"));
    let packaged = project().join("packaging/rules").display().to_string();
    let without = text.replace(&packaged, &rules.display().to_string());
    let lines = without.lines().filter(|line| line.starts_with("rules.paths")).collect::<String>();
    assert!(lines.contains("rules\"]"), "{lines}");
    std::fs::write(&config, &without).expect("the configuration");
    let mut child = Command::new(LAPWING)
        .args(["run", "--config"])
        .arg(&config)
        .stderr(Stdio::null())
        .spawn()
        .expect("an agent");
    let blind = until("a verdict", PATIENCE, || {
        let mut command = Command::new(LAPWING);
        let output = command.args(["status", "--health", "--config"]).arg(&config).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok((output.status.code() == Some(2) && text.contains("no rule runs")).then_some(text))
    });
    let _ = child.kill();
    let _ = child.wait();
    assert!(blind.expect("a verdict").starts_with("blind\n  no rule runs"));
}
