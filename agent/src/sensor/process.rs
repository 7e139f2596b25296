//! The process table: all processes, their parents, and the program of each.
//!
//! It is built from records. It reads `/proc` only for processes that ran before the agent, and to replace lost
//! records. An ended process stays while late records may name it, and while a child needs it as its parent. This
//! module imports the wire and no ECS.

mod blocks;
mod entered;
mod entry;
mod linger;
mod peers;
mod relief;
mod saved;
mod state;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lapwing_common::{ABSENT, Credentials, Fork, Socket, State, Task};
use sha2::{Digest, Sha256};
use smol_str::{SmolStr, ToSmolStr};
use zerocopy::IntoBytes as _;

pub(super) use self::blocks::BLOCKS;
use self::blocks::Blocks;
use self::entered::Namespaces;
pub(super) use self::peers::is_followed;
use self::peers::{Peer, Peers, is_of_interest};
pub(super) use self::saved::Saved;
pub(super) use self::state::{Changes, Process, STDIO, is_same, is_socket, state_of};
use self::state::{Life, user_namespace};
use super::groups::Groups;
use super::image::{self, Image};
use super::key::{Key, NO_CONTEXT, NO_CREDENTIALS, Origin};
use super::record::ExecRecord;
use super::snapshot;
use crate::budget::{Accounts, Meter};

/// Maximum number of bytes of kept processes, living and ended, with their programs. Beyond it processes of the user
/// who holds most are evicted (`relief`).
const PROCESSES_BYTES_MAX: usize = 12 << 20;
/// Maximum number of bytes of cached blocks. Beyond it all are dropped, and built again when needed.
const BLOCKS_BYTES_MAX: usize = 5 << 20;
/// The approximate bytes of a process without its program: the structure, its entity id, and its entries in three
/// lists, whose capacity is up to twice their length.
const PROCESS_BYTES: usize =
    size_of::<Process>() + size_of::<Peers>() + 48 + 2 * (2 * size_of::<Key>() + 24) + 32;
/// Maximum number of ancestors of a process that are reported.
const ANCESTORS_MAX: usize = 20;

/// The processes of this host.
pub(super) struct Table {
    /// Boxed, because a map's capacity is up to twice its length.
    processes: HashMap<Key, Box<Process>>,
    /// The latest process of each pid.
    current: HashMap<u32, Key>,
    /// Ended processes in the order of their ends: time, key and owner.
    ended: VecDeque<(u64, Key, u32)>,
    /// The number of ended processes of each user.
    ended_by_owner: HashMap<u32, usize>,
    /// Bytes held by each owner.
    accounts: Accounts,
    /// The cached blocks.
    blocks: Arc<Meter>,
    /// The known control groups.
    pub(super) groups: Groups,
    /// Containers by their namespaces.
    namespaces: Namespaces,
    boot: [u8; 8],
    swept: Instant,
    counts: TableCounts,
}

