//! Programs from PyPI: what is tested against, and the tools of attackers that Debian has not.
//!
//! An environment of Python's is made on first use, below Cargo's target folder, and stays. Its packages are pinned
//! with everything that they need, so that the same runs tomorrow; another list is another environment. It knows
//! nothing of what the packages are for.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// The AWS command line, and moto, a server of AWS's interfaces that checks signatures and policies: `aws` and
/// `moto_server`.
pub const AWS: &str = include_str!("aws.txt");
/// Servers that alerts are delivered to, and the library that confirms how they are signed.
pub const UPSTREAM: &str = "noida-db==0.2.3\nosmem-server==0.1.6\nstandardwebhooks==1.1.0\n";

/// An environment with packages in it.
#[derive(Clone, Debug)]
pub struct Environment(PathBuf);

impl Environment {
    /// The environment of these packages, a line each, where it is there already.
    #[must_use]
    pub fn installed(packages: &str) -> Option<Self> {
        let environment = Self(folder_of(packages));
        environment.mark().is_file().then_some(environment)
    }

    /// The environment of these packages, a line each; it is made where it is not there. Processes that want the
    /// same at once wait for the one that makes it.
    ///
    /// # Errors
    /// Python or PyPI is missing; the cure is named.
    pub fn install(packages: &str) -> Result<Self> {
        if let Some(environment) = Self::installed(packages) {
            return Ok(environment);
        }
        let environment = Self(folder_of(packages));
        let folder = &environment.0;
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let lock = File::create(folder.with_extension("lock")).context("the lock of an environment")?;
        lock.lock().context("the lock of an environment")?;
        if environment.mark().is_file() {
            return Ok(environment);
        }
        let list = folder.join("packages.txt");
        // What an end in the middle left behind goes with `--clear`.
        let mut make = Command::new("python3");
        run(make.args(["-m", "venv", "--clear"]).arg(folder), "install the package python3-venv")?;
        fs::write(&list, packages).with_context(|| list.display().to_string())?;
        let mut pip = Command::new(environment.program("python"));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "-r"]);
        run(pip.arg(&list), "PyPI must be reachable")?;
        fs::write(environment.mark(), "").context("the mark of an environment")?;
        Ok(environment)
    }

    /// A program of the environment.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.0.join("bin").join(name)
    }

    /// A file that a package has beside its modules.
    ///
    /// # Errors
    /// The environment is gone.
    pub fn module_file(&self, path: &str) -> Result<PathBuf> {
        let library = self.0.join("lib");
        let mut versions = fs::read_dir(&library).with_context(|| library.display().to_string())?;
        let version = versions.next().with_context(|| format!("{} is empty", library.display()))??;
        Ok(version.path().join("site-packages").join(path))
    }

    /// Written last: without it the environment is only half there.
    fn mark(&self) -> PathBuf {
        self.0.join("complete")
    }
}

/// Where an environment lies: its folder is named after what is in it.
fn folder_of(packages: &str) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    packages.hash(&mut hasher);
    test_servers().join(format!("pypi-{:016x}", hasher.finish()))
}

/// The folder of what is fetched for tests.
pub(crate) fn test_servers() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let project = here.ancestors().nth(2).unwrap_or(here);
    project.join("target/test-servers")
}

/// Runs a program to its end.
pub(crate) fn run(command: &mut Command, cure: &str) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?} cannot be run; {cure}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} ended with {}; {cure}: {}", output.status, said.trim_end());
    }
    Ok(())
}
