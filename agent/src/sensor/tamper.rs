//! The state of tampering with the sensor; this module is its only owner. A lasting condition stays until it is
//! resolved. A completed act stays for 10 minutes, so that `lapwing status` shows it.
//!
//! It builds no alert and no event. Each condition is reported once, when it begins.

use std::collections::BTreeMap;
use std::mem::discriminant;

use super::key::Key;
use crate::alert::Weight;

/// How long an act stays in the status after it was done.
const ACT_NANOS: u64 = 600_000_000_000;
/// How long an administrator has to load a change.
const MEANT_NANOS: u64 = 600_000_000_000;
/// How long a repeated act is not reported again.
const REPEAT_NANOS: u64 = 30_000_000_000;
/// The same for a file. Further changes within this time are reported after it.
const FILE_REPEAT_NANOS: u64 = 8_000_000_000;
/// Maximum number of conditions of one kind, so that one kind does not displace another. Further ones are counted.
const TROUBLES_MAX: usize = 32;
/// Maximum number of bytes of a stored reason, and of a reported one.
const REASON_BYTES_MAX: usize = 1 << 10;
const REPORT_BYTES_MAX: usize = 4 << 10;

/// The subject of a condition. There is one condition for each subject.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    /// A hook records nothing, or something wrong.
    Hook(&'static str),
    /// A program is not attached any more.
    Link(String),
    /// A map does not have the values that the sensor wrote.
    Map(&'static str),
    /// An act on the agent: the kind of its record, a number that specifies the act, and the pid of the acting process.
    Act { kind: u16, what: u32, by: u32 },
    /// The agent did not run.
    Stalled,
    /// A file of the agent is not what it loaded, or was lost.
    File(String),
}

/// A report of a condition.
#[derive(Clone, Debug)]
pub(super) struct Report {
    /// The condition, in a sentence.
    pub(super) reason: String,
    /// The earliest possible time, and the time of detection, in nanoseconds since boot.
    pub(super) from: u64,
    pub(super) to: u64,
    /// The acting process, if known, and its description, if it is not part of the reason.
    pub(super) by: Option<Key>,
    pub(super) who: String,
    /// Its weight.
    pub(super) weight: Weight,
}

/// The state.
#[derive(Default)]
pub(super) struct Tamper {
    troubles: BTreeMap<Subject, Trouble>,
    /// Pending reports, each with whether it is about a file.
    reports: Vec<(bool, Report)>,
    /// Reports in all.
    reported: u64,
    /// Conditions beyond [`TROUBLES_MAX`].
    unlisted: u64,
}

struct Trouble {
    reason: String,
    phase: Phase,
    weight: Weight,
    /// The time of the last report.
    reported: u64,
    /// A pending report, which is sent after [`Subject::repeat_nanos`].
    owed: Option<Report>,
}

/// How long a condition lasts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Until it is resolved.
    Lasting,
    /// Until this time.
    Until(u64),
    /// It is over, and is kept so that it is not reported again at once.
    Over,
}

impl Tamper {
    /// Adds a condition that lasts until it is resolved.
    pub(super) fn raise(&mut self, subject: Subject, report: Report) {
        self.add(subject, report, Phase::Lasting);
    }

    /// Adds a completed act.
    pub(super) fn done(&mut self, subject: Subject, report: Report) {
        let until = Phase::Until(report.to.saturating_add(ACT_NANOS));
        match self.troubles.get_mut(&subject).filter(|_| subject.is_file()) {
            Some(known) => known.owe(report, until),
            None => self.add(subject, report, until),
        }
    }

    /// Adds or updates the condition of a file that differs from the loaded one. An administrator's change is accepted
    /// for [`MEANT_NANOS`]. Further changes are reported with a delay.
    pub(super) fn changed(&mut self, subject: Subject, mut report: Report) {
        let meant = Phase::Until(report.to.saturating_add(MEANT_NANOS));
        let is_meant = report.weight == Weight::Meant;
        let Some(known) = self.troubles.get_mut(&subject) else {
            return self.add(subject, report, if is_meant { meant } else { Phase::Lasting });
        };
        let phase = match known.phase {
            Phase::Over if is_meant => meant,
            // Interference keeps its weight, also if an administrator changes the file again.
            phase if is_meant => {
                report.weight = known.weight;
                phase
            }
            _ => Phase::Lasting,
        };
        known.owe(report, phase);
    }

