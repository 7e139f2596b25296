//! The offsets of fields on this kernel, and the numbers of its enumerators: the wire's tables, resolved against BTF. A
//! member whose type is not what the programs read counts as missing.
//!
//! It loads nothing: its input is the bytes of a BTF, its output is numbers, so that it is tested on any machine
//! against any kernel's BTF.

use aya::EbpfLoader;
use lapwing_common::layout::{AsOne, FIXED, Low, Pointer, Reads, Shape, Structure, WINDOWS};
use lapwing_common::{ABSENT, enumerators, layout};

use super::btf::{Btf, shape};

/// A row of the table: one member that the kernel programs read.
struct Row {
    global: &'static str,
    is_required: bool,
    /// The type and width with which the programs read it.
    shape: Shape,
    /// Its path, and its paths in other kernels.
    paths: &'static [&'static str],
    /// The members that are read together with it, which must follow it without a gap.
    then: &'static [&'static str],
}

macro_rules! rows {
    ($($need:ident $name:ident: $ty:ty = $path:literal $(or $other:literal)* $(then $next:literal)*;)*) => {
        const ROWS: &[Row] = &[$(Row {
            global: stringify!($name),
            is_required: is_required!($need),
            shape: shape_of::<$ty>(),
            paths: &[$path, $($other),*],
            then: &[$($next),*],
        }),*];
    };
}

/// A row of the other table: one enumerator.
struct Number {
    global: &'static str,
    is_required: bool,
    path: &'static str,
}

macro_rules! numbers {
    ($($need:ident $name:ident: $path:literal;)*) => {
        const NUMBERS: &[Number] = &[$(Number {
            global: stringify!($name),
            is_required: is_required!($need),
            path: $path,
        }),*];
    };
}
macro_rules! is_required {
    (required) => {
        true
    };
    (optional) => {
        false
    };
}
layout!(rows);
enumerators!(numbers);

const fn shape_of<T: Reads>() -> Shape {
    T::SHAPE
}

/// The enumerator that is needed only if control groups are named by the hierarchy of the `pids` controller.
const CGROUP_CONTROLLER: &str = "CGROUP_CONTROLLER";

/// The offsets and numbers for this kernel.
#[derive(Default)]
pub(super) struct Layout {
    offsets: Vec<u32>,
    numbers: Vec<u32>,
    exit_names_last_thread: u32,
    /// The optional rows that this kernel lacks.
    absent: Vec<String>,
    /// The required ones.
    missing: Vec<String>,
}

impl Layout {
    /// Resolves all rows. With `cgroups_v1`, control groups are named by the hierarchy of the `pids` controller instead
    /// of the unified one.
    ///
    /// # Errors
    /// The required rows that are missing, each with its path, and with its type if that is not the expected one.
    pub(super) fn resolve(btf: &Btf<'_>, cgroups_v1: bool) -> Result<Self, String> {
        let mut layout = Self::default();
        for row in ROWS {
            let offset = layout.take(row.is_required, row.resolve(btf));
            layout.offsets.push(offset);
        }
        for number in NUMBERS {
            let is_wanted = cgroups_v1 || number.global != CGROUP_CONTROLLER;
            let found = btf.enumerator(number.path).ok_or_else(|| number.path.to_owned());
            let found = if is_wanted { layout.take(number.is_required, found) } else { ABSENT };
            layout.numbers.push(found);
        }
        for (path, place) in FIXED {
            let found = match path.contains('.') {
                true => btf.place(path).map(|place| place.offset),
                false => btf.structure_bytes(path),
            };
            let found = found.filter(|found| *found as usize == place);
            layout.take(true, found.ok_or_else(|| format!("{path} with {place} bytes up to there")));
        }
        layout.exit_names_last_thread =
            btf.tracepoint_parameters("sched_process_exit").is_some_and(|count| count > 1).into();
        if layout.missing.is_empty() { Ok(layout) } else { Err(layout.missing.join(", ")) }
    }

    /// The number found, or `ABSENT`; missing rows are kept by name.
    fn take(&mut self, is_required: bool, found: Result<u32, String>) -> u32 {
        found.unwrap_or_else(|lack| {
            if is_required {
                self.missing.push(lack)
            } else {
                self.absent.push(lack)
            }
            ABSENT
        })
    }

