//! Interference with what the sensor put into the kernel, and with its process, by root: each is an alert, and `lapwing status`
//! ends with 1 until it is resolved.

use std::fs;
use std::time::Duration;

use aya::Pod;
use aya::maps::{Array, Map, MapData, MapInfo, PerCpuArray, loaded_maps};
use lapwing_stage::{Agent, Alert};

use crate::alerts::{agent as agent_with, agent_with_small_rings as agent, attack_once, is_of, value};
use crate::inject;

/// How soon an alert must be there.
const SOON: Duration = Duration::from_secs(10);
const TAMPERED: &str = "Sensor tampered with";

/// Whether it is the alert of what was found in a map; there is another one about the command.
fn is_of_map(alert: &Alert) -> bool {
    alert.rule() == TAMPERED && alert.text("/event/reason").contains("the map FILTER")
}

/// A map of this agent by its name: one of those whose descriptors it holds.
fn map(agent: &Agent, name: &str) -> MapInfo {
    let held = held(agent);
    let mut maps = loaded_maps().filter_map(Result::ok);
    maps.find(|map| map.name_as_str() == Some(name) && held.contains(&map.id())).expect("the map")
}

/// The ids of the maps whose descriptors the agent holds.
fn held(agent: &Agent) -> Vec<u32> {
    let folder = format!("/proc/{}/fdinfo", agent.pid());
    let texts =
        fs::read_dir(folder).unwrap().filter_map(|entry| fs::read_to_string(entry.unwrap().path()).ok());
    let id = |text: String| text.lines().find_map(|line| line.strip_prefix("map_id:")?.trim().parse().ok());
    texts.filter_map(id).collect()
}

/// Counters of one processor, as their map has them.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Counters([u64; 48]);

// SAFETY: an array of numbers.
unsafe impl Pod for Counters {}

/// The words of a filter, as their map has them.
#[derive(Clone, Copy, PartialEq, Debug)]
#[repr(transparent)]
struct Words([u32; 16]);

// SAFETY: an array of numbers.
unsafe impl Pod for Words {}

/// Root writes to the map by which the kernel leaves out what no rule wants, so that no connection is reported. Seen: the
/// change, and each attack after it.
#[test]
fn the_filter_is_written() {
    let agent = agent();
    let data = MapData::from_id(map(&agent, "FILTER").id()).unwrap();
    let mut filter: Array<_, Words> = Array::try_from(Map::Array(data)).unwrap();
    let before = filter.get(&0, 0).unwrap();
    filter.set(0, Words([u32::MAX; 16]), 0).unwrap();
    let alert = agent.wait_for_within("the change", 0, SOON, is_of_map).unwrap();
    assert_eq!(value(&alert, "lapwing.alert.severity"), "high");
    assert_eq!(filter.get(&0, 0).unwrap(), before, "it is set right");
    let port = attack_once();
    agent.wait_for_within("the attack", 0, SOON, |alert| is_of(alert, port)).unwrap();
    let status = agent.status().unwrap();
    let tampered = &status["lanes"][0]["source"]["tampered"];
    let mut reasons = tampered.as_array().unwrap().iter().filter_map(|reason| reason.as_str());
    assert!(reasons.any(|reason| reason.contains("the map FILTER")), "{tampered}");
}

/// Root writes to a map that programs alone write, to forge what was counted. Seen: it cannot be written.
#[test]
fn a_frozen_map_is_written() {
    let agent = agent();
    let data = MapData::from_id(map(&agent, "COUNTS").id()).unwrap();
    let mut counts: PerCpuArray<_, Counters> = PerCpuArray::try_from(Map::PerCpuArray(data)).unwrap();
    let values = counts.get(&0, 0).unwrap();
    assert!(counts.set(0, values, 0).is_err(), "the map is frozen");
}

