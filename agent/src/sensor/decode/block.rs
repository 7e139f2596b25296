//! What one process looks like in events, in each of the roles it has in its own and in others'.

use std::sync::Arc;

use lapwing_common::{ABSENT, Descriptor, Namespace};
use lapwing_engine::{FieldId, Fields, Value, field};
use smol_str::{SmolStr, ToSmolStr};

use super::{Decoder, count};
use crate::sensor::container::Container;
use crate::sensor::image::Image;
use crate::sensor::process::{BLOCKS, Process, Table};
use crate::sensor::script::Mark;

/// The numbers of the blocks: those of the roles first.
const PROCESS: usize = ROLES.len();
const NETWORK: usize = PROCESS + 1;
const _: () = assert!(NETWORK + 1 == BLOCKS);

/// The fields by which one process is described in a role.
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
    opened_executable: FieldId,
    opened_name: FieldId,
    pid: FieldId,
    real_group_id: FieldId,
    real_group_name: FieldId,
    real_user_id: FieldId,
    real_user_name: FieldId,
    saved_group_id: FieldId,
    saved_user_id: FieldId,
    start: FieldId,
    tty_major: FieldId,
    tty_minor: FieldId,
    user_id: FieldId,
    user_name: FieldId,
    vpid: FieldId,
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
                opened_executable: FieldId::of(concat!("lapwing.", $prefix, ".opened_executable")),
                opened_name: FieldId::of(concat!("lapwing.", $prefix, ".opened_name")),
                pid: FieldId::of(concat!($prefix, ".pid")),
                real_group_id: FieldId::of(concat!($prefix, ".real_group.id")),
                real_group_name: FieldId::of(concat!($prefix, ".real_group.name")),
                real_user_id: FieldId::of(concat!($prefix, ".real_user.id")),
                real_user_name: FieldId::of(concat!($prefix, ".real_user.name")),
                saved_group_id: FieldId::of(concat!($prefix, ".saved_group.id")),
                saved_user_id: FieldId::of(concat!($prefix, ".saved_user.id")),
                start: FieldId::of(concat!($prefix, ".start")),
                tty_major: FieldId::of(concat!($prefix, ".tty.char_device.major")),
                tty_minor: FieldId::of(concat!($prefix, ".tty.char_device.minor")),
                user_id: FieldId::of(concat!($prefix, ".user.id")),
                user_name: FieldId::of(concat!($prefix, ".user.name")),
                vpid: FieldId::of(concat!($prefix, ".vpid")),
                working_directory: FieldId::of(concat!($prefix, ".working_directory")),
            }
        }
    };
}

const ITSELF: Role = role!("process");
pub(super) const PARENT: usize = 0;
pub(super) const GROUP_LEADER: usize = 1;
pub(super) const SESSION_LEADER: usize = 2;
pub(super) const ENTRY_LEADER: usize = 3;
const ROLES: [Role; 4] = [
    role!("process.parent"),
    role!("process.group_leader"),
    role!("process.session_leader"),
    role!("process.entry_leader"),
];

impl Decoder {
    pub(super) fn role_block(&self, role: usize, process: &Process) -> Arc<Fields> {
        let make = || {
            let mut fields = Fields::with_capacity(24);
            self.describe_as(&ROLES[role], process, &mut fields);
            describe_program_as(&ROLES[role], process, &process.image, &mut fields);
            if role == ENTRY_LEADER {
                let kind = process.entry.map(|(_, kind)| kind);
                fields.set_some(field!("process.entry_leader.entry_meta.type"), kind);
            }
            fields
        };
        process.blocks.get_or_build(role, make)
    }

    pub(super) fn process_block(&self, table: &Table, process: &Process) -> Arc<Fields> {
        process.blocks.get_or_build(PROCESS, || self.process_fields(table, process, Some(&process.image)))
    }

    /// What a process looks like that runs this program, its own or an earlier one.
    pub(super) fn process_fields(
        &self,
        table: &Table,
        process: &Process,
        image: Option<&Arc<Image>>,
    ) -> Fields {
        let mut fields = Fields::with_capacity(72);
        self.describe_as(&ITSELF, process, &mut fields);
        self.describe_relations(table, process, &mut fields);
        let container = table.container(process);
        self.describe_user(process, container.is_some(), &mut fields);
        self.describe_capabilities(process, &mut fields);
        describe_place(table, process, &mut fields);
        describe_container(container, &mut fields);
        if let Some(image) = image {
            describe_program_as(&ITSELF, process, image, &mut fields);
            describe_program(image, &mut fields);
            if Arc::ptr_eq(image, &process.image) {
                describe_start(process, &mut fields);
            }
        }
        fields
    }

