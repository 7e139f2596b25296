//! What came of it, for a person and for a program.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write as _};

use anyhow::Result;
use serde_json::json;

use super::Counts;
use super::alerts::Alert;
use super::crew::Turn;
use super::workload::Skipped;

pub(super) struct Report {
    alerts: Vec<Alert>,
    counts: Counts,
    seconds: f64,
    turns: Vec<Turn>,
    skipped: Vec<Skipped>,
}

impl Report {
    pub(super) fn new(
        alerts: Vec<Alert>,
        counts: Counts,
        seconds: f64,
        turns: Vec<Turn>,
        skipped: Vec<Skipped>,
    ) -> Self {
        Self { alerts, counts, seconds, turns, skipped }
    }

    /// Alerts by rules of ours that should not be there.
    pub(super) fn ours(&self) -> impl Iterator<Item = &Alert> {
        self.of_the_work().filter(|alert| alert.is_ours && alert.may_alert.is_none())
    }

    /// Alerts by rules of ours about what such a rule looks for, done by an authorized user.
    fn allowed(&self) -> impl Iterator<Item = &Alert> {
        self.of_the_work().filter(|alert| alert.is_ours && alert.may_alert.is_some())
    }

    fn of_the_work(&self) -> impl Iterator<Item = &Alert> {
        self.alerts.iter().filter(|alert| alert.is_of_the_work)
    }

    /// Alerts by rules that others wrote too: their number for each rule and act.
    fn others(&self) -> BTreeMap<(&str, &str), u64> {
        let mut counts = BTreeMap::new();
        for alert in self.of_the_work().filter(|alert| !alert.is_ours) {
            *counts.entry((alert.rule.as_str(), alert.act.as_deref().unwrap_or("?"))).or_default() += 1;
        }
        counts
    }

    /// Acts of which every round failed.
    pub(super) fn never(&self) -> impl Iterator<Item = &str> {
        self.turns.iter().filter(|turn| turn.failed == turn.rounds).map(|turn| turn.act.as_str())
    }

    fn failed(&self) -> impl Iterator<Item = &Turn> {
        self.turns.iter().filter(|turn| turn.failed > 0)
    }

    fn rounds(&self) -> u64 {
        self.turns.iter().map(|turn| u64::from(turn.rounds)).sum()
    }

    pub(super) fn print(&self, as_json: bool) -> Result<()> {
        if as_json || !io::stdout().is_terminal() { self.print_json() } else { self.print_table() }
    }

    fn print_json(&self) -> Result<()> {
        let Counts { execs, connects, records, lost, suppressed } = self.counts;
        let alert = |alert: &Alert| {
            let Alert { rule, act, during, may_alert, chain, reason, .. } = alert;
            json!({
                "rule": rule, "act": act, "during": during, "may_alert": may_alert, "chain": chain, "reason": reason,
            })
        };
        let turn = |turn: &Turn| {
            let Turn { act, rounds, failed, said, .. } = turn;
            json!({"act": act, "rounds": rounds, "failed": failed, "said": said})
        };
        let other = |((rule, act), count)| json!({"rule": rule, "act": act, "count": count});
        let skipped = |skipped: &Skipped| json!({"act": skipped.act, "why": skipped.why});
        let document = json!({
            "execs": execs, "connects": connects, "records": records, "lost": lost,
            "suppressed": suppressed, "seconds": self.seconds.round(),
            "acts": self.turns.len(), "rounds": self.rounds(),
            "ours": self.ours().map(alert).collect::<Vec<_>>(),
            "allowed": self.allowed().map(alert).collect::<Vec<_>>(),
            "others": self.others().into_iter().map(other).collect::<Vec<_>>(),
            "elsewhere": self.alerts.len() - self.of_the_work().count(),
            "failed": self.failed().map(turn).collect::<Vec<_>>(),
            "skipped": self.skipped.iter().map(skipped).collect::<Vec<_>>(),
        });
        Ok(writeln!(io::stdout(), "{document}")?)
    }

    fn print_table(&self) -> Result<()> {
        let mut out = io::stdout().lock();
        let others: u64 = self.others().values().sum();
        writeln!(out, "Noise")?;
        for (name, value) in [
            ("acts", self.turns.len().to_string()),
            ("rounds", self.rounds().to_string()),
            ("rounds that failed", self.turns.iter().map(|turn| turn.failed).sum::<u32>().to_string()),
            ("acts skipped", self.skipped.len().to_string()),
            ("time", format!("{:.0} s", self.seconds)),
            ("programs started", self.counts.execs.to_string()),
            ("connections", self.counts.connects.to_string()),
            ("records, whole machine", self.counts.records.to_string()),
            ("records lost", self.counts.lost.to_string()),
            ("alerts, rules of ours", self.ours().count().to_string()),
            ("the same, may alert", self.allowed().count().to_string()),
            ("alerts, other rules", others.to_string()),
            ("alerts held back", self.counts.suppressed.to_string()),
            ("alerts of other work", (self.alerts.len() - self.of_the_work().count()).to_string()),
        ] {
            writeln!(out, "  {name:<26}{value:>20}")?;
        }
        for alert in self.ours().chain(self.allowed()) {
            let Alert { rule, act, during, chain, reason, .. } = alert;
            writeln!(out, "\n{rule}: {}, during {}", act.as_deref().unwrap_or("?"), during.join(", "))?;
            writeln!(out, "  {reason}\n  {chain}")?;
            if let Some(why) = &alert.may_alert {
                writeln!(out, "  It may: {why}")?;
            }
        }
        for ((rule, act), count) in self.others() {
            writeln!(out, "\n{rule}: {count} of {act}")?;
        }
        for Turn { act, rounds, failed, said, .. } in self.failed() {
            writeln!(out, "\n{act}: {failed} of {rounds} rounds failed\n{said}")?;
        }
        for Skipped { act, why } in &self.skipped {
            writeln!(out, "\n{act}: skipped, {why}")?;
        }
        Ok(())
    }
}
