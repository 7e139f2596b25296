//! What one file promises of another: maps, tables and the tests that belong to their rows.

use super::{Fault, File, Project, is_below};

const ARCHITECTURE: &str = "ARCHITECTURE.md";
const HOOKS: &str = "agent/src/sensor/hook.rs";
const LIVE: &str = "tests/live";
/// Programs of tests that need root.
const PRIVILEGED: [&str; 6] =
    ["tests/abuse", "tests/detection", "tests/evasion", "tests/live", "tests/service", "tests/shells"];
const RULES: &str = "packaging/rules";
const DENY: &str = "deny.toml";
const MANIFEST: &str = "Cargo.toml";
/// A workspace of its own, built by another compiler, and what it shares with ours.
const KERNEL: &str = "agent-ebpf";

/// Every path named in `ARCHITECTURE.md` exists; it may be named from the folder that the text is about.
pub(super) fn architecture_is_true(project: &Project, faults: &mut Vec<Fault>) {
    let Some(file) = project.file(ARCHITECTURE) else { return };
    for (line, text) in file.lines() {
        for name in text.split('`').skip(1).step_by(2).filter(|name| is_path(name)) {
            let place = name.trim_end_matches('/');
            let exists = project.files.iter().any(|file| {
                let path = format!("/{}", file.path);
                path.ends_with(&format!("/{place}")) || path.contains(&format!("/{place}/"))
            });
            if !exists {
                faults.push(file.fault(line, format!("there is no `{name}`")));
            }
        }
    }
}

fn is_path(name: &str) -> bool {
    let is_plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c));
    is_plain && (name.contains('/') || [".rs", ".md", ".toml"].iter().any(|end| name.ends_with(end)))
}

/// Every test of the programs that need root is shown as ignored elsewhere.
pub(super) fn tests_need_root_visibly(project: &Project, faults: &mut Vec<Fault>) {
    for file in PRIVILEGED.into_iter().flat_map(|folder| project.below(folder)).filter(|file| file.is_rust())
    {
        let lines: Vec<_> = file.text.lines().map(str::trim_start).collect();
        for (index, pair) in lines.windows(2).enumerate() {
            if pair[0] == "#[test]" && !pair[1].starts_with("#[cfg_attr(not(root), ignore") {
                let what = "write `#[cfg_attr(not(root), ignore = \"needs root\")]` below it";
                faults.push(file.fault(index + 1, what.to_owned()));
            }
        }
    }
}

/// Every row of the hook table has a module of live tests of its name, with a test in it.
pub(super) fn hooks_are_tested_live(project: &Project, faults: &mut Vec<Fault>) {
    let Some(table) = project.file(HOOKS) else { return };
    for (line, text) in table.lines() {
        let Some((_, row)) = text.split_once("Hook { name: \"") else { continue };
        let name = row.split('"').next().unwrap_or_default();
        let path = format!("{LIVE}/{name}.rs");
        if !project.file(&path).is_some_and(|file| file.text.contains("#[test]")) {
            faults.push(table.fault(line, format!("the hook `{name}` has no live test: write {path}")));
        }
    }
}

/// Every rule that is shipped has tests beside it, and says whose logic it is.
pub(super) fn rules_have_tests(project: &Project, faults: &mut Vec<Fault>) {
    let is_rule = |file: &&File| {
        file.path.ends_with(".toml")
            && !file.path.ends_with(".test.toml")
            && file.lines().any(|(_, line)| line == "[rule]")
    };
    for file in project.below(RULES).filter(is_rule) {
        let tests = file.path.replace(".toml", ".test.toml");
        if !project.file(&tests).is_some_and(|file| file.text.contains("[[test]]")) {
            faults.push(file.fault(1, format!("has no tests: write {tests}")));
        }
        if file.text.contains("author = [\"Elastic\"") && !file.lines().any(|(_, line)| is_origin(line)) {
            faults.push(
                file.fault(1, "has Elastic's logic: say so, and under which licence, in a comment on top"),
            );
        }
    }
}

fn is_origin(line: &str) -> bool {
    line.starts_with('#') && line.contains("Elastic License")
}

/// Every line of a list in `deny.toml` has its reason: beside it, above it, or as `reason`.
pub(super) fn exceptions_have_reasons(project: &Project, faults: &mut Vec<Fault>) {
    let Some(file) = project.file(DENY) else { return };
    let mut is_explained = false;
    for (line, text) in file.lines() {
        let text = text.trim();
        let is_entry = text.starts_with(['{', '"']) || text.contains("= [\"") || text.contains("= [{");
        let has_reason = text.contains("# ") || text.contains("reason = \"");
        if is_entry && !has_reason && !is_explained {
            faults.push(file.fault(line, "an exception without a reason"));
        }
        // A comment explains the entries that follow it, up to the next line that is none.
        is_explained = text.starts_with('#') || (is_explained && is_entry);
    }
}

