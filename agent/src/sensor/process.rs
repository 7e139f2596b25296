//! The process table: which processes there are, who made whom, and what each runs.
//!
//! It is fed by records, and by `/proc` only for what ran before the agent and for what lost records contained.
//! A process that ended stays while late records may name it and while a child needs it as its parent. It knows the
//! wire and no ECS.

mod entered;
mod peers;
mod relief;
mod saved;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lapwing_common::{ABSENT, Credentials, Descriptor, Fork, Namespace, ProcessContext, Socket, State, Task};
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use smol_str::{SmolStr, ToSmolStr};
use zerocopy::IntoBytes as _;

use self::entered::Namespaces;
pub(super) use self::peers::is_followed;
use self::peers::{Peer, Peers, is_of_interest};
pub(super) use self::saved::Saved;
use super::actor::INITIAL_USER_NAMESPACE;
use super::decode::Blocks;
use super::groups::Groups;
use super::image::{self, Image};
use super::record::ExecRecord;
use super::snapshot;
use crate::budget::{Accounts, Charge, Meter};

/// Most bytes of processes that are kept, living and ended, with their programs. Beyond it the user who holds most gives
/// way (`relief`).
const PROCESSES_BYTES_MAX: usize = 12 << 20;
/// Most bytes of what processes look like in events. Beyond it all of that is made again when it is needed.
const BLOCKS_BYTES_MAX: usize = 5 << 20;
/// About how many bytes a process takes without its program: itself, its entity id, and its places in three lists, which
/// have up to twice as many as they hold.
const PROCESS_BYTES: usize =
    size_of::<Process>() + size_of::<Peers>() + 48 + 2 * (2 * size_of::<Key>() + 24) + 32;
/// How long a process is kept after its end, and how many are at most: late records may name it, and alerts ask for it.
const LINGER_NANOS: u64 = 30_000_000_000;
const LINGERING_MAX: usize = 2048;
/// How often it is looked whether processes whose end was lost are gone.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// Most ancestors of a process that are reported.
const ANCESTORS_MAX: usize = 20;
/// The clock tick, the unit of start times in `/proc`; the kernel fixes it for user space.
pub(super) const TICK_NANOS: u64 = 10_000_000;

/// What names a process on this host since it was booted: a number is used again, but not within one tick.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Hash, Serialize)]
pub(super) struct Key {
    pub(super) pid: u32,
    ticks: u64,
}

/// A process.
pub(super) struct Process {
    pub(super) key: Key,
    /// Unique over reuse of numbers and over reboots; the same after `execve` and after a restart of the agent.
    pub(super) entity_id: SmolStr,
    /// When it was made, in nanoseconds since boot.
    pub(super) start: u64,
    /// The process it was born to, as it was then: being adopted changes nothing.
    pub(super) parent: Option<Key>,
    pub(super) parent_pid: u32,
    pub(super) image: Arc<Image>,
    /// What it ran before; at first what its parent ran.
    pub(super) previous: Option<Arc<Image>>,
    pub(super) credentials: Credentials,
    pub(super) place: ProcessContext,
    /// Standard input, output and error as they were when the program started.
    pub(super) stdio: Option<[Descriptor; 3]>,
    /// The first of these that is a socket of IPv4 or IPv6.
    pub(super) socket: Option<Box<Socket>>,
    /// The connections that it made and accepted, and whom it sent datagrams to.
    peers: Option<Box<Peers>>,
    /// The process with which the session, login or service began, and what kind of beginning that was.
    pub(super) entry: Option<(Key, &'static str)>,
    /// What it looks like in events.
    pub(super) blocks: Blocks,
    life: Life,
    children: u32,
    /// Who is charged with the bytes that it takes: its user when it was made, or ran its program.
    owner: u32,
    charge: Charge,
}

/// The names of the standard descriptors.
pub(super) const STDIO: [&str; 3] = ["stdin", "stdout", "stderr"];

/// Whether two descriptors stand for one file. Who writes to it changes.
pub(super) fn is_same(one: &Descriptor, other: &Descriptor) -> bool {
    (one.inode, one.mode) == (other.inode, other.mode)
}

/// Whether a descriptor stands for a socket.
pub(super) fn is_socket(descriptor: &Descriptor) -> bool {
    descriptor.mode & 0o170_000 == 0o140_000
}

/// How far a process has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Life {
    /// It runs.
    Alive,
    /// It ended, and is kept for a while.
    Lingering,
    /// It is kept only for its children.
    Past,
}

/// What is known of a process from its first record or from `/proc`.
pub(super) struct Origin {
    pub(super) pid: u32,
    /// Nanoseconds since boot, at least as fine as a tick.
    pub(super) start: u64,
    pub(super) parent: Option<Key>,
    pub(super) parent_pid: u32,
    pub(super) image: Arc<Image>,
    pub(super) credentials: Credentials,
    pub(super) place: ProcessContext,
}