    /// The process fields of a network event: those of Defend's, and the working directory, which rules join by.
    pub(super) fn network_block(&self, table: &Table, process: &Process) -> Arc<Fields> {
        let make = || {
            let image = &process.image;
            let mut fields = Fields::with_capacity(24);
            describe_names(&ITSELF, process, image, &mut fields);
            describe_executables(&ITSELF, image, &mut fields);
            fields.set_some(field!("process.command_line"), known(&image.command_line));
            fields.set(field!("process.pid"), process.key.pid);
            fields.set_some(field!("process.working_directory"), known(&image.directory));
            fields.set_some(field!("lapwing.process.commands_from"), image.commands_from);
            describe_descriptors(process, &mut fields);
            self.describe_capabilities(process, &mut fields);
            self.describe_relations(table, process, &mut fields);
            let container = table.container(process);
            self.describe_user(process, container.is_some(), &mut fields);
            describe_container(container, &mut fields);
            fields
        };
        process.blocks.get_or_build(NETWORK, make)
    }

    fn describe_as(&self, role: &Role, process: &Process, fields: &mut Fields) {
        let (credentials, context) = (&process.credentials, &process.context);
        fields.set(role.entity_id, process.entity_id.clone());
        fields.set(role.pid, process.key.pid);
        fields.set(role.start, self.clock.wall(process.start));
        fields.set(role.interactive, context.tty != 0);
        if context.tty != 0 {
            fields.set(role.tty_major, context.tty >> 20);
            fields.set(role.tty_minor, context.tty & 0xf_ffff);
        }
        if context.vpid != 0 && context.vpid != process.key.pid {
            fields.set(role.vpid, context.vpid);
        }
        if credentials.euid != ABSENT {
            fields.set(role.user_id, credentials.euid.to_smolstr());
            fields.set_some(role.user_name, self.names.user(credentials.euid));
            fields.set(role.group_id, credentials.egid.to_smolstr());
            fields.set_some(role.group_name, self.names.group(credentials.egid));
            fields.set(role.real_user_id, credentials.uid.to_smolstr());
            fields.set_some(role.real_user_name, self.names.user(credentials.uid));
            fields.set(role.real_group_id, credentials.gid.to_smolstr());
            fields.set_some(role.real_group_name, self.names.group(credentials.gid));
            fields.set(role.saved_user_id, credentials.suid.to_smolstr());
            fields.set(role.saved_group_id, credentials.sgid.to_smolstr());
        }
    }

    /// The names of the processes that this one belongs to.
    fn describe_relations(&self, table: &Table, process: &Process, fields: &mut Fields) {
        fields.set(field!("process.entity_id"), process.entity_id.clone());
        if let Some(parent) = process.parent {
            let known = table.get(parent).map(|parent| parent.entity_id.clone());
            let parent_id = known.unwrap_or_else(|| table.entity_id(parent));
            fields.set(field!("process.parent.entity_id"), parent_id.clone());
            let known = table.ancestors(process.key).map(|ancestor| ancestor.entity_id.clone());
            let mut ancestry: Vec<_> = known.collect();
            if ancestry.is_empty() {
                ancestry.push(parent_id);
            }
            fields.set(field!("process.Ext.ancestry"), Value::texts(ancestry));
        }
        let own = &process.entity_id;
        if let Some(leader) = table.by_pid(process.context.pgid) {
            fields.set(field!("process.group_leader.entity_id"), leader.entity_id.clone());
            fields.set(field!("process.group_leader.same_as_process"), leader.entity_id == *own);
        }
        if let Some(leader) = table.by_pid(process.context.sid) {
            fields.set(field!("process.session_leader.entity_id"), leader.entity_id.clone());
            fields.set(field!("process.session_leader.same_as_process"), leader.entity_id == *own);
            let parent = leader.parent.map(|parent| table.entity_id(parent));
            fields.set_some(field!("process.session_leader.parent.entity_id"), parent);
        }
        if let Some((entry, _)) = process.entry {
            let id = table.entity_id(entry);
            fields.set(field!("process.entry_leader.same_as_process"), id == *own);
            fields.set(field!("process.entry_leader.entity_id"), id);
            let parent =
                table.get(entry).and_then(|entry| entry.parent).map(|parent| table.entity_id(parent));
            fields.set_some(field!("process.entry_leader.parent.entity_id"), parent);
        }
    }

