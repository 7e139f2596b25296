//! The offsets of fields in this kernel, and how they are read.
//!
//! The row of a member in the table has the type that is read ([`As`]).
//!
//! Every read yields zeros and no fault where a pointer is stale or was never one: it is a load that the verifier has
//! checked ([`Typed`]), or goes through the kernel's checked copy ([`Address`]).

use core::marker::PhantomData;
use core::mem::MaybeUninit;

use aya_ebpf::Global;
use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_probe_read_kernel};
use aya_ebpf::programs::BtfTracePointContext;
use lapwing_common::layout::{AsOne, Low, Pointer, Structure};
use lapwing_common::{ABSENT, enumerators, layout};

/// An address in the kernel.
pub(crate) type Address = *const u8;

/// What user space looks up in the kernel's BTF.
pub(crate) trait Resolved {
    /// The number; `ABSENT` where this kernel does not have it.
    fn load(&self) -> u32;
}

/// The offset of a member that is read as a `T` of the table.
#[repr(transparent)]
pub(crate) struct Member<T>(Global<u32>, PhantomData<T>);

impl<T> Resolved for Member<T> {
    #[inline(always)]
    fn load(&self) -> u32 {
        self.0.load()
    }
}

impl Resolved for Global<u32> {
    #[inline(always)]
    fn load(&self) -> u32 {
        Self::load(self)
    }
}

macro_rules! members {
    ($($need:ident $name:ident: $ty:ty = $path:literal $(or $other:literal)* $(then $next:literal)*;)*) => {$(
        #[doc = concat!("The offset of `", $path, "`.")]
        #[unsafe(no_mangle)]
        pub(crate) static $name: Member<$ty> = Member(Global::new(ABSENT), PhantomData);
    )*};
}
layout!(members);

macro_rules! numbers {
    ($($need:ident $name:ident: $path:literal;)*) => {$(
        #[doc = concat!("The number of `", $path, "`.")]
        #[unsafe(no_mangle)]
        pub(crate) static $name: Global<u32> = Global::new(ABSENT);
    )*};
}
enumerators!(numbers);

/// Whether `sched_process_exit` has a parameter for the end of the last thread (since 6.16).
#[unsafe(no_mangle)]
pub(crate) static EXIT_NAMES_LAST_THREAD: Global<u32> = Global::new(0);
/// The inode of the namespace whose processes are watched, numbered as they are there; zero for the host's own, which
/// has them all.
#[unsafe(no_mangle)]
pub(crate) static PID_NAMESPACE: Global<u32> = Global::new(0);
/// The agent's process, as the host numbers it; zero where that is not known. Its own records are never filtered: the
/// self-test needs them.
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
pub(crate) trait Plain: Copy {
    /// Loads it in pieces no larger than a member of the kernel's structures, which the verifier wants.
    ///
    /// # Safety
    /// The verifier has the type of what is there.
    #[inline(always)]
    unsafe fn load(place: *const Self) -> Self {
        // SAFETY: by the caller's promise.
        unsafe { place.read_volatile() }
    }
}
impl Plain for u8 {}
impl Plain for u16 {}
impl Plain for u32 {}
impl Plain for u64 {}
impl Plain for Address {}
impl Plain for Typed {}
impl Plain for [u8; 16] {
    /// In two pieces: the bytes are in an array, and a load may cross its members.
    #[inline(always)]
    unsafe fn load(place: *const Self) -> Self {
        // SAFETY: by the caller's promise; and any bytes make two numbers.
        unsafe { core::mem::transmute(<[u64; 2]>::load(place.cast())) }
    }
}
macro_rules! arrays {
    ($($element:ty),*) => {$(
        impl<const N: usize> Plain for [$element; N] {
            #[inline(always)]
            unsafe fn load(place: *const Self) -> Self {
                // SAFETY: by the caller's promise.
                core::array::from_fn(|index| unsafe { <$element>::load(place.cast::<$element>().add(index)) })
            }
        }
    )*};
}
arrays!(u32, u64, Address);

/// Where a structure of the kernel's begins.
pub(crate) trait Base: Plain {
    /// Reads at a distance from it; zeros where the address is none.
    fn read_at<T: Plain>(self, offset: usize) -> T;

    /// It as a plain address.
    fn address(self) -> Address;
}

