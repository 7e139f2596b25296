//! `lapwing fmt`: formats the queries of rule files.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use lapwing_engine::Schema;
use lapwing_engine::lang::Diagnostic;
use lapwing_engine::lang::format::Unformatted;
use lapwing_engine::rule::format_file;
use similar::TextDiff;

use super::{complain, print};
use crate::bounded::SETTING_BYTES_MAX;
use crate::folder::{Listing, Stray};
use crate::rules;
use crate::terminal::escape;

/// Context lines of a diff.
const CONTEXT_LINES: usize = 3;

/// Format the queries in rule files
///
/// Nothing else in the files changes. A query that fits is one line. Otherwise each condition and each stage of a
/// sequence begins a line, and lists fill lines. Comments keep their place. A query with a comment inside a condition
/// is left unchanged and reported.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Rule files or folders
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Print a diff instead of changing files; fail if there is one
    #[arg(long)]
    check: bool,
}

/// Number of files by result.
#[derive(Default)]
struct Counts {
    changed: usize,
    unchanged: usize,
    wrong: usize,
}

/// Runs it.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let mut counts = Counts::default();
    // The schema is shared: leaves of flattened fields that one rule names are then known to all, which is harmless.
    let mut schema = Schema::new();
    let Listing { files, strays } = rules::files(&args.paths)?;
    for Stray { path, why } in &strays {
        counts.wrong += 1;
        complain(&escape(&format!("{} cannot be read: {why}", path.display())));
    }
    for file in files {
        let bytes = file
            .read(SETTING_BYTES_MAX)
            .with_context(|| format!("{} cannot be read", file.path.display()))?;
        counts.format(&file.path, &bytes, args.check, &mut schema)?;
    }
    let Counts { changed, unchanged, wrong } = counts;
    let did = if args.check { "to be formatted" } else { "formatted" };
    print(&format!("files {did}: {changed}; unchanged: {unchanged}; unreadable: {wrong}"))?;
    let failed = wrong > 0 || (args.check && changed > 0);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

impl Counts {
    fn format(&mut self, file: &Path, bytes: &[u8], check: bool, schema: &mut Schema) -> Result<()> {
        let name = file.display().to_string();
        let formatted = match format_file(bytes, schema) {
            Ok(formatted) => formatted,
            Err(faults) => {
                self.wrong += 1;
                complain(&escape(&format!("{name}: {}", first(&faults))));
                return Ok(());
            }
        };
        for (line, reason) in &formatted.kept {
            complain(&escape(&format!("{name}:{line}: query not formatted: {}", reason_text(reason))));
        }
        self.wrong +=
            usize::from(formatted.kept.iter().any(|(_, reason)| !matches!(reason, Unformatted::Comment(_))));
        if formatted.text.as_bytes() == bytes {
            self.unchanged += usize::from(formatted.kept.is_empty());
            return Ok(());
        }
        self.changed += 1;
        if check {
            return difference(&name, &String::from_utf8_lossy(bytes), &formatted.text);
        }
        write(file, &formatted.text).with_context(|| format!("{name} cannot be written"))?;
        print(&escape(&format!("formatted {name}")))
    }
}

fn reason_text(reason: &Unformatted) -> String {
    match reason {
        Unformatted::Comment(_) => {
            "it has a comment inside a condition; move it to the end of a line or to its own line".to_owned()
        }
        Unformatted::Faults(faults) => first(faults),
        Unformatted::Changed => "its meaning would change, which is a bug in lapwing".to_owned(),
    }
}

fn first(faults: &[Diagnostic]) -> String {
    faults.first().map(|fault| format!("{} {}", fault.code.id, fault.message)).unwrap_or_default()
}

/// Prints a unified diff.
fn difference(name: &str, before: &str, after: &str) -> Result<()> {
    let difference = TextDiff::from_lines(before, after);
    let shown = difference.unified_diff().context_radius(CONTEXT_LINES).header(name, name).to_string();
    shown.lines().try_for_each(|line| print(&escape(line)))
}

/// Replaces a file atomically, with the same permissions.
fn write(file: &Path, text: &str) -> Result<()> {
    // A symbolic link stays one.
    let file = file.canonicalize()?;
    let mut new = tempfile::NamedTempFile::new_in(file.parent().unwrap_or(Path::new("/")))?;
    new.write_all(text.as_bytes())?;
    new.as_file().set_permissions(fs::metadata(&file)?.permissions())?;
    new.as_file().sync_all()?;
    new.persist(&file)?;
    Ok(())
}