    /// Of the process itself only, not of its relatives: the names of all capabilities are a kilobyte.
    fn describe_capabilities(&self, process: &Process, fields: &mut Fields) {
        let credentials = &process.credentials;
        if credentials.euid != ABSENT {
            let (effective, permitted) = (credentials.effective, credentials.permitted);
            fields.set(field!("process.thread.capabilities.effective"), self.capabilities.of(effective));
            fields.set(field!("process.thread.capabilities.permitted"), self.capabilities.of(permitted));
        }
    }

    fn describe_user(&self, process: &Process, is_contained: bool, fields: &mut Fields) {
        let credentials = &process.credentials;
        if credentials.euid == ABSENT {
            return;
        }
        fields.set(field!("group.Ext.real.id"), credentials.gid.to_smolstr());
        fields.set_some(field!("group.Ext.real.name"), self.names.group(credentials.gid));
        fields.set(field!("group.id"), credentials.egid.to_smolstr());
        fields.set_some(field!("group.name"), self.names.group(credentials.egid));
        fields.set(field!("user.Ext.real.id"), credentials.uid.to_smolstr());
        fields.set_some(field!("user.Ext.real.name"), self.names.user(credentials.uid));
        let actor = (credentials.actor != ABSENT).then(|| credentials.actor.to_smolstr());
        fields.set_some(field!("lapwing.actor.id"), actor);
        fields.set(field!("user.id"), credentials.euid.to_smolstr());
        fields.set_some(field!("user.name"), self.names.user(credentials.euid));
        // Its own files may give the same number another name.
        let is_foreign = is_contained || process.is_of_other_users();
        fields.set_some(field!("lapwing.user.names_of"), is_foreign.then_some("host"));
    }
}

fn describe_program_as(role: &Role, process: &Process, image: &Image, fields: &mut Fields) {
    fields.set(role.args, image.args.clone());
    fields.set(role.args_count, image.args_count);
    fields.set_some(role.command_line, known(&image.command_line));
    describe_executables(role, image, fields);
    describe_names(role, process, image, fields);
    fields.set_some(role.working_directory, known(&image.directory));
}

/// The files that were opened to run a program, and which of them are known to have been.
fn describe_executables(role: &Role, image: &Image, fields: &mut Fields) {
    fields.set_some(role.executable, image.executables());
    fields.set_some(role.opened_executable, image.opened_executable().cloned());
}

/// The names that a process goes by, and which of them is that of the file, where there are others.
fn describe_names(role: &Role, process: &Process, image: &Image, fields: &mut Fields) {
    fields.set(role.name, image.name.clone());
    if !(image.is_unknown() && is_of_the_kernel(process)) {
        fields.set_some(role.opened_name, image.opened_name());
    }
}

/// Whether it is a thread of the kernel, whose name is the kernel's.
fn is_of_the_kernel(process: &Process) -> bool {
    /// The number of kthreadd, which starts all others.
    const KTHREADD: u32 = 2;
    process.key.pid == KTHREADD || process.parent.is_some_and(|parent| parent.pid == KTHREADD)
}

fn describe_program(image: &Image, fields: &mut Fields) {
    if image.is_cut && !image.is_unknown() {
        fields.set(field!("lapwing.process.args_truncated"), true);
        fields.set(field!("process.Ext.command_line_truncated"), true);
    }
    fields.set(field!("lapwing.process.comm"), image.comm.clone());
    fields.set_some(field!("lapwing.process.commands_from"), image.commands_from);
    fields.set_some(field!("lapwing.process.executable_file"), image.file.clone());
    fields.set_some(field!("lapwing.process.script.filename"), image.script.clone());
    let mark = image.script_file.as_ref().and_then(|script| script.mark);
    fields.set_some(field!("lapwing.process.script.mark"), mark.map(Mark::name));
    fields.set_some(field!("lapwing.process.working_directory_file"), image.directory_file.clone());
}

