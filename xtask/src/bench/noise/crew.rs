//! Who does the work: servers are started, then a few workers do one act after the other, all rounds of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{IsTerminal as _, stderr};
use std::path::Path;
use std::process::Child;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use jiff::Timestamp;

use super::stage::Stage;
use super::workload::{Act, ROOT, Server, Workload};
use crate::shell::say;

/// Workers beyond one for each processor: acts wait more than they compute.
const WORKERS_MORE: usize = 1;
/// How long a server may take to be ready before it counts as one that does not start.
const READY_MAX: Duration = Duration::from_secs(300);
/// How often it is looked whether a server is ready.
const READY_EVERY: Duration = Duration::from_millis(200);
/// Lines of what a script printed that are shown where it failed.
const SAID_LINES: usize = 12;

pub(super) struct Crew<'a> {
    stage: &'a Stage,
    workload: &'a Workload,
    scale: f64,
    /// Servers that did not start, and why.
    broken: BTreeMap<&'a str, String>,
}

/// What came of an act.
pub(super) struct Turn {
    pub(super) act: String,
    pub(super) may_alert: Option<String>,
    pub(super) rounds: u32,
    pub(super) failed: u32,
    /// What it printed at last, where a round failed.
    pub(super) said: String,
    pub(super) start: Timestamp,
    pub(super) end: Timestamp,
}

impl<'a> Crew<'a> {
    pub(super) fn new(stage: &'a Stage, workload: &'a Workload, scale: f64) -> Self {
        Self { stage, workload, scale, broken: BTreeMap::new() }
    }

    /// Starts the servers, all at once, and waits until each is ready.
    pub(super) fn start_servers(&mut self) -> Result<()> {
        let mut started = Vec::new();
        for (number, server) in self.workload.servers.iter().enumerate() {
            let folder = self.stage.own("servers", &server.name)?;
            let script = self.stage.write(&folder, "run", &server.run)?;
            let child = self.stage.script(server.host, ROOT, &script, number)?.spawn().context("setsid")?;
            started.push((number, server, child, folder));
        }
        for (number, server, mut child, folder) in started {
            say_progress(&format!("starting {}", server.name));
            if !self.is_ready(number, server, &mut child, &folder)? {
                self.broken.insert(&server.name, last_lines(&folder.join("log")));
            }
        }
        Ok(())
    }

    fn is_ready(&self, number: usize, server: &Server, child: &mut Child, folder: &Path) -> Result<bool> {
        let (start, script) = (Instant::now(), self.stage.write(folder, "ready", &server.ready)?);
        while start.elapsed() < READY_MAX && child.try_wait()?.is_none() {
            if self.stage.script(server.host, ROOT, &script, number)?.status()?.success() {
                return Ok(true);
            }
            std::thread::sleep(READY_EVERY);
        }
        Ok(false)
    }

    /// Does all acts. Returns what came of each, in their order.
    pub(super) fn work(&self) -> Result<Vec<Turn>> {
        let (next, turns) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let acts = &self.workload.acts;
        let work = || -> Result<()> {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(act) = acts.get(number) else { return Ok(()) };
                let turn = self.turn(number, act).with_context(|| act.name.clone())?;
                let mut turns = turns.lock().unwrap_or_else(PoisonError::into_inner);
                turns.push((number, turn));
                let (_, turn) = &turns[turns.len() - 1];
                say_progress(&format!("{} of {}: {}", turns.len(), acts.len(), turn.line()));
            }
        };
        let workers = std::thread::available_parallelism()?.get() + WORKERS_MORE;
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            workers
                .into_iter()
                .try_for_each(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })?;
        let mut turns = turns.into_inner().unwrap_or_else(PoisonError::into_inner);
        turns.sort_by_key(|(number, _)| *number);
        Ok(turns.into_iter().map(|(_, turn)| turn).collect())
    }

    /// All rounds of an act.
    fn turn(&self, number: usize, act: &Act) -> Result<Turn> {
        let (rounds, start) = (act.rounds(self.scale), Timestamp::now());
        let folder = self.stage.own("acts", &act.name)?;
        let broken = act.uses.iter().find_map(|name| Some((name, self.broken.get(name.as_str())?)));
        let mut failed = 0;
        let said = match broken {
            Some((name, said)) => {
                failed = rounds;
                format!("the server {name} does not start:\n{said}")
            }
            None if !self.is_set_up(number, act, &folder)? => {
                failed = rounds;
                last_lines(&folder.join("log"))
            }
            None => {
                let script = self.stage.write(&folder, "run", &act.run)?;
                let mut said = String::new();
                for round in 1..=rounds {
                    if !self.is_done(number, act, &script, round)? {
                        failed += 1;
                        said = last_lines(&folder.join("log"));
                    }
                }
                said
            }
        };
        let (act, may_alert) = (act.name.clone(), act.may_alert.clone());
        Ok(Turn { act, may_alert, rounds, failed, said, start, end: Timestamp::now() })
    }

    fn is_set_up(&self, number: usize, act: &Act, folder: &Path) -> Result<bool> {
        if act.setup.is_empty() {
            return Ok(true);
        }
        let script = self.stage.write(folder, "setup", &act.setup)?;
        Ok(self.stage.script(act.host, ROOT, &script, number)?.status()?.success())
    }

    fn is_done(&self, number: usize, act: &Act, script: &Path, round: u32) -> Result<bool> {
        let mut command = self.stage.script(act.host, &act.user, script, number)?;
        let status = command.env("ROUND", round.to_string()).status()?;
        Ok(status.success())
    }
}

impl Turn {
    fn line(&self) -> String {
        let Self { act, rounds, failed, start, end, .. } = self;
        let seconds = end.duration_since(*start).as_secs_f64();
        let failed = if *failed > 0 { format!(", {failed} failed") } else { String::new() };
        format!("{act}, {rounds} rounds, {seconds:.1} s{failed}")
    }
}

/// Says how it goes, to a person.
fn say_progress(text: &str) {
    if stderr().is_terminal() {
        say(text);
    }
}

/// The end of a file, as far as it is text.
fn last_lines(path: &Path) -> String {
    let text = String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(SAID_LINES)..].join("\n")
}
