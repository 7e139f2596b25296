//! Rule files on disk.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use lapwing_engine::rule::FILE_BYTES_MAX;
use lapwing_engine::{Exceptions, Loaded, Rule, Schema};
use serde::Deserialize;

/// Most files that are read.
const FILES_MAX: usize = 20_000;
/// Deepest folder that is looked into.
const DEPTH_MAX: usize = 16;
/// What the names of files with tests of rules end with; they hold no rules.
pub(crate) const TESTS: &str = ".test.toml";

/// Where exceptions lie, where the configuration does not say.
const EXCEPTIONS: &str = "/etc/lapwing/exceptions.d";

/// `[rules]`: what is detected.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Folders and files of rules and of the jobs that they name. Default: the package's, `/usr/share/lapwing/rules`,
    /// and the user's own, `/etc/lapwing/rules`.
    pub(crate) paths: Vec<PathBuf>,
    /// A folder or file of exceptions: what rules find and nobody wants to hear of. Default:
    /// `/etc/lapwing/exceptions.d`, which need not be there.
    pub(crate) exceptions: PathBuf,
    /// For how long after a new_terms rule's first match terms are only learned and not told, such as `"24h"`.
    /// Default: `"0s"`, so that the first sighting of a term after the installation is an alert.
    #[serde(deserialize_with = "crate::clock::deserialize_period_or_none")]
    pub(crate) learn: Duration,
}

impl Default for Config {
    fn default() -> Self {
        let paths = vec!["/usr/share/lapwing/rules".into(), "/etc/lapwing/rules".into()];
        Self { paths, exceptions: EXCEPTIONS.into(), learn: Duration::ZERO }
    }
}

/// Reads the rules of all files below the given paths, in the order of their names.
///
/// # Errors
/// A path that cannot be read. What is wrong with a file is in the result and keeps no other from being read.
pub(crate) fn load(paths: &[PathBuf], schema: &mut Schema) -> Result<Loaded> {
    let contents = Contents::of(&files(paths)?);
    let mut loaded = Loaded::read(contents.named(), schema);
    contents.unreadable.iter().for_each(|(file, why)| loaded.unreadable(file, why));
    Ok(loaded)
}

/// Reads the exceptions of a file, or of all files below a folder, in the order of their names. The default folder need
/// not be there; without a path there are none.
///
/// # Errors
/// The path cannot be read. What is wrong with an exception is in the result and keeps no other from being read.
pub(crate) fn exceptions(path: Option<&PathBuf>, schema: &mut Schema) -> Result<Exceptions> {
    let Some(path) = path.filter(|path| *path != Path::new(EXCEPTIONS) || path.exists()) else {
        return Ok(Exceptions::default());
    };
    ensure!(
        path.exists(),
        "there are no exceptions at {}; make that folder, or name another by `rules.exceptions`",
        path.display()
    );
    let mut files = Vec::new();
    collect(path, DEPTH_MAX, &mut files)?;
    files.sort();
    let contents = Contents::of(&files);
    let mut exceptions = Exceptions::read(contents.named(), schema);
    contents.unreadable.iter().for_each(|(file, why)| exceptions.unreadable(file, why));
    Ok(exceptions)
}

/// The contents of files.
#[derive(Default)]
struct Contents {
    /// Names and contents, these as far as they are read.
    read: Vec<(String, Vec<u8>)>,
    /// Files that cannot be read, with why.
    unreadable: Vec<(String, String)>,
}

impl Contents {
    fn of(files: &[PathBuf]) -> Self {
        let mut contents = Self::default();
        for file in files {
            let name = file.display().to_string();
            let mut bytes = Vec::new();
            let most = FILE_BYTES_MAX as u64 + 1;
            match File::open(file).and_then(|opened| opened.take(most).read_to_end(&mut bytes)) {
                Ok(_) => contents.read.push((name, bytes)),
                Err(error) => contents.unreadable.push((name, format!("the file cannot be read: {error}"))),
            }
        }
        contents
    }

    fn named(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.read.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
    }
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
