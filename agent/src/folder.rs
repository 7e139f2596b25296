//! Finds and opens files in folders so that a user who can write there can neither redirect nor block the agent.
//!
//! A folder is held open, and its content is opened relative to the descriptor: the kernel refuses a path that leaves
//! it. Opening never blocks, and only regular files are read. Links to folders are not followed, so that a walk ends.
//! Other entries are reported and skipped; they never prevent the reading of the rest.

use std::ffi::OsStr;
use std::fs::{DirEntry, File, FileType, Metadata, OpenOptions, ReadDir};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::Mode;

use crate::bounded;

/// Deepest folder that is searched for settings.
pub(crate) const DEPTH_MAX: usize = 16;
/// Most skipped entries that are reported one by one.
const STRAYS_MAX: usize = 100;
/// How a file or folder is opened: read-only and without blocking.
const READ: OFlag = OFlag::O_RDONLY.union(OFlag::O_NONBLOCK).union(OFlag::O_NOCTTY).union(OFlag::O_CLOEXEC);

/// Whether a file may be a symbolic link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Links {
    /// Never.
    Refused,
    /// If it leads to a file below the same folder.
    Within,
}

/// A folder, held open.
#[derive(Debug)]
pub(crate) struct Folder(File);

impl Folder {
    /// Opens a folder that the configuration names. Links in its path are followed.
    ///
    /// # Errors
    /// It does not exist, is not a folder, or is not readable.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = libc::O_DIRECTORY | libc::O_NONBLOCK;
        OpenOptions::new().read(true).custom_flags(flags).open(path).map(Self)
    }

    /// Opens a folder below this one; no part of its path may be a link.
    ///
    /// # Errors
    /// It does not exist, is not a folder, is not readable, or its path has a link.
    pub(crate) fn folder(&self, below: &Path) -> io::Result<Self> {
        if below.as_os_str().is_empty() {
            return self.0.try_clone().map(Self);
        }
        self.below(below, OFlag::O_DIRECTORY, Links::Refused).map(Self)
    }

    /// Opens a regular file below this folder.
    ///
    /// # Errors
    /// It does not exist, is not readable, is not a regular file, or is outside the folder.
    pub(crate) fn file(&self, below: &Path, links: Links) -> io::Result<File> {
        let file = self.below(below, OFlag::empty(), links)?;
        regular(file)
    }

    /// Its entries. The metadata of a link is that of the link itself.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn entries(&self) -> io::Result<ReadDir> {
        std::fs::read_dir(self.handle())
    }

    /// The folder's own metadata.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn metadata(&self) -> io::Result<Metadata> {
        self.0.metadata()
    }

    /// A path to the folder that stays valid when it is renamed.
    pub(crate) fn handle(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }

    fn below(&self, below: &Path, kind: OFlag, links: Links) -> io::Result<File> {
        let within = match links {
            Links::Refused => ResolveFlag::RESOLVE_NO_SYMLINKS,
            Links::Within => ResolveFlag::RESOLVE_NO_MAGICLINKS,
        };
        let how = OpenHow::new().flags(READ | kind).resolve(ResolveFlag::RESOLVE_BENEATH | within);
        match openat2(&self.0, below, how) {
            // A seccomp filter that does not know the system call.
            Err(Errno::ENOSYS | Errno::EPERM) => step_by_step(self.0.as_fd(), below, kind),
            opened => opened,
        }
        .map(File::from)
        .map_err(why)
    }
}

/// Opens a path below a folder without `openat2`: no link is followed.
fn step_by_step(folder: impl AsFd, below: &Path, kind: OFlag) -> nix::Result<OwnedFd> {
    let mut steps: Vec<&OsStr> = Vec::new();
    for component in below.components() {
        match component {
            Component::Normal(name) => steps.push(name),
            _ => return Err(Errno::EXDEV),
        }
    }
    let (last, folders) = steps.split_last().ok_or(Errno::ENOENT)?;
    let mut at = folder.as_fd().try_clone_to_owned().map_err(|_| Errno::EMFILE)?;
    for name in folders {
        at = openat(&at, *name, READ | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW, Mode::empty())?;
    }
    openat(&at, *last, READ | kind | OFlag::O_NOFOLLOW, Mode::empty())
}

/// Opens a file that the configuration names. Links in its path are followed.
///
/// # Errors
/// It does not exist, is not readable, or is not a regular file.
pub(crate) fn named(path: &Path) -> io::Result<File> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    regular(OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(explained)?)
}

fn regular(file: File) -> io::Result<File> {
    let kind = file.metadata()?.file_type();
    if kind.is_file() { Ok(file) } else { Err(not_a_file(kind)) }
}

fn not_a_file(kind: FileType) -> io::Error {
    let what = match kind {
        kind if kind.is_dir() => "a folder",
        kind if kind.is_symlink() => "a link",
        kind if kind.is_fifo() => "a pipe",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    };
    io::Error::new(ErrorKind::InvalidInput, format!("it is {what} and no regular file; put it away"))
}

