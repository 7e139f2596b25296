//! `[sensor]`: the events of this host.

use bytesize::ByteSize;
use serde::Deserialize;

use super::{Choices, Wanted};

/// The `[sensor]` section.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Whether this host is watched. Default: `true`.
    pub(crate) enabled: bool,
    /// Environment variables that events of a program's start contain, in `process.env_vars`.
    pub(crate) env_vars: Wanted,
    /// Size of the kernel's ring buffer for process records, rounded up to a power of two; the ring for connections is
    /// half as large. Records are lost while a ring is full. Each ring counts twice in the agent's memory. Default: 2
    /// MiB.
    pub(crate) ring_size: ByteSize,
    /// Whether UDP destinations are reported, which needs CAP_NET_ADMIN. Default: `false`.
    pub(crate) udp: bool,
    /// Whether the kernel filters records that no rule can match. Default: `true`.
    pub(crate) kernel_filter: bool,
    /// The method by which a hook is attached, instead of the first that works.
    pub(crate) hooks: Choices,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            env_vars: Wanted::default(),
            ring_size: ByteSize::mib(2),
            udp: false,
            kernel_filter: true,
            hooks: Choices::default(),
        }
    }
}
