//! What a task tells of itself: who it is, what it may do, where it runs.

use aya_ebpf::Global;
use lapwing_common::layout::NSPROXY_BYTES;
use lapwing_common::{ABSENT, Credentials, Descriptor, Namespace, Place, State, Task};

use crate::layout::*;
use crate::process::current;

/// `PIDTYPE_PGID` and `PIDTYPE_SID`; match-proto:v4.19:include/linux/pid_types.h:enum pid_type
const PIDTYPE_PGID: usize = 2;
const PIDTYPE_SID: usize = 3;
/// The size of `struct upid`, of which a `struct pid` holds one for each level of namespaces: a number, and the
/// namespace's address. match-proto:v2.6.24:include/linux/pid.h:struct upid
const UPID_BYTES: usize = 16;
const UPID_NS: usize = 8;

/// How deep user namespaces may lie in each other, one more than the kernel lets be made.
/// match-proto:v3.9:kernel/user_namespace.c:if (parent_ns->level > 32)
const USER_NAMESPACES_MAX: usize = 34;

/// How deep the agent's namespace of processes may lie below the host's.
const LEVELS_MAX: usize = 4;

/// Who the task is. Its numbers are zero where it is not in the namespace that is watched.
#[inline(always)]
pub(crate) fn identity(task: Address) -> Task {
    let leader: Address = read(task, &TASK_LEADER);
    let parent: Address = read(read(task, &TASK_PARENT), &TASK_LEADER);
    let thread = read(task, &TASK_PID);
    Task {
        pid: process_number(task, leader),
        thread: if is_whole_host() { thread } else { number(read(task, &TASK_THREAD_PID)) },
        start: read(leader, &TASK_START),
        parent_start: read(parent, &TASK_START),
        parent: process_number(parent, parent),
        reserved: 0,
        comm: read(task, &TASK_COMM),
    }
}

/// The number of the process that a task belongs to, whose first thread is `leader`.
#[inline(always)]
pub(crate) fn process_number(task: Address, leader: Address) -> u32 {
    if is_whole_host() { read(task, &TASK_TGID) } else { number(read(leader, &TASK_THREAD_PID)) }
}

/// Whether the task is in the namespace that is watched.
#[inline(always)]
pub(crate) fn is_watched(task: Address) -> bool {
    is_whole_host() || process_number(task, read(task, &TASK_LEADER)) != 0
}

/// Whether the processes of all namespaces are watched. The verifier knows, and drops the other branch.
#[inline(always)]
fn is_whole_host() -> bool {
    PID_NAMESPACE.load() == 0
}

/// What a `struct pid` is in the namespace that is watched; zero where it is nothing there.
#[inline(never)]
fn number(pid: Address) -> u32 {
    let watched = PID_NAMESPACE.load();
    let deepest: u32 = read(pid, &PID_LEVEL);
    let mut upid = at(pid, &PID_NUMBERS);
    for level in 0..=LEVELS_MAX {
        if level > deepest as usize {
            break;
        }
        if read_or::<u32>(read_at(upid, UPID_NS), &NS_PID_INUM, 0) == watched {
            return read_at(upid, 0);
        }
        upid = upid.wrapping_add(UPID_BYTES);
    }
    0
}

/// What the task may do.
#[inline(always)]
pub(crate) fn credentials(task: Address) -> Credentials {
    let cred: Address = read(task, &TASK_CRED);
    let [uid, gid, suid, sgid, euid, egid] = ids(cred);
    Credentials {
        uid,
        gid,
        euid,
        egid,
        suid,
        sgid,
        login_uid: read_or(task, &TASK_LOGIN_UID, ABSENT),
        session_id: read_or(task, &TASK_SESSION_ID, ABSENT),
        actor: actor(cred),
        reserved: 0,
        effective: read(cred, &CRED_CAP_EFFECTIVE),
        permitted: read(cred, &CRED_CAP_PERMITTED),
    }
}

/// The real, saved and effective user and group, which lie one after the other.
/// match-proto:v2.6.29:include/linux/cred.h:struct cred
#[inline(always)]
pub(crate) fn ids(cred: Address) -> [u32; 6] {
    read(cred, &CRED_UID)
}

/// The user of the host who answers for these credentials. Ids that a user namespace maps cost nothing to get: its
/// owner counts, and of nested ones the owner of the outermost.
#[inline(never)]
fn actor(cred: Address) -> u32 {
    owner(cred)
}

/// The user of the host who answers for the current task. A function of its own, not one that calls [`actor`], so that
/// both fit into what a program leaves of its stack.
#[inline(never)]
pub(crate) fn current_actor() -> u32 {
    owner(read(current(), &TASK_REAL_CRED))
}

#[inline(always)]
fn owner(cred: Address) -> u32 {
    let mut user: u32 = read(cred, &CRED_UID);
    let mut namespace: Address = read_or(cred, &CRED_USER_NS, core::ptr::null());
    for _ in 0..USER_NAMESPACES_MAX {
        let above: Address = read_or(namespace, &USER_NS_PARENT, core::ptr::null());
        if above.is_null() {
            break;
        }
        user = read_or(namespace, &USER_NS_OWNER, user);
        namespace = above;
    }
    user
}

/// What the task's process is at this moment, by its own credentials: what the kernel lets it act as for the length of
/// one call is no change.
#[inline(always)]
pub(crate) fn own_state(task: Address) -> State {
    state(task, read(task, &TASK_REAL_CRED))
}