fn why(errno: Errno) -> io::Error {
    explained(io::Error::from(errno))
}

/// The error in words, where the kernel's message does not explain it.
fn explained(error: io::Error) -> io::Error {
    let words = match error.raw_os_error() {
        Some(libc::ELOOP) => "it is a link, and links are not followed here; put the file itself there",
        Some(libc::EXDEV) => "it is a link that leads out of the folder; put the file itself there",
        Some(libc::ENXIO) => "it is a socket or a device and no regular file; put it away",
        _ => return error,
    };
    io::Error::new(ErrorKind::InvalidInput, words)
}

/// A file that was found.
#[derive(Clone, Debug)]
pub(crate) struct FoundFile {
    /// Its path, for people.
    pub(crate) path: PathBuf,
    /// The folder that was searched, and the file's path below it; `None` if the configuration names the file itself.
    way: Option<(Rc<Folder>, PathBuf)>,
}

impl FoundFile {
    /// Opens it.
    ///
    /// # Errors
    /// It cannot be read, or is not a regular file below its folder.
    pub(crate) fn open(&self) -> io::Result<File> {
        match &self.way {
            None => named(&self.path),
            Some((folder, below)) => folder.file(below, Links::Within),
        }
    }

    /// Reads it, up to that many bytes.
    ///
    /// # Errors
    /// It cannot be read, or is longer.
    pub(crate) fn read(&self, bytes_max: u64) -> io::Result<Vec<u8>> {
        bounded::whole(self.open()?, bytes_max)
    }
}

/// An entry that is skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stray {
    /// Its path.
    pub(crate) path: PathBuf,
    /// The reason and a hint.
    pub(crate) why: String,
}

/// The result of a search of folders.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Files with the requested names, ordered by path.
    pub(crate) files: Vec<FoundFile>,
    /// Skipped entries.
    pub(crate) strays: Vec<Stray>,
}

impl Listing {
    /// Finds the files below a path of the configuration. If the path is a file, it is taken whatever its name. At most
    /// `files_max` files of all paths together are returned. Names that begin with a dot are left out.
    ///
    /// # Errors
    /// The path itself cannot be read.
    pub(crate) fn add(&mut self, path: &Path, files_max: usize, wanted: fn(&str) -> bool) -> io::Result<()> {
        if std::fs::metadata(path)?.is_dir() {
            let walk = Walk { root: Rc::new(Folder::open(path)?), path, files_max, wanted };
            walk.folder(&walk.root, Path::new(""), DEPTH_MAX, self)?;
        } else {
            let file = FoundFile { path: path.to_owned(), way: None };
            file.open()?;
            self.files.push(file);
        }
        self.files.sort_by(|left, right| left.path.cmp(&right.path));
        self.files.dedup_by(|left, right| left.path == right.path);
        Ok(())
    }

    fn stray(&mut self, path: PathBuf, why: impl ToString) {
        if self.strays.len() < STRAYS_MAX {
            self.strays.push(Stray { path, why: why.to_string() });
        }
    }
}

/// The search of one folder and its subfolders.
struct Walk<'a> {
    root: Rc<Folder>,
    path: &'a Path,
    files_max: usize,
    wanted: fn(&str) -> bool,
}

impl Walk<'_> {
    fn folder(&self, folder: &Folder, below: &Path, depth: usize, listing: &mut Listing) -> io::Result<()> {
        for entry in folder.entries()? {
            if listing.files.len() >= self.files_max {
                listing.stray(
                    self.path.join(below),
                    format!("there are more than {} files; the others are not read", self.files_max),
                );
                return Ok(());
            }
            self.entry(folder, &entry?, below, depth, listing);
        }
        Ok(())
    }

    fn entry(&self, folder: &Folder, entry: &DirEntry, below: &Path, depth: usize, listing: &mut Listing) {
        let name = entry.file_name();
        let (text, below) = (name.to_string_lossy(), below.join(&name));
        if text.starts_with('.') {
            return;
        }
        let path = self.path.join(&below);
        let kind = match entry.file_type() {
            Ok(kind) => kind,
            Err(error) => return listing.stray(path, error),
        };
        if kind.is_dir() && depth == 0 {
            listing.stray(path, format!("it is more than {DEPTH_MAX} folders deep; move it up"));
        } else if kind.is_dir() {
            let looked = folder
                .folder(Path::new(&name))
                .and_then(|inner| self.folder(&inner, &below, depth - 1, listing));
            looked.unwrap_or_else(|error| listing.stray(path, error));
        } else if (self.wanted)(&text) {
            let found = FoundFile { path, way: Some((self.root.clone(), below)) };
            match found.open() {
                Ok(_) => listing.files.push(found),
                Err(error) => listing.stray(found.path, error),
            }
        } else if kind.is_symlink() && folder.folder_by_link(&name) {
            listing.stray(path, "it is a link to a folder, and links are not followed here; name the folder in the configuration");
        }
    }
}