    /// Sets the globals of the programs that are about to be loaded.
    pub(super) fn set<'a>(&'a self, loader: &mut EbpfLoader<'a>) {
        let globals = ROWS.iter().map(|row| row.global).chain(NUMBERS.iter().map(|number| number.global));
        for (global, value) in globals.zip(self.offsets.iter().chain(&self.numbers)) {
            loader.override_global(global, value, true);
        }
        loader.override_global("EXIT_NAMES_LAST_THREAD", &self.exit_names_last_thread, true);
    }

    /// The missing optional rows, for the log.
    pub(super) fn absent(&self) -> impl Iterator<Item = &str> {
        self.absent.iter().map(String::as_str)
    }
}

impl Row {
    /// The offset of the member, by the first of its paths that has the expected type.
    ///
    /// # Errors
    /// The missing member: its paths, or the path on which it has another type.
    fn resolve(&self, btf: &Btf<'_>) -> Result<u32, String> {
        let mut other = None;
        for path in self.paths {
            match self.resolve_at(btf, path) {
                Some(Ok(offset)) => return Ok(offset),
                Some(Err(found)) => other = other.or(Some(found)),
                None => {}
            }
        }
        Err(other.unwrap_or_else(|| self.paths.join(" or ")))
    }

    /// The same on one path; `None` if it does not exist.
    fn resolve_at(&self, btf: &Btf<'_>, path: &'static str) -> Option<Result<u32, String>> {
        if !path.contains('.') {
            return Some(Ok(btf.structure_bytes(path)?));
        }
        let offset = btf.place(path)?.offset;
        let (shape, width) = self.one();
        let mut expected = offset;
        for member in [&path].into_iter().chain(self.then) {
            let place = btf.place(member)?;
            if place.offset != expected {
                return Some(Err(format!("{member} without a gap before it")));
            }
            if let Err(found) = btf.check(&place, shape) {
                return Some(Err(format!("{member} as {} (here it is {found})", shape::text(shape))));
            }
            expected += width;
        }
        let structure = path.split('.').next();
        let window = WINDOWS.iter().find(|(window, _)| structure == Some(window));
        Some(match window {
            Some((_, bytes)) if !is_inside(offset, self.shape, *bytes) => {
                Err(format!("{path} in the first {bytes} bytes"))
            }
            _ => Ok(offset),
        })
    }

    /// The type and width of each of the members that are read at once.
    fn one(&self) -> (Shape, u32) {
        let width = self.shape.bytes() / (self.then.len() as u32 + 1);
        (if self.then.is_empty() { self.shape } else { Shape::Integer(width) }, width)
    }
}

