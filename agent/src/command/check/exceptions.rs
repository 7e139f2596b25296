//! The exceptions: their rules, reason, owner and expiry.

use anyhow::Result;
use lapwing_engine::{Exception, Exceptions};
use serde_json::{Value as Json, json};

use crate::clock;
use crate::command::print;
use crate::terminal::escape;

/// As JSON: the valid exceptions, and the number of invalid ones.
pub(super) fn to_json(exceptions: &Exceptions) -> Json {
    let now = clock::now();
    let list = exceptions.list.iter().map(|exception| {
        json!({
            "file": &*exception.file,
            "line": exception.line,
            "rules": if exception.rules.is_empty() { vec!["*".to_owned()] } else { exception.rules.clone() },
            "condition": exception.query,
            "reason": exception.reason,
            "owner": exception.owner,
            "expires": exception.expires.map(|expires| expires.to_string()),
            "expired": exception.is_over(now),
        })
    });
    json!({"applied": list.collect::<Vec<_>>(), "refused": exceptions.refused})
}

/// As text: a line each.
pub(super) fn print_all(exceptions: &Exceptions) -> Result<()> {
    let Exceptions { list, refused, .. } = exceptions;
    if list.is_empty() && *refused == 0 {
        return Ok(());
    }
    let not_applied = if *refused > 0 { " (NOT applied)" } else { "" };
    print(&format!("exceptions: {}; invalid{not_applied}: {refused}", list.len()))?;
    list.iter().try_for_each(|exception| print(&line(exception)))
}

fn line(exception: &Exception) -> String {
    let rules = if exception.rules.is_empty() { "all rules".to_owned() } else { exception.rules.join(", ") };
    let until = match exception.expires {
        None => "no expiry".to_owned(),
        Some(expires) if exception.is_over(clock::now()) => format!("expired {expires}"),
        Some(expires) => format!("expires {expires}"),
    };
    let Exception { file, line, owner, reason, query, .. } = exception;
    escape(&format!("exception {file}:{line} for {rules}, {until}, owner {owner}: {reason} ({query})"))
        .into_owned()
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use lapwing_engine::detect::naive;
    use lapwing_engine::{Event, Schema, field};

    use super::*;
    use crate::rules;

    fn packaging() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging")
    }

    /// The examples of the guide in the package.
    fn examples(schema: &mut Schema) -> Exceptions {
        let guide = std::fs::read_to_string(packaging().join("exceptions.md")).unwrap();
        let (_, examples) = guide.split_once("## Examples").unwrap();
        let lines: Vec<_> = examples.lines().filter_map(|line| line.strip_prefix("    ")).collect();
        Exceptions::read([("examples.toml", lines.join("\n").as_bytes())], schema)
    }

    #[test]
    fn the_examples_are_exceptions_of_existing_rules() {
        let mut schema = Schema::new();
        let mut examples = examples(&mut schema);
        let rules = rules::load(&[packaging().join("rules")], &mut schema).unwrap().rules;
        let elastic = |exception: &Exception| exception.rules[0].starts_with("Unusual Preload");
        assert_eq!(examples.list.iter().filter(|exception| elastic(exception)).count(), 1);
        examples.list.retain(|exception| rules.iter().any(|rule| exception.is_for(rule)));
        assert_eq!((examples.list.len(), examples.refused), (4, 0), "{:?}", examples.reports);
    }

    #[test]
    fn each_example_matches_its_events_only() {
        const NRPE: &str = "/usr/sbin/nrpe";
        const CRON: &str = "/usr/sbin/cron";
        let mut schema = Schema::new();
        let examples = examples(&mut schema).list;
        let process = |executable: &str, args: &[&str], parent: &[&str], entry: &str| {
            json!({
                "executable": executable,
                "args": args,
                "parent": {"executable": parent[0], "args": parent},
                "entry_leader": {"executable": entry},
            })
        };
        let port = ["/usr/bin/dash", "/usr/local/lib/monitoring/check_port"];
        let age = ["/usr/bin/dash", "/usr/local/sbin/certificate-age"];
        let report = ["/usr/bin/dash", "/usr/local/sbin/mail-report"];
        let deploy = ["/opt/deploy/bin/python3.11", "run"];
        let variables = |variables: &[&str]| json!({"executable": "/usr/bin/ls", "env_vars": variables});
        let python = ["python3", "-c", "import subprocess"];
        for (place, process) in [
            (Some(0), process("/usr/bin/telnet.netkit", &["telnet", "h", "25"], &port, NRPE)),
            (None, process("/usr/bin/telnet.netkit", &["telnet", "h", "25"], &port, "/usr/sbin/sshd")),
            (None, process("/usr/bin/telnet.netkit", &["telnet", "h", "25"], &["/usr/bin/dash"], NRPE)),
            (None, process("/usr/bin/nc", &["nc", "-e", "/bin/sh"], &port, NRPE)),
            (Some(1), process("/usr/bin/openssl", &["openssl", "s_client", "-connect"], &age, CRON)),
            (None, process("/tmp/openssl", &["openssl", "s_client", "-connect"], &age, CRON)),
            (Some(2), process("/usr/bin/perl", &["perl", "-e", "use Socket; system('x')"], &report, CRON)),
            (None, process("/usr/bin/perl", &["perl", "-e", "use Socket; system('x')"], &age, CRON)),
            (Some(3), process("/usr/bin/python3.11", &python, &deploy, "/opt/deploy/bin/agent")),
            (None, process("/usr/bin/python3.11", &python, &deploy, "/usr/sbin/sshd")),
            (Some(4), variables(&["HISTSIZE=1", "https_proxy=http://p"])),
            (None, variables(&["HISTSIZE=1", "LD_PRELOAD=/tmp/x.so"])),
        ] {
            let event = json!({"@timestamp": "2026-12-01T00:00:00Z", "process": process});
            let event = Event::from_json(&schema, &event).unwrap();
            // The last example is for a rule about variables, so that events without them do not apply.
            let is_about = |place: usize| (place == 4) == event.get(field!("process.env_vars")).is_some();
            let holds = |place: &usize| naive::matches(&examples[*place].condition, &event);
            let holding: Vec<_> =
                (0..examples.len()).filter(|place| is_about(*place) && holds(place)).collect();
            assert_eq!(holding, place.into_iter().collect::<Vec<_>>(), "{process}");
        }
    }
}
