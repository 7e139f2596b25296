//! Keys of earlier versions: each is accepted for one release, with a warning that names the new key.
//!
//! The parsed TOML is converted before it is deserialised, so that the types know the current names only and errors keep
//! their line.

use std::borrow::Cow;

use anyhow::{Result, bail};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A key that has a new name.
struct Deprecated {
    /// The tables that contain it, outermost first; of an array of tables, each.
    tables: &'static [&'static str],
    old: &'static str,
    new: &'static str,
    conversion: Conversion,
}

/// How the value of the old key becomes that of the new one.
enum Conversion {
    Unchanged,
    /// A number of seconds becomes a length of time: `60` becomes `"60s"`.
    Seconds,
    /// A word becomes another; unknown words stay, and are reported as values of the new key.
    Words(&'static [(&'static str, &'static str)]),
}

/// Every key with a new name since 0.1.
const DEPRECATED: [Deprecated; 6] = [
    deprecated(&["alerts"], "files_kept", "rotate_keep", Conversion::Unchanged),
    deprecated(&["cloudtrail"], "rescan_secs", "rescan_interval", Conversion::Seconds),
    deprecated(
        &["cloudtrail"],
        "start",
        "read_from",
        Conversion::Words(&[("all", "beginning"), ("now", "end")]),
    ),
    deprecated(
        &["cloudtrail", "queue"],
        "visibility_timeout_secs",
        "visibility_timeout",
        Conversion::Seconds,
    ),
    deprecated(&["rules"], "learn", "learning_period", Conversion::Unchanged),
    deprecated(&["sensor"], "filter", "kernel_filter", Conversion::Unchanged),
];

const fn deprecated(
    tables: &'static [&'static str],
    old: &'static str,
    new: &'static str,
    conversion: Conversion,
) -> Deprecated {
    Deprecated { tables, old, new, conversion }
}

/// Gives every deprecated key its new name and value. Returns the warnings: the line of the key, and a sentence.
///
/// # Errors
/// A key is given under both names.
pub(super) fn convert(text: &str, table: &mut DeTable<'_>) -> Result<Vec<(usize, String)>> {
    let mut warnings = Vec::new();
    for key in &DEPRECATED {
        key.convert(text, table, key.tables, &mut warnings)?;
    }
    warnings.sort();
    Ok(warnings)
}

/// Every deprecated key, with its new name.
#[cfg(test)]
pub(super) fn names() -> Vec<(String, String)> {
    DEPRECATED.iter().map(|key| (key.path(key.old), key.path(key.new))).collect()
}

impl Deprecated {
    fn convert(
        &self,
        text: &str,
        table: &mut DeTable<'_>,
        tables: &[&str],
        warnings: &mut Vec<(usize, String)>,
    ) -> Result<()> {
        let Some((first, inner)) = tables.split_first() else { return self.rename(text, table, warnings) };
        let values = match table.get_mut(*first).map(Spanned::get_mut) {
            Some(DeValue::Array(values)) => &mut **values,
            Some(DeValue::Table(table)) => return self.convert(text, table, inner, warnings),
            _ => return Ok(()),
        };
        for value in values {
            if let DeValue::Table(table) = value.get_mut() {
                self.convert(text, table, inner, warnings)?;
            }
        }
        Ok(())
    }

    fn rename(&self, text: &str, table: &mut DeTable<'_>, warnings: &mut Vec<(usize, String)>) -> Result<()> {
        let Some((key, mut value)) = table.remove_entry(self.old) else { return Ok(()) };
        let line = text.get(..key.span().start).unwrap_or(text).matches('\n').count() + 1;
        let (old, new) = (self.path(self.old), self.path(self.new));
        if table.contains_key(self.new) {
            bail!("line {line}: `{old}` is the old name of `{new}`, and both are given: remove `{old}`");
        }
        self.conversion.apply(value.get_mut());
        table.insert(Spanned::new(key.span(), Cow::Borrowed(self.new)), value);
        warnings.push((line, format!("`{old}` is deprecated: use `{new}`")));
        Ok(())
    }

    fn path(&self, key: &str) -> String {
        format!("{}.{key}", self.tables.join("."))
    }
}

