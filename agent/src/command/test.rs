//! `lapwing test`: runs rule tests.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lapwing_engine::{Rule, Schema};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use serde_json::json;

use super::{print, print_json, print_reports};
use crate::config::{Config, DEFAULT_PATH};
use crate::explain::{Marks, lines, names, to_json};
use crate::fixture::{Fixture, TestResult};
use crate::rules;
use crate::terminal::escape;

/// Maximum number of lines of a failure's explanation.
const REASON_LINES_MAX: usize = 40;

/// Run rule tests (NAME.test.toml)
///
/// Tests are `[[test]]` tables in a rule's file, or in NAME.test.toml beside NAME.toml. A failed test shows the events that
/// came closest to a match.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Rules to test instead of those of the configuration
    #[arg(value_name = "PATH")]
    rules: Vec<PathBuf>,
    /// Run only tests with this word in their name or their rule's name, or with this rule id
    #[arg(long, value_name = "WORD")]
    filter: Option<String>,
    /// Write a JUnit report to this file
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// Print JSON lines: one per test, then the counts
    #[arg(long)]
    json: bool,
}

/// A test with its result.
struct Ran<'a> {
    rule: &'a Rule,
    name: String,
    outcome: TestResult,
    took: Duration,
}

/// Runs it.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let paths =
        if args.rules.is_empty() { Config::read(&args.config)?.rules.paths } else { args.rules.clone() };
    let mut schema = Schema::new();
    let loaded = rules::load(&paths, &mut schema)?;
    print_reports(&loaded.reports);
    let faults = loaded.refused();
    let schema = Arc::new(schema);
    let mut untested = 0;
    let mut ran = Vec::new();
    for rule in &loaded.rules {
        let found = of_rule(rule, args.filter.as_deref(), &schema);
        let Some(found) = found else {
            untested += 1;
            continue;
        };
        if !found.is_empty() {
            print_outcomes(&found, &schema, args.json)?;
        }
        ran.extend(found);
    }
    let failed = ran.iter().filter(|ran| ran.outcome.failure.is_some()).count();
    let passed = ran.len() - failed;
    if let Some(file) = &args.junit {
        std::fs::write(file, junit(&ran)?)
            .with_context(|| format!("{} cannot be written", file.display()))?;
    }
    if args.json {
        let counts =
            json!({"passed": passed, "failed": failed, "untested_rules": untested, "faults": faults});
        print_json(&counts.to_string())?;
    } else {
        let rules = loaded.rules.len();
        print(&format!(
            "{passed} passed, {failed} failed; {untested} of {rules} rules have no test; {faults} files rejected"
        ))?;
    }
    let filter = args.filter.as_deref().unwrap_or_default();
    ensure!(filter.is_empty() || !ran.is_empty(), "no test or rule matches {filter:?}");
    Ok(if failed + faults == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the selected tests of a rule; `None` if it has no tests. A fixture that cannot be read is a failed test.
fn of_rule<'a>(rule: &'a Arc<Rule>, filter: Option<&str>, schema: &Arc<Schema>) -> Option<Vec<Ran<'a>>> {
    let wanted = filter.map(str::to_lowercase).unwrap_or_default();
    let is_wanted = |name: &str| {
        rule.id == wanted || [name, &rule.name].iter().any(|text| text.to_lowercase().contains(&wanted))
    };
    let broken = |name: &str, error: &anyhow::Error| Ran {
        rule,
        name: name.to_owned(),
        outcome: TestResult {
            failure: Some(format!("the test cannot be run: {error:#}")),
            explanation: None,
        },
        took: Duration::ZERO,
    };
    let fixture = match Fixture::read(Path::new(&*rule.file)) {
        Ok(fixture) => fixture,
        Err(error) => return Some(vec![broken("its tests", &error)]),
    };
    if fixture.tests.is_empty() {
        return None;
    }
    let mut ran = Vec::new();
    for test in fixture.tests.iter().filter(|test| is_wanted(&test.name)) {
        let start = Instant::now();
        ran.push(match fixture.run(test, rule, schema) {
            Ok(outcome) => Ran { rule, name: test.name.clone(), outcome, took: start.elapsed() },
            Err(error) => broken(&test.name, &error),
        });
    }
    Some(ran)
}

/// Prints the results of a rule's tests.
fn print_outcomes(ran: &[Ran<'_>], schema: &Schema, json: bool) -> Result<()> {
    if json {
        return ran.iter().try_for_each(|ran| {
            let TestResult { failure, explanation } = &ran.outcome;
            let why = explanation.as_ref().map(|explanation| to_json(explanation, schema));
            let object = json!({
                "rule": ran.rule.name,
                "rule_id": ran.rule.id,
                "test": ran.name,
                "failure": failure,
                "explanation": why,
            });
            print_json(&object.to_string())
        });
    }
    if let Some(first) = ran.first() {
        print(&escape(&first.rule.name))?;
    }
    for ran in ran {
        let Some(failure) = &ran.outcome.failure else {
            print(&escape(&format!("  ok      {}", ran.name)))?;
            continue;
        };
        print(&escape(&format!("  FAILED  {}", ran.name)))?;
        print(&escape(&format!("          {failure}")))?;
        reason(ran, Marks::of_locale()).iter().try_for_each(|line| print(&format!("          {line}")))?;
    }
    Ok(())
}

/// The explanation of a failure, in lines.
fn reason(ran: &Ran<'_>, marks: Marks) -> Vec<String> {
    let explanation = ran.outcome.explanation.as_ref();
    let mut shown = explanation.map(|found| lines(found, &names(ran.rule), marks)).unwrap_or_default();
    if shown.len() > REASON_LINES_MAX {
        shown.truncate(REASON_LINES_MAX);
        shown.push("(truncated; `lapwing explain` with these events shows all)".to_owned());
    }
    shown
}

/// The JUnit report: a suite for each rule.
fn junit(ran: &[Ran<'_>]) -> Result<String> {
    let mut report = Report::new("lapwing test");
    for of_rule in ran.chunk_by(|left, right| left.rule.id == right.rule.id) {
        let mut suite = TestSuite::new(of_rule[0].rule.name.as_str());
        for ran in of_rule {
            let mut status = TestCaseStatus::success();
            if let Some(failure) = &ran.outcome.failure {
                status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                status.set_message(failure.as_str());
                status.set_description(reason(ran, Marks::ascii()).join("\n"));
            }
            let mut case = TestCase::new(ran.name.as_str(), status);
            case.set_classname(&*ran.rule.file).set_time(ran.took);
            suite.add_test_case(case);
        }
        report.add_test_suite(suite);
    }
    report.to_string().context("the report cannot be written")
}
