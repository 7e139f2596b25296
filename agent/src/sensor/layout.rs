//! Where the fields of kernel structures lie on this kernel: the wire's table, resolved against BTF.
//!
//! It knows no program and loads nothing: bytes of a BTF go in, numbers come out, so that it is tested on any machine
//! against any kernel's BTF.

use std::fmt::Write;

use aya::EbpfLoader;
use lapwing_common::layout::WINDOWS;
use lapwing_common::{ABSENT, layout};

use super::btf::Btf;

/// A row of the table: one member that the kernel programs read.
struct Row {
    global: &'static str,
    is_required: bool,
    /// Where it lies, and where it lay in other kernels.
    paths: &'static [&'static str],
}

macro_rules! rows {
    ($($need:ident $name:ident: $path:literal $(or $other:literal)*;)*) => {
        const ROWS: &[Row] = &[$(Row {
            global: stringify!($name),
            is_required: is_required!($need),
            paths: &[$path, $($other),*],
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

/// What the programs are told about this kernel.
pub(super) struct Layout {
    offsets: Vec<u32>,
    exit_tells_last: u32,
    has_typed_task: u32,
    cgroup_controller: u32,
}

impl Layout {
    /// Looks everything up. `cgroups_v1` tells whether control groups are to be named by the hierarchy of the `pids`
    /// controller instead of the unified one.
    ///
    /// # Errors
    /// The required members that this kernel does not have, each with its path.
    pub(super) fn resolve(btf: &Btf<'_>, cgroups_v1: bool) -> Result<Self, String> {
        let mut missing = String::new();
        let mut offsets = Vec::with_capacity(ROWS.len());
        for row in ROWS {
            let offset =
                row.paths.iter().find_map(|path| btf.offset(path).filter(|offset| fits(path, *offset)));
            if offset.is_none() && row.is_required {
                let comma = if missing.is_empty() { "" } else { ", " };
                // Writing to a `String` cannot fail.
                let _ = write!(missing, "{comma}{}", row.paths.join(" or "));
            }
            offsets.push(offset.unwrap_or(ABSENT));
        }
        if !missing.is_empty() {
            return Err(missing);
        }
        let controller = if cgroups_v1 { btf.enumerator("cgroup_subsys_id", "pids_cgrp_id") } else { None };
        Ok(Self {
            offsets,
            exit_tells_last: btf
                .tracepoint_parameters("sched_process_exit")
                .is_some_and(|count| count > 1)
                .into(),
            has_typed_task: btf.enumerator("bpf_func_id", "BPF_FUNC_get_current_task_btf").is_some().into(),
            cgroup_controller: controller.unwrap_or(ABSENT),
        })
    }

    /// Sets the globals of the programs that are about to be loaded.
    pub(super) fn set<'a>(&'a self, loader: &mut EbpfLoader<'a>) {
        for (row, offset) in ROWS.iter().zip(&self.offsets) {
            loader.override_global(row.global, offset, true);
        }
        for (name, value) in [
            ("EXIT_TELLS_LAST", &self.exit_tells_last),
            ("HAS_TYPED_TASK", &self.has_typed_task),
            ("CGROUP_CONTROLLER", &self.cgroup_controller),
        ] {
            loader.override_global(name, value, true);
        }
    }

    /// The optional members that this kernel does not have, for the log.
    pub(super) fn absent(&self) -> impl Iterator<Item = &'static str> {
        ROWS.iter().zip(&self.offsets).filter(|(_, offset)| **offset == ABSENT).map(|(row, _)| row.paths[0])
    }
}

/// Whether a member of a structure of which only the beginning is read lies in it, the largest with its 16 bytes.
fn fits(path: &str, offset: u32) -> bool {
    let window = WINDOWS.iter().find(|(structure, _)| path.split('.').next() == Some(structure));
    window.is_none_or(|(_, bytes)| {
        let is_address = path.contains("v6");
        offset as usize + if is_address { 16 } else { 8 } <= *bytes
    })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::Path;

    use super::super::btf::tests::Builder;
    use super::*;

    /// A kernel whose structures have the members of these paths, four bytes apart, in the order of the paths.
    fn kernel(paths: &[&str]) -> Vec<u8> {
        /// Members by their names; what has none below it is a number.
        #[derive(Default)]
        struct Tree(BTreeMap<String, Tree>);
        fn add(builder: &mut Builder, name: &str, tree: &Tree, int: u32) -> u32 {
            let members: Vec<_> = tree
                .0
                .iter()
                .map(|(name, below)| {
                    let ty = if below.0.is_empty() { int } else { add(builder, "", below, int) };
                    (name.as_str(), ty)
                })
                .collect();
            let members: Vec<_> = members
                .into_iter()
                .enumerate()
                .map(|(index, (name, ty))| (name, index as u32 * 4, ty))
                .collect();
            builder.structure(name, &members)
        }
        let mut root = Tree::default();
        for path in paths {
            path.split('.').fold(&mut root, |tree, part| tree.0.entry(part.to_owned()).or_default());
        }
        let mut builder = Builder::new();
        let int = builder.int();
        for (name, tree) in &root.0 {
            add(&mut builder, name, tree, int);
        }
        builder.tracepoint("sched_process_exit", 1);
        builder.end()
    }

    fn resolve(paths: &[&str]) -> Result<Layout, String> {
        let bytes = kernel(paths);
        Layout::resolve(&Btf::parse(&bytes).unwrap(), false)
    }

    fn of(layout: &Layout, global: &str) -> u32 {
        let index = ROWS.iter().position(|row| row.global == global).unwrap();
        layout.offsets[index]
    }

    fn first_paths() -> Vec<&'static str> {
        ROWS.iter().map(|row| row.paths[0]).collect()
    }

    #[test]
    fn a_kernel_that_has_everything_serves() {
        let layout = resolve(&first_paths()).ok().unwrap();
        assert_eq!(layout.absent().count(), 0);
        assert_eq!(layout.exit_tells_last, 0);
    }

    #[test]
    fn the_other_path_is_taken_where_a_member_was_renamed() {
        let paths: Vec<_> = ROWS.iter().map(|row| row.paths[row.paths.len() - 1]).collect();
        let layout = resolve(&paths).ok().unwrap();
        assert_ne!(of(&layout, "KERNFS_PARENT"), ABSENT);
        assert_ne!(of(&layout, "TASK_START"), ABSENT);
    }

    #[test]
    fn what_is_required_and_missing_is_named() {
        let without =
            |gone: &str| -> Vec<_> { first_paths().into_iter().filter(|path| *path != gone).collect() };
        assert_eq!(resolve(&without("task_struct.tgid")).err().as_deref(), Some("task_struct.tgid"));
        let both = "task_struct.start_boottime or task_struct.real_start_time";
        assert_eq!(resolve(&without("task_struct.start_boottime")).err().as_deref(), Some(both));
        let layout = resolve(&without("task_struct.loginuid")).ok().unwrap();
        assert_eq!(of(&layout, "TASK_LOGIN_UID"), ABSENT);
        assert_eq!(layout.absent().collect::<Vec<_>>(), ["task_struct.loginuid"]);
    }

    #[test]
    fn a_member_beyond_what_is_read_at_once_is_missing() {
        assert!(fits("sock_common.skc_v6_daddr", 56));
        assert!(!fits("sock_common.skc_v6_daddr", 112));
        assert!(fits("task_struct.tgid", 5000));
    }

    /// What of the table kernels do not have, and whether their `sched_process_exit` tells of the last thread. Of each there
    /// is an excerpt of its BTF, made by `cargo xtask test --vm KERNEL --write`.
    const STORED: &[(&str, &[&str], u32)] = &[
        ("5.10-x86_64", &["mptcp_sock.first"], 0),
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
        let told: BTreeSet<_> = STORED.iter().map(|(name, ..)| (*name).to_owned()).collect();
        assert_eq!(names.collect::<BTreeSet<_>>(), told);
        for (name, absent, exit_tells_last) in STORED {
            let bytes = std::fs::read(folder.join(format!("{name}.btf"))).unwrap();
            let layout = Layout::resolve(&Btf::parse(&bytes).unwrap(), true);
            let layout = layout.unwrap_or_else(|missing| panic!("{name} has no {missing}"));
            assert_eq!(layout.absent().collect::<Vec<_>>(), *absent, "{name}");
            assert_eq!(layout.exit_tells_last, *exit_tells_last, "{name}");
            assert_ne!(layout.cgroup_controller, ABSENT, "{name}");
        }
    }

    /// An excerpt tells the same as the whole, where this kernel is one of those that are stored.
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
            (layout.offsets, layout.exit_tells_last, layout.cgroup_controller)
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
