//! The agent's own alert, "Sensor tampered with": somebody interfered with the sensor, or what it reports is not what happens.

use lapwing_engine::Schema;
use lapwing_engine::rule::Severity;
use serde_json::json;

use super::statement::{OwnRule, Statement};
use crate::ledger::AlertDocument;
use crate::source::Tampered;

static RULE: OwnRule = OwnRule {
    id: "4b0c2f5e-53c1-4d54-8d2b-9a6f0f3f7c21",
    name: "Sensor tampered with",
    description: "Somebody interfered with the sensor on this host, or a hook of it does not show what happens. What \
        happened since may have gone unseen, and that may have been the purpose.",
    category: "tampering",
    action: "sensor_tampered",
};
const RISK_SCORE: u32 = 99;
/// Of what the kernel or the service manager does, and others may have brought about.
const MANAGED_RISK_SCORE: u32 = 47;
const GUIDE: &str = "1. Read `event.reason`: it says what was changed and, where that is known, by which process; only root can.\n\
    2. Take this host's other telemetry for the time from `event.start` on: what the sensor reports since may be incomplete.\n\
    3. `lapwing status` says under `tampered` whether it still is so. A restart of the service attaches everything anew.\n";

/// Its document.
pub(crate) fn document(tampered: &Tampered, schema: &Schema) -> AlertDocument {
    let Tampered { event, from, to, reason, is_managed } = tampered;
    let (severity, risk_score) =
        if *is_managed { (Severity::Medium, MANAGED_RISK_SCORE) } else { (Severity::High, RISK_SCORE) };
    Statement {
        rule: &RULE,
        event,
        from: *from,
        to: *to,
        reason: reason.clone(),
        severity,
        risk_score,
        guide: GUIDE,
        lost_records: None,
        detail: ("tampered", json!({"reason": reason})),
    }
    .document(schema)
}
