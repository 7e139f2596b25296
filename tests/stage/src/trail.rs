//! A trail: files as AWS delivers them, in a folder that an agent watches, and a database of places. It knows what
//! CloudTrail's records look like, and nothing of what becomes of them.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::{Timestamp, ToSpan as _};
use maxminddb_writer::{Database, metadata::IpVersion, paths::IpAddrWithMask};
use serde_json::{Value as Json, json};
use tempfile::TempDir;

/// The account whose trail it is.
pub const ACCOUNT: &str = "111122223333";
/// An address that the database places in Germany.
const GERMAN: &str = "203.0.113.10";
/// What is usually called from there.
pub const USUAL: [&str; 12] = [
    "DescribeInstances",
    "DescribeImages",
    "DescribeVpcs",
    "DescribeSubnets",
    "GetObject",
    "PutObject",
    "ListBuckets",
    "AssumeRole",
    "GetCallerIdentity",
    "ListRoles",
    "GetUser",
    "Decrypt",
];
/// Quarters of an hour in which all of that was called: enough to distinguish rare calls from new ones.
const HISTORY: i64 = 40;

/// The folder and the database. They are gone when this is dropped.
#[derive(Debug)]
pub struct Trail(TempDir);

impl Trail {
    /// Makes them.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("lapwing-trail-").tempdir()?;
        fs::create_dir(folder.path().join("trail"))?;
        fs::write(folder.path().join("places.mmdb"), places()?)?;
        Ok(Self(folder))
    }

    /// The folder that is watched.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.0.path().join("trail")
    }

    /// The database of places.
    #[must_use]
    pub fn places(&self) -> PathBuf {
        self.0.path().join("places.mmdb")
    }

    /// The configuration of both, as keys, which come before sections.
    #[must_use]
    pub fn configuration(&self) -> String {
        let (folder, places) = (self.folder(), self.places());
        format!(
            "cloudtrail.folders = [\"{}\"]\ncloudtrail.geoip = \"{}\"\n",
            folder.display(),
            places.display()
        )
    }

    /// Delivers a file as AWS does: compressed, in a folder of its day, there as a whole at once. Returns when it was.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn deliver(&self, name: &str, records: &[Json]) -> Result<SystemTime> {
        let path = self.folder().join(key(Timestamp::now(), name));
        self.put(&path, &gzip(&file(records))?)
    }

    /// Puts a file with these bytes to a path below the folder, there as a whole at once. Returns when it was.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn put(&self, path: &Path, bytes: &[u8]) -> Result<SystemTime> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let written = self.0.path().join("written");
        fs::write(&written, bytes)?;
        let now = SystemTime::now();
        fs::rename(written, path)?;
        Ok(now)
    }
}

/// Where a trail puts a file: from the folder, or the bucket, on.
#[must_use]
pub fn key(time: Timestamp, name: &str) -> String {
    let (day, minute) = (time.strftime("%Y/%m/%d"), time.strftime("%Y%m%dT%H%MZ"));
    format!(
        "AWSLogs/{ACCOUNT}/CloudTrail/eu-central-1/{day}/{ACCOUNT}_CloudTrail_eu-central-1_{minute}_{name}.json.gz"
    )
}

/// A file's text.
#[must_use]
pub fn file(records: &[Json]) -> Vec<u8> {
    json!({ "Records": records }).to_string().into_bytes()
}

/// The bytes compressed.
///
/// # Errors
/// Memory has no room for them.
pub fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

/// A record of a call.
#[must_use]
pub fn call(time: Timestamp, action: &str) -> Json {
    json!({
        "eventVersion": "1.09",
        "userIdentity": {
            "type": "IAMUser", "principalId": "AIDAEXAMPLE", "arn": format!("arn:aws:iam::{ACCOUNT}:user/deploy"),
            "accountId": ACCOUNT, "accessKeyId": "AKIAEXAMPLE", "userName": "deploy",
        },
        "eventTime": time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "eventSource": "ec2.amazonaws.com",
        "eventName": action,
        "awsRegion": "eu-central-1",
        "sourceIPAddress": GERMAN,
        "userAgent": "aws-cli/2.15.0 Python/3.11.8 Linux/6.1.0",
        "requestID": format!("{action}-{}", time.as_second()),
        "eventID": format!("{action}-{}-event", time.as_second()),
        "readOnly": false,
        "eventType": "AwsApiCall",
        "managementEvent": true,
        "recipientAccountId": ACCOUNT,
        "eventCategory": "Management",
    })
}

/// A record of a key that was pushed to an instance.
#[must_use]
pub fn key_upload(time: Timestamp) -> Json {
    let mut record = call(time, "SendSSHPublicKey");
    record["eventSource"] = "ec2-instance-connect.amazonaws.com".into();
    record["requestParameters"] = json!({"instanceId": "i-0123456789abcdef0", "instanceOSUser": "ec2-user"});
    record
}

/// Ten hours of a country's usual calls that ended before `now`, and then one that it never made.
#[must_use]
pub fn rare_call(now: Timestamp) -> Vec<Json> {
    let quarter = |number: i64| now - (24 * 60).minutes() + (15 * number).minutes();
    let mut records = Vec::new();
    for number in 0..HISTORY {
        records.extend(USUAL.iter().map(|action| call(quarter(number), action)));
    }
    records.push(call(quarter(HISTORY), "StopLogging"));
    // Calls go on: their time ends the quarter of an hour before.
    records.extend((1..4).map(|later| call(quarter(HISTORY + later), "DescribeInstances")));
    records
}

/// A database in MaxMind's format that knows one network.
fn places() -> Result<Vec<u8>> {
    let mut database = Database::default();
    database.metadata.ip_version = IpVersion::V6;
    database.metadata.database_type = "stage".to_owned();
    database.metadata.binary_format_major_version = 2;
    let record = json!({"country": {"iso_code": "DE", "names": {"en": "Germany"}}});
    let place = database.insert_value(record).context("the database of places")?;
    // 203.0.113.0/24: IPv4 lies below `::/96` in such a database.
    let network: IpAddrWithMask = "::cb00:7100/120".parse().ok().context("a network")?;
    database.insert_node(network, place);
    let mut bytes = Vec::new();
    database.write_to(&mut bytes)?;
    Ok(bytes)
}
