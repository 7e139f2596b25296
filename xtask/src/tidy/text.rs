//! How the text itself must be.

use std::collections::BTreeMap;

use super::{Fault, Project};
use crate::shell;

/// Most lines of a function between its first line and its closing brace.
const FUNCTION_LINES_MAX: usize = 70;

/// Something that does not stand in the project's text.
struct Word {
    /// Written in halves, so that this table is not found by itself.
    halves: (&'static str, &'static str),
    /// Whether only Rust is looked at.
    in_rust: bool,
    instead: &'static str,
}

#[rustfmt::skip]
const WORDS: &[Word] = &[
    Word { halves: ("TO", "DO"), in_rust: false, instead: "do it, or say in a sentence what does not hold" },
    Word { halves: ("FIX", "ME"), in_rust: false, instead: "do it, or say in a sentence what does not hold" },
    Word { halves: ("#[ign", "ore"), in_rust: true, instead: "a test that cannot run prints `skipped: …` and returns" },
    Word { halves: ("#[should", "_panic"), in_rust: true, instead: "return the error and compare it" },
    Word { halves: ("#[allow", "("), in_rust: true, instead: "use #[expect(…, reason = …)], which warns when it is no longer needed" },
];

/// Folders of a person's machine.
const PLACES: &[(&str, &str)] = &[("/Use", "rs/"), ("/wo", "rk/"), ("/home/run", "ner")];

/// A word that hides what is meant. Identifiers are read as their words.
struct Vague {
    /// Written in halves, as above.
    halves: (&'static str, &'static str),
    instead: &'static str,
}

#[rustfmt::skip]
const VAGUE: &[Vague] = &[
    Vague { halves: ("te", "ll"), instead: "emit, report, log, return or print" },
    Vague { halves: ("te", "lls"), instead: "emits, reports, logs, returns or prints" },
    Vague { halves: ("to", "ld"), instead: "emitted, reported, logged, returned or printed" },
    Vague { halves: ("jud", "ge"), instead: "evaluate or score" },
    Vague { halves: ("jud", "ges"), instead: "evaluates or scores" },
    Vague { halves: ("jud", "ged"), instead: "evaluated or scored" },
    Vague { halves: ("as", "ked"), instead: "queried, requested or configured" },
    Vague { halves: ("who", "ever"), instead: "name the user, process or reader" },
];

/// Old names that stay known: the file that accepts them, and the page that lists them.
const OLD_NAMES: [&str; 2] = ["agent/engine/src/event/schema.rs", "CHANGELOG.md"];

/// Most lines of a file, without its tests.
const FILE_LINES_MAX: usize = 500;

/// Files that are one table.
const TABLES: [&str; 3] =
    ["agent/engine/src/event/fields.rs", "agent/src/budget/limits.rs", "agent-ebpf/common/src/records.rs"];

/// Names, comments, messages and documents use the terms of the field.
pub(super) fn words_are_plain(project: &Project, faults: &mut Vec<Fault>) {
    for file in project.files.iter().filter(|file| !OLD_NAMES.contains(&file.path.as_str())) {
        for (line, text) in file.lines() {
            for word in text.split(|c: char| !c.is_ascii_alphanumeric()) {
                let is_vague = |vague: &&Vague| {
                    let (first, rest) = vague.halves;
                    word.len() == first.len() + rest.len()
                        && word[..first.len()].eq_ignore_ascii_case(first)
                        && word[first.len()..].eq_ignore_ascii_case(rest)
                };
                if let Some(vague) = VAGUE.iter().find(is_vague) {
                    faults.push(file.fault(line, format!("`{word}`: say what happens: {}", vague.instead)));
                }
            }
        }
    }
}

/// Type names that several modules of a crate use, each for its own.
const SHARED_NAMES: [(&str, &[&str]); 2] = [
    // A query's syntax tree and its typed form.
    ("agent/engine/src", &["Expr", "Key", "Literal", "Query", "Sample", "Sequence", "Stage", "Token"]),
    // Each verb and each section of the configuration has one.
    ("agent/src", &["Args", "Config"]),
];

