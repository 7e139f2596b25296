//! What the agent's layout table needs of a kernel's BTF, as a small BTF of its own: `agent/src/sensor/testdata/` keeps
//! one of each kernel, and a test resolves the table against them.
//!
//! Of each structure that the table names all members are kept, so that a new row of the table mostly needs no new
//! excerpt. The type of a member is kept whole where the table goes on into it, or where the member has no name; of any
//! other what a reader can see of it: its kind, its size, and of small ones what numbers and addresses they are made of.
//! Of an enumeration only the enumerators are kept that are looked up.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use lapwing_common::layout::FIXED;
use lapwing_common::{enumerators, layout};

use crate::shell;

/// Where excerpts lie.
const FOLDER: &str = "agent/src/sensor/testdata/btf";
/// What is looked up beside the tables: a tracepoint with how many parameters it has.
const TRACEPOINT: &str = "btf_trace_sched_process_exit";
/// How a BTF begins: magic number, version, flags, length of the header.
const MAGIC: [u8; 8] = [0x9f, 0xeb, 1, 0, 24, 0, 0, 0];
const HEADER_BYTES: usize = 24;

/// A structure up to this size is kept with its members, though no row goes on into it.
const SMALL_BYTES: u32 = 16;
/// Deepest nesting of types that is followed.
const DEPTH_MAX: u32 = 32;

macro_rules! paths {
    ($($need:ident $name:ident: $ty:ty = $path:literal $(or $other:literal)* $(then $next:literal)*;)*) => {
        &[$($path, $($other,)* $($next,)*)*]
    };
}
/// Every path of the table.
const PATHS: &[&str] = layout!(paths);

macro_rules! numbers {
    ($($need:ident $name:ident: $path:literal;)*) => {
        &[$($path,)*]
    };
}
/// Every enumerator, behind its enumeration.
const ENUMERATORS: &[&str] = enumerators!(numbers);

/// Kinds of types, by BTF's numbers.
mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const POINTER: u32 = 2;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const PROTOTYPE: u32 = 13;
    pub(super) const VARIABLE: u32 = 14;
    pub(super) const SECTION: u32 = 15;
    pub(super) const DECLARATION_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

/// Writes the excerpt of a kernel, which calls itself by release and processor.
///
/// # Errors
/// The BTF cannot be read, or the excerpt not be written.
pub(super) fn write(kernel: &str, btf: &[u8]) -> Result<()> {
    let (release, processor) = kernel.split_once(' ').context("a kernel without a processor")?;
    let numbers: Vec<_> = release.split(['.', '-']).take(2).collect();
    let path = shell::root().join(FOLDER).join(format!("{}-{processor}.btf", numbers.join(".")));
    let excerpt = Types::parse(btf).context("no BTF, or a broken one")?.excerpt();
    fs::create_dir_all(shell::root().join(FOLDER))?;
    fs::write(&path, excerpt).with_context(|| path.display().to_string())
}

