//! Elasticsearch and OpenSearch: `_bulk` with the operation `create` and the alert's id, which data streams accept as
//! well as plain indices. A second delivery is then a conflict and not a second alert.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::http::{Credentials, Http, Response};
use super::secret::Secret;
use super::{Answer, BATCH_COUNT, BatchConfig, Target, Trouble, Verdict, dead_letter, http};
use crate::clock;
use crate::store::Spooled;

/// A `[[sink]]` section of type `elasticsearch`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The sink's name.
    pub(crate) name: String,
    /// URLs of the nodes of one cluster; if one cannot be reached the next one is tried.
    pub(crate) urls: Vec<String>,
    /// The data stream or index. Default: `logs-lapwing.alerts-default`, a data stream.
    #[serde(default = "default_index")]
    pub(crate) index: String,
    /// The ingest pipeline. Default: the one that the index or its template names.
    pub(crate) pipeline: Option<String>,
    /// An API key, encoded or as `id:key`.
    pub(crate) api_key: Option<Secret>,
    /// The user, with `password`, in place of an API key.
    pub(crate) username: Option<String>,
    /// The password of `username`.
    pub(crate) password: Option<Secret>,
    /// Whether requests are compressed. Default: true.
    #[serde(default = "yes")]
    pub(crate) gzip: bool,
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

fn default_index() -> String {
    "logs-lapwing.alerts-default".to_owned()
}

fn yes() -> bool {
    true
}

/// A cluster.
pub(super) struct Elasticsearch {
    http: Http,
    /// The `_bulk` endpoint of each node.
    urls: Vec<Url>,
    /// The nodes.
    nodes: Vec<Url>,
    index: String,
    /// The node that is used, until it cannot be reached.
    node: AtomicUsize,
    gzip: bool,
}

/// The version of the index template that this agent's alerts need, in the `_meta` of its mapping.
const TEMPLATE_VERSION: u64 = 2;
/// The prefix of the names of indices that the template is for.
const TEMPLATE_PATTERN: &str = "logs-lapwing.alerts-";
/// How the template is installed.
const CURE: &str = "install packaging/elasticsearch/index-template.json";

/// Items that are rejected with status 400 although the alert is valid: the error's type, and what its reason begins
/// with. They are retried until the cluster is repaired.
const NOT_THE_ALERT: &[(&str, &str)] = &[
    ("illegal_argument_exception", "no write index is defined"),
    ("illegal_argument_exception", "pipeline with id"),
    ("index_closed_exception", ""),
    ("invalid_index_name_exception", ""),
    ("validation_exception", ""),
];

/// Items that are rejected because they exceed the mapping's limits: a smaller form of the alert may fit; otherwise it
/// waits for the cluster.
const NOT_FOR_THE_MAPPING: &[(&str, &str)] = &[
    ("illegal_argument_exception", "Limit of"),
    ("illegal_argument_exception", "The number of nested documents"),
    ("strict_dynamic_mapping_exception", ""),
];

#[derive(Deserialize)]
struct Bulk {
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    create: Created,
}

#[derive(Deserialize)]
struct Created {
    status: u16,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    reason: String,
    caused_by: Option<Box<Self>>,
}

impl Elasticsearch {
    pub(super) fn new(config: &Config) -> Result<Self> {
        ensure!(!config.urls.is_empty(), "`urls` must hold the URL of at least one node");
        check_index(&config.index)?;
        let (mut urls, mut nodes) = (Vec::new(), Vec::new());
        for text in &config.urls {
            let mut url = http::url("urls", text)?;
            nodes.push(url.clone());
            url.path_segments_mut()
                .ok()
                .with_context(|| format!("`urls`: `{text}` cannot be a base"))?
                .pop_if_empty()
                .extend([&config.index, "_bulk"]);
            url.query_pairs_mut().append_pair("filter_path", "items.*.status,items.*.error");
            if let Some(pipeline) = &config.pipeline {
                url.query_pairs_mut().append_pair("pipeline", pipeline);
            }
            urls.push(url);
        }
        let key = config.api_key.clone().map(Credentials::ApiKey);
        let (username, password) = (config.username.as_ref(), config.password.as_ref());
        let credentials = Credentials::of("api_key", key, username, password)?;
        let http = Http::new(&config.http, credentials, &urls)?;
        Ok(Self {
            http,
            urls,
            nodes,
            index: config.index.clone(),
            node: AtomicUsize::new(0),
            gzip: config.gzip,
        })
    }

    pub(super) fn count_max(&self) -> usize {
        BATCH_COUNT
    }

    pub(super) fn check(&self) -> Result<()> {
        self.http.check()
    }

    pub(super) async fn send(&self, alerts: &[Spooled]) -> Answer {
        let node = self.node.load(Relaxed);
        let url = &self.urls[node % self.urls.len()];
        let (headers, body) = match self.body(alerts) {
            Ok(request) => request,
            Err(error) => return Answer::Refused(format!("cannot be sent: {error}")),
        };
        let answer = match self.http.send(Method::POST, url.clone(), headers, body).await {
            Ok(response) => answer_to_bulk(&response, alerts.len(), &url.origin().ascii_serialization()),
            Err(trouble) => Answer::Trouble(trouble),
        };
        if matches!(answer, Answer::Trouble(_)) {
            self.node.store(node.wrapping_add(1), Relaxed);
        }
        answer
    }

