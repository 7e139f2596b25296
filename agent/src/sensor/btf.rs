//! A reader of BTF, the kernel's description of its own types: the offset and type of a member, the number of a
//! function's parameters, the value of an enumerator. It borrows the bytes, keeps one number per type, and is dropped
//! after the start.
//!
//! The format is documented in the kernel's `Documentation/bpf/btf.rst`. Bytes that are no BTF, or are cut, yield an
//! error or nothing, and never a panic.

pub(super) mod shape;

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

/// The numbers of BTF's kinds of types.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Kind(u32);

impl Kind {
    const INT: Self = Self(1);
    const POINTER: Self = Self(2);
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

impl Type {
    /// Whether it has members.
    fn is_compound(&self) -> bool {
        self.kind == Kind::STRUCT || self.kind == Kind::UNION
    }
}

/// A member's offset and type.
pub(super) struct MemberOffset {
    pub(super) offset: u32,
    ty: u32,
    /// How many bits it has, where it is a bit field.
    field_bits: u32,
}

/// A member of a structure or union.
struct Member {
    name: u32,
    ty: u32,
    /// Its offset.
    bits: u32,
    /// How many bits it has, where it is a bit field.
    field_bits: u32,
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

    /// The size of a structure.
    pub(super) fn structure_bytes(&self, name: &str) -> Option<u32> {
        self.get(*self.structs.get(name.as_bytes())?).map(|ty| ty.other)
    }

    /// Where a member lies, named as `structure.member.member`; members of anonymous structures and unions are named as
    /// in C, without them. Of an array that is gone on into it is the first element.
    pub(super) fn place(&self, path: &str) -> Option<MemberOffset> {
        let (structure, members) = path.split_once('.')?;
        let mut place =
            MemberOffset { offset: 0, ty: *self.structs.get(structure.as_bytes())?, field_bits: 0 };
        for name in members.split('.') {
            let member = self.member(self.first_element(place.ty)?, name.as_bytes(), 0)?;
            let offset = place.offset.checked_add(member.bits / 8)?;
            place = MemberOffset { offset, ty: member.ty, field_bits: member.field_bits };
        }
        Some(place)
    }

    /// How many parameters a tracepoint hands to its programs.
    pub(super) fn tracepoint_parameters(&self, name: &str) -> Option<u32> {
        let typedef = self.find(Kind::TYPEDEF, &format!("btf_trace_{name}"))?;
        let prototype = self.get(self.get(typedef.other)?.other)?;
        // The first is the tracepoint's own.
        (prototype.kind == Kind::PROTOTYPE).then(|| prototype.count.saturating_sub(1))
    }

    /// The number of an enumerator, named as `enumeration.enumerator`.
    pub(super) fn enumerator(&self, path: &str) -> Option<u32> {
        let (enumeration, name) = path.split_once('.')?;
        let ty = self.find(Kind::ENUM, enumeration)?;
        (0..ty.count as usize).map(|index| ty.tail + index * 8).find_map(|place| {
            let is_it = self.string(number(self.types, place)?) == name.as_bytes();
            is_it.then(|| number(self.types, place + 4))?
        })
    }

    /// A member of a structure or union, and of what has no name in it.
    fn member(&self, id: u32, name: &[u8], depth: u32) -> Option<Member> {
        let ty = self.below(id).filter(|ty| depth < DEPTH_MAX && ty.is_compound())?;
        self.members(&ty).find_map(|member| {
            if member.name != 0 {
                return (self.string(member.name) == name).then_some(member);
            }
            let inner = self.member(member.ty, name, depth + 1)?;
            Some(Member { bits: member.bits.checked_add(inner.bits)?, ..inner })
        })
    }

    /// The members of a structure or union.
    fn members(&self, ty: &Type) -> impl Iterator<Item = Member> {
        let (tail, has_bit_fields) = (ty.tail, ty.has_bit_fields);
        (0..ty.count as usize).map(move |index| tail + index * 12).map_while(move |place| {
            let bits = number(self.types, place + 8)?;
            let (bits, field_bits) = if has_bit_fields { (bits & 0xff_ffff, bits >> 24) } else { (bits, 0) };
            Some(Member {
                name: number(self.types, place)?,
                ty: number(self.types, place + 4)?,
                bits,
                field_bits,
            })
        })
    }

    /// The type of an array's elements, and how many it has.
    fn elements(&self, ty: &Type) -> Option<(u32, u32)> {
        Some((number(self.types, ty.tail)?, number(self.types, ty.tail + 8)?))
    }