impl Folder {
    /// Whether an entry is a link that leads to a folder.
    fn folder_by_link(&self, name: &OsStr) -> bool {
        std::fs::metadata(self.handle().join(name)).is_ok_and(|there| there.is_dir())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read as _;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use nix::unistd::mkfifo;

    use super::*;

    /// A folder with one good file and one of each kind of entry that is skipped.
    fn crowded() -> (tempfile::TempDir, PathBuf) {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("folder");
        fs::create_dir_all(folder.join("deep/er")).unwrap();
        fs::write(outer.path().join("outside.toml"), "outside").unwrap();
        for name in ["good.toml", "deep/er/good.toml", ".hidden.toml", "other.txt"] {
            fs::write(folder.join(name), name).unwrap();
        }
        mkfifo(&folder.join("fifo.toml"), Mode::S_IRUSR).unwrap();
        drop(UnixListener::bind(folder.join("socket.toml")).unwrap());
        for (name, to) in [
            ("dangling.toml", "/nonexistent"),
            ("device.toml", "/dev/zero"),
            ("outside.toml", "../outside.toml"),
            ("root", "/"),
            ("loop", "."),
            ("circle.toml", "circle.toml"),
            ("inside.toml", "deep/er/good.toml"),
            ("magic.toml", "/proc/self/exe"),
        ] {
            symlink(to, folder.join(name)).unwrap();
        }
        (outer, folder)
    }

    fn names<'a>(root: &Path, paths: impl Iterator<Item = &'a PathBuf>) -> Vec<String> {
        let mut names: Vec<_> =
            paths.map(|path| path.strip_prefix(root).unwrap().display().to_string()).collect();
        names.sort();
        names
    }

    #[test]
    fn other_entries_are_reported_and_skipped() {
        let (_outer, folder) = crowded();
        let mut listing = Listing::default();
        listing.add(&folder, 100, |name| name.ends_with(".toml")).unwrap();
        let found = names(&folder, listing.files.iter().map(|found| &found.path));
        assert_eq!(found, ["deep/er/good.toml", "good.toml", "inside.toml"]);
        let strays = names(&folder, listing.strays.iter().map(|stray| &stray.path));
        let expected = [
            "circle.toml",
            "dangling.toml",
            "device.toml",
            "fifo.toml",
            "loop",
            "magic.toml",
            "outside.toml",
            "root",
            "socket.toml",
        ];
        assert_eq!(strays, expected, "{:?}", listing.strays);
        assert_eq!(listing.files[2].read(100).unwrap(), b"deep/er/good.toml");
    }

    #[test]
    fn the_limits_hold() {
        let (_outer, folder) = crowded();
        let mut listing = Listing::default();
        listing.add(&folder, 1, |name| name.ends_with(".toml")).unwrap();
        assert_eq!(listing.files.len(), 1);
        assert!(
            listing.strays.iter().any(|stray| stray.why.contains("more than 1 files")),
            "{:?}",
            listing.strays
        );
        let deep = (0..20).fold(folder.clone(), |path, _| path.join("d"));
        fs::create_dir_all(&deep).unwrap();
        let mut listing = Listing::default();
        listing.add(&folder, 100, |_| false).unwrap();
        assert!(
            listing.strays.iter().any(|stray| stray.why.contains("folders deep")),
            "{:?}",
            listing.strays
        );
        let long = FoundFile { path: folder.join("good.toml"), way: None };
        assert_eq!(long.read(3).unwrap_err().kind(), ErrorKind::FileTooLarge);
        assert!(Listing::default().add(&folder.join("fifo.toml"), 9, |_| true).is_err());
    }

    #[test]
    fn no_path_leaves_the_folder_by_either_way_of_opening() {
        let (_outer, folder) = crowded();
        let held = Folder::open(&folder).unwrap();
        for (path, within, refused) in [
            ("good.toml", true, true),
            ("deep/er/good.toml", true, true),
            ("inside.toml", true, false),
            ("outside.toml", false, false),
            ("../outside.toml", false, false),
            ("root/etc/passwd", false, false),
            ("/etc/passwd", false, false),
            ("device.toml", false, false),
            ("fifo.toml", false, false),
        ] {
            let path = Path::new(path);
            assert_eq!(held.file(path, Links::Within).is_ok(), within, "{path:?}");
            assert_eq!(held.file(path, Links::Refused).is_ok(), refused, "{path:?}");
            let stepped = step_by_step(&held.0, path, OFlag::empty()).map(File::from);
            assert_eq!(stepped.is_ok_and(|file| regular(file).is_ok()), refused, "{path:?}");
        }
        // The open folder is the one that was opened, whatever is at its path now.
        fs::rename(&folder, folder.with_extension("old")).unwrap();
        symlink("/", &folder).unwrap();
        let mut text = String::new();
        held.file(Path::new("good.toml"), Links::Refused).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "good.toml");
        assert!(held.folder(Path::new("root")).is_err() && held.folder(Path::new("deep/er")).is_ok());
    }
}
