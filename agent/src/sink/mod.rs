//! Upstream: alerts leave the host here, in order for each sink, at least once.
//!
//! A sink reads the spool from its own cursor, sends, and acknowledges. What upstream cannot take now is sent
//! again, with an alarm, for as long as it takes: no credentials, no permission and no server are reasons to
//! wait, never to drop. An alert that upstream refuses is sent in smaller forms; one that it refuses in every form
//! while it takes others is dead-lettered, in a file, with the reason. A sink knows no rule and no source, and nothing
//! waits for it.

pub(crate) mod dead_letter;
mod delivery;
mod elasticsearch;
mod http;
mod parcel;
mod secret;
mod status;
mod waiting;
mod webhook;

pub(crate) use dead_letter::retry;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytesize::ByteSize;
use serde::Deserialize;
use tokio::task::JoinSet;

use crate::ledger::LedgerClient;
use crate::store::Spooled;

/// How many bytes of alerts go into one request, unless the configuration says it.
pub(crate) const BATCH_BYTES: ByteSize = ByteSize::mib(1);
/// How long `lapwing check` waits for what upstream says.
const TARGET_WAIT: Duration = Duration::from_secs(5);

/// A `[[sink]]` section.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(crate) enum Config {
    /// `type = "elasticsearch"`, for OpenSearch as well.
    Elasticsearch(elasticsearch::Config),
    /// `type = "webhook"`.
    Webhook(webhook::Config),
}

impl Config {
    /// The name that identifies the sink in the store, in the log and in `lapwing status`.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Elasticsearch(config) => &config.name,
            Self::Webhook(config) => &config.name,
        }
    }
}

/// A `[sink.batch]` section: how much goes into one request.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Batch {
    /// How many alerts. Default: 200; 1 where a webhook has a template.
    pub(crate) count_max: Option<usize>,
    /// How many bytes of alerts; a larger alert goes alone. Default: `1 MiB`.
    pub(crate) bytes_max: Option<ByteSize>,
}

/// A sink that is ready to deliver.
pub(crate) struct Sink {
    name: String,
    upstream: Upstream,
    count_max: usize,
    bytes_max: usize,
    retry_delay_max: Duration,
    dead_letters: dead_letter::DeadLetters,
    /// The folder of what waits apart.
    dead_letters_in: PathBuf,
    status: Arc<status::Status>,
}

/// Whom a sink talks to: a closed set, a file each.
enum Upstream {
    Elasticsearch(elasticsearch::Elasticsearch),
    Webhook(webhook::Webhook),
}

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// A verdict for each alert, in the order in which they were sent.
    PerAlert(Vec<Verdict>),
    /// Upstream refused the request for what is in it: it is too large, or one of its alerts is bad.
    Refused(String),
    /// Upstream has no room for a request of this size now.
    TooMuch(Trouble),
    /// The request is to be sent again.
    Trouble(Trouble),
}

/// What became of an alert.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Delivered,
    /// It had been delivered before.
    Known,
    /// It is to be sent again, as all that upstream has no room for now.
    Busy(String),
    /// It is to be sent again: something fails for this one.
    Failed(String),
    /// It is refused as it is.
    Rejected(String),
    /// The same, and it is what upstream is set up for that is too small for it: it is never given up.
    Unfit(String),
}

/// What alerts are written to, as far as can be seen.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    /// It is made for them.
    Good,
    /// Upstream does not say.
    Unknown,
    /// It is there and not made for them, why, and the cure.
    Wrong(String),
    /// It is not there, and the first alert would make a wrong one.
    Missing(String),
}

impl Target {
    fn is_good(&self) -> bool {
        matches!(self, Self::Good | Self::Unknown)
    }
}

/// Why a request is to be sent again, and, where upstream said so, after how long.
#[derive(Debug, PartialEq, Eq)]
struct Trouble {
    message: String,
    after: Option<Duration>,
    /// Whether upstream answered, so that it may be what is in the request.
    is_answer: bool,
}

impl From<String> for Trouble {
    fn from(message: String) -> Self {
        Self { message, after: None, is_answer: false }
    }
}

impl Upstream {
    async fn send(&self, alerts: &[Spooled]) -> Answer {
        match self {
            Self::Elasticsearch(upstream) => upstream.send(alerts).await,
            Self::Webhook(upstream) => upstream.send(alerts).await,
        }
    }

