//! Which keys a rule may have, and what becomes of them.

use super::document::Table;
use crate::lang::diagnostic::{Diagnostic, code};
use crate::lang::suggest::nearest;

/// What becomes of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// It is read.
    Read,
    /// It says nothing about what the rule detects: for Kibana's pages, or how a stored index is searched.
    Inert,
    /// It would change what the rule does, and does not yet: a rule that has it and not empty is refused.
    Refused,
}

use Use::{Inert, Read, Refused};

/// The keys of `[rule]`, sorted.
const RULE: &[(&str, Use)] = &[
    ("actions", Refused),
    ("alert_suppression", Refused),
    ("anomaly_threshold", Read),
    ("author", Read),
    ("building_block_type", Refused),
    ("data_view_id", Refused),
    ("description", Read),
    ("enabled", Read),
    ("event_category_override", Refused),
    ("exceptions_list", Refused),
    ("false_positives", Read),
    ("filters", Refused),
    ("from", Read),
    ("index", Read),
    ("interval", Read),
    ("investigation_fields", Inert),
    ("language", Read),
    ("license", Read),
    ("machine_learning_job_id", Read),
    ("max_signals", Read),
    ("meta", Inert),
    ("name", Read),
    ("new_terms", Read),
    ("note", Read),
    ("query", Read),
    ("references", Read),
    ("related_integrations", Inert),
    ("required_fields", Inert),
    ("response_actions", Refused),
    ("risk_score", Read),
    ("risk_score_mapping", Refused),
    ("rule_id", Read),
    ("rule_name_override", Refused),
    ("saved_id", Refused),
    ("setup", Inert),
    ("severity", Read),
    ("severity_mapping", Refused),
    ("tags", Read),
    ("threat", Read),
    ("threat_filters", Refused),
    ("threat_index", Refused),
    ("threat_indicator_path", Refused),
    ("threat_language", Refused),
    ("threat_mapping", Refused),
    ("threat_query", Refused),
    ("threshold", Refused),
    ("throttle", Inert),
    ("tiebreaker_field", Refused),
    ("timeline_id", Inert),
    ("timeline_title", Inert),
    ("timestamp_field", Refused),
    // Events are judged as they come, which is what `event.ingested` stands for.
    ("timestamp_override", Inert),
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
    ("function", Read),
    ("id", Read),
    ("index", Read),
    ("influencers", Inert),
    ("over_field_name", Refused),
    ("partition_field_name", Read),
    ("query", Read),
];

/// The tables a file may have beside these two.
const FILE: &[(&str, Use)] =
    &[("job", Read), ("metadata", Inert), ("rule", Read), ("test", Inert), ("transform", Inert)];

/// Tells the keys of `[rule]` that are unknown or refused.
pub(super) fn check_rule(table: &Table<'_>, faults: &mut Vec<Diagnostic>) {
    check(table, RULE, "rule", faults);
}

/// Tells the keys of `[job]` that are unknown or refused.
pub(super) fn check_job(table: &Table<'_>, faults: &mut Vec<Diagnostic>) {
    check(table, JOB, "job", faults);
}

/// Tells the tables of a file that are unknown.
pub(super) fn check_file(table: &Table<'_>, faults: &mut Vec<Diagnostic>) {
    check(table, FILE, "file", faults);
}

fn check(table: &Table<'_>, keys: &[(&str, Use)], place: &str, faults: &mut Vec<Diagnostic>) {
    for key in table.keys() {
        match keys.iter().find(|(known, _)| *known == key.value) {
            Some((_, Read | Inert)) => {}
            Some((_, Refused)) if !table.holds(key.value) => {}
            Some((name, Refused)) => {
                let message = format!("`{name}` is not supported yet");
                faults.push(Diagnostic::new(code::UNSUPPORTED_KEY, key.span, message));
            }
            None => {
                let message = format!("a {place} has no key `{}`", key.value);
                let fault = Diagnostic::new(code::UNKNOWN_KEY, key.span, message);
                faults.push(match nearest(key.value, keys.iter().map(|(known, _)| *known)) {
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
        for keys in [RULE, JOB, FILE] {
            assert!(keys.is_sorted_by_key(|(key, _)| *key));
        }
    }
}