/// The BTF in a kernel's image, whichever way that is compressed.
///
/// # Errors
/// There is none in it, or what unpacks it is missing.
pub(super) fn of_image(image: &Path) -> Result<Vec<u8>> {
    const PACKERS: &[(&[u8], &str)] = &[
        (&[0x02, 0x21, 0x4c, 0x18], "lz4"),
        (&[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
        (&[0xfd, 0x37, 0x7a, 0x58], "xz"),
    ];
    let bytes = fs::read(image).with_context(|| image.display().to_string())?;
    let payload = payload(&bytes).unwrap_or(&bytes);
    let packer = PACKERS.iter().find(|(magic, _)| payload.starts_with(magic)).map(|(_, program)| *program);
    let mut unpacked = Vec::new();
    if let Some(program) = packer {
        let folder = tempfile::tempdir()?;
        let packed = folder.path().join("packed");
        fs::write(&packed, payload)?;
        let output = Command::new(program).arg("-dc").arg(&packed).output();
        // What follows the packed part makes it complain; whether all is there shows in what came out.
        unpacked = output.with_context(|| format!("`{program}` is missing: install it"))?.stdout;
    }
    let all = if packer.is_some() { &unpacked } else { &bytes };
    let starts = memchr::memmem::find_iter(all, &MAGIC);
    let btf = starts
        .map(|start| &all[start..])
        .find(|rest| Types::parse(rest).is_some_and(|types| types.0.len() > 9999));
    btf.map(<[u8]>::to_vec).with_context(|| format!("there is no BTF in {}", image.display()))
}

/// The packed kernel in an image for x86, whose header has its offset.
fn payload(image: &[u8]) -> Option<&[u8]> {
    let number =
        |place: usize| Some(u32::from_le_bytes(image.get(place..place + 4)?.try_into().ok()?) as usize);
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let sectors = usize::from(*image.get(0x1f1)?);
    let start = (if sectors == 0 { 4 } else { sectors } + 1) * 512 + number(0x248)?;
    image.get(start..start.checked_add(number(0x24c)?)?)
}

/// A type: its name, its kind with flag and count, the size or the type that it refers to, and the numbers that follow.
struct Type<'a> {
    name: &'a [u8],
    info: u32,
    other: u32,
    tail: Vec<u32>,
}

/// The types of a BTF; the number of each is one more than its place.
struct Types<'a>(Vec<Type<'a>>, &'a [u8]);

impl<'a> Types<'a> {
    fn parse(btf: &'a [u8]) -> Option<Self> {
        let number = |place: usize| Some(u32::from_le_bytes(btf.get(place..place + 4)?.try_into().ok()?));
        let section = |at: usize| {
            let start = HEADER_BYTES + number(at)? as usize;
            btf.get(start..start.checked_add(number(at + 4)? as usize)?)
        };
        btf.starts_with(&MAGIC).then_some(())?;
        let (bytes, strings) = (section(8)?, section(16)?);
        let mut words =
            bytes.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        let mut types = Vec::new();
        while let Some(name) = words.next() {
            let (info, other) = (words.next()?, words.next()?);
            let tail = words.by_ref().take(tail_words(info)).collect();
            types.push(Type { name: string(strings, name)?, info, other, tail });
        }
        Some(Self(types, strings))
    }

    fn get(&self, id: u32) -> Option<&Type<'a>> {
        self.0.get((id as usize).checked_sub(1)?)
    }

    fn find(&self, kind: u32, name: &str) -> Option<u32> {
        let place = self.0.iter().position(|ty| ty.kind() == kind && ty.name == name.as_bytes())?;
        u32::try_from(place + 1).ok()
    }

    fn excerpt(&self) -> Vec<u8> {
        let mut excerpt = Excerpt::of(self);
        let paths: Vec<_> = PATHS.iter().copied().chain(FIXED.map(|(path, _)| path)).collect();
        for (kind, paths) in [(kind::STRUCT, &*paths), (kind::ENUM, ENUMERATORS)] {
            let names: BTreeSet<_> = paths.iter().filter_map(|path| path.split('.').next()).collect();
            for name in names {
                let entered: Vec<_> =
                    paths.iter().filter_map(|path| path.strip_prefix(name)?.strip_prefix('.')).collect();
                if let Some(id) = self.find(kind, name) {
                    excerpt.keep(id, &entered);
                }
            }
        }
        if let Some(id) = self.find(kind::TYPEDEF, TRACEPOINT) {
            excerpt.keep(id, &[]);
        }
        excerpt.end()
    }
}

impl Type<'_> {
    fn kind(&self) -> u32 {
        self.info >> 24 & 0x1f
    }

    /// Whether members of it are members of what it is a member of, or of another name of it.
    fn is_compound(&self) -> bool {
        matches!(self.kind(), kind::STRUCT | kind::UNION)
    }

    /// Whether it is another type, with a name or a qualifier.
    fn is_qualifier(&self) -> bool {
        matches!(self.kind(), kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG)
    }
}