/// The processes of this host.
pub(super) struct Table {
    /// Boxed, for a map has up to twice as many places as it holds.
    processes: HashMap<Key, Box<Process>>,
    /// The process that has, or had last, each number.
    current: HashMap<u32, Key>,
    /// Those that ended, in that order: when, which, and whose they were.
    ended: VecDeque<(u64, Key, u32)>,
    /// How many of them each user has.
    ended_by_owner: HashMap<u32, usize>,
    /// Who holds how much.
    accounts: Accounts,
    /// What processes look like in events.
    blocks: Arc<Meter>,
    /// What is known of control groups.
    pub(super) groups: Groups,
    /// Containers by their namespaces.
    namespaces: Namespaces,
    boot: [u8; 8],
    swept: Instant,
    counts: TableCounts,
}

/// What the table counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TableCounts {
    /// Processes that were dropped for room.
    pub(crate) evicted: u64,
    /// Programs of which most arguments were dropped for room.
    pub(crate) shortened: u64,
    /// Programs that processes ran before, dropped for room.
    pub(crate) previous_dropped: u64,
    /// Processes whose first record was lost and which were learned from a later one.
    pub(crate) recovered: u64,
    /// Processes that were found gone although no record reported their exit.
    pub(crate) expired_without_exit: u64,
}

impl Key {
    pub(super) fn new(pid: u32, start: u64) -> Self {
        Self { pid, ticks: start / TICK_NANOS }
    }

    /// The process that an entity id names, on whichever host and boot.
    pub(super) fn parse(entity_id: &str) -> Option<Self> {
        let bytes = STANDARD.decode(entity_id).ok().filter(|bytes| bytes.len() == 20)?;
        let pid = u32::from_le_bytes(bytes[8..12].try_into().ok()?);
        Some(Self { pid, ticks: u64::from_le_bytes(bytes[12..].try_into().ok()?) })
    }

    /// The process that a record names.
    pub(super) fn of(task: &Task) -> Self {
        Self::new(task.pid, task.start)
    }

    /// The parent that a record names; the first processes have none.
    pub(super) fn parent_of(task: &Task) -> Option<Self> {
        (task.parent != 0).then(|| Self::new(task.parent, task.parent_start))
    }
}

impl Table {
    pub(super) fn new(boot_id: &str) -> Self {
        let mut boot = [0; 8];
        boot.copy_from_slice(&Sha256::digest(boot_id)[..8]);
        Self {
            processes: HashMap::new(),
            current: HashMap::new(),
            ended: VecDeque::new(),
            ended_by_owner: HashMap::new(),
            accounts: Accounts::new(Meter::new("processes", PROCESSES_BYTES_MAX)),
            blocks: Meter::new("process_blocks", BLOCKS_BYTES_MAX),
            groups: Groups::default(),
            namespaces: Namespaces::default(),
            boot,
            swept: Instant::now(),
            counts: TableCounts::default(),
        }
    }

    /// A process, while it is known.
    pub(super) fn get(&self, key: Key) -> Option<&Process> {
        self.processes.get(&key).map(Box::as_ref)
    }

    /// The user who answers for a process; 0 where it is not known.
    pub(super) fn owner(&self, key: Key) -> u32 {
        self.get(key).map_or(0, |process| process.owner)
    }

    fn each(&self) -> impl Iterator<Item = &Process> {
        self.processes.values().map(Box::as_ref)
    }

    /// The processes that lived at some moment between two that were a short while ago.
    pub(super) fn between(&self, from: u64, to: u64) -> Vec<&Process> {
        let over = self.ended.iter().filter(|(time, ..)| *time < from).map(|(_, key, _)| *key);
        let over: HashSet<Key> = over.collect();
        let lived = |process: &&Process| {
            process.life != Life::Past && process.start <= to && !over.contains(&process.key)
        };
        self.each().filter(lived).collect()
    }

    /// The process that has this number, or had it last.
    pub(super) fn by_pid(&self, pid: u32) -> Option<&Process> {
        self.get(*self.current.get(&pid)?)
    }

    /// The name of an entity, whether or not it is known.
    pub(super) fn entity_id(&self, key: Key) -> SmolStr {
        let mut bytes = [0; 20];
        bytes[..8].copy_from_slice(&self.boot);
        bytes[8..12].copy_from_slice(&key.pid.to_le_bytes());
        bytes[12..].copy_from_slice(&key.ticks.to_le_bytes());
        STANDARD.encode(bytes).to_smolstr()
    }

    /// The process of this boot that an entity id names.
    pub(super) fn key(&self, entity_id: &str) -> Option<Key> {
        Key::parse(entity_id).filter(|key| self.entity_id(*key) == entity_id)
    }

    /// The process's parent, its parent, and so on.
    pub(super) fn ancestors(&self, key: Key) -> impl Iterator<Item = &Process> {
        let parent = |process: &Process| self.get(process.parent?);
        std::iter::successors(self.get(key).and_then(parent), move |process| parent(process))
            .take(ANCESTORS_MAX)
    }

    /// The processes that live and were made by this one or its offspring.
    pub(super) fn children(&self, key: Key) -> impl Iterator<Item = &Process> {
        self.each().filter(move |process| process.parent == Some(key) && process.life == Life::Alive)
    }

    /// What was counted.
    pub(super) fn counts(&self) -> TableCounts {
        self.counts
    }

