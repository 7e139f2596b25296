//! Behaviour rules of Elastic's endpoint, as its protections-artifacts publish them: the same languages in another file.
//!
//! The endpoint's response to a finding, such as to kill the process, is not executed here and causes a warning. The
//! rules have no severity of their own; they get the one of the rule that promotes their alerts in the Elastic stack.

use std::sync::Arc;

use super::{Draft, INTERVAL, LOOKBACK, MAX_SIGNALS, Reader};
use crate::event::Schema;
use crate::lang::Level;
use crate::lang::diagnostic::{Diagnostic, code};
use crate::rule::document::DocumentTable;
use crate::rule::keys::check_endpoint;
use crate::rule::{Rule, Severity};

/// How bad a finding of any of these rules is.
const SEVERITY: Severity = Severity::Medium;
/// The indices that the endpoint's events would be in.
const INDEX: &str = "logs-endpoint.events.*";
/// The system whose rules can run here.
const OS: &str = "linux";

/// Whether the `[rule]` table is one of the endpoint's: it is known by `id` and not by `rule_id`.
pub(in crate::rule) fn is_endpoint(table: &DocumentTable<'_>) -> bool {
    table.value("rule_id").is_none() && table.value("id").is_some() && table.value("os_list").is_some()
}

/// Reads a file of the endpoint's.
pub(in crate::rule) fn read(
    name: &Arc<str>,
    file: &str,
    (root, table): (&DocumentTable<'_>, &DocumentTable<'_>),
    schema: &mut Schema,
    faults: &mut Vec<Diagnostic>,
) -> Option<Draft> {
    check_endpoint(table, faults);
    let mut reader = Reader { file, table, schema, faults };
    let id = reader.table.required("id", reader.faults);
    let title = reader.table.required("name", reader.faults);
    let description = reader.table.required("description", reader.faults);
    reader.os();
    reader.actions(root);
    let kind = reader.eql();
    let threat = reader.threat(root);
    let overrides = reader.overrides();
    let faults = reader.faults;
    let text = |key, faults: &mut Vec<Diagnostic>| table.text(key, faults).map(|text| text.value.to_owned());
    let rule = Rule {
        id: id.map_or_else(String::new, |id| id.value.to_owned()),
        name: title.map_or_else(String::new, |title| title.value.to_owned()),
        description: description.map_or_else(String::new, |text| text.value.trim().to_owned()),
        author: Vec::new(),
        license: text("license", faults),
        // Theirs has three parts.
        version: None,
        severity: SEVERITY,
        risk_score: SEVERITY.number().into(),
        tags: Vec::new(),
        references: table.strings("reference", faults),
        false_positives: Vec::new(),
        note: None,
        threat,
        index: vec![INDEX.to_owned()],
        enabled: true,
        interval: INTERVAL,
        lookback: LOOKBACK,
        max_signals: u32::try_from(MAX_SIGNALS).unwrap_or(u32::MAX),
        suppression: None,
        overrides,
        building_block: false,
        query: text("query", faults).unwrap_or_default(),
        kind: kind?,
        file: name.clone(),
    };
    let failed = faults.iter().any(|fault| fault.level() == Level::Error);
    (!failed).then(|| Draft { rule, id_span: id.map(|id| id.span).unwrap_or_default() })
}

impl Reader<'_, '_> {
    /// A rule for other systems would be taken for running here.
    fn os(&mut self) {
        let systems = self.table.texts("os_list", self.faults);
        if let Some(first) = systems.first().filter(|_| systems.iter().all(|system| system.value != OS)) {
            let message = format!("the rule is for {} and not for Linux", first.value);
            self.faults.push(Diagnostic::new(code::BAD_VALUE, first.span, message));
        }
    }

    /// Warns where the rule configures a response, which is not executed.
    fn actions(&mut self, root: &DocumentTable<'_>) {
        for key in root.keys().filter(|key| ["actions", "optional_actions"].contains(&key.value)) {
            if root.holds(key.value) {
                let message = "what the rule asks to be done about a finding is not done";
                self.faults.push(
                    Diagnostic::new(code::NO_ACTIONS, key.span, message)
                        .label("Lapwing raises alerts and changes nothing on the host"),
                );
            }
        }
    }
}