    /// Reports that a loaded file has changed since the previous run. This is not a condition.
    pub(super) fn note(&mut self, report: Report) {
        self.report(true, report);
    }

    /// Resolves a condition.
    pub(super) fn resolve(&mut self, subject: &Subject) {
        let Some(trouble) = self.troubles.get_mut(subject) else { return };
        if trouble.phase != Phase::Over {
            tracing::info!("resolved: {}", trouble.reason);
        }
        trouble.phase = Phase::Over;
        if !subject.is_file() {
            self.troubles.remove(subject);
        }
    }

    /// Drops conditions of links that are over; only links end this way.
    pub(super) fn keep_links(&mut self, faults: &[&str]) {
        let is_over =
            |subject: &Subject| matches!(subject, Subject::Link(fault) if !faults.contains(&&**fault));
        self.troubles.retain(|subject, trouble| trouble.phase != Phase::Lasting || !is_over(subject));
    }

    /// Drops old acts, and sends pending reports: changes soon after a report, and an administrator's changes that were
    /// never loaded.
    pub(super) fn expire(&mut self, now: u64) {
        if self.troubles.is_empty() {
            return;
        }
        let mut due = Vec::new();
        self.troubles.retain(|subject, trouble| {
            let is_file = subject.is_file();
            let may_repeat = now >= trouble.reported.saturating_add(subject.repeat_nanos());
            match trouble.phase {
                // A pending report is sent, even if the condition is resolved.
                Phase::Over if may_repeat && trouble.owed.is_none() => return false,
                Phase::Until(until) if until <= now && trouble.weight == Weight::Meant => {
                    let report = trouble.unmeant(now);
                    (trouble.phase, trouble.weight, trouble.reported) = (Phase::Lasting, report.weight, now);
                    due.push((is_file, report));
                }
                Phase::Until(until) if until <= now => return false,
                _ if may_repeat && trouble.owed.is_some() => {
                    trouble.reported = now;
                    due.extend(trouble.owed.take().map(|report| (is_file, report)));
                }
                _ => {}
            }
            true
        });
        due.into_iter().for_each(|(is_file, report)| self.report(is_file, report));
    }

    /// The pending reports. Changes of files at one time by one process are one report.
    pub(super) fn take(&mut self) -> Vec<Report> {
        let (mut lots, mut taken): (Vec<Report>, Vec<Report>) = (Vec::new(), Vec::new());
        for (is_file, report) in std::mem::take(&mut self.reports) {
            let is_same =
                |lot: &&mut Report| (lot.by, &lot.who, lot.weight) == (report.by, &report.who, report.weight);
            match lots.iter_mut().find(is_same) {
                Some(lot) if is_file => lot.join(&report),
                _ if is_file => lots.push(report),
                _ => taken.push(report),
            }
        }
        taken.append(&mut lots);
        taken
    }

    /// Whether there is a condition with such a subject.
    pub(super) fn has(&self, is_it: impl Fn(&Subject) -> bool) -> bool {
        self.troubles.keys().any(is_it)
    }

    /// All conditions, in sentences.
    pub(super) fn reasons(&self) -> Vec<&str> {
        self.of(|trouble| trouble.weight != Weight::Meant)
    }

    /// An administrator's changes that are not loaded yet, in sentences.
    pub(super) fn meant(&self) -> Vec<&str> {
        self.of(|trouble| trouble.weight == Weight::Meant)
    }

    fn of(&self, is_it: impl Fn(&Trouble) -> bool) -> Vec<&str> {
        let troubles =
            self.troubles.values().filter(|trouble| trouble.phase != Phase::Over && is_it(trouble));
        troubles.map(|trouble| trouble.reason.as_str()).collect()
    }

