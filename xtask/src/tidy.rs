//! The house rules that no compiler knows, checked over the text of the project.
//!
//! A rule is a row of [`RULES`]: a function from the project's files to what is wrong with them. It reads text and
//! understands little of it; rustfmt, which runs first, makes that enough.

mod imports;
mod layers;
mod promises;
mod text;

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::shell;

/// What is read: these folders whole, and the plain files beside them.
const FOLDERS: &[&str] = &["agent", "agent-ebpf", "xtask", "tests", "packaging", "docs", ".ci", ".cargo"];
/// Folders that cargo fills.
const BUILT: &str = "target";
/// git's own, a file where this is one of several work trees.
const GIT: &str = ".git";

/// Adds what it finds wrong.
type Rule = fn(&Project, &mut Vec<Fault>);

const RULES: &[Rule] = &[
    imports::point_one_way,
    imports::keep_the_wire_from_ecs,
    layers::modules_form_no_circle,
    text::functions_are_short,
    text::files_are_short,
    text::words_are_plain,
    text::type_names_have_one_meaning,
    text::files_say_why_they_exist,
    text::words_that_do_not_appear,
    text::no_path_of_a_machine,
    promises::architecture_is_true,
    promises::hooks_are_tested_live,
    promises::tests_need_root_visibly,
    promises::rules_have_tests,
    promises::exceptions_have_reasons,
    promises::dependencies_are_named_once,
];

/// Checks the project against every rule.
///
/// # Errors
/// Everything that is wrong, a line each.
pub(crate) fn run() -> Result<()> {
    let project = Project::read(&shell::root())?;
    let mut faults = Vec::new();
    for rule in RULES {
        rule(&project, &mut faults);
    }
    if faults.is_empty() {
        return Ok(());
    }
    let lines: Vec<_> = faults.iter().map(Fault::to_string).collect();
    bail!("{}", lines.join("\n"))
}

/// One thing that is wrong.
struct Fault {
    path: String,
    line: usize,
    what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// A file of the project.
struct File {
    /// From the project's folder, with `/` between.
    path: String,
    text: String,
}

impl File {
    /// Its lines with their numbers.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    /// The lines that are code, with their numbers; a comment at the end of one stays.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines().filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// The line at which its own tests begin; behind the last one where it has none.
    fn tests_begin(&self) -> usize {
        let lines: Vec<_> = self.text.lines().collect();
        let tests = |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1] == "mod tests {";
        lines.windows(2).position(tests).unwrap_or(lines.len()) + 1
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    fn fault(&self, line: usize, what: impl Into<String>) -> Fault {
        Fault { path: self.path.clone(), line, what: what.into() }
    }
}

/// Every file of the project that is text.
struct Project {
    files: Vec<File>,
}

impl Project {
    fn read(root: &Path) -> Result<Self> {
        let mut files = Vec::new();
        for entry in fs::read_dir(root).with_context(|| root.display().to_string())? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if FOLDERS.contains(&name.as_str()) {
                collect(root, &path, &mut files)?;
            } else if path.is_file() && name != GIT {
                let is_text = read(root, &path, &mut files)?;
                ensure!(is_text, "{name}: beside the folders only text may stand; remove the file");
            }
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self { files })
    }

    fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// The files below a folder, or that one file.
    fn below(&self, place: &str) -> impl Iterator<Item = &File> {
        self.files.iter().filter(move |file| is_below(&file.path, place))
    }

    fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.is_rust())
    }
}

/// Whether a path is a place or lies in it; `a/b` stands for the module `a/b.rs` too.
fn is_below(path: &str, place: &str) -> bool {
    path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest == ".rs" || rest.starts_with('/'))
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<File>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            if !path.ends_with(BUILT) {
                collect(root, &path, files)?;
            }
        } else {
            read(root, &path, files)?;
        }
    }
    Ok(())
}

/// Adds a file that is text, and returns whether it is. A binary file, such as a recorded database, has no rules to keep.
fn read(root: &Path, path: &Path, files: &mut Vec<File>) -> Result<bool> {
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    let Ok(text) = String::from_utf8(bytes) else { return Ok(false) };
    let path = path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned();
    files.push(File { path, text });
    Ok(true)
}

/// What a rule says of a project of these files, for the tests of the rules.
#[cfg(test)]
fn faults(rule: Rule, files: &[(&str, &str)]) -> Vec<String> {
    let files = files.iter().map(|(path, text)| File { path: (*path).into(), text: (*text).into() });
    let mut faults = Vec::new();
    rule(&Project { files: files.collect() }, &mut faults);
    faults.iter().map(|fault| format!("{}:{}", fault.path, fault.line)).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_project_is_tidy() {
        if let Err(faults) = super::run() {
            panic!("{faults}");
        }
    }
}
