//! Where fields lie in this kernel, and the reading of them.
//!
//! Every read goes through the kernel's checked copy, so that a pointer which is stale or was never one yields zeros
//! and no fault.

use core::mem::MaybeUninit;

use aya_ebpf::Global;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use lapwing_common::{ABSENT, layout};

/// An address in the kernel.
pub(crate) type Address = *const u8;

macro_rules! globals {
    ($($need:ident $name:ident: $path:literal $(or $other:literal)*;)*) => {$(
        #[doc = concat!("The offset of `", $path, "`.")]
        #[unsafe(no_mangle)]
        pub(crate) static $name: Global<u32> = Global::new(ABSENT);
    )*};
}
layout!(globals);

/// Whether `sched_process_exit` says itself that the last thread ends (since 6.16).
#[unsafe(no_mangle)]
pub(crate) static EXIT_TELLS_LAST: Global<u32> = Global::new(0);
/// Which controller's hierarchy names control groups; `ABSENT` for the unified one.
#[unsafe(no_mangle)]
pub(crate) static CGROUP_CONTROLLER: Global<u32> = Global::new(ABSENT);
/// The inode of the namespace whose processes are watched, numbered as they are there; zero for the host's own, which
/// has them all.
#[unsafe(no_mangle)]
pub(crate) static PID_NAMESPACE: Global<u32> = Global::new(0);
/// The agent's process, as the host numbers it; zero where that is not known. What it does itself is never left out: it tests
/// by that whether the programs show what happens.
#[unsafe(no_mangle)]
pub(crate) static AGENT: Global<u32> = Global::new(0);
/// How many variables of the environment are wanted.
#[unsafe(no_mangle)]
pub(crate) static WANTED: Global<u32> = Global::new(0);
/// From how many unread bytes in the ring for processes on the reader is woken: a quarter of it.
#[unsafe(no_mangle)]
pub(crate) static FILL_MARK_BYTES: Global<u64> = Global::new(u64::MAX);
/// The same of the ring for connections.
#[unsafe(no_mangle)]
pub(crate) static CONNECTIONS_MARK_BYTES: Global<u64> = Global::new(u64::MAX);

/// Plain numbers and addresses: any bytes make one.
pub(crate) trait Plain: Copy {}
impl Plain for u8 {}
impl Plain for u16 {}
impl Plain for u32 {}
impl Plain for u64 {}
impl Plain for Address {}
impl<const N: usize> Plain for [u8; N] {}
impl<const N: usize> Plain for [u32; N] {}
impl<const N: usize> Plain for [u64; N] {}

/// Reads a field; zeros where the address is none.
#[inline(always)]
pub(crate) fn read<T: Plain>(base: Address, field: &Global<u32>) -> T {
    read_at(base, field.load() as usize)
}

/// Reads a field that this kernel may not have; `default` where it has not.
#[inline(always)]
pub(crate) fn read_or<T: Plain>(base: Address, field: &Global<u32>, default: T) -> T {
    if has(field) { read(base, field) } else { default }
}

/// Whether this kernel has the field. The verifier knows, and drops the other branch.
#[inline(always)]
pub(crate) fn has(field: &Global<u32>) -> bool {
    field.load() != ABSENT
}

/// The beginning of a structure, read at once: a checked copy costs the same for a hundred bytes as for four.
#[repr(C, align(8))]
pub(crate) struct Window<const N: usize>(MaybeUninit<[u8; N]>);

impl<const N: usize> Window<N> {
    /// Reads the first `N` bytes; zeros where the address is none.
    #[inline(always)]
    pub(crate) fn of(base: Address) -> Self {
        let mut window = Self(MaybeUninit::uninit());
        // SAFETY: the helper writes all `N` bytes, zeros where it could not read, and checks the address.
        unsafe { bpf_probe_read_kernel(window.0.as_mut_ptr().cast(), N as u32, base.cast()) };
        window
    }

    /// A field; zeros where this kernel does not have it. User space has seen to it that it lies inside.
    #[inline(always)]
    pub(crate) fn get<T: Plain + Default>(&self, field: &Global<u32>) -> T {
        let offset = field.load() as usize;
        if offset > N - size_of::<T>() {
            return T::default();
        }
        // SAFETY: inside, as was just looked at; the window is aligned like the structure, in which the field is.
        unsafe { self.0.as_ptr().cast::<u8>().add(offset).cast::<T>().read() }
    }
}

/// The address of a field.
#[inline(always)]
pub(crate) fn at(base: Address, field: &Global<u32>) -> Address {
    base.wrapping_add(field.load() as usize)
}

/// Reads at a distance from an address; zeros where the address is none.
#[inline(always)]
pub(crate) fn read_at<T: Plain>(base: Address, offset: usize) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper writes every byte of `value`: what it read, or zeros where it could not; and any bytes make
    // a `T`. The address is checked by the helper.
    unsafe {
        bpf_probe_read_kernel(
            value.as_mut_ptr().cast(),
            size_of::<T>() as u32,
            base.wrapping_add(offset).cast(),
        );
        value.assume_init()
    }
}
