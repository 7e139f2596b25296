//! The start: loads the eBPF object of this binary and attaches its programs. An error is one sentence with the remedy.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt;

use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf};
use aya::programs::RawTracePoint;
use aya::{Btf, Ebpf, EbpfLoader};
use aya_log::EbpfLogger;
use bytesize::ByteSize;
use lapwing_common::{BUILDERS, OBJECTS_MAX, Object};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use thiserror::Error;

use super::config::Config;
use super::event_filter::PodFilter;
use super::handover::{self, Maps};
use super::hierarchy;
use super::hook::{self, HookReport, Unattached};
use super::layout::Layout;
use super::loss::PodCounts;
use super::shares::{PodShare, RingShares};
use super::{bpf, btf};
use crate::bounded::{self, HOST_FILE_BYTES_MAX};
use crate::error_chain::error_chain;

/// The kernel programs; empty if this binary was built without them.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lapwing-ebpf"));
/// The oldest kernel with the required ring buffer, BTF and helpers.
const KERNEL_MIN: (u32, u32) = (5, 10);
/// From this kernel on, BPF memory is charged to the control group, and no longer against `RLIMIT_MEMLOCK`.
const KERNEL_WITHOUT_MEMLOCK: (u32, u32) = (5, 11);
/// Maximum number of datagram destinations that are remembered to deduplicate their events.
const FLOWS_MAX: u32 = 8192;
/// Maximum number of threads that connect a datagram socket at the same time.
const CONNECTING_MAX: u32 = 512;
const BTF: &str = "/sys/kernel/btf/vmlinux";
/// Maximum size of the kernel's BTF, in bytes; that of large kernels is 10 MB.
const BTF_BYTES_MAX: u64 = 64 << 20;
/// `PROC_PID_INIT_INO`: the inode number of the initial PID namespace.
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Why the sensor does not start. Each message has the remedy.
#[derive(Debug, Error)]
pub(crate) enum StartError {
    /// A plain `cargo build`.
    #[error("this binary was built without the kernel programs: build it with `cargo xtask build`")]
    Stub,
    /// Before 5.10.
    #[error("the kernel is {0}, and Lapwing needs 5.10 or later: boot a newer kernel")]
    KernelTooOld(String),
    /// No BTF.
    #[error(
        "the kernel does not describe its types ({BTF}: {0}): boot a kernel built with CONFIG_DEBUG_INFO_BTF=y, \
         as Debian's, Ubuntu's and Amazon's are"
    )]
    NoBtf(io::Error),
    /// BTF that cannot be read.
    #[error("{BTF} is no BTF of this machine's byte order: boot the distribution's own kernel")]
    BadBtf,
    /// Not root.
    #[error("{0} is missing: run as root, or give the service CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE")]
    Privileges(&'static str),
    /// A kernel that counts BPF memory as locked.
    #[error(
        "the limit for locked memory cannot be raised ({0}): set `LimitMEMLOCK=infinity` in the unit, or run as root"
    )]
    Memlock(io::Error),
    /// A kernel that has renamed or removed a member that the programs read.
    #[error(
        "this kernel has no {0}: report its version, {1}, to Lapwing and boot an earlier kernel until then"
    )]
    Layout(String, String),
    /// `bpf()` is forbidden by a seccomp filter, a container or lockdown.
    #[error(
        "the kernel refuses BPF ({0}): run on the host itself, and allow the system calls `bpf` and `perf_event_open` to the service"
    )]
    Refused(String),
    /// A hook that is required.
    #[error("{0}")]
    Hook(Unattached),
    /// Anything else of the machine.
    #[error("{0}: {1}")]
    Io(&'static str, io::Error),
}

