//! Handover: what one run of the sensor stores for the next, so that a restart or an upgrade loses no event.
//!
//! The service manager keeps descriptors for a service while it starts it again (systemd's file descriptor store). It
//! stores those of all links and rings: the programs of a run continue to record after its end. The next run attaches
//! its own programs, reads the rings of the previous run up to that moment, and releases them. So another version may
//! have other programs; only the wire must be the same. When the service is stopped, the manager closes the
//! descriptors, and the programs end.
//!
//! A run that ends in order also stores its state. A run that was killed leaves only the rings: what it had read and
//! not evaluated is lost, and is reported as downtime.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Map, MapData, PerCpuArray, RingBuf};
use lapwing_common::{SLOTS, Touched, VERSION};
use nix::sys::memfd::{MFdFlags, memfd_create};
use sd_notify::NotifyState;
use serde::{Deserialize, Serialize};
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::key::Key;
use super::loss::{self, PodCounts};
use super::own;
use super::owner::Owner;
use super::process::Saved;
use super::ring::Ring;

/// Prefixes of the names of descriptors.
const LINK: &str = "link";
const RECORDS: &str = "records";
const CONNECTIONS: &str = "connections";
const COUNTS: &str = "counts";
const STATE: &str = "state";
const STOP: &str = "stop";
/// The version of the state; a reader refuses any other.
const STATE_VERSION: u32 = 2;
/// Maximum size of the state in bytes. The process table is bounded by less, and the connections by their number.
pub(super) const STATE_BYTES_MAX: u64 = 16 << 20;
/// The variable with the service manager's socket. Without it there is no service manager.
const MANAGER: &str = "NOTIFY_SOCKET";
/// The names of links and perf events below `/proc/self/fd`.
const LINKS: [&str; 2] = ["anon_inode:bpf_link", "anon_inode:[perf_event]"];

/// The descriptors that the service manager has stored for the previous run, by name; `None` without a manager.
pub(crate) struct StoredFds(Option<Vec<(String, OwnedFd)>>);

impl StoredFds {
    /// The descriptors with which the service manager started this process. Called once; descriptors with unknown names
    /// are closed.
    #[expect(unsafe_code, reason = "descriptors of the service manager arrive as numbers")]
    pub(crate) fn of_manager() -> Self {
        if std::env::var_os(MANAGER).is_none() {
            return Self::none();
        }
        let listed = sd_notify::listen_fds_with_names().map(Vec::from_iter);
        let listed = listed.unwrap_or_else(|error| {
            tracing::warn!("cannot list the file descriptor store: {error}");
            Vec::new()
        });
        // SAFETY: the manager has opened these for this process, and only this takes them, once.
        let owned = listed.into_iter().map(|(fd, name)| (name, unsafe { OwnedFd::from_raw_fd(fd) }));
        Self(Some(owned.collect()))
    }

    /// For a sensor that is no service.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// Whether there is a service manager. Its store may still refuse descriptors.
    pub(super) fn has_manager(&self) -> bool {
        self.0.is_some()
    }

    /// Opens the stored descriptors. Those that cannot be read, such as rings of another version, are released.
    pub(super) fn open(self) -> Option<Inherited> {
        let stored = self.0.filter(|stored| !stored.is_empty())?;
        let names: Vec<_> = stored.iter().map(|(name, _)| name.clone()).collect();
        match Inherited::open(stored, names.clone()) {
            Ok(inherited) => Some(inherited),
            Err(error) => {
                tracing::warn!("cannot take over from the previous run: {error:#}");
                forget(&names);
                None
            }
        }
    }
}

/// The handover of the previous run.
pub(super) struct Inherited {
    /// Its process.
    pub(super) by: Key,
    /// Its rings, not read yet.
    pub(super) ring: Ring,
    /// Its state at its end; `None` if it was killed.
    pub(super) state: Option<HandoverState>,
    /// The signal that stopped it, if it had read the record and did not continue.
    pub(super) stop: Option<Touched>,
    /// The known losses since its end, by [`Kind::slot`](lapwing_common::Kind::slot).
    pub(super) lost: [u64; SLOTS],
    links: Vec<OwnedFd>,
    counts: PerCpuArray<MapData, PodCounts>,
    names: Vec<String>,
}

