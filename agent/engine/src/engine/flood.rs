//! `max_signals`: how many alerts a rule may raise in a time span.

use std::time::Duration;

use crate::detect::Suppressed;
use crate::event::Timestamp;

/// Counts a rule's alerts by time span.
#[derive(Debug)]
pub(super) struct Flood {
    span: Duration,
    raised_max: u32,
    start: Option<Timestamp>,
    raised: u32,
    suppressed: u64,
}

impl Flood {
    pub(super) fn new(span: Duration, raised_max: u32) -> Self {
        Self { span, raised_max, start: None, raised: 0, suppressed: 0 }
    }

    /// Whether an alert of this time may be raised; and, where it opens a new span, what the last one suppressed. A
    /// late alert counts for the span that is open.
    pub(super) fn admit(&mut self, time: Timestamp) -> (bool, Option<Suppressed>) {
        let start = time.floor(self.span);
        let mut summary = None;
        if self.start.is_none_or(|open| open < start) {
            summary = self.close();
            self.start = Some(start);
            self.raised = 0;
        }
        let raise = self.raised < self.raised_max;
        if raise {
            self.raised += 1;
        } else {
            self.suppressed += 1;
        }
        (raise, summary)
    }

    /// What the open span suppressed, once it is over.
    pub(super) fn advance(&mut self, now: Timestamp) -> Option<Suppressed> {
        self.start.filter(|start| *start + self.span <= now).and_then(|_| self.close())
    }

    /// Whether nothing is to be told when the open span is over.
    pub(super) fn is_idle(&self) -> bool {
        self.suppressed == 0
    }

    fn close(&mut self) -> Option<Suppressed> {
        let count = std::mem::take(&mut self.suppressed);
        let start = self.start?;
        (count > 0).then(|| Suppressed { count, start, end: start + self.span, group: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_over_the_limit_are_counted_and_told_once() {
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
        let mut flood = Flood::new(Duration::from_secs(10), 2);
        for second in [1, 2] {
            assert_eq!(flood.admit(at(second)), (true, None));
        }
        for second in [3, 4] {
            assert_eq!(flood.admit(at(second)), (false, None));
        }
        assert_eq!(flood.advance(at(9)), None);
        let summary = Suppressed { count: 2, start: at(0), end: at(10), group: None };
        assert_eq!(flood.advance(at(10)), Some(summary));
        assert_eq!(flood.advance(at(11)), None);
        assert_eq!(flood.admit(at(12)), (true, None));
    }
}
