//! Who may know whom: the invariants of `ARCHITECTURE.md` that are about `use`.

use super::{Fault, File, Project, is_below};

/// A place in the tree and what its files must not name.
struct Fence {
    within: &'static str,
    /// Paths as they stand in code: `crate::sink`, or of another crate.
    never: &'static [&'static str],
    why: &'static str,
}

const ENGINE_ORDER: &str = "a module imports only what is left of it: event, lang, rule, detect, engine";
const AGENT_ORDER: &str = "a source knows nothing of what becomes of its events";

#[rustfmt::skip]
const FENCES: &[Fence] = &[
    Fence { within: "agent/engine/src/event", never: &["crate::lang", "crate::rule", "crate::detect", "crate::engine"], why: ENGINE_ORDER },
    Fence { within: "agent/engine/src/lang", never: &["crate::rule", "crate::detect", "crate::engine"], why: ENGINE_ORDER },
    Fence { within: "agent/engine/src/rule", never: &["crate::detect", "crate::engine"], why: ENGINE_ORDER },
    Fence { within: "agent/engine/src/detect", never: &["crate::engine"], why: ENGINE_ORDER },
    Fence {
        within: "agent/engine/src",
        never: &["std::fs", "std::io", "std::env", "std::thread", "std::process", "std::time::Instant", "std::time::SystemTime",
            "std::net::TcpStream", "std::net::TcpListener", "std::net::UdpSocket", "std::os"],
        why: "the engine performs no I/O, reads no clock and starts no thread",
    },
    Fence { within: "agent/src/source", never: &["crate::sink", "crate::alert_log", "crate::pipeline", "crate::command"], why: AGENT_ORDER },
    Fence { within: "agent/src/sensor", never: &["crate::sink", "crate::alert_log", "crate::store", "crate::pipeline", "crate::command"], why: AGENT_ORDER },
    Fence { within: "agent/src/sink", never: &["crate::source", "crate::sensor", "crate::pipeline", "crate::command"], why: "a sink knows alerts, and not where they come from" },
    Fence { within: "agent/src/ledger", never: &["crate::sink", "crate::source", "crate::sensor", "crate::pipeline", "crate::command"], why: "the ledger writes, and knows neither sources nor sinks" },
    Fence { within: "agent/src/store", never: &["crate::sink", "crate::source", "crate::sensor", "crate::pipeline", "crate::command"], why: "the store lies under everything that must survive" },
    Fence { within: "agent/src/pipeline", never: &["crate::command"], why: "commands run the pipeline, not the other way round" },
    Fence { within: "agent-ebpf/common", never: &["lapwing_engine", "std::fs"], why: "the wire knows neither side" },
];

/// The table of actions, which names records by their kind and is read by more than the sensor.
const ACTIONS: &str = "agent/src/action.rs";

/// The one module that turns records into events.
const DECODE: &str = "agent/src/sensor/decode";

/// Every file stays on its side of every fence.
pub(super) fn point_one_way(project: &Project, faults: &mut Vec<Fault>) {
    for fence in FENCES {
        for file in project.below(fence.within).filter(|file| file.is_rust()) {
            for (line, path) in named(file) {
                let crossed = fence.never.iter().find(|never| {
                    path.strip_prefix(**never).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
                });
                if let Some(never) = crossed {
                    faults.push(file.fault(line, format!("knows `{never}`, but {}", fence.why)));
                }
            }
        }
    }
}

/// Only `decode` knows both how records lie in memory and what fields are called.
pub(super) fn keep_the_wire_from_ecs(project: &Project, faults: &mut Vec<Fault>) {
    for file in project.below("agent/src").filter(|file| file.is_rust() && !is_below(&file.path, DECODE)) {
        let mut code = file.code();
        let Some((line, _)) = code.find(|(_, line)| line.contains("lapwing_common")) else { continue };
        if !file.path.starts_with("agent/src/sensor/") && file.path != ACTIONS {
            faults.push(file.fault(line, "knows the wire, which is the sensor's alone"));
        } else if file.code().any(|(_, line)| line.contains("field!(")) {
            faults.push(file.fault(line, format!("knows the wire and ECS, which only {DECODE} does")));
        }
    }
}

