//! HTTP requests of sinks: TLS, certificates, credentials, proxies and time limits, and errors with hints.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{Bytes, BytesMut};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, Client, Identity, Method, Proxy, Url};
use serde::Deserialize;

use super::Trouble;
use super::secret::Secret;
use crate::bounded::{self, SETTING_BYTES_MAX};
use crate::error_chain::root_cause;
use crate::{clock, http_client};

/// How much of an answer is read.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// How much of an answer is shown in a message.
const ANSWER_CHARS_SHOWN: usize = 300;

/// A `[sink.http]` section.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// How long a request may take in all. Default: `30s`.
    #[serde(deserialize_with = "clock::deserialize_period")]
    pub(crate) timeout: Duration,
    /// A file of PEM certificates that are trusted instead of the system's. Default: the system's.
    pub(crate) ca_file: Option<PathBuf>,
    /// A file of PEM certificates that the sink authenticates with; with `key_file`. Default: none.
    pub(crate) certificate_file: Option<PathBuf>,
    /// The PEM key of `certificate_file`.
    pub(crate) key_file: Option<PathBuf>,
    /// The URL of a proxy. Default: as `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` say.
    pub(crate) proxy: Option<String>,
    /// Headers sent with each request; values may be secrets.
    pub(crate) headers: BTreeMap<String, Secret>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            ca_file: None,
            certificate_file: None,
            key_file: None,
            proxy: None,
            headers: BTreeMap::new(),
        }
    }
}

/// How a sink authenticates.
#[derive(Clone, Debug)]
pub(super) enum Credentials {
    None,
    /// An API key of Elasticsearch, encoded or as `id:key`.
    ApiKey(Secret),
    Bearer(Secret),
    Basic {
        username: String,
        password: Secret,
    },
}

impl Credentials {
    /// The credentials of a configuration: a token, given under `key`, or a user with a password.
    ///
    /// # Errors
    /// It has both, or half of one.
    pub(super) fn of(
        key: &str,
        token: Option<Self>,
        username: Option<&String>,
        password: Option<&Secret>,
    ) -> Result<Self> {
        match (token, username, password) {
            (token, None, None) => Ok(token.unwrap_or(Self::None)),
            (Some(_), ..) => bail!("`{key}` and `username` are mutually exclusive"),
            (None, Some(username), Some(password)) => {
                Ok(Self::Basic { username: username.clone(), password: password.clone() })
            }
            _ => bail!("`username` and `password` must be set together"),
        }
    }
}

/// A client that is built on first use, so that a missing certificate is an alarm and does not prevent the start. It is
/// rebuilt when one of its files changes.
pub(super) struct Http {
    config: Config,
    credentials: Credentials,
    tls: bool,
    client: Mutex<Option<(Vec<Option<SystemTime>>, Client)>>,
}

/// What upstream answered.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Bytes,
}

impl Http {
    /// A client for these URLs.
    ///
    /// # Errors
    /// The configuration is not valid.
    pub(super) fn new(config: &Config, credentials: Credentials, urls: &[Url]) -> Result<Self> {
        ensure!(
            config.certificate_file.is_some() == config.key_file.is_some(),
            "`http.certificate_file` and `http.key_file` go together"
        );
        for name in config.headers.keys() {
            HeaderName::try_from(name)
                .with_context(|| format!("`http.headers`: `{name}` is not a header name"))?;
        }
        if let Some(proxy) = &config.proxy {
            Proxy::all(proxy).with_context(|| format!("`http.proxy`: `{proxy}` is not a proxy URL"))?;
        }
        for url in urls {
            let local = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
            if url.scheme() == "http" && !local && !matches!(credentials, Credentials::None) {
                tracing::warn!("{url}: credentials are sent without encryption; use https");
            }
        }
        let tls = urls.iter().any(|url| url.scheme() == "https");
        Ok(Self { config: config.clone(), credentials, tls, client: Mutex::new(None) })
    }

    /// Reads every file the configuration names.
    ///
    /// # Errors
    /// One cannot be read or used.
    pub(super) fn check(&self) -> Result<()> {
        self.headers()?;
        self.client().map(drop)
    }

