//! `cargo xtask test --vm KERNELS`: the live tests on other kernels than this machine's.
//!
//! Debian's kernels are booted in an emulator, with a small Debian in memory: the tools that tests call, the tests and
//! the agent that they are of, which both have the C library inside. Nothing of this machine is changed.

mod archive;
mod excerpt;
mod machine;
mod rounds;
mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::Value as Json;

use self::archive::Archive;
use self::machine::{Emulator, Guest, Machine};
use self::rounds::{Choice, Outcome};
use self::table::Rest;
use super::Arguments;
use super::report::Report;
use crate::debian::Packages;
use crate::processor::{AARCH64, Processor, X86_64};
use crate::shell::{self, say};
use crate::{build, needs, setup};

/// A kernel that tests can be run on.
struct Kernel {
    /// As configured.
    name: &'static str,
    /// The release of Debian that has it.
    suite: &'static str,
    /// How the name of its package begins, and how it ends.
    package: (&'static str, &'static str),
    processor: &'static Processor,
    emulator: &'static Emulator,
}

const PC: Emulator = Emulator {
    program: "qemu-system-x86_64",
    package: "qemu-system-x86",
    arguments: &["-cpu", "max"],
    console: "ttyS0",
};
/// With the cores of Amazon's Graviton 2.
const ARM: Emulator = Emulator {
    program: "qemu-system-aarch64",
    package: "qemu-system-arm",
    arguments: &["-machine", "virt", "-cpu", "neoverse-n1"],
    console: "ttyAMA0",
};

/// Debian's kernels for clouds.
const KERNELS: &[Kernel] = &[
    Kernel {
        name: "5.10",
        suite: "bullseye",
        package: ("linux-image-5.10.", "-cloud-amd64"),
        processor: &X86_64,
        emulator: &PC,
    },
    Kernel {
        name: "6.1",
        suite: "bookworm",
        package: ("linux-image-6.1.", "-cloud-amd64"),
        processor: &X86_64,
        emulator: &PC,
    },
    Kernel {
        name: "6.12",
        suite: "bookworm",
        package: ("linux-image-6.12.", "-cloud-amd64"),
        processor: &X86_64,
        emulator: &PC,
    },
    Kernel {
        name: "6.1-arm64",
        suite: "bookworm",
        package: ("linux-image-6.1.", "-cloud-arm64"),
        processor: &AARCH64,
        emulator: &ARM,
    },
];

/// The names of all kernels.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    KERNELS.iter().map(|kernel| kernel.name)
}

/// Where this machine's own kernel describes its types.
const BTF: &str = "/sys/kernel/btf/vmlinux";
/// The name of this machine's own kernel.
const HOST: &str = "host";
/// The release of Debian that every guest has, whatever its kernel is.
const SUITE: &str = "bookworm";
/// What it has of it: what tests call, and what the guest itself needs.
const TOOLS: &[&str] = &["coreutils", "dash", "iproute2", "libgcc-s1", "mount", "util-linux"];
/// What nothing in a guest reads.
const NEEDLESS: &[&str] = &["usr/share", "var/lib", "var/cache", "usr/lib/udev", "etc/init.d"];
/// What the guest runs first.
const INIT: &[u8] = include_bytes!("init.sh");
/// Files of the guest that come with no package but with the installing of one.
const FILES: &[(&str, &str)] = &[
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
    ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
    ("etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
];

/// The tests, and the agent that they start, which they know by its path.
struct Programs {
    live: PathBuf,
    agent: PathBuf,
}

/// Runs the live tests on each of the kernels named.
///
/// # Errors
/// Where a kernel cannot be had, or its guest does not come up.
pub(super) fn run(arguments: &Arguments, report: &mut Report) -> Result<()> {
    let kernels = arguments.vm.iter().map(|name| Ok((name, kernel(name)?)));
    let kernels = kernels.collect::<Result<Vec<_>>>()?;
    for emulator in kernels.iter().filter_map(|(_, kernel)| Some((*kernel)?.emulator)) {
        needs::install_program(emulator.program, emulator.package, "kernels in an emulator")?;
    }
    let processor = |kernel: Option<&Kernel>| kernel.map_or_else(Processor::here, |kernel| kernel.processor);
    let mut built: Vec<(&Processor, Programs)> = Vec::new();
    for processor in kernels.iter().map(|(_, kernel)| processor(*kernel)) {
        if !built.iter().any(|(of, _)| *of == processor) {
            built.push((processor, programs(processor)?));
        }
    }
    for (name, kernel) in kernels {
        let start = Instant::now();
        let programs = built.iter().find(|(of, _)| *of == processor(kernel)).map(|(_, programs)| programs);
        let programs = programs.context("the programs that were just built")?;
        let image = kernel.map(Kernel::image).transpose()?;
        let mut machine = match kernel.zip(image.as_ref()) {
            Some((kernel, image)) => Machine::Guest(guest(kernel, image, programs)?),
            None => Machine::Host,
        };
        let choice = Choice { tests: arguments.filter.as_deref(), rounds: &arguments.rounds };
        let kernel = machine.kernel()?;
        if arguments.write {
            let btf = image.map_or_else(|| fs::read(BTF).context(BTF), |image| excerpt::of_image(&image))?;
            excerpt::write(&kernel, &btf)?;
        }
        let write = |outcomes: &[Outcome]| {
            let rest = if arguments.rounds.is_empty() { Rest::Open } else { Rest::AsItWas };
            if arguments.write { table::write(name, &kernel, outcomes, rest) } else { Ok(()) }
        };
        rounds::run(&mut machine, programs, choice, report, write)?;
        say(&format!("{name} took {:.0} s", start.elapsed().as_secs_f64()));
    }
    Ok(())
}

impl Kernel {
    /// Its image, downloaded on first use.
    fn image(&self) -> Result<PathBuf> {
        let (start, end) = self.package;
        let packages = Packages::of(self.suite, self.processor.debian)?;
        machine::image(&packages.unpack(&packages.newest(start, end)?)?)
    }
}

/// The kernel of this name; none where it is this machine's own.
fn kernel(name: &str) -> Result<Option<&'static Kernel>> {
    if name == HOST {
        return Ok(None);
    }
    let names = || KERNELS.iter().map(|kernel| kernel.name).collect::<Vec<_>>().join(", ");
    let found = KERNELS.iter().find(|kernel| kernel.name == name);
    found.map(Some).with_context(|| format!("`{name}` is no kernel that can be had: {}, {HOST}", names()))
}