    /// Checks whether the index has this version's template, or, if it does not exist yet, whether it will have it.
    pub(super) async fn target(&self) -> Target {
        let index = &self.index;
        let mapping = self.query(Method::GET, &[index, "_mapping"]).await;
        match mapping {
            Some((200, json)) => match json.as_object().and_then(newest) {
                Some(newest) => target_of_mapping(index, &newest["mappings"]),
                None => Target::Unknown,
            },
            Some((404, _)) => {
                match self.query(Method::POST, &["_index_template", "_simulate_index", index]).await {
                    Some((200, json)) => match version(&json["template"]["mappings"]) {
                        Some(TEMPLATE_VERSION..) => Target::Good,
                        _ if index.starts_with(TEMPLATE_PATTERN) => Target::Missing(format!(
                            "there is no `{index}` yet, and without the index template the first alert would make one that \
                         refuses others: {CURE}"
                        )),
                        _ => Target::Unknown,
                    },
                    _ => Target::Unknown,
                }
            }
            _ => Target::Unknown,
        }
    }

    /// Queries the cluster; `None` if there is no answer in JSON.
    async fn query(&self, method: Method, path: &[&str]) -> Option<(u16, Json)> {
        let mut url = self.nodes[self.node.load(Relaxed) % self.nodes.len()].clone();
        url.path_segments_mut().ok()?.pop_if_empty().extend(path);
        let response = self.http.send(method, url, HeaderMap::new(), Bytes::new()).await.ok()?;
        Some((response.status, serde_json::from_slice(&response.body).ok()?))
    }

    fn body(&self, alerts: &[Spooled]) -> std::io::Result<(HeaderMap, Bytes)> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        if !self.gzip {
            return Ok((headers, lines(alerts, Vec::new())?.into()));
        }
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        let body = lines(alerts, GzEncoder::new(Vec::new(), Compression::fast()))?.finish()?;
        Ok((headers, body.into()))
    }
}

/// For each alert the operation and the document.
fn lines<W: Write>(alerts: &[Spooled], mut to: W) -> std::io::Result<W> {
    for Spooled { id, json, .. } in alerts {
        serde_json::to_writer(&mut to, &serde_json::json!({"create": {"_id": id}}))?;
        to.write_all(b"\n")?;
        to.write_all(json)?;
        to.write_all(b"\n")?;
    }
    Ok(to)
}

/// Classifies a mapping by the template's version in it.
fn target_of_mapping(index: &str, mapping: &Json) -> Target {
    match version(mapping) {
        Some(TEMPLATE_VERSION..) => Target::Good,
        Some(old) => Target::Wrong(format!(
            "`{index}` was made with version {old} of the index template, and this is version {TEMPLATE_VERSION}: {CURE}, \
             and roll the data stream over"
        )),
        None => Target::Wrong(format!(
            "`{index}` was not made with the index template of this version, so that it may refuse alerts, or not find \
             them: {CURE}, and roll the data stream over, or make a plain index anew"
        )),
    }
}

/// The newest of the indices behind a data stream: their names end with a number.
fn newest(indices: &Map<String, Json>) -> Option<&Json> {
    indices.iter().max_by(|(left, _), (right, _)| left.cmp(right)).map(|(_, index)| index)
}

fn version(mapping: &Json) -> Option<u64> {
    mapping["_meta"]["lapwing"]["template"].as_u64()
}

fn answer_to_bulk(response: &Response, count: usize, place: &str) -> Answer {
    if response.status == 429 && response.is_too_much() {
        return Answer::TooMuch(Trouble { is_answer: false, ..response.trouble(place) });
    }
    if response.status == 413 {
        return Answer::Refused(format!("larger than {place} takes ({})", response.summary()));
    }
    if !response.is_success() {
        return Answer::Trouble(response.trouble(place));
    }
    match serde_json::from_slice::<Bulk>(&response.body) {
        Ok(bulk) if bulk.items.len() == count => {
            Answer::PerAlert(bulk.items.into_iter().map(|item| verdict(item.create)).collect())
        }
        _ => Answer::Trouble(
            format!("{place} does not answer as Elasticsearch does: {}; check `urls`", response.summary())
                .into(),
        ),
    }
}

fn verdict(Created { status, error }: Created) -> Verdict {
    let reason = || {
        error.as_ref().map_or_else(|| status.to_string(), |error| format!("{status} {}", error.describe()))
    };
    let is_of = |table| error.as_ref().is_some_and(|error| error.is_of(table));
    match status {
        200..300 => Verdict::Delivered,
        409 => Verdict::Known,
        400 if is_of(NOT_FOR_THE_MAPPING) => Verdict::Unfit(reason()),
        400 if !is_of(NOT_THE_ALERT) => Verdict::Rejected(reason()),
        429 => Verdict::Busy(format!("the cluster is busy: {}", reason())),
        _ => Verdict::Failed(format!("the cluster does not take an alert: {}", reason())),
    }
}

impl Refusal {
    /// Whether the error, or one of its causes, is in a table of types and prefixes of reasons.
    fn is_of(&self, table: &[(&str, &str)]) -> bool {
        table.iter().any(|(kind, reason)| self.kind == *kind && self.reason.starts_with(reason))
            || self.caused_by.as_ref().is_some_and(|cause| cause.is_of(table))
    }

    /// The error and its causes.
    fn describe(&self) -> String {
        let own = format!("{}: {}", self.kind, self.reason);
        match &self.caused_by {
            Some(cause) => format!("{own}; {}", cause.describe()),
            None => own,
        }
    }
}

/// Elasticsearch would reject a bad name for each alert; this reports it once.
fn check_index(index: &str) -> Result<()> {
    let wrong = index.is_empty()
        || index.len() > 255
        || index.starts_with(['-', '_', '+', '.'])
        || index.chars().any(|c| c.is_uppercase() || c.is_whitespace() || "\\/*?\"<>|,#:".contains(c));
    ensure!(
        !wrong,
        "`index` is `{index}`; the name of a data stream or index is lower case, without blanks and any of \
         \\ / * ? \" < > | , # :, and does not begin with - _ + ."
    );
    Ok(())
}
