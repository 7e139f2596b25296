//! Interference that ends the sensor, by root: the next run reports it, because the service manager keeps the rings.
//! The manager is played by this test.

use std::collections::BTreeMap;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lapwing_stage::{Agent, Alert, Settings};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::alerts::value;
use crate::deed::TAMPERED;

/// How soon an alert must be there: a run that has just started has what came meanwhile before it.
const SOON: Duration = Duration::from_secs(30);
/// Most descriptors of one message.
const DESCRIPTORS_MAX: usize = 64;

/// The variable by which a copy of this program starts another: the process that has the descriptors which that
/// inherits, and their numbers there.
const ORDER: &str = "LAPWING_TEST_INHERIT";
/// The first number of the inherited descriptors, and one that is above all of them.
const FIRST: i32 = 3;
const HIGH: i32 = 200;

/// Run by the loader before `main`, as every constructor is.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = start_where_ordered;

extern "C" fn start_where_ordered() {
    let Ok(order) = std::env::var(ORDER) else { return };
    let (pid, numbers) = order.split_once(';').unwrap_or_default();
    take(pid.parse().unwrap_or(0), numbers);
    let mut words = std::env::args_os().skip(1);
    let mut command = Command::new(words.next().unwrap_or_default());
    let error =
        command.args(words).env_remove(ORDER).env("LISTEN_PID", std::process::id().to_string()).exec();
    panic!("{error}");
}

/// Takes descriptors of another process, and gives them the numbers from the first on.
fn take(pid: i32, numbers: &str) {
    // SAFETY: it takes numbers, and returns one.
    let process = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let taken: Vec<_> = numbers.split(',').filter_map(|number| number.parse::<i32>().ok()).collect();
    let taken: Vec<_> = taken
        .into_iter()
        // SAFETY: both take numbers, and return one.
        .map(|number| unsafe {
            let fd = libc::syscall(libc::SYS_pidfd_getfd, process, number, 0);
            libc::fcntl(i32::try_from(fd).unwrap_or(-1), libc::F_DUPFD_CLOEXEC, HIGH)
        })
        .collect();
    for (number, fd) in (FIRST..).zip(taken) {
        // SAFETY: there is one thread here, and the descriptor with that number is not used any more.
        unsafe { libc::dup2(fd, number) };
    }
}

type Store = Arc<Mutex<BTreeMap<String, Vec<Arc<OwnedFd>>>>>;

/// A service manager as far as the agent sees it: it keeps descriptors.
struct Manager {
    folder: tempfile::TempDir,
    store: Store,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        let store = Store::default();
        let kept = store.clone();
        std::thread::spawn(move || while keep(&socket, &kept).is_some() {});
        Self { folder, store }
    }

    /// Where the agent says something.
    fn environment(&self) -> Vec<(&'static str, String)> {
        let socket = self.folder.path().join("notify").display().to_string();
        vec![("NOTIFY_SOCKET", socket), (ORDER, String::new())]
    }

    /// Waits until all is kept that a run gives at its start.
    fn has_all(&self) {
        let start = Instant::now();
        let has = |what: &str| {
            let store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
            store.keys().any(|name| name.starts_with(what))
        };
        while !["link-", "records-", "connections-", "counts-"].into_iter().all(has) {
            assert!(start.elapsed() < SOON, "nothing is kept");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Starts the agent again, with what is kept.
    fn start_again(&self, agent: &mut Agent) {
        let kept = self.store.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let names: Vec<_> = kept.iter().flat_map(|(name, fds)| fds.iter().map(|_| name.clone())).collect();
        let numbers: Vec<_> = kept.values().flatten().map(|fd| fd.as_raw_fd().to_string()).collect();
        let settings = agent.settings();
        settings.environment = self.environment();
        settings.environment.retain(|(name, _)| *name != ORDER);
        settings.environment.push((ORDER, format!("{};{}", std::process::id(), numbers.join(","))));
        settings.environment.push(("LISTEN_FDS", names.len().to_string()));
        settings.environment.push(("LISTEN_FDNAMES", names.join(":")));
        agent.start_again().unwrap();
    }
}

/// Does what a message says.
fn keep(socket: &UnixDatagram, store: &Store) -> Option<()> {
    let mut text = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut room = [IoSliceMut::new(&mut text)];
    let received = recvmsg(socket, &mut room, &mut control, RecvFlags::CMSG_CLOEXEC).ok()?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights.map(Arc::new));
        }
    }
    let text = String::from_utf8_lossy(&text[..received.bytes]).into_owned();
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
    let mut store = store.lock().unwrap_or_else(PoisonError::into_inner);
    match (value("FDSTORE="), value("FDSTOREREMOVE="), value("FDNAME=")) {
        (Some(_), _, Some(name)) => store.entry(name).or_default().extend(fds),
        (_, Some(_), Some(name)) => _ = store.remove(&name),
        _ => {}
    }
    Some(())
}

fn agent(manager: &Manager) -> Agent {
    let project = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let settings = Settings {
        program: crate::agent::binary().into(),
        rules: project.join("packaging/rules"),
        environment: manager.environment(),
        launcher: vec![std::env::current_exe().unwrap().display().to_string()],
        ..Settings::default()
    };
    Agent::start(settings).expect("an agent")
}

/// The next run reports what ended the previous one, by whom, and the outage's beginning and end.
fn is_said(agent: &Agent, place: u64, words: &str, round: u32) {
    let is_it = |alert: &Alert| alert.rule() == TAMPERED && alert.text("/event/reason").contains(words);
    let alert =
        agent.wait_for_within(words, place, SOON, is_it).unwrap_or_else(|error| panic!("{round}: {error:#}"));
    assert_eq!(value(&alert, "lapwing.alert.severity"), "high");
    assert_eq!(value(&alert, "process.pid"), std::process::id());
    assert!(alert.text("/event/start") < alert.text("/event/end"), "{}", alert.document);
    assert!(!agent.command("status").output().unwrap().status.success());
}

/// Root kills the agent.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn the_agent_is_killed() {
    let manager = Manager::new();
    let mut agent = agent(&manager);
    manager.has_all();
    agent.kill().unwrap();
    manager.start_again(&mut agent);
    is_said(&agent, 0, "sent the sensor SIGKILL", 0);
}

/// Root stops the agent and never lets it go on; the manager's watchdog ends it. Again and again, for a sensor that is
/// at work in that moment reads the record of its own stop before it stands still.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn the_agent_is_stopped_for_good() {
    let manager = Manager::new();
    let mut agent = agent(&manager);
    for round in 0..3 {
        manager.has_all();
        let place = agent.mark();
        // What it is at work for.
        let busy = std::process::Command::new("sh")
            .args(["-c", "for i in 1 2 3 4 5 6 7 8 9; do /bin/true; done"])
            .spawn();
        agent.signal("STOP").unwrap();
        std::thread::sleep(Duration::from_millis(1500));
        busy.unwrap().wait().unwrap();
        agent.kill().unwrap();
        manager.start_again(&mut agent);
        is_said(&agent, place, "sent the sensor SIGSTOP, and stood still for ", round);
    }
}
