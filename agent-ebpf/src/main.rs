//! What of Lapwing runs in the kernel: it watches processes and connections, and hands over records. It judges
//! nothing: rules are user space's matter. What it leaves out is what is not in the namespace that it was told to watch,
//! and what user space says that no rule can match.
//!
//! `process`, `network` and `udp` hold the programs, a function each, `fallback` the same by other means; `task`, `socket`,
//! `file` and `path` read what the records tell; `layout` knows where it lies, and only `emit` writes to the ring.
#![no_std]
#![no_main]
// As aya-ebpf: the compiler has no atomic addition for BPF.
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

mod fallback;

mod guard;
mod network;
mod process;
mod udp;

mod file;
mod path;
mod socket;
mod task;
mod walk;

mod emit;
mod layout;
mod scratch;
mod share;

/// Logs for the programs' own debugging; nothing at all unless built with the feature `log`.
#[macro_export]
macro_rules! trace {
    ($($argument:tt)*) => {
        #[cfg(feature = "log")]
        aya_log_ebpf::debug!($($argument)*);
    };
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
