//! Every branch of the rule whose tool Debian packages, by IPv4 and IPv6, attempted and accepted.

use std::path::Path;
use std::process::Child;

use lapwing_stage::{Alert, until};

use crate::{PATIENCE, Stage, is_there, stage};

const RULE: &str = "Potential Reverse Shell via Suspicious Child Process";

/// Accepts and closes connections on every port of the tests, by IPv4 and IPv6.
const LISTENER: &str = r#"
import selectors, socket, sys
selector = selectors.DefaultSelector()
for port in range(4000, 4100):
    listener = socket.socket(socket.AF_INET6)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.bind(("::", port))
    listener.listen()
    selector.register(listener, selectors.EVENT_READ)
while True:
    for key, _ in selector.select():
        key.fileobj.accept()[0].close()
"#;

/// Shell scripts that connect back, by tool. `HOST` and `PORT` are placeholders for the other end.
const ATTEMPTS: &[(&str, &str)] = &[
    (
        "python3",
        "python3 -c 'import socket,pty;s=socket.create_connection((\"HOST\",PORT));pty.spawn(\"/bin/true\")'",
    ),
    (
        "python3",
        "python3 -c 'import socket,subprocess;s=socket.create_connection((\"HOST\",PORT));subprocess.call([\"/bin/true\"])'",
    ),
    (
        "perl",
        "perl -e 'use IO::Socket::IP;$s=IO::Socket::IP->new(PeerHost=>\"HOST\",PeerPort=>PORT);system(\"/bin/true\")'",
    ),
    (
        "perl",
        "perl -MIO::Socket::IP -e '$socket=IO::Socket::IP->new(PeerHost=>\"HOST\",PeerPort=>PORT);exec(\"/bin/true\")'",
    ),
    ("ruby", "ruby -rsocket -e 's=TCPSocket.new(\"HOST\",PORT);exec(\"/bin/true\")'"),
    ("ruby", "ruby -rsocket -e 's=TCPSocket.open(\"HOST\",PORT)'"),
    ("lua5.4", "lua5.4 -e 's=require(\"socket\");c=CONNECT;os.execute(\"/bin/true\") -- socket.tcp'"),
    ("lua5.4", "lua5.4 -e 's=require(\"socket\");c=CONNECT;io.popen(\"/bin/true\") -- socket.tcp'"),
    ("php", "php -r '$s=fsockopen(\"BRACKETED\",PORT);exec(\"/bin/sh -c true\");'"),
    ("gawk", "AWK 'BEGIN{s=\"/FAMILY/tcp/0/HOST/PORT\"; print \"x\" |& s; close(s)} # /inet/tcp/'"),
    ("openssl", "openssl s_client -connect BRACKETED:PORT </dev/null"),
    ("nc.traditional", "NC -e /bin/true HOST PORT"),
    ("ncat", "ncat -e /bin/true HOST PORT"),
    ("telnet", "telnet HOST PORT </dev/null"),
];

/// Shell scripts that wait for a connection, by tool.
const LISTENERS: &[(&str, &str)] = &[
    ("nc.traditional", "NC -l -p PORT -e /bin/true"),
    ("ncat", "ncat -l PORT -e /bin/true"),
    (
        "python3",
        "python3 -c 'import socket,pty;s=socket.create_server((\"::\",PORT),family=socket.AF_INET6,dualstack_ipv6=True);s.accept();pty.spawn(\"/bin/true\")'",
    ),
];

