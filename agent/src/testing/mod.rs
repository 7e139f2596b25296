//! Shared parts of the delivery tests: alerts as the agent writes them, and temporary folders.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use lapwing_engine::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

use crate::alert::AlertDocument;
use crate::ledger::{Commit, LedgerClient, LedgerSender, Settings, Started};
use crate::store::Checkpoint;
use crate::{alert_log, ledger, store};

const SAMPLE_ID: &str = "5f0c2f6c1b9e4a57a2f3c8d1e6b70419";
const SAMPLE_TIME: &str = "2026-11-22T03:56:01.140Z";

/// A reverse shell as the agent writes it.
pub(crate) static REVERSE_SHELL: LazyLock<String> = LazyLock::new(|| reverse_shell().to_string());

/// A reverse shell as the agent reports it.
pub(crate) fn reverse_shell() -> Value {
    serde_json::from_str(include_str!("reverse_shell.json")).unwrap()
}

/// An alert with the current time, whose id ends with this number.
pub(crate) fn alert(number: u64) -> AlertDocument {
    alert_of(number, &REVERSE_SHELL)
}

/// A copy of this alert with the current time, whose id ends with this number.
pub(crate) fn alert_of(number: u64, text: &str) -> AlertDocument {
    let (id, time) = (id(number), crate::clock::now());
    let json = text.replace(SAMPLE_ID, &id).replacen(SAMPLE_TIME, &time.to_string(), 1);
    AlertDocument { id, time, json: json.into(), local: false }
}

/// The id of the alert with this number.
pub(crate) fn id(number: u64) -> String {
    format!("5f0c2f6c1b9e4a57{number:016}")
}

/// A commit of alerts.
pub(crate) fn commit(alerts: impl IntoIterator<Item = AlertDocument>) -> Commit {
    Commit { alerts: alerts.into_iter().collect(), checkpoint: Checkpoint::default() }
}

/// The id of an alert's document.
pub(crate) fn id_of(json: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Alert {
        event: Event,
    }
    #[derive(Deserialize)]
    struct Event {
        id: String,
    }
    serde_json::from_slice::<Alert>(json).unwrap().event.id
}

/// The files of an installed agent.
pub(crate) struct TestHost {
    root: PathBuf,
    pub(crate) alerts: alert_log::Config,
    pub(crate) spool: store::Config,
    pub(crate) sinks: Vec<String>,
    _folder: Option<TempDir>,
}

impl TestHost {
    /// A host in a temporary folder, whose agent has one sink, `siem`.
    pub(crate) fn new() -> Self {
        let folder = TempDir::with_prefix("lapwing-").unwrap();
        let host = Self::at(folder.path());
        Self { _folder: Some(folder), ..host }
    }

    /// The same in a given folder.
    pub(crate) fn at(root: &Path) -> Self {
        let alerts = alert_log::Config { path: root.join("log/alerts.ndjson"), ..Default::default() };
        let sinks = vec!["siem".to_owned()];
        Self { root: root.to_owned(), alerts, spool: store::Config::default(), sinks, _folder: None }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.root
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.root.join("state")
    }

    /// Starts a ledger on this host.
    pub(crate) fn start(&self) -> anyhow::Result<Ledger> {
        let started = ledger::start(&Settings {
            alerts: &self.alerts,
            spool: &self.spool,
            state_dir: &self.state_dir(),
            sinks: &self.sinks,
        })?;
        Ok(Ledger(started))
    }

    /// The ids in the alert log, oldest first.
    pub(crate) fn logged(&self) -> Vec<String> {
        let (mut reader, _) = alert_log::Forward::new(self.alerts.path.clone(), None).unwrap();
        let (mut ids, mut line) = (Vec::new(), Vec::new());
        while reader.next_line(&mut line).unwrap() {
            ids.push(id_of(&line));
        }
        ids
    }
}

/// A running ledger.
pub(crate) struct Ledger(Started);

impl Ledger {
    pub(crate) fn sender(&self) -> &LedgerSender {
        &self.0.sender
    }

    pub(crate) fn client(&self) -> &LedgerClient {
        &self.0.client
    }

    /// Commits and waits until it is durable.
    pub(crate) fn commit(&self, mut commit: Commit) {
        let (done, wait) = std::sync::mpsc::channel();
        commit.checkpoint.done = Some(Box::new(move || done.send(()).unwrap()));
        crate::testing::hand_over(&self.0.sender, commit);
        wait.recv().unwrap();
    }

    /// The ids of everything after number `after` in the spool.
    pub(crate) fn spooled(&self, after: i64) -> Vec<String> {
        let read = self.0.client.read(after, usize::MAX, usize::MAX);
        block_on(read).unwrap().into_iter().map(|alert| alert.id).collect()
    }

    /// Ends the ledger as the agent does, and returns its result.
    pub(crate) fn stop(self) -> anyhow::Result<()> {
        let Started { sender, client, thread, .. } = self.0;
        drop(sender);
        drop(client);
        thread.join().unwrap()
    }
}

/// Hands over a commit as a lane does.
pub(crate) fn hand_over(sender: &LedgerSender, commit: Commit) {
    let mut waiting = Some(commit);
    while let Some(commit) = waiting {
        waiting = sender.offer(commit, std::time::Duration::from_millis(100)).unwrap();
    }
}

/// Runs a future to its end on this thread.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// A time given as RFC 3339.
pub(crate) fn time(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

/// Waits for a condition.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// Gives this thread and its children a network namespace. Only root may.
pub(crate) fn private_network() {
    lapwing_stage::servers::private_network().unwrap();
}

/// Gives this thread and its children a mount namespace, and mounts a small file system at `path`.
pub(crate) fn mount_small(path: &Path, options: &str) -> Mount {
    use nix::mount::{MsFlags, mount};
    let none = None::<&str>;
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    std::fs::create_dir_all(path).unwrap();
    let (options, flags) = match options.strip_suffix(",ro") {
        Some(options) => (options, MsFlags::MS_RDONLY),
        None => (options, MsFlags::empty()),
    };
    mount(Some("none"), path, Some("tmpfs"), flags, Some(options)).unwrap();
    Mount(path.to_owned())
}

/// A mount that is removed when it is dropped, so that the folder around it can be deleted.
pub(crate) struct Mount(PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}
