//! `cargo xtask check`: everything that can be said of the project without running it.
//!
//! Every step runs, also after one has failed; each prints its time, and the output of a failing one is shown whole.

use std::io::Write;
use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;
use clap::builder::PossibleValuesParser;

use crate::shell::{self, output, say};
use crate::{targets, tidy, tools};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Only these steps
    #[arg(value_parser = PossibleValuesParser::new(STEPS.iter().map(|step| step.name)))]
    steps: Vec<String>,
}

/// One thing that is checked.
struct Step {
    name: &'static str,
    run: fn() -> Result<Outcome>,
}

/// What came of a step that did not fail.
enum Outcome {
    Passed,
    /// Something was left out, and why.
    Skipped(String),
}

const STEPS: &[Step] = &[
    Step { name: "format", run: format },
    Step { name: "tidy", run: tidy },
    Step { name: "licences", run: licences },
    Step { name: "advisories", run: advisories },
    Step { name: "clippy", run: clippy },
    Step { name: "clippy-kernel", run: clippy_kernel },
    Step { name: "docs", run: docs },
    Step { name: "rules", run: rules },
];

/// What belongs to the kernel programs, which are a workspace of their own.
const KERNEL: &str = "agent-ebpf/Cargo.toml";
/// What fuzzes, a workspace of its own too.
const FUZZER: &str = "agent/engine/fuzz/Cargo.toml";

/// Runs the steps.
///
/// # Errors
/// Which of them failed; what is wrong has been shown by then.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let is_wanted =
        |step: &&Step| arguments.steps.is_empty() || arguments.steps.iter().any(|name| name == step.name);
    let (mut failed, mut skipped) = (Vec::new(), Vec::new());
    let steps: Vec<_> = STEPS.iter().filter(is_wanted).collect();
    for step in &steps {
        let start = Instant::now();
        show(&format!("{:14} ", step.name));
        let result = (step.run)();
        let seconds = start.elapsed().as_secs_f64();
        match result {
            Ok(Outcome::Passed) => say(&format!("ok      {seconds:6.1} s")),
            Ok(Outcome::Skipped(why)) => {
                say(&format!("skipped {seconds:6.1} s"));
                skipped.push(format!("{}: skipped, {why}", step.name));
            }
            Err(error) => {
                say(&format!("FAILED  {seconds:6.1} s\n{error:#}\n"));
                failed.push(step.name);
            }
        }
    }
    skipped.iter().for_each(|line| say(line));
    if !failed.is_empty() {
        bail!("{} of {} checks failed: {}", failed.len(), steps.len(), failed.join(", "));
    }
    say(&format!("{} checks passed, {} skipped", steps.len() - skipped.len(), skipped.len()));
    Ok(())
}

fn format() -> Result<Outcome> {
    output(shell::cargo().args(["fmt", "--all", "--check"]))?;
    for manifest in [KERNEL, FUZZER] {
        output(shell::cargo().args(["fmt", "--all", "--check", "--manifest-path", manifest]))?;
    }
    Ok(Outcome::Passed)
}

fn tidy() -> Result<Outcome> {
    tidy::run().map(|()| Outcome::Passed)
}

fn clippy() -> Result<Outcome> {
    let strict = ["--", "--deny", "warnings"];
    let mut all = shell::cargo();
    all.args(["clippy", "--quiet", "--locked", "--workspace", "--all-targets"]).args(strict);
    output(&mut all)?;
    // `--all-targets` leaves out what a plain `cargo test` does not run.
    let mut privileged = shell::cargo();
    privileged.args(["clippy", "--quiet", "--locked", "--package", "lapwing"]);
    for target in targets::privileged()? {
        privileged.args(["--test", &target]);
    }
    output(privileged.args(strict))?;
    Ok(Outcome::Passed)
}

/// The kernel programs for the host's target, with the host's compiler: clippy looks at the source, and needs neither
/// the compiler for BPF nor the linker. They have no unwinding, hence the release profile.
fn clippy_kernel() -> Result<Outcome> {
    let mut clippy = shell::cargo();
    clippy.args(["clippy", "--quiet", "--locked", "--release", "--all-features", "--bins"]);
    clippy.args(["--manifest-path", KERNEL, "--target-dir", "target/ebpf", "--", "--deny", "warnings"]);
    // The programs add atomically by an instruction that is written out, which stable compilers refuse for this machine.
    output(clippy.env("RUSTC_BOOTSTRAP", "1"))?;
    Ok(Outcome::Passed)
}

fn docs() -> Result<Outcome> {
    let mut doc = shell::cargo();
    doc.args(["doc", "--quiet", "--locked", "--workspace", "--no-deps", "--document-private-items"]);
    output(doc.env("RUSTDOCFLAGS", "--deny warnings"))?;
    Ok(Outcome::Passed)
}

/// The rules that are shipped load without a fault, and their tests pass.
fn rules() -> Result<Outcome> {
    for verb in [&["check", "--rules"][..], &["test"]] {
        let mut lapwing = shell::cargo();
        lapwing.args(["run", "--quiet", "--locked", "--package", "lapwing", "--"]).args(verb);
        output(lapwing.arg("packaging/rules"))?;
    }
    Ok(Outcome::Passed)
}

fn licences() -> Result<Outcome> {
    for manifest in ["Cargo.toml", KERNEL] {
        deny(manifest, &["licenses", "bans", "sources"])?;
    }
    Ok(Outcome::Passed)
}

/// Known faults of the crates that are used. The database of them lies on GitHub, which not every machine reaches.
fn advisories() -> Result<Outcome> {
    const UNREACHED: &str = "failed to fetch advisory database";
    for manifest in ["Cargo.toml", KERNEL] {
        if let Err(error) = deny(manifest, &["advisories"]) {
            let said = error.to_string();
            if !said.contains(UNREACHED) {
                return Err(error);
            }
            let why = said.lines().find_map(|line| line.strip_prefix("fatal: ")).unwrap_or(UNREACHED);
            return Ok(Outcome::Skipped(format!("the database of advisories is not to be had: {why}")));
        }
    }
    Ok(Outcome::Passed)
}

fn deny(manifest: &str, checks: &[&str]) -> Result<()> {
    let mut deny = Command::new(tools::DENY.install()?);
    deny.args([
        "--color",
        "never",
        "--locked",
        "--config",
        "deny.toml",
        "--manifest-path",
        manifest,
        "check",
    ]);
    deny.args(checks).current_dir(shell::root());
    output(&mut deny).map(drop)
}

/// Begins a line that is ended when the step is.
fn show(text: &str) {
    // A closed standard error is no reason to stop checking.
    let _ = write!(std::io::stderr(), "{text}");
}
