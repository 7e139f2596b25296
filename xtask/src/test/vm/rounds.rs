//! The live tests on one machine, as often as it takes for every method of every hook to have been the one that is
//! attached.
//!
//! Each method is first tried. Then come rounds: in the first each hook is attached by its first method that
//! works there, in the second by its second, and a hook that has no more by its first again.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::Value as Json;

use super::Programs;
use super::machine::Machine;
use crate::shell::say;
use crate::test::report::Report;

/// The variable with the path of the configuration of the tests' agent.
const CONFIG: &str = "LAPWING_LIVE_CONFIG";
/// Where things lie in a guest, and on this machine below the folder for temporary files.
const FOLDER: &str = "lapwing-kernels";

/// What came of one method of one hook.
pub(super) struct Outcome {
    pub(super) hook: String,
    pub(super) method: String,
    pub(super) result: Result<Tests, String>,
}

/// How the tests of a round ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Tests {
    pub(super) passed: usize,
    pub(super) failed: usize,
}

/// What is run.
#[derive(Clone, Copy)]
pub(super) struct Choice<'a> {
    /// Only tests whose names contain this.
    pub(super) tests: Option<&'a str>,
    /// Only these rounds, from 1 on; all where there are none.
    pub(super) rounds: &'a [usize],
}

/// Runs the rounds. After each, `write` gets the outcomes of all methods so far: a machine may not come to the end.
///
/// # Errors
/// The machine fails, or the agent does not say what it has.
pub(super) fn run(
    machine: &mut Machine,
    programs: &Programs,
    choice: Choice<'_>,
    report: &mut Report,
    write: impl Fn(&[Outcome]) -> Result<()>,
) -> Result<()> {
    let kernel = machine.kernel()?;
    let bench = Bench { programs, folder: std::env::temp_dir().join(FOLDER).display().to_string() };
    let outcomes = bench.attach_all(machine)?;
    for Outcome { hook, method, result } in &outcomes {
        let reported =
            result.as_ref().map_or_else(|why| format!("not available: {why}"), |_| "attached".to_owned());
        say(&format!("{hook} by {method} on Linux {kernel}: {reported}"));
    }
    if let Machine::Guest(_) = machine {
        let result = bench.silence(machine)?;
        report.one(&format!("a hook that is silent on Linux {kernel}"), result);
    }
    let mut outcomes = outcomes;
    write(&outcomes)?;
    let is_chosen = |round: &usize| choice.rounds.is_empty() || choice.rounds.contains(&(round + 1));
    for round in (0..most_methods(&outcomes)).filter(is_chosen) {
        let choices = choices(&outcomes, round);
        let methods: Vec<_> = choices.values().copied().collect();
        report.begin(format!("live on Linux {kernel} by {}", methods.join(", ")));
        bench.configure(machine, &choices)?;
        let before = report.counts();
        let line = format!(
            "{CONFIG}={}/lapwing.toml {} --show-output {}",
            bench.folder,
            programs.live.display(),
            choice.tests.unwrap_or_default()
        );
        let is_success = machine.run(&line, |line| report.line(line))?;
        report.end(is_success);
        let after = report.counts();
        let tests = Tests { passed: after.0 - before.0, failed: after.1 - before.1 };
        let choices: BTreeMap<_, _> =
            choices.iter().map(|(hook, method)| ((*hook).to_owned(), (*method).to_owned())).collect();
        for outcome in &mut outcomes {
            let is_chosen = choices.get(&outcome.hook) == Some(&outcome.method);
            if let Ok(reported @ Tests::NONE) = &mut outcome.result
                && is_chosen
            {
                *reported = tests;
            }
        }
        write(&outcomes)?;
    }
    Ok(())
}

impl Tests {
    /// Of a method that was attached and whose round has not ended.
    pub(super) const NONE: Self = Self { passed: 0, failed: 0 };
}

/// How many methods work of the hook that has most of them.
fn most_methods(outcomes: &[Outcome]) -> usize {
    let mut counts = BTreeMap::new();
    for outcome in outcomes.iter().filter(|outcome| outcome.result.is_ok()) {
        *counts.entry(&outcome.hook).or_insert(0) += 1;
    }
    counts.into_values().max().unwrap_or(1)
}

/// By which method each hook is attached in a round.
fn choices(outcomes: &[Outcome], round: usize) -> BTreeMap<&str, &str> {
    let mut working: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for outcome in outcomes.iter().filter(|outcome| outcome.result.is_ok()) {
        working.entry(&outcome.hook).or_default().push(&outcome.method);
    }
    working.into_iter().map(|(hook, methods)| (hook, *methods.get(round).unwrap_or(&methods[0]))).collect()
}

/// Whether the agent reported that a hook was attached by a method and worked, or why not.
fn attached(reported: &Json, hook: &str, method: &str) -> Result<Result<Tests, String>> {
    let reports = reported["hooks"].as_array().into_iter().flatten();
    let report = reports.into_iter().find(|report| report["name"] == hook);
    let report = report.with_context(|| format!("no report of `{hook}`: {reported}"))?;
    if report["state"] == "attached" {
        return Ok(Ok(Tests::NONE));
    }
    let reason = report["reason"].as_str().unwrap_or("no reason is given");
    Ok(Err(reason.rsplit_once(&format!("{method}: ")).map_or(reason, |(_, why)| why).to_owned()))
}

