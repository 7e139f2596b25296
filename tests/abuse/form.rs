//! What the agent has beside the packaged rules: rules that learn, a trail, a disk that is full.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

/// What the agent has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Nothing.
    Plain,
    /// A rule that learns command lines.
    Terms,
    /// A threshold for each command line, and a job to which each is a value of its open time span.
    Buckets,
    /// Datagrams are reported, by links that can be detached; and the program is a copy.
    Tampered,
    /// A folder of CloudTrail's files, into which the act writes.
    Trail,
    /// Its folder, with log, store and spool, on a file system that is full again and again during the act; and two
    /// sinks, of which one refuses every alert and the other cannot be reached.
    FullDisk,
    /// The same, full already when the agent starts.
    FullBefore,
}

impl Form {
    pub(crate) fn has_a_full_disk(self) -> bool {
        matches!(self, Self::FullDisk | Self::FullBefore)
    }

    /// The packaged rules, and those that this form has beside them.
    pub(crate) fn rules(self) -> tempfile::TempDir {
        let packaged = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("packaging/rules");
        let rules = tempfile::tempdir().unwrap();
        fs::create_dir(rules.path().join("jobs")).unwrap();
        for folder in ["", "jobs"] {
            for entry in fs::read_dir(packaged.join(folder)).unwrap().flatten() {
                if entry.path().is_file() && !entry.path().to_string_lossy().ends_with(".test.toml") {
                    fs::copy(entry.path(), rules.path().join(folder).join(entry.file_name())).unwrap();
                }
            }
        }
        let own: &[(&str, &str)] = match self {
            Self::Terms => &[("terms.toml", TERMS)],
            Self::Buckets => &[("threshold.toml", THRESHOLD), ("rare.toml", RARE)],
            _ => &[],
        };
        own.iter().for_each(|(name, text)| fs::write(rules.path().join(name), text).unwrap());
        rules
    }
}

/// A rule of our own: each distinct command line is a new term.
const TERMS: &str = r#"
[rule]
author = ["Lapwing"]
description = "Command lines that were not seen before."
index = ["logs-endpoint.events.*"]
language = "kuery"
name = "New command line"
risk_score = 1
rule_id = "lapwing-test-terms"
severity = "low"
type = "new_terms"
query = 'event.category:process and event.type:start and process.name:term'

[rule.new_terms]
field = "new_terms_fields"
value = ["process.command_line"]

[[rule.new_terms.history_window_start]]
field = "history_window_start"
value = "now-7d"
"#;

/// Each distinct command line is counted in a bucket of its own.
const THRESHOLD: &str = r#"
[rule]
author = ["Lapwing"]
description = "A command line that was seen often."
index = ["logs-endpoint.events.*"]
language = "kuery"
name = "Repeated command line"
risk_score = 1
rule_id = "lapwing-test-threshold"
severity = "low"
type = "threshold"
query = 'event.category:process and event.type:start and process.name:term'
from = "now-60m"

[rule.threshold]
field = ["process.command_line"]
value = 3
"#;

/// Each distinct command line is a value of the open time span.
const RARE: &str = r#"
[rule]
author = ["Lapwing"]
anomaly_threshold = 50
description = "A command line that is rare."
machine_learning_job_id = ["lapwing_test_rare"]
name = "Rare command line"
risk_score = 1
rule_id = "lapwing-test-rare"
severity = "low"
type = "machine_learning"

[job]
id = "lapwing_test_rare"
description = "Command lines that are rare"
function = "rare"
by_field_name = "process.command_line"
partition_field_name = "process.args"
bucket_span = "15m"
influencers = ["process.command_line", "user.name"]
index = ["logs-endpoint.events.*"]
query = "event.category:process and event.type:start and process.name:term"
"#;

/// An upstream that rejects every alert: all are dead-lettered.
pub(crate) fn refusing() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut part = [0; 64 << 10];
                while matches!(stream.read(&mut part), Ok(read) if read > 0) {
                    let answer =
                        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                    if stream.write_all(answer).is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

/// What the configuration says of both sinks. At the port of the second one nothing listens.
pub(crate) fn sinks(port: u16) -> String {
    let sink = |name: &str, port: u16| {
        format!(
            "[[sink]]\ntype = \"webhook\"\nname = \"{name}\"\nurl = \"http://127.0.0.1:{port}/\"\n\
             retry_delay_max = \"1s\"\n"
        )
    };
    format!("{}{}", sink("refusing", port), sink("unreachable", 9))
}

/// A small file system in memory.
pub(crate) struct Disk(tempfile::TempDir);

impl Disk {
    pub(crate) fn new(size: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={size},mode=0755");
        let status =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path()).status();
        assert!(status.unwrap().success(), "mount");
        Self(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Fills it but for so many pages.
    pub(crate) fn fill_but(&self, pages: u64) {
        const PAGE_BYTES: u64 = 4096;
        let path = self.path().join("filler");
        let mut file = fs::File::create(path).unwrap();
        // It ends with the disk.
        while file.write_all(&[0; PAGE_BYTES as usize]).is_ok() {}
        let length = file.metadata().unwrap().len();
        file.set_len(length.saturating_sub(pages * PAGE_BYTES)).unwrap();
    }

    pub(crate) fn free(&self) {
        let _ = fs::remove_file(self.path().join("filler"));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
