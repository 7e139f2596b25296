//! Which events rules can match, decided before an event is built. Other events need not be built.
//!
//! Each event query is evaluated on the fixed values of a kind of event, and on the networks that contain an address.
//! All other tests may have either result, and a query that may hold counts as a match. So an event without interest is
//! one that no query matches, for any values of its other fields.

use ipnet::IpNet;

use super::coverage::{EventKind, Possible};
use crate::detect::naive;
use crate::event::{FieldId, Value};
use crate::lang::query::{Condition, EventQuery, Expr, Test};
use crate::rule::Rule;

/// The event queries of rules.
#[derive(Clone, Debug)]
pub struct Interest<'a> {
    queries: Vec<&'a EventQuery>,
}

/// An address of an event, described by networks.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The field, which such events always have, with one value.
    pub field: FieldId,
    /// The networks.
    pub networks: &'a [IpNet],
    /// Whether the address is in one of the networks, or in none of them.
    pub is_within: bool,
}

impl<'a> Interest<'a> {
    /// The event queries of these rules, with all stages of sequences, `until`, missing events and the queries of jobs.
    pub fn of(rules: impl IntoIterator<Item = &'a Rule>) -> Self {
        Self { queries: rules.into_iter().flat_map(|rule| rule.kind.events()).collect() }
    }

    /// Whether some rule may match an event of this kind.
    #[must_use]
    pub fn may_match(&self, kind: &EventKind) -> bool {
        self.queries.iter().any(|query| MayMatch { kind, place: None }.may_match(query))
    }

    /// Whether some rule may match an event of this kind with such an address.
    #[must_use]
    pub fn may_match_at(&self, kind: &EventKind, place: Place<'_>) -> bool {
        self.queries.iter().any(|query| MayMatch { kind, place: Some(place) }.may_match(query))
    }
}

struct MayMatch<'a> {
    kind: &'a EventKind,
    place: Option<Place<'a>>,
}

impl MayMatch<'_> {
    fn may_match(&self, query: &EventQuery) -> bool {
        let is_open = self.kind.fixed.values(crate::field!("event.category")).is_empty();
        (is_open || naive::is_of(query, &self.kind.fixed)) && self.possible(&query.condition).holds
    }

    fn possible(&self, condition: &Condition) -> Possible {
        match condition {
            Condition::Always(truth) => Possible::only(*truth),
            Condition::Not(inner) => self.possible(inner).negated(),
            Condition::All(parts) => Possible::all(parts.iter().map(|part| self.possible(part))),
            Condition::Any(parts) => Possible::any(parts.iter().map(|part| self.possible(part))),
            // These depend on other events.
            Condition::Related(..) | Condition::Compare(..) => Possible::EITHER,
            leaf => self.of_place(leaf).unwrap_or_else(|| {
                let fields = leaf.fields();
                let is_fixed =
                    !fields.is_empty() && fields.iter().all(|id| self.kind.fixed.get(*id).is_some());
                if is_fixed { Possible::only(naive::holds(leaf, &self.kind.fixed)) } else { Possible::EITHER }
            }),
        }
    }

    /// The possible results of a test of the address; `None` for other tests.
    fn of_place(&self, leaf: &Condition) -> Option<Possible> {
        let place = self.place?;
        match leaf {
            Condition::Exists(Expr::Field(field)) if *field == place.field => Some(Possible::only(true)),
            Condition::Test(Expr::Field(field), test) if *field == place.field => Some(place.possible(test)),
            _ => None,
        }
    }
}

impl Place<'_> {
    fn possible(&self, test: &Test) -> Possible {
        match test {
            Test::Within(wanted) => Possible {
                holds: wanted.iter().any(|network| self.meets(network)),
                fails: !(self.is_within && self.networks.iter().all(|own| is_inside(own, wanted))),
            },
            Test::OneOf { values, .. } => {
                let meets = |value: &Value| match value {
                    Value::Ip(address) => self.meets(&IpNet::from(*address)),
                    _ => true,
                };
                Possible { holds: values.iter().any(meets), fails: true }
            }
            _ => Possible::EITHER,
        }
    }

    /// Whether the address may be in the network.
    fn meets(&self, network: &IpNet) -> bool {
        if self.is_within {
            self.networks.iter().any(|own| own.contains(network) || network.contains(own))
        } else {
            !is_inside(network, self.networks)
        }
    }
}

/// Whether one of the networks contains this network.
fn is_inside(network: &IpNet, others: &[IpNet]) -> bool {
    others.iter().any(|other| other.contains(network))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Fields, Schema};
    use crate::field;
    use crate::lang::eql;

    /// Queries, and whether they may match a connection to loopback, and one to anything else.
    const QUERIES: &[(&str, bool, bool)] = &[
        ("any where true", true, true),
        ("process where true", false, false),
        ("network where event.type == \"end\"", false, false),
        ("network where event.type == \"start\" and process.name == \"nc\"", true, true),
        ("network where destination.ip != null", true, true),
        ("network where destination.ip == null", false, false),
        ("network where not cidrMatch(destination.ip, \"127.0.0.0/8\", \"::1\")", false, true),
        ("network where not cidrMatch(destination.ip, \"127.0.0.0/8\")", true, true),
        (
            "network where not cidrMatch(destination.ip, \"127.0.0.0/9\", \"127.128.0.0/9\", \"::1\")",
            true,
            true,
        ),
        ("network where not cidrMatch(destination.ip, \"0.0.0.0/0\", \"::/0\")", false, true),
        ("network where cidrMatch(destination.ip, \"127.0.0.0/8\")", true, false),
        ("network where cidrMatch(destination.ip, \"127.1.0.0/16\", \"10.0.0.0/8\")", true, true),
        ("network where cidrMatch(destination.ip, \"10.0.0.0/8\")", false, true),
        ("network where destination.ip == \"127.0.0.1\"", true, false),
        ("network where destination.ip == \"169.254.169.254\"", false, true),
        ("network where destination.ip != \"127.0.0.1\"", true, true),
        ("network where destination.ip == \"10.0.0.1\" or process.pid == 1", true, true),
        ("network where cidrMatch(destination.ip, \"10.0.0.0/8\") == false", true, true),
        ("network where cidrMatch(source.ip, \"10.0.0.0/8\")", true, true),
        ("network where string(destination.ip) == \"10.0.0.1\"", true, true),
        ("network where destination.address == \"10.0.0.1\"", true, true),
    ];

    #[test]
    fn only_what_no_query_can_match_is_uninteresting() {
        let mut schema = Schema::new();
        let mut fixed = Fields::new();
        fixed.set(field!("event.category"), Value::texts(["network"]));
        fixed.set(field!("event.type"), Value::texts(["start"]));
        let kind = EventKind::new("connection", fixed, []);
        let networks: Vec<IpNet> = ["127.0.0.0/8", "::1/128"].map(|network| network.parse().unwrap()).into();
        for (query, loopback, others) in QUERIES {
            let (crate::lang::Query::Event(parsed), _) = eql::parse(query, &mut schema).unwrap() else {
                panic!("{query} is no query for single events");
            };
            let interest = Interest { queries: vec![&parsed] };
            for (is_within, expected) in [(true, *loopback), (false, *others)] {
                let place = Place { field: field!("destination.ip"), networks: &networks, is_within };
                assert_eq!(interest.may_match_at(&kind, place), expected, "{query}, within: {is_within}");
                assert!(interest.may_match(&kind) || !expected, "{query}");
            }
        }
    }
}