/// The state of a run at its end.
#[derive(Deserialize, Serialize)]
pub(super) struct HandoverState {
    version: u32,
    /// The time up to which it has read all records, in nanoseconds since boot.
    pub(super) until: u64,
    /// How many records were lost until then, by [`Kind::slot`](lapwing_common::Kind::slot).
    pub(super) lost: [u64; SLOTS],
    pub(super) table: Saved,
    /// The open connections.
    pub(super) owners: Vec<(u64, Owner)>,
}

impl HandoverState {
    /// The state now.
    pub(super) fn new(until: u64, lost: [u64; SLOTS], table: Saved, owners: Vec<(u64, Owner)>) -> Self {
        Self { version: STATE_VERSION, until, lost, table, owners }
    }
}

impl Inherited {
    fn open(stored: Vec<(String, OwnedFd)>, names: Vec<String>) -> Result<Self> {
        let (mut records, mut connections, mut counts, mut state) = (None, None, None, None);
        let (mut links, mut run, mut stop) = (Vec::new(), None, None);
        for (name, fd) in stored {
            let (what, version, by) = parse(&name).with_context(|| format!("unknown descriptor `{name}`"))?;
            ensure!(version == VERSION, "records have version {version}, expected {VERSION}");
            ensure!(*run.get_or_insert(by) == by, "descriptors of more than one run");
            match what {
                LINK => links.push(fd),
                RECORDS => records = Some(fd),
                CONNECTIONS => connections = Some(fd),
                COUNTS => counts = Some(fd),
                STATE => state = Some(fd),
                STOP => stop = Some(fd),
                _ => {}
            }
        }
        let ring = |fd: Option<OwnedFd>| -> Result<_> {
            Ok(RingBuf::try_from(Map::RingBuf(MapData::from_fd(fd.context("a ring is missing")?)?))?)
        };
        let counts = MapData::from_fd(counts.context("the counters are missing")?)?;
        let state = state.map(read_state).transpose().unwrap_or_else(|error| {
            tracing::warn!("cannot read the state of the previous run: {error:#}");
            None
        });
        Ok(Self {
            by: run.context("no descriptors")?,
            ring: Ring::new([ring(records)?, ring(connections)?])?,
            state,
            stop: stop.and_then(read_stop),
            lost: [0; SLOTS],
            links,
            counts: PerCpuArray::try_from(Map::PerCpuArray(counts))?,
            names,
        })
    }

    /// Detaches the previous run's programs, now that this run's programs record. Only its rings are left to read.
    pub(super) fn close(&mut self) {
        self.links.clear();
        self.ring.close();
        if let Some(state) = &self.state {
            let now = loss::sums(&self.counts).lost;
            self.lost = std::array::from_fn(|slot| now[slot].saturating_sub(state.lost[slot]));
        }
    }

    /// The time of the first record that it had not read.
    pub(super) fn first_time(&mut self) -> Option<u64> {
        self.ring.take(|_| {});
        self.ring.first_time()
    }

    /// Releases the handover, when all of it is reported and the results are on disk. The previous programs then end.
    pub(super) fn release(self) {
        forget(&self.names);
    }
}

