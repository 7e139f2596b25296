//! A reader of BTF, the kernel's description of its own types: where a member lies, how many parameters a function
//! has, what number an enumerator is. It borrows the bytes and keeps one number a type, and is gone after the start.
//!
//! The format is documented in the kernel's `Documentation/bpf/btf.rst`. Bytes that are no BTF, or are cut, yield an
//! error or nothing, and never a panic.

use std::collections::HashMap;

/// Deepest nesting of anonymous members, typedefs and qualifiers that is followed.
const DEPTH_MAX: u32 = 32;
const MAGIC: u16 = 0xeb9f;

/// The types of one kernel.
pub(super) struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Where each type begins; the id of a type is one more than its place here.
    starts: Vec<u32>,
    structs: HashMap<&'a [u8], u32>,
}

/// The numbers by which BTF tells kinds of types.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Kind(u32);

impl Kind {
    const INT: Self = Self(1);
    const ARRAY: Self = Self(3);
    const STRUCT: Self = Self(4);
    const UNION: Self = Self(5);
    const ENUM: Self = Self(6);
    const TYPEDEF: Self = Self(8);
    const VOLATILE: Self = Self(9);
    const CONST: Self = Self(10);
    const RESTRICT: Self = Self(11);
    const PROTOTYPE: Self = Self(13);
    const VARIABLE: Self = Self(14);
    const SECTION: Self = Self(15);
    const DECLARATION_TAG: Self = Self(17);
    const TYPE_TAG: Self = Self(18);
    const ENUM64: Self = Self(19);

    /// Bytes that follow the type's fixed part.
    fn tail(self, count: u32) -> u32 {
        match self {
            Self::INT | Self::VARIABLE | Self::DECLARATION_TAG => 4,
            Self::ARRAY => 12,
            Self::STRUCT | Self::UNION | Self::SECTION | Self::ENUM64 => count * 12,
            Self::ENUM | Self::PROTOTYPE => count * 8,
            _ => 0,
        }
    }
}

/// A type's fixed part.
struct Type {
    name: u32,
    kind: Kind,
    count: u32,
    has_bit_fields: bool,
    /// The size, or the type that this one refers to.
    other: u32,
    tail: usize,
}

