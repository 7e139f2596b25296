//! Requests to the instance metadata service: by tools, by a program from `/tmp`, by IPv6, and not under the
//! exclusions.

use lapwing_stage::{Alert, IMDS, IMDS_IPV6, until};

use crate::reverse_shell::{Ended, end};
use crate::{PATIENCE, Stage, is_there, stage};

const RULE: &str = "Unusual Instance Metadata Service (IMDS) API Request";
const RULE_IPV6: &str = "Unusual Instance Metadata Service (IMDS) API Request over IPv6";

/// Shell scripts that request `URL`, by tool.
const REQUESTS: &[(&str, &str)] = &[
    ("curl", "curl -s -o /dev/null URL"),
    ("wget", "wget -q -O /dev/null URL"),
    ("python3", "python3 -c 'import urllib.request as r;r.urlopen(\"URL\").read()'"),
    (
        "curl",
        "cp \"$(command -v curl)\" /tmp/lapwing-probe; /tmp/lapwing-probe -s -o /dev/null URL; rm /tmp/lapwing-probe",
    ),
];

/// The same under the exclusions of the rule: folders that exist for the script only.
const EXCLUDED: &[&str] = &[
    "mkdir -p /opt/rapid7/agent; cd /opt/rapid7/agent; curl -s -o /dev/null URL",
    "mkdir -p /opt/rumble/bin; cp \"$(command -v curl)\" /opt/rumble/bin/rumble-agent-1; /opt/rumble/bin/rumble-agent-1 -s -o /dev/null URL",
    "mkdir -p /opt/nessus; cd /opt/nessus; wget -q -O /dev/null URL",
];

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn requests_are_alerted() {
    let stage = stage();
    let _server = server(&stage);
    for (tool, script) in REQUESTS.iter().filter(|(tool, _)| is_there(tool)) {
        for (address, rule) in [(IMDS, RULE), (IMDS_IPV6, RULE_IPV6)] {
            let script = script.replace("URL", &url(address));
            let act = || end(stage.hosts.near.shell("bash", &script).expect("bash"));
            let alert = stage.alert_of(&script, |alert| alert.rule() == rule, act);
            assert_eq!(alert.text("/destination/ip"), address, "{script} by {tool}");
        }
    }
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn requests_under_the_exclusions_are_not_alerted() {
    let stage = stage();
    if !is_there("curl") {
        return;
    }
    let _server = server(&stage);
    for script in EXCLUDED {
        let script = script.replace("URL", &url(IMDS)).replace('\'', "'\\''");
        let alone = format!("unshare --mount bash -c 'mount -t tmpfs none /opt; {script}; exit $?'");
        end(stage.hosts.near.shell("bash", &alone).expect("bash"));
    }
    let last = format!("curl -s -o /dev/null {}?last", url(IMDS));
    let is_last = |alert: &Alert| alert.text("/process/command_line").ends_with("?last");
    let act = || end(stage.hosts.near.shell("bash", &last).expect("bash"));
    stage.alert_of(&last, |alert| alert.rule() == RULE && is_last(alert), act);
    for alert in stage.agent.alerts().expect("the log").iter().filter(|alert| alert.rule() == RULE) {
        assert!(is_last(alert), "{}", alert.text("/event/reason"));
    }
}

fn url(address: &str) -> String {
    format!("http://{}/latest/meta-data/", lapwing_stage::socket(address, 80))
}

fn server(stage: &Stage) -> Ended {
    let folder = std::env::temp_dir();
    let mut server = stage.hosts.far.command("python3");
    server.args(["-m", "http.server", "--bind", "::", "80"]).current_dir(folder);
    let server = server.spawn().expect("python3");
    until("the server", PATIENCE, || Ok(stage.hosts.far.listens(80)?.then_some(()))).expect("a server");
    Ended(server)
}
