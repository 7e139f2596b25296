//! `cargo xtask vm`: the agent on other kernels than this machine's.
//!
//! Debian's kernels are booted in an emulator, with nothing in memory but the agent, statically linked, and a busybox.
//! It shows that the shipped object is taken by each kernel's verifier, that every hook attaches and how, and that
//! events come of what is then done. It takes seconds, and nothing of the host is changed.

mod archive;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use self::archive::Archive;
use crate::shell::{self, say, step};
use crate::{build, setup, toolchain};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Which kernels; all of them unless named
    #[arg(long = "kernel", value_parser = KERNELS.map(|kernel| kernel.version))]
    kernels: Vec<String>,
}

/// A kernel of Debian's, and the release of Debian that has it.
struct Kernel {
    version: &'static str,
    suite: &'static str,
    /// What begins the names of its packages.
    package: &'static str,
}

const KERNELS: [Kernel; 3] = [
    Kernel { version: "5.10", suite: "bullseye", package: "linux-image-5.10." },
    Kernel { version: "6.1", suite: "bookworm", package: "linux-image-6.1." },
    Kernel { version: "6.12", suite: "bookworm", package: "linux-image-6.12." },
];

/// What the guest runs. It prints a line for each check, and the last one only where all went well.
const INIT: &[u8] = include_bytes!("init.sh");
/// The configuration of the guest's agent.
const CONFIG: &[u8] =
    b"state_dir = \"/tmp/state\"\n[rules]\npaths = []\n[alerts]\npath = \"/tmp/alerts.ndjson\"\n\
    [control]\nsocket = \"/tmp/control\"\n";
const PASSED: &str = "SMOKE PASSED";
/// How long a guest may take. It takes a quarter of a minute.
const GUEST_SECONDS_MAX: &str = "300";

/// Boots each kernel and prints what its guest said.
///
/// # Errors
/// Where a kernel cannot be had, or a check failed in its guest.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    for (program, package) in
        [("qemu-system-x86_64", "qemu-system-x86"), ("apt-get", "apt"), ("dpkg", "dpkg")]
    {
        if !shell::exists(program) {
            bail!("`{program}` is missing: run `apt-get install --no-install-recommends {package}`");
        }
    }
    let agent = agent()?;
    let chosen = |kernel: &&Kernel| {
        arguments.kernels.is_empty() || arguments.kernels.iter().any(|name| name == kernel.version)
    };
    let mut failed = Vec::new();
    for kernel in KERNELS.iter().filter(chosen) {
        let packages = Packages::of(kernel)?;
        let busybox = packages.unpack("busybox-static")?.join("bin/busybox");
        let image = image(&packages.unpack(&packages.newest()?)?)?;
        let said = boot(&image, &initial(&agent, &busybox)?)?;
        say(&said);
        if !said.contains(PASSED) {
            failed.push(kernel.version);
        }
    }
    if !failed.is_empty() {
        bail!("these kernels failed: {}", failed.join(", "));
    }
    Ok(())
}

/// The agent with the C library inside, for a guest that has none.
fn agent() -> Result<PathBuf> {
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    let object = build::object(&setup::run()?, &build::Arguments::default())?;
    let target = shell::root().join("target/vm");
    let mut cargo = shell::cargo();
    cargo
        .args(["build", "--release", "--package", "lapwing", "--target", TARGET, "--target-dir"])
        .arg(&target);
    cargo.env(build::OBJECT, object).env("RUSTFLAGS", "-C target-feature=+crt-static");
    // Nobody measures it, and it is built beside the shipped one.
    cargo.env("CARGO_PROFILE_RELEASE_LTO", "off").env("CARGO_PROFILE_RELEASE_DEBUG", "0");
    step("building the agent for a guest", &mut cargo)?;
    Ok(target.join(TARGET).join("release/lapwing"))
}

/// Packages of one release of Debian, whichever release this machine runs: lists and downloads of our own.
struct Packages {
    folder: PathBuf,
    options: Vec<String>,
    kernel: &'static str,
}

