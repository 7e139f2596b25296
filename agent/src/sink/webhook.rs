//! A webhook: alerts as a JSON array, as lines, or in the form of a template, so that chat, paging and ticket systems
//! need no code in the agent. What is sent can be signed as Standard Webhooks describes
//! (<https://www.standardwebhooks.com>), which has libraries for receivers in most languages.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use minijinja::{Environment, UndefinedBehavior, Value, context};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::http::{Credentials, Http};
use super::secret::Secret;
use super::{Answer, BATCH_COUNT, BatchConfig, Target, Verdict, dead_letter, http};
use crate::bounded::{self, SETTING_BYTES_MAX};
use crate::clock;
use crate::digest::hex;
use crate::store::Spooled;

/// A `[[sink]]` section of type `webhook`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The sink's name.
    pub(crate) name: String,
    /// Where requests go.
    pub(crate) url: String,
    /// The request's method. Default: `post`.
    #[serde(default)]
    pub(crate) method: Verb,
    /// What is sent. Default: `json`; not with a template.
    pub(crate) format: Option<Format>,
    /// A template in the language of Jinja; it sees `alerts`, a list, and `alert`, the first of them. In a
    /// JSON body `{{ value }}` writes a value as JSON, texts with their quotes.
    pub(crate) template: Option<String>,
    /// A file that holds such a template.
    pub(crate) template_file: Option<PathBuf>,
    /// The body's type. Default: that of the format; `application/json` for a template.
    pub(crate) content_type: Option<String>,
    /// A token sent as `Authorization: Bearer …`.
    pub(crate) bearer: Option<Secret>,
    /// The user, with `password`, in place of a token.
    pub(crate) username: Option<String>,
    /// The password of `username`.
    pub(crate) password: Option<Secret>,
    /// The key by which requests are signed: a text, or base64 after `whsec_`. The signature is in the header
    /// `webhook-signature`: `v1,` and the base64 of HMAC-SHA256 over the header `webhook-id`, a dot, the
    /// header `webhook-timestamp`, which is the time of sending in seconds since 1970, a dot, and the body.
    pub(crate) signing_key: Option<Secret>,
    /// How much goes into one request.
    #[serde(default)]
    pub(crate) batch: BatchConfig,
    /// What becomes of alerts that upstream refuses.
    #[serde(default)]
    pub(crate) dead_letters: dead_letter::Config,
    /// The longest wait between two attempts. Default: `30s`.
    #[serde(default, deserialize_with = "clock::deserialize_some_period")]
    pub(crate) retry_delay_max: Option<Duration>,
    /// How requests are made.
    #[serde(default)]
    pub(crate) http: http::Config,
}

/// A method that carries a body.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verb {
    /// POST.
    #[default]
    Post,
    /// PUT.
    Put,
    /// PATCH.
    Patch,
}

/// What a body without a template is.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// An array of alerts.
    Json,
    /// One alert per line.
    Ndjson,
}

/// A receiver.
pub(super) struct Webhook {
    http: Http,
    url: Url,
    method: Method,
    body: Body,
    content_type: HeaderValue,
    signing_key: Option<Secret>,
}

enum Body {
    Plain(Format),
    Template(Box<Environment<'static>>),
}

/// The template's name; by its extension values are written as JSON.
const TEMPLATE_JSON: &str = "template.json";
const TEMPLATE_TEXT: &str = "template.txt";
/// The alert that a template is tested with: the fields that every alert has.
const SAMPLE: &str = r#"{"@timestamp": "2026-01-01T00:00:00.000Z", "message": "Name of a rule",
    "event": {"id": "0", "kind": "alert", "severity": 47}}"#;

impl Webhook {
    pub(super) fn new(config: &Config) -> Result<Self> {
        let url = http::url("url", &config.url)?;
        let token = config.bearer.clone().map(Credentials::Bearer);
        let (username, password) = (config.username.as_ref(), config.password.as_ref());
        let credentials = Credentials::of("bearer", token, username, password)?;
        let content_type = config.content_type.as_deref().unwrap_or(match config.format {
            Some(Format::Ndjson) => "application/x-ndjson",
            _ => "application/json",
        });
        Ok(Self {
            http: Http::new(&config.http, credentials, std::slice::from_ref(&url))?,
            url,
            method: match config.method {
                Verb::Post => Method::POST,
                Verb::Put => Method::PUT,
                Verb::Patch => Method::PATCH,
            },
            body: body(config, content_type)?,
            content_type: HeaderValue::try_from(content_type)
                .with_context(|| format!("`content_type`: `{content_type}` is not a valid header value"))?,
            signing_key: config.signing_key.clone(),
        })
    }

    pub(super) fn count_max(&self) -> usize {
        if matches!(self.body, Body::Template(_)) { 1 } else { BATCH_COUNT }
    }

    /// A webhook does not report its target.
    pub(super) async fn target(&self) -> Target {
        Target::Unknown
    }

    pub(super) fn check(&self) -> Result<()> {
        self.signing_key.as_ref().map(key).transpose()?;
        self.http.check()
    }

