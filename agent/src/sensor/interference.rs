//! Looks for interference with the sensor: its links, its filter, its hooks, its files, and its own progress.

use std::time::Instant;

use lapwing_common::Kind;

use super::Sensor;
use super::handover;
use super::hook::{HookReport, HookState, PTRACE};
use super::tamper::{Report, Subject};
use super::{own, touched, who};
use crate::alert::{Tampered, Weight};
use crate::integrity::{ChangeKind, FileChange, Integrity};

/// How long a wait for records must take to be reported: it is meant to take hundredths of a second.
const STALL_NANOS: u64 = 10_000_000_000;

impl Sensor {
    /// A wait that took far longer than it may: the agent was stopped, frozen, or got no processor. Where a signal is
    /// known to have stopped it, that is reported already.
    pub(super) fn look_for_stall(&mut self, (from, to): (u64, u64)) {
        let is_known = self
            .tamper
            .has(|subject| matches!(subject, Subject::Act { kind, .. } if *kind == Kind::SIGNAL.0));
        if to.saturating_sub(from) < STALL_NANOS || is_known {
            return;
        }
        let seconds = (to - from) / 1_000_000_000;
        let reason =
            format!("the sensor stood still for {seconds} s: it was stopped, frozen, or got no processor");
        self.tamper.done(Subject::Stalled, Report::new(reason, from, to, Weight::Managed));
    }

    /// Checks that what the sensor put into the kernel is untouched, and that it reports what happens. Returns what was
    /// not reported before.
    pub(super) fn watch_over(&mut self, now: u64) -> Vec<Tampered> {
        if self.stopped.is_some() {
            return Vec::new();
        }
        if let Some(touched) = self.stop_signal.over(now) {
            let found = touched::report(&touched, self.agent, now);
            found.into_iter().for_each(|(subject, report)| self.tamper.done(subject, report));
            self.stop_signal.reported(&touched);
        }
        let report = |reason, from| Report::new(reason, from, now, Weight::Interference);
        if let Some(found) = self.filter.verify() {
            let reason = format!(
                "the map FILTER, the kernel's connection filter, was changed to {found}: connections since the \
                 last check may have been missed"
            );
            self.tamper.done(Subject::Map("FILTER"), report(reason, self.looked));
        }
        self.look_at_links(now);
        let untestable = self.untestable();
        let has_lost = |from| self.losses.between(from, now) > 0;
        for (hook, fault) in self.canary.turn(now, &self.hooks, &untestable, has_lost) {
            match fault {
                None => self.tamper.resolve(&Subject::Hook(hook)),
                Some(fault) => {
                    let reason = format!("hook {hook} failed the self-test: {fault}");
                    self.tamper.raise(Subject::Hook(hook), report(reason, self.canary.good(hook)));
                    self.silent.push(hook);
                }
            }
        }
        self.looked = now;
        self.look_at_files(now);
        self.tamper.expire(now);
        let reports = self.tamper.take();
        reports.iter().map(|report| self.decoder.tampered(&self.table, report)).collect()
    }

    /// Where no hook records tracing of the agent, reads from procfs whether it is traced now.
    pub(super) fn look_for_tracer(&mut self, now: u64) {
        let is_shown = |hook: &HookReport| hook.name == PTRACE && hook.state == HookState::Attached;
        let Some(pid) = (!self.hooks.iter().any(is_shown)).then(own::tracer).flatten() else { return };
        let by = self.table.by_pid(pid).map(|process| process.key);
        let reason = format!("process {pid} traces the sensor, as a debugger does");
        let subject = Subject::Act { kind: Kind::PTRACE.0, what: 0, by: pid };
        let report = Report::new(reason, self.looked, now, Weight::Interference);
        self.tamper.done(subject, Report { by, ..report });
    }

    /// Checks that all is attached, and attaches again what is not.
    pub(super) fn look_at_links(&mut self, now: u64) {
        let Some(faults) = self.guard.look(now) else { return };
        self.look_for_tracer(now);
        let words: Vec<_> = faults.iter().map(|fault| fault.words.as_str()).collect();
        self.tamper.keep_links(&words);
        let silent = std::mem::take(&mut self.silent);
        let mut mended = Vec::new();
        for fault in &faults {
            self.is_number_lost |= !fault.occupy();
            let report = |reason| Report::new(reason, self.looked, now, Weight::Interference);
            let what = format!("a kernel program of the sensor is not attached any more: {}", fault.words);
            let Some(ebpf) = &mut self.ebpf else { continue };
            let is_silent = fault.program(ebpf).is_some_and(|(_, hook, _)| silent.contains(&hook));
            if self.fds_stored && !fault.is_detached && !is_silent {
                // Attached twice it would show all twice, and the service manager has a descriptor of its own.
                let reason = format!("{what}; the service manager may keep it attached; restart the service");
                let subject = Subject::Link(fault.words.clone());
                if !self.tamper.has(|known| *known == subject) {
                    self.canary.hurry();
                }
                self.tamper.raise(subject, report(reason));
                continue;
            }
            match fault.mend(ebpf) {
                Ok(hook) => {
                    mended.push(fault);
                    let reason = format!(
                        "{what}; the hook {hook} is attached again, and missed what happened meanwhile"
                    );
                    self.tamper.done(Subject::Link(hook.to_owned()), report(reason));
                }
                Err(error) => {
                    let reason =
                        format!("{what}; it cannot be attached again ({error}); restart the service");
                    self.tamper.raise(Subject::Link(fault.words.clone()), report(reason));
                }
            }
        }
        if !mended.is_empty() {
            self.guard.mended(&mended);
            self.canary.hurry();
            if self.fds_stored {
                handover::give_links();
            }
        }
    }

    /// Takes in changes of the agent's files, and finds their author.
    pub(super) fn look_at_files(&mut self, now: u64) {
        for change in self.integrity.iter().flat_map(Integrity::changes) {
            let subject = Subject::File(change.path.display().to_string());
            match change.outcome {
                ChangeKind::Restored => self.tamper.resolve(&subject),
                ChangeKind::Loaded => {
                    self.tamper.note(Report::new(change.reason, self.looked, now, Weight::Meant));
                }
                ChangeKind::Changed => self.tamper.changed(subject, self.change(change, now)),
                ChangeKind::Done => self.tamper.done(subject, self.change(change, now)),
            }
        }
    }

    /// The report of a change of a file, with its author.
    pub(super) fn change(&self, change: FileChange, now: u64) -> Report {
        let ago = |at: Instant| now.saturating_sub(u64::try_from(at.elapsed().as_nanos()).unwrap_or(0));
        let (from, to) = (ago(change.from), ago(change.to));
        let ran = self.table.between(from, to);
        let found = who::changed(&self.table, &ran, &change.path, &change.holders, self.agent);
        let is_meant = found.is_meant && !change.is_own;
        let weight = if is_meant { Weight::Meant } else { Weight::Interference };
        Report { reason: change.reason, from, to, by: found.key, who: found.words, weight }
    }

    /// Watches the agent's files from now on.
    pub(crate) fn watch_files(&mut self, integrity: Integrity) {
        self.integrity = Some(integrity);
    }
}
