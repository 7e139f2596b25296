//! The agent's own log, on standard error, from where journald reads it.

use std::io::IsTerminal as _;

use serde::Deserialize;
use tracing::level_filters::LevelFilter;

/// `[log]`: the agent's own log.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// `"error"`, `"warn"`, `"info"`, `"debug"` or `"trace"`. Default: `"info"`.
    level: Level,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

/// Starts logging. Under journald, which adds timestamps, they are omitted.
pub(crate) fn start(config: Config) {
    let level = match config.level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    let terminal = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        // The crate reports a write error to standard error, and panics if that fails too. Both fail on a full disk and
        // with a broken pipe.
        .log_internal_errors(false)
        .with_ansi(terminal && std::env::var_os("NO_COLOR").is_none())
        .with_target(false);
    let started = if std::env::var_os("JOURNAL_STREAM").is_some() {
        log.without_time().try_init()
    } else {
        log.try_init()
    };
    debug_assert!(started.is_ok(), "logging is started once");
}
