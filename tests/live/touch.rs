//! An agent of a test's own, for what is done to the agent itself.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::agent::{DEADLINE, events};

/// An agent that prints events. It ends with the test.
pub(crate) struct Own {
    child: Child,
    lines: Mutex<Receiver<String>>,
}

impl Own {
    /// Starts it, and waits until it runs.
    pub(crate) fn start() -> Self {
        let mut child = events().stderr(Stdio::inherit()).spawn().expect("the agent starts");
        let lines = read(child.stdout.take().expect("a pipe"));
        lines.recv_timeout(DEADLINE).expect("the agent runs");
        Self { child, lines: Mutex::new(lines) }
    }

    /// The number of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The ids of the maps that it holds.
    pub(crate) fn maps(&self) -> Vec<u32> {
        let folder = fs::read_dir(format!("/proc/{}/fdinfo", self.pid())).unwrap();
        let texts = folder.filter_map(|entry| fs::read_to_string(entry.unwrap().path()).ok());
        let id =
            |text: String| text.lines().find_map(|line| line.strip_prefix("map_id:")?.trim().parse().ok());
        texts.filter_map(id).collect()
    }

    /// Waits for the event of interference whose reason contains this text.
    pub(crate) fn tampered(&self, text: &str) -> Value {
        let (lines, start) = (self.lines.lock().unwrap(), Instant::now());
        loop {
            let left = DEADLINE.checked_sub(start.elapsed()).expect("the event comes");
            match lines.recv_timeout(left.min(Duration::from_secs(1))) {
                Ok(line) => {
                    let event: Value = serde_json::from_str(&line).expect("one JSON object a line");
                    let reason = event["event"]["reason"].as_str().unwrap_or_default();
                    if event["event"]["action"] == "sensor_tampered" && reason.contains(text) {
                        return event;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => panic!("the agent ended"),
            }
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads its lines as they come, so that it never waits for the test.
fn read(output: ChildStdout) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}
