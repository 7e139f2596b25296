//! Reads names and doc comments from the sources.

use std::fs;

use super::project;

/// A documented item: a field of a struct, a variant of an enum or a counter.
pub(super) struct Item {
    pub(super) name: String,
    pub(super) doc: String,
}

/// The file, relative to the project.
pub(super) fn read(file: &str) -> String {
    fs::read_to_string(project(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The doc comment of the item that begins with this line, and its members with theirs. Members without a comment have
/// the comment of the member above; those that serde skips are left out.
pub(super) fn members(file: &str, start: &str) -> (String, Vec<Item>) {
    let text = read(file);
    let (before, rest) = text.split_once(start).unwrap_or_else(|| panic!("{file}: no `{start}`"));
    let doc: Vec<_> = before
        .lines()
        .rev()
        .skip_while(|line| line.trim().is_empty() || line.trim_start().starts_with("#["))
        .map_while(|line| line.trim_start().strip_prefix("///"))
        .collect();
    let doc = joined(doc.into_iter().rev());
    let (mut members, mut comment, mut is_skipped) = (Vec::new(), Vec::new(), false);
    let mut known = String::new();
    // Deeper lines are members of members.
    for line in rest.lines().skip(1).take_while(|line| *line != "}") {
        let Some(line) = line.strip_prefix("    ").filter(|line| !line.starts_with(' ')) else { continue };
        if let Some(text) = line.strip_prefix("///") {
            comment.push(text);
        } else if line.starts_with("#[") {
            is_skipped |= line.contains("serde(skip)");
        } else if let Some(name) = name(line) {
            if !comment.is_empty() {
                known = joined(comment.drain(..));
            }
            if !std::mem::take(&mut is_skipped) {
                members.push(Item { name: name.to_owned(), doc: known.clone() });
            }
        }
    }
    (doc, members)
}

/// The name of the member that a line declares.
fn name(line: &str) -> Option<&str> {
    let line = line.strip_prefix("pub(crate) ").unwrap_or(line);
    let end = line.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(line.len());
    (end > 0).then(|| &line[..end])
}

/// The lines of a doc comment as one text, without links.
fn joined<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    let text = lines.map(str::trim).collect::<Vec<_>>().join(" ");
    let mut plain = String::new();
    let mut rest = text.trim();
    while let Some((before, link)) = rest.split_once("[`") {
        let Some((name, after)) = link.split_once("`]") else { break };
        plain.push_str(&format!("{before}`{name}`"));
        rest = after;
        if let Some((_, after)) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
            rest = after;
        }
    }
    plain + rest
}

/// The keys of the JSON objects in a function: `"key": value`.
pub(super) fn json_keys(file: &str, function: &str) -> Vec<String> {
    let text = read(file);
    let (_, rest) = text.split_once(function).unwrap_or_else(|| panic!("{file}: no `{function}`"));
    let mut keys: Vec<String> = Vec::new();
    // The function ends with the first brace at its own indent.
    for line in rest.lines().skip(1).take_while(|line| *line != "    }" && *line != "}") {
        let mut rest = line;
        while let Some((_, after)) = rest.split_once('"') {
            let Some((key, after)) = after.split_once('"') else { break };
            rest = after;
            if rest.starts_with(": ") && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
                keys.push(key.to_owned());
            }
        }
    }
    keys
}

/// A table of Markdown.
pub(super) fn table(head: [&str; 2], items: &[Item]) -> String {
    let mut text = format!("| {} | {} |\n|---|---|\n", head[0], head[1]);
    for Item { name, doc } in items {
        text.push_str(&format!("| `{name}` | {} |\n", doc.replace('|', "\\|")));
    }
    text
}