/// How many numbers follow the three of every type.
fn tail_words(info: u32) -> usize {
    let count = (info & 0xffff) as usize;
    match info >> 24 & 0x1f {
        kind::INT | kind::VARIABLE | kind::DECLARATION_TAG => 1,
        kind::ARRAY => 3,
        kind::STRUCT | kind::UNION | kind::SECTION | kind::ENUM64 => count * 3,
        kind::ENUM | kind::PROTOTYPE => count * 2,
        _ => 0,
    }
}

fn string(strings: &[u8], place: u32) -> Option<&[u8]> {
    let text = strings.get(place as usize..)?;
    text.get(..memchr::memchr(0, text)?)
}

/// A BTF that is being written.
struct Excerpt<'a> {
    types: &'a Types<'a>,
    words: Vec<u32>,
    strings: Vec<u8>,
    /// Where a name was put.
    names: HashMap<Vec<u8>, u32>,
    count: u32,
    /// What every parameter is, and what cannot be followed.
    number: u32,
    /// What was made of types of which only the shape is kept, by their numbers, and by what it came to.
    shapes: HashMap<u32, u32>,
    made: HashMap<(u32, u32, Vec<u32>), u32>,
}

impl<'a> Excerpt<'a> {
    fn of(types: &'a Types<'a>) -> Self {
        let names = HashMap::from([(Vec::new(), 0)]);
        let mut excerpt = Self {
            types,
            words: Vec::new(),
            strings: vec![0],
            names,
            count: 0,
            number: 0,
            shapes: HashMap::new(),
            made: HashMap::new(),
        };
        excerpt.number = excerpt.add(b"int", kind::INT << 24, 4, &[32]);
        excerpt
    }

    /// Keeps a type with those that these paths of members lead through, and returns its new number.
    fn keep(&mut self, id: u32, paths: &[&str]) -> u32 {
        let Some(ty) = self.types.get(id) else { return self.number };
        let (mut info, mut other, mut tail) = (ty.info, ty.other, ty.tail.clone());
        match ty.kind() {
            kind::STRUCT | kind::UNION => {
                for member in tail.chunks_exact_mut(3) {
                    member[1] = self.member(member[0], member[1], paths);
                    member[0] = self.name_of(member[0]);
                }
            }
            kind::ENUM => {
                let is_entered = |one: &&[u32]| paths.iter().any(|path| self.text(one[0]) == path.as_bytes());
                tail = ty.tail.chunks_exact(2).filter(is_entered).flatten().copied().collect();
                info = info & !0xffff | (tail.len() / 2) as u32;
                tail.chunks_exact_mut(2).for_each(|one| one[0] = self.name_of(one[0]));
            }
            kind::ARRAY => tail = vec![self.keep(tail[0], paths), self.number, tail[2]],
            kind::PROTOTYPE => {
                tail.chunks_exact_mut(2).for_each(|parameter| parameter.copy_from_slice(&[0, self.number]));
                other = self.number;
            }
            _ if ty.kind() == kind::POINTER || ty.is_qualifier() => other = self.keep(other, paths),
            _ => return self.number,
        }
        self.add(ty.name, info, other, &tail)
    }

    /// The type of a member, where something leads through it: its name, or that it has none.
    fn member(&mut self, name: u32, id: u32, paths: &[&str]) -> u32 {
        if !self.leads_to_compound(id) {
            return self.shape(id, 0);
        }
        let name = String::from_utf8_lossy(self.text(name)).into_owned();
        if name.is_empty() {
            return self.keep(id, paths);
        }
        let inner: Vec<_> =
            paths.iter().filter_map(|path| path.strip_prefix(&name)?.strip_prefix('.')).collect();
        if inner.is_empty() { self.shape(id, 0) } else { self.keep(id, &inner) }
    }

