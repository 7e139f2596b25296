//! Interference with the sensor itself, by root: each is an alert, and `lapwing status` says so.

use std::fs;
use std::time::Duration;

use aya::Pod;
use aya::maps::{Array, Map, MapData, MapInfo, PerCpuArray, loaded_maps};
use lapwing_stage::{Agent, Alert};

use crate::alerts::{agent_with_small_rings as agent, attack_once, is_of, value};

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