/// The paths that a file names, with the line where each begins. `use` trees are opened: `crate::{a, b::c}` names
/// `crate::a` and `crate::b::c`.
pub(super) fn named(file: &File) -> Vec<(usize, String)> {
    let mut paths = Vec::new();
    let mut tree = String::new();
    let mut began = 0;
    for (number, line) in file.code() {
        let line = line.trim();
        if tree.is_empty() && !is_use(line) {
            paths.extend(mentioned(line).map(|path| (number, path)));
            continue;
        }
        if tree.is_empty() {
            began = number;
        }
        tree.push_str(line);
        if line.ends_with(';') {
            let start = tree.find("use ").map_or(0, |at| at + 4);
            open(tree[start..].trim_end_matches(';'), "", &mut |path| paths.push((began, path)));
            tree.clear();
        }
    }
    paths
}

fn is_use(line: &str) -> bool {
    line.starts_with("use ") || (line.starts_with("pub") && line.contains(" use "))
}

/// Opens one `use` tree.
fn open(tree: &str, before: &str, found: &mut dyn FnMut(String)) {
    let tree = tree.trim();
    let Some((stem, group)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or(tree);
        return found(format!("{before}{path}"));
    };
    let before = format!("{before}{stem}");
    let group = group.strip_suffix('}').unwrap_or(group);
    let (mut depth, mut start) = (0_usize, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                open(&group[start..at], &before, found);
                start = at + 1;
            }
            _ => {}
        }
    }
    if !group[start..].trim().is_empty() {
        open(&group[start..], &before, found);
    }
}

/// The paths of two or more segments in a line of code.
fn mentioned(line: &str) -> impl Iterator<Item = String> {
    line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))
        .filter(|word| word.contains("::"))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::faults;

    #[test]
    fn a_use_tree_is_opened() {
        let text = "pub(crate) use crate::{\n    a,\n    b::{C, d::E as F},\n};\nlet x = crate::g::h();\n// crate::i\n";
        let file = File { path: "x.rs".into(), text: text.into() };
        let paths: Vec<_> = named(&file).into_iter().map(|(line, path)| format!("{line} {path}")).collect();
        assert_eq!(paths, ["1 crate::a", "1 crate::b::C", "1 crate::b::d::E", "5 crate::g::h"]);
    }

    #[test]
    fn fences_hold() {
        let found = faults(
            point_one_way,
            &[
                (
                    "agent/engine/src/lang/mod.rs",
                    "use crate::event::Event;\nuse crate::{\n    rule::Rule,\n};\n",
                ),
                (
                    "agent/engine/src/detect/mod.rs",
                    "use crate::lang::Query;\nfn f() -> crate::engine::Engine\n",
                ),
                (
                    "agent/engine/src/engine.rs",
                    "use crate::detect::Detector;\nlet now = std::time::Instant::now();\n",
                ),
                ("agent/engine/src/rule/load.rs", "use std::net::IpAddr;\nuse crate::engineering::X;\n"),
                ("agent/src/source/replay.rs", "use crate::sink::Sink;\n"),
                ("agent/src/ledger.rs", "use crate::store::Store;\nuse crate::sink;\n"),
            ],
        );
        assert_eq!(
            found,
            [
                "agent/engine/src/lang/mod.rs:2",
                "agent/engine/src/detect/mod.rs:2",
                "agent/engine/src/engine.rs:2",
                "agent/src/source/replay.rs:1",
                "agent/src/ledger.rs:2"
            ]
        );
    }

    #[test]
    fn the_wire_and_ecs_meet_in_one_file() {
        let both = "use lapwing_common::Exec;\nfields.set(field!(\"process.name\"));\n";
        let found = faults(
            keep_the_wire_from_ecs,
            &[
                (DECODE, both),
                ("agent/src/sensor/process.rs", "use lapwing_common::Exec;\n"),
                ("agent/src/sensor/context.rs", both),
                ("agent/src/alert.rs", "use lapwing_common::Exec;\n"),
            ],
        );
        assert_eq!(found, ["agent/src/sensor/context.rs:1", "agent/src/alert.rs:1"]);
    }
}