    /// What it holds, and what it may.
    pub(super) fn meters(&self) -> [&Meter; 2] {
        [self.accounts.meter(), &self.blocks]
    }

    /// How many processes are kept.
    pub(super) fn len(&self) -> usize {
        self.processes.len()
    }

    /// The processes that live, parents before their children.
    pub(super) fn in_order(&self) -> Vec<Key> {
        let alive = self.each().filter(|process| process.life == Life::Alive);
        let mut keys: Vec<_> = alive.map(|process| (process.start, process.key.pid, process.key)).collect();
        keys.sort_unstable_by_key(|(start, pid, _)| (*start, *pid));
        keys.into_iter().map(|(_, _, key)| key).collect()
    }

    /// How many of them ended a short while ago, and are kept for what may still name them.
    pub(super) fn ended(&self) -> usize {
        self.ended.len()
    }

    /// How many of them live, as far as is known.
    pub(super) fn alive(&self) -> usize {
        self.each().filter(|process| process.life == Life::Alive).count()
    }

    /// Adds a process that ran before the agent did.
    pub(super) fn add(&mut self, origin: Origin) -> Key {
        let key = Key::new(origin.pid, origin.start);
        let (image, owner) = (origin.image, owner(&origin.credentials));
        self.accounts.charge_once(&image.charge, owner, image.bytes());
        let charge = self.accounts.charge(owner, PROCESS_BYTES);
        self.relieve();
        let process = Process {
            key,
            entity_id: self.entity_id(key),
            start: origin.start,
            parent: origin.parent,
            parent_pid: origin.parent_pid,
            image,
            previous: None,
            credentials: origin.credentials,
            place: origin.place,
            stdio: None,
            socket: None,
            peers: None,
            entry: None,
            blocks: Blocks::new(self.blocks.clone()),
            life: Life::Alive,
            children: 0,
            owner,
            charge,
        };
        self.insert(process);
        self.enter(key);
        self.learn_container(key);
        key
    }

    /// A process was made.
    pub(super) fn fork(&mut self, record: &Fork) -> Key {
        self.groups.touch(record.place.cgroup);
        let forker = Key::new(record.forker, record.forker_start);
        let image = match self.processes.get(&forker) {
            Some(forker) => forker.image.clone(),
            None => self.learn_image(forker, &record.child),
        };
        let parent = self.parent(&record.child);
        let key = self.add(Origin {
            pid: record.child.pid,
            start: record.child.start,
            parent,
            parent_pid: record.child.parent,
            image: image.clone(),
            credentials: record.credentials,
            place: record.place,
        });
        if let Some(process) = self.processes.get_mut(&key) {
            process.previous = Some(image);
        }
        key
    }

    /// A process runs another program.
    pub(super) fn exec(&mut self, record: &ExecRecord<'_>, image: Image) -> Key {
        let fixed = record.fixed;
        self.groups.touch(fixed.place.cgroup);
        let key = Key::of(&fixed.task);
        let (image, owner) = (Arc::new(image), owner(&fixed.credentials));
        self.accounts.charge_once(&image.charge, owner, image.bytes());
        self.relieve();
        if let Some(process) = self.processes.get_mut(&key) {
            process.previous = Some(std::mem::replace(&mut process.image, image));
            process.credentials = fixed.credentials;
            process.place = fixed.place;
            if process.owner != owner {
                (process.owner, process.charge) = (owner, self.accounts.charge(owner, PROCESS_BYTES));
            }
        } else {
            self.counts.recovered += 1;
            let parent = self.parent(&fixed.task);
            let (pid, start, parent_pid) = (fixed.task.pid, fixed.task.start, fixed.task.parent);
            let (credentials, place) = (fixed.credentials, fixed.place);
            self.add(Origin { pid, start, parent, parent_pid, image, credentials, place });
        }
        if let Some(process) = self.processes.get_mut(&key) {
            process.stdio = Some(fixed.stdio);
            process.socket = (fixed.socket.family != 0).then(|| Box::new(fixed.socket));
            process.blocks.clear();
        }
        self.enter(key);
        self.learn_container(key);
        key
    }

    /// A process ended at this time. Whether it had not ended before.
    pub(super) fn end(&mut self, key: Key, time: u64) -> bool {
        match self.processes.get_mut(&key) {
            Some(process) if process.life == Life::Alive => {
                process.life = Life::Lingering;
                let owner = process.owner;
                self.ended.push_back((time, key, owner));
                *self.ended_by_owner.entry(owner).or_default() += 1;
                true
            }
            _ => false,
        }
    }

    /// The process that a record names. Where its fork was lost, `/proc` is read, or the record is used.
    pub(super) fn find(&mut self, task: &Task) -> Key {
        let key = Key::of(task);
        self.relieve();
        if self.processes.contains_key(&key) {
            return key;
        }
        self.counts.recovered += 1;
        let parent = self.parent(task);
        let origin = snapshot::read(key).unwrap_or_else(|| Origin {
            pid: task.pid,
            start: task.start,
            parent,
            parent_pid: task.parent,
            image: Arc::new(Image::unknown(image::comm(&task.comm))),
            credentials: snapshot::NO_CREDENTIALS,
            place: snapshot::NO_CONTEXT,
        });
        self.add(Origin { parent, ..origin })
    }