    /// Sends a request and waits for the whole answer.
    ///
    /// # Errors
    /// There is no answer: upstream cannot be reached or trusted, or a secret cannot be read.
    pub(super) async fn send(
        &self,
        method: Method,
        url: Url,
        own: HeaderMap,
        body: Bytes,
    ) -> Result<Response, Trouble> {
        let prepared = self.client().and_then(|client| Ok((client, self.headers()?)));
        let (client, mut headers) = prepared.map_err(|error| format!("{error:#}"))?;
        headers.extend(own);
        let place = url.origin().ascii_serialization();
        let trouble = |error: reqwest::Error| Trouble::from(explain(&place, &error));
        let request = client.request(method, url).headers(headers).body(body);
        let mut response = request.send().await.map_err(trouble)?;
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(trouble)? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(format!("{place} answers with more than {ANSWER_BYTES_MAX} bytes").into());
            }
            body.extend_from_slice(&chunk);
        }
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| wait_of(value.to_str().ok()?));
        Ok(Response { status: response.status().as_u16(), retry_after, body: body.freeze() })
    }

    fn client(&self) -> Result<Client> {
        let config = &self.config;
        let files = [&config.ca_file, &config.certificate_file, &config.key_file];
        let times: Vec<_> = files
            .into_iter()
            .flatten()
            .map(|path| fs::metadata(path).and_then(|file| file.modified()).ok())
            .collect();
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        match &*client {
            Some((built, client)) if *built == times => return Ok(client.clone()),
            _ => {}
        }
        match (self.build(), &*client) {
            (Ok(built), _) => Ok(client.insert((times, built)).1.clone()),
            // While a file is being replaced, the previous client stays in use.
            (Err(error), Some((_, before))) => {
                tracing::warn!("certificates that have changed are not used yet: {error:#}");
                Ok(before.clone())
            }
            (Err(error), None) => Err(error),
        }
    }

    fn build(&self) -> Result<Client> {
        let config = &self.config;
        let mut builder =
            http_client::builder().timeout(config.timeout).http1_only().pool_max_idle_per_host(1);
        if let Some(path) = &config.ca_file {
            let pem = bounded::read(path, SETTING_BYTES_MAX)
                .with_context(|| format!("`http.ca_file`: cannot read {}", path.display()))?;
            let certificates =
                Certificate::from_pem_bundle(&pem).ok().filter(|certificates| !certificates.is_empty());
            let certificates = certificates.with_context(|| {
                format!("`http.ca_file`: {} holds no certificate in PEM form", path.display())
            })?;
            builder = builder.tls_certs_only(certificates);
        } else if !self.tls {
            // Loading the system's certificates costs time and memory.
            builder = builder.tls_certs_only([]);
        }
        if let (Some(certificate), Some(key)) = (&config.certificate_file, &config.key_file) {
            let mut pem = bounded::read(certificate, SETTING_BYTES_MAX)
                .with_context(|| format!("`http.certificate_file`: cannot read {}", certificate.display()))?;
            pem.push(b'\n');
            pem.extend(
                bounded::read(key, SETTING_BYTES_MAX)
                    .with_context(|| format!("`http.key_file`: cannot read {}", key.display()))?,
            );
            let identity = Identity::from_pem(&pem).with_context(|| {
                format!(
                    "{} and {} are not a certificate and key in PEM form",
                    certificate.display(),
                    key.display()
                )
            })?;
            builder = builder.identity(identity);
        }
        if let Some(proxy) = &config.proxy {
            builder = builder.proxy(Proxy::all(proxy)?);
        }
        builder
            .build()
            .context("TLS cannot be set up; install the package ca-certificates, or set `http.ca_file`")
    }

    fn headers(&self) -> Result<HeaderMap> {
        let mut headers = HeaderMap::new();
        for (name, secret) in &self.config.headers {
            headers.insert(HeaderName::try_from(name)?, sensitive(&secret.read()?, secret)?);
        }
        let (secret, text) = match &self.credentials {
            Credentials::None => return Ok(headers),
            Credentials::Bearer(secret) => (secret, format!("Bearer {}", secret.read()?)),
            Credentials::ApiKey(secret) => match secret.read()? {
                pair if pair.contains(':') => (secret, format!("ApiKey {}", BASE64_STANDARD.encode(pair))),
                encoded => (secret, format!("ApiKey {encoded}")),
            },
            Credentials::Basic { username, password } => {
                let pair = format!("{username}:{}", password.read()?);
                (password, format!("Basic {}", BASE64_STANDARD.encode(pair)))
            }
        };
        headers.insert(AUTHORIZATION, sensitive(&text, secret)?);
        Ok(headers)
    }
}

