//! Reads a task: its ids, its credentials, its namespaces and control group.

use aya_ebpf::Global;
use lapwing_common::layout::{Pointer, UPID_BYTES, UPID_NS};
use lapwing_common::{ABSENT, Credentials, Descriptor, Namespace, ProcessContext, State, Task};

use crate::layout::*;
use crate::process::current;
use crate::socket;

/// A pipe's type in `st_mode`.
const S_IFIFO: u16 = 0o010_000;
/// Maximum depth of nested user namespaces, one more than the kernel allows.
/// match-proto:v3.9:kernel/user_namespace.c:if (parent_ns->level > 32)
const USER_NAMESPACES_MAX: usize = 34;

/// Maximum depth of the agent's PID namespace below the host's.
const LEVELS_MAX: usize = 4;

/// The task's ids; zero if it is not in the namespace that is watched.
#[inline(always)]
pub(crate) fn identity<B: Base>(task: B) -> Task {
    let (leader, parent): (B, B) = (read(task, &TASK_LEADER), read(task, &TASK_PARENT));
    let parent: B = read(parent, &TASK_LEADER);
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
pub(crate) fn process_number<B: Base>(task: B, leader: B) -> u32 {
    if is_whole_host() { read(task, &TASK_TGID) } else { number(read(leader, &TASK_THREAD_PID)) }
}

/// Whether the task is in the namespace that is watched.
#[inline(always)]
pub(crate) fn is_watched<B: Base>(task: B) -> bool {
    is_whole_host() || {
        let leader: B = read(task, &TASK_LEADER);
        process_number(task, leader) != 0
    }
}

/// Whether the processes of all namespaces are watched. It is a constant to the verifier, which drops the other branch.
#[inline(always)]
fn is_whole_host() -> bool {
    PID_NAMESPACE.load() == 0
}

/// The number of a `struct pid` in the namespace that is watched; zero if it has none there.
#[inline(never)]
fn number(pid: Address) -> u32 {
    let watched = PID_NAMESPACE.load();
    let deepest: u32 = read(pid, &PID_LEVEL);
    let mut upid = at(pid, &PID_NUMBERS);
    for level in 0..=LEVELS_MAX {
        if level > deepest as usize {
            break;
        }
        let namespace: Address = upid.read_at(UPID_NS);
        if read_or(namespace, &NS_PID_INUM, 0) == watched {
            return upid.read_at(0);
        }
        upid = upid.wrapping_add(UPID_BYTES);
    }
    0
}

/// What the task may do.
#[inline(always)]
pub(crate) fn credentials<B: Base>(task: B) -> Credentials {
    let cred: B = read(task, &TASK_CRED);
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

/// The real, saved and effective user and group, which are adjacent.
/// match-proto:v2.6.29:include/linux/cred.h:struct cred
#[inline(always)]
pub(crate) fn ids(cred: impl Base) -> [u32; 6] {
    read(cred, &CRED_IDS)
}

/// The user of the host who answers for these credentials. Ids that a user namespace maps cost nothing to get: its
/// owner counts, and of nested ones the owner of the outermost.
#[inline(never)]
fn actor<B: Base>(cred: B) -> u32 {
    owner(cred)
}

/// The user of the host who answers for the current task. A function of its own, not one that calls [`actor`], so that
/// both fit into what a program leaves of its stack.
#[inline(never)]
pub(crate) fn current_actor() -> u32 {
    let cred: Address = read(current(), &TASK_REAL_CRED);
    owner(cred)
}

#[inline(always)]
fn owner<B: Base>(cred: B) -> u32 {
    let mut user: u32 = read(cred, &CRED_UID);
    if !(has(&CRED_USER_NS) && has(&USER_NS_PARENT)) {
        return user;
    }
    let mut namespace: B = read(cred, &CRED_USER_NS);
    for _ in 0..USER_NAMESPACES_MAX {
        let above: B = read(namespace, &USER_NS_PARENT);
        if above.address().is_null() {
            break;
        }
        user = read_or(namespace, &USER_NS_OWNER, user);
        namespace = above;
    }
    user
}

/// The state of the task's process, by its own credentials: credentials that the kernel overrides for one call are no
/// change.
#[inline(always)]
pub(crate) fn own_state<B: Base>(task: B) -> State {
    let cred: B = read(task, &TASK_REAL_CRED);
    state(task, cred)
}

/// The state of the task's process with these credentials.
#[inline(always)]
pub(crate) fn state<B: Base>(task: B, cred: B) -> State {
    let [uid, gid, suid, sgid, euid, egid] = ids(cred);
    let signal: B = read(task, &TASK_SIGNAL);
    State {
        uid,
        gid,
        suid,
        sgid,
        euid,
        egid,
        pgid: group(signal, &PIDTYPE_PGID),
        sid: group(signal, &PIDTYPE_SID),
        tty: terminal(signal),
        actor: actor(cred),
        effective: read(cred, &CRED_CAP_EFFECTIVE),
        permitted: read(cred, &CRED_CAP_PERMITTED),
        cgroup: cgroup_id(task),
    }
}

/// Where the task runs.
#[inline(always)]
pub(crate) fn context<B: Base>(task: B) -> ProcessContext {
    let signal: B = read(task, &TASK_SIGNAL);
    let pid: B = read(task, &TASK_THREAD_PID);
    let level: u32 = read(pid, &PID_LEVEL);
    // Which of them is decided when the program runs, so the verifier has no type there.
    let upid = at(pid.address(), &PID_NUMBERS).wrapping_add(level as usize * UPID_BYTES);
    ProcessContext {
        pgid: group(signal, &PIDTYPE_PGID),
        sid: group(signal, &PIDTYPE_SID),
        tty: terminal(signal),
        vpid: upid.read_at(0),
        namespaces: namespaces(task, upid.read_at(UPID_NS)),
        cgroup: cgroup_id(task),
    }
}

/// The task's mount namespace; none where this kernel does not say.
#[inline(always)]
pub(crate) fn mount_namespace<B: Base>(task: B) -> Address {
    let proxy: B = read(task, &TASK_NSPROXY);
    read_or(proxy, &NSPROXY_MNT, core::ptr::null())
}

/// Standard input, output and error.
#[inline(always)]
pub(crate) fn stdio<B: Base>(task: B) -> [Descriptor; 3] {
    let files: B = read(task, &TASK_FILES);
    let table: B = read(files, &FILES_FDT);
    let open: Address = read(table, &FDTABLE_FD);
    let files: [Address; 3] = open.read_at(0);
    let mut stdio = files.map(|file| {
        let inode: Address = read(file, &FILE_INODE);
        Descriptor {
            inode: read(inode, &INODE_INO),
            mode: u32::from(read(inode, &INODE_MODE)),
            device: read(inode, &INODE_RDEV),
        }
    });
    if let Some(writers) = writers(files[0], stdio[0].mode as u16) {
        stdio[0].device = writers;
    }
    stdio
}

/// How many may write to an open pipe, and whether the other end of a socket may.
#[inline(always)]
fn writers(file: Address, mode: u16) -> Option<u32> {
    /// match-proto:v2.6.12:include/net/sock.h:#define RCV_SHUTDOWN
    const RCV_SHUTDOWN: u8 = 1;
    if socket::is_socket(mode) {
        let shutdown: u8 = read_or(socket::of_file(file), &SOCK_SHUTDOWN, 0);
        Some(u32::from(shutdown & RCV_SHUTDOWN == 0))
    } else if mode & socket::S_IFMT == S_IFIFO {
        let inode: Address = read(file, &FILE_INODE);
        let pipe: Address = read_or(inode, &INODE_PIPE, core::ptr::null());
        Some(read_or(pipe, &PIPE_WRITERS, 1))
    } else {
        None
    }
}

/// The file behind a descriptor of the task.
#[inline(always)]
pub(crate) fn file(task: Address, descriptor: u32) -> Address {
    let files: Address = read(task, &TASK_FILES);
    let table: Address = read(files, &FILES_FDT);
    let max: u32 = read(table, &FDTABLE_MAX);
    if descriptor >= max {
        return core::ptr::null();
    }
    let open: Address = read(table, &FDTABLE_FD);
    open.read_at(descriptor as usize * size_of::<Address>())
}

/// The id of the task's control group in the hierarchy by which this host distinguishes containers; zero where this
/// kernel has none.
#[inline(always)]
pub(crate) fn cgroup_id(task: impl Base) -> u64 {
    read_or(cgroup(task), &KERNFS_ID, 0)
}

/// The node of that control group.
#[inline(always)]
pub(crate) fn cgroup<B: Base>(task: B) -> Address {
    let controller = CGROUP_CONTROLLER.load();
    let is_unified = controller == ABSENT;
    let has_group =
        if is_unified { has(&CSS_SET_DFL_CGRP) } else { has(&CSS_CGROUP) && has(&CSS_SET_SUBSYS) };
    if !(has(&TASK_CGROUPS) && has(&CGROUP_KN) && has_group) {
        return core::ptr::null();
    }
    let set: B = read(task, &TASK_CGROUPS);
    let group: B = if is_unified {
        read(set, &CSS_SET_DFL_CGRP)
    } else {
        read(element(set, &CSS_SET_SUBSYS, controller), &CSS_CGROUP)
    };
    read(group, &CGROUP_KN)
}

#[inline(always)]
fn group<B: Base>(signal: B, kind: &Global<u32>) -> u32 {
    let pid = element(signal, &SIGNAL_PIDS, kind.load());
    if is_whole_host() { read(pid, &PID_NUMBERS) } else { number(pid.address()) }
}

/// The controlling terminal's device number, as the kernel writes it: major above 20 bits of minor.
#[inline(always)]
fn terminal<B: Base>(signal: B) -> u32 {
    let tty: B = read(signal, &SIGNAL_TTY);
    if tty.address().is_null() {
        return 0;
    }
    let driver: B = read(tty, &TTY_DRIVER);
    let major: u32 = read(driver, &TTY_DRIVER_MAJOR);
    let minor: u32 = read(driver, &TTY_DRIVER_MINOR);
    let index: u32 = read(tty, &TTY_INDEX);
    (major << 20) | (minor.wrapping_add(index) & 0xf_ffff)
}

#[inline(always)]
fn namespaces<B: Base>(task: B, pid_namespace: Address) -> [u32; 8] {
    let proxy: B = read(task, &TASK_NSPROXY);
    let cred: B = read(task, &TASK_CRED);
    let mut inodes = [0; 8];
    inodes[Namespace::Cgroup as usize] = inode(proxy, &NSPROXY_CGROUP, &NS_CGROUP_INUM);
    inodes[Namespace::Ipc as usize] = inode(proxy, &NSPROXY_IPC, &NS_IPC_INUM);
    inodes[Namespace::Mount as usize] = inode(proxy, &NSPROXY_MNT, &NS_MNT_INUM);
    inodes[Namespace::Network as usize] = inode(proxy, &NSPROXY_NET, &NET_INUM);
    inodes[Namespace::Pid as usize] = read_or(pid_namespace, &NS_PID_INUM, 0);
    inodes[Namespace::User as usize] = inode(cred, &CRED_USER_NS, &NS_USER_INUM);
    inodes[Namespace::Uts as usize] = inode(proxy, &NSPROXY_UTS, &NS_UTS_INUM);
    inodes
}

/// The inode of the namespace that a member leads to; zero where this kernel does not have it.
#[inline(always)]
fn inode<B: Base>(holder: B, namespace: &Member<Pointer>, inode: &Member<u32>) -> u32 {
    if !(has(namespace) && has(inode)) {
        return 0;
    }
    let namespace: B = read(holder, namespace);
    read(namespace, inode)
}
