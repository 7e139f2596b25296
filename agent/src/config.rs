//! The configuration file. Each section's type lives with what it configures.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Deserializer};

use crate::rules;

/// Where the configuration lies, where no other file is named.
pub(crate) const DEFAULT_PATH: &str = "/etc/lapwing/lapwing.toml";

/// The whole configuration. Every key has a default, and an unknown key is an error.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// The folder for what must survive a restart. Default: `/var/lib/lapwing`.
    pub(crate) state_dir: PathBuf,
    /// What is detected.
    pub(crate) rules: rules::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self { state_dir: "/var/lib/lapwing".into(), rules: rules::Config::default() }
    }
}

impl Config {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// Names the file, and the line and key where something is wrong in it.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("the configuration {} cannot be read", path.display()))?;
        toml::from_str(&text).with_context(|| format!("the configuration {} is wrong", path.display()))
    }
}

/// Reads a time span such as `"30s"` or `"24h"`.
pub(crate) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let span: jiff::SignedDuration = text.parse().map_err(|_| {
        serde::de::Error::custom(format!("{text:?} is no time span such as \"30s\" or \"24h\""))
    })?;
    Duration::try_from(span)
        .map_err(|_| serde::de::Error::custom(format!("the time span {text:?} is negative")))
}
