//! The table of what came of all rows, and what is wrong with it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Instant;

use lapwing_stage::Alert;

use crate::alerts::{all, is_of, is_of_a_row, lacks};
use crate::data::{Benign, Data, Kind, Shell};
use crate::stage::{Came, Done, Stage};

#[derive(Default)]
pub(crate) struct Outcome {
    lines: Vec<String>,
    faults: usize,
    /// How many shells were got, and how many of them were alerted: of those the rules were first held against, and of
    /// further ones.
    counts: [[usize; 2]; 2],
    /// All alerts, as they stood in the log.
    documents: String,
}

impl Outcome {
    /// Does all rows, and holds the alerts against them.
    pub(crate) fn of(stage: &Stage, data: &Data, shells: &[&Shell], benign: &[&Benign]) -> Self {
        let start = Instant::now();
        let got = stage.each(shells, |shell| stage.shell(data, shell));
        let seemed = stage.each(benign, |benign| stage.benign(data, benign));
        let alerts = all(&stage.agent);
        let documents = alerts.iter().map(|alert| format!("{}\n", alert.document)).collect();
        let mut outcome = Self { documents, ..Self::default() };
        for (shell, done) in shells.iter().zip(&got) {
            let own: Vec<_> = alerts.iter().filter(|alert| is_of(alert, &done.words)).collect();
            outcome.shell(stage, shell, done, &own);
        }
        for (benign, done) in benign.iter().zip(&seemed) {
            let own: Vec<_> = alerts.iter().filter(|alert| is_of(alert, &done.words)).collect();
            outcome.benign(data, benign, done, &own);
        }
        // What others do on this machine meanwhile, but for the rows of another run.
        let is_of_none = |alert: &&Alert| {
            !is_of_a_row(alert) && got.iter().chain(&seemed).all(|done| !is_of(alert, &done.words))
        };
        for alert in alerts.iter().filter(is_of_none) {
            let (rule, line) = (alert.rule(), alert.text("/process/command_line"));
            outcome.lines.push(format!("  of no row: {rule}: {line:.120}"));
        }
        let [[got, alerted], [got_further, alerted_further]] = outcome.counts;
        outcome.lines.push(format!(
            "alerted: {alerted} of {got}, and {alerted_further} of {got_further} further ones; {} s",
            start.elapsed().as_secs()
        ));
        outcome
    }

    /// Prints the table, keeps it and the alerts in files of this name, and fails where something is wrong.
    pub(crate) fn say(self, name: &str) {
        let Self { lines, faults, documents, .. } = self;
        let text = lines.join("\n") + "\n";
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        fs::write(folder.join(format!("{name}.txt")), &text).expect("a file for the table");
        fs::write(folder.join(format!("{name}.ndjson")), documents).expect("a file for the alerts");
        // Shown by the harness beside the test's name.
        let _ = std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes());
        assert!(faults == 0, "{faults} rows are not as they should be; a `!` stands before each");
    }

    fn shell(&mut self, stage: &Stage, shell: &Shell, done: &Done, own: &[&Alert]) {
        let name = &shell.act.name;
        if self.is_without_outcome(name, &done.came) {
            return;
        }
        let is_meant =
            |alert: &Alert| shell.alerts.is_empty() || shell.alerts.iter().any(|rule| rule == alert.rule());
        let meant: Vec<_> = own.iter().filter(|alert| is_meant(alert)).collect();
        let counts = &mut self.counts[usize::from(shell.further)];
        counts[0] += 1;
        counts[1] += usize::from(!meant.is_empty());
        let lacking: Vec<_> = meant.iter().map(|alert| lacks(alert, &done.words, shell)).collect();
        let lacking =
            if lacking.iter().any(Option::is_none) { None } else { lacking.into_iter().flatten().next() };
        let needs_udp = shell.kind == Kind::Udp && !stage.has_udp;
        let (verdict, is_fault) = match (&shell.missed, meant.is_empty(), lacking) {
            (Some(why), true, _) => (format!("missed, as expected: {why}"), false),
            (None, true, _) if needs_udp => ("missed: the agent does not watch datagrams".to_owned(), false),
            (None, true, _) => ("MISSED".to_owned(), true),
            (_, false, Some(lacking)) => (format!("alerted, but it {lacking}"), true),
            (_, false, None) => ("alerted".to_owned(), false),
        };
        self.line(name, &verdict, &rules(own), is_fault);
    }

    fn benign(&mut self, data: &Data, benign: &Benign, done: &Done, own: &[&Alert]) {
        let name = &benign.act.name;
        if self.is_without_outcome(name, &done.came) {
            return;
        }
        let is_wrong = own.iter().any(|alert| data.own.iter().any(|rule| rule == alert.rule()));
        let verdict = match (is_wrong, own.is_empty()) {
            (true, _) => "benign, ALERTED",
            (false, true) => "benign, silent",
            (false, false) => "benign, alerted by rules of others",
        };
        self.line(name, verdict, &rules(own), is_wrong);
    }

    /// Takes a row that did not do what it is there for.
    fn is_without_outcome(&mut self, name: &str, came: &Came) -> bool {
        match came {
            Came::Worked => return false,
            Came::Failed(why) => self.line(name, "DID NOT WORK", why, true),
            Came::Skipped(why) => self.line(name, "skipped", why, false),
        }
        true
    }

    fn line(&mut self, name: &str, verdict: &str, more: &str, is_fault: bool) {
        let (sign, colon) = (if is_fault { '!' } else { ' ' }, if more.is_empty() { "" } else { ": " });
        self.faults += usize::from(is_fault);
        self.lines.push(format!("{sign} {name:<46} {verdict}{colon}{more}"));
    }
}

/// The names of the rules of alerts, each once.
fn rules(alerts: &[&Alert]) -> String {
    let names: BTreeSet<_> = alerts.iter().map(|alert| alert.rule()).collect();
    names.into_iter().collect::<Vec<_>>().join("; ")
}
