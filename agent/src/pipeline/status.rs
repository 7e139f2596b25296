//! The control socket, and what `lapwing status` says beside what lanes report.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use lapwing_engine::{Loaded, Schema};
use serde_json::json;

use crate::config::Config;
use crate::control::Server;
use crate::lane::LaneClient;
use crate::ledger::LedgerClient;
use crate::runtime::AsyncRuntime;
use crate::sink::Sink;

/// What `lapwing status` shows beside the lanes.
pub(super) struct About<'a> {
    pub(super) config: &'a Config,
    pub(super) loaded: &'a Loaded,
    pub(super) exceptions_refused: usize,
    pub(super) schema: &'a Arc<Schema>,
    pub(super) sinks: &'a [Sink],
    pub(super) started: Instant,
}

impl About<'_> {
    /// Opens the control socket, which shows others that the agent is running. What can fail comes before it. Signals
    /// are caught before it, because a client that finds the socket may stop the agent.
    pub(super) fn serve(
        &self,
        runtime: &AsyncRuntime,
        lanes: &[LaneClient],
        ledger: &LedgerClient,
    ) -> Result<()> {
        let started = self.started;
        let refused = self.loaded.refused();
        let enabled = self.loaded.rules.iter().filter(|rule| rule.enabled).count();
        let rules = json!({
            "loaded": self.loaded.rules.len(),
            "enabled": enabled,
            "refused_files": refused,
            "refused_exceptions": self.exceptions_refused,
        });
        let sinks: Vec<_> = self.sinks.iter().map(Sink::status).collect();
        let ledger = ledger.clone();
        let status = move || {
            json!({
                "version": env!("CARGO_PKG_VERSION"),
                "pid": std::process::id(),
                "uptime_seconds": started.elapsed().as_secs(),
                "rules": rules,
                "ledger": ledger.report(),
                "sinks": sinks.iter().map(|sink| sink.report()).collect::<Vec<_>>(),
            })
        };
        let runtime = runtime.handle();
        let _entered = runtime.enter();
        let server = Server::bind(&self.config.control.socket, lanes.to_vec(), self.schema.clone(), status)?;
        runtime.spawn(server.run());
        Ok(())
    }
}