    pub(super) async fn send(&self, alerts: &[Spooled]) -> Answer {
        let body = match self.body.of(alerts) {
            Ok(body) => body,
            Err(error) => return Answer::Refused(format!("the template does not work for it: {error:#}")),
        };
        let headers = match self.headers(alerts, &body) {
            Ok(headers) => headers,
            Err(error) => return Answer::Trouble(format!("{error:#}").into()),
        };
        match self.http.send(self.method.clone(), self.url.clone(), headers, body).await {
            Ok(response) if response.is_success() => Answer::PerAlert(vec![Verdict::Delivered; alerts.len()]),
            // These mean that the content is wrong. Others mean a fault of the receiver or the configuration.
            Ok(response) if matches!(response.status, 400 | 413 | 422) => Answer::Refused(response.summary()),
            Ok(response) => Answer::Trouble(response.trouble(&self.url.origin().ascii_serialization())),
            Err(trouble) => Answer::Trouble(trouble),
        }
    }

    fn headers(&self, alerts: &[Spooled], body: &[u8]) -> Result<HeaderMap> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, self.content_type.clone());
        let id = message_id(alerts);
        headers.insert("webhook-id", HeaderValue::try_from(&id)?);
        if let Some(secret) = &self.signing_key {
            let time = (clock::now().as_millis() / 1000).to_string();
            let signature = signature(&key(secret)?, &id, &time, body)?;
            headers.insert("webhook-timestamp", HeaderValue::try_from(&time)?);
            headers.insert("webhook-signature", HeaderValue::try_from(format!("v1,{signature}"))?);
        }
        Ok(headers)
    }
}

impl Body {
    fn of(&self, alerts: &[Spooled]) -> Result<Bytes> {
        let documents = alerts.iter().map(|alert| &alert.json[..]);
        match self {
            Self::Plain(Format::Json) => {
                let mut array = b"[".to_vec();
                for (index, json) in documents.enumerate() {
                    array.extend_from_slice(if index == 0 { b"" } else { b"," });
                    array.extend_from_slice(json);
                }
                array.push(b']');
                Ok(array.into())
            }
            Self::Plain(Format::Ndjson) => {
                Ok(documents.flat_map(|json| [json, b"\n"]).collect::<Vec<_>>().concat().into())
            }
            Self::Template(environment) => Ok(render(environment, documents)?.into()),
        }
    }
}

fn body(config: &Config, content_type: &str) -> Result<Body> {
    let source = match (&config.template, &config.template_file, config.format) {
        (None, None, format) => return Ok(Body::Plain(format.unwrap_or(Format::Json))),
        (Some(source), None, None) => source.clone(),
        (None, Some(path), None) => bounded::read_text(path, SETTING_BYTES_MAX)
            .with_context(|| format!("`template_file`: cannot read {}", path.display()))?,
        (Some(_), Some(_), _) => bail!("`template` and `template_file` are mutually exclusive"),
        _ => bail!("`format` and a template are mutually exclusive"),
    };
    let name = if content_type.contains("json") { TEMPLATE_JSON } else { TEMPLATE_TEXT };
    let mut environment = Environment::new();
    // Not every alert has every field.
    environment.set_undefined_behavior(UndefinedBehavior::Chainable);
    environment.add_filter("chat", chat);
    environment.add_template_owned(name, source).context("the template cannot be read")?;
    render(&environment, [SAMPLE.as_bytes()].into_iter()).context("the template does not work")?;
    Ok(Body::Template(Box::new(environment)))
}

/// A text whose mark-up for chats (mentions, links, bold text) is disabled. It looks the same.
fn chat(value: &Value) -> String {
    let mut plain = String::new();
    if value.is_undefined() || value.is_none() {
        return plain;
    }
    for c in value.to_string().chars() {
        match c {
            '&' => plain.push_str("&amp;"),
            '<' => plain.push_str("&lt;"),
            '>' => plain.push_str("&gt;"),
            '@' | '*' | '_' | '~' | '`' | '[' | ']' | '|' | '#' | ':' => plain.extend([c, '\u{200b}']),
            c if c.is_control() => plain.push(' '),
            c => plain.push(c),
        }
    }
    plain
}

fn render<'a>(environment: &Environment, documents: impl Iterator<Item = &'a [u8]>) -> Result<String> {
    let alerts: Vec<Value> = documents.map(serde_json::from_slice).collect::<Result<_, _>>()?;
    let (name, template) = environment.templates().next().context("there is no template")?;
    let text = template.render(context! { alert => alerts.first(), alerts })?;
    if name == TEMPLATE_JSON {
        serde_json::from_str::<serde::de::IgnoredAny>(&text).context(
            "what it makes is no JSON; `{{ value }}` writes texts with their quotes, so do not put it between \
             quotes",
        )?;
    }
    Ok(text)
}

/// The same alerts have the same id when they are resent, so that a receiver can deduplicate them.
fn message_id(alerts: &[Spooled]) -> String {
    let mut hash = Sha256::new();
    for alert in alerts {
        hash.update(&alert.id);
        hash.update(b"\n");
    }
    format!("lapwing_{}", hex(&hash.finalize()[..16]))
}

fn key(secret: &Secret) -> Result<Vec<u8>> {
    let text = secret.read()?;
    let key = match text.strip_prefix("whsec_") {
        Some(encoded) => BASE64_STANDARD
            .decode(encoded)
            .ok()
            .with_context(|| format!("{secret:?}: the part after `whsec_` is not base64"))?,
        None => text.into_bytes(),
    };
    ensure!(key.len() >= 16, "{secret:?} is shorter than 16 bytes, which is too easy to guess");
    Ok(key)
}

fn signature(key: &[u8], id: &str, time: &str, body: &[u8]) -> Result<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key)?;
    mac.update(format!("{id}.{time}.").as_bytes());
    mac.update(body);
    Ok(BASE64_STANDARD.encode(mac.finalize().into_bytes()))
}
