//! SHA-256 of files, read a part at a time, and how bytes are written for people.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use sha2::{Digest as _, Sha256};

/// How much is read at once.
pub(crate) const CHUNK_BYTES: usize = 256 << 10;
/// Longer files leave the page cache again: they were put there for their hash alone.
const CACHED_BYTES_MAX: u64 = 4 << 20;

/// A SHA-256.
pub(crate) type Hash = [u8; 32];

/// Bytes in hexadecimal, in small letters.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = |byte: &u8| [byte >> 4, byte & 0xf].map(|digit| char::from(DIGITS[usize::from(digit)]));
    bytes.iter().flat_map(digits).collect()
}

/// The hash of a file from where it is to its end, and how many bytes these were. After each part `go_on` gets its bytes and
/// those so far: it may wait, or end the reading.
///
/// # Errors
/// The file cannot be read, or `go_on` ended it.
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
        // Where the kernel does not take the advice, memory is short a little sooner.
        let _ = posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    }
    Ok((hasher.finalize().into(), read))
}
