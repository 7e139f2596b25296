//! `cargo xtask build`: the kernel programs first, then the agent with their object inside.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;
use object::{Object as _, ObjectSection as _};

use crate::processor::Processor;
use crate::setup::{self, Tools};
use crate::shell::{self, step};

#[derive(Args, Default)]
pub(crate) struct Arguments {
    /// Optimised, as it is shipped
    #[arg(long)]
    pub(crate) release: bool,
    /// Kernel programs that log what they do, for their own debugging (`RUST_LOG=debug` shows it)
    #[arg(long)]
    pub(crate) kernel_log: bool,
    /// For another processor than this machine's, such as aarch64-unknown-linux-gnu
    #[arg(long, value_parser = Processor::of)]
    pub(crate) target: Option<&'static Processor>,
}

/// The environment variable with the path of the object, for the agent's build script.
pub(crate) const OBJECT: &str = "LAPWING_EBPF_OBJECT";

/// The name of the kernel programs' object.
const OBJECT_FILE: &str = "lapwing-ebpf.o";

/// Builds both and returns where the agent lies.
///
/// # Errors
/// Where a tool is missing, or what does not compile.
pub(crate) fn run(arguments: &Arguments) -> Result<PathBuf> {
    let tools = setup::run()?;
    let object = object(&tools, arguments)?;
    let mut cargo =
        arguments.target.map_or_else(|| Ok(shell::cargo()), |other| other.cargo(&tools.compiler))?;
    cargo.args(["build", "--package", "lapwing", "--bin", "lapwing"]);
    if arguments.release {
        cargo.arg("--release");
    }
    let mut folder = target();
    if let Some(other) = arguments.target {
        cargo.args(["--target", other.target]);
        folder.push(other.target);
    }
    step("building the agent", cargo.env(OBJECT, &object))?;
    Ok(folder.join(if arguments.release { "release" } else { "debug" }).join("lapwing"))
}

/// Builds the agent for what needs no sensor, and returns where it lies: with the kernel programs inside where they have
/// been built, and elsewhere without, so that it takes neither root nor their toolchain.
///
/// # Errors
/// What does not compile.
pub(crate) fn without_sensor() -> Result<PathBuf> {
    let mut cargo = shell::cargo();
    cargo.args(["build", "--package", "lapwing", "--bin", "lapwing"]);
    if std::env::var_os(OBJECT).is_none()
        && let Ok(object) = target().join("ebpf").join(OBJECT_FILE).canonicalize()
    {
        cargo.env(OBJECT, object);
    }
    step("building the agent", &mut cargo)?;
    Ok(target().join("debug/lapwing"))
}

/// Builds the kernel programs, always optimised: the verifier takes nothing else. Returns where their object lies.
///
/// # Errors
/// What does not compile.
pub(crate) fn object(tools: &Tools, arguments: &Arguments) -> Result<PathBuf> {
    const TARGET: &str = "bpfel-unknown-none";
    // Where registers lie differs, and so do the programs that read them.
    let processor = arguments.target.map_or(std::env::consts::ARCH, |other| other.name);
    let is_here = processor == std::env::consts::ARCH;
    let target_folder = target().join(if is_here { "ebpf".to_owned() } else { format!("ebpf-{processor}") });
    let flags = [
        format!("--cfg=bpf_target_arch=\"{processor}\""),
        "-Cdebuginfo=2".to_owned(),
        format!("-Clinker={}", tools.linker.display()),
        "-Clink-arg=--btf".to_owned(),
    ];
    let mut cargo = tools.compiler.cargo();
    cargo.args(["build", "--release", "--bins", "--target", TARGET]).args(tools.compiler.flags());
    cargo.arg("--target-dir").arg(&target_folder).current_dir(shell::root().join("agent-ebpf"));
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    // Set by the cargo that runs this program for the target of the agent; here they would mislead.
    cargo.env_remove("RUSTFLAGS").env_remove("CARGO_BUILD_TARGET").env_remove("RUSTUP_TOOLCHAIN");
    if arguments.kernel_log {
        cargo.args(["--features", "log"]);
    }
    step("building the kernel programs", &mut cargo)?;
    // The debug information was needed to make BTF of it; left in, it would be most of what the agent carries.
    let (object, part) = (target_folder.join(OBJECT_FILE), target_folder.join("part.o"));
    let mut strip = Command::new(&tools.objcopy);
    strip.arg("--strip-debug").arg(target_folder.join(TARGET).join("release/lapwing-ebpf")).arg(&part);
    shell::output(&mut strip)?;
    if !arguments.kernel_log {
        remove_lines(&part, &tools.objcopy).with_context(|| part.display().to_string())?;
    }
    replace(&part, &object).with_context(|| object.display().to_string())?;
    object.canonicalize().with_context(|| object.display().to_string())
}

/// Removes the numbers of source lines from the programs' BTF, and the relocations of that, which nothing reads: half of the
/// object. They serve readers of the verifier's log, and the kernel would keep 0.4 MiB of them for as long as the agent runs.
fn remove_lines(object: &Path, objcopy: &Path) -> Result<()> {
    /// Where the header says how long itself is, where the lines' table begins and how long it is, and where the one after it begins.
    /// match-proto:v5.0:include/uapi/linux/btf.h:struct btf_ext_header
    const HEADER_LEN: usize = 4;
    const LINE_INFO_OFF: usize = 16;
    const LINE_INFO_LEN: usize = 20;
    const CORE_RELO_OFF: usize = 24;
    const SECTION: &str = ".BTF.ext";
    let bytes = fs::read(object)?;
    let section = object::File::parse(&*bytes)?
        .section_by_name(SECTION)
        .context("it has no .BTF.ext")?
        .data()?
        .to_vec();
    let number = |at: usize| -> Result<usize> {
        let bytes = section.get(at..at + 4).context(".BTF.ext is too short")?;
        Ok(u32::from_le_bytes(bytes.try_into()?).try_into()?)
    };
    // The table after it, of relocations of types, is empty for these programs.
    let (header, lines) = (number(HEADER_LEN)?, number(LINE_INFO_OFF)?);
    let mut rest = section.get(..header + lines).context(".BTF.ext is too short")?.to_vec();
    rest[LINE_INFO_LEN..LINE_INFO_LEN + 4].fill(0);
    rest[CORE_RELO_OFF..CORE_RELO_OFF + 4].copy_from_slice(&u32::try_from(lines)?.to_le_bytes());
    let kept = object.with_extension("btf-ext");
    fs::write(&kept, rest)?;
    let mut update = Command::new(objcopy);
    update.args(["--remove-section=.rel.BTF", "--remove-section=.rel.BTF.ext"]);
    update.arg(format!("--update-section={SECTION}={}", kept.display())).arg(object);
    shell::output(&mut update)?;
    Ok(fs::remove_file(kept)?)
}

/// Puts a file in another's place, unless they are the same: what is built of the older one need not be built again.
fn replace(part: &Path, whole: &Path) -> std::io::Result<()> {
    if fs::read(whole).is_ok_and(|old| fs::read(part).is_ok_and(|new| new == old)) {
        return fs::remove_file(part);
    }
    fs::rename(part, whole)
}

pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| shell::root().join("target"), PathBuf::from)
}