impl Packages {
    fn of(kernel: &'static Kernel) -> Result<Self> {
        let folder = toolchain::folder().join("vm").join(kernel.suite);
        for part in ["lists/partial", "cache/archives/partial", "download"] {
            fs::create_dir_all(folder.join(part)).with_context(|| folder.display().to_string())?;
        }
        let sources = folder.join("sources.list");
        let key = "/usr/share/keyrings/debian-archive-keyring.gpg";
        let suite = kernel.suite;
        fs::write(
            &sources,
            format!(
                "deb [signed-by={key}] http://deb.debian.org/debian {suite} main\n\
                 deb [signed-by={key}] http://deb.debian.org/debian-security {suite}-security main\n"
            ),
        )?;
        let mut options = Vec::new();
        for (name, value) in [
            ("Dir::Etc::SourceList", sources.display().to_string()),
            ("Dir::Etc::SourceParts", "/dev/null".to_owned()),
            ("Dir::State::lists", folder.join("lists").display().to_string()),
            ("Dir::Cache", folder.join("cache").display().to_string()),
            ("APT::Sandbox::User", "root".to_owned()),
        ] {
            options.extend(["-o".to_owned(), format!("{name}={value}")]);
        }
        let packages = Self { folder, options, kernel: kernel.package };
        if packages.newest().is_err() {
            let mut update = Command::new("apt-get");
            step(
                &format!("reading the packages of {suite}"),
                update.args(&packages.options).args(["-q", "update"]),
            )?;
        }
        Ok(packages)
    }

    /// The newest build of the kernel for clouds.
    fn newest(&self) -> Result<String> {
        let mut list = Command::new("apt-cache");
        let names = shell::output(list.args(&self.options).args(["pkgnames", self.kernel]))?;
        let mut names: Vec<_> = names.lines().filter(|name| name.ends_with("-cloud-amd64")).collect();
        names.sort_by_key(|name| {
            name.split(|c: char| !c.is_ascii_digit())
                .map(|part| part.parse().unwrap_or(0))
                .collect::<Vec<u32>>()
        });
        names.last().map(|name| (*name).to_owned()).with_context(|| format!("no package {}*", self.kernel))
    }

    /// Downloads and unpacks a package, once.
    fn unpack(&self, package: &str) -> Result<PathBuf> {
        let root = self.folder.join(package);
        if root.is_dir() {
            return Ok(root);
        }
        let downloads = self.folder.join("download");
        let mut download = Command::new("apt-get");
        download.args(&self.options).args(["-q", "download", package]).current_dir(&downloads);
        step(&format!("downloading {package}"), &mut download)?;
        let is_it = |path: &PathBuf| {
            path.file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.starts_with(&format!("{package}_")))
        };
        let archive = fs::read_dir(&downloads)?.flatten().map(|entry| entry.path()).find(is_it);
        let archive = archive.with_context(|| format!("{package} was not downloaded"))?;
        let part = root.with_extension("part");
        shell::output(Command::new("dpkg").arg("-x").arg(&archive).arg(&part))?;
        fs::rename(&part, &root)?;
        fs::remove_file(&archive)?;
        Ok(root)
    }
}

fn image(root: &Path) -> Result<PathBuf> {
    let folder = root.join("boot");
    let images = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut images = images.flatten().map(|entry| entry.path());
    let is_image =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"));
    images.find(is_image).with_context(|| format!("no kernel in {}", folder.display()))
}

/// What the guest has: a few folders, busybox under the names of its commands, the agent, and what is run.
fn initial(agent: &Path, busybox: &Path) -> Result<PathBuf> {
    let mut archive = Archive::default();
    for folder in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
        archive.folder(folder);
    }
    archive.file("init", INIT);
    archive.file("bin/lapwing", &fs::read(agent)?);
    archive.file("bin/busybox", &fs::read(busybox)?);
    for command in ["cat", "echo", "grep", "ip", "kill", "mount", "nc", "poweroff", "sh", "sleep", "true"] {
        archive.link(&format!("bin/{command}"), "busybox");
    }
    archive.file("etc/passwd", b"root:x:0:0::/:/bin/sh\n");
    archive.file("etc/lapwing.toml", CONFIG);
    let path = shell::root().join("target/vm/initial.cpio");
    fs::write(&path, archive.end())?;
    Ok(path)
}

/// Runs the guest and returns what it printed.
fn boot(kernel: &Path, initial: &Path) -> Result<String> {
    let mut guest = Command::new("timeout");
    guest.args([
        GUEST_SECONDS_MAX,
        "qemu-system-x86_64",
        "-accel",
        "tcg,thread=multi",
        "-cpu",
        "max",
        "-smp",
        "2",
    ]);
    guest.args([
        "-m",
        "512",
        "-nographic",
        "-no-reboot",
        "-nic",
        "none",
        "-append",
        "console=ttyS0 quiet panic=-1",
    ]);
    guest.arg("-kernel").arg(kernel).arg("-initrd").arg(initial);
    let said = shell::output(&mut guest)?;
    // The emulator's firmware writes to the screen before the guest does.
    let start = said.find("KERNEL ").with_context(|| format!("the guest did not come up:\n{said}"))?;
    Ok(said[start..].replace('\r', "").trim_end().to_owned())
}