    /// A process is this now. Returns what it became since it was last looked at.
    pub(super) fn observe(&mut self, key: Key, state: &State) -> Changes {
        let Some(process) = self.processes.get_mut(&key) else { return Changes::default() };
        self.groups.touch(state.cgroup);
        let known = process.state();
        if state.as_bytes() == known.as_bytes() {
            return Changes::default();
        }
        let changes = Changes::between(&known, state);
        process.set_state(state);
        process.blocks.clear();
        if changes.session {
            self.enter(key);
        }
        changes
    }

    /// The process that made the standard input with which a process's program started: of its ancestors the nearest whose own
    /// program started with another. One of which that is not known, for it ran before the agent did, counts as such. Where it
    /// is a fork of one that has a connection, and has none itself, it is that one: it runs the same program.
    pub(super) fn stdin_maker(&self, process: &Process) -> Option<&Process> {
        let stdin = process.stdio.as_ref()?[0];
        let is_other = |ancestor: &&Process| {
            let starter = self.starter(ancestor).and_then(|starter| starter.stdio.as_ref());
            starter.is_none_or(|stdio| !is_same(&stdio[0], &stdin))
        };
        let maker = self.ancestors(process.key).find(is_other)?;
        let family = std::iter::once(maker).chain(self.ancestors(maker.key));
        let mut of_program = family.take_while(|one| Arc::ptr_eq(&one.image, &maker.image));
        Some(of_program.find(|one| one.peers.is_some()).unwrap_or(maker))
    }

    /// A process has a connection.
    pub(super) fn connect(&mut self, key: Key, socket: &Socket, time: u64) {
        let Some(process) = self.processes.get_mut(&key).filter(|_| is_of_interest(socket)) else { return };
        process.peers.get_or_insert_default().add(Peer { socket: *socket, since: time });
    }

    /// A connection of a process is over.
    pub(super) fn disconnect(&mut self, key: Key, socket: u64, time: u64) {
        if let Some(peers) = self.processes.get_mut(&key).and_then(|process| process.peers.as_mut()) {
            peers.remove(socket, time);
        }
    }

    /// The process that started the program which a process runs, itself or one that it was forked from, where it is known what
    /// standard descriptors it had then.
    pub(super) fn starter<'a>(&'a self, process: &'a Process) -> Option<&'a Process> {
        let family = std::iter::once(process).chain(self.ancestors(process.key));
        let mut of_program = family.take_while(|one| Arc::ptr_eq(&one.image, &process.image));
        of_program.find(|one| one.stdio.is_some())
    }

    /// A process that forks is what its child is at first, but for capabilities and who answers for it, which the child may
    /// have got in a user namespace of its own, and for the control group, which `clone3` may name. Returns it, and what it
    /// became since it was last looked at.
    pub(super) fn observe_forker(&mut self, record: &Fork) -> (Key, Changes) {
        let forker = Key::new(record.forker, record.forker_start);
        let child = state_of(&record.credentials, &record.place);
        let known = self.get(forker).map_or(child, Process::state);
        let actor = match self.get(forker) {
            Some(known) if user_namespace(&known.place) != user_namespace(&record.place) => {
                known.credentials.actor
            }
            _ => child.actor,
        };
        let (effective, permitted, cgroup) = (known.effective, known.permitted, known.cgroup);
        let state = State { actor, effective, permitted, cgroup, ..child };
        (forker, self.observe(forker, &state))
    }

    /// The events of a process that ended are emitted: its blocks are built again should they be needed.
    pub(super) fn slim(&mut self, key: Key) {
        if let Some(process) = self.processes.get_mut(&key) {
            process.blocks.clear();
        }
    }

    /// Forgets what ended long enough before `now`, and now and then looks for what ended unseen.
    pub(super) fn expire(&mut self, now: u64) {
        while let Some((time, ..)) = self.ended.front() {
            let is_over = time.saturating_add(LINGER_NANOS) <= now;
            if !is_over && self.ended.len() <= LINGERING_MAX {
                break;
            }
            let Some(key) = self.take_ended(is_over) else { break };
            // Who may choose numbers can give this one to another process within a tick: that one lives.
            if let Some(process) =
                self.processes.get_mut(&key).filter(|process| process.life == Life::Lingering)
            {
                process.life = Life::Past;
                process.previous = None;
                self.release(key);
            }
        }
        if self.swept.elapsed() >= SWEEP_EVERY {
            self.swept = Instant::now();
            self.sweep(now);
        }
    }

