//! SHA-256 of files, read in chunks, and bytes in hexadecimal.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use sha2::{Digest as _, Sha256};

/// Size of a chunk.
pub(crate) const CHUNK_BYTES: usize = 256 << 10;
/// Longer files are dropped from the page cache: they were read for their hash only.
const CACHED_BYTES_MAX: u64 = 4 << 20;

/// A SHA-256.
pub(crate) type Hash = [u8; 32];

/// Bytes in lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = |byte: &u8| [byte >> 4, byte & 0xf].map(|digit| char::from(DIGITS[usize::from(digit)]));
    bytes.iter().flat_map(digits).collect()
}

/// The hash of a file from its current position to its end, and the number of bytes. After each chunk `go_on` gets the
/// chunk's bytes and the total: it may wait, or stop the reading.
///
/// # Errors
/// The file cannot be read, or `go_on` stopped it.
pub(crate) fn of<E: From<io::Error>>(
    mut file: &File,
    chunk: &mut [u8],
    mut go_on: impl FnMut(u64, u64) -> Result<(), E>,
) -> Result<(Hash, u64), E> {
    let (mut hasher, mut read) = (Sha256::new(), 0);
    loop {
        match file.read(chunk) {
            Ok(0) => break,
            Ok(count) => {
                hasher.update(&chunk[..count]);
                read += count as u64;
                go_on(count as u64, read)?;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    if read > CACHED_BYTES_MAX {
        // Without it the page cache is only larger.
        let _ = posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    }
    Ok((hasher.finalize().into(), read))
}