/// A visible type has a name of its own within its crate.
pub(super) fn type_names_have_one_meaning(project: &Project, faults: &mut Vec<Fault>) {
    for (root, shared) in SHARED_NAMES {
        let mut known: BTreeMap<&str, &str> = BTreeMap::new();
        let files = project.below(root).filter(|file| file.is_rust());
        for file in files {
            let end = file.tests_begin();
            for (line, text) in file.code().filter(|(line, _)| *line < end) {
                let Some(name) = type_name(text).filter(|name| !shared.contains(name)) else { continue };
                if let Some(first) = known.insert(name, &file.path) {
                    let what = format!(
                        "`{name}` is the name of another type too, in {first}: give it one of its own"
                    );
                    faults.push(file.fault(line, what));
                }
            }
        }
    }
}

/// The name of the visible type that a line of code defines.
fn type_name(line: &str) -> Option<&str> {
    let (visibility, rest) = line.strip_prefix("pub")?.split_once(' ')?;
    let rest = if visibility.starts_with("(in") { rest.split_once(") ")?.1 } else { rest };
    let (kind, rest) = rest.split_once(' ')?;
    let is_type = matches!(kind, "struct" | "enum" | "trait" | "type" | "union");
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
    is_type.then(|| &rest[..end])
}

/// A file has one reason to change.
pub(super) fn files_are_short(project: &Project, faults: &mut Vec<Fault>) {
    let is_test =
        |path: &str| path.starts_with("tests/") || path.ends_with("/tests.rs") || path.contains("/tests/");
    for file in project.rust().filter(|file| !is_test(&file.path) && !TABLES.contains(&file.path.as_str())) {
        let lines = file.tests_begin() - 1;
        if lines > FILE_LINES_MAX {
            let what = format!("{lines} lines without tests; {FILE_LINES_MAX} are the most");
            faults.push(file.fault(1, what));
        }
    }
}

/// No function is longer than a page.
pub(super) fn functions_are_short(project: &Project, faults: &mut Vec<Fault>) {
    for file in project.rust() {
        let lines: Vec<_> = file.text.lines().collect();
        for (index, line) in lines.iter().enumerate().filter(|(_, line)| is_function(line)) {
            let end = format!("{}}}", &line[..line.len() - line.trim_start().len()]);
            let count = lines[index..]
                .iter()
                .position(|line| *line == end)
                .map_or(0, |length| length.saturating_sub(1));
            if count > FUNCTION_LINES_MAX {
                let what = format!("{count} lines in a function; {FUNCTION_LINES_MAX} are the most");
                faults.push(file.fault(index + 1, what));
            }
        }
    }
}

/// Whether a function with a body of its own lines begins here.
fn is_function(line: &str) -> bool {
    let mut rest = line.trim_start();
    while let Some((word, after)) = rest.split_once(' ') {
        if word == "fn" {
            return !line.ends_with([';', '}']);
        }
        let is_prefix = word.starts_with("pub")
            || matches!(word, "const" | "async" | "unsafe" | "extern" | "in")
            || word.starts_with('"');
        if !is_prefix {
            return false;
        }
        rest = after;
    }
    false
}

/// Every file of Rust begins with a sentence about itself.
pub(super) fn files_say_why_they_exist(project: &Project, faults: &mut Vec<Fault>) {
    for file in project.rust().filter(|file| !file.text.starts_with("//! ")) {
        faults.push(file.fault(1, "begins without `//!` and a sentence that says why the file exists"));
    }
}

/// Marks of unfinished work, and attributes that hide something.
pub(super) fn words_that_do_not_appear(project: &Project, faults: &mut Vec<Fault>) {
    for word in WORDS {
        let needle = [word.halves.0, word.halves.1].concat();
        for file in project.files.iter().filter(|file| !word.in_rust || file.is_rust()) {
            for (line, _) in file.lines().filter(|(_, text)| stands_in(text, &needle)) {
                faults.push(file.fault(line, format!("`{needle}`: {}", word.instead)));
            }
        }
    }
}

