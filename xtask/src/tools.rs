//! Programs of other people that checks and packages are made with: pinned, and built on first use into the
//! project's own folder.

use std::path::PathBuf;

use anyhow::Result;

use crate::shell::{self, step};
use crate::toolchain;

/// A program from crates.io.
pub(crate) struct Tool {
    name: &'static str,
    version: &'static str,
}

/// Checks licences, sources and advisories of the crates that are used.
pub(crate) const DENY: Tool = Tool { name: "cargo-deny", version: "0.20.2" };
/// Makes the Debian package.
pub(crate) const DEB: Tool = Tool { name: "cargo-deb", version: "3.8.0" };

/// The profile that they are built with, whatever their authors release them with.
const QUICK: [(&str, &str); 3] = [("OPT_LEVEL", "1"), ("LTO", "off"), ("CODEGEN_UNITS", "16")];

impl Tool {
    /// Where it lies, after building it where it is not there yet.
    ///
    /// # Errors
    /// What kept it from being built.
    pub(crate) fn install(&self) -> Result<PathBuf> {
        let root = toolchain::folder().join(format!("{}-{}", self.name, self.version));
        let program = root.join("bin").join(self.name);
        if !program.is_file() {
            let mut install = shell::cargo();
            install.args(["install", self.name, "--version", self.version, "--locked", "--root"]).arg(&root);
            // They run for seconds: what they are built for is to be there soon.
            install.envs(QUICK.map(|(key, value)| (format!("CARGO_PROFILE_RELEASE_{key}"), value)));
            step(&format!("building {} {}, once; it takes minutes", self.name, self.version), &mut install)?;
        }
        Ok(program)
    }
}
