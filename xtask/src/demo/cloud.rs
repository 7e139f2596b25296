//! The detections on CloudTrail: files as AWS delivers them, in a folder that the agent watches.

use std::time::SystemTime;

use anyhow::Result;
use jiff::Timestamp;
use lapwing_stage::trail;

use super::Scene;

/// A file in which a key is pushed to an instance.
pub(super) fn key_upload(scene: &Scene) -> Result<Option<SystemTime>> {
    scene.trail.deliver("key", &[trail::key_upload(Timestamp::now())]).map(Some)
}

/// A file with ten hours of a country's usual calls, and then one that it never made.
pub(super) fn rare_country(scene: &Scene) -> Result<Option<SystemTime>> {
    scene.trail.deliver("calls", &trail::rare_call(Timestamp::now())).map(Some)
}
