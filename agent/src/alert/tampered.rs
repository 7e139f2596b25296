//! The agent's own alert "Sensor tampered with": the sensor was interfered with, or its reports are wrong.

use lapwing_engine::Schema;
use lapwing_engine::rule::Severity;
use serde_json::json;

use super::document::AlertDocument;
use super::incident::{Tampered, Weight};
use super::statement::{OwnRule, Statement};

static RULE: OwnRule = OwnRule {
    id: "4b0c2f5e-53c1-4d54-8d2b-9a6f0f3f7c21",
    name: "Sensor tampered with",
    description: "The sensor on this host was interfered with, or one of its hooks produces no events. Events since then \
        may be missing, which may have been the purpose.",
    category: "tampering",
    action: "sensor_tampered",
};
const RISK_SCORE: u32 = 99;
/// Risk score of changes by the kernel or the service manager, which others may have caused.
const MANAGED_RISK_SCORE: u32 = 47;
const GUIDE: &str = "1. Read `event.reason`: it has the change and, if known, the process; only root can do this.\n\
    2. Use other telemetry of this host from `event.start` on: the sensor's may be incomplete.\n\
    3. `tampered` in `lapwing status` shows whether it lasts. A restart of the service attaches all hooks and loads all files \
    again: before it, compare the files with the package's and with your own.\n";
static CHANGED: OwnRule = OwnRule {
    id: "c0a1f7d4-0f5e-4a46-9d0b-5d1c6a3e9b72",
    name: "Sensor files changed",
    description: "A package manager, or root in a login session, changed files of the sensor on this host: its program, \
        configuration or rules. The change takes effect with the restart of the service; without one within ten minutes, it is \
        reported as interference. Or the sensor was started with other files than in its previous run.",
    category: "change",
    action: "sensor_files_changed",
};
const CHANGED_RISK_SCORE: u32 = 21;
const CHANGED_GUIDE: &str = "1. Read `event.reason`: it has the changed files, their hashes before and after, and the most likely process.\n\
    2. Ask that administrator whether the change was intended.\n\
    3. `lapwing check` and `systemctl restart lapwing` apply it.\n";

/// Builds the document.
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