impl Base for Address {
    #[inline(always)]
    fn read_at<T: Plain>(self, offset: usize) -> T {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the helper writes every byte of `value`: what it read, or zeros where it could not; and any bytes make
        // a `T`. The address is checked by the helper.
        unsafe {
            bpf_probe_read_kernel(
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
                self.wrapping_add(offset).cast(),
            );
            value.assume_init()
        }
    }

    #[inline(always)]
    fn address(self) -> Address {
        self
    }
}

/// A structure whose type the verifier has: the parameters of a typed tracepoint, and what they point to. It is read by
/// plain loads, which yield zeros where they fault; a checked copy costs ten times as much.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Typed(Address);

impl Typed {
    /// This parameter of a typed tracepoint.
    #[inline(always)]
    pub(crate) fn parameter(ctx: &BtfTracePointContext, number: usize) -> Self {
        Self(ctx.arg(number))
    }

    /// The task that a program runs in, for kernels that have it ([`TYPED_TASK`]).
    #[inline(always)]
    pub(crate) fn current() -> Self {
        // SAFETY: the helper has no preconditions.
        Self(unsafe { bpf_get_current_task_btf() }.cast_const().cast())
    }
}

impl Base for Typed {
    #[inline(always)]
    fn read_at<T: Plain>(self, offset: usize) -> T {
        // SAFETY: the verifier refuses a load of what is not a member of the structure.
        unsafe { T::load(self.0.wrapping_add(offset).cast()) }
    }

    #[inline(always)]
    fn address(self) -> Address {
        self.0
    }
}

/// The value of a member that is read as its row says.
pub(crate) trait As<T: Plain> {}
impl<B: Base> As<B> for Pointer {}
impl<T: Plain> As<T> for Low<T> {}
impl<T: Plain> As<T> for AsOne<T> {}
macro_rules! themselves {
    ($($integer:ty),*) => {$(
        impl As<$integer> for $integer {}
        impl<const N: usize> As<[$integer; N]> for [$integer; N] where [$integer; N]: Plain {}
    )*};
}
themselves!(u8, u16, u32, u64);

/// Reads a field; zeros where the address is none.
#[inline(always)]
pub(crate) fn read<T: Plain, M: As<T>>(base: impl Base, field: &Member<M>) -> T {
    base.read_at(field.load() as usize)
}

/// Reads a field that this kernel may not have; `default` if it does not.
#[inline(always)]
pub(crate) fn read_or<T: Plain, M: As<T>>(base: impl Base, field: &Member<M>, default: T) -> T {
    if has(field) { read(base, field) } else { default }
}

/// Reads one of the addresses in an array.
#[inline(always)]
pub(crate) fn element<B: Base, const N: usize>(base: B, field: &Member<[Pointer; N]>, index: u32) -> B {
    base.read_at(field.load() as usize + index as usize * size_of::<Address>())
}

/// Whether this kernel has the field or the enumerator. It is a constant to the verifier, which drops the other branch.
#[inline(always)]
pub(crate) fn has(what: &impl Resolved) -> bool {
    what.load() != ABSENT
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

    /// A field; zeros where this kernel does not have it. User space has checked that it is inside.
    #[inline(always)]
    pub(crate) fn get<T: Plain, M: As<T>>(&self, field: &Member<M>) -> T {
        let offset = field.load() as usize;
        if offset > N - size_of::<T>() {
            // SAFETY: any bytes make a `T`.
            return unsafe { core::mem::zeroed() };
        }
        // SAFETY: inside, as was just checked; the window is aligned like the structure, in which the field is.
        unsafe { self.0.as_ptr().cast::<u8>().add(offset).cast::<T>().read() }
    }
}

/// The address of a field.
#[inline(always)]
pub(crate) fn at<M>(base: Address, field: &Member<M>) -> Address {
    base.wrapping_add(field.load() as usize)
}

/// The address of the structure that this one is a member of.
#[inline(always)]
pub(crate) fn around(inner: Address, field: &Member<impl Placed>) -> Address {
    inner.wrapping_sub(field.load() as usize)
}

/// How structures inside others are found.
pub(crate) trait Placed {}
impl Placed for Structure {}
impl<const N: usize> Placed for [Pointer; N] {}
