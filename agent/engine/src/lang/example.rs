//! An example of every kind of fault and its cure, shown by `lapwing explain CODE`. Tests raise each of them.

use super::diagnostic::Code;

/// What raises a fault, and the same as it should be.
#[derive(Clone, Copy, Debug)]
pub struct Example {
    /// The code's id.
    pub id: &'static str,
    /// What the texts are.
    pub written: Written,
    /// What raises it; words about it, where it would be too long.
    pub wrong: &'static str,
    /// What does not.
    pub right: &'static str,
}

/// What an example is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// An EQL query.
    Eql,
    /// A KQL query.
    Kql,
    /// Lines of a `[rule]` table; those that every rule needs and that are not shown are as they should be.
    Rule,
    /// A whole file.
    File,
    /// Words about what cannot be shown.
    Words,
}

use Written::{Eql, File, Kql, Rule, Words};

const fn row(id: &'static str, written: Written, wrong: &'static str, right: &'static str) -> Example {
    Example { id, written, wrong, right }
}

/// The example of a code.
#[must_use]
pub fn example(code: &Code) -> Option<&'static Example> {
    EXAMPLES.iter().find(|example| example.id == code.id)
}

/// All of them, sorted by code.
#[rustfmt::skip]
pub const EXAMPLES: &[Example] = &[
    row("E0101", Eql, "process where process.name ^ \"nc\"", "process where process.name == \"nc\""),
    row("E0102", Eql, "process where process.name == \"nc", "process where process.name == \"nc\""),
    row("E0103", Eql, r#"process where process.args == "C:\dir""#, r#"process where process.args == "C:\\dir""#),
    row("E0104", Eql, "process where process.name = \"nc\"", "process where process.name == \"nc\""),
    row("E0105", Eql, "process where process.pid == 99999999999999999999", "process where process.pid == 4242"),
    row("E0106", Words, "a condition in 129 parentheses", "parentheses only where they change the meaning"),
    row("E0107", Words, "a list of 65537 file names", "a pattern for what the names share: `file.path like \"/tmp/x*\"`"),
    row("E0108", Eql, "process where process.name == 'nc'", "process where process.name == \"nc\""),
    row("E0109", Eql, "process where process.name regex \"nc(\"", "process where process.name regex \"nc(at)?\""),
    row("E0110", Eql, "process where process.name regex \"((a{1,999}){1,999}){1,999}\"", "process where process.name regex \"a{1,99}\""),
    row("E0111", Rule, "type = \"eql\"\nquery = 'process where true | head 5'", "type = \"eql\"\nquery = 'process where true'"),
    row("E0201", Eql, "process where process.nmae == \"nc\"", "process where process.name == \"nc\""),
    row("E0202", Eql, "process where starts(process.name, \"nc\")", "process where startsWith(process.name, \"nc\")"),
    row("E0203", Eql, "process where process.pid == \"one\"", "process where process.pid == 1"),
    row("E0204", Eql, "process where length(process.pid) > 2", "process where length(process.name) > 2"),
    row("E0205", Eql, "process where process.name", "process where process.name != null"),
    row("E0206", Eql, "process where process.name == process.parent.name", "process where process.name == \"nc\""),
    row("E0207", Eql, "sequence with maxspan=1y [process where true] [network where true]", "sequence with maxspan=1m [process where true] [network where true]"),
    row("E0208", Eql, "sequence with maxspan=1m [process where true] by process.entity_id [network where true]", "sequence with maxspan=1m [process where true] by process.entity_id [network where true] by process.entity_id"),
    row("E0209", Eql, "sequence by host.id with maxspan=1m [process where true]", "sequence by host.id with maxspan=1m [process where true] [network where true]"),
    row("E0211", Eql, "sample [process where true] [network where true]", "sample by host.id [process where true] [network where true]"),
    row("E0212", Eql, "sequence by host.id with maxspan=1m [process where true] as event0 [network where true] as event0", "sequence by host.id with maxspan=1m [process where true] as event0 [network where process.name == event0.process.name]"),
    row("E0213", Kql, "@timestamp > now-1d", "@timestamp > \"2026-01-01T00:00:00Z\""),
    row("E0301", File, "[rule\nname = \"Netcat\"", "[metadata]\nmaturity = \"production\"\n\n[rule]\nrule_id = \"a\"\nname = \"Netcat\"\ndescription = \"It runs.\"\nseverity = \"low\"\ntype = \"query\"\nquery = \"process.name: nc\""),
    row("E0302", File, "[rule]\nname = \"Netcat\"\ntype = \"query\"\nquery = \"process.name: nc\"", "[rule]\nrule_id = \"a\"\nname = \"Netcat\"\ndescription = \"It runs.\"\nseverity = \"low\"\ntype = \"query\"\nquery = \"process.name: nc\""),
    row("E0303", Rule, "severity = \"severe\"", "severity = \"critical\""),
    row("E0304", Rule, "quary = \"process.name: nc\"", "query = \"process.name: nc\""),
    row("E0305", Rule, "actions = [{ group = \"default\" }]", "tags = [\"Domain: Endpoint\"]"),
    row("E0306", Rule, "type = \"esql\"\nlanguage = \"esql\"\nquery = \"from logs-*\"", "type = \"query\"\nquery = \"process.name: nc\""),
    row("E0307", Words, "two files with `rule_id = \"a\"`", "an id of its own for each: `uuidgen` makes one"),
    row("E0308", Rule, "type = \"machine_learning\"\nanomaly_threshold = 50\nmachine_learning_job_id = \"unknown\"", "type = \"query\"\nquery = \"process.name: nc\""),
    row("E0309", Words, "a file in UTF-16, or of more than one MiB", "the same in UTF-8"),
    row("W0401", Eql, "process where process.name == \"nc\" and process.args == \"-e\" or process.name == \"ncat\"", "process where process.name in (\"nc\", \"ncat\") and process.args == \"-e\""),
    row("W0402", Kql, "process.name and process.args: x", "process.name: * and process.args: x"),
    row("W0403", Eql, "process where process.args == \"*passwd*\"", "process where process.args like \"*passwd*\""),
    row("W0404", Eql, "process where host.os.type == \"Linux\"", "process where host.os.type == \"linux\""),
    row("W0405", Eql, "any where event.kind == \"happening\"", "any where event.kind == \"event\""),
    row("W0406", Eql, "process where process.pid > 10 and process.pid < 5", "process where process.pid > 5 and process.pid < 10"),
    row("W0407", Eql, "process where process.working_directory == \"/tmp\" and not process.working_directory == \"/root\"", "process where process.working_directory : \"/r*\" and not process.working_directory == \"/root\""),
    row("W0408", Eql, "sequence by host.id [process where true] [network where true]", "sequence by host.id with maxspan=1m [process where true] [network where true]"),
    row("W0409", File, "[rule]\nid = \"a\"\nname = \"Netcat\"\ndescription = \"text\"\nos_list = [\"linux\"]\nquery = 'process where process.name == \"nc\"'\n[[actions]]\naction = \"kill_process\"\nfield = \"process.entity_id\"\nstate = 0", "[rule]\nid = \"a\"\nname = \"Netcat\"\ndescription = \"text\"\nos_list = [\"linux\"]\nquery = 'process where process.name == \"nc\"'\n[lapwing]\nallow = [\"W0409\"]"),
    row("W0501", Words, "an exception whose `expires` is a day of last year", "a later day, or no exception"),
    row("W0502", Words, "an exception for `rule = \"Netcat\"` where no rule is called so", "the id or the whole name of a rule"),
];
