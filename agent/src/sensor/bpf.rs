//! The two commands of `bpf(2)` that the library lacks: freezing a map, and the information about a link.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};

/// match-proto:v5.2:include/uapi/linux/bpf.h:BPF_MAP_FREEZE
const MAP_FREEZE: libc::c_int = 22;
/// match-proto:v4.13:include/uapi/linux/bpf.h:BPF_OBJ_GET_INFO_BY_FD
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;

/// The beginning of `union bpf_attr`, as both commands read it. The kernel takes what is not given as zero.
#[repr(C, align(8))]
#[derive(Default)]
struct Attributes {
    fd: u32,
    info_len: u32,
    info: u64,
}

/// The information about a link.
///
/// match-proto:v5.8:include/uapi/linux/bpf.h:struct bpf_link_info
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LinkInfo {
    ty: u32,
    /// The link's id.
    pub(super) id: u32,
    /// That of the program which it attaches.
    pub(super) program: u32,
    /// Of a link to a control group, the group's id, which is zero once it was detached; of others, addresses.
    rest: [u32; 4],
}

/// `BPF_LINK_TYPE_CGROUP`.
const CGROUP: u32 = 3;

impl LinkInfo {
    /// What must stay as it is.
    pub(super) fn identity(self) -> Self {
        // Of other types what follows is an address and its room.
        let rest = if self.ty == CGROUP { self.rest } else { [0; 4] };
        Self { rest, ..self }
    }
}

/// From now on nothing but programs can write to the map.
///
/// # Errors
/// The kernel refuses.
pub(super) fn freeze(map: BorrowedFd<'_>) -> io::Result<()> {
    let fd = u32::try_from(map.as_raw_fd()).map_err(io::Error::other)?;
    bpf(MAP_FREEZE, &Attributes { fd, ..Attributes::default() }, size_of::<u32>())
}

/// Reads the information about a link by its descriptor.
///
/// # Errors
/// It is closed, or is of no link.
pub(super) fn link_info(fd: RawFd) -> io::Result<LinkInfo> {
    let mut info = LinkInfo::default();
    let attributes = Attributes {
        fd: u32::try_from(fd).map_err(io::Error::other)?,
        info_len: size_of::<LinkInfo>() as u32,
        info: (&raw mut info) as u64,
    };
    bpf(OBJ_GET_INFO_BY_FD, &attributes, size_of::<Attributes>())?;
    Ok(info)
}

#[expect(unsafe_code, reason = "libc has no function for bpf(2)")]
fn bpf(command: libc::c_int, attributes: &Attributes, size: usize) -> io::Result<()> {
    // SAFETY: the kernel reads `size` bytes of the attributes, which are no fewer, and writes at most `info_len` bytes
    // to `info`, which has as many and outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
