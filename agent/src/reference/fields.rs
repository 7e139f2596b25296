//! The page about Lapwing's own fields.

use lapwing_engine::{Schema, Type};

/// Meanings of fields, by the end of their name: the first that fits holds.
#[rustfmt::skip]
const FIELDS: &[(&str, &str)] = &[
    ("lapwing.actor.id", "The user who is charged for the process: with the host's user id, whatever its user namespace."),
    ("lapwing.container.entered", "The process was not started by the container's runtime, but entered its namespaces from outside."),
    ("lapwing.event.cut", "A value of the event was cut."),
    ("lapwing.event.monotonic_time", "The time by which events are correlated, if it differs from `@timestamp`: from a clock that cannot be set."),
    ("lapwing.lost.records", "Records that were lost since the event before (`records_lost`)."),
    ("lapwing.lost.total", "Records that were lost since the start (`records_lost`)."),
    ("lapwing.process.args_truncated", "The arguments were longer than a record and are truncated."),
    ("lapwing.process.cgroup.id", "Id of the control group."),
    ("lapwing.process.cgroup.path", "Path of the control group."),
    ("lapwing.process.comm", "The thread's name (`comm`)."),
    ("commands_from", "Where an interpreter takes its commands from: an argument, a file, standard input."),
    ("lapwing.process.context", "How complete the context of an alert's process is: absent if complete, else `partial` or `unknown`."),
    ("opened_executable", "The path of the program's file, where `executable` has other paths too. Only these satisfy an exclusion."),
    ("opened_name", "The name of the program's file, where `name` has other names too. Only these satisfy an exclusion."),
    ("lapwing.process.env_truncated", "The environment was longer than a record, so that variables may be missing."),
    ("lapwing.process.executable_file", "The state of the program's file, such as `deleted`."),
    ("lapwing.process.exit_signal", "The signal that ended the process."),
    ("script.hash_skipped", "Why an alert has no hash of the script."),
    ("hash_skipped", "Why an alert has no hash of the program."),
    ("lapwing.process.loginuid", "The user id of the login (`loginuid`)."),
    ("lapwing.process.namespace.cgroup", "Inode of the cgroup namespace."),
    ("lapwing.process.namespace.ipc", "Inode of the IPC namespace."),
    ("lapwing.process.namespace.mnt", "Inode of the mount namespace."),
    ("lapwing.process.namespace.net", "Inode of the network namespace."),
    ("lapwing.process.namespace.pid", "Inode of the PID namespace."),
    ("lapwing.process.namespace.user", "Inode of the user namespace."),
    ("lapwing.process.namespace.uts", "Inode of the UTS namespace."),
    ("next.command_line", "In an alert: the command line of the program that the process executed after the event."),
    ("next.executable", "In an alert: the program that the process executed after the event."),
    ("script.filename", "The script, as it was passed to exec."),
    ("script.hash.sha256", "Hash of the script, in an alert."),
    ("script.mark", "Why the path of the script is uncertain."),
    ("lapwing.process.session_id", "Id of the audit session."),
    ("stderr.inode", "Inode of standard error."),
    ("stderr.type", "Type of standard error: a file, pipe, socket, terminal."),
    ("stdin.inode", "Inode of standard input."),
    ("stdin.maker.entity_id", "The process that created the pipe, socket pair or terminal of standard input."),
    ("stdin.maker.executable", "Its program."),
    ("stdin.maker.socket.inode", "The connection among its standard descriptors: inode of the socket."),
    ("stdin.maker.socket.local.ip", "The same: local address."),
    ("stdin.maker.socket.local.port", "The same: local port."),
    ("stdin.maker.socket.peer.ip", "The same: peer address."),
    ("stdin.maker.socket.peer.port", "The same: peer port."),
    ("stdin.maker.socket.transport", "The same: transport."),
    ("stdin.open", "Standard input is open."),
    ("stdin.type", "Type of standard input: a file, pipe, socket, terminal."),
    ("stdout.inherited", "Standard output is that of the parent."),
    ("stdout.inode", "Inode of standard output."),
    ("stdout.type", "Type of standard output: a file, pipe, socket, terminal."),
    ("lapwing.process.working_directory_file", "The state of the working directory, such as `deleted`."),
    ("lapwing.socket.held_by", "In an alert: other processes whose standard descriptors are this connection."),
    ("lapwing.socket.inode", "The connection among the standard descriptors: inode of the socket."),
    ("lapwing.socket.local.ip", "The same: local address."),
    ("lapwing.socket.local.port", "The same: local port."),
    ("lapwing.socket.peer.ip", "The same: peer address."),
    ("lapwing.socket.peer.port", "The same: peer port."),
    ("lapwing.socket.stdio", "The standard descriptors that are this connection."),
    ("lapwing.socket.transport", "The transport of the connection."),
    ("lapwing.user.names_of", "Whose user names are used, if not those of the process's own root: the host's."),
];

/// The members of `lapwing.alert`, which only alerts have.
#[rustfmt::skip]
const ALERT: &[(&str, &str)] = &[
    ("ancestors", "The ancestors of the process, nearest first."),
    ("anomaly", "The result of a machine learning rule."),
    ("building_block_type", "`default` for alerts of building block rules."),
    ("complete", "Whether no record was lost during the events and no partial match was dropped."),
    ("cut", "The fields that were cut, and the size of the parts that were dropped."),
    ("dropped_matches", "Partial matches that were dropped."),
    ("events", "All events of the match."),
    ("false_positives", "Known false positives, from the rule."),
    ("form", "The form that was delivered, if upstream rejected the complete document: `reduced` or `minimal`."),
    ("form_reason", "Why upstream rejected the larger form."),
    ("group", "The values by which a threshold rule or a suppression groups."),
    ("guide", "The investigation guide of the rule."),
    ("held_back", "Suppressed acts by user, program and destination."),
    ("id", "The id of the alert. The same cause gives the same id."),
    ("lost_records", "Records that were lost during the events."),
    ("new_terms", "The values that were new."),
    ("original_time", "Time of the first event."),
    ("reason", "The reason in one line."),
    ("references", "References of the rule."),
    ("rule_type", "Type of the rule."),
    ("severity", "Severity: low, medium, high or critical."),
    ("span_ms", "Time between the first and the last event, in milliseconds."),
    ("suppressed_count", "Number of suppressed alerts."),
    ("suppressed_from", "Begin of the suppression."),
    ("suppressed_to", "End of the suppression."),
    ("threshold_result", "The result of a threshold rule."),
];

pub(super) fn page() -> String {
    let schema = Schema::new();
    let mut text = String::from(
        "# Fields of Lapwing\n\nFields that ECS does not have. A rule can use those of events.\n\n## Events\n\n| field | type | \
         meaning |\n|---|---|---|\n",
    );
    for name in schema.names().filter(|name| name.starts_with("lapwing.")) {
        let Some(id) = schema.id(name) else { continue };
        let list = if schema.is_list(id) { ", list" } else { "" };
        let meaning =
            FIELDS.iter().find(|(end, _)| name.ends_with(end)).map_or("–", |(_, meaning)| *meaning);
        text.push_str(&format!("| `{name}` | {}{list} | {meaning} |\n", ty(schema.ty(id))));
    }
    text.push_str("\n## Alerts\n\n| field | meaning |\n|---|---|\n");
    for (name, meaning) in ALERT {
        text.push_str(&format!("| `lapwing.alert.{name}` | {meaning} |\n"));
    }
    text
}

/// The name of a type as in Elasticsearch's mappings.
fn ty(ty: Type) -> String {
    format!("{ty:?}").to_lowercase()
}
