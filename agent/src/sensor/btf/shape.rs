//! The type of a member, and whether it is what the kernel programs read there.

use lapwing_common::layout::Shape;

use super::{Btf, DEPTH_MAX, Kind, MemberOffset, Type, number};

/// The size of an address.
const POINTER_BYTES: u32 = 8;

/// A number or an address, which has no parts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaf {
    Integer(u32),
    Pointer,
}

impl Leaf {
    fn bytes(self) -> u32 {
        match self {
            Self::Integer(bytes) => bytes,
            Self::Pointer => POINTER_BYTES,
        }
    }
}

/// What a shape is, for messages.
pub(in crate::sensor) fn text(shape: Shape) -> String {
    match shape {
        Shape::Integer(bytes) => format!("an integer of {}", count(bytes, "byte")),
        Shape::Low(bytes) => format!("an integer of at least {}", count(bytes, "byte")),
        Shape::Pointer => "a pointer".to_owned(),
        Shape::Integers(bytes) => format!("at least {bytes} bytes of integers"),
        Shape::Pointers(bytes) => format!("at least {bytes} bytes of pointers"),
        Shape::Structure => "a structure".to_owned(),
    }
}

fn count(number: u32, of: &str) -> String {
    format!("{number} {of}{}", if number == 1 { "" } else { "s" })
}

impl Btf<'_> {
    /// Whether the member at this place has this shape.
    ///
    /// # Errors
    /// What it is instead, for messages.
    pub(in crate::sensor) fn check(&self, place: &MemberOffset, shape: Shape) -> Result<(), String> {
        let has_shape = place.field_bits == 0 && self.has_shape(place.ty, shape);
        if has_shape { Ok(()) } else { Err(self.description(place)) }
    }

    fn has_shape(&self, id: u32, shape: Shape) -> bool {
        match shape {
            Shape::Integer(bytes) => self.single(id) == Some(Leaf::Integer(bytes)),
            Shape::Low(bytes) => matches!(self.single(id), Some(Leaf::Integer(found)) if found >= bytes),
            Shape::Pointer => self.single(id) == Some(Leaf::Pointer),
            Shape::Integers(bytes) => self.begins(id, bytes, |leaf| leaf != Leaf::Pointer),
            Shape::Pointers(bytes) => self.begins(id, bytes, |leaf| leaf == Leaf::Pointer),
            Shape::Structure => self.below(id).is_some_and(|ty| ty.is_compound()),
        }
    }

    fn description(&self, place: &MemberOffset) -> String {
        if place.field_bits != 0 {
            return format!("a bit field of {}", count(place.field_bits, "bit"));
        }
        match self.single(place.ty) {
            Some(Leaf::Integer(bytes)) => return text(Shape::Integer(bytes)),
            Some(Leaf::Pointer) => return text(Shape::Pointer),
            None => {}
        }
        let kind = match self.below(place.ty).map(|ty| ty.kind) {
            Some(Kind::ARRAY) => "an array",
            Some(Kind::STRUCT) => "a structure",
            Some(Kind::UNION) => "a union",
            _ => "something else",
        };
        match self.size(place.ty) {
            Some(bytes) => format!("{kind} of {}", count(bytes, "byte")),
            None => kind.to_owned(),
        }
    }

    /// The number or address that a type is, or that it has around it nothing else.
    fn single(&self, id: u32) -> Option<Leaf> {
        let leaf = self.leaf(id, 0)?;
        (self.size(id)? == leaf.bytes()).then_some(leaf)
    }

    /// Whether the first bytes of a type are such numbers or addresses, one after the other.
    fn begins(&self, id: u32, bytes: u32, is_such: impl Fn(Leaf) -> bool) -> bool {
        let mut at = 0;
        while at < bytes {
            match self.leaf(id, at) {
                Some(leaf) if is_such(leaf) && leaf.bytes() > 0 => at += leaf.bytes(),
                _ => return false,
            }
        }
        true
    }

    /// The number or address that begins at this byte of a type. Of what lies in the same place, as in a union, it is
    /// the first.
    fn leaf(&self, mut id: u32, mut at: u32) -> Option<Leaf> {
        for _ in 0..DEPTH_MAX {
            let ty = self.below(id)?;
            let leaf = match ty.kind {
                Kind::INT if self.is_whole(&ty) => Leaf::Integer(ty.other),
                Kind::ENUM | Kind::ENUM64 => Leaf::Integer(ty.other),
                Kind::POINTER => Leaf::Pointer,
                Kind::ARRAY => {
                    let (element, count) = self.elements(&ty)?;
                    let bytes = self.size(element)?;
                    // One without a length is as long as it is.
                    let is_inside = count == 0 || at < count.checked_mul(bytes)?;
                    (id, at) = is_inside.then_some((element, at.checked_rem(bytes)?))?;
                    continue;
                }
                Kind::STRUCT | Kind::UNION => {
                    (id, at) = self.part(&ty, at)?;
                    continue;
                }
                _ => return None,
            };
            return (at == 0).then_some(leaf);
        }
        None
    }

    /// The type of the first member of a structure that this byte is in, and which byte of it.
    fn part(&self, ty: &Type, at: u32) -> Option<(u32, u32)> {
        self.members(ty).filter(|member| member.field_bits == 0).find_map(|member| {
            let inner = at.checked_sub(member.bits / 8)?;
            (inner < self.size(member.ty)?).then_some((member.ty, inner))
        })
    }

    /// Whether an integer takes up all bits of its bytes.
    fn is_whole(&self, ty: &Type) -> bool {
        number(self.types, ty.tail).is_some_and(|encoding| encoding & 0xff_ffff == ty.other.wrapping_mul(8))
    }

    fn size(&self, mut id: u32) -> Option<u32> {
        let mut times: u32 = 1;
        for _ in 0..DEPTH_MAX {
            let ty = self.below(id)?;
            let bytes = match ty.kind {
                Kind::ARRAY => {
                    let (element, count) = self.elements(&ty)?;
                    (id, times) = (element, times.checked_mul(count)?);
                    continue;
                }
                Kind::POINTER => POINTER_BYTES,
                Kind::INT | Kind::ENUM | Kind::ENUM64 | Kind::STRUCT | Kind::UNION => ty.other,
                _ => return None,
            };
            return times.checked_mul(bytes);
        }
        None
    }
}
