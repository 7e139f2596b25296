//! One process: its program, its ids, its descriptors, and the changes between two of its states.

use std::sync::Arc;

use lapwing_common::{ABSENT, Credentials, Descriptor, Namespace, ProcessContext, Socket, State};
use smol_str::SmolStr;

use super::blocks::Blocks;
use super::peers::Peers;
use crate::budget::Charge;
use crate::sensor::actor::INITIAL_USER_NAMESPACE;
use crate::sensor::image::Image;
use crate::sensor::key::Key;

/// A process.
pub(in crate::sensor) struct Process {
    pub(in crate::sensor) key: Key,
    /// Unique over reuse of pids and over reboots; the same after `execve` and after a restart of the agent.
    pub(in crate::sensor) entity_id: SmolStr,
    /// Its start, in nanoseconds since boot.
    pub(in crate::sensor) start: u64,
    /// Its parent at its fork. A later reparenting does not change it.
    pub(in crate::sensor) parent: Option<Key>,
    pub(in crate::sensor) parent_pid: u32,
    pub(in crate::sensor) image: Arc<Image>,
    /// Its previous image; after a fork that of its parent.
    pub(in crate::sensor) previous: Option<Arc<Image>>,
    pub(in crate::sensor) credentials: Credentials,
    pub(in crate::sensor) context: ProcessContext,
    /// Standard input, output and error at the start of the program.
    pub(in crate::sensor) stdio: Option<[Descriptor; 3]>,
    /// The first of these that is an IPv4 or IPv6 socket.
    pub(in crate::sensor) socket: Option<Box<Socket>>,
    /// The connections that it made and accepted, and its datagram destinations.
    pub(super) peers: Option<Box<Peers>>,
    /// The first process of its session, login or service, and the type of that entry.
    pub(in crate::sensor) entry: Option<(Key, &'static str)>,
    /// Its cached blocks.
    pub(in crate::sensor) blocks: Blocks,
    pub(super) life: Life,
    pub(super) children: u32,
    /// The user who is charged for its bytes: its user at its fork, or at its last exec.
    pub(super) owner: u32,
    pub(super) charge: Charge,
}

/// The phase of a process's life.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// It runs.
    Alive,
    /// It ended, and is kept for a while.
    Lingering,
    /// It ended, and is kept only for its children.
    Past,
}

/// The names of the standard descriptors.
pub(in crate::sensor) const STDIO: [&str; 3] = ["stdin", "stdout", "stderr"];

/// Whether two descriptors refer to the same file. The number of its writers is ignored.
pub(in crate::sensor) fn is_same(one: &Descriptor, other: &Descriptor) -> bool {
    (one.inode, one.mode) == (other.inode, other.mode)
}

/// Whether a descriptor is a socket's.
pub(in crate::sensor) fn is_socket(descriptor: &Descriptor) -> bool {
    descriptor.mode & 0o170_000 == 0o140_000
}

/// The changes of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::sensor) struct Changes {
    /// It began a session.
    pub(in crate::sensor) session: bool,
    /// Its real, effective or saved user id changed.
    pub(in crate::sensor) user: bool,
    /// Its real, effective or saved group id changed.
    pub(in crate::sensor) group: bool,
}

impl Changes {
    /// The differences between two states; none if the old state is not known.
    pub(super) fn between(old: &State, new: &State) -> Self {
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

pub(super) fn user_namespace(context: &ProcessContext) -> u32 {
    context.namespaces[Namespace::User as usize]
}

/// The state of a process with these credentials and this context.
pub(in crate::sensor) fn state_of(credentials: &Credentials, context: &ProcessContext) -> State {
    State {
        uid: credentials.uid,
        gid: credentials.gid,
        suid: credentials.suid,
        sgid: credentials.sgid,
        euid: credentials.euid,
        egid: credentials.egid,
        pgid: context.pgid,
        sid: context.sid,
        tty: context.tty,
        actor: credentials.actor,
        effective: credentials.effective,
        permitted: credentials.permitted,
        cgroup: context.cgroup,
    }
}

impl Process {
    /// Whether its user namespace is known not to be the host's. The namespace's fixed inode number decides, because
    /// the agent may not be able to read `/proc/1/ns/user`.
    pub(in crate::sensor) fn is_of_other_users(&self) -> bool {
        !matches!(user_namespace(&self.context), 0 | INITIAL_USER_NAMESPACE)
    }

    /// The process's state at its last record.
    pub(in crate::sensor) fn state(&self) -> State {
        state_of(&self.credentials, &self.context)
    }

    pub(super) fn set_state(&mut self, state: &State) {
        let (credentials, context) = (&mut self.credentials, &mut self.context);
        (credentials.uid, credentials.euid, credentials.suid) = (state.uid, state.euid, state.suid);
        (credentials.gid, credentials.egid, credentials.sgid) = (state.gid, state.egid, state.sgid);
        credentials.actor = state.actor;
        (credentials.effective, credentials.permitted) = (state.effective, state.permitted);
        (context.pgid, context.sid, context.tty, context.cgroup) =
            (state.pgid, state.sid, state.tty, state.cgroup);
    }

    /// A connection of the process that began shortly before `time`.
    pub(in crate::sensor) fn recent_peer(&self, time: u64) -> Option<&Socket> {
        self.peers.as_ref()?.recent(time)
    }

    /// The connection that was a standard descriptor at the start of its program, and the names of these descriptors.
    pub(in crate::sensor) fn connection(&self) -> Option<(&Socket, Vec<&'static str>)> {
        let (socket, stdio) = (self.socket.as_deref()?, self.stdio.as_ref()?);
        let is_it = |descriptor: &Descriptor| is_socket(descriptor) && descriptor.inode == socket.inode;
        let held = STDIO.iter().zip(stdio).filter(|(_, descriptor)| is_it(descriptor));
        Some((socket, held.map(|(name, _)| *name).collect()))
    }

    /// The inode number of its mount namespace; zero if it is not known.
    pub(in crate::sensor) fn mount_namespace(&self) -> u32 {
        self.context.namespaces[Namespace::Mount as usize]
    }

    /// Whether the process leads its session.
    pub(in crate::sensor) fn is_session_leader(&self) -> bool {
        self.context.sid == self.key.pid
    }
}