/// The counters of the table.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TableCounts {
    /// Processes that were evicted because of the limit.
    pub(crate) evicted: u64,
    /// Programs of which most arguments were dropped because of the limit.
    pub(crate) shortened: u64,
    /// Previous programs of processes that were dropped because of the limit.
    pub(crate) previous_dropped: u64,
    /// Processes whose first record was lost and which were recovered from procfs or a later record.
    pub(crate) recovered: u64,
    /// Processes that had ended although no record reported their exit.
    pub(crate) expired_without_exit: u64,
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

    /// A process, if it is known.
    pub(super) fn get(&self, key: Key) -> Option<&Process> {
        self.processes.get(&key).map(Box::as_ref)
    }

    /// The user who is responsible for a process; 0 if the process is not known.
    pub(super) fn owner(&self, key: Key) -> u32 {
        self.get(key).map_or(0, |process| process.owner)
    }

    fn each(&self) -> impl Iterator<Item = &Process> {
        self.processes.values().map(Box::as_ref)
    }

    /// The processes that lived at any moment between two recent times.
    pub(super) fn between(&self, from: u64, to: u64) -> Vec<&Process> {
        let over = self.ended.iter().filter(|(time, ..)| *time < from).map(|(_, key, _)| *key);
        let over: HashSet<Key> = over.collect();
        let lived = |process: &&Process| {
            process.life != Life::Past && process.start <= to && !over.contains(&process.key)
        };
        self.each().filter(lived).collect()
    }

    /// The latest process with this pid.
    pub(super) fn by_pid(&self, pid: u32) -> Option<&Process> {
        self.get(*self.current.get(&pid)?)
    }

    /// The entity id of a key, whether or not the process is known.
    pub(super) fn entity_id(&self, key: Key) -> SmolStr {
        let mut bytes = [0; 20];
        bytes[..8].copy_from_slice(&self.boot);
        bytes[8..12].copy_from_slice(&key.pid.to_le_bytes());
        bytes[12..].copy_from_slice(&key.ticks.to_le_bytes());
        STANDARD.encode(bytes).to_smolstr()
    }

    /// The key of an entity id, if it is of this boot.
    pub(super) fn key(&self, entity_id: &str) -> Option<Key> {
        Key::parse(entity_id).filter(|key| self.entity_id(*key) == entity_id)
    }

    /// The process's parent, its parent, and so on.
    pub(super) fn ancestors(&self, key: Key) -> impl Iterator<Item = &Process> {
        let parent = |process: &Process| self.get(process.parent?);
        std::iter::successors(self.get(key).and_then(parent), move |process| parent(process))
            .take(ANCESTORS_MAX)
    }

    /// The living children of a process.
    pub(super) fn children(&self, key: Key) -> impl Iterator<Item = &Process> {
        self.each().filter(move |process| process.parent == Some(key) && process.life == Life::Alive)
    }

    /// The counters.
    pub(super) fn counts(&self) -> TableCounts {
        self.counts
    }

    /// The bytes held, and their limits.
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

    /// How many processes ended recently and are kept for late records.
    pub(super) fn ended(&self) -> usize {
        self.ended.len()
    }

    /// How many processes live, as far as is known.
    pub(super) fn alive(&self) -> usize {
        self.each().filter(|process| process.life == Life::Alive).count()
    }

    /// Adds a process.
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
            context: origin.context,
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

    /// Applies the record of a fork. Returns the child's key.
    pub(super) fn fork(&mut self, record: &Fork) -> Key {
        self.groups.touch(record.context.cgroup);
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
            context: record.context,
        });
        if let Some(process) = self.change(key) {
            process.previous = Some(image);
        }
        key
    }

    /// Applies the record of an exec. Returns the process's key.
    pub(super) fn exec(&mut self, record: &ExecRecord<'_>, image: Image) -> Key {
        let fixed = record.fixed;
        self.groups.touch(fixed.context.cgroup);
        let key = Key::of(&fixed.task);
        let (image, owner) = (Arc::new(image), owner(&fixed.credentials));
        self.accounts.charge_once(&image.charge, owner, image.bytes());
        self.relieve();
        if let Some(process) = self.processes.get_mut(&key) {
            process.previous = Some(std::mem::replace(&mut process.image, image));
            process.credentials = fixed.credentials;
            process.context = fixed.context;
            if process.owner != owner {
                (process.owner, process.charge) = (owner, self.accounts.charge(owner, PROCESS_BYTES));
            }
        } else {
            self.counts.recovered += 1;
            let parent = self.parent(&fixed.task);
            let (pid, start, parent_pid) = (fixed.task.pid, fixed.task.start, fixed.task.parent);
            let (credentials, context) = (fixed.credentials, fixed.context);
            self.add(Origin { pid, start, parent, parent_pid, image, credentials, context });
        }
        if let Some(process) = self.change(key) {
            process.stdio = Some(fixed.stdio);
            process.socket = (fixed.socket.family != 0).then(|| Box::new(fixed.socket));
        }
        self.enter(key);
        self.learn_container(key);
        key
    }

    /// The process of a record. If its fork was lost, it is read from `/proc`, or built from the record.
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
            credentials: NO_CREDENTIALS,
            context: NO_CONTEXT,
        });
        self.add(Origin { parent, ..origin })
    }

    /// Updates a process's state. Returns the changes since its last record.
    pub(super) fn observe(&mut self, key: Key, state: &State) -> Changes {
        let Some(known) = self.get(key).map(Process::state) else { return Changes::default() };
        self.groups.touch(state.cgroup);
        if state.as_bytes() == known.as_bytes() {
            return Changes::default();
        }
        let changes = Changes::between(&known, state);
        if let Some(process) = self.change(key) {
            process.set_state(state);
        }
        if changes.session {
            self.enter(key);
        }
        changes
    }

    /// The process that created the standard input with which a process's program started: the nearest ancestor whose
    /// own program started with another standard input. An ancestor that ran before the agent, whose standard input is
    /// not known, counts too. If the ancestor has no connection and is a fork of a process that has one, the result is
    /// that process, which runs the same program.
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

    /// Adds a connection of a process.
    pub(super) fn connect(&mut self, key: Key, socket: &Socket, time: u64) {
        let Some(process) = self.processes.get_mut(&key).filter(|_| is_of_interest(socket)) else { return };
        process.peers.get_or_insert_default().add(Peer { socket: *socket, since: time });
    }

    /// Removes a connection of a process.
    pub(super) fn disconnect(&mut self, key: Key, socket: u64, time: u64) {
        if let Some(peers) = self.processes.get_mut(&key).and_then(|process| process.peers.as_mut()) {
            peers.remove(socket, time);
        }
    }

    /// The process that executed the program of a process: itself, or an ancestor from which it was forked. `None` if
    /// the standard descriptors at that time are not known.
    pub(super) fn starter<'a>(&'a self, process: &'a Process) -> Option<&'a Process> {
        let family = std::iter::once(process).chain(self.ancestors(process.key));
        let mut of_program = family.take_while(|one| Arc::ptr_eq(&one.image, &process.image));
        of_program.find(|one| one.stdio.is_some())
    }

    /// Updates a forking process by its child's state, except the capabilities and the responsible user, which a new
    /// user namespace may change, and the control group, which `clone3` may set. Returns the process, and the changes
    /// since its last record.
    pub(super) fn observe_forker(&mut self, record: &Fork) -> (Key, Changes) {
        let forker = Key::new(record.forker, record.forker_start);
        let child = state_of(&record.credentials, &record.context);
        let known = self.get(forker).map_or(child, Process::state);
        let actor = match self.get(forker) {
            Some(known) if user_namespace(&known.context) != user_namespace(&record.context) => {
                known.credentials.actor
            }
            _ => child.actor,
        };
        let (effective, permitted, cgroup) = (known.effective, known.permitted, known.cgroup);
        let state = State { actor, effective, permitted, cgroup, ..child };
        (forker, self.observe(forker, &state))
    }

    /// Drops the cached blocks of an ended process whose events are emitted. They are built again if needed.
    pub(super) fn slim(&mut self, key: Key) {
        self.change(key);
    }

    /// A process for a change. Its cached blocks are dropped. All changes of fields in blocks must use this method.
    fn change(&mut self, key: Key) -> Option<&mut Process> {
        let process = self.processes.get_mut(&key)?;
        process.blocks.clear();
        Some(process)
    }

    /// The parent in a record, recovered if it is not known.
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
}

