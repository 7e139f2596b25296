//! Rule files on disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lapwing_engine::rule::FILE_BYTES_MAX;
use lapwing_engine::{Exceptions, Loaded, Rule, Schema};
use serde::Deserialize;

use crate::bounded;
use crate::folder::Listing;

/// Maximum number of files.
const FILES_MAX: usize = 20_000;
/// Maximum bytes of all files together; further files are not read.
const BYTES_MAX: usize = 64 << 20;
/// Suffix of files with rule tests; they contain no rules.
pub(crate) const TESTS: &str = ".test.toml";

/// Default path of exceptions.
const EXCEPTIONS: &str = "/etc/lapwing/exceptions.d";

/// `[rules]`: the rules.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Folders and files of rules and of the jobs that they name. Default: those of the package, `/usr/share/lapwing/rules`,
    /// and of the user, `/etc/lapwing/rules`.
    pub(crate) paths: Vec<PathBuf>,
    /// A folder or file of exceptions, which suppress alerts. Default: `/etc/lapwing/exceptions.d`, which need not exist.
    pub(crate) exceptions: PathBuf,
    /// How long after a new_terms rule's first match terms are only learned, without alerts, such as `"24h"`. Default:
    /// `"0s"`: the first sighting of a term after the installation is an alert.
    #[serde(deserialize_with = "crate::clock::deserialize_period_or_none")]
    pub(crate) learning_period: Duration,
}

impl Default for Config {
    fn default() -> Self {
        let paths = vec!["/usr/share/lapwing/rules".into(), "/etc/lapwing/rules".into()];
        Self { paths, exceptions: EXCEPTIONS.into(), learning_period: Duration::ZERO }
    }
}

/// Loads the rules of all files below the given paths, in the order of their names.
///
/// # Errors
/// A path cannot be read. Errors in a file are in the result, and do not affect other files.
pub(crate) fn load(paths: &[PathBuf], schema: &mut Schema) -> Result<Loaded> {
    let contents = Contents::of(&files(paths)?);
    let mut loaded = Loaded::read(contents.named(), schema);
    contents.unreadable.iter().for_each(|(file, why)| loaded.unreadable(file, why));
    Ok(loaded)
}

/// Loads the exceptions of a file, or of all files below a folder, in the order of their names. The default folder need
/// not exist. Without a path there are no exceptions.
///
/// # Errors
/// The path cannot be read. Errors in an exception are in the result, and do not affect others.
pub(crate) fn exceptions(path: Option<&PathBuf>, schema: &mut Schema) -> Result<Exceptions> {
    let Some(path) = path.filter(|path| *path != Path::new(EXCEPTIONS) || path.exists()) else {
        return Ok(Exceptions::default());
    };
    ensure!(
        path.exists(),
        "no exceptions at {}; create that folder, or set `rules.exceptions`",
        path.display()
    );
    let contents = Contents::of(&listing([path])?);
    let mut exceptions = Exceptions::read(contents.named(), schema);
    contents.unreadable.iter().for_each(|(file, why)| exceptions.unreadable(file, why));
    Ok(exceptions)
}

/// The contents of files.
#[derive(Default)]
struct Contents {
    /// Names and contents, as far as they were read.
    read: Vec<(String, Vec<u8>)>,
    /// Files that cannot be read, with the reason.
    unreadable: Vec<(String, String)>,
}

impl Contents {
    fn of(listing: &Listing) -> Self {
        let mut contents = Self::default();
        for stray in &listing.strays {
            contents.refuse(&stray.path, &stray.why);
        }
        let mut left = BYTES_MAX;
        for found in &listing.files {
            let most = (FILE_BYTES_MAX + 1).min(left);
            match found.open().and_then(|opened| bounded::start(opened, most as u64)) {
                Ok(bytes) if bytes.len() == left => {
                    contents.refuse(&found.path, &format!("all files together exceed {BYTES_MAX} bytes"));
                }
                Ok(bytes) => {
                    left -= bytes.len();
                    contents.read.push((found.path.display().to_string(), bytes));
                }
                Err(error) => contents.refuse(&found.path, &error.to_string()),
            }
        }
        contents
    }

    fn refuse(&mut self, path: &Path, why: &str) {
        self.unreadable.push((path.display().to_string(), format!("the file cannot be read: {why}")));
    }

    fn named(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.read.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
    }
}

/// The files of rules and jobs below the given paths, in the order of their names.
///
/// # Errors
/// A path cannot be read.
pub(crate) fn files(paths: &[PathBuf]) -> Result<Listing> {
    for path in paths {
        ensure!(
            path.try_exists().unwrap_or(true),
            "no rules at {}; create that folder, or set `rules.paths` or `--rules`",
            path.display()
        );
    }
    listing(paths)
}

fn listing<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) -> Result<Listing> {
    let mut listing = Listing::default();
    for path in paths {
        listing
            .add(path, FILES_MAX, is_rules)
            .with_context(|| format!("rules cannot be read from {}", path.display()))?;
    }
    Ok(listing)
}

/// Whether a file with this name contains rules, jobs or exceptions.
pub(crate) fn is_rules(name: &str) -> bool {
    name.ends_with(".toml") && !name.ends_with(TESTS)
}

/// The rules that use the location of an address.
pub(crate) fn needing_places(rules: &[Arc<Rule>], schema: &Schema) -> Vec<Arc<Rule>> {
    let looks =
        |rule: &Arc<Rule>| rule.fields().into_iter().any(|id| schema.name(id).starts_with("source.geo."));
    rules.iter().filter(|rule| looks(rule)).cloned().collect()
}
