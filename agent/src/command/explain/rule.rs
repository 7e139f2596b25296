//! Explains a rule, and why it did or did not match recorded events.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use lapwing_engine::coverage::{Coverage, coverage};
use lapwing_engine::detect::Limits;
use lapwing_engine::explain::{Bound, Explainer, Explanation, bounds, spelled};
use lapwing_engine::lang::format;
use lapwing_engine::rule::{Exceptions, RuleKind};
use lapwing_engine::{Loaded, Options, Rule, Schema};
use serde_json::{Value as Json, json};

use super::super::{Refused, complain, print, print_json, print_reports, replay};
use super::Args;
use crate::config::Config;
use crate::explain::{Marks, lines, names, to_json};
use crate::source::cloudtrail::Geo;
use crate::source::{Documents, Recorded, Replay};
use crate::terminal::escape;
use crate::{coverage as here, indicators, report, rules};

/// How far out of order recorded events may be, as in a replay.
const LATENESS: std::time::Duration = replay::LATENESS;

/// Prints what the rule does or, with events, why it did or did not match.
pub(super) fn explain(
    rule: &Arc<Rule>,
    loaded: &Loaded,
    mut schema: Schema,
    args: &Args,
    config: &Config,
) -> Result<()> {
    let configured = Some(&config.rules.exceptions).filter(|_| args.rules.is_empty());
    let exceptions = rules::exceptions(args.exceptions.as_ref().or(configured), &mut schema)?;
    print_reports(&exceptions.reports);
    let schema = &Arc::new(schema);
    let found = coverage(rule, &here::sources(None), schema);
    let queries = queries(rule, schema);
    let bounds = bounds(rule, Options::default().limits);
    let explanation = match args.events.as_slice() {
        [] => None,
        files => Some(run(rule, schema, files, &exceptions, config)?),
    };
    let reports: Vec<_> = loaded.reports.iter().filter(|report| report.file == rule.file).collect();
    if args.json {
        let object = json!({
            "id": rule.id,
            "name": rule.name,
            "file": &*rule.file,
            "type": rule.kind.name(),
            "enabled": rule.enabled,
            "query": queries.iter().map(|(_, text)| text).collect::<Vec<_>>(),
            "listens": found.listens,
            "source": found.source,
            "coverage": {
                "missing_fields": found.missing_fields,
                "missing_events": found.missing_events,
                "can_match": found.can_match,
            },
            "memory": bounds.iter().map(bound_to_json).collect::<Vec<_>>(),
            "diagnostics": reports.iter().copied().flat_map(report::to_json).collect::<Vec<_>>(),
            "explanation": explanation.as_ref().map(|explanation| to_json(explanation, schema)),
        });
        return print_json(&object.to_string());
    }
    let enabled = if rule.enabled { "" } else { ", not enabled" };
    print(&escape(&rule.name))?;
    print(&escape(&format!("{}, {}, {}{enabled}, {}", rule.kind.name(), rule.severity, rule.id, rule.file)))?;
    if let Some(explanation) = explanation {
        print("")?;
        let names = names(rule);
        return lines(&explanation, &names, Marks::of_locale()).iter().try_for_each(|line| print(line));
    }
    print_rule(rule, &queries, &found, &bounds)?;
    print_reports(reports);
    Ok(())
}

/// The rule's typed queries, each with a title.
fn queries(rule: &Rule, schema: &Schema) -> Vec<(&'static str, String)> {
    let text = match &rule.kind {
        RuleKind::Eql(query) => query.display(schema).to_string(),
        RuleKind::Query(query)
        | RuleKind::NewTerms { query, .. }
        | RuleKind::Threshold { query, .. }
        | RuleKind::ThreatMatch { query, .. } => query.display(schema).to_string(),
        RuleKind::MachineLearning { jobs, .. } => {
            let queries = jobs.iter().map(|job| job.query.display(schema).to_string());
            queries.collect::<Vec<_>>().join("\n")
        }
    };
    let of = if matches!(rule.kind, RuleKind::MachineLearning { .. }) { "query of the job" } else { "query" };
    vec![(of, format::typed(&text))]
}

fn print_rule(rule: &Rule, queries: &[(&str, String)], found: &Coverage, bounds: &[Bound]) -> Result<()> {
    for (title, text) in queries {
        print(&format!("\n{title}, compiled"))?;
        text.lines().try_for_each(|line| print(&escape(&format!("  {line}"))))?;
    }
    print("\nevents")?;
    for (name, kinds) in names(rule).iter().zip(&found.listens) {
        let source = found.source.as_deref().unwrap_or_default();
        let kinds = if kinds.is_empty() {
            "no source on this host".to_owned()
        } else {
            format!("{source}: {}", kinds.join(", "))
        };
        print(&escape(&format!("  {name}: {kinds}")))?;
    }
    let missing = found.missing_events.iter().map(|event| format!("event {event}"));
    let missing = missing.chain(found.missing_fields.iter().map(|field| format!("field {field}")));
    missing.into_iter().try_for_each(|missing| print(&escape(&format!("  missing {missing}"))))?;
    if !found.can_match {
        print("  it can never match")?;
    }
    print("\nstate")?;
    if bounds.is_empty() {
        print("  none: each event is evaluated by itself")?;
    }
    bounds.iter().try_for_each(|bound| print(&format!("  {}", bound_text(bound))))
}

fn bound_text(bound: &Bound) -> String {
    let bytes = bound.bytes_max.map(|bytes| bytesize::ByteSize(bytes as u64).display().iec().to_string());
    let most = bytes.or(bound.entries_max.map(|entries| entries.to_string())).unwrap_or_default();
    let window = match bound.window {
        Some(window) => format!("for {}", spelled(window)),
        None => "until evicted".to_owned(),
    };
    format!("{}: at most {most}, {window}", bound.what)
}

fn bound_to_json(bound: &Bound) -> Json {
    json!({
        "what": bound.what,
        "bytes_max": bound.bytes_max,
        "entries_max": bound.entries_max,
        "window_seconds": bound.window.map(|window| window.as_secs_f64()),
    })
}

/// Runs the rule on the events.
fn run(
    rule: &Arc<Rule>,
    schema: &Arc<Schema>,
    files: &[PathBuf],
    exceptions: &Exceptions,
    config: &Config,
) -> Result<Explanation> {
    let limits = Limits { unordered_bytes_max: replay::UNORDERED_BYTES_MAX, ..Limits::default() };
    let options = Options { lateness: LATENESS, limits, ..Options::default() };
    let (indicators, problems) = indicators::load(&config.indicators)?;
    problems.iter().for_each(|problem| complain(problem));
    let mut explainer = Explainer::new(rule, schema.clone(), options)
        .with_exceptions(&exceptions.list)
        .with_indicators(&indicators.into());
    let cloudtrail = &config.cloudtrail;
    let geo = Geo::open(cloudtrail.geoip.as_deref(), cloudtrail.asn.as_deref(), &std::env::temp_dir());
    let mut source = Replay::new(schema.clone(), geo);
    let mut refused = Refused::default();
    for file in files {
        for event in source.events(Documents::open(file)?) {
            match event {
                Ok(Recorded { event, .. }) => explainer.push(event),
                Err(error) => refused.report_error(&error),
            }
        }
    }
    refused.finish();
    Ok(explainer.finish())
}
