//! `lapwing check`: checks the configuration, the rules and the host before the agent runs.

mod exceptions;
mod needs;
mod variables;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, Result};
use lapwing_engine::lang::{Diagnostic, Level};
use lapwing_engine::{Exceptions, Loaded, Schema};
use serde_json::{Map, Value as Json, json};

use self::needs::Needs;
use super::{complain, print, print_json, print_reports};
use crate::config::{Config, DEFAULT_PATH};
use crate::control::{self, Request};
use crate::pipeline::NO_SOURCE;
use crate::sensor::{self, HookReport, Sensor, StartError, StoredFds};
use crate::source::cloudtrail::Geo;
use crate::streams::lanes;
use crate::{clock, coverage, indicators, report, rules, sink, streams};

/// Check the configuration, the rules and this host
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Check only these rules, without the configuration
    #[arg(long, value_name = "PATH")]
    rules: Vec<PathBuf>,
    /// Exceptions to check instead of those of the configuration; `--rules` alone checks none
    #[arg(long, value_name = "PATH")]
    exceptions: Option<PathBuf>,
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Report event coverage per rule
    #[arg(long, short)]
    verbose: bool,
    /// Limit the coverage report to these rules: ids, or words of their names
    #[arg(value_name = "RULE")]
    wanted: Vec<String>,
}

/// The result of the checks.
#[derive(Default)]
struct Found {
    /// Errors that prevent the agent or a part of it from running, each with a hint.
    problems: Vec<String>,
    /// Warnings.
    notes: Vec<String>,
    hooks: Vec<HookReport>,
    /// Records that the kernel filters because no rule can match them, with the classes of destinations.
    filtered: Vec<(&'static str, Vec<&'static str>)>,
}

/// Runs it.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let (config, warnings) = if args.rules.is_empty() {
        let (config, warnings) = Config::read_with_warnings(&args.config)?;
        (Some(config), warnings)
    } else {
        (None, Vec::new())
    };
    let paths = config.as_ref().map_or(&args.rules, |config| &config.rules.paths);
    let mut schema = Schema::new();
    let loaded = rules::load(paths, &mut schema)?;
    let configured = config.as_ref().map(|config| &config.rules.exceptions);
    let mut exceptions = rules::exceptions(args.exceptions.as_ref().or(configured), &mut schema)?;
    exceptions.check(&loaded.rules, clock::now());
    let mut found = Found { notes: warnings, ..Found::default() };
    if let Some(config) = &config {
        found.check(&args.config, config, &loaded, &schema);
    }
    if config.as_ref().is_none_or(|config| config.sensor.enabled) {
        let configured = config.as_ref().map(|config| config.sensor.env_vars.clone());
        found.notes.extend(variables::notes(&configured.unwrap_or_default(), &loaded.rules, &exceptions));
    }
    let needs = Needs::of(&loaded.rules, &coverage::sources(config.as_ref()), &schema);
    if args.json {
        print_json(&to_json(&loaded, &exceptions, &found, &needs).to_string())?;
    } else {
        print_report(&loaded, &exceptions, &found, &needs)?;
        if args.verbose || !args.wanted.is_empty() {
            needs.print_rules(&args.wanted)?;
        }
    }
    let wrong = loaded.refused() > 0 || exceptions.refused > 0 || !found.problems.is_empty();
    Ok(if wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

impl Found {
    /// Tries what the agent would do with this configuration.
    fn check(&mut self, path: &Path, config: &Config, loaded: &Loaded, schema: &Schema) {
        self.problems.extend(config.cloudtrail.problems());
        match indicators::load(&config.indicators) {
            Err(error) => self.problem(&error),
            Ok((_, problems)) => self.problems.extend(problems),
        }
        match sink::sinks(&config.sink, &config.dead_letters()) {
            Err(error) => self.problem(&error),
            Ok(sinks) => {
                let checks: Vec<_> =
                    sinks.iter().map(|sink| sink.check().and_then(|()| sink.check_target())).collect();
                checks.into_iter().for_each(|checked| self.check_one(checked));
            }
        }
        for (key, folder) in [
            ("state_dir", Some(config.state_dir.as_path())),
            ("alerts.path", config.alerts.path.parent()),
            ("control.socket", config.control.socket.parent()),
        ] {
            self.check_one(folder.map_or(Ok(()), |folder| writable(key, folder)));
        }
        self.check_one(control::check(&config.control.socket));
        if !config.sink.is_empty() {
            self.check_mode(path);
        }
        match control::request(&config.control.socket, &Request::Status) {
            Err(error) => self.problem(&error),
            Ok(Some(_)) => self
                .notes
                .push(format!("an agent is running: it listens on {}", config.control.socket.display())),
            Ok(None) => {}
        }
        if config.sensor.enabled {
            match Sensor::start(&config.sensor, Arc::new(AtomicBool::new(true)), StoredFds::none()) {
                Ok(sensor) => {
                    self.hooks = sensor.hooks().to_vec();
                    if config.sensor.kernel_filter {
                        let rules = coverage::of_lane(&loaded.rules, schema, &config.sensor);
                        self.filtered =
                            sensor::filtered_kinds(&sensor::filter_for(&rules, &self.hooks), &self.hooks);
                    }
                }
                Err(error) => {
                    if let StartError::Hook(unattached) = &error {
                        self.hooks.clone_from(&unattached.reports);
                    }
                    self.problem(&error.into());
                }
            }
        } else if !config.cloudtrail.enabled() {
            self.problems.push(NO_SOURCE.to_owned());
        }
        self.check_places(config, loaded, schema);
        for rule in loaded.rules.iter().filter(|rule| rule.enabled && lanes(rule).is_empty()) {
            self.notes.push(format!("rule \"{}\" has no source: its index is {:?}", rule.name, rule.index));
        }
    }

    /// Rules on countries and cities cannot run without a GeoIP database.
    fn check_places(&mut self, config: &Config, loaded: &Loaded, schema: &Schema) {
        let cloudtrail = &config.cloudtrail;
        let geo = Geo::open(cloudtrail.geoip.as_deref(), cloudtrail.asn.as_deref(), &config.state_dir);
        let Some(missing) = geo.missing().filter(|_| cloudtrail.enabled()) else { return };
        for rule in rules::needing_places(&streams::CLOUDTRAIL.readers(&loaded.rules), schema) {
            self.notes.push(format!("rule \"{}\" cannot run: {missing}", rule.name));
        }
    }

    /// The configuration may contain secrets of sinks.
    fn check_mode(&mut self, path: &Path) {
        if std::fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o004 != 0) {
            let path = path.display();
            self.notes.push(format!(
                "{path} is readable by all users and may contain secrets: `chmod o-rwx {path}`"
            ));
        }
    }

    fn check_one(&mut self, checked: Result<()>) {
        if let Err(error) = checked {
            self.problem(&error);
        }
    }

    fn problem(&mut self, error: &anyhow::Error) {
        self.problems.push(format!("{error:#}"));
    }
}