/// Whether a read of this shape is within `bytes`.
fn is_inside(offset: u32, shape: Shape, bytes: usize) -> bool {
    offset as usize + shape.bytes() as usize <= bytes
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::Path;

    use super::super::btf::tests::Builder;
    use super::*;

    /// What a member is made as.
    #[derive(Clone, Copy)]
    enum Made {
        As(Shape),
        BitField,
    }
    use Made::{As, BitField};

    /// Members by their paths. In each structure they are adjacent.
    type Members = Vec<(&'static str, Made)>;

    /// A member, and those below it; where there are none, what it is made as.
    struct Tree(&'static str, Option<Made>, Vec<Tree>);

    impl Tree {
        fn plant(trees: &mut Vec<Self>, path: &'static str, made: Made) {
            let (name, below) = path.split_once('.').unwrap_or((path, ""));
            let index = trees.iter().position(|tree| tree.0 == name).unwrap_or_else(|| {
                trees.push(Self(name, None, Vec::new()));
                trees.len() - 1
            });
            match below {
                "" => trees[index].1 = Some(made),
                _ => Self::plant(&mut trees[index].2, below, made),
            }
        }

        /// Adds its type, and returns that with its size.
        fn build(&self, builder: &mut Builder, name: &str) -> (u32, u32) {
            let Some(made) = self.1.filter(|_| self.2.is_empty()) else {
                return self.structure(builder, name);
            };
            match made {
                As(Shape::Integer(bytes) | Shape::Low(bytes)) => (builder.int(bytes), bytes),
                As(Shape::Pointer) => (builder.pointer(), 8),
                As(Shape::Integers(bytes)) => {
                    let byte = builder.int(1);
                    (builder.array(byte, bytes), bytes)
                }
                As(Shape::Pointers(bytes)) => {
                    let pointer = builder.pointer();
                    (builder.array(pointer, bytes / 8), bytes)
                }
                As(Shape::Structure) => self.structure(builder, name),
                BitField => {
                    let int = builder.int(4);
                    (builder.bit_field("", self.0, int, 3), 4)
                }
            }
        }

        fn structure(&self, builder: &mut Builder, name: &str) -> (u32, u32) {
            let mut members = Vec::new();
            let mut end = 0_u32;
            for tree in &self.2 {
                let (ty, bytes) = tree.build(builder, "");
                // A bit field is in a structure without a name.
                let name = if matches!(tree.1, Some(BitField)) { "" } else { tree.0 };
                let start = end.next_multiple_of(bytes.clamp(1, 8));
                members.push((name, start, ty));
                end = start + bytes;
            }
            (builder.structure(name, end, &members), end)
        }
    }

    /// A kernel that has these members and enumerators.
    fn kernel(members: &Members, enumerators: &[&'static str]) -> Vec<u8> {
        let mut trees = Vec::new();
        for (path, made) in members {
            Tree::plant(&mut trees, path, *made);
        }
        let mut builder = Builder::new();
        for tree in &trees {
            tree.build(&mut builder, tree.0);
        }
        let mut enumerations = BTreeMap::<_, Vec<_>>::new();
        for (path, number) in enumerators.iter().zip(7..) {
            let (enumeration, name) = path.split_once('.').unwrap();
            enumerations.entry(enumeration).or_default().push((name, number));
        }
        for (enumeration, enumerators) in enumerations {
            builder.enumeration(enumeration, &enumerators);
        }
        builder.tracepoint("sched_process_exit", 1);
        builder.end()
    }

    fn resolve(members: &Members, enumerators: &[&'static str], cgroups_v1: bool) -> Result<Layout, String> {
        let bytes = kernel(members, enumerators);
        Layout::resolve(&Btf::parse(&bytes).unwrap(), cgroups_v1)
    }

    fn resolve_members(members: &Members) -> Result<Layout, String> {
        resolve(members, &enumerators(), true)
    }

    fn of(layout: &Layout, global: &str) -> u32 {
        let mut rows = ROWS.iter().zip(&layout.offsets).map(|(row, offset)| (row.global, *offset));
        rows.find(|(name, _)| *name == global).unwrap().1
    }

    fn number(layout: &Layout, global: &str) -> u32 {
        let index = NUMBERS.iter().position(|number| number.global == global).unwrap();
        layout.numbers[index]
    }

    /// The members of all rows, by one of each one's paths, as they are read.
    fn members(path: fn(&Row) -> &'static str) -> Members {
        let fixed = [("upid.nr", As(Shape::Integer(4))), ("upid.ns", As(Shape::Pointer))];
        let rows = ROWS.iter().flat_map(|row| {
            let (shape, _) = row.one();
            [path(row)].into_iter().chain(row.then.iter().copied()).map(move |path| (path, As(shape)))
        });
        rows.chain(fixed).collect()
    }

    fn first(row: &Row) -> &'static str {
        row.paths[0]
    }

    fn enumerators() -> Vec<&'static str> {
        NUMBERS.iter().map(|number| number.path).collect()
    }

    /// The members by their first paths, but for one that is made otherwise, or not at all.
    fn with(changed: &str, made: Option<Made>) -> Members {
        let mut members = members(first);
        members.retain_mut(|(path, old)| {
            *old = made.filter(|_| *path == changed).unwrap_or(*old);
            made.is_some() || *path != changed
        });
        members
    }

    #[test]
    fn a_kernel_that_has_everything_serves() {
        let layout = resolve_members(&members(first)).ok().unwrap();
        assert_eq!(layout.absent().collect::<Vec<_>>(), [""; 0]);
        assert_eq!(layout.exit_names_last_thread, 0);
        assert_ne!(number(&layout, "PIDTYPE_SID"), number(&layout, "PIDTYPE_PGID"));
    }

    #[test]
    fn the_other_path_is_taken_where_a_member_was_renamed() {
        let layout = resolve_members(&members(|row| row.paths[row.paths.len() - 1])).ok().unwrap();
        assert_ne!(of(&layout, "KERNFS_PARENT"), ABSENT);
        assert_ne!(of(&layout, "TASK_START"), ABSENT);
    }

    #[test]
    fn the_other_path_is_taken_where_a_member_became_something_else() {
        let mut members = with("kernfs_node.__parent", Some(As(Shape::Integer(4))));
        let lacking = "kernfs_node.__parent as a pointer (here it is an integer of 4 bytes)";
        assert_eq!(resolve_members(&members).ok().unwrap().absent().collect::<Vec<_>>(), [lacking]);
        members.push(("kernfs_node.parent", As(Shape::Pointer)));
        assert_eq!(resolve_members(&members).ok().unwrap().absent().count(), 0);
    }

    #[test]
    fn what_is_required_and_missing_is_named() {
        for (gone, lack) in [
            ("task_struct.tgid", "task_struct.tgid"),
            ("task_struct.start_boottime", "task_struct.start_boottime or task_struct.real_start_time"),
            ("cred.sgid", "cred.uid"),
            ("upid.ns", "upid with 16 bytes up to there, upid.ns with 8 bytes up to there"),
        ] {
            assert_eq!(resolve_members(&with(gone, None)).err().as_deref(), Some(lack), "{gone}");
        }
    }

    #[test]
    fn what_is_optional_and_missing_is_absent() {
        let layout = resolve_members(&with("task_struct.loginuid", None)).ok().unwrap();
        assert_eq!(of(&layout, "TASK_LOGIN_UID"), ABSENT);
        assert_eq!(layout.absent().collect::<Vec<_>>(), ["task_struct.loginuid"]);
    }

    /// A member that is something else, and what is said of it: of a required one as an error, of an optional one as of
    /// one that is absent.
    #[test]
    fn a_member_that_is_something_else_is_named_with_what_it_is() {
        let (int, long) = (As(Shape::Integer(4)), As(Shape::Integer(8)));
        for (path, made, lack) in [
            ("task_struct.pid", long, "as an integer of 4 bytes (here it is an integer of 8 bytes)"),
            ("task_struct.pid", As(Shape::Pointer), "as an integer of 4 bytes (here it is a pointer)"),
            ("task_struct.pid", BitField, "as an integer of 4 bytes (here it is a bit field of 3 bits)"),
            ("task_struct.mm", long, "as a pointer (here it is an integer of 8 bytes)"),
            (
                "task_struct.comm",
                As(Shape::Pointer),
                "as at least 16 bytes of integers (here it is a pointer)",
            ),
            (
                "task_struct.comm",
                As(Shape::Integers(8)),
                "as at least 16 bytes of integers (here it is an array of 8 bytes)",
            ),
            (
                "signal_struct.pids",
                As(Shape::Pointers(24)),
                "as at least 32 bytes of pointers (here it is an array of 24 bytes)",
            ),
            ("mount.mnt", As(Shape::Pointer), "as a structure (here it is a pointer)"),
            ("cred.sgid", long, "without a gap before it"),
            ("cred.egid", BitField, "as an integer of 4 bytes (here it is a bit field of 3 bits)"),
            ("inode.i_size", int, "as an integer of 8 bytes (here it is an integer of 4 bytes)"),
            (
                "inode.i_ctime_nsec",
                As(Shape::Integer(2)),
                "as an integer of at least 4 bytes (here it is an integer of 2 bytes)",
            ),
            (
                "task_struct.ptraced",
                long,
                "as at least 16 bytes of pointers (here it is an integer of 8 bytes)",
            ),
        ] {
            let row = ROWS.iter().find(|row| row.paths.contains(&path) || row.then.contains(&path)).unwrap();
            let said = match resolve_members(&with(path, Some(made))) {
                Err(missing) if row.is_required => missing,
                Ok(layout) if !row.is_required => layout.absent().collect::<Vec<_>>().join(", "),
                other => panic!("{path}: {:?}", other.err()),
            };
            assert_eq!(said, format!("{path} {lack}"));
        }
        // A wider number serves where its low bytes are read.
        let layout = resolve_members(&with("inode.i_ctime_nsec", Some(long))).ok().unwrap();
        assert_ne!(of(&layout, "INODE_CTIME_NANOS"), ABSENT);
    }

    #[test]
    fn an_enumerator_that_is_missing_is_named() {
        let members = members(first);
        let resolve = |gone: &str, cgroups_v1| {
            let enumerators: Vec<_> = enumerators().into_iter().filter(|path| *path != gone).collect();
            resolve(&members, &enumerators, cgroups_v1)
        };
        let (group, helper) = ("cgroup_subsys_id.pids_cgrp_id", "bpf_func_id.BPF_FUNC_get_current_task_btf");
        assert_eq!(resolve("pid_type.PIDTYPE_SID", true).err().as_deref(), Some("pid_type.PIDTYPE_SID"));
        for (gone, cgroups_v1, absent) in
            [(helper, true, &[helper][..]), (group, true, &[group]), (group, false, &[]), ("", false, &[])]
        {
            let layout = resolve(gone, cgroups_v1).ok().unwrap();
            assert_eq!(layout.absent().collect::<Vec<_>>(), absent);
            assert_eq!(number(&layout, "TYPED_TASK") == ABSENT, gone == helper);
            assert_eq!(number(&layout, CGROUP_CONTROLLER) == ABSENT, gone == group || !cgroups_v1);
        }
    }

    #[test]
    fn a_member_beyond_what_is_read_at_once_is_missing() {
        assert!(is_inside(104, Shape::Integers(16), 120));
        assert!(!is_inside(108, Shape::Integers(16), 120));
        assert!(is_inside(116, Shape::Integer(4), 120));
        let mut members = members(first);
        let room = members.iter().position(|(path, _)| *path == "sock_common.skc_v6_daddr").unwrap();
        members.insert(room, ("sock_common.skc_tx_queue_mapping", As(Shape::Integers(80))));
        let layout = resolve_members(&members).ok().unwrap();
        let absent: Vec<_> = layout.absent().collect();
        let names = ["skc_v6_daddr", "skc_v6_rcv_saddr"];
        assert_eq!(absent, names.map(|name| format!("sock_common.{name} in the first 120 bytes")));
    }

    /// Which rows of the table kernels do not have, and whether their `sched_process_exit` names the last thread. There
    /// is an excerpt of the BTF of each, made by `cargo xtask test --vm KERNEL --write`.
    const STORED: &[(&str, &[&str], u32)] = &[
        ("5.10-x86_64", &["mptcp_sock.first", "bpf_func_id.BPF_FUNC_get_current_task_btf"], 0),
        ("6.1-aarch64", &[], 0),
        ("6.1-x86_64", &[], 0),
        ("6.12-x86_64", &[], 0),
        ("6.18-x86_64", &[], 1),
    ];

    #[test]
    fn stored_kernels_serve() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sensor/testdata/btf");
        let names = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        let names = names.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned());
        let stored: BTreeSet<_> = STORED.iter().map(|(name, ..)| (*name).to_owned()).collect();
        assert_eq!(names.collect::<BTreeSet<_>>(), stored);
        for (name, absent, exit_names_last_thread) in STORED {
            let bytes = std::fs::read(folder.join(format!("{name}.btf"))).unwrap();
            let layout = Layout::resolve(&Btf::parse(&bytes).unwrap(), true);
            let layout = layout.unwrap_or_else(|missing| panic!("{name} has no {missing}"));
            assert_eq!(layout.absent().collect::<Vec<_>>(), *absent, "{name}");
            assert_eq!(layout.exit_names_last_thread, *exit_names_last_thread, "{name}");
            assert_ne!(number(&layout, CGROUP_CONTROLLER), ABSENT, "{name}");
            assert_eq!([number(&layout, "PIDTYPE_PGID"), number(&layout, "PIDTYPE_SID")], [2, 3], "{name}");
        }
    }

    /// An excerpt gives the same layout as the whole, where this kernel is one of those that are stored.
    #[test]
    fn the_excerpt_of_this_kernel_is_true() {
        let Ok(whole) = std::fs::read("/sys/kernel/btf/vmlinux") else { return };
        let uname = nix::sys::utsname::uname().unwrap();
        let release: Vec<_> = uname.release().to_str().unwrap().split(['.', '-']).take(2).collect();
        let name = format!("{}-{}.btf", release.join("."), std::env::consts::ARCH);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sensor/testdata/btf").join(name);
        let Ok(excerpt) = std::fs::read(path) else { return };
        let [whole, excerpt] = [whole, excerpt].map(|bytes| {
            let layout = Layout::resolve(&Btf::parse(&bytes).unwrap(), true).ok().unwrap();
            (layout.offsets, layout.numbers, layout.exit_names_last_thread)
        });
        assert_eq!(excerpt, whole);
    }

    /// The kernel that runs here, where it describes itself: nothing that is required may be missing from it.
    #[test]
    fn this_kernel_serves() {
        let Ok(bytes) = std::fs::read("/sys/kernel/btf/vmlinux") else { return };
        let layout = Layout::resolve(&Btf::parse(&bytes).unwrap(), false);
        assert_eq!(layout.err(), None);
    }
}
