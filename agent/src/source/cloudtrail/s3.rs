//! Objects of S3, fetched whole: a short one into memory, a long one into a file without a name.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Cursor, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::aws::{AwsError, Client};
use super::aws_host::suffix;
use super::config::QueueConfig;
use super::notification::Object;

/// Longest object that is kept in memory, in bytes. Most files of a trail are far shorter.
const MEMORY_BYTES_MAX: usize = 1 << 20;
/// Longest object that is fetched, in bytes.
const OBJECT_BYTES_MAX: u64 = 512 << 20;
/// Most buckets whose region is remembered.
const REGIONS_MAX: usize = 64;

/// Bytes of a key that are escaped in a path: all but the unreserved characters of RFC 3986, and the slash.
const KEY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// The buckets, as one identity sees them.
#[derive(Clone)]
pub(crate) struct Buckets {
    client: Client,
    hosts: Hosts,
    directory: PathBuf,
    /// Regions of buckets that S3 returned. Locked only for a lookup, never during a request.
    regions: Arc<Mutex<HashMap<String, String>>>,
}

/// An object's bytes.
#[derive(Debug)]
pub(crate) enum Body {
    /// In memory.
    Memory(Cursor<Vec<u8>>),
    /// In a file that has no name any more.
    File(File),
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Memory(bytes) => bytes.read(buffer),
            Self::File(file) => file.read(buffer),
        }
    }
}

/// Why an object cannot be fetched.
#[derive(Debug)]
pub(crate) enum FetchError {
    /// It is not in the bucket any more.
    Gone,
    /// It will never be fetched, for this reason.
    Never(String),
    /// It could not be fetched now.
    Later(String),
}

impl From<AwsError> for FetchError {
    fn from(error: AwsError) -> Self {
        match error.code.as_str() {
            "NoSuchKey" | "NoSuchVersion" => Self::Gone,
            // Glacier: the file is not restored automatically.
            "InvalidObjectState" => Self::Never(error.to_string()),
            _ => Self::Later(error.to_string()),
        }
    }
}

impl From<io::Error> for FetchError {
    fn from(error: io::Error) -> Self {
        Self::Later(format!("its copy on disk cannot be written: {error}"))
    }
}

impl Buckets {
    /// The buckets as `client` sees them; long objects are copied to `directory`.
    pub(crate) fn new(client: Client, config: &QueueConfig, directory: &Path) -> Self {
        Self {
            client,
            hosts: Hosts {
                endpoint: config.s3_endpoint.clone(),
                fips: config.fips,
                dual_stack: config.dual_stack,
            },
            directory: directory.to_owned(),
            regions: Arc::default(),
        }
    }

    /// Fetches an object.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub(crate) async fn fetch(&self, object: &Object) -> Result<Body, FetchError> {
        let known = self.regions.lock().unwrap_or_else(PoisonError::into_inner).get(&object.bucket).cloned();
        let region =
            known.or_else(|| object.region.clone()).unwrap_or_else(|| self.client.region().to_owned());
        let answer = match self.get(object, &region).await {
            // The bucket is in another region, which S3 names.
            Err(AwsError { region: Some(elsewhere), .. }) if elsewhere != region => {
                let answer = self.get(object, &elsewhere).await?;
                let mut regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
                if regions.len() < REGIONS_MAX {
                    regions.insert(object.bucket.clone(), elsewhere);
                }
                answer
            }
            answer => answer?,
        };
        self.copy(answer).await
    }

    async fn get(&self, object: &Object, region: &str) -> Result<reqwest::Response, AwsError> {
        let mut request = http::Request::new(Bytes::new());
        *request.uri_mut() = self.hosts.url(object, region).parse().unwrap_or_default();
        self.client.send("s3", region, request).await
    }

    async fn copy(&self, mut answer: reqwest::Response) -> Result<Body, FetchError> {
        let too_long = || FetchError::Never(format!("it is longer than {OBJECT_BYTES_MAX} bytes"));
        let promised = answer.content_length();
        if promised.is_some_and(|length| length > OBJECT_BYTES_MAX) {
            return Err(too_long());
        }
        let mut memory = Vec::new();
        let mut file = None;
        let mut length = 0;
        while let Some(chunk) = answer.chunk().await.map_err(AwsError::from)? {
            length += chunk.len() as u64;
            if length > OBJECT_BYTES_MAX {
                return Err(too_long());
            }
            memory.extend_from_slice(&chunk);
            if memory.len() > MEMORY_BYTES_MAX {
                file = Some(self.spill(file.take(), std::mem::take(&mut memory)).await?);
            }
        }
        if promised.is_some_and(|promised| promised != length) {
            return Err(FetchError::Later("its transfer was cut".to_owned()));
        }
        match file {
            None => Ok(Body::Memory(Cursor::new(memory))),
            Some(file) => {
                let mut file = self.spill(Some(file), memory).await?;
                file.rewind()?;
                Ok(Body::File(file))
            }
        }
    }

    /// Writes to the object's copy on disk, on a thread that may wait for the disk.
    async fn spill(&self, file: Option<File>, bytes: Vec<u8>) -> io::Result<File> {
        let directory = self.directory.clone();
        let write = move || {
            let mut file = file.map_or_else(|| tempfile::tempfile_in(directory), Ok)?;
            io::Write::write_all(&mut file, &bytes)?;
            Ok(file)
        };
        tokio::task::spawn_blocking(write).await.map_err(io::Error::other)?
    }
}

/// The endpoint of S3.
#[derive(Clone, Default)]
struct Hosts {
    endpoint: Option<String>,
    fips: bool,
    dual_stack: bool,
}

impl Hosts {
    fn url(&self, object: &Object, region: &str) -> String {
        let key = utf8_percent_encode(&object.key, KEY);
        let bucket = &object.bucket;
        if let Some(endpoint) = &self.endpoint {
            return format!("{}/{bucket}/{key}", endpoint.trim_end_matches('/'));
        }
        let service = if self.fips { "s3-fips" } else { "s3" };
        let stack = if self.dual_stack { ".dualstack" } else { "" };
        let host = format!("{service}{stack}.{region}.{}", suffix(region));
        // A name with dots before the host is covered by no certificate.
        match bucket.contains('.') {
            true => format!("https://{host}/{bucket}/{key}"),
            false => format!("https://{bucket}.{host}/{key}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_has_its_url() {
        let plain = Hosts::default();
        let both = Hosts { fips: true, dual_stack: true, ..Hosts::default() };
        let own = Hosts { endpoint: Some("http://127.0.0.1:5000/".into()), ..Hosts::default() };
        for (hosts, bucket, region, url) in [
            (&plain, "logs", "eu-west-1", "https://logs.s3.eu-west-1.amazonaws.com/a/b%20%2B%C3%A9.gz"),
            (
                &plain,
                "my.logs",
                "cn-north-1",
                "https://s3.cn-north-1.amazonaws.com.cn/my.logs/a/b%20%2B%C3%A9.gz",
            ),
            (
                &both,
                "logs",
                "us-gov-west-1",
                "https://logs.s3-fips.dualstack.us-gov-west-1.amazonaws.com/a/b%20%2B%C3%A9.gz",
            ),
            (&own, "logs", "eu-west-1", "http://127.0.0.1:5000/logs/a/b%20%2B%C3%A9.gz"),
        ] {
            let object = Object { bucket: bucket.to_owned(), key: "a/b +é.gz".to_owned(), region: None };
            assert_eq!(hosts.url(&object, region), url);
        }
    }
}