/// Descriptors of a run's maps, with their names.
pub(super) type Maps = Vec<(&'static str, OwnedFd)>;

/// A descriptor of a map for the next run; `None` for a map that the next run does not need.
pub(super) fn of_map(map_name: &str, map: &Map) -> Option<(&'static str, OwnedFd)> {
    let (what, data) = match (map_name, map) {
        ("RECORDS", Map::RingBuf(data)) => (RECORDS, data),
        ("CONNECTIONS", Map::RingBuf(data)) => (CONNECTIONS, data),
        ("COUNTS", Map::PerCpuArray(data)) => (COUNTS, data),
        _ => return None,
    };
    Some((what, data.fd().as_fd().try_clone_to_owned().ok()?))
}

/// Stores the links with the service manager again; it keeps each once.
pub(super) fn give_links() {
    if let Err(error) = keep_links() {
        tracing::warn!("fd store unavailable, events during a restart will be lost: {error:#}");
    }
}

#[expect(unsafe_code, reason = "descriptors of the service manager arrive as numbers")]
fn keep_links() -> Result<()> {
    let links = links()?;
    // SAFETY: they stay open as long as the programs are attached, which is longer than this call.
    let links: Vec<_> = links.into_iter().map(|fd| unsafe { BorrowedFd::borrow_raw(fd) }).collect();
    keep(LINK, &links)
}

/// Stores all links, and these maps, in the service manager's file descriptor store. Returns whether it succeeded.
pub(super) fn give(maps: &Maps) -> bool {
    let links = keep_links();
    let given = maps.iter().try_fold((), |(), (what, fd)| keep(what, &[fd.as_fd()])).and(links);
    if let Err(error) = &given {
        tracing::warn!("fd store unavailable, events during a restart will be lost: {error:#}");
    }
    given.is_ok()
}

/// Stores the state of this run with the service manager.
///
/// # Errors
/// It cannot be written, or the manager does not answer.
pub(super) fn store_state(state: &HandoverState) -> Result<()> {
    let file = File::from(memfd_create("lapwing-state", MFdFlags::MFD_CLOEXEC)?);
    let mut writer = BufWriter::new(file);
    serde_json::to_writer(&mut writer, state)?;
    writer.flush()?;
    let file = writer.into_inner().map_err(|error| error.into_error())?;
    keep(STATE, &[file.as_fd()])
}

/// Stores the record of the signal that stops this run with the service manager, because this run may not continue.
pub(super) fn store_stop(stop: &Touched) {
    let left = memfd_create("lapwing-stop", MFdFlags::MFD_CLOEXEC).map_err(Into::into).and_then(|file| {
        let mut file = File::from(file);
        file.write_all(stop.as_bytes())?;
        keep(STOP, &[file.as_fd()])
    });
    if let Err(error) = left {
        tracing::warn!("cannot store the stop signal for the next run: {error:#}");
    }
}

/// Removes the stored stop signal: the agent runs again.
pub(super) fn remove_stop() {
    forget(&[name(STOP)]);
}

fn read_stop(fd: OwnedFd) -> Option<Touched> {
    let mut bytes = [0; size_of::<Touched>()];
    File::from(fd).read_exact_at(&mut bytes, 0).ok()?;
    Touched::read_from_bytes(&bytes).ok()
}

fn read_state(fd: OwnedFd) -> Result<HandoverState> {
    let mut file = File::from(fd);
    file.rewind()?;
    let state: HandoverState = serde_json::from_reader(BufReader::new(file.take(STATE_BYTES_MAX)))?;
    let version = state.version;
    ensure!(version == STATE_VERSION, "state has version {version}, expected {STATE_VERSION}");
    Ok(state)
}

/// The numbers of this process's links.
pub(super) fn links() -> Result<Vec<i32>> {
    let mut links = Vec::new();
    for entry in fs::read_dir("/proc/self/fd").context("/proc/self/fd")? {
        let entry = entry?;
        // The descriptor by which this folder is read is closed at the end.
        let Ok(place) = fs::read_link(entry.path()) else { continue };
        if LINKS.iter().any(|link| place.as_os_str() == *link) {
            links.extend(entry.file_name().to_str().and_then(|number| number.parse::<i32>().ok()));
        }
    }
    ensure!(!links.is_empty(), "no program is attached");
    Ok(links)
}

/// Their readability has no meaning, so the manager must not poll them.
const UNPOLLED: NotifyState<'_> = NotifyState::Custom("FDPOLL=0");

/// The name of a descriptor of this run.
fn name(what: &str) -> String {
    // A pid alone may be reused.
    let start = own::start().unwrap_or_default();
    format!("{what}-{VERSION}-{}-{start}", std::process::id())
}

fn keep(what: &str, fds: &[BorrowedFd<'_>]) -> Result<()> {
    let name = name(what);
    let message = [NotifyState::FdStore, UNPOLLED, NotifyState::FdName(&name)];
    sd_notify::notify_with_fds(&message, fds).context("sd_notify FDSTORE failed")
}

fn forget(names: &[String]) {
    let mut names: Vec<_> = names.iter().collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        if let Err(error) = sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)]) {
            tracing::warn!("cannot remove `{name}` from the fd store: {error}");
        }
    }
}

/// The kind of a descriptor, the version of the wire, and the process that stored it.
fn parse(name: &str) -> Option<(&str, u16, Key)> {
    let mut parts = name.splitn(4, '-');
    let (what, version, pid, start) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    Some((what, version.parse().ok()?, Key::new(pid.parse().ok()?, start.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptor_names_contain_kind_version_and_process() {
        assert_eq!(parse("records-2-812-70000000"), Some(("records", 2, Key::new(812, 70_000_000))));
        for odd in ["", "stored", "records-2-812", "records-x-812-1", "records-2-812-1-1", "records-2-812-x"]
        {
            assert_eq!(parse(odd), None, "{odd}");
        }
    }
}
