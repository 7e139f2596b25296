//! The detections on CloudTrail: files as AWS delivers them, in a folder that the agent watches, and a database of
//! places.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::{Context, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::{Timestamp, ToSpan};
use maxminddb_writer::{Database, metadata::IpVersion, paths::IpAddrWithMask};
use serde_json::{Value as Json, json};
use tempfile::TempDir;

use super::Scene;

/// An address that the database places in Germany.
const GERMAN: &str = "203.0.113.10";
/// What is usually called from there.
const USUAL: [&str; 12] = [
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
/// Quarters of an hour in which all of that was called: enough for the rare to be told from the new.
const HISTORY: i64 = 40;

/// The folder and the database.
pub(super) struct Cloud {
    folder: TempDir,
}

impl Cloud {
    /// Makes them.
    ///
    /// # Errors
    /// They cannot be written.
    pub(super) fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("lapwing-cloud-").tempdir()?;
        fs::create_dir(folder.path().join("trail"))?;
        fs::write(folder.path().join("places.mmdb"), places()?)?;
        Ok(Self { folder })
    }

    /// What the agent is told of them.
    pub(super) fn configuration(&self) -> String {
        let own = self.folder.path().display();
        format!("[cloudtrail]\nfolders = [\"{own}/trail\"]\ngeoip = \"{own}/places.mmdb\"\n")
    }
}

/// A file in which a key is pushed to an instance.
pub(super) fn key_upload(scene: &Scene) -> Result<Option<SystemTime>> {
    let mut record = call(Timestamp::now(), "SendSSHPublicKey");
    record["eventSource"] = "ec2-instance-connect.amazonaws.com".into();
    record["requestParameters"] = json!({"instanceId": "i-0123456789abcdef0", "instanceOSUser": "ec2-user"});
    scene.cloud.deliver("key", &[record]).map(Some)
}

/// A file with ten hours of a country's usual calls, and then one that it never made.
pub(super) fn rare_country(scene: &Scene) -> Result<Option<SystemTime>> {
    let quarter = |number: i64| Timestamp::now() - (24 * 60).minutes() + (15 * number).minutes();
    let mut records = Vec::new();
    for number in 0..HISTORY {
        records.extend(USUAL.iter().map(|action| call(quarter(number), action)));
    }
    records.push(call(quarter(HISTORY), "StopLogging"));
    // Calls go on: their time tells that the quarter of an hour before is over.
    records.extend((1..4).map(|later| call(quarter(HISTORY + later), "DescribeInstances")));
    scene.cloud.deliver("calls", &records).map(Some)
}

/// A record of a call.
fn call(time: Timestamp, action: &str) -> Json {
    json!({
        "eventVersion": "1.09",
        "userIdentity": {
            "type": "IAMUser", "principalId": "AIDAEXAMPLE", "arn": "arn:aws:iam::111122223333:user/deploy",
            "accountId": "111122223333", "accessKeyId": "AKIAEXAMPLE", "userName": "deploy",
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
        "recipientAccountId": "111122223333",
        "eventCategory": "Management",
    })
}

impl Cloud {
    /// Delivers a file as AWS does: compressed, in a folder of its day, there as a whole at once. Returns when it was.
    fn deliver(&self, name: &str, records: &[Json]) -> Result<SystemTime> {
        let day = Timestamp::now().strftime("%Y/%m/%d").to_string();
        let folder = self.folder.path().join("trail/AWSLogs/111122223333/CloudTrail/eu-central-1").join(day);
        fs::create_dir_all(&folder)?;
        let written: PathBuf = self.folder.path().join(name);
        let mut file = GzEncoder::new(fs::File::create(&written)?, Compression::default());
        file.write_all(json!({"Records": records}).to_string().as_bytes())?;
        file.finish()?.sync_all()?;
        let now = SystemTime::now();
        fs::rename(written, folder.join(format!("111122223333_CloudTrail_eu-central-1_{name}.json.gz")))?;
        Ok(now)
    }
}

/// A database in MaxMind's format that knows one network.
fn places() -> Result<Vec<u8>> {
    let mut database = Database::default();
    database.metadata.ip_version = IpVersion::V6;
    database.metadata.database_type = "demo".to_owned();
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
