//! `cargo xtask test`: runs every test, and counts those that passed, failed and could not run here.
//!
//! It parses the output of cargo and Rust's test harness. A test that cannot run on a machine prints a line `skipped:
//! WHY` and returns. The harness counts it as passed, this command as skipped.

mod report;
mod vm;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;

use self::report::Report;
use crate::shell::{self, output, say, step};
use crate::{build, needs, package, setup, targets};

/// The target that tests the installed package, and the variable with the package's path.
const SERVICE: (&str, &str) = ("service", "LAPWING_PACKAGE");

/// The variable with the path of the agent to test.
const AGENT: &str = "LAPWING_TEST_AGENT";

/// The target of abuse tests, and the variable with which acts run in full.
const ABUSE: (&str, &str) = ("abuse", "LAPWING_TEST_ABUSE");

/// The target of reverse and bind shells, the variable with which all of them run, and the tables that it writes to
/// cargo's folder.
const SHELLS: (&str, &str, [&str; 2]) = ("shells", "LAPWING_TEST_SHELLS", ["shells.txt", "shells-udp.txt"]);

/// A further test with a full form, in its target: a minute of alerts about large files.
const EVIDENCE: (&str, &str) = ("evasion", "evidence::with_large_ancestors");

#[derive(Args, Default)]
pub(crate) struct Arguments {
    /// Only tests whose names contain this
    filter: Option<String>,
    /// Only the live tests, on these kernels in an emulator, and on `host`, this machine's kernel; with every method of
    /// every hook in turn
    #[arg(long, value_name = "KERNELS", value_delimiter = ',')]
    vm: Vec<String>,
    /// Only the abuse tests, in full; every run has a short form of them
    #[arg(long, conflicts_with = "vm")]
    abuse: bool,
    /// Only the reverse and bind shells, all of them; every run has a few of them
    #[arg(long, conflicts_with = "vm")]
    shells: bool,
    /// All tests in full: also abuse and shells, and the live tests on every kernel in an emulator
    #[arg(long, conflicts_with_all = ["vm", "abuse", "shells", "filter"])]
    all: bool,
    /// Only these rounds, as 1 for each hook by its first method
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', requires = "vm")]
    rounds: Vec<usize>,
    /// Write the results into docs/kernels.md
    #[arg(long, requires = "vm", conflicts_with = "filter")]
    write: bool,
}

/// Runs the tests.
///
/// # Errors
/// A test fails; its output has been printed.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let start = Instant::now();
    let mut report = Report::new(say);
    if !arguments.vm.is_empty() {
        vm::run(arguments, &mut report)?;
    } else if !arguments.abuse && !arguments.shells {
        run_here(arguments, &mut report)?;
    }
    if arguments.abuse || arguments.all {
        run_abuse(arguments, &mut report)?;
    }
    if arguments.shells || arguments.all {
        run_shells(arguments, &mut report)?;
    }
    if arguments.all {
        let vm = vm::names().map(str::to_owned).collect();
        vm::run(&Arguments { vm, ..Arguments::default() }, &mut report)?;
    }
    report.skipped().for_each(|line| say(&line));
    say(&format!("{:.0} s in all", start.elapsed().as_secs_f64()));
    writeln!(std::io::stdout(), "{report}")?;
    match report.failed_targets() {
        [] => Ok(()),
        targets => bail!("tests failed in {}", targets.join(", ")),
    }
}

/// Runs every test that can run on this machine.
fn run_here(arguments: &Arguments, report: &mut Report) -> Result<()> {
    needs::install()?;
    let privileged = targets::privileged()?;
    let mut tests = Tests { environment: BTreeMap::new(), filter: arguments.filter.clone() };
    if shell::is_root() {
        let object = build::object(&setup::run()?, &build::Arguments::default())?;
        tests.environment.insert(build::OBJECT, object.display().to_string());
        tests.run(&["--workspace"], report)?;
        for target in &privileged {
            if target == SERVICE.0 {
                let package = package::run(&package::Arguments::default())?;
                tests.environment.insert(SERVICE.1, package.display().to_string());
            }
            tests.run(&["--package", "lapwing", "--test", target], report)?;
        }
    } else {
        tests.run(&["--workspace"], report)?;
        for target in &privileged {
            report.skip(tests.count(target)?, &format!("`{target}` needs root and its kernel"));
        }
    }
    Ok(())
}

