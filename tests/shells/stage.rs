//! The agent, the hosts, and rows at work on them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lapwing_stage::{Agent, Hosts, Settings, servers};
use nix::sched::{CloneFlags, setns};

use crate::alerts::FOLDER;
use crate::attacker::Attacker;
use crate::children::{last_words, prepare, run, script, sweep, sweep_host};
use crate::data::{Benign, Data, PORTS, Shell, Words};

/// Names another agent than the one that was built with these tests: an optimised one.
const AGENT: &str = "LAPWING_TEST_AGENT";
/// Names other rules than the packaged ones.
const RULES: &str = "LAPWING_TEST_RULES";
/// How many rows are done at a time.
const WORKERS: usize = 3;
/// The first port of the first row. Ports that the kernel chooses lie above all rows'.
const FIRST_PORT: u16 = 20_000;
/// How long a shell has before something is typed into it, and how long until it is typed again.
const BEFORE: Duration = Duration::from_millis(400);
const AGAIN: Duration = Duration::from_millis(1_500);
/// How long a shell stays after its command, and how long it may take to end.
const REST: Duration = Duration::from_millis(300);
const END: Duration = Duration::from_millis(700);
/// How often is looked.
const STEP: Duration = Duration::from_millis(10);

pub(crate) struct Stage {
    // Dropped in this order: who watches ends first.
    pub(crate) agent: Agent,
    pub(crate) hosts: Hosts,
    pub(crate) has_udp: bool,
    folder: tempfile::TempDir,
    next: AtomicUsize,
}

/// What came of a row.
#[derive(Debug)]
pub(crate) enum Came {
    /// It did what it is there for.
    Worked,
    /// It did not, and why.
    Failed(String),
    /// It could not be tried, and why.
    Skipped(String),
}

/// A row that was done, and the words that were its own.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) words: Words,
    pub(crate) came: Came,
}

impl Stage {
    pub(crate) fn new(has_udp: bool) -> Self {
        let packaged = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/rules");
        let packaged = packaged.canonicalize().expect("the packaged rules");
        let program = std::env::var(AGENT).unwrap_or_else(|_| env!("CARGO_BIN_EXE_lapwing").to_owned());
        let settings = Settings {
            program: program.into(),
            rules: std::env::var_os(RULES).map_or(packaged, PathBuf::from),
            configuration: format!("sensor.udp = {has_udp}\n"),
            ..Settings::default()
        };
        let folder = tempfile::Builder::new().prefix(FOLDER).tempdir().expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("its mode");
        let certificates = folder.path().join("certificates");
        fs::create_dir(&certificates).expect("a folder");
        servers::certificates(&certificates).expect("certificates");
        Self {
            agent: Agent::start(settings).expect("an agent"),
            hosts: Hosts::on_the_internet().expect("hosts in network namespaces"),
            has_udp,
            folder,
            next: AtomicUsize::new(0),
        }
    }