impl<'a> Btf<'a> {
    /// Reads the bytes of a BTF; `None` where they are none.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        if u16::from_le_bytes(bytes.get(..2)?.try_into().ok()?) != MAGIC {
            return None;
        }
        let header = |place: usize| number(bytes, place).map(|number| number as usize);
        let body = bytes.get(header(4)?..)?;
        let section = |offset: usize, len: usize| body.get(offset..offset.checked_add(len)?);
        let types = section(header(8)?, header(12)?)?;
        let strings = section(header(16)?, header(20)?)?;
        let mut btf = Self { types, strings, starts: Vec::new(), structs: HashMap::new() };
        let mut start = 0;
        while let Some(ty) = btf.read(start) {
            btf.starts.push(u32::try_from(start).ok()?);
            if ty.kind == Kind::STRUCT && ty.name != 0 {
                let id = u32::try_from(btf.starts.len()).ok()?;
                // Where two structures share a name, the first is the kernel's own.
                btf.structs.entry(btf.string(ty.name)).or_insert(id);
            }
            start = ty.tail.checked_add(ty.kind.tail(ty.count) as usize)?;
        }
        Some(btf)
    }

    /// The offset in bytes of a member, named as `structure.member.member`; members of anonymous structures and
    /// unions are named as in C, without them. Of a structure alone, that of what follows it: its size.
    pub(super) fn offset(&self, path: &str) -> Option<u32> {
        let Some((structure, members)) = path.split_once('.') else {
            return self.get(*self.structs.get(path.as_bytes())?).map(|ty| ty.other);
        };
        let mut id = *self.structs.get(structure.as_bytes())?;
        let mut offset = 0;
        for member in members.split('.') {
            let (bits, ty) = self.member(self.strip(id)?, member.as_bytes(), 0)?;
            offset += bits / 8;
            id = ty;
        }
        Some(offset)
    }

    /// How many parameters a tracepoint hands to its programs.
    pub(super) fn tracepoint_parameters(&self, name: &str) -> Option<u32> {
        let typedef = self.find(Kind::TYPEDEF, &format!("btf_trace_{name}"))?;
        let prototype = self.get(self.get(typedef.other)?.other)?;
        // The first is the tracepoint's own.
        (prototype.kind == Kind::PROTOTYPE).then(|| prototype.count.saturating_sub(1))
    }

    /// The number of an enumerator.
    pub(super) fn enumerator(&self, enumeration: &str, name: &str) -> Option<u32> {
        let ty = self.find(Kind::ENUM, enumeration)?;
        (0..ty.count as usize).map(|index| ty.tail + index * 8).find_map(|place| {
            let is_it = self.string(number(self.types, place)?) == name.as_bytes();
            is_it.then(|| number(self.types, place + 4))?
        })
    }

    /// The place in bits and the type of a member of a structure or union.
    fn member(&self, id: u32, name: &[u8], depth: u32) -> Option<(u32, u32)> {
        let ty = self.get(id).filter(|_| depth < DEPTH_MAX)?;
        if ty.kind != Kind::STRUCT && ty.kind != Kind::UNION {
            return None;
        }
        (0..ty.count as usize).map(|index| ty.tail + index * 12).find_map(|place| {
            let (own_name, member) = (number(self.types, place)?, number(self.types, place + 4)?);
            let bits = number(self.types, place + 8)?;
            let bits = if ty.has_bit_fields { bits & 0xff_ffff } else { bits };
            if own_name != 0 {
                return (self.string(own_name) == name).then_some((bits, member));
            }
            let (inner, found) = self.member(self.strip(member)?, name, depth + 1)?;
            Some((bits + inner, found))
        })
    }

    /// The type below typedefs and qualifiers.
    fn strip(&self, mut id: u32) -> Option<u32> {
        for _ in 0..DEPTH_MAX {
            let ty = self.get(id)?;
            match ty.kind {
                Kind::TYPEDEF | Kind::VOLATILE | Kind::CONST | Kind::RESTRICT | Kind::TYPE_TAG => {
                    id = ty.other
                }
                _ => return Some(id),
            }
        }
        None
    }

    fn find(&self, kind: Kind, name: &str) -> Option<Type> {
        self.starts
            .iter()
            .filter_map(|start| self.read(*start as usize))
            .find(|ty| ty.kind == kind && self.string(ty.name) == name.as_bytes())
    }

    fn get(&self, id: u32) -> Option<Type> {
        self.read(*self.starts.get(id.checked_sub(1)? as usize)? as usize)
    }

    fn read(&self, start: usize) -> Option<Type> {
        let info = number(self.types, start + 4)?;
        Some(Type {
            name: number(self.types, start)?,
            kind: Kind(info >> 24 & 0x1f),
            count: info & 0xffff,
            has_bit_fields: info >> 31 != 0,
            other: number(self.types, start + 8)?,
            tail: start + 12,
        })
    }

    fn string(&self, offset: u32) -> &'a [u8] {
        let text = self.strings.get(offset as usize..).unwrap_or_default();
        &text[..text.iter().position(|byte| *byte == 0).unwrap_or(text.len())]
    }
}

