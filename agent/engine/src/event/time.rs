//! Event time: nanoseconds since the Unix epoch, and nothing that reads a clock.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use jiff::fmt::temporal::DateTimeParser;

/// A point in time in nanoseconds since 1970-01-01T00:00:00Z; it spans the years 1677 to 2262.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The earliest time that can be represented.
    pub const MIN: Self = Self(i64::MIN);
    /// The latest time that can be represented.
    pub const MAX: Self = Self(i64::MAX);

    /// The time `nanos` nanoseconds after the Unix epoch.
    #[must_use]
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// The time `millis` milliseconds after the Unix epoch, clamped to the range that can be represented.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// Reads an RFC 3339 time, as ECS writes `@timestamp`; `None` where the text is no such time.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        static PARSER: DateTimeParser = DateTimeParser::new();
        let time = PARSER.parse_timestamp(text).ok()?;
        i64::try_from(time.as_nanosecond()).ok().map(Self)
    }

    /// Reads a time in any of the forms that a date field of Elasticsearch takes unless its mapping says otherwise,
    /// `strict_date_optional_time||epoch_millis`: a date that may be as short as its year, with or without a time and
    /// a zone, UTC being meant where there is none; or milliseconds since 1970. Four digits alone are a year.
    #[must_use]
    pub fn parse_date(text: &str) -> Option<Self> {
        static PARSER: DateTimeParser = DateTimeParser::new();
        let digits = text.strip_prefix('-').unwrap_or(text);
        if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) && text.len() != 4 {
            return text.parse().ok().map(Self::from_millis);
        }
        if let Some(time) = Self::parse(text) {
            return Some(time);
        }
        let whole = match text.len() {
            4 => format!("{text}-01-01"),
            7 => format!("{text}-01"),
            _ => text.to_owned(),
        };
        if whole.as_bytes().get(4) != Some(&b'-') || whole.ends_with(['Z', 'z', ']']) {
            return None;
        }
        let time = PARSER.parse_datetime(&whole).ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
        i64::try_from(time.timestamp().as_nanosecond()).ok().map(Self)
    }

    /// Nanoseconds since the Unix epoch.
    #[must_use]
    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// Milliseconds since the Unix epoch, rounded down.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// How long after `earlier` this is; zero where it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        u64::try_from(self.0.saturating_sub(earlier.0)).map_or(Duration::ZERO, Duration::from_nanos)
    }

    /// The start of the span of this length that holds this time, counted from the epoch.
    #[must_use]
    pub fn floor(self, span: Duration) -> Self {
        let span = nanos(span).max(1);
        Self(self.0.div_euclid(span).saturating_mul(span))
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(duration)))
    }
}

/// Writes RFC 3339 in UTC with as many digits of the second as are needed, at least three.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.div_euclid(1_000_000_000);
        let fraction = self.0.rem_euclid(1_000_000_000);
        let time = jiff::Timestamp::from_second(seconds).map_err(|_| fmt::Error)?;
        let civil = jiff::tz::TimeZone::UTC.to_datetime(time);
        if fraction % 1_000_000 == 0 {
            write!(f, "{civil}.{:03}Z", fraction / 1_000_000)
        } else {
            write!(f, "{civil}.{fraction:09}Z")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_read_and_written() {
        for (text, written) in [
            ("2026-11-22T03:56:01Z", "2026-11-22T03:56:01.000Z"),
            ("2026-11-22T03:56:01.25+01:00", "2026-11-22T02:56:01.250Z"),
            ("2026-11-22T03:56:01.123456789Z", "2026-11-22T03:56:01.123456789Z"),
            ("1969-12-31T23:59:59.999Z", "1969-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(
                Timestamp::parse(text).map(|time| time.to_string()).as_deref(),
                Some(written),
                "{text}"
            );
        }
        assert_eq!(Timestamp::parse("yesterday"), None);
    }

    #[test]
    fn dates_are_read_as_elasticsearch_reads_them() {
        for (text, written) in [
            ("2026-11-22T03:56:01.5Z", Some("2026-11-22T03:56:01.500Z")),
            ("2026-11-22T03:56:01+02:00", Some("2026-11-22T01:56:01.000Z")),
            ("2026-11-22T03:56:01", Some("2026-11-22T03:56:01.000Z")),
            ("2026-11-22T03:56", Some("2026-11-22T03:56:00.000Z")),
            ("2026-11-22", Some("2026-11-22T00:00:00.000Z")),
            ("2026-11", Some("2026-11-01T00:00:00.000Z")),
            ("2026", Some("2026-01-01T00:00:00.000Z")),
            ("1", Some("1970-01-01T00:00:00.001Z")),
            ("-1", Some("1969-12-31T23:59:59.999Z")),
            ("1767225600000", Some("2026-01-01T00:00:00.000Z")),
            ("20261122", Some("1970-01-01T05:37:41.122Z")),
            ("99999999999999999999", None),
            ("", None),
            ("-", None),
            ("soon", None),
            ("2026-13-01", None),
            ("2026-11-22T", None),
        ] {
            let read = Timestamp::parse_date(text).map(|time| time.to_string());
            assert_eq!(read.as_deref(), written, "{text}");
        }
    }

    #[test]
    fn a_span_is_floored_from_the_epoch() {
        let time = Timestamp::parse("2026-11-22T03:56:01Z").unwrap();
        assert_eq!(time.floor(Duration::from_secs(900)).to_string(), "2026-11-22T03:45:00.000Z");
    }
}
