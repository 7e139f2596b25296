//! What is watched: the files that make the agent what it is, found before they are loaded, so that a change between the two is
//! none that goes unseen.

use std::ffi::{CStr, OsStr};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Role;
use super::content::Stamp;

/// A file or folder that the configuration names.
#[derive(Clone, Debug)]
pub(crate) struct Root {
    pub(super) path: PathBuf,
    pub(super) role: Role,
    /// Of a folder: which files below it are watched, by their names.
    pub(super) wanted: fn(&str) -> bool,
}

impl Root {
    /// A folder of which the files are watched whose names are `wanted`, or one such file.
    pub(crate) fn new(path: &Path, role: Role, wanted: fn(&str) -> bool) -> Self {
        Self { path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()), role, wanted }
    }

    /// A file.
    pub(crate) fn file(path: &Path, role: Role) -> Self {
        Self::new(path, role, |_| true)
    }
}

/// What is watched.
pub(crate) struct Plan {
    pub(super) roots: Vec<Arc<Root>>,
    /// The files as they are before they are loaded, in the order in which they are read.
    pub(super) files: Vec<(Arc<Root>, PathBuf, Option<Stamp>)>,
}

impl Plan {
    /// Finds the files of these roots and the agent's own executable.
    pub(crate) fn new(roots: impl IntoIterator<Item = Root>) -> Self {
        // The longest file comes last.
        let executables = executables().into_iter().map(|path| Root::file(&path, Role::Executable));
        let roots: Vec<_> = roots.into_iter().chain(executables).map(Arc::new).collect();
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

pub(super) fn stamp(path: &Path) -> Option<Stamp> {
    fs::metadata(path).ok().as_ref().map(Stamp::of)
}

/// The file that runs, and the path by which it was started where that is another.
fn executables() -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_link("/proc/self/exe").into_iter().collect();
    if let Some(started) = started_as().filter(|started| !paths.contains(started)) {
        paths.push(started);
    }
    paths
}

/// The path that the program was started by, as the kernel took it.
fn started_as() -> Option<PathBuf> {
    // SAFETY: it has no preconditions.
    let text = unsafe { libc::getauxval(libc::AT_EXECFN) } as *const libc::c_char;
    if text.is_null() {
        return None;
    }
    // SAFETY: the kernel put a text with its end mark there, which stays as long as the process.
    let text = unsafe { CStr::from_ptr(text) };
    let path = std::path::absolute(Path::new(OsStr::from_bytes(text.to_bytes()))).ok()?;
    path.exists().then_some(path)
}
