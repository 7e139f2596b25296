//! Records as they were read: bytes from the kernel, checked and never trusted.
//!
//! It imports the wire and no event. A record that is too short, of another version, of an unknown kind, or whose spans
//! lead outside of it yields an error or an empty text, and never a panic.

use lapwing_common::{
    Changed, Closed, Connected, Connection, Exec, Exit, Fork, Header, Kind, Span, Task, Touched, VERSION,
};
use thiserror::Error;
use zerocopy::{FromBytes, Immutable, KnownLayout};

/// A record, borrowed from the buffer it was read into.
#[derive(Clone, Copy)]
pub(super) enum Record<'a> {
    Fork(&'a Fork),
    Exec(ExecRecord<'a>),
    Exit(&'a Exit),
    Connect(&'a Connection),
    Connected(&'a Connected),
    Accept(&'a Connection),
    Changed(&'a Changed),
    Closed(&'a Closed),
    Datagram(&'a Connection),
    Touched(&'a Touched),
}

/// A record of an exec with its tail.
#[derive(Clone, Copy)]
pub(super) struct ExecRecord<'a> {
    /// The fixed part.
    pub(super) fixed: &'a Exec,
    bytes: &'a [u8],
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum Malformed {
    #[error("a record is cut short")]
    Short,
    #[error("a record has version {0}, and {VERSION} is known")]
    Version(u16),
    #[error("a record is of the unknown kind {0}")]
    Kind(u16),
}

impl<'a> Record<'a> {
    /// Reads a record.
    ///
    /// # Errors
    /// See [`Malformed`].
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let header: &Header = fixed(bytes)?;
        if header.version != VERSION {
            return Err(Malformed::Version(header.version));
        }
        let bytes = bytes.get(..header.len as usize).ok_or(Malformed::Short)?;
        match Kind(header.kind) {
            Kind::FORK => fixed(bytes).map(Self::Fork),
            Kind::EXEC => Ok(Self::Exec(ExecRecord { fixed: fixed(bytes)?, bytes })),
            Kind::EXIT => fixed(bytes).map(Self::Exit),
            Kind::CONNECT => fixed(bytes).map(Self::Connect),
            Kind::CONNECTED => fixed(bytes).map(Self::Connected),
            Kind::ACCEPT => fixed(bytes).map(Self::Accept),
            Kind::IDS | Kind::SESSION => fixed(bytes).map(Self::Changed),
            Kind::CLOSED => fixed(bytes).map(Self::Closed),
            Kind::DATAGRAM => fixed(bytes).map(Self::Datagram),
            Kind::BPF | Kind::PTRACE | Kind::SIGNAL => fixed(bytes).map(Self::Touched),
            Kind(other) => Err(Malformed::Kind(other)),
        }
    }

    /// The common beginning.
    pub(super) fn header(&self) -> &'a Header {
        match self {
            Self::Fork(record) => &record.header,
            Self::Exec(record) => &record.fixed.header,
            Self::Exit(record) => &record.header,
            Self::Connect(record) | Self::Accept(record) | Self::Datagram(record) => &record.header,
            Self::Connected(record) => &record.header,
            Self::Changed(record) => &record.header,
            Self::Closed(record) => &record.header,
            Self::Touched(record) => &record.header,
        }
    }

    /// The task that caused it, where it is recorded in that task; of a fork, the new one.
    pub(super) fn task(&self) -> Option<&'a Task> {
        match self {
            Self::Fork(record) => Some(&record.child),
            Self::Exec(record) => Some(&record.fixed.task),
            Self::Exit(record) => Some(&record.task),
            Self::Connect(record) | Self::Accept(record) | Self::Datagram(record) => Some(&record.task),
            Self::Changed(record) => Some(&record.task),
            Self::Touched(record) => Some(&record.task),
            Self::Connected(_) | Self::Closed(_) => None,
        }
    }
}

impl<'a> ExecRecord<'a> {
    /// A piece of the tail, without the zero that ends a text.
    pub(super) fn text(&self, span: Span) -> &'a [u8] {
        let start = span.offset as usize;
        let piece = self.bytes.get(start..start + (span.len & Span::LEN) as usize).unwrap_or_default();
        piece.strip_suffix(&[0]).unwrap_or(piece)
    }

    /// A path, put together from its names. One whose beginning is not known, or is not where it seems to be, begins
    /// with `...` and so with no folder.
    pub(super) fn path(&self, span: Span) -> Vec<u8> {
        let names = self.text(span);
        let (lower, upper) = halves(names);
        let mut path = Vec::with_capacity(names.len() + 16);
        let is_cut = span.has(Span::CUT);
        if is_cut && upper.is_empty() || span.has(Span::DETACHED | Span::FOREIGN) {
            path.extend_from_slice(b"...");
        }
        push_names(&mut path, upper.split(|byte| *byte == 0));
        if is_cut && !upper.is_empty() {
            path.extend_from_slice(b"/...");
        }
        push_names(&mut path, lower.rsplit(|byte| *byte == 0));
        if path.is_empty() && (span.len != 0 || span.offset != 0) {
            path.push(b'/');
        }
        if span.has(Span::DELETED | Span::ANONYMOUS) {
            path.extend_from_slice(b" (deleted)");
        }
        path
    }

    /// The arguments. An empty one is one; the last may be cut.
    pub(super) fn args(&self) -> impl Iterator<Item = &'a [u8]> {
        let span = self.fixed.args;
        let is_empty = span.len & Span::LEN == 0;
        self.text(span).split(|byte| *byte == 0).skip(usize::from(is_empty))
    }

    /// Variables of the environment, the last of which may be cut: those that are wanted, and others that begin so.
    pub(super) fn environment(&self) -> impl Iterator<Item = &'a [u8]> {
        let span = self.fixed.environment;
        let is_empty = span.len & Span::LEN == 0;
        self.text(span).split(|byte| *byte == 0).skip(usize::from(is_empty))
    }

    /// Whether a part of the environment was not read, so that any variable may be missing.
    pub(super) fn is_environment_cut(&self) -> bool {
        self.fixed.environment.has(Span::CUT) || self.fixed.environment.has(Span::UNREADABLE)
    }

    /// Whether arguments are missing or cut.
    pub(super) fn is_cut(&self) -> bool {
        self.fixed.args.has(Span::CUT) || self.fixed.args.has(Span::UNREADABLE)
    }
}

/// The names of a path from the last one up, and the upmost from the root down, which follow an empty one.
fn halves(names: &[u8]) -> (&[u8], &[u8]) {
    if let Some(upper) = names.strip_prefix(&[0]) {
        return (&[], upper);
    }
    match names.windows(2).position(|pair| pair == [0, 0]) {
        Some(end) => (&names[..end], &names[end + 2..]),
        // The upmost found no room.
        None => (names.strip_suffix(&[0]).unwrap_or(names), &[]),
    }
}

fn push_names<'a>(path: &mut Vec<u8>, names: impl Iterator<Item = &'a [u8]>) {
    for name in names.filter(|name| !name.is_empty()) {
        path.push(b'/');
        path.extend_from_slice(name);
    }
}

fn fixed<T: FromBytes + KnownLayout + Immutable>(bytes: &[u8]) -> Result<&T, Malformed> {
    T::ref_from_prefix(bytes).map(|(fixed, _)| fixed).map_err(|_| Malformed::Short)
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::{FromZeros, IntoBytes};

    /// A record of an exec in aligned room, with this tail.
    fn exec(tail: &[u8], set: impl FnOnce(&mut Exec, u32)) -> Vec<u64> {
        let mut exec = Exec::new_zeroed();
        let start = size_of::<Exec>();
        exec.header.kind = Kind::EXEC.0;
        exec.header.version = VERSION;
        exec.header.len = (start + tail.len()) as u32;
        set(&mut exec, start as u32);
        let mut room = vec![0; (start + tail.len()).div_ceil(8)];
        room.as_mut_bytes()[..start].copy_from_slice(exec.as_bytes());
        room.as_mut_bytes()[start..start + tail.len()].copy_from_slice(tail);
        room
    }

    fn parse(room: &[u64]) -> ExecRecord<'_> {
        match Record::parse(room.as_bytes()) {
            Ok(Record::Exec(record)) => record,
            Ok(_) => panic!("another record"),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn arguments_keep_their_bounds() {
        for (tail, args) in [
            (&b"nc\0-e\0/bin/sh\0"[..], &["nc", "-e", "/bin/sh"][..]),
            (b"a\0\0b\0\0", &["a", "", "b", ""]),
            (b"\0", &[""]),
            (b"", &[]),
            (b"cut off in the mid", &["cut off in the mid"]),
        ] {
            let room = exec(tail, |exec, start| exec.args = Span { offset: start, len: tail.len() as u32 });
            let found: Vec<_> = parse(&room).args().map(String::from_utf8_lossy).collect();
            assert_eq!(found, args, "{tail:?}");
        }
    }

    #[test]
    fn paths_are_turned_around() {
        for (names, mark, path) in [
            (&b"curl\0bin\0usr\0"[..], 0, "/usr/bin/curl"),
            (b"x\0tmp\0", Span::DELETED, "/tmp/x (deleted)"),
            (b"memfd:payload\0", Span::ANONYMOUS, "/memfd:payload (deleted)"),
            (b"deep\0down\0", Span::CUT, ".../down/deep"),
            (b"deep\0down\0\0tmp\0x\0", Span::CUT, "/tmp/x/.../down/deep"),
            (b"deep\0down\0\0tmp\0x\0", 0, "/tmp/x/down/deep"),
            (b"deep\0down\0\0", Span::CUT, ".../down/deep"),
            (b"\0tmp\0", Span::CUT, "/tmp/..."),
            (b"\0", Span::CUT, "..."),
            (b"curl\0bin\0usr\0", Span::DETACHED, ".../usr/bin/curl"),
            (b"curl\0bin\0usr\0", Span::FOREIGN | Span::DELETED, ".../usr/bin/curl (deleted)"),
            (b"", Span::DETACHED, "..."),
            (b"", Span::CUT, "..."),
            (b"", 0, "/"),
        ] {
            let span = |start| Span { offset: start, len: names.len() as u32 | mark };
            let room = exec(names, |exec, start| exec.executable = span(start));
            let record = parse(&room);
            assert_eq!(String::from_utf8_lossy(&record.path(record.fixed.executable)), path);
        }
    }

    #[test]
    fn hostile_records_are_refused() {
        let room = exec(b"tail", |exec, start| exec.args = Span { offset: start + 2, len: Span::LEN });
        assert_eq!(parse(&room).args().count(), 1, "a span that leads outside is empty");
        let bytes = room.as_bytes();
        for len in [0, 8, size_of::<Header>(), size_of::<Exec>()] {
            assert_eq!(Record::parse(&bytes[..len]).err(), Some(Malformed::Short), "{len}");
        }
        let mut other = room.clone();
        other.as_mut_bytes()[0] = 99;
        assert_eq!(Record::parse(other.as_bytes()).err(), Some(Malformed::Kind(99)));
        other.as_mut_bytes()[2] = 9;
        assert_eq!(Record::parse(other.as_bytes()).err(), Some(Malformed::Version(9)));
    }
}
