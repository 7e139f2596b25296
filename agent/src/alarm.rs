//! Trouble that lasts: told in the agent's own log when it begins, again from time to time, and when it is
//! over, but never once for each attempt. Whoever reports the agent's state reads it here.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often lasting trouble is told again.
const REMIND_EVERY: Duration = Duration::from_secs(300);

/// One thing that can go wrong for a while, such as writing the alert log.
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
    /// An alarm that is off. The subject opens each sentence that is logged, as in `sink siem`.
    pub(crate) fn new(subject: impl Into<String>) -> Self {
        Self { subject: subject.into(), state: Mutex::new(None) }
    }

    /// Something went wrong, maybe again. The message says what, and what cures it.
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

    /// It works, maybe again.
    pub(crate) fn clear(&self) {
        if let Some(raised) = self.state().take() {
            let seconds = raised.since.elapsed().as_secs();
            tracing::info!("{}: works again after {seconds} s and {} failures", self.subject, raised.times);
        }
    }

    /// What is wrong, while the alarm is on.
    pub(crate) fn message(&self) -> Option<String> {
        self.state().as_ref().map(|raised| raised.message.clone())
    }

    /// A thread that panicked while it held the state left it whole: every change is one assignment.
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
