//! What the events of API calls can hold. Rules are checked against it before anything is read.

use lapwing_engine::coverage::EventKind;
use lapwing_engine::{FieldId, Value, field};

use super::actions::categories;
use super::{ecs, geo};

/// The kinds of events: calls of each category, and those of none. Without `places` there are no locations of
/// addresses.
pub(crate) fn event_kinds(places: bool) -> Vec<EventKind> {
    let placed = geo::fields().chain([field!("source.geo.location")]).filter(|_| places);
    let fields: Vec<_> = ecs::fields().chain(OTHERS.iter().copied()).chain(placed).collect();
    let of = |category: &&str| {
        let mut fixed = ecs::constants();
        fixed.set(field!("event.category"), Value::texts([*category]));
        EventKind::new(&format!("API call ({category})"), fixed, fields.iter().copied())
    };
    let others = EventKind::new("API call", ecs::constants(), fields.iter().copied());
    categories().iter().map(of).chain([others]).collect()
}

/// Fields that are derived from several members of a record, or say where it was read.
const OTHERS: &[FieldId] = &[
    field!("actor.entity.id"),
    field!("aws.cloudtrail.console_login.additional_eventdata.login_to"),
    field!("aws.cloudtrail.console_login.additional_eventdata.mfa_used"),
    field!("aws.cloudtrail.console_login.additional_eventdata.mobile_version"),
    field!("aws.cloudtrail.resources.account_id"),
    field!("aws.cloudtrail.resources.arn"),
    field!("aws.cloudtrail.resources.type"),
    field!("aws.s3.bucket.name"),
    field!("aws.s3.object.key"),
    field!("cloud.account.id"),
    field!("entity.id"),
    field!("entity.target.id"),
    field!("event.created"),
    field!("event.original"),
    field!("event.outcome"),
    field!("event.type"),
    field!("group.id"),
    field!("group.name"),
    field!("host.entity.id"),
    field!("host.target.entity.id"),
    field!("log.file.path"),
    field!("related.entity"),
    field!("related.hosts"),
    field!("related.ip"),
    field!("related.user"),
    field!("service.entity.id"),
    field!("service.target.entity.id"),
    field!("source.ip"),
    field!("target.entity.id"),
    field!("tls.cipher"),
    field!("tls.client.server_name"),
    field!("tls.version"),
    field!("tls.version_protocol"),
    field!("user.changes.name"),
    field!("user.email"),
    field!("user.entity.id"),
    field!("user.id"),
    field!("user.target.entity.id"),
    field!("user.target.id"),
    field!("user.target.name"),
    field!("user_agent.name"),
    field!("user_agent.version"),
];
