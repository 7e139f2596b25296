//! The files to watch, found before they are loaded, so that a change between the two is noticed.

use std::ffi::{CStr, OsStr};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Role;
use super::content::ContentStamp;
use super::tree::Root;
use crate::{indicators, rules};

/// The files to watch.
pub(crate) struct Plan {
    pub(super) roots: Vec<Arc<Root>>,
    /// The files as they are before they are loaded, in the order in which they are read.
    pub(super) files: Vec<(Arc<Root>, PathBuf, Option<ContentStamp>)>,
}

impl Plan {
    /// The plan for a configuration file at `path`, with these sections.
    pub(crate) fn new(path: &Path, rules: &rules::Config, indicators: &indicators::Config) -> Self {
        let all: fn(&str) -> bool = |_| true;
        let root = |path: &Path, role, wanted| {
            Arc::new(Root {
                path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
                role,
                wanted,
            })
        };
        let mut roots = vec![root(path, Role::Configuration, all)];
        roots.extend(rules.paths.iter().map(|path| root(path, Role::Rules, rules::is_rules as _)));
        roots.push(root(&rules.exceptions, Role::Exceptions, rules::is_rules));
        let indicators = indicators.paths.iter();
        roots.extend(indicators.map(|path| root(path, Role::Indicators, indicators::is_wanted as _)));
        // The longest file is last.
        roots.extend(executables().iter().map(|path| root(path, Role::Executable, all)));
        let mut plan = Self { roots: roots.clone(), files: Vec::new() };
        for root in roots {
            let is_needed = matches!(root.role, Role::Configuration | Role::Executable);
            if root.path.is_file() || is_needed {
                let stamp = stamp(&root.path);
                plan.files.push((root.clone(), root.path.clone(), stamp));
            } else if let Some(files) = super::tree::files(&root) {
                plan.files.extend(files.into_iter().map(|path| {
                    let stamp = stamp(&path);
                    (root.clone(), path, stamp)
                }));
            }
        }
        plan
    }
}

pub(super) fn stamp(path: &Path) -> Option<ContentStamp> {
    fs::metadata(path).ok().as_ref().map(ContentStamp::of)
}

/// The running executable, and the path by which it was started if that is another one.
fn executables() -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_link("/proc/self/exe").into_iter().collect();
    if let Some(started) = started_as().filter(|started| !paths.contains(started)) {
        paths.push(started);
    }
    paths
}

/// The path by which the program was started, as the kernel has it.
#[expect(unsafe_code, reason = "the auxiliary vector is read by pointer")]
fn started_as() -> Option<PathBuf> {
    // SAFETY: it has no preconditions.
    let text = unsafe { libc::getauxval(libc::AT_EXECFN) } as *const libc::c_char;
    if text.is_null() {
        return None;
    }
    // SAFETY: the kernel put a NUL-terminated string there, which exists as long as the process.
    let text = unsafe { CStr::from_ptr(text) };
    let path = std::path::absolute(Path::new(OsStr::from_bytes(text.to_bytes()))).ok()?;
    path.exists().then_some(path)
}
