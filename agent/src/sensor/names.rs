//! Names of users and groups, from the host's own files. It queries no directory service: a lookup that may wait for a
//! network must not delay an event.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::SystemTime;

use smol_str::SmolStr;

use crate::bounded;

/// Largest file that is read; a host with more users than that names them by a directory service anyway.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Most names of a file that are known.
const NAMES_MAX: usize = 8192;

/// The names on this host.
pub(super) struct Names {
    users: File,
    groups: File,
}

struct File {
    path: PathBuf,
    /// As which file it was read.
    version: Option<Version>,
    names: HashMap<u32, SmolStr>,
}

impl Names {
    pub(super) fn new() -> Self {
        let mut names = Self { users: File::new("/etc/passwd"), groups: File::new("/etc/group") };
        names.refresh();
        names
    }

    /// Reads the files again where they changed. It is called once for all records that are read at one time, before
    /// they become events: a user that was made just before a program ran as it has a name.
    pub(super) fn refresh(&mut self) {
        self.users.read();
        self.groups.read();
    }

    /// The name of a user.
    pub(super) fn user(&self, id: u32) -> Option<SmolStr> {
        self.users.names.get(&id).cloned()
    }

    /// The name of a group.
    pub(super) fn group(&self, id: u32) -> Option<SmolStr> {
        self.groups.names.get(&id).cloned()
    }
}

/// What is another after a change: programs replace these files, people append to them, and times are as coarse as the
/// clock's tick.
#[derive(PartialEq, Eq)]
struct Version {
    inode: u64,
    bytes: u64,
    changed: Option<SystemTime>,
}

impl File {
    fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), version: None, names: HashMap::new() }
    }

    fn read(&mut self) {
        let Ok(metadata) = fs::metadata(&self.path) else { return };
        let (inode, bytes, changed) = (metadata.ino(), metadata.len(), metadata.modified().ok());
        let version = Some(Version { inode, bytes, changed });
        if version == self.version || bytes > FILE_BYTES_MAX {
            return;
        }
        let Ok(text) = bounded::read(&self.path, FILE_BYTES_MAX) else { return };
        self.version = version;
        self.names = parse(&String::from_utf8_lossy(&text));
    }
}

/// Both files have a name, a password and a number, in this order, parted by colons. The first name of a number counts.
fn parse(text: &str) -> HashMap<u32, SmolStr> {
    let mut names = HashMap::new();
    for line in text.lines() {
        if names.len() >= NAMES_MAX {
            break;
        }
        let mut parts = line.split(':');
        if let (Some(name), Some(Ok(id))) = (parts.next(), parts.nth(1).map(str::parse)) {
            names.entry(id).or_insert_with(|| name.into());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_of_a_number_counts() {
        let names = parse("root:x:0:0::/root:/bin/bash\ntoor:x:0:0::/:/bin/sh\nodd\n:::\nnobody:x:65534:\n");
        assert_eq!(names.get(&0).map(SmolStr::as_str), Some("root"));
        assert_eq!(names.get(&65534).map(SmolStr::as_str), Some("nobody"));
        assert_eq!(names.len(), 2);
    }

    #[test]
    fn a_change_is_read_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("passwd"), folder.path().join("passwd+"));
        let mut file = File::new(&path);
        file.read();
        let user = |file: &File, id| file.names.get(&id).map(SmolStr::to_string);
        for (text, id, name) in [("a:x:1:\n", 1, Some("a")), ("a:x:1:\nb:x:2:\n", 2, Some("b"))] {
            fs::write(&path, text).unwrap();
            file.read();
            assert_eq!(user(&file, id).as_deref(), name);
        }
        // As useradd does it; of the same length and within the same tick.
        fs::write(&other, "a:x:1:\nc:x:2:\n").unwrap();
        fs::rename(&other, &path).unwrap();
        file.read();
        assert_eq!(user(&file, 2).as_deref(), Some("c"));
    }
}
