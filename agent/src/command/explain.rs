//! `lapwing explain`: explains a rule, its result for recorded events, or a diagnostic code.

mod code;
mod rule;
mod sources;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use lapwing_engine::lang::diagnostic;
use lapwing_engine::{Loaded, Rule, Schema};

use super::print_reports;
use crate::config::{Config, DEFAULT_PATH};
use crate::rules;

/// Maximum number of rules that are listed when a word is ambiguous.
const CANDIDATES_MAX: usize = 10;

/// Explain a rule, its result for recorded events, or a diagnostic code
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A code such as E0201, a rule file, a rule's id, or words of its name
    #[arg(required_unless_present_any = ["list", "sources"])]
    subject: Option<String>,
    /// Recorded events: show for each condition of the rule whether it held, and the values. NDJSON, a JSON array or
    /// CloudTrail files, compressed or not; `-` is standard input
    #[arg(long, value_name = "FILE")]
    events: Vec<PathBuf>,
    /// Rules to search instead of those of the configuration
    #[arg(long, value_name = "PATH")]
    rules: Vec<PathBuf>,
    /// Exceptions to apply instead of those of the configuration
    #[arg(long, value_name = "PATH")]
    exceptions: Option<PathBuf>,
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// List all codes
    #[arg(long)]
    list: bool,
    /// List the kinds of events of this host's sources, with their fields
    #[arg(long)]
    sources: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let config = Config::read_if_there(&args.config)?;
    if args.list {
        code::list(args.json)?;
    } else if args.sources {
        sources::list(args.json)?;
    } else if let Some(subject) = &args.subject {
        let is_code = diagnostic::code::ALL.iter().find(|code| code.id.eq_ignore_ascii_case(subject));
        match is_code {
            Some(found) => code::explain(found, args.json)?,
            None => {
                let mut schema = Schema::new();
                let (rule, loaded) = find(subject, args, &config, &mut schema)?;
                rule::explain(&rule, &loaded, schema, args, &config)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Finds the rule by file, id or name. Returns it with all rules that were loaded.
fn find(subject: &str, args: &Args, config: &Config, schema: &mut Schema) -> Result<(Arc<Rule>, Loaded)> {
    let file = Path::new(subject);
    if file.is_file() {
        let mut paths = vec![file.to_owned()];
        paths.extend(args.rules.clone());
        let mut loaded = rules::load(&paths, schema)?;
        let is_job = |report: &lapwing_engine::Report| {
            report.diagnostics.iter().any(|fault| fault.code == diagnostic::code::UNKNOWN_JOB)
        };
        if loaded.reports.iter().any(is_job) {
            // The job that the rule names may be in the same folder.
            paths.push(
                file.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new(".")).to_owned(),
            );
            loaded = rules::load(&paths, schema)?;
        }
        let found = loaded.rules.iter().find(|rule| Path::new(&*rule.file) == file).cloned();
        let Some(found) = found else {
            loaded.reports.retain(|report| Path::new(&*report.file) == file);
            print_reports(&loaded.reports);
            bail!("{subject} contains no valid rule");
        };
        return Ok((found, loaded));
    }
    ensure!(!is_like_code(subject), "unknown code {subject}; `lapwing explain --list` lists all codes");
    let paths = if args.rules.is_empty() { &config.rules.paths } else { &args.rules };
    let loaded = rules::load(paths, schema)?;
    let word = subject.to_lowercase();
    let exact = |rule: &&Arc<Rule>| rule.id == subject || rule.name.to_lowercase() == word;
    let found: Vec<_> = match loaded.rules.iter().find(exact) {
        Some(rule) => vec![rule],
        None => loaded.rules.iter().filter(|rule| rule.name.to_lowercase().contains(&word)).collect(),
    };
    match found.as_slice() {
        [rule] => {
            let rule = Arc::clone(rule);
            Ok((rule, loaded))
        }
        [] => bail!("no rule matches {subject:?}; give a file or an id, or the rules with `--rules`"),
        several => {
            let names: Vec<_> = several
                .iter()
                .take(CANDIDATES_MAX)
                .map(|rule| format!("\n  {}  {}", rule.id, rule.name))
                .collect();
            bail!("{} rules match {subject:?}:{}", several.len(), names.concat())
        }
    }
}

fn is_like_code(subject: &str) -> bool {
    let digits = subject.strip_prefix(['E', 'W', 'e', 'w']);
    digits.is_some_and(|digits| digits.len() == 4 && digits.bytes().all(|digit| digit.is_ascii_digit()))
}