    /// Takes the process that ended first; unless it must go anyway, of those of the user who has most.
    fn take_ended(&mut self, any: bool) -> Option<Key> {
        let most = self.ended_by_owner.iter().max_by_key(|(_, count)| **count).map(|(owner, _)| *owner);
        let place = self.ended.iter().position(|(.., owner)| any || Some(*owner) == most);
        let (_, key, owner) = self.ended.remove(place.unwrap_or(0))?;
        if let Some(count) = self.ended_by_owner.get_mut(&owner) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.ended_by_owner.remove(&owner);
            }
        }
        Some(key)
    }

    /// The parent that a record names, learned where it is not known.
    fn parent(&mut self, task: &Task) -> Option<Key> {
        let parent = Key::parent_of(task)?;
        if !self.processes.contains_key(&parent)
            && let Some(origin) = snapshot::read(parent)
        {
            self.counts.recovered += 1;
            let grandparent = self.current.get(&origin.parent_pid).copied();
            self.add(Origin { parent: grandparent, ..origin });
        }
        Some(parent)
    }

    fn learn_image(&mut self, key: Key, task: &Task) -> Arc<Image> {
        self.counts.recovered += 1;
        match snapshot::read(key) {
            Some(origin) => origin.image,
            None => Arc::new(Image::unknown(image::comm(&task.comm))),
        }
    }

    fn insert(&mut self, process: Process) {
        let (key, parent) = (process.key, process.parent);
        self.current.insert(key.pid, key);
        let replaced = self.processes.insert(key, Box::new(process));
        if let Some(parent) = replaced.and_then(|old| self.processes.get_mut(&old.parent?)) {
            parent.children = parent.children.saturating_sub(1);
        }
        if let Some(parent) = parent.and_then(|parent| self.processes.get_mut(&parent)) {
            parent.children += 1;
        }
    }

    /// Finds out with which process the session, login or service began. The rules are those by which Elastic's
    /// sensors fill `process.entry_leader`; what none of them names began where its parent did.
    fn enter(&mut self, key: Key) {
        let Some(process) = self.get(key) else { return };
        let parent = process.parent.and_then(|parent| self.get(parent));
        let entry = match entry_type(process, parent) {
            Some(kind) => Some((key, kind)),
            None => parent.and_then(|parent| parent.entry).or(process.entry),
        };
        if let Some(process) = self.processes.get_mut(&key) {
            process.entry = entry;
        }
    }

    /// Removes a process that is past, unless a child needs it, and then its parent if it waited only for that.
    fn release(&mut self, key: Key) {
        let mut next = Some(key);
        while let Some(key) = next.take() {
            let is_needed = |process: &Process| process.life != Life::Past || process.children > 0;
            if self.get(key).is_none_or(is_needed) {
                return;
            }
            next = self.remove(key);
        }
    }

    /// Removes a process and returns its parent.
    fn remove(&mut self, key: Key) -> Option<Key> {
        let parent = self.processes.remove(&key)?.parent;
        if self.current.get(&key.pid) == Some(&key) {
            self.current.remove(&key.pid);
        }
        let parent = parent?;
        let process = self.processes.get_mut(&parent)?;
        process.children = process.children.saturating_sub(1);
        Some(parent)
    }

    /// Removes processes that are gone although no record reported their exit.
    fn sweep(&mut self, now: u64) {
        let is_gone = |process: &&Process| {
            let pid = i32::try_from(process.key.pid).ok().map(Pid::from_raw);
            let is_reused = self.current.get(&process.key.pid) != Some(&process.key);
            process.life == Life::Alive
                && (is_reused || pid.is_some_and(|pid| kill(pid, None) == Err(Errno::ESRCH)))
        };
        let gone: Vec<_> = self.each().filter(is_gone).map(|process| process.key).collect();
        for key in gone {
            self.counts.expired_without_exit += 1;
            self.end(key, now);
        }
        self.accounts.tidy();
    }
}

/// Who is charged with a process: the user who answers for it, or else its real user, which it does not change by running a
/// program of another's.
fn owner(credentials: &Credentials) -> u32 {
    if credentials.actor == ABSENT { credentials.uid } else { credentials.actor }
}

/// What a process has become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// It began a session.
    pub(super) session: bool,
    /// It is another user: really, effectively, or by the id that it could go back to.
    pub(super) user: bool,
    /// It is another group, likewise.
    pub(super) group: bool,
}

impl Changes {
    /// What differs between two states. From a state that is not known nothing does.
    fn between(old: &State, new: &State) -> Self {
        if old.euid == ABSENT {
            return Self::default();
        }
        Self {
            session: old.sid != new.sid,
            user: (old.uid, old.euid, old.suid) != (new.uid, new.euid, new.suid),
            group: (old.gid, old.egid, old.sgid) != (new.gid, new.egid, new.sgid),
        }
    }
}

fn user_namespace(place: &ProcessContext) -> u32 {
    place.namespaces[Namespace::User as usize]
}

/// What a process is by its credentials and its place.
pub(super) fn state_of(credentials: &Credentials, place: &ProcessContext) -> State {
    State {
        uid: credentials.uid,
        gid: credentials.gid,
        suid: credentials.suid,
        sgid: credentials.sgid,
        euid: credentials.euid,
        egid: credentials.egid,
        pgid: place.pgid,
        sid: place.sid,
        tty: place.tty,
        actor: credentials.actor,
        effective: credentials.effective,
        permitted: credentials.permitted,
        cgroup: place.cgroup,
    }
}

