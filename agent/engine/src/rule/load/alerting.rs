//! What becomes of what a rule finds: `alert_suppression`, the overrides and `building_block_type`.

use std::time::Duration;

use super::{Placed, Reader};
use crate::event::FieldId;
use crate::rule::document::DocumentTable;
use crate::rule::{Overrides, RuleKind, Severity, Suppression};

/// Most fields of `group_by`, as in the Elastic stack.
const GROUP_FIELDS_MAX: usize = 3;
/// Longest time in which alerts of a group are only counted, in its unit.
const DURATION_MAX: i64 = 1_000_000;
/// The units of a suppression's duration, in seconds.
const UNITS: [(&str, u64); 4] = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];
/// The one kind of building block there is.
const BUILDING_BLOCK: &str = "default";

impl<'a> Reader<'a, '_> {
    /// `[rule.alert_suppression]`; of a threshold rule the group is that of the threshold.
    pub(super) fn suppression(&mut self, kind: Option<&RuleKind>, interval: Duration) -> Option<Suppression> {
        let table = self.table.table("alert_suppression", self.faults)?;
        let mut names = table.texts("group_by", self.faults);
        names.retain(|name| !name.value.is_empty());
        let duration = self.suppression_duration(&table);
        let group_by = match kind {
            Some(RuleKind::Threshold { threshold, .. }) => {
                if let Some(first) = names.first() {
                    let message = "a threshold rule suppresses by the threshold's own fields";
                    self.wrong(first.span, message, "take `group_by` away");
                }
                if duration.is_none() {
                    self.faults.push(table.missing("duration"));
                }
                threshold.fields.clone()
            }
            _ => self.group(&table, &names)?,
        };
        let strategy = table.text("missing_fields_strategy", self.faults);
        let keep_without_fields = match strategy {
            None => false,
            Some(Placed { value: "suppress", .. }) => false,
            Some(Placed { value: "doNotSuppress", .. }) => true,
            Some(other) => {
                let message = format!("there is no strategy `{}`", other.value);
                self.wrong(other.span, message, "write \"suppress\" or \"doNotSuppress\"");
                false
            }
        };
        Some(Suppression { group_by, duration: duration.unwrap_or(interval), keep_without_fields })
    }

    fn group(&mut self, table: &DocumentTable<'a>, names: &[Placed<&str>]) -> Option<Vec<FieldId>> {
        if names.is_empty() {
            self.faults.push(table.missing("group_by"));
        }
        if let Some(over) = names.get(GROUP_FIELDS_MAX) {
            self.wrong(over.span, format!("alerts are grouped by {GROUP_FIELDS_MAX} fields at most"), "");
        }
        let fields: Vec<_> = names.iter().map(|name| self.lookup(*name)).collect();
        fields.into_iter().collect()
    }

    fn suppression_duration(&mut self, table: &DocumentTable<'a>) -> Option<Duration> {
        let duration = table.table("duration", self.faults)?;
        let value = self.number(&duration, "value", DURATION_MAX);
        let unit = duration.required("unit", self.faults)?;
        let Some((_, seconds)) = UNITS.iter().find(|(name, _)| *name == unit.value) else {
            self.wrong(unit.span, format!("there is no unit `{}`", unit.value), "units are s, m, h and d");
            return None;
        };
        Some(Duration::from_secs(value? * seconds))
    }

    /// `rule_name_override`, `risk_score_mapping` and `severity_mapping`
    pub(super) fn overrides(&mut self) -> Overrides {
        let name = self.field("rule_name_override");
        let mut overrides = Overrides { name, ..Overrides::default() };
        for table in self.table.tables("risk_score_mapping", self.faults) {
            if let Some((field, _)) = self.mapped(&table) {
                // Kibana regards the first alone.
                overrides.risk_score.get_or_insert(field);
            }
        }
        for table in self.table.tables("severity_mapping", self.faults) {
            let mapped = self.mapped(&table);
            let Some(name) = table.required("severity", self.faults) else { continue };
            let severity = Severity::named(name.value);
            if severity.is_none() {
                let help = "write \"low\", \"medium\", \"high\" or \"critical\"";
                self.wrong(name.span, format!("there is no severity {:?}", name.value), help);
            }
            if let (Some((field, value)), Some(severity)) = (mapped, severity) {
                overrides.severity.push((field, value.into(), severity));
            }
        }
        overrides
    }

    /// An entry of a mapping: the field and the required value.
    fn mapped(&mut self, table: &DocumentTable<'a>) -> Option<(FieldId, &'a str)> {
        let name = table.required("field", self.faults);
        let operator = table.text("operator", self.faults).filter(|operator| operator.value != "equals");
        if let Some(operator) = operator {
            self.wrong(operator.span, format!("there is no operator `{}`", operator.value), "`equals` is");
        }
        let value = table.text("value", self.faults).map_or("", |value| value.value);
        self.lookup(name?).map(|field| (field, value))
    }

    /// `building_block_type`
    pub(super) fn building_block(&mut self) -> bool {
        let block = self.table.text("building_block_type", self.faults).filter(|text| !text.value.is_empty());
        if let Some(other) = block.filter(|block| block.value != BUILDING_BLOCK) {
            let message = format!("there is no type `{}` of building blocks", other.value);
            self.wrong(other.span, message, "`default` is");
        }
        block.is_some()
    }
}