    /// How many reports there were, and how many conditions found no room.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.reported, self.unlisted)
    }

    fn add(&mut self, subject: Subject, report: Report, phase: Phase) {
        let known = self.troubles.get_mut(&subject);
        if let Some(known) = known {
            let was_over = std::mem::replace(&mut known.phase, phase) == Phase::Over;
            // A lasting condition is reported once.
            if phase == Phase::Lasting && !was_over || report.to < known.reported.saturating_add(REPEAT_NANOS)
            {
                return;
            }
        } else if self.is_full(&subject) {
            self.unlisted += 1;
            return;
        }
        let (reason, weight, reported) = (report.kept(), report.weight, report.to);
        let is_file = subject.is_file();
        self.troubles.insert(subject, Trouble { reason, phase, weight, reported, owed: None });
        self.report(is_file, report);
    }

    fn is_full(&self, subject: &Subject) -> bool {
        let kind = discriminant(subject);
        self.troubles.keys().filter(|other| discriminant(*other) == kind).count() >= TROUBLES_MAX
    }

    fn report(&mut self, is_file: bool, report: Report) {
        match report.weight {
            Weight::Meant => tracing::warn!("files of the sensor were changed: {}", report.text()),
            _ => tracing::error!("the sensor was tampered with: {}", report.text()),
        }
        self.reported += 1;
        self.reports.push((is_file, report));
    }
}

impl Report {
    /// A report without a process: it is not known, or the reason names it.
    pub(super) fn new(reason: String, from: u64, to: u64, weight: Weight) -> Self {
        Self { reason, from, to, by: None, who: String::new(), weight }
    }

    /// The reason with the description of the process.
    pub(super) fn text(&self) -> String {
        let apart = if self.who.is_empty() { "" } else { "; " };
        cut(&format!("{}{apart}{}", self.reason, self.who), REPORT_BYTES_MAX)
    }

    fn kept(&self) -> String {
        cut(&self.text(), REASON_BYTES_MAX)
    }

    /// Merges a report about another file by the same process.
    fn join(&mut self, other: &Self) {
        (self.from, self.to) = (self.from.min(other.from), self.to.max(other.to));
        if self.reason.len() + other.reason.len() < REPORT_BYTES_MAX - REASON_BYTES_MAX {
            self.reason = format!("{}; {}", self.reason, other.reason);
        } else if !self.reason.ends_with(MORE) {
            self.reason.push_str(MORE);
        }
    }
}

/// The end of a reason that does not name all files.
const MORE: &str = "; and more files, which `lapwing status` lists";

impl Subject {
    fn repeat_nanos(&self) -> u64 {
        if self.is_file() { FILE_REPEAT_NANOS } else { REPEAT_NANOS }
    }

    fn is_file(&self) -> bool {
        matches!(self, Self::File(_))
    }
}

impl Trouble {
    /// The condition of a subject changed: reported after the delay, or at once if its weight is higher.
    fn owe(&mut self, mut report: Report, phase: Phase) {
        if report.weight > self.weight {
            self.reported = 0;
        }
        (self.phase, self.reason, self.weight) = (phase, report.kept(), report.weight);
        report.reason = cut(&report.reason, REASON_BYTES_MAX);
        self.owed = Some(report);
    }

    /// The report of an administrator's change that was never loaded.
    fn unmeant(&self, now: u64) -> Report {
        let minutes = MEANT_NANOS / 60_000_000_000;
        let reason = format!("{}; no restart has loaded it within {minutes} minutes", self.reason);
        Report::new(reason, self.reported, now, Weight::Interference)
    }
}

