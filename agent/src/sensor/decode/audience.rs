//! Which records the kernel filters: those about connections that no rule can match, by their kind and by the class of
//! their destination.
//!
//! What is filtered must not be needed elsewhere. Forks, programs, ends and changes of processes are always sent: their
//! content is in the events of other processes, of children above all. A record about a connection also has its
//! process's current ids. Where rules use these, it is filtered only if hooks report each such change by itself.

use ipnet::IpNet;
use lapwing_common::{Filter, Kind, Reach};
use lapwing_engine::coverage::EventKind;
use lapwing_engine::interest::{Interest, Place};
use lapwing_engine::{Rule, field};

use super::{OF_MAKER, kinds};
use crate::action::ACTIONS;
use crate::sensor::hook::{HookReport, HookState};
use crate::sensor::process::is_followed;

/// Rules, and the form in which they get events of a kind; `None` where they do not get them.
pub(in crate::sensor) struct Audience<'a> {
    pub(in crate::sensor) interest: Interest<'a>,
    pub(in crate::sensor) view: fn(&EventKind) -> Option<EventKind>,
    /// Whether they need the connections of a process at another event ([`needs_connections`]).
    pub(in crate::sensor) needs_connections: bool,
}

/// Whether a rule uses the connection of the process that made a standard input: connections must be followed then.
pub(in crate::sensor) fn needs_connections(rule: &Rule) -> bool {
    rule.fields().iter().any(|field| OF_MAKER.contains(field))
}

impl Audience<'_> {
    fn may_match(&self, kind: &EventKind, place: Option<Place<'_>>) -> bool {
        (self.view)(kind).is_some_and(|kind| match place {
            Some(place) => self.interest.may_match_at(&kind, place),
            None => self.interest.may_match(&kind),
        })
    }
}

/// The events that a rule can match.
struct Matchable<'a> {
    audiences: &'a [Audience<'a>],
    kinds: Vec<EventKind>,
}

impl Matchable<'_> {
    /// Whether a rule can match events of this name, or only those whose address is in this class.
    fn includes(&self, name: &str, place: Option<Place<'_>>) -> bool {
        let kind = self.kinds.iter().find(|kind| kind.name == name);
        kind.is_none_or(|kind| self.audiences.iter().any(|audience| audience.may_match(kind, place)))
    }
}

