//! Threat indicators in files, for rules of type `threat_match`.
//!
//! A file is NDJSON with one ECS document per line, or CSV with ECS fields as header, such as `threat.indicator.ip`.

use std::cell::Cell;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context as _, Result, ensure};
use lapwing_engine::detect::Indicators;
use serde::Deserialize;
use serde_json::{Map, Value as Json};

use crate::folder::Listing;

/// Most indicators that are read.
const INDICATORS_MAX: usize = 1_000_000;
/// Most bytes that they take together.
const INDICATORS_BYTES_MAX: usize = 64 << 20;
/// Most files that are read.
const FILES_MAX: usize = 10_000;
/// Most problems that are reported one by one; more are counted.
const PROBLEMS_MAX: usize = 100;
/// Longest line of NDJSON and longest record of CSV, in bytes.
const LINE_BYTES_MAX: usize = 1 << 20;
/// The default path of indicators.
const FOLDER: &str = "/etc/lapwing/indicators.d";

/// The section `[indicators]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Files, and folders of files, that end in `.ndjson`, `.jsonl` or `.csv`. Default: `/etc/lapwing/indicators.d`,
    /// which need not exist.
    pub(crate) paths: Vec<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self { paths: vec![FOLDER.into()] }
    }
}

/// Reads all indicators, and returns a problem for each file or line that cannot be read.
///
/// # Errors
/// A path does not exist.
pub(crate) fn load(config: &Config) -> Result<(Indicators, Vec<String>)> {
    let mut reading = Reading::default();
    let mut listing = Listing::default();
    for path in config.paths.iter().filter(|path| *path != Path::new(FOLDER) || path.exists()) {
        let unreadable = || format!("indicators cannot be read from {}", path.display());
        listing.add(path, FILES_MAX, is_wanted).with_context(unreadable)?;
    }
    for stray in listing.strays {
        reading.problem(format!("indicators cannot be read from {}: {}", stray.path.display(), stray.why));
    }
    for file in listing.files {
        let read = file.open().map_err(Into::into).and_then(|opened| reading.file(&file.path, opened));
        if let Err(error) = read {
            reading.problem(format!("indicators cannot be read from {}: {error:#}", file.path.display()));
        }
    }
    Ok(reading.finish())
}

/// Whether a file of this name in a folder holds indicators.
pub(crate) fn is_wanted(name: &str) -> bool {
    [".ndjson", ".jsonl", ".csv"].iter().any(|ending| name.ends_with(ending))
}

/// What was read so far.
#[derive(Default)]
struct Reading {
    indicators: Indicators,
    bytes: usize,
    problems: Vec<String>,
    /// Problems that are only counted.
    more: usize,
}

impl Reading {
    fn file(&mut self, path: &Path, opened: File) -> Result<()> {
        if path.extension().is_some_and(|ending| ending == "csv") {
            return self.csv(path, opened);
        }
        let mut reader = BufReader::new(opened);
        let (mut line, mut number) = (Vec::new(), 0);
        loop {
            line.clear();
            let most = LINE_BYTES_MAX as u64;
            let length = std::io::Read::take(&mut reader, most).read_until(b'\n', &mut line)?;
            if length == 0 {
                return Ok(());
            }
            number += 1;
            ensure!(length < LINE_BYTES_MAX, "line {number} is longer than {LINE_BYTES_MAX} bytes");
            if line.trim_ascii().is_empty() {
                continue;
            }
            match serde_json::from_slice::<Map<String, Json>>(&line) {
                Ok(document) => self.indicator(&document, path, number)?,
                Err(error) => {
                    self.problem(format!("{}:{number} is not an indicator: {error}", path.display()))
                }
            }
        }
    }

