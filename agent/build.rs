//! Puts the kernel programs' object where the sensor includes it. `cargo xtask build` builds it and sets its path; without
//! that an empty object takes its place, so that everything else builds, tests and lints on any machine.
//!
//! Sets `cfg(root)` where root builds: the test harness shows tests that need root as ignored elsewhere.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::{env, fs};

/// Set by `cargo xtask build`.
const OBJECT: &str = "LAPWING_EBPF_OBJECT";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-env-changed={OBJECT}");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-check-cfg=cfg(root)");
    // `sudo` and `su` change these, so that a target folder may be used by several users.
    println!("cargo:rerun-if-env-changed=USER");
    println!("cargo:rerun-if-env-changed=HOME");
    if fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0) {
        println!("cargo:rustc-cfg=root");
    }
    let target = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?).join("lapwing-ebpf");
    match env::var_os(OBJECT) {
        Some(object) => {
            println!("cargo:rerun-if-changed={}", object.display());
            fs::copy(&object, &target).map_err(|error| format!("{}: {error}", object.display()))?;
        }
        None => fs::write(&target, [])?,
    }
    Ok(())
}
