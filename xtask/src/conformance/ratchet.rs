//! A list of what passes, which only grows.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// What begins the file that holds the list.
const HEAD: &str =
    "# Cases of other people's suites that pass. `cargo xtask conformance FOLDER --update` adds to them.\n";

/// What passed before, and what passes now.
pub(super) struct Ratchet {
    before: BTreeSet<String>,
    now: BTreeMap<String, bool>,
}

impl Ratchet {
    /// The list of a file; nothing passed before where there is none.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            text => text.with_context(|| path.display().to_string())?,
        };
        Ok(Self::of(&text))
    }

    fn of(text: &str) -> Self {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self { before: lines.map(str::to_owned).collect(), now: BTreeMap::new() }
    }

    /// Takes note whether a case passes. One that is there several times passes where it does each time.
    pub(super) fn turn(&mut self, name: &str, passes: bool) {
        *self.now.entry(name.to_owned()).or_insert(true) &= passes;
    }

    /// What passes and did not.
    pub(super) fn gained(&self) -> Vec<String> {
        let new = |(name, passes): &(&String, &bool)| **passes && !self.before.contains(*name);
        self.now.iter().filter(new).map(|(name, _)| name.clone()).collect()
    }

    /// What passed and does not, or is not there any more.
    pub(super) fn lost(&self) -> Vec<String> {
        self.before.iter().filter(|name| self.now.get(*name) != Some(&true)).cloned().collect()
    }

    /// Adds what is new to the list. What is lost stays on it.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        fs::write(path, self.text()).with_context(|| path.display().to_string())
    }

    fn text(&self) -> String {
        let new = self.gained();
        let names: BTreeSet<_> = self.before.iter().chain(&new).collect();
        names.into_iter().fold(HEAD.to_owned(), |text, name| text + name + "\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_only_grows() {
        let mut ratchet = Ratchet::of("# Text.\ns kept\ns failing\n\ns gone\n");
        for (name, passes) in [
            ("s kept", true),
            ("s failing", false),
            ("s new", true),
            ("s bad", false),
            ("s twice", true),
            ("s twice", false),
        ] {
            ratchet.turn(name, passes);
        }
        assert_eq!(ratchet.gained(), ["s new"]);
        assert_eq!(ratchet.lost(), ["s failing", "s gone"]);
        assert_eq!(ratchet.text(), format!("{HEAD}s failing\ns gone\ns kept\ns new\n"));
    }
}
