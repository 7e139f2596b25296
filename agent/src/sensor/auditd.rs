//! The sensor's events in the form that Elastic's agent gives auditd's, for rules that are written for these.
//!
//! The names of actions and the ids in `user.*` differ. All other fields of the sensor stay in the event, though auditd
//! would not report them.
//! <https://www.elastic.co/docs/reference/integrations/auditd_manager>

use std::sync::Arc;

use lapwing_engine::coverage::EventKind;
use lapwing_engine::{Event, FieldId, Fields, field};

use crate::action::Action;

/// The field of an id or a name there, and in the sensor's events: `user.id` is the real one there and the effective
/// one here.
const USERS: [(FieldId, FieldId); 4] = [
    (field!("user.effective.id"), field!("user.id")),
    (field!("user.effective.name"), field!("user.name")),
    (field!("user.id"), field!("user.Ext.real.id")),
    (field!("user.name"), field!("user.Ext.real.name")),
];

/// The event in auditd's form; `None` if auditd has no such event.
pub(crate) fn of(event: &Arc<Event>) -> Option<Arc<Event>> {
    let action = Action::of(event.text(field!("event.action"))?)?.auditd?;
    let mut view = Event::clone(event);
    for (id, value) in fixed(action).iter() {
        view.set(id, value.clone());
    }
    for (id, from) in USERS {
        if let Some(value) = event.get(from) {
            view.set(id, value.clone());
        }
    }
    Some(Arc::new(view))
}

/// The kind of such events, for a kind of the sensor.
pub(super) fn kind(kind: &EventKind) -> Option<EventKind> {
    let action = Action::of(&kind.name)?.auditd?;
    Some(kind.renamed(action, &fixed(action), USERS.map(|(id, _)| id)))
}

/// The fields that every event of an action has there.
fn fixed(action: &'static str) -> Fields {
    let mut fields = Fields::new();
    fields.set(field!("data_stream.dataset"), "auditd_manager.auditd");
    fields.set(field!("event.action"), action);
    fields.set(field!("event.dataset"), "auditd_manager.auditd");
    fields.set(field!("event.module"), "auditd");
    fields
}
