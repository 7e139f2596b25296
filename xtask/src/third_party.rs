//! The licences of other people's crates that are in the binary, as they ask to be passed on with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value as Json;

use crate::shell::{self, output};

/// What files with a licence or a notice begin with, in capitals.
const NAMES: &[&str] = &["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];

/// One crate.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Crate {
    /// Its name and version.
    name: String,
    /// The expression by which it is licensed.
    licence: String,
    folder: PathBuf,
}

/// Every crate in the agent and in its kernel programs with its licence, and then the texts, each once.
///
/// # Errors
/// Where cargo cannot list the crates, or a text cannot be read.
pub(crate) fn list() -> Result<String> {
    let mut crates = BTreeSet::new();
    for manifest in ["agent/Cargo.toml", "agent-ebpf/Cargo.toml"] {
        crates.extend(crates_of(&shell::root().join(manifest))?);
    }
    let mut list =
        String::from("Crates of others in Lapwing, and the licences under which they are used.\n\n");
    let mut texts: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for one in &crates {
        writeln!(list, "{}  {}", one.name, one.licence)?;
        for text in texts_in(&one.folder)? {
            texts.entry(text).or_default().push(&one.name);
        }
    }
    for (text, names) in &texts {
        writeln!(list, "\n{}\n{}\n\n{}", "-".repeat(80), names.join(", "), text.trim_end())?;
    }
    Ok(list)
}

/// The crates from registries that a package is built of.
fn crates_of(manifest: &Path) -> Result<Vec<Crate>> {
    let cargo = |verb: &str| {
        let mut cargo = shell::cargo();
        cargo.args([verb, "--locked", "--manifest-path"]).arg(manifest);
        cargo
    };
    let tree = output(cargo("tree").args(["--edges", "normal", "--prefix", "none", "--format", "{p}"]))?;
    let metadata: Json = serde_json::from_str(&output(cargo("metadata").args(["--format-version", "1"]))?)?;
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    let mut crates = Vec::new();
    for line in tree.lines() {
        let mut words = line.split(' ');
        let (name, version) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let version = version.trim_start_matches('v');
        let is_it = |package: &&Json| package["name"] == name && package["version"] == version;
        let Some(package) = packages.iter().find(is_it) else { continue };
        if package["source"].is_null() {
            continue;
        }
        let text = |key: &str| package[key].as_str().unwrap_or_default().to_owned();
        let folder = Path::new(&text("manifest_path")).parent().unwrap_or(Path::new("")).to_owned();
        crates.push(Crate { name: format!("{name} {version}"), licence: text("license"), folder });
    }
    Ok(crates)
}

fn texts_in(folder: &Path) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        if path.is_file() && NAMES.iter().any(|start| name.starts_with(start)) {
            texts.push(fs::read_to_string(&path).with_context(|| path.display().to_string())?);
        }
    }
    Ok(texts)
}