    /// A type without names: what it is, its size, and what it is made of where it is small.
    fn shape(&mut self, id: u32, depth: u32) -> u32 {
        let id = self.strip(id);
        if let Some(shape) = self.shapes.get(&id) {
            return *shape;
        }
        let Some(ty) = self.types.get(id).filter(|_| depth < DEPTH_MAX) else { return self.number };
        let mut tail = ty.tail.clone();
        let (info, other) = match ty.kind() {
            kind::POINTER => (ty.info, 0),
            kind::ARRAY => {
                tail = vec![self.shape(tail[0], depth + 1), self.number, tail[2]];
                (ty.info, 0)
            }
            kind::STRUCT | kind::UNION if ty.other <= SMALL_BYTES => {
                for member in tail.chunks_exact_mut(3) {
                    (member[0], member[1]) = (0, self.shape(member[1], depth + 1));
                }
                (ty.info, ty.other)
            }
            kind::STRUCT | kind::UNION | kind::ENUM | kind::ENUM64 => {
                tail.clear();
                (ty.kind() << 24, ty.other)
            }
            _ => (ty.info, ty.other),
        };
        let key = (info, other, tail);
        let made = self.made.get(&key).copied();
        let made = made.unwrap_or_else(|| self.add(b"", info, other, &key.2));
        self.made.insert(key, made);
        self.shapes.insert(id, made);
        made
    }

    fn leads_to_compound(&self, mut id: u32) -> bool {
        for _ in 0..DEPTH_MAX {
            id = self.strip(id);
            match self.types.get(id) {
                Some(ty) if ty.kind() == kind::ARRAY => id = ty.tail[0],
                ty => return ty.is_some_and(Type::is_compound),
            }
        }
        false
    }

    /// The number of the type below typedefs and qualifiers.
    fn strip(&self, mut id: u32) -> u32 {
        for _ in 0..DEPTH_MAX {
            match self.types.get(id) {
                Some(ty) if ty.is_qualifier() => id = ty.other,
                _ => break,
            }
        }
        id
    }

    fn text(&self, place: u32) -> &'a [u8] {
        string(self.types.1, place).unwrap_or_default()
    }

    fn add(&mut self, name: &[u8], info: u32, other: u32, tail: &[u32]) -> u32 {
        let name = self.intern(name);
        self.words.extend([name, info, other].iter().chain(tail));
        self.count += 1;
        self.count
    }

    fn name_of(&mut self, place: u32) -> u32 {
        self.intern(self.text(place))
    }

    fn intern(&mut self, name: &[u8]) -> u32 {
        if let Some(place) = self.names.get(name) {
            return *place;
        }
        let place = self.strings.len() as u32;
        self.strings.extend_from_slice(name);
        self.strings.push(0);
        self.names.insert(name.to_vec(), place);
        place
    }

    fn end(self) -> Vec<u8> {
        let (types, strings) = (self.words.len() as u32 * 4, self.strings.len() as u32);
        let mut bytes = MAGIC.to_vec();
        for word in [0, types, types, strings].iter().chain(&self.words) {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(&self.strings);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the kernel that runs here, where it describes itself.
    #[test]
    fn an_excerpt_has_the_structures_and_little_else() {
        let Ok(btf) = fs::read("/sys/kernel/btf/vmlinux") else { return };
        let excerpt = Types::parse(&btf).unwrap().excerpt();
        assert!(excerpt.len() < 100_000, "{} bytes", excerpt.len());
        let types = Types::parse(&excerpt).unwrap();
        assert!(types.find(kind::STRUCT, "task_struct").is_some());
        assert!(types.find(kind::TYPEDEF, TRACEPOINT).is_some());
        assert!(types.find(kind::STRUCT, "bpf_prog").is_none());
    }

    #[test]
    fn broken_bytes_are_no_types() {
        assert!(Types::parse(b"").is_none());
        assert!(Types::parse(&MAGIC).is_none());
    }
}