/// How the program that a process runs was started: in place of which, and with what descriptors.
fn describe_start(process: &Process, fields: &mut Fields) {
    if let Some(previous) = process.previous.as_deref().filter(|previous| !Image::is_unknown(previous)) {
        fields.set(field!("process.previous.args"), previous.args.clone());
        fields.set(field!("process.previous.args_count"), previous.args_count);
        fields.set(field!("process.previous.executable"), previous.executable.clone());
    }
    describe_descriptors(process, fields);
}

/// What its standard descriptors were when its program started.
fn describe_descriptors(process: &Process, fields: &mut Fields) {
    let stdio = process.stdio.as_ref();
    for (index, [ty, inode_field]) in STDIO.into_iter().enumerate() {
        let descriptor = stdio.map(|stdio| stdio[index]).filter(|descriptor| descriptor.mode != 0);
        fields.set_some(ty, descriptor.map(descriptor_type));
        fields.set_some(inode_field, descriptor.map(|descriptor| count(descriptor.inode)));
    }
}

const STDIO: [[FieldId; 2]; 3] = [
    [field!("lapwing.process.stdin.type"), field!("lapwing.process.stdin.inode")],
    [field!("lapwing.process.stdout.type"), field!("lapwing.process.stdout.inode")],
    [field!("lapwing.process.stderr.type"), field!("lapwing.process.stderr.inode")],
];

fn describe_place(table: &Table, process: &Process, fields: &mut Fields) {
    let (context, credentials) = (&process.context, &process.credentials);
    let known = |number: u32| (number != ABSENT).then_some(number);
    fields.set_some(field!("lapwing.process.loginuid"), known(credentials.login_uid));
    fields.set_some(field!("lapwing.process.session_id"), known(credentials.session_id));
    for (id, namespace) in [
        (field!("lapwing.process.namespace.cgroup"), Namespace::Cgroup),
        (field!("lapwing.process.namespace.ipc"), Namespace::Ipc),
        (field!("lapwing.process.namespace.mnt"), Namespace::Mount),
        (field!("lapwing.process.namespace.net"), Namespace::Network),
        (field!("lapwing.process.namespace.pid"), Namespace::Pid),
        (field!("lapwing.process.namespace.user"), Namespace::User),
        (field!("lapwing.process.namespace.uts"), Namespace::Uts),
    ] {
        let inode = context.namespaces[namespace as usize];
        fields.set_some(id, (inode != 0).then_some(inode));
    }
    if context.cgroup != 0 {
        fields.set(field!("lapwing.process.cgroup.id"), count(context.cgroup));
        fields.set_some(field!("lapwing.process.cgroup.path"), table.groups.get(context.cgroup).cloned());
    }
    fields.set(field!("process.pgid"), context.pgid);
    fields.set_some(field!("process.parent.pid"), process.parent.map(|parent| parent.pid));
}

fn describe_container(container: Option<(Container, bool)>, fields: &mut Fields) {
    let Some((found, is_entered)) = container else { return };
    fields.set_some(field!("lapwing.container.entered"), is_entered.then_some(true));
    fields.set(field!("container.id"), found.id);
    fields.set_some(field!("container.runtime"), found.runtime);
    if let Some(pod) = found.pod {
        fields.set(field!("orchestrator.resource.id"), pod);
        fields.set(field!("orchestrator.resource.type"), "pod");
        fields.set(field!("orchestrator.type"), "kubernetes");
    }
}

/// The kind of a descriptor's file.
pub(super) fn descriptor_type(descriptor: Descriptor) -> &'static str {
    /// `/dev/null`'s number.
    const NULL: u32 = 1 << 20 | 3;
    match descriptor.mode & 0o170_000 {
        0o010_000 => "pipe",
        0o020_000 if descriptor.device == NULL => "null",
        0o020_000 => "char_device",
        0o040_000 => "directory",
        0o060_000 => "block_device",
        0o100_000 => "file",
        0o140_000 => "socket",
        _ => "other",
    }
}

fn known(text: &SmolStr) -> Option<SmolStr> {
    (!text.is_empty()).then(|| text.clone())
}
