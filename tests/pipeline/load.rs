//! A trail under load: files of every form, with records on which rules fire, each with its own cause, among many on which
//! they do not. Everything is derived from a random seed.

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use fastrand::Rng;
use jiff::{SignedDuration, Timestamp, ToSpan as _};
use lapwing_stage::trail::{self, USUAL, call, key_upload};
use serde_json::Value as Json;

/// Seconds between two records: enough that no rule exceeds its alerts per interval.
const STEP_SECS: i64 = 20;
/// The API call of a key upload.
const UPLOAD: &str = "SendSSHPublicKey";
/// Number of records per new call: enough that a new call is rare.
const RARE_EVERY: u64 = 2_000;
/// Maximum number of records in a file.
const RECORDS_MAX: usize = 20;

/// The load so far.
pub(crate) struct Load {
    pub(crate) random: Rng,
    folder: PathBuf,
    time: Timestamp,
    files: usize,
    made: u64,
    /// Every record, in the order of time.
    pub(crate) records: Vec<Json>,
}

impl Load {
    /// A load for this folder.
    pub(crate) fn new(folder: &Path, random: Rng) -> Self {
        let time = Timestamp::now() - (14 * 24).hours();
        Self { random, folder: folder.to_owned(), time, files: 0, made: 0, records: Vec::new() }
    }

    /// The ids of the records with key uploads.
    pub(crate) fn uploads(&self) -> BTreeSet<String> {
        self.records.iter().filter(|record| record["eventName"] == UPLOAD).map(id).collect()
    }

    /// The ids of the records that are the first of their account.
    pub(crate) fn firsts(&self) -> BTreeSet<String> {
        let mut known = HashSet::new();
        let first = |record: &&Json| known.insert(record["userIdentity"]["accountId"].to_string());
        self.records.iter().filter(first).map(id).collect()
    }

    /// Delivers the next file: compressed or not, at once or in pieces, sometimes an earlier file again, or a broken one.
    pub(crate) fn deliver(&mut self) {
        let count = self.random.usize(1..=RECORDS_MAX);
        let records: Vec<_> = (0..count).map(|_| self.record()).collect();
        let time = self.time;
        let file = trail::file(&records);
        match self.random.u8(..10) {
            0..4 => self.put(time, "json.gz", &gzip(&file)),
            4..7 => self.put(time, "json", &file),
            _ => self.grow(time, &records),
        }
        match self.random.u8(..20) {
            0 => self.put(time, "json.gz", &gzip(&file)),
            1 => self.put(time, "json.gz", &gzip(&file)[..20]),
            2 => self.put(time, "json", b"{\"Records\": [{]}"),
            _ => {}
        }
        self.records.extend(records);
    }

    /// Delivers records that end every open time span, and then an upload, which is read last.
    pub(crate) fn end(&mut self) {
        self.time += SignedDuration::from_hours(3);
        let records = [self.call(USUAL[0]), self.upload()];
        self.put(self.time, "json.gz", &gzip(&trail::file(&records)));
        self.records.extend(records);
    }

    fn record(&mut self) -> Json {
        if self.made % RARE_EVERY == RARE_EVERY - 1 {
            return self.call(&format!("Rare{}", self.made));
        }
        match self.random.u16(..600) {
            0..30 => {
                let mut record = self.call(USUAL[0]);
                record["userIdentity"]["accountId"] = format!("{:012}", self.made).into();
                record
            }
            30..200 => self.upload(),
            _ => {
                let action = USUAL[self.random.usize(..USUAL.len())];
                self.call(action)
            }
        }
    }

    fn call(&mut self, action: &str) -> Json {
        let time = self.next_time();
        numbered(call(time, action))
    }

    fn upload(&mut self) -> Json {
        numbered(key_upload(self.next_time()))
    }

    fn next_time(&mut self) -> Timestamp {
        self.made += 1;
        self.time += SignedDuration::from_secs(STEP_SECS);
        assert!(self.time < Timestamp::now(), "the load is in the past");
        self.time
    }

    fn put(&mut self, time: Timestamp, form: &str, bytes: &[u8]) {
        let path = self.path(time, form);
        let written = self.folder.with_file_name("written");
        fs::write(&written, bytes).expect("a file");
        fs::rename(&written, path).expect("a file");
    }

    /// A file with one record per line that grows in pieces, which end anywhere.
    fn grow(&mut self, time: Timestamp, records: &[Json]) {
        let path = self.path(time, "ndjson");
        let text: String = records.iter().map(|record| format!("{record}\n")).collect();
        let mut file = OpenOptions::new().create(true).append(true).open(path).expect("a file");
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(self.random.usize(1..=rest.len()));
            file.write_all(piece).expect("a piece");
            rest = after;
            std::thread::yield_now();
        }
    }

    /// The path of the next file: in the folder of its day, with its time and a number in its name.
    fn path(&mut self, time: Timestamp, form: &str) -> PathBuf {
        self.files += 1;
        let name = trail::key(time, &format!("{:06}", self.files));
        let path = self.folder.join(name.replace("json.gz", form));
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        path
    }
}

/// A record with a unique id from its time.
fn numbered(mut record: Json) -> Json {
    let time: Timestamp = record["eventTime"].as_str().unwrap_or_default().parse().expect("a time");
    record["eventID"] = format!("{:08x}-0000-4000-8000-000000000000", time.as_second()).into();
    record
}

fn id(record: &Json) -> String {
    record["eventID"].as_str().unwrap_or_default().to_owned()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    trail::gzip(bytes).expect("a compressed file")
}
