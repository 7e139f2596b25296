//! Processes and what they look like in events: the same fields, in the same shared lists, as the sensor's.

use std::cell::OnceCell;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};

use lapwing_engine::{FieldId, Fields, Timestamp, Value, field};
use smol_str::{SmolStr, ToSmolStr, format_smolstr};

use crate::activity::Program;

/// A process that runs a program. A fork, and the program run in it, are two of these.
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) start: Timestamp,
    pub(crate) entity_id: SmolStr,
    pub(crate) parent: Option<Rc<Process>>,
    /// The leaders of its session and entry; `None` where it is itself.
    pub(crate) leader: Option<Rc<Process>>,
    pub(crate) entry: &'static str,
    pub(crate) user: &'static str,
    pub(crate) uid: u32,
    pub(crate) tty: bool,
    pub(crate) directory: SmolStr,
    pub(crate) program: Rc<Program>,
    pub(crate) previous: Option<Rc<Program>>,
    pub(crate) process: OnceCell<Arc<Fields>>,
    pub(crate) network: OnceCell<Arc<Fields>>,
    pub(crate) roles: [OnceCell<Arc<Fields>>; 4],
}

/// The fields of a process in a role.
struct Role {
    args: FieldId,
    args_count: FieldId,
    command_line: FieldId,
    entity_id: FieldId,
    executable: FieldId,
    group_id: FieldId,
    group_name: FieldId,
    interactive: FieldId,
    name: FieldId,
    pid: FieldId,
    real_group_id: FieldId,
    real_group_name: FieldId,
    real_user_id: FieldId,
    real_user_name: FieldId,
    saved_group_id: FieldId,
    saved_user_id: FieldId,
    start: FieldId,
    user_id: FieldId,
    user_name: FieldId,
    working_directory: FieldId,
}

macro_rules! role {
    ($prefix:literal) => {
        const {
            Role {
                args: FieldId::of(concat!($prefix, ".args")),
                args_count: FieldId::of(concat!($prefix, ".args_count")),
                command_line: FieldId::of(concat!($prefix, ".command_line")),
                entity_id: FieldId::of(concat!($prefix, ".entity_id")),
                executable: FieldId::of(concat!($prefix, ".executable")),
                group_id: FieldId::of(concat!($prefix, ".group.id")),
                group_name: FieldId::of(concat!($prefix, ".group.name")),
                interactive: FieldId::of(concat!($prefix, ".interactive")),
                name: FieldId::of(concat!($prefix, ".name")),
                pid: FieldId::of(concat!($prefix, ".pid")),
                real_group_id: FieldId::of(concat!($prefix, ".real_group.id")),
                real_group_name: FieldId::of(concat!($prefix, ".real_group.name")),
                real_user_id: FieldId::of(concat!($prefix, ".real_user.id")),
                real_user_name: FieldId::of(concat!($prefix, ".real_user.name")),
                saved_group_id: FieldId::of(concat!($prefix, ".saved_group.id")),
                saved_user_id: FieldId::of(concat!($prefix, ".saved_user.id")),
                start: FieldId::of(concat!($prefix, ".start")),
                user_id: FieldId::of(concat!($prefix, ".user.id")),
                user_name: FieldId::of(concat!($prefix, ".user.name")),
                working_directory: FieldId::of(concat!($prefix, ".working_directory")),
            }
        }
    };
}

const ITSELF: Role = role!("process");
const ROLES: [Role; 4] = [
    role!("process.parent"),
    role!("process.group_leader"),
    role!("process.session_leader"),
    role!("process.entry_leader"),
];
/// The capabilities of root's processes; one shared list, as in the sensor.
static CAPABILITIES: LazyLock<Value> = LazyLock::new(|| Value::texts(NAMES));
const NAMES: [&str; 12] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_SYS_PTRACE",
    "CAP_SYS_ADMIN",
    "CAP_SYS_MODULE",
    "CAP_BPF",
];
/// Longest line of ancestors.
const ANCESTORS_MAX: usize = 20;

impl Process {
    /// The lists of its parent and leaders.
    pub(crate) fn others(&self) -> impl Iterator<Item = Arc<Fields>> {
        let leader = self.leader.as_deref().unwrap_or(self);
        let others = [self.parent.as_deref(), Some(leader), Some(leader), Some(leader)];
        others.into_iter().enumerate().filter_map(|(role, process)| Some(process?.role(role)))
    }

    fn role(&self, role: usize) -> Arc<Fields> {
        let make = || {
            let mut fields = Fields::with_capacity(24);
            self.describe_as(&ROLES[role], &mut fields);
            self.describe_program_as(&ROLES[role], &mut fields);
            if role == 3 {
                fields.set(field!("process.entry_leader.entry_meta.type"), self.entry);
            }
            fields.into()
        };
        self.roles[role].get_or_init(make).clone()
    }

