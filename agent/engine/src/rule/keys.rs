//! The keys that a rule may have, and how each is treated.

use super::document::{DocumentTable, Placed};
use crate::lang::DIAGNOSTICS_MAX;
use crate::lang::diagnostic::{Diagnostic, code};
use crate::lang::suggest::nearest;

/// How a key is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// It is read.
    Read,
    /// It is read in rules of these types. A rule of another type in which it is not empty is refused.
    Of(&'static [&'static str]),
    /// It does not change what the rule detects: it is for Kibana's pages, or for searches of a stored index.
    Inert,
    /// It would change what the rule detects, and is not supported. A rule in which it is not empty is refused with this text.
    Refused(&'static str),
}

use Use::{Inert, Of, Read, Refused};

const EQL: Use = Of(&["eql"]);
const THREAT_MATCH: Use = Of(&["threat_match"]);
const MACHINE_LEARNING: Use = Of(&["machine_learning"]);

/// The keys of `[rule]`, sorted.
const RULE: &[(&str, Use)] = &[
    ("actions", Refused("what alerts are delivered to stands in `[[sink]]` of the configuration")),
    ("alert_suppression", Read),
    ("anomaly_threshold", MACHINE_LEARNING),
    ("author", Read),
    ("building_block_type", Read),
    ("data_view_id", Refused("the data view lies in Kibana: name its index patterns in `index`")),
    ("description", Read),
    ("enabled", Read),
    ("event_category_override", EQL),
    ("exceptions_list", Refused("its items lie in Kibana: write them into the folder `rules.exceptions`")),
    ("false_positives", Read),
    ("filters", Of(&["eql", "new_terms", "query", "threat_match", "threshold"])),
    ("from", Read),
    ("index", Read),
    ("interval", Read),
    ("investigation_fields", Inert),
    ("language", Read),
    ("license", Read),
    ("machine_learning_job_id", MACHINE_LEARNING),
    ("max_signals", Read),
    ("meta", Inert),
    ("name", Read),
    ("new_terms", Of(&["new_terms"])),
    ("note", Read),
    ("query", Read),
    ("references", Read),
    ("related_integrations", Inert),
    ("required_fields", Inert),
    ("response_actions", Refused("nothing is done to the host: alerts are all that rules give")),
    ("risk_score", Read),
    ("risk_score_mapping", Read),
    ("rule_id", Read),
    ("rule_name_override", Read),
    ("saved_id", Refused("the query lies in Kibana: write its text as `query`")),
    ("setup", Inert),
    ("severity", Read),
    ("severity_mapping", Read),
    ("tags", Read),
    ("threat", Read),
    ("threat_filters", Refused("write what they ask for into `threat_query`")),
    ("threat_index", THREAT_MATCH),
    ("threat_indicator_path", THREAT_MATCH),
    ("threat_language", THREAT_MATCH),
    ("threat_mapping", THREAT_MATCH),
    ("threat_query", THREAT_MATCH),
    ("threshold", Of(&["threshold"])),
    ("throttle", Inert),
    ("tiebreaker_field", EQL),
    ("timeline_id", Inert),
    ("timeline_title", Inert),
    ("timestamp_field", EQL),
    ("timestamp_override", Read),
    ("timestamp_override_fallback_disabled", Inert),
    ("to", Inert),
    ("type", Read),
    ("version", Read),
];

/// The keys of `[job]`, sorted.
const JOB: &[(&str, Use)] = &[
    ("bucket_span", Read),
    ("buckets_learned_min", Read),
    ("by_field_name", Read),
    ("description", Read),
    ("field_name", Read),
    ("function", Read),
    ("id", Read),
    ("index", Read),
    ("influencers", Inert),
    (
        "over_field_name",
        Refused("population analysis is not supported: jobs score events, not members of a population"),
    ),
    ("partition_field_name", Read),
    ("query", Read),
];

/// The keys of `[rule]` in a file of Elastic's endpoint rules, sorted.
const ENDPOINT: &[(&str, Use)] = &[
    ("description", Read),
    ("id", Read),
    ("license", Read),
    ("min_endpoint_version", Inert),
    ("name", Read),
    // Below `[rule]` it is always empty.
    ("optional_actions", Refused("what is done about a finding stands in a table of its own")),
    ("os_list", Read),
    ("query", Read),
    ("reference", Read),
    ("version", Inert),
];

/// The tables of a file of Elastic's endpoint.
const ENDPOINT_FILE: &[(&str, Use)] = &[
    ("actions", Read),
    ("internal", Inert),
    ("lapwing", Read),
    ("optional_actions", Read),
    ("rule", Read),
    ("test", Inert),
    ("threat", Read),
];