/// Builds the tests and the agent with the C library inside, so that they run wherever a kernel does.
fn programs(processor: &'static Processor) -> Result<Programs> {
    let tools = setup::run()?;
    let target = (!processor.is_here()).then_some(processor);
    let object = build::object(&tools, &build::Arguments { target, ..build::Arguments::default() })?;
    let mut cargo = processor.cargo(&tools.compiler)?;
    cargo.args(["test", "--no-run", "--locked", "--package", "lapwing", "--test", "live"]);
    cargo.args(["--target", processor.target, "--message-format", "json-render-diagnostics", "--target-dir"]);
    let folder = if processor.is_here() { "vm".to_owned() } else { format!("vm-{}", processor.name) };
    cargo.arg(shell::root().join("target").join(folder));
    cargo.env(build::OBJECT, object).env("RUSTFLAGS", "-C target-feature=+crt-static");
    // An emulated processor is slow, and a guest's memory small.
    cargo.env("CARGO_PROFILE_DEV_OPT_LEVEL", "1").env("CARGO_PROFILE_DEV_DEBUG", "0");
    say(&format!("building the live tests for {}", processor.target));
    let messages = shell::output(&mut cargo)?;
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Json>(line).ok());
    let executables: Vec<_> = messages
        .filter_map(|message| {
            let name = message["target"]["name"].as_str()?.to_owned();
            Some((name, PathBuf::from(message["executable"].as_str()?)))
        })
        .collect();
    let of = |name: &str| {
        let found = executables.iter().find(|(target, _)| target == name);
        found.map(|(_, path)| path.clone()).with_context(|| format!("cargo has built no `{name}`"))
    };
    Ok(Programs { live: of("live")?, agent: of("lapwing")? })
}

fn guest(kernel: &Kernel, image: &Path, programs: &Programs) -> Result<Guest> {
    let tools = Packages::of(SUITE, kernel.processor.debian)?.unpack_all("tools", TOOLS)?;
    let mut archive = Archive::default();
    for folder in ["dev", "mnt", "proc", "root", "run", "sys", "tmp"] {
        archive.folder(folder);
    }
    archive.tree(&tools, "", NEEDLESS)?;
    archive.file("init", INIT);
    for (name, content) in FILES {
        archive.file(name, content.as_bytes());
    }
    for program in [&programs.live, &programs.agent] {
        let path = program.to_str().context("a path that is not UTF-8")?;
        archive.file(path, &fs::read(program).with_context(|| path.to_owned())?);
    }
    let initial = shell::root().join("target/vm/initial.cpio");
    fs::write(&initial, archive.end()).with_context(|| initial.display().to_string())?;
    say(&format!("booting Linux {}", kernel.name));
    Guest::boot(kernel.emulator, image, &initial)
}
