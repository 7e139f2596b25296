//! The names of capabilities. Most processes have none or all, so the lists are built once.

use std::cell::RefCell;

use lapwing_engine::Value;

/// Most lists that are kept: a host has far fewer kinds of services.
const LISTS_MAX: usize = 32;

/// Lists of names by their bits, the one that was made last at the end.
#[derive(Default)]
pub(super) struct Capabilities(RefCell<Vec<(u64, Value)>>);

impl Capabilities {
    /// The names of these capabilities.
    pub(super) fn of(&self, bits: u64) -> Value {
        let mut known = self.0.borrow_mut();
        if let Some((_, names)) = known.iter().find(|(known, _)| *known == bits) {
            return names.clone();
        }
        let is_set = |(bit, _): &(usize, &&str)| bits >> bit & 1 == 1;
        let names = Value::texts(NAMES.iter().enumerate().filter(is_set).map(|(_, name)| *name));
        if known.len() == LISTS_MAX {
            known.remove(0);
        }
        known.push((bits, names.clone()));
        names
    }
}

/// By their bits; `include/uapi/linux/capability.h`.
#[rustfmt::skip]
const NAMES: [&str; 41] = [
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
    "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_have_names() {
        let capabilities = Capabilities::default();
        for _ in 0..2 {
            assert_eq!(capabilities.of(0), Value::texts::<&str>([]));
            assert_eq!(capabilities.of(1 << 21 | 1 << 39), Value::texts(["CAP_SYS_ADMIN", "CAP_BPF"]));
        }
        (0..100).for_each(|bits| drop(capabilities.of(bits)));
        assert_eq!(capabilities.0.borrow().len(), LISTS_MAX);
    }
}
