//! Signed requests to AWS, and its errors. Queues and buckets are elsewhere.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use reqsign_aws_v4::{Credential, RequestSigner};
use reqsign_core::Signer;
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::config::QueueConfig;
use super::credentials;
use crate::digest::hex;
use crate::error_chain::error_chain;
use crate::http_client;

/// How long AWS may be silent within an answer: longer than a queue holds a request for messages.
const READ_TIMEOUT: Duration = Duration::from_secs(40);
/// Longest error document that is read, in bytes.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// Why a request to AWS failed.
#[derive(Debug, Error)]
#[error("{message}")]
pub(crate) struct AwsError {
    /// The status of the answer, where there was one.
    pub(crate) status: Option<u16>,
    /// AWS's name for the error, such as `NoSuchKey`.
    pub(crate) code: String,
    /// The bucket's region, if AWS answers that the request went to another.
    pub(crate) region: Option<String>,
    message: String,
}

impl AwsError {
    fn unanswered(message: String) -> Self {
        Self { status: None, code: String::new(), region: None, message }
    }
}

impl From<reqwest::Error> for AwsError {
    fn from(error: reqwest::Error) -> Self {
        Self::unanswered(format!("no answer: {:#}", anyhow!(error.without_url())))
    }
}

/// A client of AWS with one identity.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    signer: Signer<Credential>,
    region: String,
}

impl Client {
    /// A client for a queue and what its messages name.
    ///
    /// # Errors
    /// That TLS cannot be set up, or that no region is to be found.
    pub(crate) async fn new(config: &QueueConfig) -> Result<Self> {
        let http = http_client()?;
        let (signer, region) = credentials::signer(config, http.clone()).await?;
        Ok(Self { http, signer, region })
    }

    /// The region of requests that name no other.
    pub(crate) fn region(&self) -> &str {
        &self.region
    }

    /// Sends a signed request and gives the answer if it is a success.
    ///
    /// # Errors
    /// See [`AwsError`].
    pub(crate) async fn send(
        &self,
        service: &str,
        region: &str,
        request: http::Request<Bytes>,
    ) -> Result<reqwest::Response, AwsError> {
        let (mut parts, body) = request.into_parts();
        // Services other than S3 reject an unsigned body, which is the signer's default.
        let digest = hex(&Sha256::digest(&body));
        if let Ok(digest) = HeaderValue::from_str(&digest) {
            parts.headers.insert("x-amz-content-sha256", digest);
        }
        let signer = self.signer.clone().with_request_signer(RequestSigner::new(service, region));
        signer
            .sign(&mut parts, None)
            .await
            .map_err(|error| AwsError::unanswered(format!("no credentials: {}", error_chain(&error))))?;
        let request = reqwest::Request::try_from(http::Request::from_parts(parts, body))?;
        let answer = self.http.execute(request).await?;
        if answer.status().is_success() { Ok(answer) } else { Err(refusal(service, answer).await) }
    }
}

/// A request with a JSON body, as SQS takes it.
pub(crate) fn json_request(
    url: &str,
    target: &'static str,
    body: &serde_json::Value,
) -> Result<http::Request<Bytes>> {
    let mut headers = HeaderMap::new();
    headers.insert(HeaderName::from_static("x-amz-target"), HeaderValue::from_static(target));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-amz-json-1.0"));
    let mut request = http::Request::new(Bytes::from(body.to_string()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = url.parse().context("not a URL")?;
    *request.headers_mut() = headers;
    Ok(request)
}

async fn refusal(service: &str, answer: reqwest::Response) -> AwsError {
    let status = answer.status().as_u16();
    let region =
        answer.headers().get("x-amz-bucket-region").and_then(|value| value.to_str().ok().map(str::to_owned));
    let body = limited_text(answer).await;
    let (code, text) = error_in(&body);
    let cure =
        CURES.iter().find(|(name, of, _)| code == *name && service == *of).map_or("", |(_, _, cure)| *cure);
    let name = if code.is_empty() { format!("status {status}") } else { format!("{code} (status {status})") };
    let message = format!("{}: {name}: {text}{cure}", service.to_uppercase());
    AwsError { status: Some(status), code, region, message }
}

/// Hints by error and service.
const CURES: &[(&str, &str, &str)] = &[
    (
        "AccessDenied",
        "s3",
        "; allow s3:GetObject on the bucket, and kms:Decrypt where it is encrypted by a key of its own",
    ),
    ("AccessDenied", "sqs", ALLOW_QUEUE),
    ("AccessDeniedException", "sqs", ALLOW_QUEUE),
    ("AWS.SimpleQueueService.NonExistentQueue", "sqs", "; check the queue's url and region"),
    ("QueueDoesNotExist", "sqs", "; check the queue's url and region"),
    ("ExpiredToken", "sqs", "; renew the credentials"),
    ("RequestTimeTooSkewed", "s3", "; set this host's clock"),
    ("SignatureDoesNotMatch", "sqs", "; check the secret key and this host's clock"),
    ("SignatureDoesNotMatch", "s3", "; check the secret key and this host's clock"),
];

const ALLOW_QUEUE: &str =
    "; allow sqs:ReceiveMessage, sqs:DeleteMessage and sqs:ChangeMessageVisibility on the queue";

async fn limited_text(mut answer: reqwest::Response) -> String {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = answer.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > ERROR_BYTES_MAX {
            break;
        }
    }
    body.truncate(ERROR_BYTES_MAX);
    String::from_utf8_lossy(&body).into_owned()
}

/// The code and message of an error, in JSON as SQS writes it or in XML as S3 does.
fn error_in(body: &str) -> (String, String) {
    if let Ok(json) = serde_json::from_str::<serde_json::Value>(body) {
        let text = |name: &str| json.get(name).and_then(|value| value.as_str()).unwrap_or_default();
        let code = text("__type").rsplit('#').next().unwrap_or_default();
        let message = if text("message").is_empty() { text("Message") } else { text("message") };
        return (code.to_owned(), message.to_owned());
    }
    let element = |name: &str| {
        let (_, rest) = body.split_once(&format!("<{name}>"))?;
        rest.split_once(&format!("</{name}>")).map(|(text, _)| text.to_owned())
    };
    (element("Code").unwrap_or_default(), element("Message").unwrap_or_default())
}

fn http_client() -> Result<reqwest::Client> {
    http_client::builder().read_timeout(READ_TIMEOUT).build().context("TLS cannot be set up")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_read_in_both_forms() {
        let xml = "<?xml version=\"1.0\"?><Error><Code>NoSuchKey</Code><Message>gone</Message></Error>";
        assert_eq!(error_in(xml), ("NoSuchKey".to_owned(), "gone".to_owned()));
        let json = r#"{"__type":"com.amazonaws.sqs#QueueDoesNotExist","message":"no such queue"}"#;
        assert_eq!(error_in(json), ("QueueDoesNotExist".to_owned(), "no such queue".to_owned()));
        assert_eq!(error_in("<html>"), (String::new(), String::new()));
    }
}
