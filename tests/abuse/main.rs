//! What users without privileges do to blind, kill or silence the sensor, done for real: each act runs as `nobody` against
//! an agent that has the limits of the packaged unit. During the act a shell of another user connects out, and its
//! alert must come; after it the agent must live, be small and answer.
//!
//! `cargo xtask test` runs a short form of each act; `cargo xtask test --abuse` runs all of them whole, against an
//! optimised agent. `docs/threat-model.md` says which promise each row shows.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "all of this is test code, and clippy takes only its test functions for such"
)]

/// The acts.
mod acts;
/// The agent under the unit's limits, and the shell of another user.
mod stage;

use stage::{Form, Row, run};

/// A row: a name, the act with its count in the short form and in the whole form, and what the agent has beside the
/// packaged rules.
macro_rules! rows {
    ($($(#[$doc:meta])* $name:ident: $act:literal, $short:literal, $whole:literal, $form:ident;)*) => {$(
        $(#[$doc])*
        #[test]
        fn $name() {
            run(&Row { name: stringify!($name), act: $act, short: $short, whole: $whole, form: Form::$form });
        }
    )*};
}

rows! {
    /// Processes that sleep, each with arguments as long as a record holds.
    fat_arguments_of_sleeping_processes: "sleeping fat", 60, 1_000, Plain;
    /// Processes that sleep, each with 49,000 empty arguments.
    empty_arguments_of_sleeping_processes: "sleeping empty", 60, 1_000, Plain;
    /// Processes that make the next and end, each with fat arguments: ancestors that must be kept.
    fat_arguments_of_ended_processes: "chain fat", 100, 2_000, Plain;
    /// The same with empty arguments.
    empty_arguments_of_ended_processes: "chain empty", 60, 1_000, Plain;
    /// A process whose own view of its arguments is a gigabyte, and which sets off a rule.
    hidden_arguments: "hidden", 2, 20, Plain;
    /// Alerts whose nineteen ancestors have fat arguments of control characters.
    fat_alerts: "fat alerts", 3, 120, Plain;
    /// Distinct command lines that a rule of new terms learns.
    terms: "terms", 300, 8_000, Terms;
    /// Half of a sequence, again and again, with fat arguments.
    half_sequences: "half sequences", 100, 3_000, Plain;
    /// Programs at full speed in the session of the agent.
    programs_in_the_session_of_the_agent: "programs", 500, 20_000, Plain;
    /// Connections at full speed, by many threads.
    connections: "connections", 2_000, 200_000, Plain;
    /// One rule set off again and again.
    decoys: "decoys", 120, 1_000, Plain;
    /// The same, each by a program file of its own.
    decoys_of_many_programs: "decoys of programs", 120, 10_000, Plain;
    /// The same, each in a control group of its own.
    decoys_of_many_groups: "decoys of groups", 120, 10_000, Plain;
    /// The same, each by a user of its own of a user namespace.
    decoys_of_many_mapped_ids: "decoys of ids", 120, 10_000, Plain;
    /// Paths deeper and longer than most.
    deep_and_long_paths: "paths", 20, 200, Plain;
    /// Processes made until a number comes again that the agent has had.
    number_hunt: "numbers", 3_000, 60_000, Plain;
    /// Control groups that come and go.
    control_groups: "groups", 500, 20_000, Plain;
    /// Alerts while the disk of the alert log is full.
    full_disk: "decoys", 60, 400, FullDisk;
}