/// Runs the abuse tests in full.
fn run_abuse(arguments: &Arguments, report: &mut Report) -> Result<()> {
    let tests = Tests::whole(ABUSE.1, arguments)?;
    tests.run(&["--package", "lapwing", "--test", ABUSE.0], report)?;
    if arguments.filter.is_some() {
        return Ok(());
    }
    let (target, test) = EVIDENCE;
    let tests = Tests { filter: Some(test.to_owned()), ..tests };
    tests.run(&["--package", "lapwing", "--test", target], report)
}

/// Runs all reverse and bind shells, and shows the result of each.
fn run_shells(arguments: &Arguments, report: &mut Report) -> Result<()> {
    let tests = Tests::whole(SHELLS.1, arguments)?;
    tests.run(&["--package", "lapwing", "--test", SHELLS.0], report)?;
    // The output of a failed target has been shown, and a filter may select no test with a table.
    let is_shown = report.failed_targets().iter().any(|target| target == SHELLS.0);
    for table in SHELLS.2.iter().filter(|_| !is_shown) {
        say(&fs::read_to_string(build::target().join("tmp").join(table)).unwrap_or_default());
    }
    Ok(())
}

/// The settings of a test run.
struct Tests {
    environment: BTreeMap<&'static str, String>,
    filter: Option<String>,
}

impl Tests {
    /// A run in the full form, which this variable selects, against an optimised agent.
    fn whole(variable: &'static str, arguments: &Arguments) -> Result<Self> {
        needs::install()?;
        let agent = build::run(&build::Arguments { release: true, ..build::Arguments::default() })?;
        let object = build::object(&setup::run()?, &build::Arguments::default())?;
        let environment = [
            (build::OBJECT, object.display().to_string()),
            (AGENT, agent.display().to_string()),
            (variable, "1".to_owned()),
        ];
        Ok(Self { environment: environment.into(), filter: arguments.filter.clone() })
    }

    /// Builds and runs the tests of a selection.
    fn run(&self, selection: &[&str], report: &mut Report) -> Result<()> {
        step(&format!("building tests: {}", selection.join(" ")), self.cargo(selection).arg("--no-run"))?;
        let mut cargo = self.cargo(selection);
        cargo.arg("--no-fail-fast").args(&self.filter).args(["--", "--show-output"]);
        // One pipe for standard output and error, so that their lines keep their order.
        let (reader, writer) = std::io::pipe()?;
        cargo.stdout(writer.try_clone()?).stderr(writer);
        let mut child = cargo.spawn().context("cargo")?;
        // The command holds the pipe's write end; while it exists, the reader would never end.
        drop(cargo);
        for line in BufReader::new(reader).split(b'\n') {
            report.line(&String::from_utf8_lossy(&line?));
        }
        report.end(child.wait()?.success());
        Ok(())
    }

    /// How many tests a target has.
    fn count(&self, target: &str) -> Result<usize> {
        let mut cargo = self.cargo(&["--package", "lapwing", "--test", target]);
        let list = output(cargo.arg("--quiet").args(&self.filter).args(["--", "--list"]))?;
        Ok(list.lines().filter(|line| line.ends_with(": test")).count())
    }

    fn cargo(&self, selection: &[&str]) -> Command {
        let mut cargo = shell::cargo();
        cargo.args(["test", "--locked"]).args(selection);
        cargo.envs(&self.environment);
        cargo
    }
}