/// The user who is charged for a process: the responsible user, or else its real user, which a set-id program does not
/// change.
fn owner(credentials: &Credentials) -> u32 {
    if credentials.actor == ABSENT { credentials.uid } else { credentials.actor }
}

#[cfg(test)]
mod tests {
    use lapwing_common::ProcessContext;

    use super::*;

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
                context: ProcessContext { sid: *sid, tty: *tty, ..NO_CONTEXT },
            });
        }
        table
    }

    pub(super) fn key(pid: u32) -> Key {
        Key::new(pid, u64::from(pid) * SECOND)
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

    /// A child begins with its parent's state, except capabilities.
    #[test]
    fn a_fork_shows_what_became_of_the_parent() {
        use zerocopy::FromZeros as _;
        let mut table = table(&[(1, 0, "/sbin/init", 1, 0), (7, 1, "/bin/sh", 1, 0)]);
        let mut known = table.by_pid(7).unwrap().state();
        (known.uid, known.gid, known.suid, known.sgid, known.euid, known.egid) = (5, 5, 5, 5, 5, 5);
        table.observe(key(7), &known);
        let mut fork = Fork::new_zeroed();
        (fork.forker, fork.forker_start) = (7, 7 * SECOND);
        (fork.credentials.effective, fork.context.sid) = (u64::MAX, 1);
        let changes = Changes { session: false, user: true, group: true };
        assert_eq!(table.observe_forker(&fork), (key(7), changes));
        assert_eq!(table.by_pid(7).unwrap().credentials.effective, 0);
    }
}
