//! The output for a responder, on logs as the agent writes them.

use std::sync::{Arc, Mutex};

use clap::Parser;
use expect_test::{expect, expect_file};
use serde_json::json;

use super::*;
use crate::testing::{TestHost, alert, alert_of, commit, id, reverse_shell, time, wait_until};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

fn args(log: &Path, arguments: &[&str]) -> Args {
    let log = log.to_str().unwrap();
    Cli::try_parse_from(["alerts", "--log", log].iter().chain(arguments))
        .unwrap_or_else(|error| panic!("{error}"))
        .args
}

fn output(log: &Path, arguments: &[&str]) -> Result<String> {
    let mut out = Vec::new();
    write(&args(log, arguments), Screen::of_width(100), &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

/// A log of four alerts; the first is in a rotated and compressed file.
fn log() -> TestHost {
    let host = TestHost::new();
    let shell = reverse_shell();
    let raised = |minutes: u64| (clock::now() - Duration::from_secs(minutes * 60)).to_string();
    let mut lines = Vec::new();
    for (number, minutes, severity, name, reason) in [
        (0, 60 * 24 * 3, 21, "Unusual Country For an AWS Command", "StopLogging from NZ, where it is rare"),
        (1, 90, 99, "Tampering with the Sensor", "kill -STOP by root"),
        (
            2,
            30,
            47,
            "Potential Reverse Shell via Suspicious Child Process",
            "python3.11 connected to 203.0.113.7:4444",
        ),
        (
            3,
            1,
            47,
            "Unusual Instance Metadata Service (IMDS) API Request",
            "curl connected to 169.254.169.254",
        ),
    ] {
        let mut alert = shell.clone();
        alert["event"]["id"] = json!(format!("{number}abcdef0{number}{number}"));
        alert["event"]["severity"] = json!(severity);
        alert["@timestamp"] = json!(raised(minutes));
        alert["message"] = json!(name);
        alert["rule"]["name"] = json!(name);
        alert["rule"]["id"] = json!(format!("rule-{number}"));
        alert["lapwing"]["alert"]["reason"] = json!(reason);
        lines.push(format!("{alert}\n"));
    }
    let path = &host.alerts.path;
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let rotated = path.with_extension("ndjson.1");
    fs::write(&rotated, &lines[0]).unwrap();
    let long_ago = SystemTime::now() - Duration::from_hours(70);
    fs::File::options().write(true).open(&rotated).unwrap().set_modified(long_ago).unwrap();
    assert!(std::process::Command::new("gzip").arg(&rotated).status().unwrap().success());
    fs::write(path, format!("{}no alert\n{}", lines[1], lines[2..].concat())).unwrap();
    host
}

/// The numbers of the listed alerts, in order.
fn listed(log: &Path, arguments: &[&str]) -> String {
    let text = output(log, &[arguments, &["--json"]].concat()).unwrap();
    text.lines().map(|line| crate::testing::id_of(line.as_bytes()).chars().next().unwrap()).collect()
}

#[test]
fn filters_choose_and_the_newest_comes_first() {
    let host = log();
    let now = clock::now();
    let hour_ago = (now - Duration::from_hours(1)).to_string();
    for (arguments, expected) in [
        (&[][..], "3210"),
        (&["--limit", "2"], "32"),
        (&["--limit", "0"], "3210"),
        (&["--since", "2h"], "321"),
        (&["--since", "7d"], "3210"),
        (&["--since", &hour_ago], "32"),
        (&["--since", "2001-01-01"], "3210"),
        (&["--severity", "high"], "1"),
        (&["--severity", "low"], "3210"),
        (&["--rule", "imds"], "3"),
        (&["--rule", "rule-0"], "0"),
        (&["--rule", "rule"], ""),
        (&["--rule", "shell", "--since", "10m"], ""),
    ] {
        assert_eq!(listed(&host.alerts.path, arguments), expected, "{arguments:?}");
    }
}

#[test]
fn the_list_is_readable() {
    let host = log();
    let text = output(&host.alerts.path, &["--limit", "3"]).unwrap();
    // The alerts are of today.
    let text: String = text
        .lines()
        .map(|line| match line.get(..20) {
            Some(time) if time.ends_with('Z') => format!("2026-11-22 03:56:01Z{}\n", &line[20..]),
            _ => format!("{line}\n"),
        })
        .collect();
    expect![[r#"
        2026-11-22 03:56:01Z  medium    3abcdef0  Unusual Instance Metadata Service (IMDS) API Request
          curl connected to 169.254.169.254
        2026-11-22 03:56:01Z  medium    2abcdef0  Potential Reverse Shell via Suspicious Child Process
          python3.11 connected to 203.0.113.7:4444
        2026-11-22 03:56:01Z  critical  1abcdef0  Tampering with the Sensor
          kill -STOP by root
        older alerts are not shown: use `--limit 30`, or 0 for all
    "#]]
    .assert_eq(&text);
    let nowhere = host.path().join("nowhere/alerts.ndjson");
    assert_eq!(output(&nowhere, &[]).unwrap(), format!("no alerts in {}\n", nowhere.display()));
}

fn page(alert: &Value, extent: DetailLevel) -> String {
    detail::render(Screen::of_width(100), alert, time("2026-11-22T04:10:01Z"), extent)
}

#[test]
fn one_alert_is_shown_completely() {
    expect_file!["testdata/reverse_shell.txt"].assert_eq(&page(&reverse_shell(), DetailLevel::Whole));
    let event = json!({
        "@timestamp": "2026-11-22T03:50:00.000Z",
        "event": {"action": "SendSSHPublicKey", "outcome": "success"},
        "user": {"name": "alice"},
        "source": {"address": "198.51.100.9", "ip": "198.51.100.9", "geo": {"country_name": "New Zealand"}},
        "aws": {"cloudtrail": {
            "user_identity": {"arn": "arn:aws:iam::123456789012:user/alice", "access_key_id": "AKIAEXAMPLE"},
            "request_parameters": "{instanceId=i-0123456789abcdef0, instanceOSUser=root}",
        }},
    });
    let mut trail = event.clone();
    trail["message"] = json!("AWS EC2 Instance Connect SSH Public Key Uploaded");
    trail["event"] = json!({"id": "c0ffee", "severity": 47, "risk_score": 47});
    trail["cloud"] = json!({"provider": "aws", "account": {"id": "123456789012"}, "region": "eu-central-1"});
    trail["user_agent"] = json!({"original": "aws-cli/2.15.0"});
    trail["lapwing"]["alert"] = json!({
        "reason": "alice uploaded an SSH key", "suppressed_count": 3, "complete": false, "lost_records": 12,
        "anomaly": {
            "job_id": "rare_method_for_a_country", "record_score": 71.5, "probability": 0.00123,
            "by_value": "SendSSHPublicKey", "partition_value": "NZ", "buckets_learned": 42,
        },
        "of_a_later_version": [{"name": "a", "count": 1}, "b"],
        "references": ["https://example.com/one", "https://example.com/two"],
        "false_positives": ["People whose usual way to instances it is, also through the console in the browser, and programs that do the same."],
        "events": [event],
    });
    trail["rule"] = json!({"uuid": "r-3", "version": "1", "reference": "https://example.com/one"});
    expect_file!["testdata/cloudtrail.txt"].assert_eq(&page(&trail, DetailLevel::Whole));
}

/// The page of a remote shell names it, and an argument of 32 KiB does not hide it.
#[test]
fn a_brief_page_shows_what_happened() {
    let mut shell = reverse_shell();
    shell["lapwing"]["socket"] = json!({
        "inode": 77, "stdio": ["stdin", "stdout", "stderr"], "held_by": ["4711 (a): b): stdin"]
    });
    shell["lapwing"]["process"] = json!({"next": {"executable": "/usr/bin/dash", "command_line": "sh -i"}});
    let args = json!(["python3", "-c", "x".repeat(32 * 1024)]);
    shell["process"]["args"] = args.clone();
    shell["lapwing"]["alert"]["events"][0]["process"]["args"] = args;
    expect_file!["testdata/brief.txt"].assert_eq(&page(&shell, DetailLevel::Brief));
}

#[test]
fn an_unambiguous_id_prefix_is_enough() {
    let host = log();
    let log = &host.alerts.path;
    let shown = output(log, &["2a"]).unwrap();
    assert!(shown.starts_with("Potential Reverse Shell"), "{shown}");
    assert_eq!(
        output(log, &["0abcdef000", "--json"]).unwrap().lines().count(),
        1,
        "from a compressed file too"
    );
    for (id, expected) in [
        ("9\u{1b}", "has an id that begins with `9\\x1b`; `lapwing alerts` lists them"),
        ("", "an id has at least one letter"),
    ] {
        let error = output(log, &[id]).unwrap_err().to_string();
        assert!(error.ends_with(expected) || error.starts_with(expected), "{error}");
    }
    let ledger = host.start().unwrap();
    ledger.commit(commit([alert(10), alert(11)]));
    let error = output(log, &["5f"]).unwrap_err().to_string();
    assert_eq!(error, format!("several alerts have ids that begin with `5f`: {}, {}", id(11), id(10)));
}

/// Every text of the alert is an attack on the terminal; none has an effect.
#[test]
fn hostile_alerts_have_no_effect_on_the_terminal() {
    fn spoil(value: &mut Value) {
        match value {
            Value::String(text) => text.push_str("\u{1b}[2J\n\r\u{202e}\u{9b}31m\u{7}"),
            Value::Array(values) => values.iter_mut().for_each(spoil),
            Value::Object(fields) => fields.values_mut().for_each(spoil),
            _ => {}
        }
    }
    let mut hostile = reverse_shell();
    hostile["lapwing"]["socket"] = json!({"stdio": ["stdin"], "held_by": ["4711 (sh): stdin"]});
    hostile["lapwing"]["process"] = json!({"next": {"executable": "x", "command_line": "x"}});
    hostile["lapwing"]["alert"]["anomaly"] = json!({"record_score": 71.5, "by_value": "x", "job_id": "y"});
    hostile["lapwing"]["alert"]["later\u{1b}[2J"] = json!({"\u{9b}1m": ["z"]});
    hostile["aws"] = json!({"cloudtrail": {"request_parameters": "{}"}});
    spoil(&mut hostile);
    let line = hostile.to_string().into_bytes();
    let summary = Summary::read(&line).unwrap();
    for screen in [Screen::plain(), Screen::of_width(40)] {
        for page in [
            detail::render(screen, &hostile, clock::now(), DetailLevel::Whole),
            list::render(screen, &summary),
        ] {
            let acts = page.chars().find(|c| *c != '\n' && (c.is_control() || *c == '\u{202e}'));
            assert_eq!(acts, None, "{page:?}");
        }
    }
}

/// There is a page whatever is missing or has another type.
#[test]
fn alerts_with_missing_or_mistyped_fields_are_shown() {
    for alert in [
        json!({}),
        json!([]),
        json!(1),
        json!({"lapwing": {"alert": {"events": [1, null], "ancestors": ["x"]}}}),
    ] {
        detail::render(Screen::of_width(40), &alert, clock::now(), DetailLevel::Whole);
    }
    fn drop_each(alert: &Value, path: &str) {
        for name in alert.as_object().into_iter().flat_map(|fields| fields.keys()) {
            let mut less = reverse_shell();
            let inner = less.pointer_mut(path).unwrap().as_object_mut().unwrap();
            inner[name] = json!("of another kind");
            detail::render(Screen::plain(), &less, clock::now(), DetailLevel::Whole);
            drop_each(&alert[name], &format!("{path}/{name}"));
        }
    }
    drop_each(&reverse_shell(), "");
}

#[test]
fn following_continues_across_rotations() {
    let mut host = TestHost::new();
    host.alerts.rotate_size = bytesize::ByteSize::kib(20);
    let ledger = host.start().unwrap();
    ledger.commit(commit((0..20).map(alert)));
    let read = Reader::default();
    let (mut out, arguments) =
        (read.clone(), args(&host.alerts.path, &["--follow", "--json", "--limit", "5"]));
    let follower = std::thread::spawn(move || write(&arguments, Screen::plain(), &mut out));
    let ids = |numbers: std::ops::Range<u64>| numbers.map(id).collect::<Vec<_>>();
    wait_until("the last ones are printed", || read.ids() == ids(15..20));
    for number in 20..40 {
        let text = reverse_shell().to_string();
        ledger.commit(commit([alert_of(number, &text)]));
        if number % 7 == 0 {
            wait_until("it is printed", || read.ids().len() as u64 == number - 14);
        }
    }
    wait_until("all are printed", || read.ids().len() == 25);
    assert_eq!(read.ids(), ids(15..40));
    // The reader closes the pipe, as `head` does.
    *read.gone.lock().unwrap() = true;
    ledger.commit(commit([alert(40)]));
    let error = follower.join().unwrap().unwrap_err();
    assert!(
        matches!(error.downcast_ref::<std::io::Error>(), Some(error) if error.kind() == std::io::ErrorKind::BrokenPipe)
    );
}

/// The other end of a pipe.
#[derive(Clone, Default)]
struct Reader {
    text: Arc<Mutex<Vec<u8>>>,
    gone: Arc<Mutex<bool>>,
}

impl Reader {
    fn ids(&self) -> Vec<String> {
        let text = self.text.lock().unwrap();
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        text[..whole].split_inclusive(|byte| *byte == b'\n').map(crate::testing::id_of).collect()
    }
}

impl Write for Reader {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if *self.gone.lock().unwrap() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.text.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