/// The loaded programs, and the maps by which they are read.
pub(super) struct Loaded {
    /// Keeps the programs attached.
    pub(super) ebpf: Ebpf,
    /// The kernel's types, for programs that are attached later.
    pub(super) btf: Btf,
    /// The ring for processes and the ring for connections.
    pub(super) rings: [RingBuf<MapData>; 2],
    pub(super) counts: PerCpuArray<MapData, PodCounts>,
    pub(super) shares: RingShares,
    pub(super) filter: Array<MapData, PodFilter>,
    pub(super) objects: Objects,
    /// The known control groups.
    pub(super) groups: HashMap<MapData, u64, u8>,
    pub(super) hooks: Vec<HookReport>,
    /// Whether this runs in a PID namespace.
    pub(super) is_inner: bool,
    /// For the next run.
    pub(super) maps: Maps,
    /// The programs' debug log; absent unless they were built with it.
    pub(super) logger: Option<EbpfLogger<&'static dyn log::Log>>,
}

/// Loads and attaches all programs. A hook with a configured method is attached by that method only.
///
/// # Errors
/// See [`StartError`].
pub(super) fn start(config: &Config) -> Result<Loaded, StartError> {
    let kernel = check_host()?;
    let layout = layout(&kernel)?;
    for member in layout.absent() {
        tracing::info!("kernel BTF has no {member}; dependent fields will be empty or read by other means");
    }
    let pid_namespace = pid_namespace();
    if pid_namespace != 0 {
        tracing::warn!(
            "running in a PID namespace: processes outside it are not seen; to cover the whole host, run on the host or \
             with `--pid=host`"
        );
    }
    let mut ebpf = load(config, &layout, pid_namespace)?;
    want(&mut ebpf, &config.env_vars.beginnings())
        .map_err(|error| StartError::Refused(error_chain(&error)))?;
    let btf = Btf::from_sys_fs().map_err(|_| StartError::BadBtf)?;
    let is_inner = pid_namespace != 0;
    let hooks = hook::attach_all(&mut ebpf, &btf, &config.hooks, config.udp, is_inner);
    let hooks = hooks.map_err(StartError::Hook)?;
    load_port(&mut ebpf);
    freeze(&ebpf);
    // Only programs that were built to log have a map for it.
    let logger = EbpfLogger::init(&mut ebpf).ok();
    let refused = |error: &dyn std::error::Error| StartError::Refused(error_chain(error));
    let ids = ebpf.maps().filter_map(|(_, map)| Some(data(map)?.info().ok()?.id())).collect();
    let mut maps = Maps::new();
    let mut map = |name| {
        let map = ebpf.take_map(name).ok_or(StartError::Stub)?;
        maps.extend(handover::of_map(name, &map));
        Ok(map)
    };
    let mut ring = |name| RingBuf::try_from(map(name)?).map_err(|error| refused(&error));
    let rings = [ring("RECORDS")?, ring("CONNECTIONS")?];
    let counts = PerCpuArray::try_from(map("COUNTS")?).map_err(|error| refused(&error))?;
    let users: HashMap<_, u64, PodShare> =
        HashMap::try_from(map("USERS")?).map_err(|error| refused(&error))?;
    let filter = Array::try_from(map("FILTER")?).map_err(|error| refused(&error))?;
    let objects = Objects::new(map("OBJECTS")?, ids).map_err(|error| refused(&error))?;
    let groups = ebpf.take_map("CGROUPS").ok_or(StartError::Stub)?;
    let groups = HashMap::try_from(groups).map_err(|error| refused(&error))?;
    let shares = RingShares::new(users);
    Ok(Loaded { ebpf, btf, rings, counts, shares, filter, objects, groups, hooks, is_inner, maps, logger })
}

