//! Which names and paths of a process are those of files that the kernel opened, and which it only goes by.
//!
//! A list such as `process.name` or `process.executable` holds both, so that rules match either. A name that a process only
//! goes by, a link's or one that it gave itself, is anyone's to choose: no exclusion may be satisfied by it. Where there are such names, a
//! field beside the list has those of the opened files alone.

use super::{Elements, Event, FieldId, Value};
use crate::field;

/// Lists of names, each with the field that has those of opened files, where they are not all.
const OPENED: [(FieldId, FieldId); 10] = [
    (field!("process.executable"), field!("lapwing.process.opened_executable")),
    (field!("process.parent.executable"), field!("lapwing.process.parent.opened_executable")),
    (field!("process.group_leader.executable"), field!("lapwing.process.group_leader.opened_executable")),
    (field!("process.session_leader.executable"), field!("lapwing.process.session_leader.opened_executable")),
    (field!("process.entry_leader.executable"), field!("lapwing.process.entry_leader.opened_executable")),
    (field!("process.name"), field!("lapwing.process.opened_name")),
    (field!("process.parent.name"), field!("lapwing.process.parent.opened_name")),
    (field!("process.group_leader.name"), field!("lapwing.process.group_leader.opened_name")),
    (field!("process.session_leader.name"), field!("lapwing.process.session_leader.opened_name")),
    (field!("process.entry_leader.name"), field!("lapwing.process.entry_leader.opened_name")),
];

impl FieldId {
    /// The field that has those of this one's names that files the kernel opened have; `None` of fields that hold no such
    /// names.
    #[must_use]
    pub fn opened(self) -> Option<Self> {
        OPENED.iter().find(|(names, _)| *names == self).map(|(_, opened)| *opened)
    }
}

impl Event {
    /// The values of a field without those that a process only goes by.
    #[must_use]
    pub fn opened_values(&self, id: FieldId) -> Elements<'_> {
        let opened = id.opened().and_then(|opened| self.get(opened));
        opened.map_or_else(|| self.values(id), Value::elements)
    }
}
