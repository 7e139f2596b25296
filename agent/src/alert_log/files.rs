//! Which files make up the log, in which order, and how one is known again after it was renamed, copied or
//! compressed: by its first line. It knows the agent's own rotation and the common forms of logrotate.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest, Sha256};

use crate::digest::hex;

/// How much of a first line makes a fingerprint.
const FINGERPRINT_BYTES_MAX: usize = 64 << 10;

/// What ends the name of a file that holds what was kept of one that is gone.
pub(super) const KEPT: &str = ".kept";

/// One file of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogFile {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// When it was last written to, which is never before its last alert.
    pub(crate) modified: SystemTime,
}

/// The files of the log whose current file is `path`, oldest first. A log that does not exist has none.
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
        // What is no file, a pipe say, must hold no reader up.
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
    // While a file is compressed, and after a crash then, both forms are there: the first one is enough.
    let twice = |file: &LogFile| {
        is_gzip(&file.path) && files.iter().any(|other| other.path == file.path.with_extension(""))
    };
    Ok(files.iter().filter(|file| !twice(file)).cloned().collect())
}

/// Whether what follows the log's name is what rotation appends: `.1`, `.2.gz`, `-20261122`, our own times.
fn is_rotated(rest: &str) -> bool {
    let rest = rest.strip_suffix(".gz").unwrap_or(rest);
    let rest = rest.strip_suffix(KEPT).unwrap_or(rest);
    rest.strip_prefix(['.', '-']).is_some_and(|rest| {
        rest.starts_with(|c: char| c.is_ascii_digit())
            && rest.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | '-' | 'T' | 'Z'))
    })
}

/// Whether the file holds what was kept of one that is gone.
pub(crate) fn is_kept(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.strip_suffix(".gz").unwrap_or(name).ends_with(KEPT)
}

/// Whether the file is compressed.
pub(crate) fn is_gzip(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "gz")
}

/// Whether a compressed file ends early or is broken at this place.
pub(crate) fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof)
}

/// Reads a file of the log from the given offset of its uncompressed text.
///
/// # Errors
/// It cannot be opened or read; what is broken inside a compressed file shows when it is read on.
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

/// What a file is known by whatever its name: its first line's hash; `None` while it has no whole line.
///
/// # Errors
/// It cannot be read.
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
