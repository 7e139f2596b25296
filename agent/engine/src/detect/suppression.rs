//! `alert_suppression`: of the alerts of a group the first is raised, and the later ones of a while are only counted.

use std::time::Duration;

use smol_str::SmolStr;

use super::window::Window;
use super::{Finding, Limits};
use crate::event::{FieldId, Timestamp};
use crate::rule::Suppression;

/// What a group takes beside its key, in bytes.
const GROUP_BYTES: usize = 192;

/// What alerts of a group agree in; `None` where none of the alert's events has the field.
type GroupKey = Vec<Option<SmolStr>>;

/// Alerts that were not raised because there were too many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suppressed {
    /// How many.
    pub count: u64,
    /// The start of the time span; with a group, the time of the alert that was raised for it.
    pub start: Timestamp,
    /// Its end; with a group, the time of the last of the alerts.
    pub end: Timestamp,
    /// The fields of `alert_suppression` and what the alerts have in them; `None` where they were more than
    /// `max_signals`.
    pub group: Option<Vec<(FieldId, Option<SmolStr>)>>,
}

/// The groups of one rule that are open.
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
}

impl Suppressor {
    /// One without groups.
    #[must_use]
    pub fn new(suppression: &Suppression, limits: Limits) -> Self {
        Self { suppression: suppression.clone(), groups: Window::new(limits.suppression_bytes_max) }
    }

    /// Whether the alert of a finding may be raised; and what groups suppressed that end with it.
    pub(crate) fn admit(&mut self, finding: &Finding, time: Timestamp) -> (bool, Vec<Suppressed>) {
        let key: GroupKey = self.suppression.group_by.iter().map(|field| finding.key(*field)).collect();
        if self.suppression.keep_without_fields && key.iter().any(Option::is_none) {
            return (true, Vec::new());
        }
        let mut ended = Vec::new();
        if let Some((end, mut group)) = self.take(&key) {
            if time < end {
                group.count += 1;
                group.last = group.last.max(time);
                self.insert(key, end, group, &mut ended);
                return (false, ended);
            }
            ended.extend(self.told(key.clone(), &group));
        }
        let group = Group { start: time, last: time, count: 0 };
        self.insert(key, time + self.suppression.duration, group, &mut ended);
        (true, ended)
    }

    /// What the groups suppressed whose time spans are over.
    pub(crate) fn advance(&mut self, now: Timestamp) -> Vec<Suppressed> {
        let over = self.groups.expire(now + Duration::from_nanos(1));
        over.into_iter().filter_map(|(key, group)| self.told(key, &group)).collect()
    }

    fn take(&mut self, key: &GroupKey) -> Option<(Timestamp, Group)> {
        let (end, _) = self.groups.get(key)?;
        self.groups.remove(key).map(|group| (end, group))
    }

    fn insert(&mut self, key: GroupKey, end: Timestamp, group: Group, ended: &mut Vec<Suppressed>) {
        // The window itself holds a key twice.
        let key_bytes: usize = key
            .iter()
            .map(|value| size_of::<Option<SmolStr>>() + value.as_ref().map_or(0, SmolStr::len))
            .sum();
        let gone = self.groups.insert(key, end, GROUP_BYTES + 2 * key_bytes, group);
        ended.extend(gone.into_iter().filter_map(|(key, group)| self.told(key, &group)));
    }

    fn told(&self, key: GroupKey, group: &Group) -> Option<Suppressed> {
        let fields = self.suppression.group_by.iter().copied().zip(key).collect();
        let Group { start, last, count } = *group;
        (count > 0).then_some(Suppressed { count, start, end: last, group: Some(fields) })
    }

    /// Groups that were ended early because of the limit: the next alert of each is raised.
    pub(crate) fn discarded(&self) -> u64 {
        self.groups.evicted()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_finds_no_room_is_told_early() {
        let limits = Limits { suppression_bytes_max: GROUP_BYTES, ..Limits::default() };
        let suppression =
            Suppression { group_by: vec![], duration: Duration::from_secs(60), keep_without_fields: false };
        let mut suppressor = Suppressor::new(&suppression, limits);
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
        let finding = Finding::default();
        assert_eq!(suppressor.admit(&finding, at(0)), (true, vec![]));
        assert_eq!(suppressor.admit(&finding, at(59)), (false, vec![]));
        let told = Suppressed { count: 1, start: at(0), end: at(59), group: Some(vec![]) };
        assert_eq!(suppressor.admit(&finding, at(60)), (true, vec![told]));
        assert_eq!(suppressor.advance(at(120)), vec![]);
        suppressor.groups = Window::new(0);
        assert!(suppressor.admit(&finding, at(200)).0 && suppressor.admit(&finding, at(201)).0);
        assert_eq!(suppressor.discarded(), 2);
    }
}