/// The keys of `[lapwing]`.
const LAPWING: &[(&str, Use)] = &[("allow", Read)];

/// The other tables that a file may have.
const FILE: &[(&str, Use)] = &[
    // Templates of events in tests.
    ("event", Inert),
    ("job", Read),
    ("lapwing", Read),
    ("metadata", Inert),
    ("rule", Read),
    ("test", Inert),
    ("transform", Inert),
];

/// The keys of `[[exception]]`, sorted.
const EXCEPTION: &[(&str, Use)] =
    &[("condition", Read), ("expires", Read), ("owner", Read), ("reason", Read), ("rule", Read)];

/// The tables that a file of exceptions may have.
const EXCEPTIONS: &[(&str, Use)] = &[("exception", Read)];

/// Reports the keys of `[[exception]]` that are unknown.
pub(super) fn check_exception(table: &DocumentTable<'_>, faults: &mut Vec<Diagnostic>) {
    check(table, EXCEPTION, "an exception", faults);
}

/// Reports the tables of a file of exceptions that are unknown.
pub(super) fn check_exceptions(table: &DocumentTable<'_>, faults: &mut Vec<Diagnostic>) {
    check(table, EXCEPTIONS, "a file of exceptions", faults);
}

/// Reports the keys of `[rule]` that are unknown or refused.
pub(super) fn check_rule(table: &DocumentTable<'_>, faults: &mut Vec<Diagnostic>) {
    check(table, RULE, "a rule", faults);
}

/// Reports the keys of `[job]` that are unknown or refused.
pub(super) fn check_job(table: &DocumentTable<'_>, faults: &mut Vec<Diagnostic>) {
    check(table, JOB, "a job", faults);
}

/// Reports the keys of `[lapwing]` that are unknown.
pub(super) fn check_lapwing(table: &DocumentTable<'_>, faults: &mut Vec<Diagnostic>) {
    check(table, LAPWING, "a `[lapwing]` table", faults);
}

/// Reports the keys of `[rule]` that are unknown in a file of Elastic's endpoint.
pub(super) fn check_endpoint(table: &DocumentTable<'_>, faults: &mut Vec<Diagnostic>) {
    check(table, ENDPOINT, "a rule of Elastic's endpoint", faults);
}

/// Reports the tables that are unknown in a file of Elastic's endpoint.
pub(super) fn check_endpoint_file(table: &DocumentTable<'_>, faults: &mut Vec<Diagnostic>) {
    check(table, ENDPOINT_FILE, "a file of Elastic's endpoint", faults);
}

/// Reports the tables of a file that are unknown.
pub(super) fn check_file(table: &DocumentTable<'_>, faults: &mut Vec<Diagnostic>) {
    check(table, FILE, "a file", faults);
}

fn check(table: &DocumentTable<'_>, keys: &[(&str, Use)], place: &str, faults: &mut Vec<Diagnostic>) {
    let ty = table.value("type").and_then(|value| value.get_ref().as_str()).unwrap_or_default();
    let fault = |key: Placed<&str>, message| Diagnostic::new(code::UNSUPPORTED_KEY, key.span, message);
    for key in table.keys() {
        let name = key.value;
        match keys.iter().find(|(known, _)| *known == name) {
            Some((_, Read | Inert)) => {}
            Some((_, Refused(_) | Of(_))) if !table.holds(name) => {}
            Some((_, Of(types))) if types.contains(&ty) => {}
            Some((_, Of(types))) => {
                let message = format!("`{name}` is a key of rules of type {}", types.join(" and "));
                faults.push(fault(key, message));
            }
            Some((_, Refused(help))) => {
                faults.push(fault(key, format!("`{name}` is not supported")).help(*help));
            }
            None => {
                let message = format!("{place} has no key `{name}`");
                let fault = Diagnostic::new(code::UNKNOWN_KEY, key.span, message);
                // Further faults are not reported: their number has no limit.
                let is_reported = faults.len() < DIAGNOSTICS_MAX;
                let known = keys.iter().map(|(known, _)| *known).filter(|_| is_reported);
                faults.push(match nearest(name, known) {
                    Some(near) => fault.help(format!("did you mean `{near}`?")),
                    None => fault,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted() {
        for keys in [RULE, JOB, FILE, ENDPOINT, ENDPOINT_FILE, EXCEPTION, EXCEPTIONS] {
            assert!(keys.is_sorted_by_key(|(key, _)| *key));
        }
    }
}
