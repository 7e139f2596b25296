//! Reads what others write, up to a limit. A file in `/proc` may be as long as its process chooses.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use bytesize::ByteSize;

/// Most bytes of one of the agent's own settings, secrets, certificates or templates.
pub(crate) const SETTING_BYTES_MAX: u64 = 4 << 20;
/// Most bytes of a file in which the kernel or the distribution describes the host.
pub(crate) const HOST_FILE_BYTES_MAX: u64 = 16 << 20;

/// A whole file.
///
/// # Errors
/// It cannot be read, or is longer than that.
pub(crate) fn read(path: impl AsRef<Path>, bytes_max: u64) -> io::Result<Vec<u8>> {
    whole(File::open(path)?, bytes_max)
}

/// All bytes of a reader.
///
/// # Errors
/// It cannot be read, or has more bytes than that.
pub(crate) fn whole(reader: impl Read, bytes_max: u64) -> io::Result<Vec<u8>> {
    let bytes = start(reader, bytes_max.saturating_add(1))?;
    if bytes.len() as u64 > bytes_max {
        let bound = ByteSize::b(bytes_max).display().iec();
        return Err(io::Error::new(ErrorKind::FileTooLarge, format!("the file is longer than {bound}")));
    }
    Ok(bytes)
}

/// A whole text file.
///
/// # Errors
/// Those of [`read`], or it is not UTF-8.
pub(crate) fn read_text(path: impl AsRef<Path>, bytes_max: u64) -> io::Result<String> {
    String::from_utf8(read(path, bytes_max)?)
        .map_err(|_| io::Error::new(ErrorKind::InvalidData, "the file is not text in UTF-8"))
}

/// The bytes of a reader, up to the limit.
///
/// # Errors
/// It cannot be read.
pub(crate) fn start(reader: impl Read, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_read_beyond_its_limit() {
        assert_eq!(read("/dev/zero", 1000).unwrap_err().kind(), ErrorKind::FileTooLarge);
        assert_eq!(start(File::open("/dev/zero").unwrap(), 1000).unwrap().len(), 1000);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "text").unwrap();
        assert_eq!(read_text(&file, 4).unwrap(), "text");
        let error = read_text(&file, 3).unwrap_err();
        assert_eq!(error.to_string(), "the file is longer than 3 B");
        std::fs::write(&file, [0xff]).unwrap();
        assert_eq!(read_text(&file, 4).unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