/// Loads the object for this kernel and configuration.
fn load(config: &Config, layout: &Layout, pid_namespace: u32) -> Result<Ebpf, StartError> {
    // In a PID namespace the agent's host pid is not known.
    let agent = if pid_namespace == 0 { std::process::id() } else { 0 };
    let count = u32::try_from(config.env_vars.beginnings().len()).unwrap_or(u32::MAX);
    let ring_bytes = ring_bytes(config.ring_size);
    // The records of connections are smaller.
    let connections_bytes = ring_bytes / 2;
    let [fill_mark, connections_mark] = [ring_bytes, connections_bytes].map(|bytes| u64::from(bytes) / 4);
    let processors = aya::util::nr_cpus().map_err(|(what, error)| StartError::Io(what, error))?;
    let scratches = u32::try_from(processors).unwrap_or(u32::MAX).saturating_mul(BUILDERS);
    let mut loader = EbpfLoader::new();
    layout.set(&mut loader);
    let loaded = loader
        // By default the loader reads the kernel's BTF. It is not needed, because the programs have no relocations.
        .btf(None)
        .map_max_entries("RECORDS", ring_bytes)
        .map_max_entries("CONNECTIONS", connections_bytes)
        .map_max_entries("FLOWS", if config.udp { FLOWS_MAX } else { 1 })
        .map_max_entries("CONNECTING", if config.udp { CONNECTING_MAX } else { 1 })
        .map_max_entries("SCRATCH", scratches)
        .override_global("FILL_MARK_BYTES", &fill_mark, true)
        .override_global("WANTED", &count, true)
        .override_global("AGENT", &agent, true)
        .override_global("CONNECTIONS_MARK_BYTES", &connections_mark, true)
        .override_global("PID_NAMESPACE", &pid_namespace, true)
        .load(OBJECT);
    loaded.map_err(|error| StartError::Refused(error_chain(&error)))
}

/// Maps that the agent writes after the start. `FILTER` is read back and compared
/// ([`EventFilter`](super::event_filter::EventFilter)). `OBJECTS` is frozen when all is attached ([`Objects::know`]).
/// `CGROUPS` is not trusted: a group that only the map has is looked up ([`Groups`](super::groups::Groups)). All other
/// maps are written only by programs after the start.
const WRITTEN: [&str; 3] = ["FILTER", "OBJECTS", "CGROUPS"];

/// Freezes the maps that the agent no longer writes. A map that cannot be frozen stays writable.
fn freeze(ebpf: &Ebpf) {
    // The loader has frozen the programs' constants.
    let is_open = |name: &str| !WRITTEN.contains(&name) && !name.starts_with('.');
    for (name, map) in ebpf.maps().filter(|(name, _)| is_open(name)) {
        // A ring has no elements to be written.
        let data = data(map).filter(|_| !matches!(map, Map::RingBuf(_)));
        if let Some(Err(error)) = data.map(|data| bpf::freeze(data.fd().as_fd())) {
            tracing::warn!("cannot freeze map {name}, other processes can write it: {error}");
        }
    }
}

/// A map of the kinds that the programs use.
fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data) | Map::HashMap(data) | Map::LruHashMap(data) => Some(data),
        Map::PerCpuArray(data) | Map::PerCpuHashMap(data) | Map::PerCpuLruHashMap(data) => Some(data),
        Map::RingBuf(data) => Some(data),
        _ => None,
    }
}

/// The map with the ids of the agent's own maps and links.
pub(super) struct Objects {
    map: HashMap<MapData, u64, u8>,
    fd: Option<OwnedFd>,
    /// The ids of all maps.
    maps: Vec<u32>,
}

impl Objects {
    fn new(map: Map, maps: Vec<u32>) -> Result<Self, MapError> {
        let fd = data(&map).and_then(|data| data.fd().as_fd().try_clone_to_owned().ok());
        Ok(Self { map: HashMap::try_from(map)?, fd, maps })
    }

    /// Writes the ids of the maps, and of these links, and freezes the map.
    pub(super) fn know(mut self, links: impl Iterator<Item = u32>) {
        let maps = self.maps.iter().map(|id| Object::Map.key(*id));
        let mut keys = maps.chain(links.map(|id| Object::Link.key(id))).take(OBJECTS_MAX as usize);
        let written = keys.try_for_each(|key| self.map.insert(key, 1, 0));
        let frozen = self.fd.map_or(Ok(()), |fd| bpf::freeze(fd.as_fd()));
        let written = written.map_err(io::Error::other).and(frozen);
        if let Err(error) = written {
            tracing::warn!("bpf commands on the sensor's own maps and links may not be recorded: {error}");
        }
    }
}

