//! The program that fuzzes: built with what libFuzzer needs to see where an input leads.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::folder;
use crate::shell::{self, output, step};

/// Instruments branches for libFuzzer. Comparisons are not instrumented: words of the languages are in dictionaries, and
/// reporting each comparison of a hash would take three quarters of the time.
const INSTRUMENTATION: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
];

/// Builds it and returns where it lies.
///
/// # Errors
/// Where there is no C++ compiler, or what does not compile.
pub(super) fn build() -> Result<PathBuf> {
    if std::env::var_os("CXX").is_none() && !shell::exists("c++") {
        bail!(
            "libFuzzer is C++, and there is no compiler for it: run `sudo apt-get install g++`, or set CXX"
        );
    }
    lock()?;
    let host = host()?;
    let target_folder = folder().join("build");
    let mut cargo = shell::cargo();
    // With a target, what runs while building is left without instrumentation.
    cargo.args(["build", "--release", "--manifest-path", "agent/engine/fuzz/Cargo.toml", "--target", &host]);
    cargo.arg("--target-dir").arg(&target_folder);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", INSTRUMENTATION.join("\u{1f}")).env_remove("CARGO_TARGET_DIR");
    step("building the fuzzer", &mut cargo)?;
    Ok(target_folder.join(host).join("release/lapwing-fuzz"))
}

/// Gives the fuzzer the versions of crates that are shipped. What it uses beyond them cargo adds to its copy.
fn lock() -> Result<()> {
    let root = shell::root();
    let (ours, copied) = (root.join("Cargo.lock"), folder().join("Cargo.lock"));
    let text = fs::read_to_string(&ours).with_context(|| ours.display().to_string())?;
    let own = root.join("agent/engine/fuzz/Cargo.lock");
    if own.is_file() && fs::read_to_string(&copied).is_ok_and(|copied| copied == text) {
        return Ok(());
    }
    for file in [&own, &copied] {
        fs::create_dir_all(folder()).with_context(|| folder().display().to_string())?;
        fs::write(file, &text).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

/// The target of this machine, as the compiler calls it.
fn host() -> Result<String> {
    let mut rustc = Command::new("rustc");
    let said = output(rustc.arg("-vV").current_dir(shell::root()))?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).with_context(|| format!("rustc prints no host:\n{said}"))
}
