//! The compiler and linker of the kernel programs: which there are on this machine and how they are called.
//!
//! Stable Rust has no BPF target. Two compilers have: Debian's `rustc-web`, which ships the target's `core` ready
//! made, and a nightly with `rust-src`, which builds it. Either serves; the linker must be built against the same
//! major version of LLVM as the compiler.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::debian::Packages;
use crate::processor::Processor;
use crate::shell;

/// The version of bpf-linker that is installed and used.
pub(crate) const LINKER_VERSION: &str = "0.13.0";
/// The release of Debian's `rustc-web` that is unpacked.
pub(crate) const DEBIAN_RELEASE: &str = "1.96";
/// The nightly that is added to rustup where Debian's compiler is not to be had.
pub(crate) const NIGHTLY: &str = "nightly-2026-05-20";
/// The major versions of LLVM that bpf-linker can be built against.
pub(crate) const LLVM_MAJORS: std::ops::RangeInclusive<u32> = 21..=23;

/// A compiler that knows the BPF target.
pub(crate) enum Compiler {
    /// Debian's `rustc-web`, unpacked below this folder.
    Debian(PathBuf),
    /// A toolchain of rustup, by name, that has `rust-src`.
    Rustup(String),
}

impl Compiler {
    /// The compiler that is there already: the project's own before one of rustup's.
    pub(crate) fn find() -> Option<Self> {
        let debian = debian_root();
        if debian.join("usr/lib/rustlib/bpfel-unknown-none").is_dir()
            && debian.join("usr/bin/rustc").is_file()
        {
            return Some(Self::Debian(debian));
        }
        [NIGHTLY, "nightly"]
            .into_iter()
            .find(|name| has_source(name))
            .map(|name| Self::Rustup(name.to_owned()))
    }

    /// A cargo that compiles with it.
    pub(crate) fn cargo(&self) -> Command {
        match self {
            Self::Debian(root) => {
                let mut cargo = shell::cargo();
                cargo
                    .env("RUSTC", root.join("usr/bin/rustc"))
                    .env("LD_LIBRARY_PATH", libraries_of(root))
                    // aya-ebpf uses inline assembly for BPF, which is not stable yet.
                    .env("RUSTC_BOOTSTRAP", "1");
                cargo
            }
            Self::Rustup(name) => {
                let mut cargo = Command::new("rustup");
                // This xtask runs under cargo itself, whose choice of compiler must not be inherited.
                cargo.args(["run", name, "cargo"]).env_remove("RUSTC").env_remove("CARGO");
                cargo
            }
        }
    }

    /// Further arguments of cargo beside the target: a nightly builds `core` itself.
    pub(crate) fn flags(&self) -> &'static [&'static str] {
        match self {
            Self::Debian(_) => &[],
            Self::Rustup(_) => &["-Z", "build-std=core"],
        }
    }

    /// The major version of its LLVM, which the linker must share.
    ///
    /// # Errors
    /// Where the compiler does not say.
    pub(crate) fn llvm_major(&self) -> Result<u32> {
        // Debian's compiler runs only once the LLVM that it is linked to is installed, which is checked here.
        let (said, mark) = match self {
            Self::Debian(root) => {
                let mut libraries = Command::new("ldd");
                libraries.arg(root.join("usr/bin/rustc")).env("LD_LIBRARY_PATH", libraries_of(root));
                (shell::output(&mut libraries)?, "libLLVM")
            }
            Self::Rustup(name) => {
                let mut rustc = Command::new("rustup");
                rustc.args(["run", name, "rustc", "-vV"]).env_remove("RUSTC");
                (shell::output(&mut rustc)?, "LLVM version: ")
            }
        };
        major_after(&said, mark).with_context(|| format!("the compiler prints no version of LLVM:\n{said}"))
    }
}

/// The first number after a mark.
fn major_after(text: &str, mark: &str) -> Option<u32> {
    let (_, rest) = text.split_once(mark)?;
    let number = rest.trim_start_matches(|c: char| !c.is_ascii_digit());
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Where the libraries of Debian's compiler lie.
pub(crate) fn libraries_of(root: &Path) -> PathBuf {
    root.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH))
}

/// Adds Rust's library for another processor to Debian's compiler, once: of the very same version, for others do not fit.
///
/// # Errors
/// It cannot be had.
pub(crate) fn add_library(root: &Path, processor: &Processor) -> Result<()> {
    let place = Path::new("usr/lib/rustlib").join(processor.target);
    if root.join(&place).is_dir() {
        return Ok(());
    }
    let packages = Packages::of("bookworm", processor.debian)?;
    let library = packages.unpack("libstd-rust-web-dev")?.join(&place);
    let mut copy = Command::new("cp");
    let part = root.join(&place).with_extension("part");
    shell::output(copy.arg("-rT").arg(&library).arg(&part))?;
    std::fs::rename(&part, root.join(&place)).with_context(|| part.display().to_string())
}

/// Where the linker for this major version of LLVM is installed.
pub(crate) fn linker_root(llvm_major: u32) -> PathBuf {
    folder().join(format!("bpf-linker-{LINKER_VERSION}-llvm-{llvm_major}"))
}

/// Where Debian's compiler is unpacked.
pub(crate) fn debian_root() -> PathBuf {
    folder().join(format!("rustc-web-{DEBIAN_RELEASE}"))
}

/// Where everything of this kind lies; git ignores it.
pub(crate) fn folder() -> PathBuf {
    shell::root().join(".toolchain")
}

fn has_source(toolchain: &str) -> bool {
    let mut rustc = Command::new("rustup");
    rustc.args(["run", toolchain, "rustc", "--print", "sysroot"]).env_remove("RUSTC");
    shell::output(&mut rustc)
        .is_ok_and(|sysroot| Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core").is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_llvm_is_found_in_the_compilers_output() {
        for (text, mark, major) in [
            ("\tlibc.so.6 => /x (0x1)\n\tlibLLVM.so.22.1 => not found\n", "libLLVM", Some(22)),
            ("\tlibLLVM-19.so.1 => /x (0x1)\n", "libLLVM", Some(19)),
            ("release: 1.97.0-nightly\nLLVM version: 22.1.4\n", "LLVM version: ", Some(22)),
            ("\tlibc.so.6 => /x (0x1)\n", "libLLVM", None),
        ] {
            assert_eq!(major_after(text, mark), major, "{text}");
        }
    }
}
