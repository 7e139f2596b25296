//! Puts the kernel programs' object where the sensor includes it. `cargo xtask build` builds it and says where it
//! lies; without that an empty one takes its place, so that everything else builds, tests and lints on any machine.

use std::path::PathBuf;
use std::{env, fs};

/// Set by `cargo xtask build`.
const OBJECT: &str = "LAPWING_EBPF_OBJECT";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-env-changed={OBJECT}");
    println!("cargo:rerun-if-changed=build.rs");
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
