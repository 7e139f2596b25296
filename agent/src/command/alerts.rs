//! `lapwing alerts`: the alerts of this host, read from the log files. The agent need not run.

mod detail;
mod document;
mod list;
mod words;

use std::collections::HashSet;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use lapwing_engine::Timestamp;
use serde_json::Value;

use self::detail::DetailLevel;
use self::document::Summary;
use super::json_shown;
use crate::alert_log::{Backward, Forward, Position};
use crate::config::{Config, DEFAULT_PATH};
use crate::terminal::{Screen, escape};
use crate::{alert_log, clock};

/// How often `--follow` checks the log for changes.
const FOLLOW_EVERY: Duration = Duration::from_millis(250);
/// Default of `--limit`.
const LISTED_MAX: usize = 50;
/// Default of `--limit` with `--follow`.
const FOLLOWED_MAX: usize = 10;
/// How many ids are listed when a prefix is ambiguous.
const AMBIGUOUS_SHOWN_MAX: usize = 5;

/// List the alerts of this host, newest first, or show one alert
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Show this alert; a prefix of its id is enough
    #[arg(value_name = "ID", conflicts_with_all = ["since", "rule", "severity", "limit", "follow", "building_blocks"])]
    id: Option<String>,
    /// Omit the rule's description and guide
    #[arg(long, requires = "id", conflicts_with = "json")]
    brief: bool,
    /// Oldest time: a length of time before now (`2h`, `7d`) or a timestamp (`2026-11-22T03:00:00Z`, `2026-11-22`)
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Timestamp>,
    /// Rule: a part of its name, or its id
    #[arg(long, value_name = "NAME|ID")]
    rule: Option<String>,
    /// Minimum severity
    #[arg(long, value_name = "LEVEL")]
    severity: Option<Severity>,
    /// Include alerts of building block rules
    #[arg(long)]
    building_blocks: bool,
    /// Maximum number; 0 for all [default: 50; with --follow, 10 before following]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Print the JSON documents of the log, one per line
    #[arg(long)]
    json: bool,
    /// Print the newest alerts, oldest first, and then new ones as they are written
    #[arg(long, short)]
    follow: bool,
    /// Alert log [default: the one of the configuration]
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
}

/// Severity in Elastic's four levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Severity {
    Low,
    Medium,
    High,
    Critical,
}

impl Args {
    fn log(&self) -> &Path {
        self.log.as_deref().unwrap_or(Path::new(alert_log::PATH))
    }
}

