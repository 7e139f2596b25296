//! The events of this host, with which the needs of rules are compared.

use std::sync::Arc;

use lapwing_engine::coverage::{EventKind, Source, coverage};
use lapwing_engine::{Rule, Schema};

use crate::config::Config;
use crate::sensor::{self, Wanted};
use crate::source::cloudtrail::{self, Geo};
use crate::streams::{self, Streams};

/// The sources that the configuration enables; without one, all sources.
pub(crate) fn sources(config: Option<&Config>) -> Vec<Source> {
    let mut sources = Vec::new();
    if config.is_none_or(|config| config.sensor.enabled) {
        let wanted = config.map_or_else(Wanted::default, |config| config.sensor.env_vars.clone());
        sources.extend(of_sensor(&wanted, config.is_none_or(|config| config.sensor.udp)));
    }
    if config.is_none_or(|config| config.cloudtrail.enabled()) {
        let places = config.is_none_or(|config| {
            let cloudtrail = &config.cloudtrail;
            let folder = std::env::temp_dir();
            Geo::open(cloudtrail.geoip.as_deref(), cloudtrail.asn.as_deref(), &folder).missing().is_none()
        });
        sources.push(source(&streams::CLOUDTRAIL, cloudtrail::event_kinds(places)));
    }
    sources
}

/// The sensor's events, as they are and in auditd's form.
fn of_sensor(wanted: &Wanted, has_udp: bool) -> [Source; 2] {
    let kinds = sensor::event_kinds(wanted, has_udp);
    let as_auditd = sensor::auditd_kinds(&kinds);
    [source(&streams::SENSOR, kinds), source(&streams::AUDITD, as_auditd)]
}

/// The rules that run on the sensor's events: those that get them as they are, and those whose needs are met better by the
/// same events in auditd's form.
pub(crate) fn of_lane(rules: &[Arc<Rule>], schema: &Schema, config: &sensor::Config) -> [Vec<Arc<Rule>>; 2] {
    let sources = of_sensor(&config.env_vars, config.udp);
    let is_for_auditd = |rule: &Rule| {
        streams::AUDITD.are_read_by(rule)
            && coverage(rule, &sources, schema).source.is_some_and(|source| source == streams::AUDITD.source)
    };
    let rules = rules.iter().filter(|rule| rule.enabled).cloned();
    let (auditd, rest) = rules.partition::<Vec<_>, _>(|rule| is_for_auditd(rule));
    [rest.into_iter().filter(|rule| streams::SENSOR.are_read_by(rule)).collect(), auditd]
}

fn source(streams: &Streams, kinds: Vec<EventKind>) -> Source {
    let data_streams = (streams.names)().into_iter().map(str::to_owned).collect();
    Source { name: streams.source.to_owned(), data_streams, kinds }
}

#[cfg(test)]
mod tests {
    use lapwing_engine::coverage::{Covered, coverage};
    use lapwing_engine::{Loaded, Schema};

    /// Rules that need the events of this host, and their coverage.
    const RULES: &[(Covered, &str)] = &[
        (
            Covered::All,
            "process where event.type == \"change\" and event.action == \"uid_change\" and user.id == \"0\"",
        ),
        (
            Covered::All,
            "sequence by process.entity_id [process where event.action == \"exec\" and user.id != \"0\"] \
             [process where event.action in (\"uid_change\", \"gid_change\") and process.parent.user.id != \"0\"]",
        ),
        (
            Covered::All,
            "process where event.action == \"session_id_change\" and process.name == \"sshd\" and \
             process.session_leader.same_as_process == true",
        ),
        (Covered::Partly, "process where event.action == \"uid_change\" and process.env_vars == \"A=b\""),
        (
            Covered::All,
            "sequence by process.entity_id [process where event.action == \"exec\"] \
             [network where event.action in (\"connection_attempted\", \"disconnect_received\") and \
             source.bytes > 0 and destination.bytes > 0 and destination.ip != null]",
        ),
        (
            Covered::All,
            "process where event.action == \"exec\" and process.env_vars like~ \"histfile=/dev/null\"",
        ),
        (
            Covered::All,
            "sequence by process.parent.entity_id, process.working_directory \
             [network where event.action == \"connection_attempted\"] \
             [process where event.action == \"exec\" and process.title == \"runc init\"]",
        ),
        (
            Covered::All,
            "process where container.runtime == \"podman\" and orchestrator.resource.type == \"pod\" and \
             lapwing.process.executable_file == \"deleted\"",
        ),
        (Covered::None, "process where event.action == \"ptrace\""),
    ];

    /// Rules that read auditd's events only: the sensor's in auditd's form.
    const AUDITD_RULES: &[(Covered, &str)] = &[
        (
            Covered::All,
            "process where event.action in (\"exec\", \"executed\") and process.args == \"--target\"",
        ),
        (
            Covered::All,
            "process where event.action == \"executed\" and user.id != \"0\" and user.effective.id == \"0\"",
        ),
        (
            Covered::All,
            "any where data_stream.dataset == \"auditd_manager.auditd\" and event.category == \"process\"",
        ),
        (
            Covered::All,
            "network where event.action == \"connected-to\" and network.direction == \"egress\" and \
             destination.ip != null and process.pid != null",
        ),
        (Covered::None, "process where event.action == \"exec\""),
        (Covered::None, "network where event.action == \"bound-socket\""),
    ];

    #[test]
    fn rules_have_the_events_that_they_need() {
        for (index, rules) in [
            ("logs-endpoint.events.*", RULES),
            ("logs-auditd_manager.auditd-*", AUDITD_RULES),
            ("auditbeat-*", AUDITD_RULES),
        ] {
            rules.iter().for_each(|(expected, query)| check(index, *expected, query));
        }
    }

    fn check(index: &str, expected: Covered, query: &str) {
        let rule = format!(
            "[rule]\nrule_id = 'id'\nname = 'name'\ndescription = 'text'\nseverity = 'low'\ntype = 'eql'\n\
                 language = 'eql'\nindex = ['{index}']\nquery = '''{query}'''\n"
        );
        let mut schema = Schema::new();
        let loaded = Loaded::read([("rule.toml", rule.as_bytes())], &mut schema);
        assert_eq!(loaded.rules.len(), 1, "{query}: {:?}", loaded.reports);
        let found = coverage(&loaded.rules[0], &super::sources(None), &schema);
        assert_eq!(found.events, expected, "{query}: {found:?}");
    }
}
