//! What attackers and clouds are played by, from PyPI: the AWS command line, and a server that answers it.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::shell::{self, step};

/// The AWS command line and moto, a server for it. Their versions are kept, so that the demo shows the same tomorrow.
const PACKAGES: [&str; 2] = ["awscli==1.45.11", "moto[server]==5.2.5"];

/// An environment of Python's with both.
pub(super) struct Tools(PathBuf);

impl Tools {
    /// Makes the environment where it is not there.
    ///
    /// # Errors
    /// It cannot be made: Python or PyPI is missing.
    pub(super) fn install() -> Result<Self> {
        let folder = shell::root().join("target/demo").join(PACKAGES.join("_").replace("[server]", ""));
        let done = folder.join("complete");
        if !done.is_file() {
            step("making a Python environment", Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
            let mut pip = Command::new(folder.join("bin/pip"));
            pip.args(["install", "--quiet", "--disable-pip-version-check"]).args(PACKAGES);
            step("installing the AWS command line and a server for it", &mut pip)?;
            std::fs::write(done, "")?;
        }
        Ok(Self(folder))
    }

    /// The AWS command line.
    pub(super) fn aws(&self) -> String {
        self.0.join("bin/aws").display().to_string()
    }

    /// The server.
    pub(super) fn moto(&self) -> String {
        self.0.join("bin/moto_server").display().to_string()
    }
}
