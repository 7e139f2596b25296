//! What root does to the sensor: ten kinds of interference, executed. Each has the words of its alert.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aya::Pod;
use aya::maps::{Array, Map, MapData, MapInfo, PerCpuArray, loaded_maps};
use lapwing_stage::Agent;

use crate::inject;

/// Words of the alert; none where this kernel or machine has nothing to do it to.
pub(crate) type Words = Option<&'static str>;
/// The one alert about it.
pub(crate) const TAMPERED: &str = "Sensor tampered with";
/// How long a sensor is stopped.
const STOPPED: Duration = Duration::from_millis(1500);

/// Counters of one processor, as their map has them.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Counters([u64; 48]);

// SAFETY: an array of numbers.
unsafe impl Pod for Counters {}

/// The words of a filter, as their map has them.
#[derive(Clone, Copy, PartialEq, Debug)]
#[repr(transparent)]
pub(crate) struct Filter(pub(crate) [u32; 16]);

// SAFETY: an array of numbers.
unsafe impl Pod for Filter {}

/// The descriptors of this agent, each with its link in procfs.
fn descriptors(agent: &Agent) -> impl Iterator<Item = (i32, String)> {
    let folder = fs::read_dir(format!("/proc/{}/fdinfo", agent.pid())).unwrap().flatten();
    folder.filter_map(|entry| {
        let text = fs::read_to_string(entry.path()).ok()?;
        Some((entry.file_name().to_str()?.parse().ok()?, text))
    })
}

/// A value that the kernel says of a descriptor.
fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim()))
}

/// A map of this agent by its name, among its descriptors.
fn map(agent: &Agent, name: &str) -> MapInfo {
    let id = |(_, text): (i32, String)| value(&text, "map_id:")?.parse().ok();
    let held: Vec<u32> = descriptors(agent).filter_map(id).collect();
    let mut maps = loaded_maps().filter_map(Result::ok);
    maps.find(|map| map.name_as_str() == Some(name) && held.contains(&map.id())).expect("the map")
}

/// The map with the kernel's filter.
pub(crate) fn filter(agent: &Agent) -> Array<MapData, Filter> {
    let data = MapData::from_id(map(agent, "FILTER").id()).unwrap();
    Array::try_from(Map::Array(data)).unwrap()
}

/// A link of this agent's to a program, by the descriptors that it holds: the descriptor, and the link's id.
pub(crate) fn links(agent: &Agent, is_wanted: impl Fn(&str) -> bool) -> Vec<(i32, u32)> {
    let links = descriptors(agent).filter_map(|(fd, text)| {
        let id = value(&text, "link_id:")?.parse().ok()?;
        let ty = format!("{} {}", value(&text, "link_type:")?, value(&text, "tp_name:").unwrap_or_default());
        is_wanted(&ty).then_some((fd, id))
    });
    links.collect()
}

/// A command of `bpf(2)` that the library does not offer.
fn bpf(command: i32, first: u32) -> i64 {
    let mut attributes = [0_u32; 30];
    attributes[0] = first;
    // SAFETY: the kernel reads the attributes, whose size is given, and returns a number.
    unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size_of_val(&attributes)) }
}

/// Detaches a link by its id. The kernel allows that for links to control groups, which the UDP hook uses.
pub(crate) fn detach_a_link(agent: &Agent) -> Words {
    const GET_FD_BY_ID: i32 = 30;
    const DETACH: i32 = 34;
    let (_, id) = *links(agent, |ty| ty.starts_with("cgroup")).first()?;
    let fd = bpf(GET_FD_BY_ID, id);
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    assert_eq!(bpf(DETACH, u32::try_from(fd).unwrap()), 0, "{}", std::io::Error::last_os_error());
    Some("the hook udp is attached again")
}

/// Makes the agent close its descriptor of the exec hook's link, the last reference to it.
pub(crate) fn close_the_last_descriptor(agent: &Agent) -> Words {
    let (fd, _) = *links(agent, |ty| ty.contains("sched_process_exec")).first()?;
    inject::close(agent.pid(), fd).then_some("the hook exec is attached again")
}

/// Writes to the filter, so that no connection is reported.
pub(crate) fn write_the_filter(agent: &Agent) -> Words {
    filter(agent).set(0, Filter([u32::MAX; 16]), 0).unwrap();
    Some("the map FILTER")
}

/// Writes to a map that programs alone write, to forge what was counted: the kernel refuses it.
pub(crate) fn write_a_frozen_map(agent: &Agent) -> Words {
    let data = MapData::from_id(map(agent, "COUNTS").id()).unwrap();
    let mut counts: PerCpuArray<_, Counters> = PerCpuArray::try_from(Map::PerCpuArray(data)).unwrap();
    let values = counts.get(&0, 0).unwrap();
    assert!(counts.set(0, values, 0).is_err(), "the map is frozen");
    Some("the command BPF_MAP_UPDATE_ELEM")
}

/// Traces the agent for a moment.
pub(crate) fn trace(agent: &Agent) -> Words {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(agent.pid()).unwrap());
    nix::sys::ptrace::attach(pid).unwrap();
    nix::sys::wait::waitpid(pid, None).unwrap();
    nix::sys::ptrace::detach(pid, None).unwrap();
    Some("as a debugger does")
}

/// Stops the agent, and lets it go on.
pub(crate) fn stop(agent: &Agent) -> Words {
    agent.signal("STOP").unwrap();
    std::thread::sleep(STOPPED);
    agent.signal("CONT").unwrap();
    Some("and stood still for 1.")
}

/// Puts another program into the place of the agent's.
pub(crate) fn replace_the_binary(program: &Path) -> Words {
    let other = beside(program, "other");
    fs::copy(program, &other).unwrap();
    File::options().append(true).open(&other).unwrap().write_all(b"x").unwrap();
    fs::rename(&other, program).unwrap();
    Some("the executable ")
}

/// Edits a rule.
pub(crate) fn edit_a_rule(rules: &Path) -> Words {
    append(&rules.join("reverse_shell.toml"), "# x\n");
    Some("the rule file ")
}

/// Deletes the alert log.
pub(crate) fn delete_the_log(agent: &Agent) -> Words {
    fs::remove_file(agent.alert_log()).unwrap();
    Some("the alert log ")
}

/// Deletes the store.
pub(crate) fn delete_the_store(agent: &Agent) -> Words {
    fs::remove_file(agent.folder().join("state/lapwing.db")).unwrap();
    Some("the store ")
}

/// Adds a text to a file.
pub(crate) fn append(path: &Path, text: &str) {
    File::options().append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

/// A path in the same folder.
fn beside(path: &Path, name: &str) -> PathBuf {
    path.with_file_name(name)
}
