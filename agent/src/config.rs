//! The configuration file. Each section's type is defined in the module that it configures.

mod deprecated;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use serde::Deserialize;
use toml::de::{DeTable, Deserializer};

use crate::bounded::{self, SETTING_BYTES_MAX};
use crate::source::cloudtrail;
use crate::{alert_log, control, indicators, log, rules, sensor, sink, store};

/// The configuration file, unless another is named.
pub(crate) const DEFAULT_PATH: &str = "/etc/lapwing/lapwing.toml";

/// Parts of lines from which on the file may contain secrets.
const SECRET_MARKERS: [&str; 9] =
    ["sink", "key", "password", "token", "secret", "headers", "environment", "username", "url"];

/// The configuration. Every key has a default, and an unknown key is an error.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// The state directory, with the store and the dead letters. Default: `/var/lib/lapwing`.
    pub(crate) state_dir: PathBuf,
    /// The agent's own log.
    pub(crate) log: log::Config,
    /// Rules and exceptions.
    pub(crate) rules: rules::Config,
    /// Indicators of threats.
    pub(crate) indicators: indicators::Config,
    /// The events of this host.
    pub(crate) sensor: sensor::Config,
    /// AWS CloudTrail, the log of API calls.
    pub(crate) cloudtrail: cloudtrail::config::Config,
    /// The alert log.
    pub(crate) alerts: alert_log::Config,
    /// The spool of alerts that wait for delivery.
    pub(crate) spool: store::Config,
    /// Upstreams for alerts: any number of `[[sink]]` sections.
    pub(crate) sink: Vec<sink::Config>,
    /// The control socket.
    pub(crate) control: control::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: "/var/lib/lapwing".into(),
            log: log::Config::default(),
            rules: rules::Config::default(),
            indicators: indicators::Config::default(),
            sensor: sensor::Config::default(),
            cloudtrail: cloudtrail::config::Config::default(),
            alerts: alert_log::Config::default(),
            spool: store::Config::default(),
            sink: Vec::new(),
            control: control::Config::default(),
        }
    }
}

impl Config {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// The file cannot be read or is invalid. The error names the file, the line and the key.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        Self::read_with_warnings(path).map(|(config, _)| config)
    }

    /// As [`read`](Self::read), with a warning for each deprecated key.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(crate) fn read_with_warnings(path: &Path) -> Result<(Self, Vec<String>)> {
        let text = bounded::read_text(path, SETTING_BYTES_MAX).map_err(|error| {
            let hint = match error.kind() {
                ErrorKind::NotFound => "; `--config` names another",
                ErrorKind::PermissionDenied => "; run as root, or as the agent's user",
                _ => "",
            };
            anyhow!("cannot read the configuration {}: {error}{hint}", path.display())
        })?;
        let file = path.display().to_string();
        Self::parse(&file, &text).with_context(|| format!("invalid configuration {file}"))
    }

    fn parse(file: &str, text: &str) -> Result<(Self, Vec<String>)> {
        let wrong = |error: &toml::de::Error| anyhow!("{}", wrong(text, error));
        let mut table = DeTable::parse(text).map_err(|error| wrong(&error))?;
        let warnings = deprecated::convert(text, table.get_mut())?;
        let config = Self::deserialize(Deserializer::from(table)).map_err(|mut error| {
            error.set_input(Some(text));
            wrong(&error)
        })?;
        let warnings = warnings.into_iter().map(|(line, what)| format!("{file}:{line}: {what}"));
        Ok((config, warnings.collect()))
    }

    /// The folder of dead letters, in the state directory.
    pub(crate) fn dead_letters(&self) -> PathBuf {
        self.state_dir.join("dead-letters")
    }

    /// As [`read`](Self::read), but returns the defaults where [`DEFAULT_PATH`] does not exist, so that commands work
    /// on a host without an agent. Any other file must exist.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(crate) fn read_if_there(path: &Path) -> Result<Self> {
        if path == Path::new(DEFAULT_PATH) && !path.exists() {
            return Ok(Self::default());
        }
        Self::read(path)
    }
}

/// The deprecated keys, with their new names.
#[cfg(test)]
pub(crate) fn deprecated_keys() -> Vec<(String, String)> {
    deprecated::names()
}

