//! Alarms: faults that last. An alarm is logged when it is raised, again at intervals, and when it is cleared, but not for
//! each attempt. `lapwing status` shows raised alarms.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Interval between log messages of a raised alarm.
const REMIND_EVERY: Duration = Duration::from_secs(300);

/// A fault that can last, such as a failure to write the alert log.
#[derive(Debug)]
pub(crate) struct Alarm {
    subject: String,
    state: Mutex<Option<Raised>>,
}

#[derive(Debug)]
struct Raised {
    since: Instant,
    logged: Instant,
    message: String,
    times: u64,
}

impl Alarm {
    /// A cleared alarm. The subject is the prefix of its log messages, such as `sink siem`.
    pub(crate) fn new(subject: impl Into<String>) -> Self {
        Self { subject: subject.into(), state: Mutex::new(None) }
    }

    /// Raises the alarm, perhaps again. The message has the fault and a hint.
    pub(crate) fn raise(&self, message: impl Into<String>) {
        let (message, now) = (message.into(), Instant::now());
        let mut state = self.state();
        let is_due = match state.as_ref() {
            None => true,
            Some(raised) => now.duration_since(raised.logged) >= REMIND_EVERY,
        };
        if is_due {
            tracing::error!("{}: {message}", self.subject);
        }
        *state = Some(match state.take() {
            None => Raised { since: now, logged: now, message, times: 1 },
            Some(raised) => Raised {
                logged: if is_due { now } else { raised.logged },
                message,
                times: raised.times.saturating_add(1),
                ..raised
            },
        });
    }

    /// Clears the alarm, if it is raised.
    pub(crate) fn clear(&self) {
        if let Some(raised) = self.state().take() {
            let seconds = raised.since.elapsed().as_secs();
            tracing::info!("{}: works again after {seconds} s and {} failures", self.subject, raised.times);
        }
    }

    /// The message of a raised alarm.
    pub(crate) fn message(&self) -> Option<String> {
        self.state().as_ref().map(|raised| raised.message.clone())
    }

    /// The state is consistent even if a thread panicked while it held the lock: every change is one assignment.
    fn state(&self) -> MutexGuard<'_, Option<Raised>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_on_until_cleared_and_holds_the_last_message() {
        let alarm = Alarm::new("test");
        assert_eq!(alarm.message(), None);
        alarm.raise("first");
        alarm.raise("second");
        assert_eq!(alarm.message().as_deref(), Some("second"));
        alarm.clear();
        assert_eq!(alarm.message(), None);
    }
}
