//! `cargo xtask setup`: what the build of the kernel programs needs, into `.toolchain/`.
//!
//! It may be run again at any time and then does only what is still missing. Of the system it changes one thing, and
//! only as root: it installs LLVM's development packages, which cannot live in a folder of ours.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::{self, say, step};
use crate::toolchain::{self, Compiler};

/// The tools with which kernel programs are built.
pub(crate) struct Tools {
    pub(crate) compiler: Compiler,
    pub(crate) linker: PathBuf,
    /// LLVM's own tool that copies objects and leaves things out.
    pub(crate) objcopy: PathBuf,
}

/// Sets up what is missing and says so; with nothing to do it is quick and silent.
///
/// # Errors
/// Where something is missing that cannot be set up from here: the error names it and its cure.
pub(crate) fn run() -> Result<Tools> {
    let compiler = match Compiler::find() {
        Some(compiler) => compiler,
        None => compiler()?,
    };
    let llvm_major = compiler.llvm_major()?;
    if !toolchain::LLVM_MAJORS.contains(&llvm_major) {
        bail!(
            "the compiler uses LLVM {llvm_major}, and bpf-linker {} can be built against {:?} only: \
             run `rustup toolchain install {} --profile minimal --component rust-src`",
            toolchain::LINKER_VERSION,
            toolchain::LLVM_MAJORS,
            toolchain::NIGHTLY
        );
    }
    let linker = linker(llvm_major)?;
    let objcopy = PathBuf::from(format!("/usr/lib/llvm-{llvm_major}/bin/llvm-objcopy"));
    Ok(Tools { compiler, linker, objcopy })
}

/// Gets a compiler: Debian's where apt has it, else a nightly where there is rustup.
fn compiler() -> Result<Compiler> {
    if shell::exists("apt-get") && shell::exists("dpkg") {
        if !debian_has_compiler() && shell::is_root() {
            step("updating the list of packages", Command::new("apt-get").args(["-qq", "update"]))?;
        }
        if debian_has_compiler() {
            debian_compiler()?;
            return Compiler::find().context("the compiler that was just unpacked is not complete");
        }
    }
    if shell::exists("rustup") {
        let mut rustup = Command::new("rustup");
        rustup.args(["toolchain", "install", toolchain::NIGHTLY, "--profile", "minimal"]);
        rustup.args(["--component", "rust-src"]);
        step(&format!("adding {} with rust-src to rustup", toolchain::NIGHTLY), &mut rustup)?;
        return Compiler::find().context("the toolchain that rustup just added has no rust-src");
    }
    bail!(
        "no compiler for kernel programs: it comes with Debian's package `rustc-web` (run `apt-get update` first), \
         or with rustup (https://rustup.rs) and `rustup toolchain install {} --component rust-src`",
        toolchain::NIGHTLY
    )
}

fn debian_has_compiler() -> bool {
    let package = format!("libstd-rust-web-{}", toolchain::DEBIAN_RELEASE);
    shell::output(Command::new("apt-cache").args(["show", "--no-all-versions", &package])).is_ok()
}

/// Unpacks Debian's compiler without installing it, so that the machine's own Rust stays as it is.
fn debian_compiler() -> Result<()> {
    let release = toolchain::DEBIAN_RELEASE;
    let packages = [
        "rustc-web".to_owned(),
        format!("libstd-rust-web-{release}"),
        "libstd-rust-web-dev".to_owned(),
        "libstd-rust-web-dev-bpf".to_owned(),
    ];
    let (root, downloads) = (toolchain::debian_root(), toolchain::folder().join("download"));
    // What an interrupted run left behind must not be taken for the whole.
    for folder in [&root, &downloads] {
        if folder.exists() {
            std::fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
    }
    std::fs::create_dir_all(&downloads).with_context(|| downloads.display().to_string())?;
    let mut download = Command::new("apt-get");
    download
        .args(["-q", "-o", "APT::Sandbox::User=root", "download"])
        .args(&packages)
        .current_dir(&downloads);
    step(
        &format!("downloading Debian's rustc-web {release}, the compiler of kernel programs"),
        &mut download,
    )?;
    let unpacked = root.with_extension("part");
    for entry in std::fs::read_dir(&downloads)? {
        let package = entry?.path();
        let mut unpack = Command::new("dpkg");
        unpack.arg("-x").arg(&package).arg(&unpacked);
        step(&format!("unpacking {}", name(&package)), &mut unpack)?;
    }
    std::fs::rename(&unpacked, &root).with_context(|| root.display().to_string())?;
    std::fs::remove_dir_all(&downloads).with_context(|| downloads.display().to_string())
}

/// Builds the linker, once.
fn linker(llvm_major: u32) -> Result<PathBuf> {
    let root = toolchain::linker_root(llvm_major);
    let linker = root.join("bin/bpf-linker");
    let prefix = PathBuf::from(format!("/usr/lib/llvm-{llvm_major}"));
    llvm(llvm_major, &prefix)?;
    if linker.is_file() {
        return Ok(linker);
    }
    let mut install = shell::cargo();
    install.args(["install", "bpf-linker", "--version", toolchain::LINKER_VERSION, "--locked"]);
    install.args(["--no-default-features", "--features", &format!("llvm-{llvm_major}")]);
    install.arg("--root").arg(&root).env("LLVM_PREFIX", &prefix);
    step(&format!("building bpf-linker {}", toolchain::LINKER_VERSION), &mut install)?;
    Ok(linker)
}

/// LLVM's libraries and headers: installed by root, requested in a message otherwise.
fn llvm(major: u32, prefix: &Path) -> Result<()> {
    let needed = [prefix.join("bin/llvm-config"), prefix.join("include/llvm-c/Core.h")];
    if needed.iter().all(|file| file.exists()) {
        return Ok(());
    }
    let packages = [
        format!("llvm-{major}-dev"),
        format!("libpolly-{major}-dev"),
        "zlib1g-dev".into(),
        "libzstd-dev".into(),
    ];
    let cure = format!("apt-get install {}", packages.join(" "));
    if !shell::exists("apt-get") {
        bail!("LLVM {major} with its headers is missing from {}: install it there", prefix.display());
    }
    if !shell::is_root() {
        bail!("LLVM {major} with its headers is missing: run `sudo {cure}`");
    }
    let mut install = Command::new("apt-get");
    install.args(["-q", "install", "-y", "--no-install-recommends"]).args(&packages);
    install.env("DEBIAN_FRONTEND", "noninteractive");
    step(&format!("installing {}", packages.join(", ")), &mut install).with_context(|| {
        format!("LLVM {major} is missing; where `{cure}` finds no package, see https://apt.llvm.org")
    })?;
    say(&format!("LLVM {major} is installed"));
    Ok(())
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
