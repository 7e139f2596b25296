//! The section `[cloudtrail]` of the configuration.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::aws_host;
use crate::clock;

/// The sources of CloudTrail's records, and their enrichment. Without folders and queues the source is off.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Folders that are watched, with all folders below them, for files of a trail: `.json`, `.jsonl`, `.ndjson`,
    /// gzip or not. A folder may appear later. Default: none.
    pub(crate) folders: Vec<PathBuf>,
    /// Where reading begins in a folder that is new: with the files that it contains, or with what is added from now on.
    /// Default: `beginning`.
    pub(crate) read_from: ReadFrom,
    /// How often the folders are scanned in addition to the kernel's notifications, which network file systems do not
    /// send. 1 s to 24 h. Default: `60s`.
    #[serde(deserialize_with = "clock::deserialize_period")]
    pub(crate) rescan_interval: Duration,
    /// A GeoIP database in MaxMind's format (GeoLite2-City, GeoLite2-Country, DB-IP, …) for `source.geo.*`. It is
    /// read again when it changes. Default: none, and rules that need a country cannot run.
    pub(crate) geoip: Option<PathBuf>,
    /// An ASN database in MaxMind's format for `source.as.*`. Default: none.
    pub(crate) asn: Option<PathBuf>,
    /// Whether each event keeps the record as AWS wrote it, in `event.original`. Default: false.
    pub(crate) preserve_original_event: bool,
    /// Queues that announce new objects in S3.
    pub(crate) queue: Vec<QueueConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            folders: Vec::new(),
            read_from: ReadFrom::Beginning,
            rescan_interval: Duration::from_secs(60),
            geoip: None,
            asn: None,
            preserve_original_event: false,
            queue: Vec::new(),
        }
    }
}

/// What happens to files that exist when a folder is first seen.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ReadFrom {
    /// Existing files are read, oldest first, so that rules learn from them.
    Beginning,
    /// Existing content is skipped; what is added from now on is read.
    End,
}

/// An SQS queue in which S3, SNS, EventBridge or CloudTrail announces new objects.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct QueueConfig {
    /// The queue's URL, such as `https://sqs.eu-central-1.amazonaws.com/111122223333/cloudtrail`.
    pub(crate) url: String,
    /// The queue's region. Default: the one in the URL, then `AWS_REGION`, then the instance's own.
    pub(crate) region: Option<String>,
    /// A role to assume for the queue and the bucket. Default: the agent's own credentials.
    pub(crate) role_arn: Option<String>,
    /// The external id that the role's trust policy requires. Default: none.
    pub(crate) external_id: Option<String>,
    /// The profile of `~/.aws/config` that gives the credentials. Default: `AWS_PROFILE`, then `default`.
    pub(crate) profile: Option<String>,
    /// How long a message stays hidden from other readers unless it is extended, 10 s to 12 h. Default: `300s`.
    #[serde(default = "visibility_timeout", deserialize_with = "clock::deserialize_period")]
    pub(crate) visibility_timeout: Duration,
    /// Whether S3's and STS's FIPS endpoints are used; the queue's is the one in its URL. Default: false.
    #[serde(default)]
    pub(crate) fips: bool,
    /// Whether S3 is reached by IPv6 where there is IPv6. Default: false.
    #[serde(default)]
    pub(crate) dual_stack: bool,
    /// The URL of SQS, where it is not that of the queue, for example a VPC endpoint.
    pub(crate) endpoint: Option<String>,
    /// The URL of S3, where it is not AWS's for the bucket's region. Buckets are then named in the path.
    pub(crate) s3_endpoint: Option<String>,
    /// The URL of STS, where it is not AWS's for the region.
    pub(crate) sts_endpoint: Option<String>,
    /// The environment that tests use in place of the process's.
    #[serde(skip)]
    pub(crate) environment: Option<HashMap<String, String>>,
    /// How long tests let a queue hold a request when it has no message, in seconds.
    #[serde(skip)]
    pub(crate) poll_secs: Option<u32>,
}

fn visibility_timeout() -> Duration {
    Duration::from_secs(300)
}

impl Config {
    /// Whether there is anything to read.
    pub(crate) fn enabled(&self) -> bool {
        !self.folders.is_empty() || !self.queue.is_empty()
    }

