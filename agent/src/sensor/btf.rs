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
    const POINTER: Self = Self(2);
    const ARRAY: Self = Self(3);
    const STRUCT: Self = Self(4);
    const UNION: Self = Self(5);
    const ENUM: Self = Self(6);
    const TYPEDEF: Self = Self(8);
    const VOLATILE: Self = Self(9);
    const CONST: Self = Self(10);
    const RESTRICT: Self = Self(11);
    const FUNCTION: Self = Self(12);
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
    /// unions are named as in C, without them.
    pub(super) fn offset(&self, path: &str) -> Option<u32> {
        let (structure, members) = path.split_once('.')?;
        let mut id = *self.structs.get(structure.as_bytes())?;
        let mut offset = 0;
        for member in members.split('.') {
            let (bits, ty) = self.member(self.strip(id)?, member.as_bytes(), 0)?;
            offset += bits / 8;
            id = ty;
        }
        Some(offset)
    }

    /// How many parameters a kernel function has.
    pub(super) fn function_parameters(&self, name: &str) -> Option<u32> {
        let function = self.find(Kind::FUNCTION, name)?;
        let prototype = self.get(function.other)?;
        (prototype.kind == Kind::PROTOTYPE).then_some(prototype.count)
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
