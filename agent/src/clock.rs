//! The time now, the change times of files, and durations as people write them.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::{SignedDuration, SpanRelativeTo};
use lapwing_engine::Timestamp;
use serde::{Deserialize, Deserializer, de};

/// The time now.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_nanos(i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX))
}

/// When a file's content or inode was last changed, in nanoseconds since 1970: it cannot be set back, so it shows when
/// a file arrived.
pub(crate) fn changed(metadata: &Metadata) -> i64 {
    metadata.ctime().saturating_mul(1_000_000_000).saturating_add(metadata.ctime_nsec())
}

/// Parses a duration such as `90s`, `2h 30m` or `7d`; a day is 24 hours.
///
/// # Errors
/// The text is not a duration, or is negative.
pub(crate) fn period(text: &str) -> Result<Duration> {
    let span: jiff::Span =
        text.parse().ok().context("must be a length of time such as `30s`, `2h` or `7d`")?;
    let length: SignedDuration = span.to_duration(SpanRelativeTo::days_are_24_hours())?;
    length.try_into().ok().context("must not be negative")
}

/// For `#[serde(deserialize_with)]`: a [`period`] that is not zero.
///
/// # Errors
/// Those of [`period`].
pub(crate) fn deserialize_period<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    match period(&text) {
        Ok(Duration::ZERO) => Err(de::Error::custom(format!("`{text}` must be longer than nothing"))),
        Ok(length) => Ok(length),
        Err(error) => Err(de::Error::custom(format!("`{text}` {error}"))),
    }
}

/// For `#[serde(deserialize_with)]`: a [`period`] that may be zero.
///
/// # Errors
/// Those of [`period`].
pub(crate) fn deserialize_period_or_none<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    period(&text).map_err(|error| de::Error::custom(format!("`{text}` {error}")))
}

/// As [`deserialize_period`], for a value whose default is set elsewhere.
///
/// # Errors
/// Those of [`period`].
pub(crate) fn deserialize_some_period<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    deserialize_period(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_read_as_people_write_them() {
        for (text, seconds) in [("90s", 90), ("2h 30m", 9000), ("2h30m", 9000), ("7d", 604_800), ("0s", 0)] {
            assert_eq!(period(text).ok(), Some(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "soon", "-5s", "5", "1 month"] {
            assert!(period(text).is_err(), "{text}");
        }
    }
}