fn sensitive(text: &str, secret: &Secret) -> Result<HeaderValue> {
    let mut value = HeaderValue::try_from(text)
        .ok()
        .with_context(|| format!("{secret:?} has characters that a header cannot contain"))?;
    value.set_sensitive(true);
    Ok(value)
}

impl Response {
    /// Whether upstream accepted the request.
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Whether it rejects the request as too large for now, as a circuit breaker does.
    pub(super) fn is_too_much(&self) -> bool {
        let body = String::from_utf8_lossy(&self.body).to_ascii_lowercase();
        ["circuit_breaking_exception", "data too large"].iter().any(|words| body.contains(words))
    }

    /// The answer with a hint, as far as it applies to all servers.
    pub(super) fn trouble(&self, place: &str) -> Trouble {
        let cure = match self.status {
            300..=399 => "it redirects: configure the final URL",
            401 => "check the credentials",
            403 => "check what the credentials permit",
            404 => "check the URL",
            407 => "check the proxy's credentials",
            429 => "it is busy",
            500.. => "it has trouble of its own",
            _ => "check the sink's configuration",
        };
        let message = format!("{place} answers {}; {cure}", self.summary());
        let is_answer = matches!(self.status, 403 | 404 | 500..);
        Trouble { message, after: self.retry_after, is_answer }
    }

    /// The status and the beginning of the body, without control characters.
    pub(super) fn summary(&self) -> String {
        let body = String::from_utf8_lossy(&self.body);
        let body: String = body.chars().filter(|c| !c.is_control()).take(ANSWER_CHARS_SHOWN).collect();
        if body.is_empty() { self.status.to_string() } else { format!("{}: {body}", self.status) }
    }
}

/// Reads a URL that a sink may use.
///
/// # Errors
/// It is not a URL that a sink may use; the message names the key.
pub(super) fn url(key: &str, text: &str) -> Result<Url> {
    let url = Url::parse(text)
        .with_context(|| format!("`{key}`: `{text}` is not a URL such as https://host.example:9200"))?;
    ensure!(
        matches!(url.scheme(), "http" | "https"),
        "`{key}`: `{text}` must begin with https:// or http://"
    );
    ensure!(
        url.username().is_empty() && url.password().is_none(),
        "`{key}` must not hold a password: it would be shown in logs; use `username` and `password`"
    );
    Ok(url)
}

/// `Retry-After`: seconds, or a date.
fn wait_of(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let time = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok()?;
    Some(Duration::from_secs(u64::try_from(time.as_second() - clock::now().as_millis() / 1000).unwrap_or(0)))
}

/// An error's innermost cause, without the URL, which may hold a secret token.
fn explain(place: &str, error: &reqwest::Error) -> String {
    // Outer causes only repeat the kinds of the inner ones.
    let last = root_cause(error);
    let what = if error.is_timeout() { "does not answer in time" } else { "cannot be reached" };
    let cure = match &last {
        last if last.contains("UnknownIssuer") => {
            "; set `http.ca_file` to the certificate of who signed its own"
        }
        last if last.contains("NotValidForName") => "; use the name its certificate was made for",
        last if last.contains("Expired") => "; renew its certificate",
        _ => "",
    };
    format!("{place} {what}: {last}{cure}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_in_both_forms() {
        assert_eq!(wait_of(" 120 "), Some(Duration::from_secs(120)));
        assert_eq!(wait_of("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        let later = jiff::Timestamp::now() + Duration::from_secs(100);
        let date = later.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        assert!(wait_of(&date).is_some_and(|wait| (98..=100).contains(&wait.as_secs())), "{date}");
        assert_eq!(wait_of("soon"), None);
    }

    #[test]
    fn only_usable_urls_without_passwords_are_accepted() {
        for (text, expected) in [
            ("ftp://host/x", "must begin with https://"),
            ("https://user:pw@host/", "must not hold a password"),
            ("host:9200", "must begin with https://"),
            ("not a url", "is not a URL"),
        ] {
            let error = format!("{:#}", url("sink.url", text).unwrap_err());
            assert!(error.contains(expected) && error.contains("`sink.url`"), "{text}: {error}");
        }
    }
}
