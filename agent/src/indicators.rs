//! Indicators of threats in files, for rules of type `threat_match`.
//!
//! A file is NDJSON, an ECS document a line, or CSV, whose header names ECS fields such as `threat.indicator.ip`.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use lapwing_engine::detect::Indicators;
use serde::Deserialize;
use serde_json::{Map, Value as Json};

/// Most indicators that are read.
const INDICATORS_MAX: usize = 1_000_000;
/// Longest line of NDJSON, in bytes.
const LINE_BYTES_MAX: usize = 1 << 20;
/// Where indicators lie, where the configuration does not say.
const FOLDER: &str = "/etc/lapwing/indicators.d";

/// `[indicators]`: what is known of threats.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Files, and folders of files, that end in `.ndjson`, `.jsonl` or `.csv`. Default: `/etc/lapwing/indicators.d`, which
    /// need not be there.
    pub(crate) paths: Vec<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self { paths: vec![FOLDER.into()] }
    }
}

/// Reads all indicators, and says of every file or line that cannot be read why.
///
/// # Errors
/// A path that is not there, or more indicators than anybody has.
pub(crate) fn load(config: &Config) -> Result<(Indicators, Vec<String>)> {
    let (mut indicators, mut problems) = (Indicators::default(), Vec::new());
    for file in files(config)? {
        if let Err(error) = read(&file, &mut indicators, &mut problems) {
            problems.push(format!("{error:#}"));
        }
        ensure!(indicators.len() <= INDICATORS_MAX, "there are more than {INDICATORS_MAX} indicators");
    }
    Ok((indicators, problems))
}

fn files(config: &Config) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in config.paths.iter().filter(|path| *path != Path::new(FOLDER) || path.exists()) {
        let unreadable = || format!("indicators cannot be read from {}", path.display());
        if std::fs::metadata(path).with_context(unreadable)?.is_file() {
            files.push(path.clone());
            continue;
        }
        for entry in std::fs::read_dir(path).with_context(unreadable)? {
            let file = entry.with_context(unreadable)?.path();
            let ending = file.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
            if ["ndjson", "jsonl", "csv"].contains(&ending) {
                files.push(file);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn read(file: &Path, indicators: &mut Indicators, problems: &mut Vec<String>) -> Result<()> {
    let unreadable = || format!("indicators cannot be read from {}", file.display());
    let opened = File::open(file).with_context(unreadable)?;
    if file.extension().is_some_and(|ending| ending == "csv") {
        return csv(file, opened, indicators).with_context(unreadable);
    }
    let mut reader = BufReader::new(opened);
    let (mut line, mut number) = (Vec::new(), 0);
    while indicators.len() <= INDICATORS_MAX {
        line.clear();
        let most = LINE_BYTES_MAX as u64;
        let length =
            std::io::Read::take(&mut reader, most).read_until(b'\n', &mut line).with_context(unreadable)?;
        if length == 0 {
            break;
        }
        number += 1;
        if length == LINE_BYTES_MAX {
            bail!("{}: line {number} is longer than {LINE_BYTES_MAX} bytes", file.display());
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        match serde_json::from_slice::<Map<String, Json>>(&line) {
            Ok(document) => indicators.push(&document, format!("{}:{number}", file.display())),
            Err(error) => problems.push(format!("{}:{number} is no indicator: {error}", file.display())),
        }
    }
    Ok(())
}

fn csv(file: &Path, opened: File, indicators: &mut Indicators) -> Result<()> {
    let mut reader = csv::Reader::from_reader(opened);
    let header = reader.headers()?.clone();
    for record in reader.records() {
        let record = record?;
        let filled = header.iter().zip(&record).filter(|(_, value)| !value.trim().is_empty());
        let document = filled.map(|(name, value)| (name.trim().to_owned(), value.trim().into())).collect();
        let line = record.position().map_or(0, csv::Position::line);
        indicators.push(&document, format!("{}:{line}", file.display()));
        if indicators.len() > INDICATORS_MAX {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_what_is_wrong_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("a.ndjson", "{\"threat\":{\"indicator\":{\"ip\":\"192.0.2.1\"}}}\n\nno json\n{}\n");
        write("b.csv", "threat.indicator.ip,threat.indicator.provider\n192.0.2.2,\"a, b\"\n192.0.2.3,\n");
        write("c.txt", "not read");
        let (indicators, problems) = load(&Config { paths: vec![folder.path().to_owned()] }).unwrap();
        assert_eq!(indicators.len(), 4);
        assert!(problems.len() == 1 && problems[0].contains("a.ndjson:3 is no indicator"), "{problems:?}");
        assert!(load(&Config { paths: vec![folder.path().join("nowhere")] }).is_err());
        assert!(load(&Config::default()).is_ok());
    }
}
