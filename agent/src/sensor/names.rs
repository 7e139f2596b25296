//! Names of users and groups, from the host's own files. It asks no directory service: a lookup that may wait for a
//! network has no place between a record and its event.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant, SystemTime};

use smol_str::SmolStr;

use crate::bounded;

/// How long the files are taken to be unchanged.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Largest file that is read; a host with more users than that names them by a directory service anyway.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Most names of a file that are known.
const NAMES_MAX: usize = 8192;

/// The names on this host.
pub(super) struct Names {
    users: File,
    groups: File,
    looked: Instant,
}

struct File {
    path: &'static str,
    changed: Option<SystemTime>,
    names: HashMap<u32, SmolStr>,
}

impl Names {
    pub(super) fn new() -> Self {
        let file = |path| File { path, changed: None, names: HashMap::new() };
        let mut names =
            Self { users: file("/etc/passwd"), groups: file("/etc/group"), looked: Instant::now() };
        names.users.read();
        names.groups.read();
        names
    }

    /// Reads the files again where they changed.
    pub(super) fn refresh(&mut self) {
        if self.looked.elapsed() >= LOOK_EVERY {
            self.looked = Instant::now();
            self.users.read();
            self.groups.read();
        }
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

impl File {
    fn read(&mut self) {
        let Ok(metadata) = fs::metadata(self.path) else { return };
        let changed = metadata.modified().ok();
        if changed == self.changed || metadata.len() > FILE_BYTES_MAX {
            return;
        }
        let Ok(text) = bounded::read(self.path, FILE_BYTES_MAX) else { return };
        self.changed = changed;
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
}
