//! The offsets of kernel fields, and the numbers of kernel enumerators: two tables, resolved against the running
//! kernel's BTF when the programs are loaded.
//!
//! Each row is a read-only global of the kernel programs. User space looks its path up and sets it; the verifier then
//! sees a constant. A row of [`layout!`](crate::layout!) says what is read there, too, as a type ([`Reads`]): the
//! programs can read nothing else of it, and user space takes only a member that has that kind and width.
//!
//! Where a member was renamed or moved, `or` gives the other path; `then` names members that are read together with the
//! first, because they follow it without a gap. A path goes on into the first element of an array. A structure alone
//! stands for its size: what is read there follows it. A `required` row that no path resolves is an error at the start;
//! an `optional` one is [`ABSENT`](crate::ABSENT), and its field stays empty.

use core::marker::PhantomData;

/// How much of a `struct sock_common` is read at once; what the table names of it lies inside.
pub const SOCK_COMMON_BYTES: usize = 120;
/// Structures that are read at once, with how much of them.
pub const WINDOWS: [(&str, usize); 1] = [("sock_common", SOCK_COMMON_BYTES)];

/// The size of `struct upid`, of which a `struct pid` holds one for each level of namespaces: a number, and the
/// namespace's address.
pub const UPID_BYTES: usize = 16;
/// The offset of the address in it.
pub const UPID_NS: usize = 8;
/// Constants of the programs: a kernel with another offset is not supported.
pub const FIXED: [(&str, usize); 3] = [("upid", UPID_BYTES), ("upid.nr", 0), ("upid.ns", UPID_NS)];

/// What is read of a member, by which the member has to be that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// An integer of this many bytes, signed or not, an enumeration, or a structure that has one of these and nothing
    /// else.
    Integer(u32),
    /// An integer of at least this many bytes.
    Low(u32),
    /// An address.
    Pointer,
    /// An array or a structure that begins with this many bytes of integers.
    Integers(u32),
    /// An array or a structure that begins with this many bytes of addresses.
    Pointers(u32),
    /// A structure. Only its offset is used: its members have rows of their own.
    Structure,
}

impl Shape {
    /// How many bytes are read.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        match self {
            Self::Integer(bytes) | Self::Low(bytes) | Self::Integers(bytes) | Self::Pointers(bytes) => bytes,
            Self::Pointer => POINTER_BYTES,
            Self::Structure => 0,
        }
    }
}

/// The size of an address: the programs are for 64 bits.
const POINTER_BYTES: u32 = 8;

/// A type that a row of the table reads its member by.
pub trait Reads {
    /// What the member has to be for it.
    const SHAPE: Shape;
}

/// The address of something.
#[derive(Debug)]
pub struct Pointer;
/// A structure in another, of which only the place is of interest.
#[derive(Debug)]
pub struct Structure;
/// The low bytes of an integer that is wider on some kernels. They come first: the programs are for that byte order.
#[derive(Debug)]
pub struct Low<T>(PhantomData<T>);
/// An array or a structure of integers, read as one.
#[derive(Debug)]
pub struct AsOne<T>(PhantomData<T>);

impl Reads for Pointer {
    const SHAPE: Shape = Shape::Pointer;
}
impl Reads for Structure {
    const SHAPE: Shape = Shape::Structure;
}
impl<T> Reads for Low<T> {
    const SHAPE: Shape = Shape::Low(size_of::<T>() as u32);
}
impl<T> Reads for AsOne<T> {
    const SHAPE: Shape = Shape::Integers(size_of::<T>() as u32);
}
impl<const N: usize> Reads for [Pointer; N] {
    const SHAPE: Shape = Shape::Pointers(N as u32 * POINTER_BYTES);
}
macro_rules! integers {
    ($($integer:ty),*) => {$(
        impl Reads for $integer {
            const SHAPE: Shape = Shape::Integer(size_of::<$integer>() as u32);
        }
        impl<const N: usize> Reads for [$integer; N] {
            const SHAPE: Shape = Shape::Integers((N * size_of::<$integer>()) as u32);
        }
    )*};
}
integers!(u8, u16, u32, u64);

/// Hands the enumerators to the macro `$with`: what the kernel may number otherwise from one release to the next.
#[macro_export]
macro_rules! enumerators {
    ($with:ident) => {
        $with! {
            // Which controller's hierarchy names control groups. It is left absent where the unified one does.
            optional CGROUP_CONTROLLER: "cgroup_subsys_id.pids_cgrp_id";
            required PIDTYPE_PGID: "pid_type.PIDTYPE_PGID";
            required PIDTYPE_SID: "pid_type.PIDTYPE_SID";
            // The bit of a socket's flags that says that the peer's FIN came.
            optional SOCK_DONE: "sock_flags.SOCK_DONE";
            // Whether the kernel hands over the current task by its type (since 5.11).
            optional TYPED_TASK: "bpf_func_id.BPF_FUNC_get_current_task_btf";
        }
    };
}