/// The error message with the line that it is about. Text of the file is left out from the first line on that may contain
/// a secret.
fn wrong(text: &str, error: &toml::de::Error) -> String {
    let start = error.span().map_or(text.len(), |span| span.start).min(text.len());
    let before = text.get(..start).unwrap_or(text);
    let line = before.matches('\n').count();
    let is_open = |line: &str| {
        line.trim_start().starts_with('#') || !SECRET_MARKERS.iter().any(|mark| line.contains(mark))
    };
    if text.lines().take(line + 1).all(is_open) {
        return error.to_string().trim_end().to_owned();
    }
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let (line, message) = (line + 1, without_values(error.message()));
    format!("line {line}, column {column}: {message} (the line is not shown because it may contain a secret)")
}

/// The message without the value that it quotes; keys stay.
fn without_values(message: &str) -> String {
    let (value, rest) = match message.split_once(", expected") {
        Some((value, _)) if !value.starts_with("unknown field") => (value, &message[value.len()..]),
        _ => return message.to_owned(),
    };
    let from = value.find(['"', '`']).unwrap_or(value.len());
    let quoted = if from < value.len() { "of another kind" } else { "" };
    format!("{}{quoted}{rest}", &value[..from])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No error in a file with secrets prints one of them.
    #[test]
    fn an_error_shows_no_secret() {
        let sink =
            "[[sink]]\ntype = \"elasticsearch\"\nname = \"siem\"\nurls = [\"https://127.0.0.1:9200\"]\n";
        for lines in [
            "api_key = \"sekret\" x",
            "api_key = sekret",
            "api_key = \"sekret",
            "api_key = \"\"\"\nfirst\nsekret",
            "api_key = \"\"\"\n# a\nsekret = \"\"\" y",
            "api_key = { fil = \"sekret\" }",
            "api_key = { file = \"/x\", sekret }",
            "http = { headers = { X-Token = \"sekret\" x } }",
            "http.headers = { X-Token = [\"sekret\"] }",
            "urls = \"sekret\"",
            "urls = \"https://user:sekret@host\"",
            "username = [\"sekret\"]",
            "batch.count_max = \"sekret\"",
            "type = \"sekret\"",
            "password = \"sekret\"\npassword = \"sekret\"",
            "sekret",
        ] {
            for text in [format!("{sink}{lines}\n"), format!("sink = [{{ {lines} }}]")] {
                let folder = tempfile::tempdir().unwrap();
                let file = folder.path().join("lapwing.toml");
                std::fs::write(&file, &text).unwrap();
                if let Err(error) = Config::read(&file) {
                    let error = format!("{error:#}");
                    assert!(!error.contains("sekret") || lines == "sekret", "{text}: {error}");
                }
            }
        }
    }

    #[test]
    fn an_error_without_secrets_shows_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("lapwing.toml");
        std::fs::write(&file, "# [[sink]] is an example\nstate_dir = 7\n").unwrap();
        let error = format!("{:#}", Config::read(&file).unwrap_err());
        assert!(
            error.contains("2 | state_dir = 7") && error.contains("invalid type: integer `7`"),
            "{error}"
        );
    }

    /// The package's `/etc/lapwing/lapwing.toml`.
    const PACKAGED: &str = include_str!("../../packaging/lapwing.toml");

    /// The lines with this prefix, without it, and the other lines that are no comment.
    fn uncommented(mark: &str) -> String {
        let line = |line: &'static str| match line.strip_prefix(mark) {
            Some(code) if !code.starts_with([' ', '#']) => Some(code),
            _ => Some(line).filter(|line| !line.starts_with('#')),
        };
        PACKAGED.lines().filter_map(line).collect::<Vec<_>>().join("\n")
    }

    fn read(text: &str) -> Config {
        toml::from_str(text).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn the_packaged_configuration_has_the_defaults() {
        let default = format!("{:#?}", Config::default());
        assert_eq!(format!("{:#?}", read(PACKAGED)), default, "as it is");
        assert_eq!(format!("{:#?}", read(&uncommented("#"))), default, "with every key");
    }

    #[test]
    fn the_packaged_configuration_has_every_key() {
        let default = format!("{:#?}", Config::default());
        for key in default.lines().filter_map(|line| line.trim().split_once(": ")).map(|(key, _)| key) {
            let is_there = |line: &str| {
                let line = line.trim_start_matches(['#', ' ']);
                line.starts_with(&format!("{key} = "))
                    || line.trim_matches(['[', ']']).rsplit('.').next() == Some(key)
            };
            assert!(PACKAGED.lines().any(is_there), "{key}");
        }
    }

    #[test]
    fn the_examples_of_the_packaged_configuration_are_valid() {
        let config = read(&uncommented("#     "));
        assert_eq!(config.cloudtrail.problems(), Vec::<String>::new());
        assert_eq!(config.cloudtrail.queue.len(), 1);
        assert_eq!(config.sink.len(), 3);
    }
}