    /// What is wrong with the section, a sentence each, and the cure; empty when nothing is.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for folder in &self.folders {
            let others = self.folders.iter().filter(|other| !std::ptr::eq(*other, folder));
            if !folder.is_absolute() {
                problems.push(format!("cloudtrail.folders: {} must be an absolute path", folder.display()));
            }
            for outer in others.filter(|other| folder.starts_with(other)) {
                let (inner, outer) = (folder.display(), outer.display());
                problems.push(format!("cloudtrail.folders: {inner} is below {outer}, which is enough"));
            }
        }
        if !(Duration::from_secs(1)..=Duration::from_hours(24)).contains(&self.rescan_interval) {
            problems.push("cloudtrail.rescan_interval must be between 1s and 24h".to_owned());
        }
        for (name, path) in [("geoip", &self.geoip), ("asn", &self.asn)] {
            if let Some(path) = path.as_ref().filter(|path| !path.is_absolute()) {
                problems.push(format!("cloudtrail.{name}: {} must be an absolute path", path.display()));
            }
        }
        for (index, queue) in self.queue.iter().enumerate() {
            if self.queue[..index].iter().any(|other| other.url == queue.url) {
                problems.push(format!("cloudtrail.queue: {} is given twice", queue.url));
            }
            problems.extend(
                queue.problems().into_iter().map(|what| format!("cloudtrail.queue {}: {what}", queue.url)),
            );
        }
        problems
    }
}

impl QueueConfig {
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if aws_host::host(&self.url).is_none() || self.url.trim_end_matches('/').matches('/').count() < 4 {
            problems.push("url must be https://HOST/ACCOUNT/QUEUE, as the SQS console shows it".to_owned());
        }
        let endpoints = [
            ("endpoint", &self.endpoint),
            ("s3_endpoint", &self.s3_endpoint),
            ("sts_endpoint", &self.sts_endpoint),
        ];
        for (name, url) in endpoints {
            if url.as_ref().is_some_and(|url| aws_host::host(url).is_none()) {
                problems.push(format!(
                    "{name} must be a URL such as https://vpce-0a1b.sqs.eu-central-1.vpce.amazonaws.com"
                ));
            }
        }
        match &self.role_arn {
            Some(arn) if !(arn.starts_with("arn:") && arn.contains(":role/")) => {
                problems.push(
                    "role_arn must be a role's ARN such as arn:aws:iam::111122223333:role/lapwing".to_owned(),
                );
            }
            None if self.external_id.is_some() => {
                problems.push("external_id needs role_arn beside it".to_owned())
            }
            _ => {}
        }
        if !(Duration::from_secs(10)..=Duration::from_hours(12)).contains(&self.visibility_timeout) {
            problems.push("visibility_timeout must be between 10s and 12h".to_owned());
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        toml::from_str::<Config>(text)
            .map_or_else(|error| vec![error.message().to_owned()], |config| config.problems())
    }

    #[test]
    fn each_problem_is_reported_in_a_sentence() {
        let queue = "https://sqs.eu-central-1.amazonaws.com/111122223333/trail";
        for (text, reported) in [
            ("", vec![]),
            ("folders = ['/a', '/b']\nread_from = 'end'\ngeoip = '/g.mmdb'", vec![]),
            ("folders = ['a']", vec!["cloudtrail.folders: a must be an absolute path"]),
            ("folders = ['/a/b', '/a']", vec!["cloudtrail.folders: /a/b is below /a, which is enough"]),
            ("read_from = 'yesterday'", vec!["unknown variant `yesterday`, expected `beginning` or `end`"]),
            ("rescan_interval = '25h'", vec!["cloudtrail.rescan_interval must be between 1s and 24h"]),
            (&format!("[[queue]]\nurl = '{queue}'"), vec![]),
            (
                "[[queue]]\nurl = 'trail'",
                vec![
                    "cloudtrail.queue trail: url must be https://HOST/ACCOUNT/QUEUE, as the SQS console shows it",
                ],
            ),
            (
                &format!("[[queue]]\nurl = '{queue}'\nexternal_id = 'x'\nvisibility_timeout = '1s'"),
                vec![
                    &format!("cloudtrail.queue {queue}: external_id needs role_arn beside it"),
                    &format!("cloudtrail.queue {queue}: visibility_timeout must be between 10s and 12h"),
                ],
            ),
            (
                &format!("[[queue]]\nurl = '{queue}'\n[[queue]]\nurl = '{queue}'"),
                vec![&format!("cloudtrail.queue: {queue} is given twice")],
            ),
        ] {
            assert_eq!(problems(text), reported, "{text}");
        }
    }
}