    /// The fields of it in process events.
    pub(crate) fn process_list(&self) -> Arc<Fields> {
        let make = || {
            let mut fields = Fields::with_capacity(72);
            self.describe_as(&ITSELF, &mut fields);
            self.describe_relations(&mut fields);
            self.describe_user(&mut fields);
            self.describe_program_as(&ITSELF, &mut fields);
            fields.set(field!("lapwing.process.comm"), self.program.name.first_text().unwrap_or_default());
            fields.set(field!("lapwing.process.cgroup.id"), 4000 + i64::from(self.uid));
            fields.set(
                field!("lapwing.process.cgroup.path"),
                format_smolstr!("/system.slice/{}.service", self.user),
            );
            for namespace in [
                field!("lapwing.process.namespace.cgroup"),
                field!("lapwing.process.namespace.mnt"),
                field!("lapwing.process.namespace.net"),
                field!("lapwing.process.namespace.pid"),
            ] {
                fields.set(namespace, 4_026_531_835_i64);
            }
            fields.set(field!("process.pgid"), self.leader.as_deref().unwrap_or(self).pid);
            fields.set_some(field!("process.parent.pid"), self.parent.as_ref().map(|parent| parent.pid));
            if let Some(previous) = &self.previous {
                fields.set(field!("process.previous.args"), previous.args.clone());
                fields.set(field!("process.previous.args_count"), previous.args.elements().count() as i64);
                fields.set(field!("process.previous.executable"), previous.executable.clone());
            }
            fields.set(field!("lapwing.process.stdin.type"), if self.tty { "char_device" } else { "pipe" });
            fields.into()
        };
        self.process.get_or_init(make).clone()
    }

    /// The fields of it in network events.
    pub(crate) fn network_list(&self) -> Arc<Fields> {
        let make = || {
            let mut fields = Fields::with_capacity(24);
            fields.set(field!("process.name"), self.program.name.clone());
            fields.set(field!("process.executable"), self.program.executable.clone());
            fields.set(field!("process.command_line"), self.program.command_line.clone());
            fields.set(field!("process.pid"), self.pid);
            self.describe_relations(&mut fields);
            self.describe_user(&mut fields);
            fields.into()
        };
        self.network.get_or_init(make).clone()
    }

    fn describe_as(&self, role: &Role, fields: &mut Fields) {
        fields.set(role.entity_id, self.entity_id.clone());
        fields.set(role.pid, self.pid);
        fields.set(role.start, self.start);
        fields.set(role.interactive, self.tty);
        for id in [role.user_id, role.real_user_id, role.saved_user_id] {
            fields.set(id, self.uid.to_smolstr());
        }
        for id in [role.group_id, role.real_group_id, role.saved_group_id] {
            fields.set(id, self.uid.to_smolstr());
        }
        for id in [role.user_name, role.real_user_name, role.group_name, role.real_group_name] {
            fields.set(id, self.user);
        }
    }

    fn describe_program_as(&self, role: &Role, fields: &mut Fields) {
        fields.set(role.args, self.program.args.clone());
        fields.set(role.args_count, self.program.args.elements().count() as i64);
        fields.set(role.command_line, self.program.command_line.clone());
        fields.set(role.executable, self.program.executable.clone());
        fields.set(role.name, self.program.name.clone());
        fields.set(role.working_directory, self.directory.clone());
    }

    fn describe_relations(&self, fields: &mut Fields) {
        fields.set(field!("process.entity_id"), self.entity_id.clone());
        if let Some(parent) = &self.parent {
            fields.set(field!("process.parent.entity_id"), parent.entity_id.clone());
            let ancestors = std::iter::successors(Some(parent), |process| process.parent.as_ref());
            let ids = ancestors.map(|process| process.entity_id.clone()).take(ANCESTORS_MAX);
            fields.set(field!("process.Ext.ancestry"), Value::texts(ids));
        }
        let leader = self.leader.as_deref().unwrap_or(self);
        for (id, same) in [
            (field!("process.group_leader.entity_id"), field!("process.group_leader.same_as_process")),
            (field!("process.session_leader.entity_id"), field!("process.session_leader.same_as_process")),
            (field!("process.entry_leader.entity_id"), field!("process.entry_leader.same_as_process")),
        ] {
            fields.set(id, leader.entity_id.clone());
            fields.set(same, self.leader.is_none());
        }
    }

    fn describe_user(&self, fields: &mut Fields) {
        for id in
            [field!("group.Ext.real.id"), field!("group.id"), field!("user.Ext.real.id"), field!("user.id")]
        {
            fields.set(id, self.uid.to_smolstr());
        }
        for id in [
            field!("group.Ext.real.name"),
            field!("group.name"),
            field!("user.Ext.real.name"),
            field!("user.name"),
        ] {
            fields.set(id, self.user);
        }
        if self.uid == 0 {
            for id in [
                field!("process.thread.capabilities.effective"),
                field!("process.thread.capabilities.permitted"),
            ] {
                fields.set(id, CAPABILITIES.clone());
            }
        }
    }
}