/// Nothing of the machine on which the project was made.
pub(super) fn no_path_of_a_machine(project: &Project, faults: &mut Vec<Fault>) {
    let cargo = std::env::var("CARGO_HOME").ok();
    let mut places: Vec<_> = PLACES.iter().map(|(start, end)| [*start, *end].concat()).collect();
    places.push(shell::root().display().to_string());
    places.extend(cargo.filter(|place| place.len() > 1));
    for file in &project.files {
        for (line, text) in file.lines() {
            if let Some(place) = places.iter().find(|place| text.contains(*place)) {
                faults.push(file.fault(line, format!("`{place}` is a place on one machine only")));
            }
        }
    }
}

/// Whether a word stands alone in a text; of a needle that begins or ends with a sign, that side is free.
fn stands_in(text: &str, needle: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let bounded = |outer: Option<char>, inner: Option<char>| {
        !(outer.is_some_and(is_word) && inner.is_some_and(char::is_alphanumeric))
    };
    text.match_indices(needle).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + needle.len()..]);
        bounded(before.chars().next_back(), needle.chars().next())
            && bounded(after.chars().next(), needle.chars().next_back())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::faults;

    #[test]
    fn vague_words_are_refused_in_text_and_in_names() {
        let vague = ["it was to", "ld; is_to", "ld(x)"].concat();
        for (text, lines) in [("it was reported\n", 0), ("a tellurium taskstats\n", 0), (vague.as_str(), 1)] {
            let found = faults(words_are_plain, &[("docs/a.md", text)]);
            assert_eq!(found.len(), 2 * lines, "{text}");
        }
    }

    #[test]
    fn long_files_and_second_meanings_are_refused() {
        let long = "//! It.\n".repeat(FILE_LINES_MAX + 1);
        let tests = format!("#[cfg(test)]\nmod tests {{\n{long}}}\n");
        let files =
            [("agent/src/a.rs", long.as_str()), ("agent/src/b.rs", &tests), ("agent/src/c/tests.rs", &long)];
        assert_eq!(faults(files_are_short, &files), ["agent/src/a.rs:1"]);
        let files = [
            ("agent/src/a.rs", "pub(crate) struct Lane;\npub(in crate::x) enum Args {}\n"),
            ("agent/src/b.rs", "struct Lane;\npub(super) enum Args {}\n"),
            ("agent/src/c.rs", "pub(super) trait Lane {}\n"),
            ("agent/engine/src/c.rs", "pub struct Lane;\n"),
        ];
        assert_eq!(faults(type_names_have_one_meaning, &files), ["agent/src/c.rs:1"]);
    }

    #[test]
    fn a_long_function_is_found() {
        let body = "        x();\n".repeat(FUNCTION_LINES_MAX + 1);
        let long = format!(
            "fn short();\n    pub(crate) const unsafe fn long() {{\n{body}    }}\n    fn one() {{ 1 }}\n"
        );
        let data = format!("const TABLE: &[u8] = &[\n{body}];\n");
        assert_eq!(faults(functions_are_short, &[("a.rs", &long), ("b.rs", &data)]), ["a.rs:2"]);
    }

    #[test]
    fn a_file_says_why_it_exists() {
        let files = [("a.rs", "//! Why.\n"), ("b.rs", "use x;\n"), ("c.toml", "x = 1\n")];
        assert_eq!(faults(files_say_why_they_exist, &files), ["b.rs:1"]);
    }

    #[test]
    fn words_are_found_where_they_stand_alone() {
        let word = |index: usize| [WORDS[index].halves.0, WORDS[index].halves.1].concat();
        let found = faults(
            words_that_do_not_appear,
            &[
                ("a.md", &format!("x\n{}: later\n", word(0))),
                ("b.md", &format!("{}S and METHOD{}\n", word(0), word(0))),
                ("c.rs", &format!("{}]\n", word(2))),
                ("d.md", &format!("{}]\n", word(2))),
            ],
        );
        assert_eq!(found, ["a.md:2", "c.rs:1"]);
    }

    #[test]
    fn a_path_of_this_machine_is_found() {
        let here = format!("see {}/notes\n", shell::root().display());
        assert_eq!(faults(no_path_of_a_machine, &[("a.md", &here), ("b.md", "/usr/share\n")]), ["a.md:1"]);
    }
}