/// The agent on a machine.
struct Bench<'a> {
    programs: &'a Programs,
    folder: String,
}

impl Bench<'_> {
    /// Attaches each hook by each of its methods, where that can be: all hooks by their first, then by their second.
    fn attach_all(&self, machine: &mut Machine) -> Result<Vec<Outcome>> {
        self.configure(machine, &BTreeMap::new())?;
        let reported = self.check(machine)?;
        let hooks = reported["methods"].as_object().context("the agent reports no methods")?;
        let hooks: Vec<(&str, Vec<&str>)> = hooks
            .iter()
            .map(|(hook, all)| {
                (hook.as_str(), all.as_array().into_iter().flatten().filter_map(Json::as_str).collect())
            })
            .collect();
        let mut outcomes = Vec::new();
        for index in 0..hooks.iter().map(|(_, methods)| methods.len()).max().unwrap_or(0) {
            let choices: BTreeMap<_, _> =
                hooks.iter().filter_map(|(hook, methods)| Some((*hook, *methods.get(index)?))).collect();
            self.configure(machine, &choices)?;
            let reported = self.check(machine)?;
            for (hook, method) in choices {
                let result = attached(&reported, hook, method)?;
                outcomes.push(Outcome { hook: hook.to_owned(), method: method.to_owned(), result });
            }
        }
        let place = |hook: &str| hooks.iter().position(|(name, _)| *name == hook);
        // Within a hook they stay as they came.
        outcomes.sort_by_key(|outcome| place(&outcome.hook));
        Ok(outcomes)
    }

    /// Without ftrace no trampoline is entered: a hook that would be attached by one must come to another method, whether the
    /// kernel says so or the agent's own test does. What is wrong otherwise is the inner error.
    fn silence(&self, machine: &mut Machine) -> Result<Result<(), String>> {
        const SWITCH: &str = "/proc/sys/kernel/ftrace_enabled";
        self.configure(machine, &BTreeMap::new())?;
        machine.run(&format!("echo 0 >{SWITCH}"), |_| {})?;
        let reported = self.check(machine);
        machine.run(&format!("echo 1 >{SWITCH}"), |_| {})?;
        let reported = reported?;
        let accept = reported["hooks"].as_array().into_iter().flatten().find(|hook| hook["name"] == "accept");
        let accept = accept.context("no report of `accept`")?;
        say(&format!("accept without ftrace: {accept}"));
        let is_trampoline = accept["method"].as_str().is_some_and(|method| method.starts_with("fexit/"));
        let is_attached = accept["state"] == "attached" && !is_trampoline;
        Ok(is_attached.then_some(()).ok_or_else(|| accept.to_string()))
    }

    fn check(&self, machine: &mut Machine) -> Result<Json> {
        let agent = self.programs.agent.display();
        let mut said = String::new();
        // What is wrong beside the hooks is of no interest here.
        let line = format!("{agent} check --json --config {}/lapwing.toml 2>&1", self.folder);
        machine.run(&line, |line| {
            said.push_str(line);
            said.push('\n');
        })?;
        let json = said.lines().find(|line| line.starts_with('{'));
        let json = json.with_context(|| format!("`lapwing check` prints no JSON:\n{said}"))?;
        serde_json::from_str(json).context("the output of `lapwing check`")
    }

    fn configure(&self, machine: &mut Machine, choices: &BTreeMap<&str, &str>) -> Result<()> {
        let folder = &self.folder;
        let hooks = choices.iter().map(|(hook, method)| format!("hooks.{hook} = \"{method}\"\\n"));
        let config = format!(
            "state_dir = \"{folder}/state\"\\nrules.paths = []\\nalerts.path = \"{folder}/alerts.ndjson\"\\n\
             control.socket = \"{folder}/control.sock\"\\n[sensor]\\nudp = true\\n{}",
            hooks.collect::<String>()
        );
        let line = format!("mkdir -p {folder} && printf '{config}' >{folder}/lapwing.toml");
        let is_success = machine.run(&line, |_| {})?;
        is_success.then_some(()).context("the agent's configuration cannot be written")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_that_works_has_its_round() {
        let of = |hook: &str, method: &str, works: bool| Outcome {
            hook: hook.to_owned(),
            method: method.to_owned(),
            result: if works { Ok(Tests::NONE) } else { Err("no".to_owned()) },
        };
        let outcomes =
            [of("fork", "a", true), of("fork", "b", false), of("fork", "c", true), of("accept", "d", true)];
        assert_eq!(most_methods(&outcomes), 2);
        assert_eq!(choices(&outcomes, 0), BTreeMap::from([("fork", "a"), ("accept", "d")]));
        assert_eq!(choices(&outcomes, 1), BTreeMap::from([("fork", "c"), ("accept", "d")]));
    }
}