/// Crates of others are named once, in the workspace, without features that are not used.
pub(super) fn dependencies_are_named_once(project: &Project, faults: &mut Vec<Fault>) {
    let is_manifest = |file: &&File| file.path.ends_with(MANIFEST) && !is_below(&file.path, KERNEL);
    for file in project.files.iter().filter(is_manifest) {
        let mut section = "";
        for (line, text) in file.lines() {
            if text.starts_with('[') {
                section = text;
            }
            let is_entry = section.ends_with("dependencies]") && text.contains('=') && !text.starts_with('#');
            let is_ours = text.contains("path = \"");
            if is_entry && section == "[workspace.dependencies]" {
                if !is_ours && !text.contains("default-features = false") {
                    faults.push(file.fault(line, "name the features that are needed, and no others"));
                }
            } else if is_entry && !text.contains("workspace = true") {
                faults.push(file.fault(line, "belongs into [workspace.dependencies]"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::faults;

    #[test]
    fn a_path_of_the_architecture_must_exist() {
        let text =
            "`agent/src/`\n`sensor/decode.rs` and `event ◀ lang`\n`pipeline.rs`: `cargo xtask` `sink/`\n";
        let found = faults(architecture_is_true, &[(ARCHITECTURE, text), ("agent/src/sensor/decode.rs", "")]);
        assert_eq!(found, ["ARCHITECTURE.md:3", "ARCHITECTURE.md:3"]);
    }

    #[test]
    fn a_test_that_needs_root_must_be_ignored_elsewhere() {
        let live =
            "#[test]\n#[cfg_attr(not(root), ignore = \"needs root\")]\nfn a() {}\n#[test]\nfn b() {}\n";
        let files = [("tests/live/fork.rs", live), ("tests/pipeline/main.rs", "#[test]\nfn c() {}\n")];
        assert_eq!(faults(tests_need_root_visibly, &files), ["tests/live/fork.rs:4"]);
    }

    #[test]
    fn a_hook_must_have_a_live_test() {
        let table = "Hook { name: \"fork\", yields: &[] },\nHook { name: \"exec\", yields: &[] },\n";
        let found = faults(
            hooks_are_tested_live,
            &[(HOOKS, table), ("tests/live/fork.rs", "#[test]\n"), ("tests/live/exec.rs", "// none\n")],
        );
        assert_eq!(found, ["agent/src/sensor/hook.rs:2"]);
    }

    #[test]
    fn a_rule_must_have_tests() {
        let rule = "# Our own.\n[rule]\n";
        let found = faults(
            rules_have_tests,
            &[
                ("packaging/rules/a.toml", rule),
                ("packaging/rules/a.test.toml", "[[test]]\n"),
                ("packaging/rules/b.toml", rule),
                ("packaging/rules/b.test.toml", "[event.exec]\n"),
                ("packaging/rules/c.toml", "[rule]\nauthor = [\"Elastic\"]\n"),
                ("packaging/rules/c.test.toml", "[[test]]\n"),
                ("packaging/rules/jobs/d.toml", "[job]\n"),
            ],
        );
        assert_eq!(found, ["packaging/rules/b.toml:1", "packaging/rules/c.toml:1"]);
    }

    #[test]
    fn an_exception_must_have_a_reason() {
        let text = "[bans]\nallow = [\n    \"MIT\", # Common.\n    \"ISC\",\n]\nskip = [\n    # Both are old.\n    \
                    \"a\",\n    \"b\",\n]\ndeny = [\n    { name = \"c\", reason = \"slow\" },\n    { name = \"d\" },\n]\n";
        assert_eq!(faults(exceptions_have_reasons, &[(DENY, text)]), ["deny.toml:4", "deny.toml:13"]);
    }

    #[test]
    fn a_dependency_is_named_once() {
        let root = "[workspace.dependencies]\na = { version = \"1\", default-features = false }\nb = \"1\"\nc = { path = \"c\" }\n";
        let member = "[package]\nname = \"c\"\n[dependencies]\na.workspace = true\nd = \"1\"\n";
        let found = faults(dependencies_are_named_once, &[("Cargo.toml", root), ("c/Cargo.toml", member)]);
        assert_eq!(found, ["Cargo.toml:3", "c/Cargo.toml:5"]);
    }
}