/// A link of this agent's to a program, by the descriptors that it holds: the descriptor, and the link's id.
fn links(agent: &Agent, is_wanted: impl Fn(&str) -> bool) -> Vec<(i32, u32)> {
    let folder = format!("/proc/{}/fdinfo", agent.pid());
    let entries = fs::read_dir(folder).unwrap().flatten();
    let links = entries.filter_map(|entry| {
        let text = fs::read_to_string(entry.path()).ok()?;
        let value =
            |name: &str| text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()));
        let id = value("link_id:")?.parse().ok()?;
        let ty = format!("{} {}", value("link_type:")?, value("tp_name:").unwrap_or_default());
        is_wanted(&ty).then(|| (entry.file_name().to_str().unwrap().parse().unwrap(), id))
    });
    links.collect()
}

/// `BPF_LINK_GET_FD_BY_ID` and `BPF_LINK_DETACH`, which the library does not offer.
fn bpf(command: i32, first: u32) -> i64 {
    let mut attributes = [0_u32; 30];
    attributes[0] = first;
    // SAFETY: the kernel reads the attributes, of which as many are there as is said, and returns a number.
    unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size_of_val(&attributes)) }
}

/// The attack is seen again, after a while in which the hook may have been away.
fn sees_again(agent: &Agent) {
    let port = attack_once();
    let seen = agent.wait_for_within("the attack", 0, SOON, |alert| is_of(alert, port));
    seen.unwrap();
}

fn is_tampered(agent: &Agent, words: &str) {
    let is_it = |alert: &Alert| alert.rule() == TAMPERED && alert.text("/event/reason").contains(words);
    let alert = agent.wait_for_within(words, 0, SOON, is_it).unwrap();
    assert_eq!(value(&alert, "lapwing.alert.severity"), "high");
    assert!(!agent.command("status").output().unwrap().status.success());
}

/// Root detaches a link by its id. The kernel has that for links to control groups, which datagrams are seen by. Seen: that it was
/// done, and it is attached again.
#[test]
fn a_link_is_detached() {
    let agent = agent_with("sensor.udp = true");
    let before = links(&agent, |ty| ty.starts_with("cgroup"));
    let Some((_, id)) = before.first() else {
        return lapwing_stage::skipped("this kernel attaches no program to control groups");
    };
    let fd = bpf(30, *id);
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    assert_eq!(bpf(34, u32::try_from(fd).unwrap()), 0, "{}", std::io::Error::last_os_error());
    is_tampered(&agent, "is attached again");
    assert_eq!(
        links(&agent, |ty| ty.starts_with("cgroup")).len(),
        before.len() + 1,
        "the old one, and its successor"
    );
    sees_again(&agent);
}

/// Root has the agent close its descriptor of a link, the last reference to the program's being attached: from then on no
/// program's start is seen. Seen: that it was done, and programs from then on.
#[test]
fn the_last_descriptor_of_a_link_is_closed() {
    let agent = agent_with("");
    let found = links(&agent, |ty| ty.contains("sched_process_exec"));
    let Some((fd, _)) = found.first() else {
        return lapwing_stage::skipped("this kernel does not say what a link is attached to");
    };
    if !inject::close(agent.pid(), *fd) {
        return lapwing_stage::skipped("system calls are injected on x86_64 alone");
    }
    is_tampered(&agent, "the hook exec is attached again");
    sees_again(&agent);
    assert_eq!(links(&agent, |ty| ty.contains("sched_process_exec")).len(), 1);
}

/// The same of a perf event, which is not attached again without privileges that the agent has given up. Seen: that it was done,
/// until a restart.
#[test]
fn the_descriptor_of_a_perf_event_is_closed() {
    let mut agent = agent_with("");
    let folder = fs::read_dir(format!("/proc/{}/fd", agent.pid())).unwrap().flatten();
    let is_event = |path: &std::path::PathBuf| {
        fs::read_link(path).is_ok_and(|to| to.as_os_str() == "anon_inode:[perf_event]")
    };
    let Some(event) = folder.map(|entry| entry.path()).find(is_event) else {
        return lapwing_stage::skipped("no hook is attached by a perf event here");
    };
    let fd = event.file_name().and_then(|name| name.to_str()?.parse().ok()).unwrap();
    if !inject::close(agent.pid(), fd) {
        return lapwing_stage::skipped("system calls are injected on x86_64 alone");
    }
    is_tampered(&agent, "restart the service");
    agent.stop().unwrap();
    agent.start_again().unwrap();
    assert!(agent.command("status").output().unwrap().status.success());
}
