//! Streams that may be compressed: gzip and Zstandard are recognized by their first bytes and inflated while they are
//! read. `ruzstd` reads what others compressed, because it is memory-safe; `zstd` only writes.

use std::io::{self, BufRead, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// A stream, decompressed.
pub(crate) struct Inflated {
    /// Its content. Truncated data are an [`io::ErrorKind::UnexpectedEof`], corrupt data are
    /// [`io::ErrorKind::InvalidData`] or [`InvalidInput`](io::ErrorKind::InvalidInput), and data that inflate to more
    /// than the limit are [`io::ErrorKind::FileTooLarge`].
    pub(crate) reader: Box<dyn Read + Send>,
    /// Whether it was compressed.
    pub(crate) compressed: bool,
}

impl Inflated {
    /// Looks at the first bytes of `reader`. Compressed data may inflate to `bytes_max` bytes.
    ///
    /// # Errors
    /// Those of the reader.
    pub(crate) fn new(reader: impl Read + Send + 'static, bytes_max: u64) -> io::Result<Self> {
        let mut reader = io::BufReader::with_capacity(32 << 10, reader);
        // A file may have only its first byte so far; no JSON begins with it.
        let reader: Box<dyn Read + Send> = match reader.fill_buf()? {
            [0x1f] | [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(reader)),
            // The latter is a skippable frame, which some writers put first.
            [0x28] | [0x28, 0xb5, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Box::new(Zstd::new(reader)),
            _ => return Ok(Self { reader: Box::new(reader), compressed: false }),
        };
        Ok(Self { reader: Box::new(Limited::new(reader, bytes_max)), compressed: true })
    }
}

/// Fails when a reader returns more bytes than the limit.
pub(crate) struct Limited<R> {
    reader: R,
    left: u64,
    bytes_max: u64,
}

impl<R> Limited<R> {
    /// `reader`, limited to `bytes_max` bytes.
    pub(crate) fn new(reader: R, bytes_max: u64) -> Self {
        Self { reader, left: bytes_max, bytes_max }
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(buffer)?;
        self.left = self.left.checked_sub(length as u64).ok_or_else(|| {
            let message = format!("it inflates to more than {} bytes", self.bytes_max);
            io::Error::new(io::ErrorKind::FileTooLarge, message)
        })?;
        Ok(length)
    }
}

/// The frames of a Zstandard stream, in order.
pub(crate) struct Zstd<R> {
    reader: R,
    decoder: FrameDecoder,
    /// Whether the decoder is in a frame.
    open: bool,
    notes: Option<Notes>,
}

/// Skippable frames that are read: their magic number, and the function that gets their content.
struct Notes {
    magic: u32,
    /// Longest note, in bytes; longer frames are skipped.
    bytes_max: u32,
    read: Box<ReadNote>,
}

/// Reads the content of a note.
type ReadNote = dyn FnMut(&[u8]) -> io::Result<()> + Send;

impl<R: BufRead> Zstd<R> {
    fn new(reader: R) -> Self {
        Self { reader, decoder: FrameDecoder::new(), open: false, notes: None }
    }

    /// A stream whose window is at most `window_bytes_max`. Skippable frames that begin with `magic` and are not longer
    /// than `note_bytes_max` are notes.
    pub(crate) fn with_notes(
        reader: R,
        magic: [u8; 4],
        note_bytes_max: u32,
        window_bytes_max: u64,
        read_note: impl FnMut(&[u8]) -> io::Result<()> + Send + 'static,
    ) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(window_bytes_max);
        let notes =
            Notes { magic: u32::from_le_bytes(magic), bytes_max: note_bytes_max, read: Box::new(read_note) };
        Self { reader, decoder, open: false, notes: Some(notes) }
    }

    /// Enters the next frame, past skippable ones. Returns false at a regular end.
    fn enter(&mut self) -> io::Result<bool> {
        loop {
            if self.reader.fill_buf()?.is_empty() {
                return Ok(false);
            }
            match self.decoder.reset(&mut self.reader) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    magic_number,
                })) => self.skip(magic_number, length)?,
                Err(error) => return Err(self.error(&error)),
            }
        }
    }

    fn skip(&mut self, magic: u32, length: u32) -> io::Result<()> {
        let mut content = (&mut self.reader).take(length.into());
        match &mut self.notes {
            Some(notes) if notes.magic == magic && length <= notes.bytes_max => {
                let mut note = Vec::new();
                content.read_to_end(&mut note)?;
                if note.len() < length as usize {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                (notes.read)(&note)
            }
            _ => io::copy(&mut content, &mut io::sink()).map(drop),
        }
    }

    /// Reads the whole next frame, so that its checksum is verified before its content is used. Returns false at a
    /// regular end.
    ///
    /// # Errors
    /// Those of the stream; a frame with more than `bytes_max` bytes is an [`io::ErrorKind::FileTooLarge`].
    pub(crate) fn frame(&mut self, frame: &mut Vec<u8>, bytes_max: usize) -> io::Result<bool> {
        frame.clear();
        self.open = self.enter()?;
        if !self.open {
            return Ok(false);
        }
        let mut piece = [0; 16 << 10];
        loop {
            let length = self.piece(&mut piece)?;
            if length == 0 {
                return Ok(true);
            }
            if frame.len() + length > bytes_max {
                let message = format!("a frame holds more than {bytes_max} bytes");
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
            }
            frame.extend_from_slice(&piece[..length]);
        }
    }

    /// Reads a piece of the current frame; nothing after its end.
    fn piece(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let length = self.decoder.read(buffer)?;
            if length > 0 {
                return Ok(length);
            }
            if self.decoder.is_finished() {
                return self.leave().map(|()| 0);
            }
            let decoded = self.decoder.decode_blocks(&mut self.reader, BlockDecodingStrategy::UptoBlocks(1));
            if let Err(error) = decoded {
                return Err(self.error(&error));
            }
        }
    }

    /// Ends a frame and verifies its checksum.
    fn leave(&mut self) -> io::Result<()> {
        self.open = false;
        match (self.decoder.get_checksum_from_data(), self.decoder.get_calculated_checksum()) {
            (Some(declared), Some(found)) if declared != found => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "the checksum of a frame is wrong"))
            }
            _ => Ok(()),
        }
    }

    /// The data are corrupt or incomplete.
    fn error(&mut self, error: &FrameDecoderError) -> io::Error {
        match self.reader.fill_buf() {
            Ok([]) => io::ErrorKind::UnexpectedEof.into(),
            Ok(_) => io::Error::new(io::ErrorKind::InvalidData, error.to_string()),
            Err(error) => error,
        }
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.open {
                self.open = self.enter()?;
                if !self.open {
                    return Ok(0);
                }
            }
            let length = self.piece(buffer)?;
            if length > 0 {
                return Ok(length);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        compress_to_vec(bytes, CompressionLevel::Fastest)
    }

    fn read(bytes: Vec<u8>, bytes_max: u64) -> Result<Vec<u8>, io::ErrorKind> {
        let mut all = Vec::new();
        let inflated = Inflated::new(io::Cursor::new(bytes), bytes_max).unwrap();
        inflated.reader.take(1 << 30).read_to_end(&mut all).map_err(|error| error.kind())?;
        Ok(all)
    }

    #[test]
    fn data_are_inflated_unchanged() {
        let text: Vec<u8> = (0..300_000_u32).map(|number| (number.wrapping_mul(number) >> 7) as u8).collect();
        let skipped = [&[0x51, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &zstd(b"c")].concat();
        for (bytes, expected) in [
            (text.clone(), text.clone()),
            (gzip(&text), text.clone()),
            (zstd(&text), text.clone()),
            ([gzip(b"a"), gzip(b"b")].concat(), b"ab".to_vec()),
            ([zstd(b"a"), zstd(b""), zstd(b"b"), skipped].concat(), b"abc".to_vec()),
            ([&[0x5f, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9][..], &zstd(b"b")].concat(), b"b".to_vec()),
            (b"[".to_vec(), b"[".to_vec()),
            (Vec::new(), Vec::new()),
        ] {
            assert_eq!(read(bytes, 1 << 20), Ok(expected));
        }
    }

    #[test]
    fn truncated_input_is_distinguished_from_corrupt_input() {
        let text = [b'x'; 5000];
        for whole in [gzip(&text), zstd(&text)] {
            for length in 1..whole.len() {
                assert_eq!(
                    read(whole[..length].to_vec(), 1 << 20),
                    Err(io::ErrorKind::UnexpectedEof),
                    "{length}"
                );
            }
            assert_eq!(read(whole.clone(), 4999), Err(io::ErrorKind::FileTooLarge));
        }
        let mut broken = zstd(&text);
        let last = broken.len() - 1;
        broken[last] ^= 1;
        assert_eq!(read(broken, 1 << 20), Err(io::ErrorKind::InvalidData), "the sum is wrong");
        let behind = [zstd(&text), b"{}      ".to_vec()].concat();
        assert_eq!(read(behind, 1 << 20), Err(io::ErrorKind::InvalidData), "no frame follows");
    }
}
