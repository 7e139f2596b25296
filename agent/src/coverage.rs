//! Which events there are here, for rules to be held against.

use lapwing_engine::coverage::Source;

use crate::config::Config;
use crate::pipeline::{CLOUDTRAIL_STREAMS, SENSOR_STREAMS};
use crate::sensor;
use crate::source::cloudtrail::{self, Geo};

/// The sources that this configuration switches on; without one, all that there can be.
pub(crate) fn sources(config: Option<&Config>) -> Vec<Source> {
    let mut sources = Vec::new();
    if config.is_none_or(|config| config.sensor.enabled) {
        let wanted = config.map_or_else(sensor::Wanted::default, |config| config.sensor.env_vars.clone());
        sources.push(source("sensor", &SENSOR_STREAMS, sensor::event_kinds(&wanted)));
    }
    if config.is_none_or(|config| config.cloudtrail.enabled()) {
        let places = config.is_none_or(|config| {
            let cloudtrail = &config.cloudtrail;
            let folder = std::env::temp_dir();
            Geo::open(cloudtrail.geoip.as_deref(), cloudtrail.asn.as_deref(), &folder).missing().is_none()
        });
        sources.push(source("cloudtrail", &CLOUDTRAIL_STREAMS, cloudtrail::event_kinds(places)));
    }
    sources
}

fn source(name: &str, data_streams: &[&str], kinds: Vec<lapwing_engine::coverage::EventKind>) -> Source {
    let data_streams = data_streams.iter().map(|stream| (*stream).to_owned()).collect();
    Source { name: name.to_owned(), data_streams, kinds }
}

#[cfg(test)]
mod tests {
    use lapwing_engine::coverage::{Covered, coverage};
    use lapwing_engine::{Loaded, Schema};

    /// Rules that ask for what this host's events alone can hold, and how far they do.
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

    /// The same for rules that read the kernel's audit alone, for which the sensor stands in where it can.
    const AUDIT_RULES: &[(Covered, &str)] = &[
        (
            Covered::All,
            "process where event.action in (\"exec\", \"executed\") and process.args == \"--target\"",
        ),
        // Who started it and who it acts as are told apart there, and `user.id` is the one who started it.
        (
            Covered::Partly,
            "process where event.action == \"exec\" and user.id != \"0\" and user.effective.id == \"0\"",
        ),
        (Covered::None, "process where event.action == \"executed\""),
        (Covered::None, "network where event.action == \"connected-to\""),
        (Covered::None, "any where data_stream.dataset == \"auditd_manager.auditd\""),
    ];

    #[test]
    fn rules_have_the_events_that_they_need() {
        for (index, rules) in [
            ("logs-endpoint.events.*", RULES),
            ("logs-auditd_manager.auditd-*", AUDIT_RULES),
            ("auditbeat-*", AUDIT_RULES),
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