/// Writes the beginnings of the wanted environment variables to the kernel programs' map.
fn want(ebpf: &mut Ebpf, beginnings: &BTreeSet<u32>) -> Result<(), MapError> {
    let Some(map) = ebpf.map_mut("BEGINNINGS") else { return Ok(()) };
    let mut map: HashMap<_, u32, u8> = HashMap::try_from(map)?;
    beginnings.iter().try_for_each(|beginning| map.insert(beginning, 1, 0))
}

/// Bytes of the ring for processes: a power of two between 256 KiB and 256 MiB.
fn ring_bytes(size: ByteSize) -> u32 {
    const SIZES: [u64; 2] = [256 * 1024, 256 * 1024 * 1024];
    let bytes = size.as_u64().clamp(SIZES[0], SIZES[1]).next_power_of_two();
    u32::try_from(bytes).unwrap_or(1 << 28)
}

/// Checks whether this host can run the programs. Returns the kernel's version.
fn check_host() -> Result<String, StartError> {
    if OBJECT.is_empty() {
        return Err(StartError::Stub);
    }
    let kernel = nix::sys::utsname::uname().map_err(|error| StartError::Io("uname", error.into()))?;
    let kernel = kernel.release().to_string_lossy().into_owned();
    let version = version(&kernel);
    if version < KERNEL_MIN {
        return Err(StartError::KernelTooOld(kernel));
    }
    check_capabilities()?;
    if version < KERNEL_WITHOUT_MEMLOCK {
        setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY)
            .map_err(|error| StartError::Memlock(error.into()))?;
    }
    Ok(kernel)
}

/// The agent's PID namespace; zero for the host's.
fn pid_namespace() -> u32 {
    let namespace = fs::metadata("/proc/self/ns/pid").map(|namespace| namespace.ino());
    // Without /proc the namespace is not known. A later step of the start then fails.
    let inode = namespace.unwrap_or(INITIAL_PID_NAMESPACE);
    if inode == INITIAL_PID_NAMESPACE { 0 } else { u32::try_from(inode).unwrap_or(0) }
}

/// Major and minor of a release such as `6.1.0-56-cloud-amd64`.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn check_capabilities() -> Result<(), StartError> {
    let status = bounded::read_text("/proc/self/status", HOST_FILE_BYTES_MAX)
        .map_err(|error| StartError::Io("/proc/self/status", error))?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or(0);
    let has = |capability: u32| effective >> capability & 1 == 1 || effective >> CAP_SYS_ADMIN & 1 == 1;
    match (has(CAP_BPF), has(CAP_PERFMON)) {
        (true, true) => Ok(()),
        (false, _) => Err(StartError::Privileges("CAP_BPF")),
        (true, false) => Err(StartError::Privileges("CAP_PERFMON")),
    }
}

fn layout(kernel: &str) -> Result<Layout, StartError> {
    let bytes = bounded::read(BTF, BTF_BYTES_MAX).map_err(StartError::NoBtf)?;
    let btf = btf::Btf::parse(&bytes).ok_or(StartError::BadBtf)?;
    Layout::resolve(&btf, hierarchy::has_v1())
        .map_err(|missing| StartError::Layout(missing, kernel.to_owned()))
}

/// Loads the program that reads the source port of an unanswered connection. Without it such a port stays unknown.
fn load_port(ebpf: &mut Ebpf) {
    let program: Option<&mut RawTracePoint> =
        ebpf.program_mut("port").and_then(|program| program.try_into().ok());
    if let Some(Err(error)) = program.map(RawTracePoint::load) {
        tracing::warn!("cannot read source ports of unanswered connections: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_are_powers_of_two() {
        for (size, bytes) in [
            (0, 256 << 10),
            (300_000, 512 << 10),
            (2 << 20, 2 << 20),
            (u64::MAX, 256 << 20),
            (3 << 20, 4 << 20),
        ] {
            assert_eq!(ring_bytes(ByteSize::b(size)), bytes, "{size}");
        }
    }

    #[test]
    fn releases_have_versions() {
        for (release, numbers) in
            [("6.18.44-fc-v669", (6, 18)), ("5.10.0-30-amd64", (5, 10)), ("7.0-rc1", (7, 0)), ("odd", (0, 0))]
        {
            assert_eq!(version(release), numbers, "{release}");
        }
    }
}