/// Hands the table to the macro `$with`, so that both sides are made of the same rows.
#[macro_export]
macro_rules! layout {
    ($with:ident) => {
        $with! {
            required BINPRM_ARGC: u32 = "linux_binprm.argc";
            required BINPRM_FILE: Pointer = "linux_binprm.file";
            required BINPRM_FILENAME: Pointer = "linux_binprm.filename";
            required BINPRM_INTERP: Pointer = "linux_binprm.interp";
            optional BPF_LINK_ID: u32 = "bpf_link.id";
            optional BPF_MAP_ID: u32 = "bpf_map.id";
            optional CGROUP_KN: Pointer = "cgroup.kn";
            // Two numbers of four bytes before 6.3.
            required CRED_CAP_EFFECTIVE: AsOne<u64> = "cred.cap_effective";
            required CRED_CAP_PERMITTED: AsOne<u64> = "cred.cap_permitted";
            // The real, saved and effective user and group, which are adjacent.
            required CRED_IDS: [u32; 6] = "cred.uid" then "cred.gid" then "cred.suid" then "cred.sgid" then "cred.euid"
                then "cred.egid";
            required CRED_UID: u32 = "cred.uid";
            optional CRED_USER_NS: Pointer = "cred.user_ns";
            optional CSS_CGROUP: Pointer = "cgroup_subsys_state.cgroup";
            optional CSS_SET_DFL_CGRP: Pointer = "css_set.dfl_cgrp";
            optional CSS_SET_SUBSYS: [Pointer; 1] = "css_set.subsys";
            required DENTRY_HASHED: Pointer = "dentry.d_hash.pprev";
            required DENTRY_NAME: Pointer = "dentry.d_name.name";
            required DENTRY_PARENT: Pointer = "dentry.d_parent";
            required FDTABLE_FD: Pointer = "fdtable.fd";
            required FDTABLE_MAX: u32 = "fdtable.max_fds";
            required FILES_FDT: Pointer = "files_struct.fdt";
            required FILE_DENTRY: Pointer = "file.f_path.dentry";
            required FILE_INODE: Pointer = "file.f_inode";
            required FILE_MNT: Pointer = "file.f_path.mnt";
            required FILE_PRIVATE: Pointer = "file.private_data";
            required FS_PWD_DENTRY: Pointer = "fs_struct.pwd.dentry";
            required FS_PWD_MNT: Pointer = "fs_struct.pwd.mnt";
            required INET_SPORT: u16 = "inet_sock.inet_sport";
            // What a file system keeps of its own follows the inode.
            optional INODE_BYTES: Pointer = "inode";
            // Two members of their own since 6.11; renamed in 6.6.
            optional INODE_CTIME_NANOS: Low<u32> = "inode.i_ctime_nsec" or "inode.__i_ctime.tv_nsec"
                or "inode.i_ctime.tv_nsec";
            optional INODE_CTIME_SECS: u64 = "inode.i_ctime_sec" or "inode.__i_ctime.tv_sec"
                or "inode.i_ctime.tv_sec";
            optional INODE_GENERATION: u32 = "inode.i_generation";
            required INODE_INO: u64 = "inode.i_ino";
            required INODE_MODE: u16 = "inode.i_mode";
            optional INODE_PIPE: Pointer = "inode.i_pipe";
            required INODE_RDEV: u32 = "inode.i_rdev";
            required INODE_SB: Pointer = "inode.i_sb";
            optional INODE_SIZE: u64 = "inode.i_size";
            optional KERNFS_ID: u64 = "kernfs_node.id";
            optional KERNFS_NAME: Pointer = "kernfs_node.name";
            // Renamed in 6.15, when it became an RCU pointer.
            optional KERNFS_PARENT: Pointer = "kernfs_node.__parent" or "kernfs_node.parent";
            required MM_ARG_END: u64 = "mm_struct.arg_end";
            required MM_ARG_START: u64 = "mm_struct.arg_start";
            required MM_ENV_END: u64 = "mm_struct.env_end";
            required MM_ENV_START: u64 = "mm_struct.env_start";
            optional MM_EXE_FILE: Pointer = "mm_struct.exe_file";
            required MOUNT_MNT: Structure = "mount.mnt";
            required MOUNT_MOUNTPOINT: Pointer = "mount.mnt_mountpoint";
            optional MOUNT_NAMESPACE: Pointer = "mount.mnt_ns";
            required MOUNT_PARENT: Pointer = "mount.mnt_parent";
            optional MPTCP_FIRST: Pointer = "mptcp_sock.first";
            optional NET_INUM: u32 = "net.ns.inum";
            optional NSPROXY_CGROUP: Pointer = "nsproxy.cgroup_ns";
            optional NSPROXY_IPC: Pointer = "nsproxy.ipc_ns";
            optional NSPROXY_MNT: Pointer = "nsproxy.mnt_ns";
            optional NSPROXY_NET: Pointer = "nsproxy.net_ns";
            optional NSPROXY_UTS: Pointer = "nsproxy.uts_ns";
            optional NS_CGROUP_INUM: u32 = "cgroup_namespace.ns.inum";
            optional NS_IPC_INUM: u32 = "ipc_namespace.ns.inum";
            optional NS_MNT_INUM: u32 = "mnt_namespace.ns.inum";
            optional NS_PID_INUM: u32 = "pid_namespace.ns.inum";
            optional NS_USER_INUM: u32 = "user_namespace.ns.inum";
            optional NS_UTS_INUM: u32 = "uts_namespace.ns.inum";
            optional PIPE_WRITERS: u32 = "pipe_inode_info.writers";
            required PID_LEVEL: u32 = "pid.level";
            required PID_NUMBERS: u32 = "pid.numbers.nr";
            required SIGNAL_FLAGS: u32 = "signal_struct.flags";
            required SIGNAL_GROUP_EXIT_CODE: u32 = "signal_struct.group_exit_code";
            required SIGNAL_LIVE: u32 = "signal_struct.live";
            required SIGNAL_PIDS: [Pointer; 4] = "signal_struct.pids";
            required SIGNAL_TTY: Pointer = "signal_struct.tty";
            required SOCKET_ALLOC_INODE: Structure = "socket_alloc.vfs_inode";
            required SOCKET_SK: Pointer = "socket.sk";
            required SOCK_DADDR: u32 = "sock_common.skc_daddr";
            required SOCK_DPORT: u16 = "sock_common.skc_dport";
            optional SOCK_FLAGS: u64 = "sock_common.skc_flags";
            required SOCK_FAMILY: u16 = "sock_common.skc_family";
            optional SOCK_NET: Pointer = "sock_common.skc_net.net";
            required SOCK_PROTOCOL: u16 = "sock.sk_protocol";
            required SOCK_SADDR: u32 = "sock_common.skc_rcv_saddr";
            required SOCK_SOCKET: Pointer = "sock.sk_socket";
            optional SOCK_SHUTDOWN: u8 = "sock.sk_shutdown";
            required SOCK_STATE: u8 = "sock_common.skc_state";
            optional SOCK_V6_DADDR: [u32; 4] = "sock_common.skc_v6_daddr";
            optional SOCK_V6_SADDR: [u32; 4] = "sock_common.skc_v6_rcv_saddr";
            optional SUPER_BLOCK_DEV: u32 = "super_block.s_dev";
            optional SUPER_BLOCK_MAGIC: u64 = "super_block.s_magic";
            optional SUPER_BLOCK_USER_NS: Pointer = "super_block.s_user_ns";
            optional TASK_CGROUPS: Pointer = "task_struct.cgroups";
            required TASK_COMM: [u8; 16] = "task_struct.comm";
            required TASK_CRED: Pointer = "task_struct.cred";
            required TASK_EXIT_CODE: u32 = "task_struct.exit_code";
            required TASK_FILES: Pointer = "task_struct.files";
            required TASK_FS: Pointer = "task_struct.fs";
            required TASK_LEADER: Pointer = "task_struct.group_leader";
            optional TASK_LOGIN_UID: u32 = "task_struct.loginuid";
            required TASK_MM: Pointer = "task_struct.mm";
            required TASK_NSPROXY: Pointer = "task_struct.nsproxy";
            required TASK_PARENT: Pointer = "task_struct.real_parent";
            required TASK_PID: u32 = "task_struct.pid";
            optional TASK_PTRACED: [Pointer; 2] = "task_struct.ptraced";
            optional TASK_PTRACE_ENTRY: [Pointer; 2] = "task_struct.ptrace_entry";
            required TASK_REAL_CRED: Pointer = "task_struct.real_cred";
            optional TASK_SESSION_ID: u32 = "task_struct.sessionid";
            required TASK_SIGNAL: Pointer = "task_struct.signal";
            required TASK_START: u64 = "task_struct.start_boottime" or "task_struct.real_start_time";
            required TASK_TGID: u32 = "task_struct.tgid";
            required TASK_THREAD_PID: Pointer = "task_struct.thread_pid";
            optional TCP_BYTES_RECEIVED: u64 = "tcp_sock.bytes_received";
            optional TCP_BYTES_RETRANS: u64 = "tcp_sock.bytes_retrans";
            optional TCP_BYTES_SENT: u64 = "tcp_sock.bytes_sent";
            required TTY_DRIVER: Pointer = "tty_struct.driver";
            required TTY_DRIVER_MAJOR: u32 = "tty_driver.major";
            required TTY_DRIVER_MINOR: u32 = "tty_driver.minor_start";
            required TTY_INDEX: u32 = "tty_struct.index";
            optional USER_NS_OWNER: u32 = "user_namespace.owner";
            optional USER_NS_PARENT: Pointer = "user_namespace.parent";
            required VFSMOUNT_ROOT: Pointer = "vfsmount.mnt_root";
        }
    };
}