impl Severity {
    /// The level of a number as in `event.severity`.
    fn of(number: i64) -> Self {
        match number {
            ..47 => Self::Low,
            47..73 => Self::Medium,
            73..99 => Self::High,
            99.. => Self::Critical,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// Prints the alerts.
///
/// # Errors
/// The log cannot be read, or has no such alert.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let mut args = args.clone();
    if args.log.is_none() {
        args.log = Some(Config::read_if_there(&args.config)?.alerts.path);
    }
    let args = &args;
    let mut out = BufWriter::new(io::stdout().lock());
    write(args, Screen::stdout(), &mut out)?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn write(args: &Args, screen: Screen, out: &mut impl Write) -> Result<()> {
    match &args.id {
        Some(id) => show(args, id, screen, out),
        None if args.follow => follow(args, screen, out),
        None => list(args, screen, out),
    }
}

fn list(args: &Args, screen: Screen, out: &mut impl Write) -> Result<()> {
    let limit = limit(args, LISTED_MAX);
    let mut matching = matching(args)?;
    let mut listed = 0;
    while listed < limit
        && let Some(line) = matching.next().transpose()?
    {
        print(args, screen, &line, out)?;
        listed += 1;
    }
    if args.json {
        return Ok(());
    }
    if listed == 0 {
        let count = lines(args.log(), None)?.filter(Result::is_ok).count();
        match count {
            0 => writeln!(out, "no alerts in {}", args.log().display())?,
            count => writeln!(out, "none of {count} alerts match")?,
        }
    } else if listed == limit && matching.next().is_some() {
        writeln!(
            out,
            "older alerts are not shown: use `--limit {}`, or 0 for all",
            limit.saturating_mul(10)
        )?;
    }
    Ok(())
}

fn show(args: &Args, id: &str, screen: Screen, out: &mut impl Write) -> Result<()> {
    ensure!(!id.is_empty(), "an id has at least one letter; `lapwing alerts` lists them");
    let mut found: Vec<(String, Vec<u8>)> = Vec::new();
    for line in lines(args.log(), None)? {
        let line = line?;
        let Some(summary) = Summary::read(&line) else { continue };
        let other = summary.id().starts_with(id) && found.iter().all(|(known, _)| known != summary.id());
        if other && found.len() < AMBIGUOUS_SHOWN_MAX {
            found.push((summary.id().to_owned(), line.clone()));
        }
    }
    match found.as_slice() {
        [] => bail!(
            "no alert in {} has an id that begins with `{}`; `lapwing alerts` lists them",
            args.log().display(),
            escape(id)
        ),
        [(_, line)] if args.json => Ok(writeln!(out, "{}", json_shown(line))?),
        [(_, line)] => {
            let alert: Value = serde_json::from_slice(line)?;
            let extent = if args.brief { DetailLevel::Brief } else { DetailLevel::Whole };
            Ok(out.write_all(detail::render(screen, &alert, clock::now(), extent).as_bytes())?)
        }
        several => {
            let ids: Vec<_> = several.iter().map(|(id, _)| escape(id)).collect();
            bail!("several alerts have ids that begin with `{}`: {}", escape(id), ids.join(", "))
        }
    }
}

fn follow(args: &Args, screen: Screen, out: &mut impl Write) -> Result<()> {
    let end = Position::end(args.log()).with_context(|| unreadable(args.log()))?;
    let mut last: Vec<Vec<u8>> = matching(args)?.take(limit(args, FOLLOWED_MAX)).collect::<Result<_>>()?;
    last.reverse();
    for line in &last {
        print(args, screen, line, out)?;
    }
    // Alerts that were written between the two reads are in both.
    let mut printed: HashSet<Vec<u8>> = last.into_iter().collect();
    let (mut reader, _) = Forward::new(args.log().to_owned(), end).with_context(|| unreadable(args.log()))?;
    let (mut line, mut passed_over) = (Vec::new(), 0);
    loop {
        let before = look(args.log());
        while reader.next_line(&mut line).with_context(|| unreadable(args.log()))? {
            if is_wanted(args, &line) && !printed.remove(&line) {
                print(args, screen, &line, out)?;
            }
        }
        if reader.passed_over() > passed_over {
            passed_over = reader.passed_over();
            super::complain(&format!(
                "lapwing: {passed_over} lines of the log are too long and were skipped"
            ));
        }
        out.flush()?;
        while look(args.log()) == before {
            std::thread::sleep(FOLLOW_EVERY);
        }
    }
}

/// Inode and size of the log: they change when it is written or rotated.
fn look(log: &Path) -> Option<(u64, u64)> {
    fs::metadata(log).ok().map(|log| (log.ino(), log.len()))
}

fn print(args: &Args, screen: Screen, line: &[u8], out: &mut impl Write) -> Result<()> {
    if args.json {
        return Ok(writeln!(out, "{}", json_shown(line))?);
    }
    match Summary::read(line) {
        Some(summary) => Ok(out.write_all(list::render(screen, &summary).as_bytes())?),
        None => Ok(()),
    }
}

/// The matching lines, newest first.
fn matching(args: &Args) -> Result<impl Iterator<Item = Result<Vec<u8>>>> {
    Ok(lines(args.log(), args.since)?.filter(|line| line.as_ref().map_or(true, |line| is_wanted(args, line))))
}

fn lines(log: &Path, since: Option<Timestamp>) -> Result<impl Iterator<Item = Result<Vec<u8>>>> {
    // An alert is never written before it happened, so a file that was last written before `since` contains none.
    let since = since.map(|since| SystemTime::UNIX_EPOCH + since.since(Timestamp::default()));
    let lines = Backward::new(log, since).with_context(|| unreadable(log))?;
    let log = log.to_owned();
    Ok(lines.map(move |line| line.with_context(|| unreadable(&log))))
}

fn is_wanted(args: &Args, line: &[u8]) -> bool {
    let Some(summary) = Summary::read(line) else { return false };
    let contains = |wanted: &str| {
        let name = summary.rule_name().to_lowercase();
        name.contains(&wanted.to_lowercase()) || summary.rule_ids().any(|id| id == wanted)
    };
    (args.building_blocks || !summary.is_building_block())
        && args.since.is_none_or(|since| summary.time().is_some_and(|time| time >= since))
        && args.severity.is_none_or(|least| Severity::of(summary.severity()) >= least)
        && args.rule.as_deref().is_none_or(contains)
}

fn limit(args: &Args, default: usize) -> usize {
    match args.limit {
        None => default,
        Some(0) => usize::MAX,
        Some(limit) => limit,
    }
}

fn unreadable(log: &Path) -> String {
    format!("cannot read the alert log {}; run as root, or as a member of the log's group", log.display())
}

/// Parses the value of `--since`.
fn since(text: &str) -> Result<Timestamp, String> {
    if let Some(time) = Timestamp::parse(text).or_else(|| Timestamp::parse(&format!("{text}T00:00:00Z"))) {
        return Ok(time);
    }
    clock::period(text).map(|length| clock::now() - length).map_err(|_| {
        "it must be a length of time such as `2h`, or a time such as `2026-11-22T03:00:00Z`".to_owned()
    })
}

#[cfg(test)]
mod tests;
