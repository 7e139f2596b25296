//! The life of a sink: read, send, judge, acknowledge, and wait where that is all that can be done.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::watch;

use super::backoff::Backoff;
use super::{Answer, Sink, Trouble, Verdict};
use crate::ledger::LedgerClient;
use crate::store::Spooled;

/// How long a sink may go on delivering when the agent stops.
const FLUSH_MAX: Duration = Duration::from_secs(5);

/// Delivers until nothing more comes and everything is delivered, or the agent has waited long enough.
pub(super) async fn deliver(sink: Sink, ledger: LedgerClient) {
    let spooled = ledger.spooled();
    let end = async {
        ended(spooled.clone()).await;
        tokio::time::sleep(FLUSH_MAX).await;
    };
    let backoff = Backoff::new(sink.retry_delay_max);
    let mut courier = Courier { backoff, sink, ledger, spooled: spooled.clone() };
    tokio::select! {
        () = courier.run() => {}
        () = end => {}
    }
}

/// Waits until nothing more comes.
async fn ended(mut spooled: watch::Receiver<i64>) {
    while spooled.changed().await.is_ok() {}
}

struct Courier {
    sink: Sink,
    ledger: LedgerClient,
    spooled: watch::Receiver<i64>,
    backoff: Backoff,
}

/// The agent stops while there is trouble: what is left is delivered by the next run.
struct Stopped;

impl Courier {
    async fn run(&mut self) {
        let Ok(mut position) = self.cursor().await else { return };
        loop {
            let newest = *self.spooled.borrow_and_update();
            self.sink.status.waiting.store(newest.saturating_sub(position).max(0).unsigned_abs(), Relaxed);
            let batch = self.ledger.read(position, self.sink.count_max, self.sink.bytes_max).await;
            match batch.as_deref() {
                Ok([]) => {
                    if self.spooled.changed().await.is_err() {
                        return;
                    }
                }
                Ok([.., last]) => {
                    position = last.sequence;
                    if self.settle(batch.unwrap_or_default()).await.is_err() {
                        return;
                    }
                }
                Err(_) => {
                    if self.pause(None).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn cursor(&mut self) -> Result<i64, Stopped> {
        loop {
            match self.ledger.cursor(&self.sink.name).await {
                Ok(cursor) => return Ok(cursor),
                Err(_) => self.pause(None).await?,
            }
        }
    }

    /// Sends alerts until each is delivered or set aside.
    async fn settle(&mut self, mut alerts: Vec<Spooled>) -> Result<(), Stopped> {
        let (mut size, last) = (alerts.len(), alerts.last().map_or(0, |last| last.sequence));
        while !alerts.is_empty() {
            let part = &alerts[..size.min(alerts.len())];
            let verdicts = match self.sink.upstream.send(part).await {
                Answer::Judged(verdicts) => verdicts,
                Answer::Refused(_) if part.len() > 1 => {
                    size = part.len() / 2;
                    continue;
                }
                Answer::Refused(reason) => vec![Verdict::Rejected(reason)],
                Answer::Trouble(trouble) => {
                    self.wait_out(trouble).await?;
                    continue;
                }
            };
            let busy;
            (alerts, busy) = self.judge(alerts, verdicts).await?;
            let settled = alerts.first().map_or(last, |left| left.sequence - 1);
            self.ledger.acknowledge(&self.sink.name, settled);
            match busy {
                Some(reason) => self.wait_out(reason.into()).await?,
                None => {
                    self.backoff.reset();
                    self.sink.status.succeed();
                }
            }
        }
        Ok(())
    }

    /// Does what the verdicts say, and returns the alerts that are still to be delivered, and why, where upstream said.
    async fn judge(
        &mut self,
        alerts: Vec<Spooled>,
        verdicts: Vec<Verdict>,
    ) -> Result<(Vec<Spooled>, Option<String>), Stopped> {
        let status = self.sink.status();
        let mut verdicts = verdicts.into_iter();
        let (mut left, mut busy) = (Vec::new(), None);
        for alert in alerts {
            match verdicts.next() {
                Some(Verdict::Delivered) => _ = status.delivered.fetch_add(1, Relaxed),
                Some(Verdict::Known) => _ = status.known.fetch_add(1, Relaxed),
                Some(Verdict::Rejected(reason)) => self.set_aside(&alert, &reason).await?,
                Some(Verdict::Busy(reason)) => {
                    busy.get_or_insert(reason);
                    left.push(alert);
                }
                None => left.push(alert),
            }
        }
        Ok((left, busy))
    }

    /// An alert that cannot be set aside now, because the disk is full, say, is not given up either.
    async fn set_aside(&mut self, alert: &Spooled, reason: &str) -> Result<(), Stopped> {
        let path = self.sink.dead_letters.path().display().to_string();
        while let Err(error) = self.sink.dead_letters.write(alert, reason) {
            self.wait_out(format!("cannot write {path}: {error}").into()).await?;
        }
        let count = self.sink.status.set_aside.fetch_add(1, Relaxed) + 1;
        let id = &alert.id;
        self.sink.status.rejected.raise(format!(
            "upstream refused {count} alerts, which were set aside in {path}; the last is {id}: {reason}"
        ));
        Ok(())
    }

    async fn wait_out(&mut self, trouble: Trouble) -> Result<(), Stopped> {
        self.sink.status.retries.fetch_add(1, Relaxed);
        self.sink.status.trouble.raise(trouble.message);
        self.pause(trouble.after).await
    }

    async fn pause(&mut self, asked: Option<Duration>) -> Result<(), Stopped> {
        let delay = self.backoff.next(asked);
        tokio::select! {
            () = tokio::time::sleep(delay) => Ok(()),
            () = ended(self.spooled.clone()) => Err(Stopped),
        }
    }
}
