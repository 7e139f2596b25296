//! Rule files on disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use lapwing_engine::{Loaded, Rule, Schema};
use serde::Deserialize;

/// Most files that are read.
const FILES_MAX: usize = 20_000;
/// Deepest folder that is looked into.
const DEPTH_MAX: usize = 16;
/// What the names of files with tests of rules end with; they hold no rules.
pub(crate) const TESTS: &str = ".test.toml";

/// `[rules]`: what is detected.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Folders and files of rules and of the jobs that they name. Default: the package's, `/usr/share/lapwing/rules`,
    /// and the user's own, `/etc/lapwing/rules`.
    pub(crate) paths: Vec<PathBuf>,
    /// For how long after a new_terms rule's first match terms are only learned and not told, such as `"24h"`.
    /// Default: `"0s"`, so that the first sighting of a term after the installation is an alert.
    #[serde(deserialize_with = "crate::clock::deserialize_period_or_none")]
    pub(crate) learn: Duration,
}

impl Default for Config {
    fn default() -> Self {
        let paths = vec!["/usr/share/lapwing/rules".into(), "/etc/lapwing/rules".into()];
        Self { paths, learn: Duration::ZERO }
    }
}

/// Reads the rules of all files below the given paths, in the order of their names.
///
/// # Errors
/// A path that cannot be read. What is wrong with a file is in the result and keeps no other from being read.
pub(crate) fn load(paths: &[PathBuf], schema: &mut Schema) -> Result<Loaded> {
    let mut contents = Vec::new();
    for file in files(paths)? {
        let bytes =
            std::fs::read(&file).with_context(|| format!("rule file {} cannot be read", file.display()))?;
        contents.push((file.display().to_string(), bytes));
    }
    Ok(Loaded::read(contents.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())), schema))
}

/// The files of rules and jobs below the given paths, in the order of their names.
///
/// # Errors
/// A path that cannot be read, or more than anybody has of rules.
pub(crate) fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        ensure!(
            path.try_exists().unwrap_or(true),
            "there are no rules at {}; make that folder, or name another by `rules.paths` or `--rules`",
            path.display()
        );
        collect(path, DEPTH_MAX, &mut files)?;
    }
    files.sort();
    files.dedup();
    Ok(files)
}

fn collect(path: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<()> {
    let named = || format!("rules cannot be read from {}", path.display());
    if std::fs::metadata(path).with_context(named)?.is_file() {
        files.push(path.to_owned());
        return Ok(());
    }
    if depth == 0 {
        bail!("{} lies more than {DEPTH_MAX} folders deep; move the rules further up", path.display());
    }
    for entry in std::fs::read_dir(path).with_context(named)? {
        let entry = entry.with_context(named)?.path();
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let rules = name.ends_with(".toml") && !name.ends_with(TESTS);
        if !name.starts_with('.') && (entry.is_dir() || rules) {
            collect(&entry, depth - 1, files)?;
        }
        if files.len() > FILES_MAX {
            bail!("{} holds more than {FILES_MAX} rule files", path.display());
        }
    }
    Ok(())
}

/// The enabled rules that read one of these data streams.
pub(crate) fn reading(rules: &[Arc<Rule>], data_streams: &[&str]) -> Vec<Arc<Rule>> {
    let reads = |rule: &&Arc<Rule>| rule.enabled && data_streams.iter().any(|stream| rule.reads(stream));
    rules.iter().filter(reads).cloned().collect()
}

/// Those of the rules that look at where an address is.
pub(crate) fn needing_places(rules: &[Arc<Rule>], schema: &Schema) -> Vec<Arc<Rule>> {
    let looks =
        |rule: &Arc<Rule>| rule.fields().into_iter().any(|id| schema.name(id).starts_with("source.geo."));
    rules.iter().filter(|rule| looks(rule)).cloned().collect()
}