impl Conversion {
    fn apply(&self, value: &mut DeValue<'_>) {
        let converted = match self {
            Self::Unchanged => None,
            Self::Seconds => value.as_integer().and_then(|seconds| {
                let seconds = i64::from_str_radix(seconds.as_str(), seconds.radix()).ok()?;
                Some(format!("{seconds}s"))
            }),
            Self::Words(words) => value.as_str().and_then(|word| {
                let (_, new) = words.iter().find(|(old, _)| *old == word)?;
                Some((*new).to_owned())
            }),
        };
        if let Some(converted) = converted {
            *value = DeValue::String(converted.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    const QUEUE: &str = "[[cloudtrail.queue]]\nurl = 'https://h/1/q'\n";

    /// What is set under an old name is what is set under the new one, and the warning gives the line and both names.
    #[test]
    fn old_keys_are_accepted_with_a_warning() {
        for (old, new, warning) in [
            (
                "[rules]\nlearn = '24h'".to_owned(),
                "[rules]\nlearning_period = '24h'".to_owned(),
                "f.toml:2: `rules.learn` is deprecated: use `rules.learning_period`",
            ),
            (
                "cloudtrail.start = 'now'".to_owned(),
                "cloudtrail.read_from = 'end'".to_owned(),
                "f.toml:1: `cloudtrail.start` is deprecated: use `cloudtrail.read_from`",
            ),
            (
                "cloudtrail = { start = 'all' }".to_owned(),
                "cloudtrail = { read_from = 'beginning' }".to_owned(),
                "f.toml:1: `cloudtrail.start` is deprecated: use `cloudtrail.read_from`",
            ),
            (
                "cloudtrail.rescan_secs = 1_0".to_owned(),
                "cloudtrail.rescan_interval = '10s'".to_owned(),
                "f.toml:1: `cloudtrail.rescan_secs` is deprecated: use `cloudtrail.rescan_interval`",
            ),
            (
                format!("{QUEUE}{QUEUE}visibility_timeout_secs = 0x20"),
                format!("{QUEUE}{QUEUE}visibility_timeout = '32s'"),
                "f.toml:5: `cloudtrail.queue.visibility_timeout_secs` is deprecated: use \
                 `cloudtrail.queue.visibility_timeout`",
            ),
            (
                "sensor.filter = false".to_owned(),
                "sensor.kernel_filter = false".to_owned(),
                "f.toml:1: `sensor.filter` is deprecated: use `sensor.kernel_filter`",
            ),
            (
                "\n\nalerts.files_kept = 3".to_owned(),
                "alerts.rotate_keep = 3".to_owned(),
                "f.toml:3: `alerts.files_kept` is deprecated: use `alerts.rotate_keep`",
            ),
        ] {
            let read = |text: &str| Config::parse("f.toml", text).unwrap_or_else(|error| panic!("{error:#}"));
            let ((old, warnings), (new, none)) = (read(&old), read(&new));
            assert_eq!(format!("{old:?}"), format!("{new:?}"));
            assert_eq!((warnings, none), (vec![warning.to_owned()], Vec::new()));
        }
    }

    #[test]
    fn wrong_values_of_old_keys_are_errors_with_their_line() {
        for (text, error) in [
            (
                "[rules]\nlearning_period = '1d'\nlearn = '1d'",
                "line 3: `rules.learn` is the old name of `rules.learning_period`, and both are given: remove `rules.learn`",
            ),
            ("\ncloudtrail.start = 'today'", "line 2, column 20"),
            ("cloudtrail.start = 'today'", "unknown variant `today`, expected `beginning` or `end`"),
            ("cloudtrail.rescan_secs = 0", "`0s` must be longer than nothing"),
            ("cloudtrail.rescan_secs = -1", "`-1s` must not be negative"),
            ("cloudtrail.rescan_secs = true", "invalid type: boolean `true`, expected a string"),
            ("\nsensor.filter = 7", "2 | sensor.filter = 7"),
        ] {
            let found = format!("{:#}", Config::parse("f.toml", text).unwrap_err());
            assert!(found.contains(error), "{text}: {found}");
        }
    }
}
