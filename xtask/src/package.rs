//! `cargo xtask package`: the Debian package, with the optimised agent and the kernel programs inside.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

use crate::shell::{self, output, say};
use crate::{build, third_party, tools};

#[derive(Args)]
pub(crate) struct Arguments {
    /// The revision of the package, where one version is packaged again
    #[arg(long, value_name = "N", default_value = FIRST)]
    revision: String,
}

const FIRST: &str = "1";

impl Default for Arguments {
    fn default() -> Self {
        Self { revision: FIRST.to_owned() }
    }
}

/// Makes it and returns where it lies.
///
/// # Errors
/// What does not build.
pub(crate) fn run(arguments: &Arguments) -> Result<PathBuf> {
    let binary = build::run(&build::Arguments { release: true, ..build::Arguments::default() })?;
    let deb = tools::DEB.install()?;
    // Below the folder that cargo uses, wherever that is, though cargo-deb looks for the rest beside the manifest.
    let target = shell::root().join("target/package");
    fs::create_dir_all(&target).with_context(|| target.display().to_string())?;
    let licences = target.join("third-party.txt");
    fs::write(&licences, third_party::list()?).with_context(|| licences.display().to_string())?;
    let mut cargo_deb = Command::new(deb);
    cargo_deb.args(["--package", "lapwing", "--no-build", "--locked", "--strip", "--quiet"]);
    cargo_deb.args(["--deb-revision", &arguments.revision, "--output"]).arg(&target);
    say(&format!("packaging {}", binary.display()));
    let said = output(cargo_deb.current_dir(shell::root()))?;
    let package = said.lines().last().map(PathBuf::from).context("cargo-deb names no package")?;
    Ok(package)
}
