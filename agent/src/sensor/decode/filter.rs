//! Which records need not leave the kernel: those about connections that no rule can match, by their kind and by the class
//! of their destination.
//!
//! What is left out must not be missed by anything else. Forks, programs, ends and changes of processes are always sent:
//! what they tell is in the events of others, of children above all. A record about a connection also shows what its process
//! has become, so that where rules ask for that, it is left out only if hooks show each such change by itself.

use ipnet::IpNet;
use lapwing_common::{Filter, Kind, Reach};
use lapwing_engine::coverage::EventKind;
use lapwing_engine::field;
use lapwing_engine::interest::{Interest, Place};

use super::kinds;
use crate::sensor::hook::{HookReport, HookState};

/// The records that a filter is about, each with the events that it is needed for.
const CONNECTIONS: [(Kind, &[&str]); 4] = [
    (Kind::CONNECT, &["connection_attempted", "disconnect_received"]),
    (Kind::CONNECTED, &["connection_attempted", "disconnect_received"]),
    (Kind::ACCEPT, &["connection_accepted", "disconnect_received"]),
    (Kind::CLOSED, &["disconnect_received"]),
];
/// The events that tell what a process has become, and the hooks by which each is seen when it happens.
const CHANGES: [(&str, &str); 3] =
    [("session_id_change", "session"), ("uid_change", "ids"), ("gid_change", "ids")];

/// Rules, and how they are told events of a kind; `None` where they are not.
pub(in crate::sensor) struct Audience<'a> {
    pub(in crate::sensor) interest: Interest<'a>,
    pub(in crate::sensor) view: fn(&EventKind) -> Option<EventKind>,
}

impl Audience<'_> {
    fn may_match(&self, kind: &EventKind, place: Option<Place<'_>>) -> bool {
        (self.view)(kind).is_some_and(|kind| match place {
            Some(place) => self.interest.may_match_at(&kind, place),
            None => self.interest.may_match(&kind),
        })
    }
}

/// Everything that is asked for.
struct Asked<'a> {
    audiences: &'a [Audience<'a>],
    kinds: Vec<EventKind>,
}

impl Asked<'_> {
    /// Whether events of this name are asked for, or those of them whose address lies there.
    fn is(&self, name: &str, place: Option<Place<'_>>) -> bool {
        let kind = self.kinds.iter().find(|kind| kind.name == name);
        kind.is_none_or(|kind| self.audiences.iter().any(|audience| audience.may_match(kind, place)))
    }
}

/// What may be left out for these audiences, with these hooks.
pub(in crate::sensor) fn filter(audiences: &[Audience<'_>], hooks: &[HookReport]) -> Filter {
    let asked = Asked { audiences, kinds: kinds(true) };
    let mut filter = Filter::NONE;
    if CHANGES.iter().any(|(name, hook)| asked.is(name, None) && !shows_all(hooks, hook)) {
        return filter;
    }
    for reach in Reach::ALL {
        let (networks, is_within) = networks(reach);
        let place = Place { field: field!("destination.ip"), networks: &networks, is_within };
        for (kind, events) in CONNECTIONS {
            if !events.iter().any(|name| asked.is(name, Some(place))) {
                filter.dropped[kind.slot()] |= reach.bit();
            }
        }
    }
    filter
}

/// Whether a hook shows everything it is for. By system calls it misses what is done otherwise, as by 32-bit programs.
fn shows_all(hooks: &[HookReport], name: &str) -> bool {
    let is_function = |method: &str| !method.starts_with("tracepoint/");
    hooks.iter().any(|report| {
        report.name == name && report.state == HookState::Attached && report.method.is_some_and(is_function)
    })
}

/// The networks of a class, and whether its addresses lie in them or in none of them.
fn networks(reach: Reach) -> (Vec<IpNet>, bool) {
    let of = |reach: Reach| reach.networks().iter().filter_map(|network| network.parse().ok());
    let own: Vec<_> = of(reach).collect();
    if own.is_empty() { (Reach::ALL.into_iter().flat_map(of).collect(), false) } else { (own, true) }
}
