//! `cargo xtask run`: the agent live, in the foreground, with the packaged defaults but for where things lie.

use std::fmt::Write;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::build;
use crate::shell::{self, say};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Optimised, as it is shipped
    #[arg(long)]
    release: bool,
    /// Another configuration than the packaged one
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// The configuration that is installed.
const PACKAGED: &str = "packaging/lapwing.toml";

/// Where the package puts things, and where they lie here.
const PLACES: &[(&str, &str)] = &[
    ("/usr/share/lapwing/rules", "packaging/rules"),
    ("/etc/lapwing", "target/run"),
    ("/var/lib/lapwing", "target/run/state"),
    ("/var/log/lapwing", "target/run/log"),
    ("/run/lapwing", "target/run"),
];

/// Builds the agent and becomes it.
///
/// # Errors
/// What does not build, or that this is not root.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if !shell::is_root() {
        bail!("the agent needs root to watch this host: run `sudo -E cargo xtask run`");
    }
    let binary = build::run(&build::Arguments { release: arguments.release, ..Default::default() })?;
    let config = match &arguments.config {
        Some(config) => config.clone(),
        None => config()?,
    };
    let folder = config.parent().unwrap_or(Path::new("")).display();
    say(&format!("lapwing run --config {}; it leaves what it knows in {folder}", config.display()));
    // It takes this program's place, so that signals reach it.
    Err(Command::new(&binary).arg("run").arg("--config").arg(config).exec())
        .with_context(|| binary.display().to_string())
}

/// Writes the packaged configuration with places in the project's folder, and makes those.
///
/// # Errors
/// Where a file cannot be written.
pub(crate) fn config() -> Result<PathBuf> {
    let root = shell::root();
    let folder = root.join("target/run");
    fs::create_dir_all(folder.join("rules")).with_context(|| folder.display().to_string())?;
    let text = fs::read_to_string(root.join(PACKAGED)).context(PACKAGED)?;
    let path = folder.join("lapwing.toml");
    fs::write(&path, moved(&text, &root)?).with_context(|| path.display().to_string())?;
    Ok(path)
}

/// The configuration with every key set that names one of the places.
fn moved(text: &str, root: &Path) -> Result<String> {
    let mut moved = String::new();
    for line in text.lines() {
        let is_key = line.starts_with('#') && !line.starts_with("# ");
        let mut line = line.to_owned();
        if is_key && PLACES.iter().any(|(place, _)| line.contains(place)) {
            line.remove(0);
            for (place, here) in PLACES {
                line = line.replace(place, &root.join(here).display().to_string());
            }
        }
        writeln!(moved, "{line}")?;
    }
    Ok(moved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_name_places_are_moved() {
        let text = "# In /var/lib/lapwing.\n#state_dir = \"/var/lib/lapwing\"\n[log]\n#level = \"info\"\n\
                    #paths = [\"/usr/share/lapwing/rules\", \"/etc/lapwing/rules\"]\n";
        let moved = moved(text, Path::new("/p")).unwrap();
        let keys: Vec<_> = moved.lines().filter(|line| !line.starts_with('#')).collect();
        let paths = "paths = [\"/p/packaging/rules\", \"/p/target/run/rules\"]";
        assert_eq!(keys, ["state_dir = \"/p/target/run/state\"", "[log]", paths]);
    }

    #[test]
    fn every_place_of_the_packaged_configuration_is_moved() {
        let root = shell::root();
        let text = fs::read_to_string(root.join(PACKAGED)).unwrap();
        let moved = moved(&text, &root).unwrap();
        for line in moved.lines().filter(|line| line.starts_with('#') && !line.starts_with("# ")) {
            let names_a_place = ["/var/", "/run/", "/etc/", "/usr/"].iter().any(|place| line.contains(place));
            assert!(!names_a_place, "{line}");
        }
    }
}