impl Process {
    /// Whether its user namespace is known not to be the host's. Its own inode decides, for `/proc/1/ns/user` may be
    /// unreadable where the agent runs.
    pub(super) fn is_of_other_users(&self) -> bool {
        !matches!(user_namespace(&self.place), 0 | INITIAL_USER_NAMESPACE)
    }

    /// What the process is, as far as it was looked at.
    pub(super) fn state(&self) -> State {
        state_of(&self.credentials, &self.place)
    }

    fn set_state(&mut self, state: &State) {
        let (credentials, place) = (&mut self.credentials, &mut self.place);
        (credentials.uid, credentials.euid, credentials.suid) = (state.uid, state.euid, state.suid);
        (credentials.gid, credentials.egid, credentials.sgid) = (state.gid, state.egid, state.sgid);
        credentials.actor = state.actor;
        (credentials.effective, credentials.permitted) = (state.effective, state.permitted);
        (place.pgid, place.sid, place.tty, place.cgroup) = (state.pgid, state.sid, state.tty, state.cgroup);
    }

    /// A connection that it has and that began a short time before this one.
    pub(super) fn recent_peer(&self, time: u64) -> Option<&Socket> {
        self.peers.as_ref()?.recent(time)
    }

    /// The connection with which its program started as a standard descriptor, and the names of those that are it.
    pub(super) fn connection(&self) -> Option<(&Socket, Vec<&'static str>)> {
        let (socket, stdio) = (self.socket.as_deref()?, self.stdio.as_ref()?);
        let is_it = |descriptor: &Descriptor| is_socket(descriptor) && descriptor.inode == socket.inode;
        let held = STDIO.iter().zip(stdio).filter(|(_, descriptor)| is_it(descriptor));
        Some((socket, held.map(|(name, _)| *name).collect()))
    }

    /// The number of its namespace of mounts; zero where that is not known.
    pub(super) fn mount_namespace(&self) -> u32 {
        self.place.namespaces[Namespace::Mount as usize]
    }

    /// Whether the process leads its session.
    pub(super) fn is_session_leader(&self) -> bool {
        self.place.sid == self.key.pid
    }

    /// Whether the file that it runs has one of these names; what else it goes by is anyone's choice.
    fn is_named(&self, names: &[&str]) -> bool {
        self.file_name().is_some_and(|name| names.contains(&name))
    }

    fn file_name(&self) -> Option<&str> {
        self.image.opened_name().or_else(|| self.image.name.as_text())
    }

    /// Whether it runs one of [`RUNTIMES`].
    fn is_container_runtime(&self) -> bool {
        let is = |name: &str| {
            RUNTIMES.contains(&name) || RUNTIME_FAMILIES.iter().any(|family| name.starts_with(family))
        };
        self.file_name().is_some_and(is)
    }
}

/// Majors of terminals: consoles and serial lines, and the eight of pseudo-terminals.
const TTY_MAJOR: u32 = 4;
const PTS_MAJORS: std::ops::RangeInclusive<u32> = 136..=143;

/// Programs that start the first process of a container: runtimes, their monitors, and what runs a program in a sandbox.
const RUNTIMES: [&str; 20] = [
    "runc",
    "docker-runc",
    "buildkit-runc",
    "crun",
    "youki",
    "kata-agent",
    "conmon",
    "conmonrs",
    "lxc-start",
    "lxc-execute",
    "lxc-attach",
    "lxd",
    "incusd",
    "systemd-nspawn",
    "bwrap",
    "gdn",
    "dadoo",
    "singularity",
    "apptainer",
    "starter-suid",
];
/// The same by how their names begin: containerd's shims of each version, and a copy of itself that runc and crun run in memory.
const RUNTIME_FAMILIES: [&str; 3] = ["containerd-shim", "runc_cloned", "crun_cloned"];