/// What the task's process is with these credentials.
#[inline(always)]
pub(crate) fn state(task: Address, cred: Address) -> State {
    let [uid, gid, suid, sgid, euid, egid] = ids(cred);
    let signal: Address = read(task, &TASK_SIGNAL);
    State {
        uid,
        gid,
        suid,
        sgid,
        euid,
        egid,
        pgid: group(signal, PIDTYPE_PGID),
        sid: group(signal, PIDTYPE_SID),
        tty: terminal(signal),
        actor: actor(cred),
        effective: read(cred, &CRED_CAP_EFFECTIVE),
        permitted: read(cred, &CRED_CAP_PERMITTED),
    }
}

/// Where the task runs.
#[inline(always)]
pub(crate) fn place(task: Address) -> Place {
    let signal: Address = read(task, &TASK_SIGNAL);
    let pid: Address = read(task, &TASK_THREAD_PID);
    let level: u32 = read(pid, &PID_LEVEL);
    let upid = at(pid, &PID_NUMBERS).wrapping_add(level as usize * UPID_BYTES);
    Place {
        pgid: group(signal, PIDTYPE_PGID),
        sid: group(signal, PIDTYPE_SID),
        tty: terminal(signal),
        vpid: read_at(upid, 0),
        namespaces: namespaces(task, read_at(upid, UPID_NS)),
        cgroup: read_or(cgroup(task), &KERNFS_ID, 0),
    }
}

/// The task's mount namespace; none where this kernel does not say.
#[inline(always)]
pub(crate) fn mount_namespace(task: Address) -> Address {
    read_or(read(task, &TASK_NSPROXY), &NSPROXY_MNT, core::ptr::null())
}

/// Standard input, output and error.
#[inline(always)]
pub(crate) fn stdio(task: Address) -> [Descriptor; 3] {
    let table: Address = read(read(task, &TASK_FILES), &FILES_FDT);
    let open: Address = read(table, &FDTABLE_FD);
    [0, 1, 2].map(|number| {
        let inode: Address = read(read_at(open, number * size_of::<Address>()), &FILE_INODE);
        Descriptor {
            inode: read(inode, &INODE_INO),
            mode: u32::from(read::<u16>(inode, &INODE_MODE)),
            device: read(inode, &INODE_RDEV),
        }
    })
}

/// The file behind a descriptor of the task.
#[inline(always)]
pub(crate) fn file(task: Address, descriptor: u32) -> Address {
    let table: Address = read(read(task, &TASK_FILES), &FILES_FDT);
    let max: u32 = read(table, &FDTABLE_MAX);
    if descriptor >= max {
        return core::ptr::null();
    }
    read_at(read(table, &FDTABLE_FD), descriptor as usize * size_of::<Address>())
}

/// The node of the task's control group in the hierarchy by which this host tells containers apart.
#[inline(always)]
pub(crate) fn cgroup(task: Address) -> Address {
    let set: Address = read_or(task, &TASK_CGROUPS, core::ptr::null());
    let controller = CGROUP_CONTROLLER.load();
    let group: Address = if controller == ABSENT {
        read_or(set, &CSS_SET_DFL_CGRP, core::ptr::null())
    } else {
        let states = at(set, &CSS_SET_SUBSYS);
        read_or(read_at(states, controller as usize * size_of::<Address>()), &CSS_CGROUP, core::ptr::null())
    };
    read_or(group, &CGROUP_KN, core::ptr::null())
}

#[inline(always)]
fn group(signal: Address, kind: usize) -> u32 {
    let pids = at(signal, &SIGNAL_PIDS);
    let pid: Address = read_at(pids, kind * size_of::<Address>());
    if is_whole_host() { read(pid, &PID_NUMBERS) } else { number(pid) }
}

/// The controlling terminal's device number, as the kernel writes it: major above 20 bits of minor.
#[inline(always)]
fn terminal(signal: Address) -> u32 {
    let tty: Address = read(signal, &SIGNAL_TTY);
    if tty.is_null() {
        return 0;
    }
    let driver: Address = read(tty, &TTY_DRIVER);
    let major: u32 = read(driver, &TTY_DRIVER_MAJOR);
    let minor: u32 = read(driver, &TTY_DRIVER_MINOR);
    let index: u32 = read(tty, &TTY_INDEX);
    (major << 20) | (minor.wrapping_add(index) & 0xf_ffff)
}

#[inline(always)]
fn namespaces(task: Address, pid_namespace: Address) -> [u32; 8] {
    let proxy = Window::<NSPROXY_BYTES>::of(read(task, &TASK_NSPROXY));
    let of = |namespace: &Global<u32>, inode: &Global<u32>| -> u32 {
        read_or(proxy.get::<u64>(namespace) as Address, inode, 0)
    };
    let user: Address = read_or(read(task, &TASK_CRED), &CRED_USER_NS, core::ptr::null());
    let mut inodes = [0; 8];
    inodes[Namespace::Cgroup as usize] = of(&NSPROXY_CGROUP, &NS_CGROUP_INUM);
    inodes[Namespace::Ipc as usize] = of(&NSPROXY_IPC, &NS_IPC_INUM);
    inodes[Namespace::Mount as usize] = of(&NSPROXY_MNT, &NS_MNT_INUM);
    inodes[Namespace::Network as usize] = of(&NSPROXY_NET, &NET_INUM);
    inodes[Namespace::Pid as usize] = read_or(pid_namespace, &NS_PID_INUM, 0);
    inodes[Namespace::User as usize] = read_or(user, &NS_USER_INUM, 0);
    inodes[Namespace::Uts as usize] = of(&NSPROXY_UTS, &NS_UTS_INUM);
    inodes
}
