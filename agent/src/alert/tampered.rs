//! The agent's own alert, "Sensor tampered with": somebody interfered with the sensor, or what it reports is not what happens.

use lapwing_engine::Schema;
use lapwing_engine::rule::Severity;
use serde_json::json;

use super::statement::{OwnRule, Statement};
use crate::ledger::AlertDocument;
use crate::source::{Tampered, Weight};

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
    3. `lapwing status` says under `tampered` whether it still is so. A restart of the service attaches everything anew, and \
    loads every file anew: compare the files with the package's and with your own before it.\n";
static CHANGED: OwnRule = OwnRule {
    id: "c0a1f7d4-0f5e-4a46-9d0b-5d1c6a3e9b72",
    name: "Sensor files changed",
    description: "A package manager, or root in a login session, changed files of the sensor on this host: its program, \
        configuration or rules. It is in force with the restart of the service; where none follows within ten minutes, it is \
        reported as interference. Or the sensor was started with other files than in its previous run.",
    category: "change",
    action: "sensor_files_changed",
};
const CHANGED_RISK_SCORE: u32 = 21;
const CHANGED_GUIDE: &str = "1. Read `event.reason`: it says which files were changed, what they hold now and held before, and by which \
    process that was most likely done.\n\
    2. Find out from that administrator whether it was meant.\n\
    3. `lapwing check` and `systemctl restart lapwing` put it into force.\n";

/// Its document.
pub(crate) fn document(tampered: &Tampered, schema: &Schema) -> AlertDocument {
    let Tampered { event, from, to, reason, weight } = tampered;
    let (rule, severity, risk_score, guide) = match weight {
        Weight::Interference => (&RULE, Severity::High, RISK_SCORE, GUIDE),
        Weight::Managed => (&RULE, Severity::Medium, MANAGED_RISK_SCORE, GUIDE),
        Weight::Meant => (&CHANGED, Severity::Low, CHANGED_RISK_SCORE, CHANGED_GUIDE),
    };
    Statement {
        rule,
        event,
        from: *from,
        to: *to,
        reason: reason.clone(),
        severity,
        risk_score,
        guide,
        lost_records: None,
        detail: ("tampered", json!({"reason": reason})),
    }
    .document(schema)
}