    /// The type of an array's elements; of anything else it itself.
    fn first_element(&self, id: u32) -> Option<u32> {
        let ty = self.below(id)?;
        if ty.kind == Kind::ARRAY { self.elements(&ty).map(|(element, _)| element) } else { Some(id) }
    }

    /// The type below typedefs and qualifiers.
    fn below(&self, mut id: u32) -> Option<Type> {
        for _ in 0..DEPTH_MAX {
            let ty = self.get(id)?;
            match ty.kind {
                Kind::TYPEDEF | Kind::VOLATILE | Kind::CONST | Kind::RESTRICT | Kind::TYPE_TAG => {
                    id = ty.other
                }
                _ => return Some(ty),
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
    use lapwing_common::layout::Shape;

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

        /// A number of this many bytes.
        pub(in crate::sensor) fn int(&mut self, bytes: u32) -> u32 {
            self.add("int", Kind::INT, 0, bytes, &[bytes * 8])
        }

        /// An address of anything.
        pub(in crate::sensor) fn pointer(&mut self) -> u32 {
            self.add("", Kind::POINTER, 0, 0, &[])
        }

        /// An array of this many elements of a type.
        pub(in crate::sensor) fn array(&mut self, element: u32, count: u32) -> u32 {
            self.add("", Kind::ARRAY, 0, 0, &[element, element, count])
        }

        /// An enumeration of enumerators with their numbers.
        pub(in crate::sensor) fn enumeration(&mut self, name: &str, enumerators: &[(&str, u32)]) -> u32 {
            let tail: Vec<u32> =
                enumerators.iter().flat_map(|(name, number)| [self.name(name), *number]).collect();
            self.add(name, Kind::ENUM, enumerators.len() as u32, 4, &tail)
        }

        /// A structure of this size, of members: name, place in bytes, type.
        pub(in crate::sensor) fn structure(
            &mut self,
            name: &str,
            bytes: u32,
            members: &[(&str, u32, u32)],
        ) -> u32 {
            self.compound(Kind::STRUCT, name, bytes, members)
        }

        fn compound(&mut self, kind: Kind, name: &str, bytes: u32, members: &[(&str, u32, u32)]) -> u32 {
            let tail: Vec<u32> =
                members.iter().flat_map(|(name, place, ty)| [self.name(name), *ty, place * 8]).collect();
            self.add(name, kind, members.len() as u32, bytes, &tail)
        }

        /// A structure of four bytes with a bit field at its beginning.
        pub(in crate::sensor) fn bit_field(&mut self, name: &str, member: &str, ty: u32, bits: u32) -> u32 {
            const HAS_BIT_FIELDS: u32 = 1 << 31;
            let member = self.name(member);
            self.add(name, Kind::STRUCT, HAS_BIT_FIELDS | 1, 4, &[member, ty, bits << 24])
        }

        /// A tracepoint with this many parameters of its programs.
        pub(in crate::sensor) fn tracepoint(&mut self, name: &str, parameters: u32) {
            let own = parameters + 1;
            let prototype = self.add("", Kind::PROTOTYPE, own, 0, &vec![0; own as usize * 2]);
            let pointer = self.add("", Kind::POINTER, 0, prototype, &[]);
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
        let [byte, int, long] = [1, 4, 8].map(|bytes| kernel.int(bytes));
        let pointer = kernel.pointer();
        let inner = kernel.structure("path", 12, &[("mnt", 0, int), ("dentry", 8, int)]);
        let constant = kernel.add("", Kind::CONST, 0, inner, &[]);
        let typedef = kernel.add("path_t", Kind::TYPEDEF, 0, constant, &[]);
        let union = kernel.compound(Kind::UNION, "", 4, &[("left", 0, int), ("right", 0, int)]);
        let anonymous = kernel.structure("", 12, &[("start", 4, int), ("", 8, union)]);
        kernel.structure("file", 64, &[("mode", 0, int), ("f_path", 16, typedef), ("", 32, anonymous)]);
        kernel.structure("file", 64, &[("mode", 99, int)]);
        kernel.enumeration("ids", &[("one_id", 1), ("two_id", 2)]);
        kernel.tracepoint("sched_process_exit", 2);
        let kuid = kernel.structure("", 4, &[("val", 0, int)]);
        let kuid = kernel.add("kuid_t", Kind::TYPEDEF, 0, kuid, &[]);
        let comm = kernel.array(byte, 16);
        let caps = kernel.array(int, 2);
        let caps = kernel.structure("", 8, &[("cap", 0, caps)]);
        let list = kernel.structure("list_head", 16, &[("next", 0, pointer), ("prev", 8, pointer)]);
        let upid = kernel.structure("upid", 16, &[("nr", 0, int), ("ns", 8, pointer)]);
        let upids = kernel.array(upid, 0);
        let kind = kernel.enumeration("kind", &[]);
        let shapes = [int, long, pointer, kuid, comm, caps, list, upids, kind, typedef];
        let names = ["int", "long", "pointer", "kuid", "comm", "caps", "list", "upids", "kind", "path"];
        let members: Vec<_> =
            names.iter().zip(shapes).zip(0..).map(|((name, ty), at)| (*name, at * 16, ty)).collect();
        kernel.structure("shapes", 160, &members);
        kernel.bit_field("bits", "flag", int, 3);
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
            ("shapes.upids.ns", Some(7 * 16 + 8)),
            ("file", None),
        ] {
            assert_eq!(btf.place(path).map(|place| place.offset), offset, "{path}");
        }
        assert_eq!(btf.structure_bytes("file"), Some(64));
        assert_eq!(btf.structure_bytes("absent"), None);
        assert_eq!(btf.enumerator("ids.two_id"), Some(2));
        assert_eq!(btf.enumerator("ids.three_id"), None);
        assert_eq!(btf.tracepoint_parameters("sched_process_exit"), Some(2));
        assert_eq!(btf.tracepoint_parameters("sched_process_fork"), None);
    }

    #[test]
    fn members_have_the_shape_that_is_read() {
        let bytes = kernel();
        let btf = Btf::parse(&bytes).unwrap();
        for (path, shape, other) in [
            ("shapes.int", Shape::Integer(4), None),
            ("shapes.int", Shape::Integer(8), Some("an integer of 4 bytes")),
            ("shapes.long", Shape::Integer(4), Some("an integer of 8 bytes")),
            ("shapes.long", Shape::Low(4), None),
            ("shapes.int", Shape::Low(8), Some("an integer of 4 bytes")),
            ("shapes.pointer", Shape::Pointer, None),
            ("shapes.pointer", Shape::Integer(8), Some("a pointer")),
            ("shapes.long", Shape::Pointer, Some("an integer of 8 bytes")),
            ("shapes.kuid", Shape::Integer(4), None),
            ("shapes.kuid", Shape::Structure, None),
            ("shapes.kind", Shape::Integer(4), None),
            ("shapes.comm", Shape::Integers(16), None),
            ("shapes.comm", Shape::Integers(17), Some("an array of 16 bytes")),
            ("shapes.comm", Shape::Integer(1), Some("an array of 16 bytes")),
            ("shapes.comm", Shape::Structure, Some("an array of 16 bytes")),
            ("shapes.caps", Shape::Integers(8), None),
            ("shapes.caps", Shape::Integer(8), Some("a structure of 8 bytes")),
            ("shapes.list", Shape::Pointers(16), None),
            ("shapes.list", Shape::Pointers(24), Some("a structure of 16 bytes")),
            ("shapes.list", Shape::Integers(8), Some("a structure of 16 bytes")),
            ("shapes.upids.nr", Shape::Integer(4), None),
            ("shapes.upids.ns", Shape::Pointer, None),
            // Between its members there is a gap.
            ("shapes.path", Shape::Integers(12), Some("a structure of 12 bytes")),
            ("bits.flag", Shape::Integer(4), Some("a bit field of 3 bits")),
        ] {
            let found = btf.check(&btf.place(path).unwrap(), shape);
            assert_eq!(found.err().as_deref(), other, "{path} as {}", shape::text(shape));
        }
    }

    #[test]
    fn broken_bytes_yield_nothing() {
        let look = |bytes: &[u8]| {
            let Some(btf) = Btf::parse(bytes) else { return };
            btf.enumerator("ids.two_id");
            btf.place("file.f_path.dentry");
            for name in ["comm", "caps", "list", "upids", "path"] {
                let Some(place) = btf.place(&format!("shapes.{name}")) else { continue };
                let _ = btf.check(&place, Shape::Integers(16));
            }
        };
        let bytes = kernel();
        assert!(Btf::parse(b"").is_none());
        assert!(Btf::parse(b"not a BTF at all").is_none());
        for len in 0..bytes.len() {
            look(&bytes[..len]);
        }
        // Every byte wrong once: some lead types to themselves, or far outside.
        for place in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[place] ^= 0xff;
            look(&bytes);
        }
    }
}
