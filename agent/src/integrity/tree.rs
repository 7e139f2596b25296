//! The watched files and folders below a configured path. Links to folders are not followed, as when files are loaded.

use std::fs;
use std::path::{Path, PathBuf};

use super::Role;
use crate::folder::DEPTH_MAX;

/// A file or folder that the configuration names.
#[derive(Clone, Debug)]
pub(crate) struct Root {
    pub(super) path: PathBuf,
    pub(super) role: Role,
    /// For a folder: a filter of the file names below it.
    pub(super) wanted: fn(&str) -> bool,
}

/// Maximum number of entries in one scan of a root.
const ENTRIES_MAX: usize = 20_000;

/// The watched files below a folder, sorted by path; `None` if it cannot be read.
pub(super) fn files(root: &Root) -> Option<Vec<PathBuf>> {
    let mut files = Vec::new();
    walk(root, &root.path, DEPTH_MAX, &mut files, &mut Vec::new())?;
    files.sort();
    Some(files)
}

/// The folder itself, and those below it.
pub(super) fn folders(root: &Root) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    // The subfolders of an unreadable folder cannot be watched.
    let _ = walk(root, &root.path, DEPTH_MAX, &mut Vec::new(), &mut folders);
    folders
}

fn walk(
    root: &Root,
    folder: &Path,
    depth: usize,
    files: &mut Vec<PathBuf>,
    folders: &mut Vec<PathBuf>,
) -> Option<()> {
    let entries = fs::read_dir(folder).ok()?;
    folders.push(folder.to_owned());
    for entry in entries.flatten() {
        if files.len() + folders.len() >= ENTRIES_MAX {
            return Some(());
        }
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with('.') {
            continue;
        }
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth > 0 => {
                // A folder that is removed meanwhile is empty.
                let _ = walk(root, &entry.path(), depth - 1, files, folders);
            }
            Ok(kind) if !kind.is_dir() && (root.wanted)(&name) => files.push(entry.path()),
            _ => {}
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    use super::super::Role;
    use super::*;

    /// A file is watched whatever bytes its name has, as it is loaded whatever they are.
    #[test]
    fn names_need_not_be_utf8() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join(OsStr::from_bytes(b"b\xff"));
        fs::create_dir(&below).unwrap();
        let wanted = [folder.path().join(OsStr::from_bytes(b"a\xff.toml")), below.join("c.toml")];
        for path in wanted.iter().chain(&[folder.path().join(".d.toml"), below.join("e.txt")]) {
            fs::write(path, "").unwrap();
        }
        let is_toml = |name: &str| name.ends_with(".toml");
        let root = Root { path: folder.path().to_owned(), role: Role::Rules, wanted: is_toml };
        assert_eq!(files(&root).unwrap(), wanted);
        assert_eq!(folders(&root), [folder.path(), &below]);
    }
}
