//! The store follows the log. Normally both get an alert together. After a crash between the two, and while the spool
//! is full, the log is ahead, and the store reads what it lacks from there.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use lapwing_engine::Timestamp;

use crate::alert::AlertDocument;
use crate::alert_log::{Forward, Position};
use crate::clock;
use crate::store::{DocumentLocation, LogCursor, Store};

/// How much of the log is read in one transaction.
const FOLLOW_BYTES_MAX: usize = 4 << 20;
/// How old an alert may be to be sent if the store has no position in the log: it is new, or the file of its position
/// is gone.
const RESEND_AGE_MAX: Duration = Duration::from_hours(24);

/// The result of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FollowRead {
    /// There is more to read.
    Some,
    /// The store has everything that the log has.
    All,
    /// The spool is full.
    Full,
}

/// At start, reads what the log has and the store does not. Alerts without room stay in the log; the store has their
/// ids.
pub(super) fn recover(log: &Path, store: &mut Store) -> Result<FollowRead> {
    let position = store.position(LogCursor::Taken)?;
    let was_empty = position == Some(Position::default());
    let (_, found) = Forward::new(log.to_owned(), position)?;
    let since = if found || was_empty { Timestamp::MIN } else { clock::now() - RESEND_AGE_MAX };
    loop {
        match take_over(log, store, since)? {
            FollowRead::Some => {}
            FollowRead::All => return Ok(FollowRead::All),
            FollowRead::Full => {
                know_the_rest(log, store)?;
                return Ok(FollowRead::Full);
            }
        }
    }
}

/// Reads the log from the store's position. The spool gets alerts that are not older than `since`.
pub(super) fn take_over(log: &Path, store: &mut Store, since: Timestamp) -> Result<FollowRead> {
    let (mut reader, _) = Forward::new(log.to_owned(), store.position(LogCursor::Taken)?)?;
    let mut changes = store.change()?;
    let mut position = reader.position().clone();
    let (mut line, mut bytes) = (Vec::new(), 0);
    let taken = loop {
        if bytes >= FOLLOW_BYTES_MAX {
            break FollowRead::Some;
        }
        if !reader.next_line(&mut line)? {
            break FollowRead::All;
        }
        bytes += line.len();
        match read(&line) {
            Some(alert) if alert.time < since => changes.recall(&alert)?,
            Some(alert) if changes.alert(&alert, DocumentLocation::Spool)? == DocumentLocation::Log => {
                break FollowRead::Full;
            }
            _ => {}
        }
        position.clone_from(reader.position());
    };
    if reader.passed_over() > 0 {
        tracing::error!(
            "{} lines of the alert log are too long to be delivered; `lapwing alerts` may still show them",
            reader.passed_over()
        );
    }
    changes.position(LogCursor::Taken, &position)?;
    if taken == FollowRead::All {
        changes.position(LogCursor::Known, &position)?;
        let missed = changes.miss()?;
        if missed > 0 {
            tracing::error!(
                "{missed} alerts were rotated out of the log before they could be delivered upstream"
            );
        }
    }
    changes.commit()?;
    Ok(taken)
}

/// Saves the ids of alerts that do not fit, so that an alert that is raised again is deduplicated.
fn know_the_rest(log: &Path, store: &mut Store) -> Result<()> {
    let (mut reader, _) = Forward::new(log.to_owned(), store.position(LogCursor::Known)?)?;
    let mut changes = store.change()?;
    let mut line = Vec::new();
    while reader.next_line(&mut line)? {
        if let Some(alert) = read(&line) {
            changes.alert(&alert, DocumentLocation::Log)?;
        }
    }
    changes.position(LogCursor::Known, reader.position())?;
    Ok(changes.commit()?)
}

/// Reads a line of the log; what is not an alert was torn by a crash, or written by others.
fn read(line: &[u8]) -> Option<AlertDocument> {
    let alert = AlertDocument::parse(line);
    if alert.is_none() {
        tracing::warn!("skipping a line of {} bytes in the alert log: not an alert", line.len());
    }
    alert
}
