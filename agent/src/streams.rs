//! The lanes, and the data streams of their events: the one table of what an `index` of a rule can name on this host.

use std::sync::Arc;

use lapwing_engine::Rule;

use crate::action;

/// Events of one form, by their source.
pub(crate) struct Streams {
    /// The name of the source, in the coverage of rules.
    pub(crate) source: &'static str,
    /// The name of the lane that evaluates them.
    pub(crate) lane: &'static str,
    /// The names of Elastic's data streams for these events.
    pub(crate) names: fn() -> Vec<&'static str>,
}

/// The sensor's events.
pub(crate) const SENSOR: Streams = Streams { source: "sensor", lane: "sensor", names: action::streams };
/// The sensor's events in auditd's form.
pub(crate) const AUDITD: Streams = Streams {
    source: "auditd",
    lane: SENSOR.lane,
    names: || vec!["logs-auditd_manager.auditd-default", "auditbeat-default"],
};
/// CloudTrail's events.
pub(crate) const CLOUDTRAIL: Streams =
    Streams { source: "cloudtrail", lane: "cloudtrail", names: || vec!["logs-aws.cloudtrail-default"] };

const ALL: [&Streams; 3] = [&SENSOR, &AUDITD, &CLOUDTRAIL];

impl Streams {
    /// Whether a rule reads these events.
    pub(crate) fn are_read_by(&self, rule: &Rule) -> bool {
        (self.names)().iter().any(|stream| rule.reads(stream))
    }

    /// The enabled rules that read these events.
    pub(crate) fn readers(&self, rules: &[Arc<Rule>]) -> Vec<Arc<Rule>> {
        rules.iter().filter(|rule| rule.enabled && self.are_read_by(rule)).cloned().collect()
    }
}

/// The lanes on which a rule runs.
pub(crate) fn lanes(rule: &Rule) -> Vec<&'static str> {
    let mut lanes: Vec<_> =
        ALL.iter().filter(|streams| streams.are_read_by(rule)).map(|streams| streams.lane).collect();
    lanes.dedup();
    lanes
}
