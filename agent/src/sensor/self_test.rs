//! The test of all hooks at the start: each must record what the canary does.

use std::time::{Duration, Instant};

use aya::Btf;

use super::Sensor;
use super::hook::{Choices, Retry};
use super::record::Record;

/// How long the start waits for the canary.
const CANARY_WAIT: Duration = Duration::from_secs(2);

impl Sensor {
    /// Tests the hooks by the canary. Those that fail twice, because a busy host may be slow, are attached by their next
    /// method, and tested again.
    pub(super) fn test(&mut self, btf: &Btf, choices: &Choices) {
        self.await_canary();
        if !self.canary.is_seen(&self.hooks) {
            self.canary.fly_again();
            self.await_canary();
        }
        self.canary.mark_silent(&mut self.hooks);
        if let Some(mut ebpf) = self.ebpf.take() {
            let mut retry = Retry::new(&mut ebpf, btf, choices);
            while retry.attach_next(&mut self.hooks) {
                self.canary.fly_again();
                self.await_canary();
                self.canary.mark_silent(&mut self.hooks);
            }
            self.ebpf = Some(ebpf);
        }
        // The same records are read again, and skipped.
        self.canary.rewind();
        for report in &self.hooks {
            let reason = report.reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
            let method = report.method.map(|method| format!(" by {method}")).unwrap_or_default();
            tracing::info!("hook {}: {}{method}{reason}", report.name, report.state);
        }
    }

    /// Waits until every hook has recorded the canary. Other records stay in the ring's buffer.
    pub(super) fn await_canary(&mut self) {
        let start = Instant::now();
        while !self.canary.is_seen(&self.hooks) && start.elapsed() < CANARY_WAIT {
            self.ring.wait(Duration::from_millis(1));
            // There is no next run yet.
            self.ring.take(|_| {});
            self.canary.rewind();
            for bytes in self.ring.later() {
                if let Ok(record) = Record::parse(bytes) {
                    self.canary.takes(bytes, &record);
                }
            }
        }
    }
}