/// Scripts that would be alerted at another destination.
const SILENT: &[&str] = &["127.0.0.1", "127.8.8.8", "::1", "169.254.169.254"];

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn every_branch_that_connects_is_alerted() {
    let stage = stage();
    let _listener = listener(&stage);
    let mut port = 4000;
    for (tool, script) in ATTEMPTS.iter().filter(|(tool, _)| is_there(tool)) {
        for host in [stage.hosts.far.address(), stage.hosts.far.address_ipv6()] {
            // The traditional netcat supports IPv4 only.
            if *tool == "nc.traditional" && host.contains(':') {
                continue;
            }
            port += 1;
            let script = filled(tool, script, host, port);
            let act = || end(stage.hosts.near.shell("bash", &script).expect("bash"));
            let alert = stage.alert_of(&script, |alert| is_of(alert, port), act);
            check_context(&alert, host, port);
        }
    }
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn bind_shells_are_alerted() {
    let stage = stage();
    let mut port = 4200;
    for (tool, script) in LISTENERS.iter().filter(|(tool, _)| is_there(tool)) {
        for host in [stage.hosts.near.address(), stage.hosts.near.address_ipv6()] {
            if *tool == "nc.traditional" && host.contains(':') {
                continue;
            }
            port += 1;
            let script = filled(tool, script, host, port);
            let act = || {
                let shell = stage.hosts.near.shell("sh", &script).expect("sh");
                until("the listener", PATIENCE, || Ok(stage.hosts.near.listens(port)?.then_some(())))
                    .expect(&script);
                let client = format!("import socket;socket.create_connection((\"{host}\",{port}))");
                end(stage.hosts.far.command("python3").args(["-c", &client]).spawn().expect("python3"));
                end(shell);
            };
            let alert = stage.alert_of(&script, |alert| is_of(alert, port), act);
            assert_eq!(alert.text("/event/action"), "connection_accepted", "{script}");
            assert_eq!(alert.text("/destination/ip"), host, "{script}");
        }
    }
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn local_connections_are_not_alerted() {
    let stage = stage();
    if !is_there("python3") {
        return;
    }
    let _listener = listener(&stage);
    for host in SILENT {
        let script = filled("python3", ATTEMPTS[0].1, host, 4090);
        end(stage.hosts.near.shell("bash", &script).expect("bash"));
    }
    // A parent that is no shell, and arguments without a match.
    let far = stage.hosts.far.address();
    let plain = format!("import socket;socket.create_connection((\"{far}\",4091))");
    end(stage.hosts.near.command("env").args(["python3", "-c", &plain]).spawn().expect("env"));
    end(stage.hosts.near.shell("bash", &format!("python3 -c '{plain}'")).expect("bash"));
    // An alert about this later event arrives after those about all earlier ones.
    let last = filled("python3", ATTEMPTS[0].1, far, 4092);
    let act = || end(stage.hosts.near.shell("bash", &last).expect("bash"));
    stage.alert_of(&last, |alert| is_of(alert, 4092), act);
    let alerts = stage.agent.alerts().expect("the log");
    let ports = alerts
        .iter()
        .filter(|alert| alert.rule() == RULE)
        .map(port_of)
        .filter(|port| (4090..4092).contains(port));
    assert_eq!(ports.collect::<Vec<_>>(), Vec::<u16>::new());
}

fn listener(stage: &Stage) -> Ended {
    let child = stage.hosts.far.command("python3").args(["-c", LISTENER]).spawn().expect("python3");
    until("the listener", PATIENCE, || Ok(stage.hosts.far.listens(4099)?.then_some(()))).expect("a listener");
    Ended(child)
}

fn filled(tool: &str, script: &str, host: &str, port: u16) -> String {
    let ipv6 = host.contains(':');
    let bracketed = if ipv6 { format!("[{host}]") } else { host.to_owned() };
    script
        .replace(
            "CONNECT",
            if ipv6 { "s.tcp6():connect(\"HOST\",PORT)" } else { "s.tcp():connect(\"HOST\",PORT)" },
        )
        .replace("FAMILY", if ipv6 { "inet6" } else { "inet4" })
        .replace("BRACKETED", &bracketed)
        .replace("HOST", host)
        .replace("PORT", &port.to_string())
        .replace("AWK", &if tool == "gawk" { link("awk", tool) } else { String::new() })
        .replace("NC", &if tool == "nc.traditional" { link("nc", tool) } else { String::new() })
}

/// A link to a tool under its usual name, as Debian's alternatives create: the rule matches these names.
pub(crate) fn link(name: &str, tool: &str) -> String {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("names");
    let link = folder.join(name);
    if !link.exists() {
        let tool = ["/usr/bin", "/bin"].map(|folder| Path::new(folder).join(tool));
        let tool = tool.iter().find(|tool| tool.exists()).expect("the tool");
        std::fs::create_dir_all(&folder).expect("a folder");
        std::os::unix::fs::symlink(tool, &link).expect("a link");
    }
    link.display().to_string()
}

fn port_of(alert: &Alert) -> u16 {
    let port = alert.document.pointer("/destination/port").and_then(serde_json::Value::as_u64);
    port.and_then(|port| u16::try_from(port).ok()).unwrap_or_default()
}

/// Whether an alert is of the rule, about this port.
fn is_of(alert: &Alert, port: u16) -> bool {
    alert.rule() == RULE && port_of(alert) == port
}

/// Checks the evidence: both events, the shell above, no lost records.
fn check_context(alert: &Alert, host: &str, port: u16) {
    let own = &alert.document["lapwing"]["alert"];
    assert_eq!(alert.text("/event/action"), "connection_attempted");
    assert_eq!((alert.text("/destination/ip"), port_of(alert)), (host, port));
    assert_ne!(alert.document.pointer("/source/port"), None, "the source port is missing");
    assert_eq!(own["events"].as_array().map(Vec::len), Some(2));
    // A tool with -e has become a shell when its context is queried: the alert has the program that connected.
    let args = alert.document["process"]["args"].as_array().expect("arguments");
    let args: Vec<_> = args.iter().filter_map(serde_json::Value::as_str).collect();
    assert_eq!(alert.text("/process/command_line"), args.join(" "));
    let executable = alert.text("/process/executable");
    assert_ne!(alert.document.pointer("/process/hash/sha256"), None, "the hash of {executable} is missing");
    assert_eq!(own["complete"], true);
    assert_eq!(own["ancestors"][0]["process"]["name"], "bash");
    let last = own["ancestors"].as_array().and_then(|ancestors| ancestors.last());
    assert_eq!(
        last.map(|last| &last["process"]["pid"]),
        Some(&serde_json::json!(1)),
        "the chain ends at init"
    );
    assert_ne!(alert.document.pointer("/process/args"), None);
}

/// A child that is killed when this is dropped.
pub(crate) struct Ended(pub(crate) Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for a child, and kills one that hangs.
pub(crate) fn end(child: Child) {
    let mut child = Ended(child);
    let _ = until("its end", PATIENCE, || Ok(child.0.try_wait()?));
}
