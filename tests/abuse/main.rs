//! Attacks of unprivileged users that try to blind, kill or silence the sensor. Each act runs as `nobody` against an
//! agent with the limits of the packaged unit. During the act a shell of another user connects out, and must raise an
//! alert. After the act the agent must run, answer, and stay within its memory.
//!
//! `cargo xtask test` runs a short form of each act. `cargo xtask test --abuse` runs all of them in full, against an
//! optimised agent. `docs/threat-model.md` lists the promise that each row tests. Tampering by root has its own rows.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "all of this is test code, and clippy takes only its test functions for such"
)]

/// The act that runs next to the agent.
mod act;
/// The acts.
mod acts;
/// The alert log while it grows.
mod alerts;
/// Actions of root against the sensor.
#[path = "../evasion/deed.rs"]
mod deed;
/// The agent's configuration in addition to the packaged rules.
mod form;
/// System calls that another process is made to do.
#[path = "../evasion/inject.rs"]
mod inject;
/// The control groups and sessions in which agent and act run.
mod place;
/// The agent under the unit's limits, and the shell of another user.
mod stage;

/// A row: a name, the act with its count in the short and in the full form, the place of the short form, and the
/// agent's additional configuration. The full form runs in both places.
macro_rules! rows {
    ($($(#[$doc:meta])* $name:ident: $act:literal, $short:literal, $whole:literal, $place:ident, $form:ident;)*) => {$(
        $(#[$doc])*
        #[test]
        #[cfg_attr(not(root), ignore = "needs root")]
        fn $name() {
            stage::run(&stage::Row {
                name: stringify!($name),
                act: $act,
                short: $short,
                whole: $whole,
                place: place::Place::$place,
                form: form::Form::$form,
            });
        }
    )*};
}

rows! {
    /// Processes that stay, each with arguments as long as a record holds.
    fat_arguments_of_sleeping_processes: "sleeping fat", 60, 1_000, Unit, Plain;
    /// Processes that stay, each with 49,000 empty arguments.
    empty_arguments_of_sleeping_processes: "sleeping empty", 60, 1_000, Session, Plain;
    /// Processes that make the next and end, each with fat arguments: ancestors that must be kept.
    fat_arguments_of_ended_processes: "chain fat", 100, 2_000, Unit, Plain;
    /// The same with empty arguments.
    empty_arguments_of_ended_processes: "chain empty", 60, 1_000, Session, Plain;
    /// A process whose own view of its arguments is a gigabyte, and which sets off a rule.
    hidden_arguments: "hidden", 2, 20, Unit, Plain;
    /// Programs with environments of a megabyte.
    environments: "environments", 20, 2_000, Unit, Plain;
    /// Alerts whose nineteen ancestors have fat arguments of control characters.
    fat_alerts: "fat alerts", 3, 120, Unit, Plain;
    /// The same, where each path is nearly as long as a path may be.
    alerts_with_long_paths: "long alerts", 3, 120, Session, Plain;
    /// Programs of one process, each with fat arguments.
    programs_of_one_process: "execs", 100, 5_000, Unit, Plain;
    /// Distinct command lines that a rule of new terms learns.
    terms: "terms", 300, 8_000, Session, Terms;
    /// Distinct command lines, each of which is a bucket of a threshold and a value of a job's open time span.
    buckets: "terms", 300, 8_000, Unit, Buckets;
    /// Half of a sequence, again and again, with fat arguments.
    half_sequences: "half sequences", 100, 3_000, Session, Plain;
    /// Programs at full speed.
    programs: "programs", 500, 20_000, Session, Plain;
    /// Connections at full speed, by many threads.
    connections: "connections", 2_000, 200_000, Session, Plain;
    /// Sessions, signals, `ptrace`, `bpf`, connections made and accepted, at full speed.
    calls: "calls", 200, 20_000, Unit, Plain;
    /// Processes that end with hundreds of threads.
    threads: "threads", 20, 1_000, Session, Plain;
    /// One rule set off again and again.
    decoys: "decoys", 120, 1_000, Unit, Plain;
    /// The same, each by a program file of its own.
    decoys_of_many_programs: "decoys of programs", 120, 10_000, Session, Plain;
    /// The same, each in a control group of its own.
    decoys_of_many_groups: "decoys of groups", 120, 10_000, Unit, Plain;
    /// The same, each by a user of its own of a user namespace.
    decoys_of_many_mapped_ids: "decoys of ids", 120, 10_000, Session, Plain;
    /// The same below namespaces of users and processes in each other.
    decoys_in_nested_namespaces: "namespaces", 3, 200, Unit, Plain;
    /// Paths deeper and longer than most.
    deep_and_long_paths: "paths", 20, 200, Unit, Plain;
    /// Programs on mounts that are attached nowhere any more.
    detached_paths: "detached", 20, 1_000, Session, Plain;
    /// Processes made until a number comes again that the agent has had.
    number_hunt: "numbers", 3_000, 60_000, Unit, Plain;
    /// Control groups that come and go, some of them deep below long names.
    control_groups: "groups", 500, 20_000, Session, Plain;
    /// Files of CloudTrail with records that are large, many, deep or huge.
    hostile_trail: "trail", 50, 1_500, Unit, Trail;
    /// Alerts while the disk of log, store and spool is full.
    full_disk: "decoys", 60, 4_000, Unit, FullDisk;
    /// The same where it was full before the agent started.
    disk_full_at_the_start: "decoys", 60, 1_000, Session, FullBefore;
}

/// A row: a name, an action of root, and whether it runs in the short form too.
macro_rules! tamperings {
    ($($(#[$doc:meta])* $name:ident: $deed:expr, $is_short:literal;)*) => {$(
        $(#[$doc])*
        #[test]
        #[cfg_attr(not(root), ignore = "needs root")]
        fn $name() {
            stage::tamper(stringify!($name), $deed, $is_short);
        }
    )*};
}

tamperings! {
    /// A link is detached by its id.
    a_link_is_detached: |agent, _, _| deed::detach_a_link(agent), false;
    /// The last descriptor of a link is closed, by a system call that the agent is made to do.
    a_last_reference_is_closed: |agent, _, _| deed::close_the_last_descriptor(agent), true;
    /// The kernel's filter is written.
    the_filter_is_written: |agent, _, _| deed::write_the_filter(agent), false;
    /// A map that is frozen is written, which the kernel refuses.
    a_frozen_map_is_written: |agent, _, _| deed::write_a_frozen_map(agent), false;
    /// The agent is traced.
    the_agent_is_traced: |agent, _, _| deed::trace(agent), false;
    /// The agent is stopped, and let go on.
    the_agent_is_stopped: |agent, _, _| deed::stop(agent), false;
    /// Another program takes the place of the agent's.
    the_binary_is_replaced: |_, program, _| deed::replace_the_binary(program), false;
    /// A rule is edited.
    a_rule_is_edited: |_, _, rules| deed::edit_a_rule(rules), true;
    /// The alert log is deleted.
    the_alert_log_is_deleted: |agent, _, _| deed::delete_the_log(agent), false;
    /// The store is deleted.
    the_store_is_deleted: |agent, _, _| deed::delete_the_store(agent), false;
}
