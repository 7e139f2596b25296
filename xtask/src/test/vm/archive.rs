//! An archive in the form in which the kernel takes its first file system: cpio, "newc".

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

/// An archive that is being written.
#[derive(Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    count: u32,
    folders: BTreeSet<String>,
}

impl Archive {
    /// Adds a folder, and those that it is in.
    pub(super) fn folder(&mut self, name: &str) {
        let name = name.trim_matches('/');
        if name.is_empty() || !self.folders.insert(name.to_owned()) {
            return;
        }
        self.parent(name);
        self.entry(name, 0o040_755, &[]);
    }

    /// Adds an executable file, and the folders that it is in.
    pub(super) fn file(&mut self, name: &str, content: &[u8]) {
        self.parent(name);
        self.entry(name, 0o100_755, content);
    }

    /// Adds what is in a folder of this machine, under the same names as there, but for the folders in `without`. All
    /// of it is root's.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn tree(&mut self, root: &Path, name: &str, without: &[&str]) -> Result<()> {
        let folder = root.join(name);
        let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
        for entry in entries {
            let path = entry?.path();
            let inner = path.strip_prefix(root)?.to_str().context("a name that is not UTF-8")?.to_owned();
            let metadata = path.symlink_metadata()?;
            if metadata.is_symlink() {
                let target = fs::read_link(&path)?;
                self.entry(&inner, 0o120_777, target.as_os_str().as_encoded_bytes());
            } else if metadata.is_dir() {
                if !without.contains(&inner.as_str()) {
                    self.folder(&inner);
                    self.tree(root, &inner, without)?;
                }
            } else {
                let mode = 0o100_000 | metadata.permissions().mode() & 0o7777;
                self.entry(&inner, mode, &fs::read(&path)?);
            }
        }
        Ok(())
    }

    /// The whole archive.
    pub(super) fn end(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn parent(&mut self, name: &str) {
        if let Some((parent, _)) = name.trim_matches('/').rsplit_once('/') {
            self.folder(parent);
        }
    }

    /// Thirteen numbers of eight hexadecimal digits, the name, the content; each at a multiple of four bytes.
    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        let name = name.trim_start_matches('/');
        self.count += 1;
        let (size, name_size) = (content.len() as u32, name.len() as u32 + 1);
        self.bytes.extend_from_slice(b"070701");
        for number in [self.count, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0] {
            self.bytes.extend_from_slice(format!("{number:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_lie_at_multiples_of_four() {
        let mut archive = Archive::default();
        archive.file("init", b"#!/bin/sh\n");
        let bytes = archive.end();
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(&bytes[110..115], b"init\0");
        assert_eq!(&bytes[116..126], b"#!/bin/sh\n");
        assert_eq!(&bytes[128..134], b"070701");
    }

    #[test]
    fn folders_come_once_and_before_what_is_in_them() {
        let mut archive = Archive::default();
        archive.file("/a/b/one", b"");
        archive.file("a/b/two", b"");
        let text = String::from_utf8(archive.end()).unwrap();
        let places = ["a\0", "a/b\0", "a/b/one\0", "a/b/two\0"].map(|name| text.find(name).unwrap());
        assert!(places.is_sorted(), "{text}");
        assert_eq!(text.matches("a/b\0").count(), 1);
    }
}
