//! The kinds of processors that the agent is built for, and what it takes to build for another than this machine's.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::toolchain::{self, Compiler};
use crate::{needs, shell};

/// A kind of processor.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Processor {
    /// The kernel's and Rust's name of it.
    pub(crate) name: &'static str,
    /// Debian's.
    pub(crate) debian: &'static str,
    /// Rust's name of a Linux on it.
    pub(crate) target: &'static str,
    /// The compiler and the linker for it on other machines, with a header of its C library, and Debian's packages of both.
    compiler: [(&'static str, &'static str); 2],
}

pub(crate) const X86_64: Processor = Processor {
    name: "x86_64",
    debian: "amd64",
    target: "x86_64-unknown-linux-gnu",
    compiler: [
        ("x86_64-linux-gnu-gcc", "gcc-x86-64-linux-gnu"),
        ("/usr/x86_64-linux-gnu/include/stdio.h", "libc6-dev-amd64-cross"),
    ],
};
pub(crate) const AARCH64: Processor = Processor {
    name: "aarch64",
    debian: "arm64",
    target: "aarch64-unknown-linux-gnu",
    compiler: [
        ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
        ("/usr/aarch64-linux-gnu/include/stdio.h", "libc6-dev-arm64-cross"),
    ],
};

impl Processor {
    /// The one of this name of Rust's for a Linux on it.
    pub(crate) fn of(target: &str) -> Result<&'static Self, String> {
        let all = [&X86_64, &AARCH64];
        let found = all.iter().find(|processor| processor.target == target).copied();
        found.ok_or_else(|| format!("Lapwing is built for {}", all.map(|one| one.target).join(" and ")))
    }

    /// This machine's.
    pub(crate) fn here() -> &'static Self {
        if AARCH64.is_here() { &AARCH64 } else { &X86_64 }
    }

    /// Whether this machine has it.
    pub(crate) fn is_here(&self) -> bool {
        self.name == std::env::consts::ARCH
    }

    /// A cargo that builds for it; the caller adds the target.
    ///
    /// # Errors
    /// What is missing for that, and its cure.
    pub(crate) fn cargo(&self, compiler: &Compiler) -> Result<Command> {
        if self.is_here() {
            return Ok(shell::cargo());
        }
        let [(gcc, gcc_package), (_, libc_package)] = self.compiler;
        needs::install_compiler(self.compiler)?;
        if !shell::exists(gcc) {
            bail!("`{gcc}` is missing: run `apt-get install {gcc_package} {libc_package}`");
        }
        let mut cargo = match compiler {
            // The machine's own compiler, where it has the target.
            _ if self.has_library() => shell::cargo(),
            Compiler::Debian(root) => {
                toolchain::add_library(root, self)?;
                let mut cargo = shell::cargo();
                cargo.env("RUSTC", root.join("usr/bin/rustc"));
                cargo.env("LD_LIBRARY_PATH", toolchain::libraries_of(root));
                cargo
            }
            Compiler::Rustup(_) => bail!(
                "Rust's library for {target} is missing: run `rustup target add {target}`",
                target = self.target
            ),
        };
        let variable = self.target.to_uppercase().replace('-', "_");
        cargo.env(format!("CARGO_TARGET_{variable}_LINKER"), gcc);
        Ok(cargo)
    }

    fn has_library(&self) -> bool {
        let mut rustc = Command::new("rustc");
        let folder = shell::output(rustc.args(["--print", "target-libdir", "--target", self.target]));
        folder.is_ok_and(|folder| Path::new(folder.trim()).is_dir())
    }
}
