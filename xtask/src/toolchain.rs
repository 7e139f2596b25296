//! The compiler and linker of the kernel programs: which there are on this machine and how they are called.
//!
//! Stable Rust has no BPF target. Two compilers have: Debian's `rustc-web`, which ships the target's `core` ready
//! made, and a nightly with `rust-src`, which builds it. Either serves; the linker must be built against the same
//! major version of LLVM as the compiler.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

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
                    .env(
                        "LD_LIBRARY_PATH",
                        root.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH)),
                    )
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

    /// What cargo must be told beside the target: a nightly builds `core` itself.
    pub(crate) fn flags(&self) -> &'static [&'static str] {
        match self {
            Self::Debian(_) => &[],
            Self::Rustup(_) => &["-Z", "build-std=core"],
        }
    }

    /// The major version of the LLVM inside it, which the linker must share.
    ///
    /// # Errors
    /// Where the compiler does not run or does not say.
    pub(crate) fn llvm_major(&self) -> Result<u32> {
        let mut rustc = match self {
            Self::Debian(root) => {
                let mut rustc = Command::new(root.join("usr/bin/rustc"));
                rustc.env(
                    "LD_LIBRARY_PATH",
                    root.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH)),
                );
                rustc
            }
            Self::Rustup(name) => {
                let mut rustc = Command::new("rustup");
                rustc.args(["run", name, "rustc"]).env_remove("RUSTC");
                rustc
            }
        };
        let version = shell::output(rustc.arg("-vV"))?;
        let line = version.lines().find_map(|line| line.strip_prefix("LLVM version: "));
        line.and_then(|version| version.split('.').next()?.parse().ok())
            .with_context(|| format!("no LLVM version in what the compiler says of itself:\n{version}"))
    }
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