/// The reason, cut to `bytes_max`.
fn cut(reason: &str, bytes_max: usize) -> String {
    reason[..reason.floor_char_boundary(bytes_max)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(reason: &str, to: u64) -> Report {
        Report::new(reason.to_owned(), 0, to, Weight::Interference)
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
        tamper.keep_links(&["b"]);
        assert_eq!(tamper.reasons(), ["b"]);
    }

    #[test]
    fn troubles_have_a_bound_and_leave_those_of_other_kinds_their_room() {
        let mut tamper = Tamper::default();
        for number in 0..TROUBLES_MAX + 3 {
            tamper.raise(Subject::Link(number.to_string()), report(&"x".repeat(2 * REASON_BYTES_MAX), 1));
        }
        assert_eq!((tamper.reasons().len(), tamper.counts()), (TROUBLES_MAX, (TROUBLES_MAX as u64, 3)));
        assert_eq!(tamper.reasons()[0].len(), REASON_BYTES_MAX);
        tamper.raise(Subject::Hook("exec"), report("exec is silent", 1));
        assert_eq!((tamper.reasons().len(), tamper.counts().1), (TROUBLES_MAX + 1, 3));
    }

    fn file() -> Subject {
        Subject::File("a.toml".to_owned())
    }

    fn meant(reason: &str, to: u64) -> Report {
        Report { weight: Weight::Meant, ..report(reason, to) }
    }

    /// The reports until a time, by reason and weight.
    fn reports(tamper: &mut Tamper, now: u64) -> Vec<(String, Weight)> {
        tamper.expire(now);
        tamper.take().into_iter().map(|report| (report.reason, report.weight)).collect()
    }

    #[test]
    fn what_an_administrator_means_becomes_interference_where_nothing_puts_it_into_force() {
        let mut tamper = Tamper::default();
        tamper.changed(file(), meant("a is b", 1));
        assert_eq!(reports(&mut tamper, 1), [("a is b".to_owned(), Weight::Meant)]);
        assert!(tamper.reasons().is_empty() && tamper.meant() == ["a is b"]);
        assert!(reports(&mut tamper, MEANT_NANOS).is_empty());
        let later = reports(&mut tamper, MEANT_NANOS + 1);
        assert!(later.len() == 1 && later[0].0.contains("no restart") && later[0].1 == Weight::Interference);
        assert!(tamper.reasons() == ["a is b"] && tamper.meant().is_empty());
        tamper.changed(file(), meant("a is c", MEANT_NANOS + 2));
        assert!(tamper.reasons() == ["a is c"], "an administrator's change does not hide it");
        tamper.resolve(&file());
        assert!(tamper.reasons().is_empty() && tamper.meant().is_empty());
    }

    #[test]
    fn files_that_one_process_changed_are_one_report() {
        let mut tamper = Tamper::default();
        for number in 0..TROUBLES_MAX {
            let report =
                Report { who: "by dpkg".to_owned(), ..meant(&format!("{number} is {}", "x".repeat(200)), 1) };
            tamper.changed(Subject::File(number.to_string()), report);
        }
        tamper.changed(Subject::File("other".to_owned()), report("other", 1));
        let found = tamper.take();
        assert_eq!(found.len(), 1, "the last found no room");
        let text = found[0].text();
        assert!(
            text.starts_with("0 is x") && text.contains("; 1 is x") && text.len() < REPORT_BYTES_MAX,
            "{text}"
        );
        assert!(text.ends_with(&format!("{MORE}; by dpkg")), "{text}");
        assert_eq!(tamper.meant().len(), TROUBLES_MAX);
    }

    #[test]
    fn interference_after_a_change_that_was_meant_is_reported_at_once() {
        let mut tamper = Tamper::default();
        tamper.changed(file(), meant("a is b", 1));
        tamper.changed(file(), report("a is c", 2));
        let found = reports(&mut tamper, FILE_REPEAT_NANOS);
        assert_eq!(
            found,
            [("a is b".to_owned(), Weight::Meant), ("a is c".to_owned(), Weight::Interference)]
        );
        assert_eq!(tamper.reasons(), ["a is c"]);
    }

    #[test]
    fn a_file_that_changes_to_and_fro_is_reported_once_in_a_while() {
        let mut tamper = Tamper::default();
        let mut count = 0;
        for second in 0..60 {
            let now = second * 1_000_000_000;
            tamper.changed(file(), report(&format!("a is {second}"), now));
            count += reports(&mut tamper, now).len();
            assert_eq!(tamper.reasons(), [format!("a is {second}")]);
            if second % 2 == 0 {
                tamper.resolve(&file());
                assert!(tamper.reasons().is_empty());
            }
        }
        assert_eq!(count, 60_000_000_000_u64.div_ceil(FILE_REPEAT_NANOS) as usize);
        tamper.resolve(&file());
        let last = 60_000_000_000 + FILE_REPEAT_NANOS;
        assert_eq!(reports(&mut tamper, last), [("a is 59".to_owned(), Weight::Interference)]);
        tamper.expire(last + FILE_REPEAT_NANOS);
        assert!(tamper.troubles.is_empty());
    }
}
