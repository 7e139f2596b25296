//! The filter: only records that the loaded rules can match leave the kernel, and only events that they can match are
//! built.

use std::sync::Arc;

use lapwing_common::{Filter, Kind, Reach};
use lapwing_engine::Rule;
use lapwing_engine::coverage::EventKind;
use lapwing_engine::interest::Interest;

use super::decode::{self, Audience};
use super::environment::Wanted;
use super::hook::{HOOKS, HookReport, HookState};
use super::{Sensor, auditd, event_filter};
use crate::action::UDP;

/// The filter for these rules and hooks. The second list of rules gets the events in auditd's view.
pub(crate) fn filter_for(rules: &[Vec<Arc<Rule>>; 2], hooks: &[HookReport]) -> Filter {
    decode::filter_for(&audiences(rules), hooks)
}

pub(super) fn audiences(rules: &[Vec<Arc<Rule>>; 2]) -> Vec<Audience<'_>> {
    let views: [fn(&EventKind) -> Option<EventKind>; 2] = [|kind| Some(kind.clone()), auditd::kind];
    let audiences = rules.iter().zip(views).map(|(rules, view)| {
        let interest = Interest::of(rules.iter().map(|rule| &**rule));
        let needs_connections = rules.iter().any(|rule| decode::needs_connections(rule));
        Audience { interest, view, needs_connections }
    });
    audiences.collect()
}

/// The filtered kinds of records with these hooks, each with the classes of destinations.
pub(crate) fn filtered_kinds(
    filter: &Filter,
    hooks: &[HookReport],
) -> Vec<(&'static str, Vec<&'static str>)> {
    let is_off = |kind| {
        kind == Kind::DATAGRAM
            && hooks.iter().any(|hook| hook.name == UDP && hook.state == HookState::Disabled)
    };
    let kinds = Kind::ALL.into_iter().filter(|kind| !is_off(*kind));
    let named = kinds.map(|kind| (kind.name(), event_filter::names(filter, kind)));
    named.filter(|(_, classes)| !classes.is_empty()).collect()
}

/// Every kind of event that the sensor emits on this host, with the fields that such an event may have. `wanted` are
/// the reported environment variables; datagram events are included with `has_udp`.
pub(crate) fn event_kinds(wanted: &Wanted, has_udp: bool) -> Vec<EventKind> {
    decode::kinds(!wanted.is_empty(), has_udp)
}

/// These kinds of events in auditd's view.
pub(crate) fn auditd_kinds(kinds: &[EventKind]) -> Vec<EventKind> {
    kinds.iter().filter_map(auditd::kind).collect()
}

impl Sensor {
    /// Sets the rules for the filter. The kernel then drops records that none of them can match, and no events are
    /// built that none of them can match. The second list of rules gets the events in auditd's view.
    pub(crate) fn set_rules(&mut self, rules: &[Vec<Arc<Rule>>; 2]) {
        let filter = filter_for(rules, &self.hooks);
        let unmatchable = decode::unmatchable(&audiences(rules));
        for (kind, classes) in filtered_kinds(&filter, &self.hooks) {
            tracing::info!(
                "filtered in kernel: {kind}, destination {} (no rule matches)",
                classes.join(", ")
            );
        }
        self.filter.set(filter, unmatchable);
        self.decoder.set_unmatchable(self.filter.unmatchable());
        self.keep_owners();
    }

    /// Emits all events while a subscriber gets them, whether or not a rule can match them.
    pub(super) fn set_watched(&mut self, is_watched: bool) {
        if self.filter.watch(is_watched) {
            self.keep_owners();
        }
        self.decoder.set_unmatchable(self.filter.unmatchable());
    }

    /// Removes the connections whose ends are no longer reported.
    pub(super) fn keep_owners(&mut self) {
        let filter = *self.filter.now();
        self.owners.keep(|reach| !filter.drops(Kind::CLOSED, reach.bit()));
    }

    /// Hooks whose canary records the kernel filters: the agent's own records pass the filter only where its host pid
    /// is known.
    pub(super) fn untestable(&self) -> Vec<&'static str> {
        let is_filtered =
            |kind: &Kind| self.is_inner && self.filter.now().drops(*kind, Reach::Loopback.bit());
        let hooks = HOOKS.iter().filter(|hook| hook.yields.first().is_some_and(is_filtered));
        hooks.map(|hook| hook.name).collect()
    }
}
