//! Modules import one way. At every level, siblings, each with everything below it, form no circle: a module may use
//! what its parents define, and a parent what its children define, but of two siblings only one may use the other.

use std::collections::{BTreeMap, BTreeSet};

use super::imports::named;
use super::{Fault, File, Project};

/// The crates' folders. Tests, which may use everything, are not counted.
const ROOTS: [&str; 2] = ["agent/src", "agent/engine/src"];

/// A module: the names from the root of its crate.
type Module = Vec<String>;

/// Which sibling uses which, with a file and a line where it does.
type Uses<'a> = BTreeMap<String, BTreeMap<String, (&'a File, usize, String)>>;

/// No circle among siblings, at any level.
pub(super) fn modules_form_no_circle(project: &Project, faults: &mut Vec<Fault>) {
    for root in ROOTS {
        let files: Vec<_> = project.below(root).filter(|file| file.is_rust()).collect();
        let modules: BTreeMap<Module, &File> = files.iter().map(|file| (module(root, file), *file)).collect();
        let tests: BTreeSet<Module> =
            modules.iter().flat_map(|(module, file)| test_modules(module, file)).collect();
        let is_test = |module: &Module| (1..=module.len()).any(|length| tests.contains(&module[..length]));
        let mut levels: BTreeMap<Module, Uses<'_>> = BTreeMap::new();
        for (from, file) in modules.iter().filter(|(module, _)| !is_test(module)) {
            let end = file.tests_begin();
            for (line, path) in named(file).into_iter().filter(|(line, _)| *line < end) {
                let Some(to) = resolve(&modules, from, &path) else { continue };
                let common = from.iter().zip(&to).take_while(|(from, to)| from == to).count();
                if let (Some(user), Some(used)) = (from.get(common), to.get(common)) {
                    let uses = levels.entry(from[..common].to_vec()).or_default();
                    let uses = uses.entry(user.clone()).or_default();
                    uses.entry(used.clone()).or_insert((file, line, path));
                }
            }
        }
        levels.values().for_each(|uses| report(uses, faults));
    }
}

/// Reports each circle once, where its first use is.
fn report(uses: &Uses<'_>, faults: &mut Vec<Fault>) {
    let mut reported = BTreeSet::new();
    for start in uses.keys() {
        let Some(circle) = circle(uses, start) else { continue };
        if circle.iter().all(|sibling| reported.insert(sibling.clone())) {
            let (file, line, path) = &uses[circle[0].as_str()][circle[1 % circle.len()].as_str()];
            let chain = circle.iter().chain(circle.first()).cloned().collect::<Vec<_>>().join(" -> ");
            faults.push(file.fault(*line, format!("`{path}` closes a circle of modules: {chain}")));
        }
    }
}

/// The shortest way from a sibling back to itself.
fn circle(uses: &Uses<'_>, start: &str) -> Option<Vec<String>> {
    let mut ways = vec![vec![start.to_owned()]];
    let mut seen = BTreeSet::new();
    while let Some(way) = (!ways.is_empty()).then(|| ways.remove(0)) {
        for next in uses.get(way.last()?).into_iter().flat_map(BTreeMap::keys) {
            if next == start {
                return Some(way);
            }
            if seen.insert(next.clone()) {
                ways.push(way.iter().chain([next]).cloned().collect());
            }
        }
    }
    None
}

/// The module that a file is.
fn module(root: &str, file: &File) -> Module {
    let path = file.path.trim_start_matches(root).trim_end_matches(".rs");
    let mut names: Module = path.split('/').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    names.pop_if(|name| matches!(name.as_str(), "mod" | "main" | "lib"));
    names
}

/// The child modules that are compiled for tests only.
fn test_modules(module: &Module, file: &File) -> Vec<Module> {
    let lines: Vec<_> = file.text.lines().collect();
    let tests = lines.windows(2).filter(|pair| pair[0] == "#[cfg(test)]");
    let names = tests.filter_map(|pair| pair[1].strip_suffix(';')?.split_once("mod ").map(|(_, name)| name));
    names.map(|name| module.iter().cloned().chain([name.to_owned()]).collect()).collect()
}

/// The module that a path names an item of.
fn resolve(modules: &BTreeMap<Module, &File>, from: &Module, path: &str) -> Option<Module> {
    let mut names: Vec<_> = path.split("::").filter(|name| !name.is_empty()).collect();
    let mut at = from.clone();
    match *names.first()? {
        "crate" => at = Vec::new(),
        "self" => {}
        "super" => {
            while names.first() == Some(&"super") {
                at.pop();
                names.remove(0);
            }
            names.insert(0, "");
        }
        first => {
            at.push(first.to_owned());
            modules.get(&at)?;
        }
    }
    for name in &names[1..] {
        at.push((*name).to_owned());
        if !modules.contains_key(&at) {
            at.pop();
            break;
        }
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::faults;

    #[test]
    fn circles_of_siblings_are_found_at_every_level() {
        let parent = ("agent/src/a/mod.rs", "mod x;\nmod y;\nuse self::x::X;\n#[cfg(test)]\nmod tests;\n");
        for (files, expected) in [
            (&[("agent/src/b.rs", "use crate::a::X;\n")][..], &[][..]),
            (&[("agent/src/a/x.rs", "use super::Y;\n"), ("agent/src/a/tests.rs", "use crate::b::B;\n")], &[]),
            (
                &[
                    ("agent/src/a/x.rs", "use crate::b::B;\n"),
                    ("agent/src/b.rs", "\nuse crate::a::{X, Y};\n"),
                ],
                &["agent/src/a/x.rs:1"],
            ),
            (
                &[
                    ("agent/src/a/x.rs", "use super::y::Y;\n"),
                    ("agent/src/a/y.rs", "fn f() -> super::x::X {}\n"),
                ],
                &["agent/src/a/x.rs:1"],
            ),
            (
                &[
                    ("agent/src/b.rs", "use crate::c;\n"),
                    ("agent/src/c.rs", "use crate::d::D;\n"),
                    (
                        "agent/src/d.rs",
                        "use crate::b::B;\n#[cfg(test)]\nmod tests {\n    use crate::c::C;\n}\n",
                    ),
                ],
                &["agent/src/b.rs:1"],
            ),
            (
                &[
                    ("agent/src/b.rs", "#[cfg(test)]\nmod tests {\n    use crate::c::C;\n}\n"),
                    ("agent/src/c.rs", "use crate::b;\n"),
                ],
                &[],
            ),
        ] {
            let files: Vec<_> = files.iter().copied().chain([parent]).collect();
            assert_eq!(faults(modules_form_no_circle, &files), expected, "{files:?}");
        }
    }
}
