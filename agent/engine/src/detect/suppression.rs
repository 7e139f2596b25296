//! `alert_suppression`: the first alert of a group is raised. Further alerts within a time span are only counted.

use std::time::Duration;

use smol_str::SmolStr;

use super::actor::{Actor, Charge};
use super::window::Window;
use super::{Finding, HeldBack, Limits};
use crate::event::{FieldId, SHARED_BYTES, Timestamp, allocated};
use crate::rule::Suppression;

/// Bytes of a group without its key.
const GROUP_BYTES: usize = Window::<GroupKey, Group>::ENTRY_BYTES;

/// The common values of a group's alerts; `None` for a field that none of the alert's events has.
type GroupKey = Vec<Option<SmolStr>>;

/// Alerts that were not raised because there were too many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suppressed {
    /// Their number.
    pub count: u64,
    /// The start of the time span; with a group, the time of the alert that was raised for it.
    pub start: Timestamp,
    /// Its end; with a group, the time of the last of the alerts.
    pub end: Timestamp,
    /// The fields of `alert_suppression` and their values; `None` if `max_signals` held the alerts back.
    pub group: Option<Vec<(FieldId, Option<SmolStr>)>>,
    /// The actors with the most alerts, if `max_signals` held the alerts back.
    pub held_back: Vec<HeldBack>,
    /// The number of alerts of other actors.
    pub others: u64,
}

/// The open groups of one rule.
#[derive(Debug)]
pub struct Suppressor {
    suppression: Suppression,
    /// Groups, each at the end of its time span.
    groups: Window<GroupKey, Group>,
}

#[derive(Debug)]
struct Group {
    start: Timestamp,
    last: Timestamp,
    count: u64,
    actor: Actor,
}

impl Suppressor {
    /// A suppressor without groups.
    #[must_use]
    pub fn new(suppression: &Suppression, limits: Limits) -> Self {
        Self { suppression: suppression.clone(), groups: Window::new(limits.suppression_bytes_max) }
    }

    /// Whether the alert of a finding may be raised, and the summaries of groups that end with it.
    pub(crate) fn admit(&mut self, finding: &Finding, time: Timestamp) -> (bool, Vec<Suppressed>) {
        let key: GroupKey = self.suppression.group_by.iter().map(|field| finding.key(*field)).collect();
        if self.suppression.keep_without_fields && key.iter().any(Option::is_none) {
            return (true, Vec::new());
        }
        let mut ended = Vec::new();
        let actor = finding.actor();
        if let Some((end, mut group)) = self.take(&key) {
            if time < end {
                group.count += 1;
                group.last = group.last.max(time);
                group.actor = group.actor.common(&actor);
                self.insert(key, end, group, &mut ended);
                return (false, ended);
            }
            ended.extend(self.suppressed(key.clone(), &group));
        }
        let group = Group { start: time, last: time, count: 0, actor };
        self.insert(key, time + self.suppression.duration, group, &mut ended);
        (true, ended)
    }

    /// The summaries of groups whose time spans are over.
    pub(crate) fn advance(&mut self, now: Timestamp) -> Vec<Suppressed> {
        let over = self.groups.expire(now + Duration::from_nanos(1));
        over.into_iter().filter_map(|(key, group)| self.suppressed(key, &group)).collect()
    }

    fn take(&mut self, key: &GroupKey) -> Option<(Timestamp, Group)> {
        let (end, _) = self.groups.get(key)?;
        self.groups.remove(key).map(|group| (end, group))
    }

    fn insert(&mut self, key: GroupKey, end: Timestamp, group: Group, ended: &mut Vec<Suppressed>) {
        let texts = key.iter().flatten().filter(|text| text.is_heap_allocated());
        let texts: usize = texts.map(|text| allocated(SHARED_BYTES + text.len())).sum();
        // The window has the key in three places, which share its texts.
        let bytes = GROUP_BYTES + 3 * allocated(size_of_val(&*key)) + texts;
        let charge = Charge { actor: group.actor, bytes };
        let gone = self.groups.insert(key, end, charge, group);
        ended.extend(gone.into_iter().filter_map(|(key, group)| self.suppressed(key, &group)));
    }

    fn suppressed(&self, key: GroupKey, group: &Group) -> Option<Suppressed> {
        let fields = self.suppression.group_by.iter().copied().zip(key).collect();
        let Group { start, last, count, .. } = *group;
        let summary =
            Suppressed { count, start, end: last, group: Some(fields), held_back: vec![], others: 0 };
        (count > 0).then_some(summary)
    }

    /// Groups that were ended early because of the limit: the next alert of each is raised.
    pub(crate) fn discarded(&self) -> u64 {
        self.groups.discarded()
    }

    /// Bytes held by groups.
    pub(crate) fn bytes(&self) -> usize {
        self.groups.bytes()
    }

    /// Ends a group of the actor that holds most, and returns its summary.
    pub(crate) fn give_way(&mut self) -> Option<Suppressed> {
        let (key, group) = self.groups.give_way()?;
        self.suppressed(key, &group)
    }

    /// The summaries of open groups.
    pub(crate) fn pending(&self) -> Vec<Suppressed> {
        let mut pending: Vec<_> =
            self.groups.iter().filter_map(|(key, group)| self.suppressed(key.clone(), group)).collect();
        // The order of the hash table differs from process to process.
        pending.sort_by(|left, right| (left.start, &left.group).cmp(&(right.start, &right.group)));
        pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_without_room_is_reported_early() {
        let limits = Limits { suppression_bytes_max: GROUP_BYTES, ..Limits::default() };
        let suppression =
            Suppression { group_by: vec![], duration: Duration::from_secs(60), keep_without_fields: false };
        let mut suppressor = Suppressor::new(&suppression, limits);
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
        let finding = Finding::default();
        assert_eq!(suppressor.admit(&finding, at(0)), (true, vec![]));
        assert_eq!(suppressor.admit(&finding, at(59)), (false, vec![]));
        let (start, end, held_back) = (at(0), at(59), vec![]);
        let suppressed = Suppressed { count: 1, start, end, group: Some(vec![]), held_back, others: 0 };
        assert_eq!(suppressor.admit(&finding, at(60)), (true, vec![suppressed]));
        assert_eq!(suppressor.advance(at(120)), vec![]);
        suppressor.groups = Window::new(0);
        assert!(suppressor.admit(&finding, at(200)).0 && suppressor.admit(&finding, at(201)).0);
        assert_eq!(suppressor.discarded(), 2);
    }
}
