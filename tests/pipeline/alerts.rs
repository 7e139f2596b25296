//! `lapwing alerts` on the log of an agent, and an alert log on a full disk.

use std::fs;

use jiff::{Timestamp, ToSpan as _};
use lapwing_stage::trail::{Trail, key_upload, rare_call};
use lapwing_stage::{Agent, until};
use serde_json::Value as Json;

use crate::{FIRST, PATIENCE, RARE, UPLOAD, agent, ids, of, settings};

/// The output of `lapwing alerts` with these arguments.
fn printed_by(agent: &Agent, arguments: &[&str]) -> String {
    let output = agent.command("alerts").args(arguments).output().expect("lapwing alerts");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// The rules of the alerts in the output of `lapwing alerts --json` with these arguments.
fn rules(agent: &Agent, arguments: &[&str]) -> Vec<String> {
    let text = printed_by(agent, &[&["--json"], arguments].concat());
    let rule =
        |line: &str| serde_json::from_str::<Json>(line).expect("JSON")["message"].as_str().map(str::to_owned);
    text.lines().map(|line| rule(line).expect("a rule")).collect()
}

#[test]
fn alerts_are_listed_filtered_and_shown() {
    let trail = Trail::new().expect("a trail");
    let mut agent = agent(&trail);
    trail.deliver("calls", &rare_call(Timestamp::now())).expect("a file");
    agent.wait_for_within("a rare call", 0, PATIENCE, |alert| alert.rule() == RARE).expect("an alert");
    trail.deliver("key", &[key_upload(Timestamp::now())]).expect("a file");
    agent.wait_for_within("an upload", 0, PATIENCE, |alert| alert.rule() == UPLOAD).expect("an alert");
    agent.stop().expect("an end");

    let hour_ago = (Timestamp::now() - 1.hour()).to_string();
    for (arguments, expected) in [
        (&[][..], &[UPLOAD, RARE, FIRST][..]),
        (&["--limit", "1"], &[UPLOAD]),
        (&["--severity", "low"], &[UPLOAD, RARE, FIRST]),
        (&["--severity", "medium"], &[UPLOAD]),
        (&["--severity", "high"], &[]),
        (&["--since", "1h"], &[UPLOAD]),
        (&["--since", &hour_ago], &[UPLOAD]),
        (&["--since", "7d"], &[UPLOAD, RARE, FIRST]),
        (&["--rule", "country"], &[RARE, FIRST]),
        (&["--rule", "5ef1a998-4250-49e0-915b-acab324a62d3"], &[UPLOAD]),
    ] {
        assert_eq!(rules(&agent, arguments), expected, "{arguments:?}");
        let list = printed_by(&agent, arguments);
        let missing = expected.iter().find(|rule| !list.contains(**rule));
        assert!(missing.is_none(), "{arguments:?}: {list}");
    }

    let upload = of(&agent, UPLOAD).remove(0);
    let id = ids(std::slice::from_ref(&upload)).pop_first().expect("an id");
    let whole = printed_by(&agent, &[&id[..12]]);
    for part in [UPLOAD, &id, "arn:aws:iam::111122223333:user/deploy"] {
        assert!(whole.contains(part), "{part}: {whole}");
    }
    let json: Json = serde_json::from_str(&printed_by(&agent, &[&id, "--json"])).expect("JSON");
    assert_eq!(json, upload);
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_full_disk_delays_alerts_and_loses_none() {
    let trail = Trail::new().expect("a trail");
    let small = Small::mount(&trail.places().with_file_name("small"));
    // Dotted keys of the stage come first, so that the log is moved by a link.
    let mut agent = Agent::start(settings(&trail, "")).expect("an agent");
    agent.stop().expect("an end");
    let log = agent.folder().join("alerts.ndjson");
    let _ = fs::remove_file(&log);
    let config = agent.folder().join("lapwing.toml");
    let moved = fs::read_to_string(&config).expect("the configuration");
    let there = small.0.join("alerts.ndjson");
    fs::write(&config, moved.replace(&log.display().to_string(), &there.display().to_string()))
        .expect("a file");
    agent.start_again().expect("a start");
    let mut records: Vec<_> =
        (0..100).map(|minute: i64| key_upload(Timestamp::now() - (minute * 10).minutes())).collect();
    records.reverse();
    trail.deliver("keys", &records).expect("a file");
    let alarms = || agent.status().map(|status| status["ledger"]["alarms"].to_string());
    let full = until("an alarm", PATIENCE, || Ok(Some(alarms()?).filter(|alarms| alarms != "[]")))
        .expect("an alarm");
    assert!(
        full.contains("No space left on device") && full.contains("free space on its file system"),
        "{full}"
    );
    small.grow();
    let lines = || fs::read_to_string(&there).unwrap_or_default().lines().count();
    until("all alerts", PATIENCE, || Ok((lines() == 101).then_some(()))).expect("all alerts");
    until("an end of the alarm", PATIENCE, || Ok((alarms()? == "[]").then_some(()))).expect("no alarm");
    agent.stop().expect("an end");
    assert_eq!(lines(), 101, "each is there once, and the first of its account");
}

/// A small file system, unmounted when this is dropped.
pub(crate) struct Small(pub(crate) std::path::PathBuf);

impl Small {
    pub(crate) fn mount(path: &std::path::Path) -> Self {
        use nix::mount::{MsFlags, mount};
        let none = None::<&str>;
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("mounts of its own");
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private mounts");
        fs::create_dir(path).expect("a folder");
        mount(Some("none"), path, Some("tmpfs"), MsFlags::empty(), Some("size=64k")).expect("a tmpfs");
        Self(path.to_owned())
    }

    fn grow(&self) {
        use nix::mount::{MsFlags, mount};
        let none = None::<&str>;
        mount(none, &self.0, none, MsFlags::MS_REMOUNT, Some("size=16m")).expect("more room");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}