    /// Does something with each row, some at a time, in threads that are on the host far away. The results are in the
    /// rows' order.
    pub(crate) fn each<T: Sync>(&self, rows: &[T], act: impl Fn(&T) -> Done + Sync) -> Vec<Done> {
        let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..WORKERS {
                scope.spawn(|| {
                    let network = fs::File::open(self.hosts.far.network()).expect("a network");
                    setns(network, CloneFlags::CLONE_NEWNET).expect("the host far away");
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let Some(row) = rows.get(index) else { break };
                        let came = act(row);
                        done.lock().expect("no panic").push((index, came));
                    }
                });
            }
        });
        let mut done = done.into_inner().expect("no panic");
        done.sort_by_key(|(index, _)| *index);
        done.into_iter().map(|(_, done)| done).collect()
    }

    /// Words for the next row.
    fn words(&self) -> Words {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (near, far) = (&self.hosts.near, &self.hosts.far);
        Words {
            near: near.address(),
            near_ipv6: near.address_ipv6(),
            far: far.address(),
            far_ipv6: far.address_ipv6(),
            port: FIRST_PORT + PORTS * u16::try_from(number).expect("few rows"),
            folder: self.folder.path().join(format!("row-{number:03}")).display().to_string(),
        }
    }

    /// Gets a shell as a row says, has it run a command, and leaves it.
    pub(crate) fn shell(&self, data: &Data, shell: &Shell) -> Done {
        let words = self.words();
        if let Some(missing) = shell.act.missing() {
            return Done { words, came: Came::Skipped(missing) };
        }
        let came = match prepare(data, &shell.act, &words) {
            Ok(()) => self.typed(shell, &words),
            Err(why) => Came::Failed(why),
        };
        sweep(&words.folder);
        Done { words, came }
    }

    fn typed(&self, shell: &Shell, words: &Words) -> Came {
        let mut attacker =
            Attacker::new(shell, words, &self.hosts.far, &self.folder.path().join("certificates"));
        let mut child = run(&self.hosts.near, &shell.act, words);
        let proof = Path::new(&words.folder).join("proof");
        let number = words.port;
        // The last is for a shell that has the row's folder for its root.
        let lines = format!("/bin/true rsmark-{number}\ntouch {}\ntouch /proof\n", proof.display());
        let lines =
            if shell.act.run.contains("chroot") { lines } else { lines.replace("touch /proof\n", "") };
        let limit = Duration::from_secs(shell.act.seconds);
        let (start, mut there, mut said) = (Instant::now(), None, None);
        while !proof.exists() {
            if start.elapsed() > limit {
                let connected = if there.is_some() { "connected" } else { "no connection" };
                return Came::Failed(format!("{connected}; {}", last_words(Path::new(&words.folder))));
            }
            if attacker.look() {
                let there = there.get_or_insert_with(Instant::now);
                if there.elapsed() > BEFORE && said.is_none_or(|said: Instant| said.elapsed() > AGAIN) {
                    attacker.say(&lines);
                    said = Some(Instant::now());
                }
            }
            std::thread::sleep(STEP);
        }
        look_for(&mut attacker, REST, || false);
        attacker.say("exit\n");
        look_for(&mut attacker, END, || !matches!(child.0.try_wait(), Ok(None)));
        Came::Worked
    }

    /// Does what looks like a shell.
    pub(crate) fn benign(&self, data: &Data, benign: &Benign) -> Done {
        let words = self.words();
        if let Some(missing) = benign.act.missing() {
            return Done { words, came: Came::Skipped(missing) };
        }
        let came = match prepare(data, &benign.act, &words) {
            Ok(()) => self.served(benign, &words),
            Err(why) => Came::Failed(why),
        };
        sweep(&words.folder);
        Done { words, came }
    }

    fn served(&self, benign: &Benign, words: &Words) -> Came {
        let (near, far) = (&self.hosts.near, &self.hosts.far);
        let limit = Duration::from_secs(benign.act.seconds);
        let start = Instant::now();
        let wait = |holds: &mut dyn FnMut() -> bool| {
            while !holds() {
                if start.elapsed() > limit {
                    return false;
                }
                std::thread::sleep(STEP);
            }
            true
        };
        let listens = |host: &lapwing_stage::Host| host.listens(words.port).expect("the list of sockets");
        let fails = |what: &str| Came::Failed(format!("{what}; {}", last_words(Path::new(&words.folder))));
        let mut children = Vec::new();
        if let Some(server) = &benign.server {
            children.push(script(far, words, "server", server));
            if !wait(&mut || listens(far)) {
                return fails("the server far away does not listen");
            }
        }
        children.push(run(near, &benign.act, words));
        if let Some(client) = &benign.client {
            if !wait(&mut || listens(near)) {
                return fails("the service does not listen");
            }
            children.push(script(far, words, "client", client));
        }
        let proof = Path::new(&words.folder).join("proof");
        if !wait(&mut || proof.exists()) {
            return fails("no proof");
        }
        std::thread::sleep(END);
        Came::Worked
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Services that leave the folder of their row are not found by it.
        [&self.hosts.near, &self.hosts.far].into_iter().for_each(sweep_host);
    }
}

/// Reads what comes for a while, or until something holds.
fn look_for(attacker: &mut Attacker, patience: Duration, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while start.elapsed() < patience && !holds() {
        attacker.look();
        std::thread::sleep(STEP);
    }
}
