//! The files of the log and their order. A file is identified by its first line, so that it is recognised after it was
//! renamed, copied or compressed. The agent's own rotation and the common forms of logrotate are supported.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest, Sha256};

use crate::digest::hex;

/// Length of the first line that makes a fingerprint.
const FINGERPRINT_BYTES_MAX: usize = 64 << 10;

/// Suffix of a file with the alerts that were carried over from a deleted file.
pub(super) const KEPT: &str = ".kept";

/// One file of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogFile {
    /// Its path.
    pub(crate) path: PathBuf,
    /// Last modification, which is never before its last alert.
    pub(crate) modified: SystemTime,
}

/// The files of the log whose current file is `path`, oldest first; none if the log does not exist.
///
/// # Errors
/// The directory cannot be read.
pub(crate) fn list(path: &Path) -> io::Result<Vec<LogFile>> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
    else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the log must be a file in a directory"));
    };
    let entries =
        match fs::read_dir(if directory.as_os_str().is_empty() { Path::new(".") } else { directory }) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Some(rest) =
            entry.file_name().to_str().and_then(|entry| entry.strip_prefix(name)).map(str::to_owned)
        else {
            continue;
        };
        if !rest.is_empty() && !is_rotated(&rest) {
            continue;
        }
        // A file may be compressed or deleted while the folder is read.
        // An entry that is not a regular file, such as a pipe, must not block a reader.
        if let Ok(metadata) = fs::metadata(entry.path())
            && metadata.is_file()
        {
            files.push((rest.is_empty(), LogFile { path: entry.path(), modified: metadata.modified()? }));
        }
    }
    files.sort_by(|(left_last, left), (right_last, right)| {
        (left_last, left.modified, &left.path).cmp(&(right_last, right.modified, &right.path))
    });
    let files: Vec<LogFile> = files.into_iter().map(|(_, file)| file).collect();
    // While a file is compressed, and after a crash then, both forms exist: the first one is complete.
    let twice = |file: &LogFile| {
        is_gzip(&file.path) && files.iter().any(|other| other.path == file.path.with_extension(""))
    };
    Ok(files.iter().filter(|file| !twice(file)).cloned().collect())
}

/// Whether a suffix of the log's name is one of rotation: `.1`, `.2.gz`, `-20261122`, or a timestamp of the agent.
fn is_rotated(rest: &str) -> bool {
    let rest = rest.strip_suffix(".gz").unwrap_or(rest);
    let rest = rest.strip_suffix(KEPT).unwrap_or(rest);
    rest.strip_prefix(['.', '-']).is_some_and(|rest| {
        rest.starts_with(|c: char| c.is_ascii_digit())
            && rest.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | '-' | 'T' | 'Z'))
    })
}

/// Whether the file contains alerts that were carried over from a deleted file.
pub(crate) fn is_kept(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.strip_suffix(".gz").unwrap_or(name).ends_with(KEPT)
}

/// Whether the file is compressed.
pub(crate) fn is_gzip(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "gz")
}

/// Whether a compressed file is truncated or damaged here.
pub(crate) fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof)
}

/// Reads a file of the log from the given offset of its uncompressed text.
///
/// # Errors
/// The file cannot be opened or read. Damage inside a compressed file is reported by later reads.
pub(crate) fn open_at(path: &Path, offset: u64) -> io::Result<Box<dyn BufRead + Send>> {
    let mut file = File::open(path)?;
    if is_gzip(path) {
        let mut reader = BufReader::new(MultiGzDecoder::new(BufReader::new(file)));
        match io::copy(&mut reader.by_ref().take(offset), &mut io::sink()) {
            Err(error) if !is_damage(&error) => return Err(error),
            _ => {}
        }
        return Ok(Box::new(reader));
    }
    file.seek(SeekFrom::Start(offset))?;
    Ok(Box::new(BufReader::new(file)))
}

/// The fingerprint of a file, whatever its name: the hash of its first line; `None` while it has no complete line.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn fingerprint(path: &Path) -> io::Result<Option<String>> {
    let mut start = Vec::new();
    let mut reader = open_at(path, 0)?.take(FINGERPRINT_BYTES_MAX as u64);
    reader.read_until(b'\n', &mut start)?;
    Ok(fingerprint_of(&start))
}

/// The fingerprint of a file that starts with these bytes.
pub(crate) fn fingerprint_of(start: &[u8]) -> Option<String> {
    let start = &start[..start.len().min(FINGERPRINT_BYTES_MAX)];
    let line = match start.iter().position(|byte| *byte == b'\n') {
        Some(end) => &start[..end],
        None if start.len() == FINGERPRINT_BYTES_MAX => start,
        None => return None,
    };
    Some(hex(&Sha256::digest(line)[..16]))
}

/// The rotated files with this suffix after the timestamp, oldest first.
pub(super) fn own_files(log: &Path, end: &str) -> io::Result<Vec<PathBuf>> {
    let (Some(directory), Some(name)) = (log.parent(), log.file_name().and_then(|name| name.to_str())) else {
        return Ok(Vec::new());
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let file = entry.file_name();
        let time =
            file.to_str().and_then(|file| file.strip_prefix(name)?.strip_prefix('.')?.strip_suffix(end));
        if time.is_some_and(is_own_time) {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

/// Whether a text has the form `20261122T035601.123Z`.
fn is_own_time(text: &str) -> bool {
    let form = "00000000T000000.000Z";
    text.len() == form.len()
        && text.bytes().zip(form.bytes()).all(|(byte, form)| match form {
            b'0' => byte.is_ascii_digit(),
            other => byte == other,
        })
}

/// A path with a suffix after its name.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_rotated_files_are_recognised() {
        for (rest, rotated) in [
            (".1", true),
            (".2.gz", true),
            ("-20261122", true),
            ("-20261122.gz", true),
            (".20261122T035601.123Z.gz", true),
            (".20261122T035601.123Z.gz.tmp", false),
            (".20261122T035601.123Z.kept.gz", true),
            (".20261122T035601.123Z.kept.gz.tmp", false),
            (".kept", false),
            (".old", false),
            (".swp", false),
            ("x", false),
            (".1.xz", false),
        ] {
            assert_eq!(is_rotated(rest), rotated, "{rest}");
        }
    }
}
