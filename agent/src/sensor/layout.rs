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
    accept_parameters: u32,
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
            accept_parameters: btf.function_parameters("inet_csk_accept").unwrap_or(ABSENT),
            cgroup_controller: controller.unwrap_or(ABSENT),
        })
    }

    /// Sets the globals of the programs that are about to be loaded.
    pub(super) fn set<'a>(&'a self, loader: &mut EbpfLoader<'a>) {
        for (row, offset) in ROWS.iter().zip(&self.offsets) {
            loader.override_global(row.global, offset, true);
        }
        loader
            .override_global("EXIT_TELLS_LAST", &self.exit_tells_last, true)
            .override_global("ACCEPT_PARAMETERS", &self.accept_parameters, true)
            .override_global("CGROUP_CONTROLLER", &self.cgroup_controller, true);
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
