//! Whether somebody interfered with the sensor: the one owner of that state. What lasts is in it until it is resolved; an act
//! that is over stays for a while, so that whoever asks for the status sees it.
//!
//! It makes no alert and knows no event. Each trouble is reported once, when it begins.

use std::collections::BTreeMap;

use super::process::Key;

/// How long an act stays in the status after it was done.
const ACT_NANOS: u64 = 600_000_000_000;
/// How long an act that is done again is not reported again.
const REPEAT_NANOS: u64 = 30_000_000_000;
/// Most troubles at one time. Those beyond are counted.
const TROUBLES_MAX: usize = 64;

/// What is wrong. Two troubles of one subject are one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    /// A hook shows nothing, or something else than what happens.
    Hook(&'static str),
    /// A program is not attached any more.
    Link(String),
    /// A map held something else than what the sensor wrote.
    Map(&'static str),
    /// Somebody did something to the agent: the kind of its record, what it was, and the number of the process that did it.
    Act { kind: u16, what: u32, by: u32 },
    /// The agent stood still.
    Stalled,
}

/// Something to be reported.
#[derive(Clone, Debug)]
pub(super) struct Report {
    /// What is wrong, in a sentence.
    pub(super) reason: String,
    /// From when on it was so, at the earliest, and when it was noticed: nanoseconds since boot.
    pub(super) from: u64,
    pub(super) to: u64,
    /// Who did it, where that is known.
    pub(super) by: Option<Key>,
    /// Whether the kernel or the service manager did it.
    pub(super) is_managed: bool,
}

/// The state.
#[derive(Default)]
pub(super) struct Tamper {
    troubles: BTreeMap<Subject, Trouble>,
    reports: Vec<Report>,
    /// Reports in all.
    reported: u64,
    /// Troubles beyond [`TROUBLES_MAX`].
    unlisted: u64,
}

struct Trouble {
    reason: String,
    /// Until when it is shown; `None` for as long as it lasts.
    until: Option<u64>,
    /// When it was reported last.
    reported: u64,
}

impl Tamper {
    /// Something is wrong, and stays so until it is resolved.
    pub(super) fn raise(&mut self, subject: Subject, report: Report) {
        self.add(subject, report, None);
    }

    /// Something was done, and is over.
    pub(super) fn done(&mut self, subject: Subject, report: Report) {
        let until = report.to.saturating_add(ACT_NANOS);
        self.add(subject, report, Some(until));
    }

    /// Something is not wrong any more.
    pub(super) fn resolve(&mut self, subject: &Subject) {
        if let Some(trouble) = self.troubles.remove(subject) {
            tracing::info!("no longer so: {}", trouble.reason);
        }
    }

    /// Forgets the troubles of links that are none any more, but for these.
    pub(super) fn keep_links(&mut self, faults: &[String]) {
        self.troubles
            .retain(|subject, _| !matches!(subject, Subject::Link(fault) if !faults.contains(fault)));
    }

    /// Forgets acts that were long ago.
    pub(super) fn expire(&mut self, now: u64) {
        if !self.troubles.is_empty() {
            self.troubles.retain(|_, trouble| trouble.until.is_none_or(|until| until > now));
        }
    }

    /// What was not reported before.
    pub(super) fn take(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.reports)
    }

    /// Whether something of this kind is wrong.
    pub(super) fn has(&self, is_it: impl Fn(&Subject) -> bool) -> bool {
        self.troubles.keys().any(is_it)
    }

    /// Everything that is wrong, in sentences.
    pub(super) fn reasons(&self) -> Vec<&str> {
        self.troubles.values().map(|trouble| trouble.reason.as_str()).collect()
    }

    /// How many reports there were, and how many troubles found no room.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.reported, self.unlisted)
    }

    fn add(&mut self, subject: Subject, report: Report, until: Option<u64>) {
        let known = self.troubles.get_mut(&subject);
        if let Some(known) = known {
            known.until = until;
            // What lasts is reported once.
            if until.is_none() || report.to < known.reported.saturating_add(REPEAT_NANOS) {
                return;
            }
        } else if self.troubles.len() >= TROUBLES_MAX {
            self.unlisted += 1;
            return;
        }
        tracing::error!("the sensor was tampered with: {}", report.reason);
        let trouble = Trouble { reason: report.reason.clone(), until, reported: report.to };
        self.troubles.insert(subject, trouble);
        self.reported += 1;
        self.reports.push(report);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(reason: &str, to: u64) -> Report {
        Report { reason: reason.to_owned(), from: 0, to, by: None, is_managed: false }
    }

    #[test]
    fn a_trouble_is_reported_once_and_lasts_until_it_is_resolved() {
        let mut tamper = Tamper::default();
        tamper.raise(Subject::Hook("exec"), report("exec is silent", 1));
        tamper.raise(Subject::Hook("exec"), report("exec is silent", 2));
        tamper.done(Subject::Map("FILTER"), report("FILTER was changed", 3));
        assert_eq!(tamper.take().len(), 2);
        assert!(tamper.take().is_empty());
        tamper.expire(3 + ACT_NANOS - 1);
        assert_eq!(tamper.reasons(), ["exec is silent", "FILTER was changed"]);
        tamper.expire(3 + ACT_NANOS);
        assert_eq!(tamper.reasons(), ["exec is silent"]);
        tamper.resolve(&Subject::Hook("exec"));
        assert!(tamper.reasons().is_empty());
        tamper.raise(Subject::Hook("exec"), report("exec is silent", 4));
        assert_eq!(tamper.take().len(), 1, "it began again");
    }

    #[test]
    fn an_act_that_is_done_again_is_reported_again_after_a_while() {
        let mut tamper = Tamper::default();
        let act = Subject::Act { kind: 1, what: 2, by: 3 };
        for (time, is_reported) in [(1, true), (2, false), (REPEAT_NANOS, false), (REPEAT_NANOS + 1, true)] {
            tamper.done(act.clone(), report("it was done", time));
            assert_eq!(tamper.take().len(), usize::from(is_reported), "{time}");
        }
        assert_eq!(tamper.reasons().len(), 1);
    }

    #[test]
    fn links_that_are_attached_again_are_no_trouble() {
        let mut tamper = Tamper::default();
        for link in ["a", "b"] {
            tamper.raise(Subject::Link(link.to_owned()), report(link, 1));
        }
        tamper.keep_links(&["b".to_owned()]);
        assert_eq!(tamper.reasons(), ["b"]);
    }

    #[test]
    fn troubles_have_a_bound() {
        let mut tamper = Tamper::default();
        for number in 0..TROUBLES_MAX + 3 {
            tamper.raise(Subject::Link(number.to_string()), report("x", 1));
        }
        assert_eq!((tamper.reasons().len(), tamper.counts()), (TROUBLES_MAX, (TROUBLES_MAX as u64, 3)));
    }
}
