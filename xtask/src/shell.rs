//! Running other programs: what they say is shown on a terminal as it comes, and elsewhere only where they fail.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The project's folder.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// cargo, in the project's folder and as if a person called it. What cargo sets in this program's environment about its own crate would make
/// build scripts that look at it run again, each time that the caller changes.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(root());
    for (name, _) in std::env::vars_os() {
        let of_this_crate = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_", "CARGO_BIN_"];
        if name.to_str().is_some_and(|name| of_this_crate.iter().any(|prefix| name.starts_with(prefix))) {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// Prints progress for people to standard error. Standard output is for results.
pub(crate) fn say(text: &str) {
    // A closed standard error is no reason to stop building.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Runs a step that may take a while. On a terminal its own progress is seen; in a pipe it is quiet unless it fails.
///
/// # Errors
/// Where the program cannot be started or does not succeed; what it printed is then part of the error.
pub(crate) fn step(what: &str, command: &mut Command) -> Result<()> {
    say(what);
    if std::io::stderr().is_terminal() {
        let status = command.status().with_context(|| format!("{what}: {}", name(command)))?;
        if !status.success() {
            bail!("{what}: {} ended with {status}", name(command));
        }
        return Ok(());
    }
    output(command).with_context(|| what.to_owned()).map(drop)
}

/// What a program prints.
///
/// # Errors
/// Where the program cannot be started or does not succeed; what it printed is then part of the error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| name(command))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!(
            "{} ended with {}\n{}",
            name(command),
            output.status,
            String::from_utf8_lossy(&said).trim_end()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a program can be started at all.
pub(crate) fn exists(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Whether this runs as root, who alone may install packages.
pub(crate) fn is_root() -> bool {
    output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}