/// The filter for these audiences, with these hooks.
pub(in crate::sensor) fn filter_for(audiences: &[Audience<'_>], hooks: &[HookReport]) -> Filter {
    let matchable = Matchable { audiences, kinds: kinds(true, true) };
    let mut filter = Filter::NONE;
    let mut changes = ACTIONS.iter().filter(|action| action.is_change());
    if changes.any(|action| matchable.includes(action.name, None) && !shows_all(hooks, action.hook)) {
        return filter;
    }
    for reach in Reach::ALL {
        let (networks, is_within) = networks(reach);
        let place = Place { field: field!("destination.ip"), networks: &networks, is_within };
        for kind in Kind::ALL.into_iter().filter(|kind| kind.is_connection()) {
            let mut needing = ACTIONS.iter().filter(|action| action.needs.contains(&kind));
            let is_needed_later = is_followed(reach)
                && kind != Kind::CONNECTED
                && audiences.iter().any(|audience| audience.needs_connections);
            if !is_needed_later && !needing.any(|action| matchable.includes(action.name, Some(place))) {
                filter.dropped[kind.slot()] |= reach.bit();
            }
        }
    }
    filter
}

/// For each row of [`ACTIONS`], whether its events are not built because nothing can match them.
pub(in crate::sensor) type Unmatchable = [bool; ACTIONS.len()];

/// The actions that none of these audiences can match, whatever other fields have: they need not be built.
pub(in crate::sensor) fn unmatchable(audiences: &[Audience<'_>]) -> Unmatchable {
    let matchable = Matchable { audiences, kinds: kinds(true, true) };
    std::array::from_fn(|row| !matchable.includes(ACTIONS[row].name, None))
}

/// Whether a hook records every act. System call methods miss some, such as those of 32-bit programs.
fn shows_all(hooks: &[HookReport], name: &str) -> bool {
    let is_function = |method: &str| !method.starts_with("tracepoint/");
    hooks.iter().any(|report| {
        report.name == name && report.state == HookState::Attached && report.method.is_some_and(is_function)
    })
}

/// The networks of a class, and whether its addresses are inside or outside them.
fn networks(reach: Reach) -> (Vec<IpNet>, bool) {
    let of = |reach: Reach| reach.networks().iter().filter_map(|network| network.parse().ok());
    let own: Vec<_> = of(reach).collect();
    if own.is_empty() { (Reach::ALL.into_iter().flat_map(of).collect(), false) } else { (own, true) }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    use std::path::PathBuf;
    use std::sync::Arc;

    use fastrand::Rng;
    use lapwing_engine::{Engine, Event, Loaded, Options, Output, Rule, Schema, Value};
    use lapwing_stream::Stream;

    use super::*;
    use crate::action::Row;
    use crate::sensor::as_auditd;
    use crate::sensor::decode::fixed;
    use crate::sensor::filtering::{audiences, filter_for};

    /// Addresses at the bounds of classes, and in none.
    const ADDRESSES: [&str; 24] = [
        "126.255.255.255",
        "127.0.0.0",
        "127.0.0.1",
        "127.255.255.255",
        "128.0.0.0",
        "169.253.255.255",
        "169.254.0.0",
        "169.254.169.254",
        "169.255.0.0",
        "10.0.0.0",
        "10.255.255.255",
        "11.0.0.0",
        "172.16.0.0",
        "172.31.255.255",
        "172.32.0.0",
        "192.168.255.255",
        "192.169.0.0",
        "8.8.8.8",
        "::1",
        "::2",
        "fe80::1",
        "fec0::1",
        "fd00::1",
        "2001:db8::1",
    ];

    /// Rules in EQL, the index and the query.
    const RULES: &[(&str, &str)] = &[
        ("logs-endpoint.events.*", "network where not cidrMatch(destination.ip, \"127.0.0.0/8\", \"::1\")"),
        ("logs-endpoint.events.*", "network where event.type == \"end\" and destination.ip == \"127.0.0.1\""),
        (
            "logs-endpoint.events.*",
            "network where event.action == \"connection_accepted\" and \
            cidrMatch(destination.ip, \"10.0.0.0/8\", \"172.16.0.0/12\", \"192.168.0.0/16\", \"fc00::/7\")",
        ),
        (
            "logs-endpoint.events.*",
            "network where event.action == \"disconnect_received\" and not \
            (cidrMatch(destination.ip, \"10.0.0.0/8\", \"127.0.0.0/8\", \"fe80::/10\") or source.port < 40000)",
        ),
        (
            "logs-endpoint.events.*",
            "sequence by process.entity_id with maxspan=1m \
            [process where event.action == \"exec\"] ![network where destination.ip == \"169.254.169.254\"] \
            [process where event.type == \"end\"]",
        ),
        (
            "logs-endpoint.events.*",
            "sequence by process.entity_id [network where event.type == \"start\" and \
            cidrMatch(destination.ip, \"::/0\")] [network where event.type == \"end\"] \
            until [network where cidrMatch(destination.ip, \"169.254.0.0/16\")]",
        ),
        ("logs-endpoint.events.*", "process where event.type == \"start\" and process.name : \"c*\""),
        (
            "auditbeat-*",
            "network where event.action == \"connected-to\" and \
            not cidrMatch(destination.ip, \"127.0.0.0/8\", \"169.254.0.0/16\", \"fe80::/10\", \"::1\")",
        ),
        (
            "auditbeat-*",
            "any where event.action == \"accepted-connection-from\" and destination.ip == \"::1\"",
        ),
    ];

    /// Other rules, whole.
    const OTHERS: &[&str] = &[
        "type = 'threshold'\nlanguage = 'kuery'\nquery = 'event.category: network and not destination.ip: \
            (10.0.0.0/8 or 127.0.0.0/8)'\n[rule.threshold]\nfield = ['destination.ip']\nvalue = 3\n",
        "type = 'new_terms'\nlanguage = 'kuery'\nquery = 'event.action: disconnect_received and \
            destination.ip: 169.254.0.0/16'\n[rule.new_terms]\nfield = 'new_terms_fields'\n\
            value = ['destination.port']\n[[rule.new_terms.history_window_start]]\n\
            field = 'history_window_start'\nvalue = 'now-7d'\n",
    ];

    /// Both sides derive an address's class from the same networks.
    #[test]
    fn classes_are_what_their_networks_say() {
        let mut rng = Rng::with_seed(1);
        let random = (0..1000).map(|_| IpAddr::from(Ipv4Addr::from(rng.u32(..))));
        let mut rng = Rng::with_seed(2);
        let long = (0..1000).map(|_| IpAddr::from(Ipv6Addr::from(rng.u128(..) >> rng.u32(..128))));
        let known = ADDRESSES.map(|address| address.parse().unwrap());
        for address in known.into_iter().chain(random).chain(long) {
            let is_in = |reach| {
                let (networks, is_within) = networks(reach);
                networks.iter().any(|network| network.contains(&address)) == is_within
            };
            let classes: Vec<_> = Reach::ALL.into_iter().filter(|reach| is_in(*reach)).collect();
            assert_eq!(classes, [reach(address)], "{address}");
        }
    }

    /// Filtering changes no alert, for any set of rules.
    #[test]
    fn rules_find_the_same_in_what_is_left() {
        let mut schema = Schema::new();
        let mut rules = loaded(&mut schema);
        let schema = Arc::new(schema);
        let (mut found, mut left_out) = (0, 0);
        for seed in 0..60 {
            let mut rng = Rng::with_seed(seed);
            rng.shuffle(&mut rules);
            let chosen = &rules[..rng.usize(..rules.len())];
            let chosen = crate::coverage::of_lane(chosen, &schema, &crate::sensor::Config::default());
            let (filter, unmatchable) = (filter_for(&chosen, &[]), unmatchable(&audiences(&chosen)));
            let is_made = |event: &Event| {
                let name = event.text(field!("event.action"));
                let action = ACTIONS.iter().position(|action| Some(action.name) == name);
                action.is_none_or(|action| !unmatchable[action])
            };
            let all = events(&mut rng);
            let left: Vec<_> =
                all.iter().filter(|event| passes(&filter, event) && is_made(event)).cloned().collect();
            let alerts = alerts(&schema, &chosen, &all);
            assert_eq!(alerts, self::alerts(&schema, &chosen, &left), "{seed}: {chosen:?}");
            found += alerts.len();
            left_out += all.len() - left.len();
        }
        assert!(found > 1000 && left_out > 1000, "{found} alerts, {left_out} of the events left out");
    }

    fn loaded(schema: &mut Schema) -> Vec<Arc<Rule>> {
        let named = |number: usize, index: &str, rest: &str| {
            let name = format!("{number}-{index}").replace('*', "x");
            let text = format!(
                "[rule]\nrule_id = '{name}'\nname = '{name}'\ndescription = 'text'\nseverity = 'low'\n\
                 max_signals = 1000\nindex = ['{index}']\n{rest}"
            );
            (format!("{name}.toml"), text)
        };
        let eql = |query: &str| format!("type = 'eql'\nlanguage = 'eql'\nquery = '''{query}'''\n");
        let own = RULES.iter().map(|(index, query)| (*index, eql(query)));
        let others = OTHERS.iter().map(|rest| ("logs-endpoint.events.*", (*rest).to_owned()));
        let files: Vec<_> = own
            .chain(others)
            .enumerate()
            .map(|(number, (index, rest))| named(number, index, &rest))
            .collect();
        let loaded = Loaded::read(files.iter().map(|(name, text)| (name.as_str(), text.as_bytes())), schema);
        assert_eq!(loaded.rules.len(), files.len(), "{:?}", loaded.reports);
        let packaged = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../packaging/rules");
        let packaged = crate::rules::load(&[packaged], schema).unwrap();
        loaded.rules.into_iter().chain(packaged.rules).collect()
    }

    /// What happens on a busy host, with connections to everywhere, most of which end.
    fn events(rng: &mut Rng) -> Vec<Arc<Event>> {
        let mut events = Vec::new();
        for mut event in Stream::new(lapwing_stream::Workload::Mixed, rng.u64(..)).take(1500) {
            if event.get(field!("destination.ip")).is_none() {
                events.push(Arc::new(event));
                continue;
            }
            for id in [field!("destination.ip"), field!("source.ip")] {
                event.set(id, rng.choice(ADDRESSES).unwrap().parse::<IpAddr>().unwrap());
            }
            let mut end = event.clone();
            for (id, value) in fixed(&ACTIONS[Row::Disconnected as usize]).iter() {
                end.set(id, value.clone());
            }
            end.set(field!("network.direction"), event.get(field!("network.direction")).unwrap().clone());
            events.push(Arc::new(event));
            if rng.u8(..4) > 0 {
                events.push(Arc::new(end));
            }
        }
        events
    }

    /// Whether the kernel sends the records of an event. The end of a connection is not reported where its beginning was
    /// not.
    fn passes(filter: &Filter, event: &Event) -> bool {
        let reach = |id| match event.get(id) {
            Some(Value::Ip(address)) => reach(*address).bit(),
            _ => 0,
        };
        let (to, from) = (reach(field!("destination.ip")), reach(field!("source.ip")));
        let is_accepted = event.text(field!("network.direction")) == Some("ingress");
        let begin = if is_accepted { Kind::ACCEPT } else { Kind::CONNECT };
        match event.text(field!("event.action")) {
            Some("connection_attempted" | "connection_accepted") => !filter.drops(begin, to),
            Some("disconnect_received") => !filter.drops(begin, to) && !filter.drops(Kind::CLOSED, to | from),
            _ => true,
        }
    }

    fn reach(address: IpAddr) -> Reach {
        match address.to_canonical() {
            IpAddr::V4(address) => Reach::of(false, [u32::from(address).to_be(), 0, 0, 0]),
            IpAddr::V6(address) => {
                let bits = u128::from(address);
                Reach::of(true, [96, 64, 32, 0].map(|shift| ((bits >> shift) as u32).to_be()))
            }
        }
    }

    fn alerts(schema: &Arc<Schema>, rules: &[Vec<Arc<Rule>>; 2], events: &[Arc<Event>]) -> Vec<String> {
        let mut engines =
            rules.each_ref().map(|rules| Engine::new(schema.clone(), rules, Options::default()));
        let mut output = Output::default();
        for event in events {
            engines[0].push(event.clone(), &mut output);
            if let Some(event) = as_auditd(event) {
                engines[1].push(event, &mut output);
            }
            engines.iter_mut().for_each(|engine| engine.advance(event.time(), &mut output));
        }
        engines.iter_mut().for_each(|engine| engine.finish(&mut output));
        let mut alerts: Vec<_> =
            output.alerts.iter().map(|alert| format!("{} {}", alert.rule.name, alert.id)).collect();
        alerts.sort();
        alerts
    }
}
