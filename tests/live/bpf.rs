//! The hook `bpf`: commands on the sensor's maps and links.

use aya::Pod;
use aya::maps::{Array, Map, MapData, loaded_maps};

use crate::agent::field;
use crate::touch::Own;

/// The words of a filter, as their map has them.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Words([u32; 16]);

// SAFETY: an array of numbers.
unsafe impl Pod for Words {}

/// A map of the sensor's is written by another process, here with what it holds already.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_map_that_is_written_says_by_whom() {
    let agent = Own::start();
    let held = agent.maps();
    let mut maps = loaded_maps().filter_map(Result::ok);
    let filter = maps.find(|map| map.name_as_str() == Some("FILTER") && held.contains(&map.id())).unwrap();
    let data = MapData::from_id(filter.id()).unwrap();
    let mut filter: Array<_, Words> = Array::try_from(Map::Array(data)).unwrap();
    let words = filter.get(&0, 0).unwrap();
    filter.set(0, words, 0).unwrap();
    let event = agent.tampered("BPF_MAP_UPDATE_ELEM");
    assert_eq!(field(&event, "process.pid"), std::process::id(), "{event:#}");
}
