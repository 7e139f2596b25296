//! The part of Lapwing that runs in the kernel: it observes processes and connections, and writes records. It evaluates
//! no rules; user space does. It filters what is outside the namespace that it watches, and what no rule can match by
//! the filter that user space sets.
//!
//! `process`, `network` and `udp` hold the programs, a function each, `fallback` the same by other means; `task`,
//! `socket`, `file` and `path` read the content of records; `layout` has the offsets, and only `emit` writes to the
//! ring.
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
