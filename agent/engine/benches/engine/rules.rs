//! Which rules and streams are measured.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use fastrand::Rng;
use lapwing_engine::{Loaded, Schema};
use lapwing_stream::Workload;

use super::{Arguments, synthetic};

/// A kind of stream and a set of rules.
pub(super) struct Case {
    pub(super) kind: Workload,
    pub(super) set: Set,
}

/// A set of rules.
#[derive(Clone, Copy)]
pub(super) enum Set {
    /// The five detections that Lapwing began with: what small sets are compared by.
    Five,
    /// All that the package installs.
    Packaged,
    /// The named folder's: so many of them, or all.
    Folder(Option<usize>),
    /// Made by the seed.
    Synthetic(usize),
}

/// The files of the five in the packaged folder; the last is the job of the one before.
const FIVE: [&str; 6] = [
    "reverse_shell.toml",
    "imds_request.toml",
    "ssm_send_command.toml",
    "ec2_instance_connect.toml",
    "rare_method_by_country.toml",
    "rare_method_for_a_country.toml",
];

/// The numbers of rules at which the cost is looked at.
const CURVE: [usize; 5] = [5, 50, 100, 355, 2000];

/// All cases.
pub(super) fn cases(with_folder: bool) -> Vec<Case> {
    let kinds = [Workload::Exec, Workload::Connect, Workload::Mixed];
    let mut cases: Vec<_> = kinds.map(|kind| Case { kind, set: Set::Five }).into();
    let mixed = |set| Case { kind: Workload::Mixed, set };
    cases.push(mixed(Set::Packaged));
    if with_folder {
        cases.extend(kinds.map(|kind| Case { kind, set: Set::Folder(None) }));
        cases.extend(CURVE.into_iter().take(3).map(|count| mixed(Set::Folder(Some(count)))));
    }
    cases.extend(CURVE.map(|count| mixed(Set::Synthetic(count))));
    cases
}

impl Case {
    pub(super) fn name(&self) -> String {
        let kind = format!("{:?}", self.kind).to_lowercase();
        match self.set {
            Set::Five => format!("{kind}-five"),
            Set::Packaged => format!("{kind}-packaged"),
            Set::Folder(None) => format!("{kind}-folder"),
            Set::Folder(Some(count)) => format!("{kind}-folder-{count}"),
            Set::Synthetic(count) => format!("{kind}-synthetic-{count}"),
        }
    }
}

impl Set {
    /// Reads or makes the rules.
    pub(super) fn load(self, arguments: &Arguments, schema: &mut Schema) -> Result<Loaded> {
        let mut files = Vec::new();
        match self {
            Self::Five | Self::Packaged => collect(&arguments.packaged, &mut files)?,
            Self::Folder(_) => {
                let folder = arguments.rules.as_ref().context("no folder is named")?;
                collect(&arguments.from.join(folder), &mut files)?;
            }
            Self::Synthetic(count) => files = synthetic::rules(count, arguments.seed),
        }
        if matches!(self, Self::Five) {
            files.retain(|(name, _)| FIVE.iter().any(|file| name.ends_with(&format!("/{file}"))));
        }
        files.sort();
        let read = files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
        let mut loaded = Loaded::read(read, schema);
        if let Self::Folder(Some(count)) = self {
            Rng::with_seed(arguments.seed).shuffle(&mut loaded.rules);
            loaded.rules.truncate(count);
        }
        if loaded.rules.is_empty() {
            bail!("there are no rules to measure");
        }
        Ok(loaded)
    }
}

/// The rule files of a folder and of those in it.
fn collect(folder: &Path, files: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.display().to_string();
        if path.is_dir() {
            collect(&path, files)?;
        } else if name.ends_with(".toml") && !name.ends_with(".test.toml") {
            files.push((name, fs::read(&path)?));
        }
    }
    Ok(())
}
