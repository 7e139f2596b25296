//! Where the fields of kernel structures lie: a table, resolved against the running kernel's BTF when the programs
//! are loaded.
//!
//! Each row is a read-only global of the kernel programs. User space looks its path up and sets it; the verifier then
//! sees a constant. Where a member was renamed or moved, `or` gives the other path; a structure alone stands for its
//! size. A `required` row that no path resolves is an error at the start; an `optional` one is
//! [`ABSENT`](crate::ABSENT) and its field stays empty.

/// How much of a `struct sock_common` is read at once; what the table names of it lies inside.
pub const SOCK_COMMON_BYTES: usize = 120;
/// Structures that are read at once, with how much of them.
pub const WINDOWS: [(&str, usize); 1] = [("sock_common", SOCK_COMMON_BYTES)];

/// Hands the table to the macro `$with`, so that both sides are made of the same rows.
#[macro_export]
macro_rules! layout {
    ($with:ident) => {
        $with! {
            required BINPRM_ARGC: "linux_binprm.argc";
            required BINPRM_FILE: "linux_binprm.file";
            required BINPRM_FILENAME: "linux_binprm.filename";
            required BINPRM_INTERP: "linux_binprm.interp";
            optional BPF_LINK_ID: "bpf_link.id";
            optional BPF_MAP_ID: "bpf_map.id";
            optional CGROUP_KN: "cgroup.kn";
            required CRED_CAP_EFFECTIVE: "cred.cap_effective";
            required CRED_CAP_PERMITTED: "cred.cap_permitted";
            required CRED_UID: "cred.uid";
            optional CRED_USER_NS: "cred.user_ns";
            optional CSS_CGROUP: "cgroup_subsys_state.cgroup";
            optional CSS_SET_DFL_CGRP: "css_set.dfl_cgrp";
            optional CSS_SET_SUBSYS: "css_set.subsys";
            required DENTRY_HASHED: "dentry.d_hash.pprev";
            required DENTRY_NAME: "dentry.d_name.name";
            required DENTRY_PARENT: "dentry.d_parent";
            required FDTABLE_FD: "fdtable.fd";
            required FDTABLE_MAX: "fdtable.max_fds";
            required FILES_FDT: "files_struct.fdt";
            required FILE_DENTRY: "file.f_path.dentry";
            required FILE_INODE: "file.f_inode";
            required FILE_MNT: "file.f_path.mnt";
            required FILE_PRIVATE: "file.private_data";
            required FS_PWD_DENTRY: "fs_struct.pwd.dentry";
            required FS_PWD_MNT: "fs_struct.pwd.mnt";
            required INET_SPORT: "inet_sock.inet_sport";
            // What a file system keeps of its own follows the inode.
            optional INODE_BYTES: "inode";
            // Two members of their own since 6.11; renamed in 6.6.
            optional INODE_CTIME_NANOS: "inode.i_ctime_nsec" or "inode.__i_ctime.tv_nsec" or "inode.i_ctime.tv_nsec";
            optional INODE_CTIME_SECS: "inode.i_ctime_sec" or "inode.__i_ctime.tv_sec" or "inode.i_ctime.tv_sec";
            optional INODE_GENERATION: "inode.i_generation";
            required INODE_INO: "inode.i_ino";
            required INODE_MODE: "inode.i_mode";
            required INODE_RDEV: "inode.i_rdev";
            required INODE_SB: "inode.i_sb";
            optional INODE_SIZE: "inode.i_size";
            optional KERNFS_ID: "kernfs_node.id";
            optional KERNFS_NAME: "kernfs_node.name";
            // Renamed in 6.15, when it became an RCU pointer.
            optional KERNFS_PARENT: "kernfs_node.__parent" or "kernfs_node.parent";
            required MM_ARG_END: "mm_struct.arg_end";
            required MM_ARG_START: "mm_struct.arg_start";
            required MM_ENV_END: "mm_struct.env_end";
            required MM_ENV_START: "mm_struct.env_start";
            optional MM_EXE_FILE: "mm_struct.exe_file";
            required MOUNT_MNT: "mount.mnt";
            required MOUNT_MOUNTPOINT: "mount.mnt_mountpoint";
            optional MOUNT_NAMESPACE: "mount.mnt_ns";
            required MOUNT_PARENT: "mount.mnt_parent";
            optional MPTCP_FIRST: "mptcp_sock.first";
            optional NET_INUM: "net.ns.inum";
            optional NSPROXY_CGROUP: "nsproxy.cgroup_ns";
            optional NSPROXY_IPC: "nsproxy.ipc_ns";
            optional NSPROXY_MNT: "nsproxy.mnt_ns";
            optional NSPROXY_NET: "nsproxy.net_ns";
            optional NSPROXY_UTS: "nsproxy.uts_ns";
            optional NS_CGROUP_INUM: "cgroup_namespace.ns.inum";
            optional NS_IPC_INUM: "ipc_namespace.ns.inum";
            optional NS_MNT_INUM: "mnt_namespace.ns.inum";
            optional NS_PID_INUM: "pid_namespace.ns.inum";
            optional NS_USER_INUM: "user_namespace.ns.inum";
            optional NS_UTS_INUM: "uts_namespace.ns.inum";
            required PID_LEVEL: "pid.level";
            required PID_NUMBERS: "pid.numbers";
            required SIGNAL_FLAGS: "signal_struct.flags";
            required SIGNAL_GROUP_EXIT_CODE: "signal_struct.group_exit_code";
            required SIGNAL_LIVE: "signal_struct.live";
            required SIGNAL_PIDS: "signal_struct.pids";
            required SIGNAL_TTY: "signal_struct.tty";
            required SOCKET_ALLOC_INODE: "socket_alloc.vfs_inode";
            required SOCKET_SK: "socket.sk";
            required SOCK_DADDR: "sock_common.skc_daddr";
            required SOCK_DPORT: "sock_common.skc_dport";
            optional SOCK_FLAGS: "sock_common.skc_flags";
            required SOCK_FAMILY: "sock_common.skc_family";
            optional SOCK_NET: "sock_common.skc_net.net";
            required SOCK_PROTOCOL: "sock.sk_protocol";
            required SOCK_SADDR: "sock_common.skc_rcv_saddr";
            required SOCK_SOCKET: "sock.sk_socket";
            required SOCK_STATE: "sock_common.skc_state";
            optional SOCK_V6_DADDR: "sock_common.skc_v6_daddr";
            optional SOCK_V6_SADDR: "sock_common.skc_v6_rcv_saddr";
            optional SUPER_BLOCK_DEV: "super_block.s_dev";
            optional SUPER_BLOCK_MAGIC: "super_block.s_magic";
            optional SUPER_BLOCK_USER_NS: "super_block.s_user_ns";
            optional TASK_CGROUPS: "task_struct.cgroups";
            required TASK_COMM: "task_struct.comm";
            required TASK_CRED: "task_struct.cred";
            required TASK_EXIT_CODE: "task_struct.exit_code";
            required TASK_FILES: "task_struct.files";
            required TASK_FS: "task_struct.fs";
            required TASK_LEADER: "task_struct.group_leader";
            optional TASK_LOGIN_UID: "task_struct.loginuid";
            required TASK_MM: "task_struct.mm";
            required TASK_NSPROXY: "task_struct.nsproxy";
            required TASK_PARENT: "task_struct.real_parent";
            required TASK_PID: "task_struct.pid";
            optional TASK_PTRACED: "task_struct.ptraced";
            optional TASK_PTRACE_ENTRY: "task_struct.ptrace_entry";
            required TASK_REAL_CRED: "task_struct.real_cred";
            optional TASK_SESSION_ID: "task_struct.sessionid";
            required TASK_SIGNAL: "task_struct.signal";
            required TASK_START: "task_struct.start_boottime" or "task_struct.real_start_time";
            required TASK_TGID: "task_struct.tgid";
            required TASK_THREAD_PID: "task_struct.thread_pid";
            optional TCP_BYTES_RECEIVED: "tcp_sock.bytes_received";
            optional TCP_BYTES_RETRANS: "tcp_sock.bytes_retrans";
            optional TCP_BYTES_SENT: "tcp_sock.bytes_sent";
            required TTY_DRIVER: "tty_struct.driver";
            required TTY_DRIVER_MAJOR: "tty_driver.major";
            required TTY_DRIVER_MINOR: "tty_driver.minor_start";
            required TTY_INDEX: "tty_struct.index";
            optional USER_NS_OWNER: "user_namespace.owner";
            optional USER_NS_PARENT: "user_namespace.parent";
            required VFSMOUNT_ROOT: "vfsmount.mnt_root";
        }
    };
}