/// A number of four bytes at a place. BTF has the byte order of its kernel, and this runs on it.
fn number(bytes: &[u8], place: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(place..place.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Writes a BTF, so that tests have kernels of their own making.
    #[derive(Default)]
    pub(in crate::sensor) struct Builder {
        types: Vec<u8>,
        strings: Vec<u8>,
        count: u32,
    }

    impl Builder {
        pub(in crate::sensor) fn new() -> Self {
            Self { strings: vec![0], ..Self::default() }
        }

        fn name(&mut self, name: &str) -> u32 {
            if name.is_empty() {
                return 0;
            }
            let place = self.strings.len() as u32;
            self.strings.extend_from_slice(name.as_bytes());
            self.strings.push(0);
            place
        }

        /// Adds a type and returns its id.
        fn add(&mut self, name: &str, kind: Kind, count: u32, other: u32, tail: &[u32]) -> u32 {
            let name = self.name(name);
            for number in [name, kind.0 << 24 | count, other].iter().chain(tail) {
                self.types.extend_from_slice(&number.to_ne_bytes());
            }
            self.count += 1;
            self.count
        }

        /// A number of four bytes.
        pub(in crate::sensor) fn int(&mut self) -> u32 {
            self.add("int", Kind::INT, 0, 4, &[32])
        }

        /// A structure of members: name, place in bytes, type.
        pub(in crate::sensor) fn structure(&mut self, name: &str, members: &[(&str, u32, u32)]) -> u32 {
            self.compound(Kind::STRUCT, name, members)
        }

        fn compound(&mut self, kind: Kind, name: &str, members: &[(&str, u32, u32)]) -> u32 {
            let tail: Vec<u32> =
                members.iter().flat_map(|(name, place, ty)| [self.name(name), *ty, place * 8]).collect();
            self.add(name, kind, members.len() as u32, 64, &tail)
        }

        /// A tracepoint with this many parameters of its programs.
        pub(in crate::sensor) fn tracepoint(&mut self, name: &str, parameters: u32) {
            let own = parameters + 1;
            let prototype = self.add("", Kind::PROTOTYPE, own, 0, &vec![0; own as usize * 2]);
            let pointer = self.add("", Kind(2), 0, prototype, &[]);
            self.add(&format!("btf_trace_{name}"), Kind::TYPEDEF, 0, pointer, &[]);
        }

        pub(in crate::sensor) fn end(&self) -> Vec<u8> {
            let mut bytes = MAGIC.to_ne_bytes().to_vec();
            bytes.extend_from_slice(&[1, 0]);
            let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
            for number in [24, 0, types, types, strings] {
                bytes.extend_from_slice(&number.to_ne_bytes());
            }
            bytes.extend_from_slice(&self.types);
            bytes.extend_from_slice(&self.strings);
            bytes
        }
    }

    fn kernel() -> Vec<u8> {
        let mut kernel = Builder::new();
        let int = kernel.int();
        let inner = kernel.structure("path", &[("mnt", 0, int), ("dentry", 8, int)]);
        let constant = kernel.add("", Kind::CONST, 0, inner, &[]);
        let typedef = kernel.add("path_t", Kind::TYPEDEF, 0, constant, &[]);
        let union = kernel.compound(Kind::UNION, "", &[("left", 0, int), ("right", 0, int)]);
        let anonymous = kernel.structure("", &[("start", 4, int), ("", 8, union)]);
        kernel.structure("file", &[("mode", 0, int), ("f_path", 16, typedef), ("", 32, anonymous)]);
        kernel.structure("file", &[("mode", 99, int)]);
        let one = kernel.name("one_id");
        let two = kernel.name("two_id");
        kernel.add("ids", Kind::ENUM, 2, 4, &[one, 1, two, 2]);
        kernel.tracepoint("sched_process_exit", 2);
        kernel.end()
    }

    #[test]
    fn members_are_found_through_everything_between() {
        let bytes = kernel();
        let btf = Btf::parse(&bytes).unwrap();
        for (path, offset) in [
            ("file.mode", Some(0)),
            ("file.f_path", Some(16)),
            ("file.f_path.dentry", Some(24)),
            ("file.start", Some(36)),
            ("file.right", Some(40)),
            ("file.absent", None),
            ("file.mode.below", None),
            ("absent.mode", None),
            ("file", Some(64)),
            ("absent", None),
        ] {
            assert_eq!(btf.offset(path), offset, "{path}");
        }
        assert_eq!(btf.enumerator("ids", "two_id"), Some(2));
        assert_eq!(btf.enumerator("ids", "three_id"), None);
        assert_eq!(btf.tracepoint_parameters("sched_process_exit"), Some(2));
        assert_eq!(btf.tracepoint_parameters("sched_process_fork"), None);
    }

    #[test]
    fn broken_bytes_yield_nothing() {
        let bytes = kernel();
        assert!(Btf::parse(b"").is_none());
        assert!(Btf::parse(b"not a BTF at all").is_none());
        for len in 0..bytes.len() {
            if let Some(btf) = Btf::parse(&bytes[..len]) {
                btf.offset("file.f_path.dentry");
            }
        }
        // Every byte wrong once: some lead types to themselves, or far outside.
        for place in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[place] ^= 0xff;
            if let Some(btf) = Btf::parse(&bytes) {
                btf.offset("file.f_path.dentry");
                btf.enumerator("ids", "two_id");
            }
        }
    }
}
