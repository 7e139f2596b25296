//! The pages about commands, configuration, events, diagnostics and the control socket.

use std::collections::BTreeMap;

use clap::CommandFactory as _;
use lapwing_engine::Schema;
use lapwing_engine::lang::diagnostic::code;

use super::source::{Item, members, table};
use crate::action::ACTIONS;
use crate::alert::examples;
use crate::{command, config, coverage};

/// The sections of the configuration: title, file and type.
const SECTIONS: [(&str, &str, &str); 15] = [
    ("Top level", "agent/src/config.rs", "Config"),
    ("`[log]`", "agent/src/log.rs", "Config"),
    ("`[rules]`", "agent/src/rules.rs", "Config"),
    ("`[indicators]`", "agent/src/indicators.rs", "Config"),
    ("`[sensor]`", "agent/src/sensor/config.rs", "Config"),
    ("`[cloudtrail]`", "agent/src/source/cloudtrail/config.rs", "Config"),
    ("`[[cloudtrail.queue]]`", "agent/src/source/cloudtrail/config.rs", "QueueConfig"),
    ("`[alerts]`", "agent/src/alert_log/mod.rs", "Config"),
    ("`[spool]`", "agent/src/store/mod.rs", "Config"),
    ("`[[sink]]` with `type = \"elasticsearch\"`", "agent/src/sink/elasticsearch.rs", "Config"),
    ("`[[sink]]` with `type = \"webhook\"`", "agent/src/sink/webhook.rs", "Config"),
    ("`[sink.batch]`", "agent/src/sink/mod.rs", "BatchConfig"),
    ("`[sink.dead_letters]`", "agent/src/sink/dead_letter.rs", "Config"),
    ("`[sink.http]`", "agent/src/sink/http.rs", "Config"),
    ("`[control]`", "agent/src/control/mod.rs", "Config"),
];

pub(super) fn configuration() -> String {
    let mut text = String::from(
        "# Configuration\n\nThe keys of `/etc/lapwing/lapwing.toml`. Unknown keys are errors; `lapwing check` reports them. \
         Lengths of time are texts such as\n`\"90s\"`, `\"2h 30m\"` or `\"30d\"`, sizes are texts such as `\"256 KiB\"`. The \
         package's file has every key with its default.\n",
    );
    for (title, file, name) in SECTIONS {
        let (doc, items) = members(file, &format!("\npub(crate) struct {name} {{"));
        text.push_str(&format!("\n## {title}\n\n{doc}\n\n{}", table(["key", "meaning"], &items)));
    }
    text.push_str(
        "\n## Deprecated keys\n\nOld names are accepted for one release. `lapwing check` and the agent's log warn of \
         them.\n\n| old | new |\n|---|---|\n",
    );
    for (old, new) in config::deprecated_keys() {
        text.push_str(&format!("| `{old}` | `{new}` |\n"));
    }
    text
}

pub(super) fn cli() -> String {
    let mut command = command::Args::command().term_width(100);
    command.build();
    let mut text = String::from("# Command line\n\nThe output of `--help`.\n");
    describe(&mut command, "lapwing", &mut text);
    text
}

/// The help of a command and of its subcommands.
fn describe(command: &mut clap::Command, name: &str, text: &mut String) {
    let help = command.render_long_help().to_string();
    let help: Vec<_> = help.lines().map(str::trim_end).collect();
    text.push_str(&format!("\n## `{name}`\n\n```text\n{}\n```\n", help.join("\n").trim_end()));
    for subcommand in command.get_subcommands_mut().filter(|subcommand| !subcommand.is_hide_set()) {
        let name = format!("{name} {}", subcommand.get_name());
        describe(subcommand, &name, text);
    }
}

pub(super) fn diagnostics() -> String {
    let mut text = String::from(
        "# Diagnostic codes\n\nThe codes of errors (`E`) and warnings (`W`) in rules, exceptions and queries. `lapwing \
         explain CODE` prints an example too.\n",
    );
    for code in code::ALL {
        text.push_str(&format!("\n## {}: {}\n\n{}\n", code.id, code.title, code.explanation));
    }
    text
}

pub(super) fn events() -> String {
    let schema = Schema::new();
    let mut text = String::from(
        "# Events and their fields\n\nThe kinds of events of each source, with the fields that they may have. `lapwing \
         explain --sources` prints the fields.\n\n## Kinds of the sensor\n\nThe data set `lapwing.sensor` is about the \
         sensor itself; the others are Elastic Defend's. *Hook* and *record* are rows of \
         `lapwing\nstatus`. *auditd* is the name in rules for auditd. *Reason* is what an alert by such an event says.\n\n",
    );
    text.push_str(&actions());
    for source in coverage::sources(None) {
        text.push_str(&format!(
            "\n## {}\n\nData streams: `{}`.\n",
            source.name,
            source.data_streams.join("`, `")
        ));
        // Kinds with the same fields are listed together.
        let mut by_fields: BTreeMap<Vec<&str>, Vec<&str>> = BTreeMap::new();
        let mut order = Vec::new();
        for kind in &source.kinds {
            let fields: Vec<_> = kind.fields().map(|id| schema.name(id)).collect();
            if !by_fields.contains_key(&fields) {
                order.push(fields.clone());
            }
            by_fields.entry(fields).or_default().push(&kind.name);
        }
        for fields in order {
            let names = by_fields[&fields].join(", ");
            text.push_str(&format!("\n### {names}\n\n"));
            fields.iter().for_each(|field| text.push_str(&format!("- `{field}`\n")));
        }
    }
    text
}

/// The table of actions.
fn actions() -> String {
    let mut table = String::from(
        "| `event.action` | category, type | data set | hook | record | auditd | reason |\n|---|---|---|---|---|---|---|\n",
    );
    for action in ACTIONS {
        let or_none = |text: Option<&'static str>| text.filter(|text| !text.is_empty()).unwrap_or("-");
        table.push_str(&format!(
            "| `{}` | {}, {} | {} | {} | {} | {} | {} |\n",
            action.name,
            action.category,
            action.ty,
            action.stream.dataset,
            or_none(Some(action.hook)),
            or_none(action.record_name()),
            or_none(action.auditd),
            examples(action).join("<br>"),
        ));
    }
    table
}

pub(super) fn control_protocol() -> String {
    let (_, requests) = members("agent/src/control/mod.rs", "\npub(crate) enum Request {");
    let requests: Vec<_> = requests
        .into_iter()
        .filter(|request| request.name.starts_with(char::is_uppercase))
        .map(|request| Item { name: request.name.to_lowercase(), doc: request.doc })
        .collect();
    format!(
        "# Control protocol\n\nThe protocol of the control socket (`control.socket`, by default \
         `/run/lapwing/control.sock`), a Unix stream socket for\nroot and the agent's user.\n\nThe client sends one \
         line: a JSON value with a request. The agent answers with JSON objects, one per line, until\nthe connection \
         ends.\n\n{}\n- A request without arguments is a text: `\"status\"`, `\"record\"`.\n- `events` takes a filter in KQL: \
         `{{\"events\": {{\"query\": \"process.name: curl\"}}}}`, or `null` for all events.\n- A line `{{\"error\": \"…\"}}` reports \
         that there is no other answer.\n- Among events, a line `{{\"missed\": N}}` reports that N events were dropped, because \
         the client did not read fast enough.\n- A client that shuts down its side of the connection receives the events on \
         their way, and then the end.\n\nLimits on clients, requests and waiting events are in [limits](../limits.md), the keys \
         of a status in [status](status.md).\n",
        table(["request", "answer"], &requests)
    )
}
