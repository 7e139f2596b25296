//! The script that an interpreter runs: its path, and how certain that is.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::program::FileKey;

/// Why a path may not be that of the file which the kernel opened.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(super) enum Mark {
    /// The path was found, but a user who may write to a folder of it may have changed it since the script was opened.
    Unverified,
    /// The path was not found: it is as the script was run by, joined to the working directory.
    Unresolved,
}

impl Mark {
    /// Its name in events.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Unverified => "unverified",
            Self::Unresolved => "unresolved",
        }
    }
}

/// The file of a script.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(super) struct Script {
    /// Its path, from the root of the process's mount namespace.
    pub(super) path: SmolStr,
    /// Why it may not be what the kernel opened.
    pub(super) mark: Option<Mark>,
    /// What names the file; the default where it may be another one.
    pub(super) key: FileKey,
}

/// The script that `/proc` shows of a process. What that shows as arguments is the process's own choice.
pub(super) fn of_argument(script: &str, directory: &str) -> Script {
    unresolved(&Path::new(directory).join(script))
}

pub(super) fn unresolved(path: &Path) -> Script {
    Script { path: text(&normal(path)), mark: Some(Mark::Unresolved), key: FileKey::default() }
}

/// A path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                normal.pop();
            }
            part => normal.push(part),
        }
    }
    normal
}

pub(super) fn text(path: &Path) -> SmolStr {
    path.to_string_lossy().into()
}