/// Checks that files can be created in a folder, or in its nearest existing ancestor.
fn writable(key: &str, folder: &Path) -> Result<()> {
    let there = folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    tempfile::tempfile_in(there).map(drop).with_context(|| {
        format!(
            "{} is not writable for `{key}`; run as the agent's user, or set another path",
            there.display()
        )
    })
}

fn to_json(loaded: &Loaded, exceptions: &Exceptions, found: &Found, needs: &Needs) -> Json {
    let reports = || loaded.reports.iter().chain(&exceptions.reports);
    let count = |counts: fn(&Diagnostic) -> bool| {
        reports().flat_map(|found| &found.diagnostics).filter(|found| counts(found)).count()
    };
    let rules = loaded.rules.iter().zip(needs.to_json()).map(|(rule, coverage)| {
        json!({
            "id": rule.id,
            "name": rule.name,
            "file": &*rule.file,
            "type": rule.kind.name(),
            "enabled": rule.enabled,
            "lanes": lanes(rule),
            "coverage": coverage,
        })
    });
    json!({
        "loaded": loaded.rules.len(),
        "refused": loaded.refused(),
        // A rule that uses an unsupported feature is refused, but is no fault.
        "faults": count(|found| found.level() == Level::Error && !found.code.is_unsupported()),
        "warnings": count(|found| found.level() == Level::Warning),
        "rules": rules.collect::<Vec<_>>(),
        "exceptions": exceptions::to_json(exceptions),
        "diagnostics": reports().flat_map(report::to_json).collect::<Vec<_>>(),
        "hooks": found.hooks,
        "filtered_in_kernel": found.filtered.iter().map(|(kind, to)| json!({"record": kind, "to": to})).collect::<Vec<_>>(),
        "methods": sensor::methods().map(|(hook, all)| (hook.to_owned(), json!(all))).collect::<Map<_, _>>(),
        "problems": found.problems,
        "notes": found.notes,
    })
}

fn print_report(loaded: &Loaded, exceptions: &Exceptions, found: &Found, needs: &Needs) -> Result<()> {
    print_reports(loaded.reports.iter().chain(&exceptions.reports));
    let (rules, refused) = (loaded.rules.len(), loaded.refused());
    print(&format!("rules loaded: {rules}; files rejected: {refused}"))?;
    if rules > 0 {
        needs.print_summary()?;
    }
    exceptions::print_all(exceptions)?;
    for hook in &found.hooks {
        let method = hook.method.map(|method| format!(" by {method}")).unwrap_or_default();
        let reason = hook.reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
        let unseen = hook.unseen.map(|unseen| format!("; {unseen}")).unwrap_or_default();
        print(&format!("hook {}: {}{method}{unseen}{reason}", hook.name, hook.state))?;
    }
    for (kind, classes) in &found.filtered {
        print(&format!("filtered in kernel: {kind}, destination {} (no rule matches)", classes.join(", ")))?;
    }
    found.notes.iter().try_for_each(|note| print(&format!("note: {note}")))?;
    found.problems.iter().for_each(|problem| complain(&format!("error: {problem}")));
    if found.problems.is_empty() { Ok(()) } else { print(&format!("errors: {}", found.problems.len())) }
}