/// What kind of beginning a process is; `None` where it goes on what its parent began.
fn entry_type(process: &Process, parent: Option<&Process>) -> Option<&'static str> {
    let is_child_of = |names: &[&str]| parent.is_some_and(|parent| parent.is_named(names));
    let (leads, major) = (process.is_session_leader(), process.place.tty >> 20);
    if process.key.pid == 2 || process.parent_pid == 2 {
        Some("kthread")
    } else if process.key.pid == 1 {
        Some("init")
    } else if leads && major == TTY_MAJOR && process.is_named(&["login"]) {
        Some("console")
    } else if leads && PTS_MAJORS.contains(&major) && is_child_of(&["ssm-session-worker"]) {
        Some("ssm")
    } else if is_child_of(&["sshd", "sshd-session"]) && !process.is_named(&["sshd", "sshd-session"]) {
        Some("sshd")
    } else if parent.is_some_and(Process::is_container_runtime) && !process.is_container_runtime() {
        Some("container")
    } else if leads && major == TTY_MAJOR {
        Some("terminal")
    } else if process.parent_pid == 1 {
        Some("init")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sensor::snapshot::{NO_CONTEXT, NO_CREDENTIALS};
    use smol_str::format_smolstr;

    pub(super) const SECOND: u64 = 1_000_000_000;

    /// A table in which `parents` ran before: a number, the parent's, the executable, the session and its terminal.
    pub(super) fn table(running: &[(u32, u32, &str, u32, u32)]) -> Table {
        let mut table = Table::new("boot");
        for (pid, parent, executable, sid, tty) in running {
            let image = Image::of_procfs(executable, image::args([executable.as_bytes()]), "/", "");
            table.add(Origin {
                pid: *pid,
                start: u64::from(*pid) * SECOND,
                parent: (*parent != 0).then(|| Key::new(*parent, u64::from(*parent) * SECOND)),
                parent_pid: *parent,
                image: Arc::new(image),
                credentials: NO_CREDENTIALS,
                place: ProcessContext { sid: *sid, tty: *tty, ..NO_CONTEXT },
            });
        }
        table
    }

    pub(super) fn key(pid: u32) -> Key {
        Key::new(pid, u64::from(pid) * SECOND)
    }

    fn expire(table: &mut Table, seconds: u64) {
        table.expire(seconds * SECOND);
    }

    #[test]
    fn a_parent_stays_as_long_as_its_child_lives() {
        let mut table =
            table(&[(1, 0, "/sbin/init", 0, 0), (10, 1, "/bin/sh", 0, 0), (11, 10, "/bin/nc", 0, 0)]);
        assert!(table.end(key(10), 100 * SECOND));
        assert!(!table.end(key(10), 100 * SECOND), "it ends once");
        expire(&mut table, 1000);
        assert_eq!(table.ancestors(key(11)).map(|process| process.key.pid).collect::<Vec<_>>(), [10, 1]);
        table.end(key(11), 1000 * SECOND);
        expire(&mut table, 1001);
        assert_eq!(table.len(), 3, "both may still be needed");
        expire(&mut table, 1100);
        assert_eq!(table.len(), 1, "both are gone, and their parent lives");
        assert!(table.by_pid(11).is_none());
    }

    #[test]
    fn ended_processes_are_bounded_by_number() {
        let mut table = table(&[(1, 0, "/sbin/init", 0, 0)]);
        for pid in 2..10_000 {
            let image = Arc::new(Image::unknown(format_smolstr!("{pid}")));
            let start = u64::from(pid) * SECOND;
            let (credentials, place) = (NO_CREDENTIALS, NO_CONTEXT);
            table.add(Origin { pid, start, parent: Some(key(1)), parent_pid: 1, image, credentials, place });
            table.end(key(pid), SECOND);
            expire(&mut table, 1);
        }
        assert_eq!(table.len(), LINGERING_MAX + 1);
        assert_eq!(table.counts().evicted, 0, "they went in their turn");
    }

    #[test]
    fn a_number_that_is_used_again_is_another_process() {
        let mut table = table(&[(1, 0, "/sbin/init", 0, 0), (7, 1, "/bin/sh", 0, 0)]);
        table.end(key(7), 8 * SECOND);
        let again = Origin {
            pid: 7,
            start: 9 * SECOND,
            parent: Some(key(1)),
            parent_pid: 1,
            image: Arc::new(Image::unknown("again".into())),
            credentials: NO_CREDENTIALS,
            place: NO_CONTEXT,
        };
        let again = table.add(again);
        assert_ne!(table.entity_id(key(7)), table.entity_id(again));
        assert_eq!(table.by_pid(7).map(|process| process.key), Some(again));
        assert!(table.get(key(7)).is_some(), "the first may still be named by a late record");
        expire(&mut table, 100);
        assert_eq!(table.by_pid(7).map(|process| process.key), Some(again));
    }

    #[test]
    fn a_number_that_is_used_again_within_a_tick_lives() {
        let mut table = table(&[(1, 0, "/sbin/init", 0, 0), (7, 1, "/bin/sh", 0, 0)]);
        table.end(key(7), 8 * SECOND);
        let image = Arc::new(Image::unknown("again".into()));
        let (credentials, place) = (NO_CREDENTIALS, NO_CONTEXT);
        let parent = Some(key(1));
        let again = table.add(Origin {
            pid: 7,
            start: 7 * SECOND + 1,
            parent,
            parent_pid: 1,
            image,
            credentials,
            place,
        });
        assert_eq!(again, key(7), "its name is the same as the first one's");
        expire(&mut table, 1000);
        assert_eq!(table.get(again).map(|process| process.image.comm.as_str()), Some("again"));
        table.end(again, 1000 * SECOND);
        expire(&mut table, 2000);
        assert_eq!(table.len(), 1);
        assert_eq!(table.get(key(1)).map(|parent| parent.children), Some(0));
    }

    #[test]
    fn entity_ids_differ_by_boot_and_can_be_read_back() {
        let table = table(&[]);
        let id = table.entity_id(key(7));
        assert_eq!(table.key(&id), Some(key(7)));
        assert_ne!(Table::new("another boot").entity_id(key(7)), id);
        assert_eq!(Table::new("another boot").key(&id), None);
        assert_eq!(table.key("no id"), None);
        // /proc has a precision of one tick, so snapshot and records agree.
        assert_eq!(table.entity_id(Key::new(7, 7 * SECOND + 9_999_999)), id);
        assert_ne!(table.entity_id(Key::new(7, 7 * SECOND + 10_000_000)), id);
    }

    #[test]
    fn a_change_of_ids_is_reported_once() {
        let mut table = table(&[(1, 0, "/sbin/init", 1, 0), (7, 1, "/bin/sh", 1, 0)]);
        let root =
            State { uid: 0, gid: 0, suid: 0, sgid: 0, euid: 0, egid: 0, ..table.by_pid(7).unwrap().state() };
        assert_eq!(table.observe(key(7), &root), Changes::default(), "nothing was known of its ids");
        for (state, session, user, group) in [
            (State { effective: 1, permitted: 1, pgid: 7, tty: 1, ..root }, false, false, false),
            (State { sid: 7, ..root }, true, false, false),
            (State { sid: 7, uid: 5, euid: 5, suid: 5, ..root }, false, true, false),
            (State { sid: 7, uid: 5, ..root }, false, true, false),
            (State { sid: 7, uid: 5, sgid: 9, ..root }, false, false, true),
            (root, true, true, true),
        ] {
            assert_eq!(table.observe(key(7), &state), Changes { session, user, group }, "{state:?}");
            assert_eq!(table.observe(key(7), &state), Changes::default(), "{state:?}");
            assert_eq!(table.by_pid(7).unwrap().state().as_bytes(), state.as_bytes());
        }
        assert_eq!(table.observe(key(8), &root), Changes::default(), "there is no such process");
    }

    /// A child begins as its parent is, but for capabilities.
    #[test]
    fn a_fork_shows_what_became_of_the_parent() {
        use zerocopy::FromZeros as _;
        let mut table = table(&[(1, 0, "/sbin/init", 1, 0), (7, 1, "/bin/sh", 1, 0)]);
        let mut known = table.by_pid(7).unwrap().state();
        (known.uid, known.gid, known.suid, known.sgid, known.euid, known.egid) = (5, 5, 5, 5, 5, 5);
        table.observe(key(7), &known);
        let mut fork = Fork::new_zeroed();
        (fork.forker, fork.forker_start) = (7, 7 * SECOND);
        (fork.credentials.effective, fork.place.sid) = (u64::MAX, 1);
        let changes = Changes { session: false, user: true, group: true };
        assert_eq!(table.observe_forker(&fork), (key(7), changes));
        assert_eq!(table.by_pid(7).unwrap().credentials.effective, 0);
    }

    #[test]
    fn the_entry_leader_has_the_type_of_its_beginning() {
        let tty = TTY_MAJOR << 20 | 1;
        let pts = 136 << 20;
        let table = table(&[
            (1, 0, "/sbin/init", 1, 0),
            (2, 0, "", 0, 0),
            (3, 2, "", 0, 0),
            (10, 1, "/usr/sbin/cron", 10, 0),
            (11, 10, "/bin/sh", 10, 0),
            (20, 1, "/usr/sbin/sshd", 20, 0),
            (21, 20, "/usr/sbin/sshd", 20, 0),
            (22, 21, "/bin/bash", 22, pts),
            (23, 22, "/usr/bin/curl", 22, pts),
            (30, 1, "/usr/bin/containerd-shim-runc-v2", 30, 0),
            (31, 30, "/usr/sbin/nginx", 31, 0),
            (32, 31, "/usr/sbin/nginx", 31, 0),
            (33, 1, "/usr/bin/crun", 33, 0),
            (34, 33, "/usr/bin/redis-server", 34, 0),
            (35, 34, "/bin/sh", 34, 0),
            (36, 1, "/usr/bin/systemd-nspawn", 36, 0),
            (37, 36, "/usr/lib/systemd/systemd", 37, 0),
            (38, 10, "/usr/bin/bwrap", 10, 0),
            (39, 38, "/usr/bin/less", 10, 0),
            (71, 10, "/usr/bin/runcon", 10, 0),
            (72, 71, "/usr/bin/id", 10, 0),
            (40, 1, "/bin/login", 40, tty),
            (41, 40, "/bin/bash", 40, tty),
            (50, 1, "/sbin/agetty", 50, tty),
            (60, 10, "/usr/bin/ssm-session-worker", 60, 0),
            (61, 60, "/bin/sh", 61, pts),
        ]);
        for (pid, leader, kind) in [
            (1, 1, "init"),
            (2, 2, "kthread"),
            (3, 3, "kthread"),
            (10, 10, "init"),
            (11, 10, "init"),
            (21, 20, "init"),
            (22, 22, "sshd"),
            (23, 22, "sshd"),
            (31, 31, "container"),
            (32, 31, "container"),
            (34, 34, "container"),
            (35, 34, "container"),
            (37, 37, "container"),
            (39, 39, "container"),
            (72, 10, "init"),
            (40, 40, "console"),
            (41, 40, "console"),
            (50, 50, "terminal"),
            (61, 61, "ssm"),
        ] {
            let entry = table.by_pid(pid).and_then(|process| process.entry);
            assert_eq!(entry, Some((key(leader), kind)), "{pid}");
        }
    }
}