    async fn target(&self) -> Target {
        match self {
            Self::Elasticsearch(upstream) => upstream.target().await,
            Self::Webhook(_) => Target::Unknown,
        }
    }
}

impl Sink {
    /// A sink as configured. What it cannot deliver is dead-lettered in a file of `dead_letters`, a directory.
    ///
    /// # Errors
    /// The configuration makes no sense; the message names the key.
    pub(crate) fn new(config: &Config, dead_letters: &Path) -> Result<Self> {
        let name = config.name().to_owned();
        let of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        ensure!(
            !name.is_empty() && name.len() <= 64 && name.chars().all(of_name),
            "`sink.name` is `{name}`; it must be 1 to 64 letters, digits, `-` or `_`"
        );
        let letters = match config {
            Config::Elasticsearch(config) => &config.dead_letters,
            Config::Webhook(config) => &config.dead_letters,
        };
        let built = match config {
            Config::Elasticsearch(config) => elasticsearch::Elasticsearch::new(config).map(|upstream| {
                (Upstream::Elasticsearch(upstream), &config.batch, config.retry_delay_max, 200)
            }),
            Config::Webhook(config) => webhook::Webhook::new(config).map(|upstream| {
                let count_max = if upstream.has_template() { 1 } else { 200 };
                (Upstream::Webhook(upstream), &config.batch, config.retry_delay_max, count_max)
            }),
        };
        let (upstream, batch, retry_delay_max, count_max) =
            built.with_context(|| format!("sink `{name}`"))?;
        let bytes_max = batch.bytes_max.unwrap_or(BATCH_BYTES).as_u64();
        Ok(Self {
            upstream,
            count_max: batch.count_max.unwrap_or(count_max).max(1),
            bytes_max: usize::try_from(bytes_max).unwrap_or(usize::MAX),
            retry_delay_max: retry_delay_max.unwrap_or(Duration::from_secs(30)),
            dead_letters: dead_letter::DeadLetters::open(dead_letters, &name, letters),
            dead_letters_in: dead_letters.to_owned(),
            status: Arc::new(status::Status::new(&name)),
            name,
        })
    }

    /// Reads what the configuration names, such as certificates and passwords, for `lapwing check`.
    ///
    /// # Errors
    /// Something cannot be read or used.
    pub(crate) fn check(&self) -> Result<()> {
        match &self.upstream {
            Upstream::Elasticsearch(upstream) => upstream.check(),
            Upstream::Webhook(upstream) => upstream.check(),
        }
        .with_context(|| format!("sink `{}`", self.name))
    }

    /// Asks upstream what alerts are written to, for `lapwing check`. An upstream that does not say is no fault.
    ///
    /// # Errors
    /// It is not what it should be.
    pub(crate) fn check_target(&self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let target = async { tokio::time::timeout(TARGET_WAIT, self.upstream.target()).await };
        match runtime.block_on(target) {
            Ok(Target::Wrong(why) | Target::Missing(why)) => bail!("sink `{}`: {why}", self.name),
            _ => Ok(()),
        }
    }

    /// How the sink is doing, also while it runs.
    pub(crate) fn status(&self) -> Arc<status::Status> {
        Arc::clone(&self.status)
    }
}

/// The sinks as configured.
///
/// # Errors
/// As of [`Sink::new`], or two have the same name.
pub(crate) fn sinks(configs: &[Config], dead_letters: &Path) -> Result<Vec<Sink>> {
    for (index, config) in configs.iter().enumerate() {
        let name = config.name();
        let twice = configs[..index].iter().any(|other| other.name() == name);
        ensure!(!twice, "two sinks have the name `{name}`; a sink's place in the spool is kept by its name");
    }
    configs.iter().map(|config| Sink::new(config, dead_letters)).collect()
}

/// Delivers until the ledger says that nothing more comes, and then for a short while what is left.
pub(crate) async fn run(sinks: Vec<Sink>, ledger: LedgerClient) {
    let mut tasks = JoinSet::new();
    for sink in sinks {
        tasks.spawn(delivery::deliver(sink, ledger.clone()));
    }
    drop(ledger);
    while tasks.join_next().await.is_some() {}
}

#[cfg(test)]
mod tests;
