//! Debian's packages, of any release and for any processor: lists, downloads and unpacked files of our own, so that
//! nothing of the machine is changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::{self, step};
use crate::toolchain;

/// By which apt knows that packages are Debian's own.
const KEY: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The packages of one release of Debian for one kind of processor.
pub(crate) struct Packages {
    folder: PathBuf,
    options: Vec<String>,
}

impl Packages {
    /// Reads the lists of packages, once.
    ///
    /// # Errors
    /// A tool is missing, or the lists cannot be had.
    pub(crate) fn of(suite: &str, architecture: &str) -> Result<Self> {
        for (program, package) in [("apt-get", "apt"), ("dpkg", "dpkg")] {
            if !shell::exists(program) {
                bail!("`{program}` is missing, with which Debian's packages are had: install `{package}`");
            }
        }
        if !Path::new(KEY).is_file() {
            bail!("{KEY} is missing: install `debian-archive-keyring`");
        }
        let folder = toolchain::folder().join("debian").join(format!("{suite}-{architecture}"));
        for part in ["lists/partial", "cache/archives/partial", "download"] {
            fs::create_dir_all(folder.join(part)).with_context(|| folder.display().to_string())?;
        }
        let (sources, status) = (folder.join("sources.list"), folder.join("status"));
        let source = |place: &str| format!("deb [signed-by={KEY}] http://deb.debian.org/{place} main\n");
        let lines =
            [source(&format!("debian {suite}")), source(&format!("debian-security {suite}-security"))];
        fs::write(&sources, lines.concat()).with_context(|| sources.display().to_string())?;
        // No package is installed, so that whatever one needs comes with it.
        fs::write(&status, "").with_context(|| status.display().to_string())?;
        let options = [
            ("APT::Architecture", architecture.to_owned()),
            ("APT::Architectures", architecture.to_owned()),
            ("APT::Sandbox::User", "root".to_owned()),
            ("Dir::Cache", folder.join("cache").display().to_string()),
            ("Dir::Etc::SourceList", sources.display().to_string()),
            ("Dir::Etc::SourceParts", "/dev/null".to_owned()),
            ("Dir::State::lists", folder.join("lists").display().to_string()),
            ("Dir::State::status", status.display().to_string()),
        ];
        let options = options.iter().flat_map(|(name, value)| ["-o".to_owned(), format!("{name}={value}")]);
        let packages = Self { options: options.collect(), folder };
        if packages.names("base-files")?.is_empty() {
            let mut update = packages.apt("apt-get");
            step(
                &format!("reading the packages of {suite} for {architecture}"),
                update.args(["-q", "update"]),
            )?;
        }
        Ok(packages)
    }

    /// The newest of the packages whose names have this beginning and end, by the numbers in them.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn newest(&self, start: &str, end: &str) -> Result<String> {
        let mut names = self.names(start)?;
        names.retain(|name| name.ends_with(end));
        names.sort_by_key(|name| numbers(name));
        names.pop().with_context(|| format!("no package {start}*{end}"))
    }

    /// Downloads and unpacks a package alone, once. Returns the folder that it is in.
    ///
    /// # Errors
    /// It cannot be had or unpacked.
    pub(crate) fn unpack(&self, package: &str) -> Result<PathBuf> {
        self.once(package, |archives| {
            let mut download = self.apt("apt-get");
            download.args(["-q", "download", package]).current_dir(archives);
            step(&format!("downloading {package}"), &mut download)
        })
    }

    /// Downloads packages with all that they need and unpacks them into one folder, which is named `name`, once.
    ///
    /// # Errors
    /// They cannot be had or unpacked.
    pub(crate) fn unpack_all(&self, name: &str, packages: &[&str]) -> Result<PathBuf> {
        self.once(name, |archives| {
            let mut download = self.apt("apt-get");
            let place = format!("Dir::Cache::archives={}", archives.display());
            fs::create_dir_all(archives.join("partial"))?;
            download.args([
                "-q",
                "-y",
                "--no-install-recommends",
                "--download-only",
                "-o",
                &place,
                "install",
            ]);
            step(&format!("downloading {}", packages.join(", ")), download.args(packages))
        })
    }

    fn once(&self, name: &str, download: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let root = self.folder.join(name);
        if root.is_dir() {
            return Ok(root);
        }
        let (archives, part) = (self.folder.join("download").join(name), root.with_extension("part"));
        // What an interrupted run left behind must not be taken for the whole.
        for folder in [&archives, &part] {
            if folder.exists() {
                fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
            }
            fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        download(&archives)?;
        for archive in fs::read_dir(&archives)?.flatten().map(|entry| entry.path()) {
            if archive.extension().is_some_and(|end| end == "deb") {
                shell::output(Command::new("dpkg").arg("-x").arg(&archive).arg(&part))?;
            }
        }
        fs::rename(&part, &root).with_context(|| root.display().to_string())?;
        fs::remove_dir_all(&archives).with_context(|| archives.display().to_string())?;
        Ok(root)
    }

    fn names(&self, start: &str) -> Result<Vec<String>> {
        let names = shell::output(self.apt("apt-cache").args(["pkgnames", start]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    fn apt(&self, program: &str) -> Command {
        let mut apt = Command::new(program);
        apt.args(&self.options).env("DEBIAN_FRONTEND", "noninteractive");
        apt
    }
}

/// The numbers in a name, by which versions are compared.
fn numbers(name: &str) -> Vec<u32> {
    name.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0)).collect()
}
