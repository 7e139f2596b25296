//! Upstream: alerts leave the host here, in order for each sink, at least once.
//!
//! A sink reads the spool from its own cursor, sends, and acknowledges. What upstream cannot accept now is retried,
//! with an alarm, without a limit: missing credentials, permissions or servers are reasons to wait, never to drop. An
//! alert that upstream rejects is sent in smaller forms. One that it rejects in every form, while it accepts others,
//! becomes a dead letter: it is written to a file with the reason. A sink imports no rule and no source, and nothing
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

/// Default number of bytes of alerts in one request.
pub(crate) const BATCH_BYTES: ByteSize = ByteSize::mib(1);
/// How long `lapwing check` waits for upstream.
const TARGET_WAIT: Duration = Duration::from_secs(5);

/// How many alerts go into one request unless the configuration sets it.
const BATCH_COUNT: usize = 200;

/// Builds the dispatch to upstreams from one row for each. A row names the variant, which is also the type, and its file.
/// The file has `Config` with `name`, `batch`, `dead_letters` and `retry_delay_max`, and the type has `new`, `count_max`,
/// `check`, `send` and `target`.
macro_rules! upstreams {
    ($($(#[$doc:meta])+ $kind:ident in $file:ident,)+) => {
        /// A `[[sink]]` section.
        #[derive(Clone, Debug, Deserialize)]
        #[serde(tag = "type", rename_all = "lowercase")]
        pub(crate) enum Config {
            $($(#[$doc])+ $kind($file::Config),)+
        }

        /// The kinds of upstream: a closed set, one file each.
        enum Upstream {
            $($kind($file::$kind),)+
        }

        impl Config {
            /// The name that identifies the sink in the store, in the log and in `lapwing status`.
            pub(crate) fn name(&self) -> &str {
                match self {
                    $(Self::$kind(config) => &config.name,)+
                }
            }

            /// How much goes into one request, the longest delay between two attempts, and the dead letters.
            fn delivery(&self) -> (&BatchConfig, Option<Duration>, &dead_letter::Config) {
                match self {
                    $(Self::$kind(config) => (&config.batch, config.retry_delay_max, &config.dead_letters),)+
                }
            }
        }

        impl Upstream {
            fn new(config: &Config) -> Result<Self> {
                match config {
                    $(Config::$kind(config) => $file::$kind::new(config).map(Self::$kind),)+
                }
            }

            fn count_max(&self) -> usize {
                match self {
                    $(Self::$kind(upstream) => upstream.count_max(),)+
                }
            }

            fn check(&self) -> Result<()> {
                match self {
                    $(Self::$kind(upstream) => upstream.check(),)+
                }
            }

            async fn send(&self, alerts: &[Spooled]) -> Answer {
                match self {
                    $(Self::$kind(upstream) => upstream.send(alerts).await,)+
                }
            }

            async fn target(&self) -> Target {
                match self {
                    $(Self::$kind(upstream) => upstream.target().await,)+
                }
            }
        }
    };
}

upstreams! {
    /// `type = "elasticsearch"`, for OpenSearch as well.
    Elasticsearch in elasticsearch,
    /// `type = "webhook"`.
    Webhook in webhook,
}

/// A `[sink.batch]` section: how much goes into one request.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct BatchConfig {
    /// How many alerts. Default: 200; 1 where a webhook has a template.
    pub(crate) count_max: Option<usize>,
    /// How many bytes of alerts; a larger alert is sent alone. Default: `1 MiB`.
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
    /// The folder of dead letters and waiting alerts.
    dead_letters_in: PathBuf,
    status: Arc<status::SinkStatus>,
}

/// The outcome of a request.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// Upstream answered for each alert, in the order in which they were sent.
    PerAlert(Vec<Verdict>),
    /// Upstream rejected the request for its content: it is too large, or one of its alerts is bad.
    Refused(String),
    /// Upstream has no room for a request of this size now.
    TooMuch(Trouble),
    /// The request is to be sent again.
    Trouble(Trouble),
}

/// The outcome of an alert.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Delivered,
    /// It had been delivered before.
    Known,
    /// It is to be sent again: upstream has no room for anything now.
    Busy(String),
    /// It is to be sent again: this alert failed.
    Failed(String),
    /// It is rejected in this form.
    Rejected(String),
    /// The same, because of a limit of upstream's configuration: it is never dropped.
    Unfit(String),
}

/// The state of the index that alerts are written to, as far as it can be read.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    /// It has the right mapping.
    Good,
    /// Upstream does not report it.
    Unknown,
    /// It exists with a wrong mapping: the reason and a hint.
    Wrong(String),
    /// It does not exist, and the first alert would create a wrong one.
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
    /// Whether upstream answered, so that the content of the request may be the cause.
    is_answer: bool,
}

impl From<String> for Trouble {
    fn from(message: String) -> Self {
        Self { message, after: None, is_answer: false }
    }
}

impl Sink {
    /// A sink as configured. Its dead letters go to a file in the directory `dead_letters`.
    ///
    /// # Errors
    /// The configuration is not valid; the message names the key.
    pub(crate) fn new(config: &Config, dead_letters: &Path) -> Result<Self> {
        let name = config.name().to_owned();
        let of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        ensure!(
            !name.is_empty() && name.len() <= 64 && name.chars().all(of_name),
            "`sink.name` is `{name}`; it must be 1 to 64 letters, digits, `-` or `_`"
        );
        let upstream = Upstream::new(config).with_context(|| format!("sink `{name}`"))?;
        let (batch, retry_delay_max, letters) = config.delivery();
        let bytes_max = batch.bytes_max.unwrap_or(BATCH_BYTES).as_u64();
        Ok(Self {
            count_max: batch.count_max.unwrap_or_else(|| upstream.count_max()).max(1),
            upstream,
            bytes_max: usize::try_from(bytes_max).unwrap_or(usize::MAX),
            retry_delay_max: retry_delay_max.unwrap_or(Duration::from_secs(30)),
            dead_letters: dead_letter::DeadLetters::open(dead_letters, &name, letters),
            dead_letters_in: dead_letters.to_owned(),
            status: Arc::new(status::SinkStatus::new(&name)),
            name,
        })
    }

    /// Reads what the configuration names, such as certificates and passwords, for `lapwing check`.
    ///
    /// # Errors
    /// Something cannot be read or used.
    pub(crate) fn check(&self) -> Result<()> {
        self.upstream.check().with_context(|| format!("sink `{}`", self.name))
    }

    /// Checks the index that alerts are written to, for `lapwing check`. An upstream without an answer is not an error.
    ///
    /// # Errors
    /// The index is missing or wrong.
    pub(crate) fn check_target(&self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let target = async { tokio::time::timeout(TARGET_WAIT, self.upstream.target()).await };
        match runtime.block_on(target) {
            Ok(Target::Wrong(why) | Target::Missing(why)) => bail!("sink `{}`: {why}", self.name),
            _ => Ok(()),
        }
    }

    /// How the sink is doing, also while it runs.
    pub(crate) fn status(&self) -> Arc<status::SinkStatus> {
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

/// Delivers until the ledger closes, and then the rest for a short time.
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