    fn csv(&mut self, path: &Path, opened: File) -> Result<()> {
        let left = Rc::new(Cell::new(LINE_BYTES_MAX));
        let mut reader = csv::Reader::from_reader(Metered { opened, left: left.clone() });
        let header = reader.headers()?.clone();
        let mut record = csv::StringRecord::new();
        loop {
            left.set(LINE_BYTES_MAX);
            let line = reader.position().line();
            match reader.read_record(&mut record) {
                Ok(false) => return Ok(()),
                Ok(true) => {
                    let filled = header.iter().zip(&record).filter(|(_, value)| !value.trim().is_empty());
                    let document = filled.map(|(name, value)| (name.trim().to_owned(), value.trim().into()));
                    let line = record.position().map_or(line, csv::Position::line);
                    self.indicator(&document.collect(), path, line)?;
                }
                Err(error) if error.is_io_error() => return Err(error.into()),
                Err(error) => self.problem(format!("{}:{line} is not an indicator: {error}", path.display())),
            }
        }
    }

    fn indicator(&mut self, document: &Map<String, Json>, path: &Path, line: u64) -> Result<()> {
        ensure!(self.indicators.len() < INDICATORS_MAX, "there are more than {INDICATORS_MAX} indicators");
        self.bytes += self.indicators.push(document, format!("{}:{line}", path.display()));
        ensure!(
            self.bytes < INDICATORS_BYTES_MAX,
            "all indicators take more than {INDICATORS_BYTES_MAX} bytes"
        );
        Ok(())
    }

    fn problem(&mut self, problem: String) {
        if self.problems.len() < PROBLEMS_MAX { self.problems.push(problem) } else { self.more += 1 }
    }

    fn finish(mut self) -> (Indicators, Vec<String>) {
        if self.more > 0 {
            self.problems.push(format!("and {} more lines or files of indicators cannot be read", self.more));
        }
        (self.indicators, self.problems)
    }
}

/// A file that is read in pieces of at most the length of a record.
struct Metered {
    opened: File,
    left: Rc<Cell<usize>>,
}

impl Read for Metered {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = self.left.get();
        if left == 0 {
            let message = format!("a record is longer than {LINE_BYTES_MAX} bytes");
            return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, message));
        }
        let length = self.opened.read(buffer)?;
        self.left.set(left.saturating_sub(length));
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_errors_are_reported() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("a.ndjson", "{\"threat\":{\"indicator\":{\"ip\":\"192.0.2.1\"}}}\n\nno json\n{}\n");
        write("b.csv", "threat.indicator.ip,threat.indicator.provider\n192.0.2.2,\"a, b\"\n192.0.2.3,\n");
        write("c.txt", "not read");
        let (indicators, problems) = load(&Config { paths: vec![folder.path().to_owned()] }).unwrap();
        assert_eq!(indicators.len(), 4);
        assert!(
            problems.len() == 1 && problems[0].contains("a.ndjson:3 is not an indicator"),
            "{problems:?}"
        );
        write("d.csv", "threat.indicator.ip\n192.0.2.4\n192.0.2.5,ragged\n192.0.2.6\n");
        std::os::unix::fs::symlink("/dev/zero", folder.path().join("e.csv")).unwrap();
        let (indicators, problems) = load(&Config { paths: vec![folder.path().to_owned()] }).unwrap();
        assert_eq!((indicators.len(), problems.len()), (6, 3), "{problems:?}");
        assert!(problems.iter().any(|problem| problem.contains("d.csv:3")), "{problems:?}");
        assert!(load(&Config { paths: vec![folder.path().join("nowhere")] }).is_err());
        assert!(load(&Config::default()).is_ok());
    }

    #[test]
    fn problems_are_kept_within_a_limit() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.ndjson"), "x\n".repeat(100_000)).unwrap();
        let endless = format!("threat.indicator.ip\n\"{}", "x".repeat(3 * LINE_BYTES_MAX));
        std::fs::write(folder.path().join("b.csv"), endless).unwrap();
        let (indicators, problems) = load(&Config { paths: vec![folder.path().to_owned()] }).unwrap();
        assert_eq!((indicators.len(), problems.len()), (0, PROBLEMS_MAX + 1));
        assert!(problems[PROBLEMS_MAX].contains("99901 more"), "{problems:?}");
    }
}
